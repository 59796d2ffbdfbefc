"""Committed videos that keep rows (`pipeline.steps.conversion.keep`): histories beside a model."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from pipeline.accounting import NOT_NOW, PASSING, UNSETTLED
from pipeline.datasets.base import Dataset
from pipeline.errors import RawDataError
from pipeline.files.raw import RawVideo
from pipeline.steps.conversion import convert, reading
from pipeline.steps.conversion.keep import as_json, missing
from pipeline.steps.sentences import problems_of
from tests.fixtures import planned

NAME = "lines/train"
BROKEN = "unexpected_error"
MISSING, UNUSABLE = "missing", "unusable"
# what a file says -> why its video is rejected
MOVED_ROWS = 4
REJECTED = {"bad": "bad_label_file", "broken": BROKEN, "denied": NOT_NOW}


def given_by(content, version):
    """What a reader of this version finds in a file: a number of rows, or a key of REJECTED.
    Versions with an even number find what stands behind a slash.
    """
    first, _, second = content.split()[0].partition("/")
    return second if second and version % 2 == 0 else first


@dataclass(frozen=True)
class Lines(Dataset):
    """<video>.txt, with a note <video>.note that is not read; rows only with <video>.key. Both splits
    list all videos: those that say "moved" are of `test`.
    """

    name = "lines"
    splits = ("train", "test")
    version = 1

    def columns(self, split, *, body):
        return ("frame_index",)

    def videos(self, raw, split):
        names = sorted(file.stem for file in raw.glob("*.txt"))
        return [RawVideo(name, (Path(f"{name}.txt"), Path(f"{name}.note"))) for name in names]

    def read(self, raw, split, video, account, body):
        file = raw / video.files[0]
        found = given_by(file.read_text(), self.version)
        if found == "bad":
            raise RawDataError(file, "lines", expected="a number", found="none", do="Ask.")
        if found == "broken":
            raise ValueError("a bug")
        if found == "denied":
            raise PermissionError(13, "Permission denied", str(file))
        if not file.with_suffix(".key").exists():
            raise RawDataError(file, "key", expected="a key", found="none", do="Ask.")
        if (found == "moved") != (split == "test"):
            account.other_split = True
            return []
        found = MOVED_ROWS if found == "moved" else found
        account.found = int(found)
        account.keep_track(int(found))
        return [self.track(split, video, fps=25.0, frame_index=np.arange(int(found)))]


@dataclass
class Lab:
    """A raw folder with the videos `v` and `other`, its cache, and what is expected of `v`."""

    folder: Path
    version: int = 1
    clock: int = 0
    # the model: the committed content of `v` and what the cache has of it; "" if it has no `v`
    content: str = ""
    has: str = "0"
    by_earlier_reader: bool = False
    is_still_unusable: bool = False
    must_read: bool = False
    was_read: bool = False  # `v`, by the last command
    elsewhere: str = ""  # the content of which the other split has rows of `v`

    def __post_init__(self):
        if not self.folder.exists():
            self.raw.mkdir(parents=True)
            self.write("other", "2")

    @property
    def raw(self):
        return self.folder / "raw"

    @property
    def root(self):
        return self.folder / "cache"

    @property
    def rows(self):
        """Number of the committed rows of `v`."""
        return int(self.has) if self.has.isdigit() else 0

    def write(self, video, content):
        """Write all files of a video, at a time of their own."""
        self.clock += 1
        for suffix, text in ((".txt", content), (".note", ""), (".key", "")):
            file = (self.raw / video).with_suffix(suffix)
            file.write_text(text)
            os.utime(file, (self.clock, self.clock))

    def remove(self, video, *suffixes):
        for suffix in suffixes or (".txt", ".note", ".key"):
            (self.raw / video).with_suffix(suffix).unlink(missing_ok=True)

    def plan(self, split="train", **options):
        reader = type("Lines", (Lines,), {"version": self.version})()
        return planned(reader, split, raw=self.raw, root=self.root, **options)

    def convert(self, split="train", **options):
        """Run the command. Returns the videos that are kept -> how."""
        todo = self.plan(split, **options)
        self.was_read = "v" in {item.video.name for item in todo.items}
        kept = as_json(todo.losses)
        rejected = {}
        if todo.up_to_date:
            convert.record_moves(todo)
        else:
            done = convert.convert(todo).document
            kept, rejected = done["kept"], done["rejected"]
        assert kept["would_lose"].keys() == kept[MISSING].keys() | kept[UNUSABLE].keys()
        found = {name: how for how in (MISSING, UNUSABLE) for name in kept[how]}
        before = () if todo.committed is None else todo.committed.videos.names
        unread = [name for name in rejected if f": {NOT_NOW}: " in rejected[name]]
        return found | {name: NOT_NOW for name in unread if name in before}

    @property
    def committed(self):
        """Of each committed video: the number of its rows, and why it was rejected."""
        split = cache.open(self.root)[NAME]
        found = {video.name: (0, video.account["set_aside"]) for video in split.videos}
        for track in split.tracks:
            found[track.video] = (track.stop - track.start, found[track.video][1])
        return found

    # ----------------------------------------------------------------------------------------------
    # the model

    def expect_elsewhere(self, now):
        """The other split has been converted."""
        if now == "moved":
            self.elsewhere = now
        elif now == self.content and self.rows:
            self.elsewhere = ""

    def expect(self, now, *, changed, drop, retry, other):
        """How `v` is kept, "" if it is not. now: what its file says, "" without a file.
        changed: since the command before. other: by another reader than then.
        """
        self.must_read = False
        if not now:
            kept = MISSING if self.rows and not drop else ""
            self.by_earlier_reader = bool(kept) and (self.by_earlier_reader or other)
            self.is_still_unusable = False
            if not kept:
                self.content, self.has = "", "0"
            return kept
        has_moved = now == self.elsewhere and self.rows <= MOVED_ROWS
        still_unusable = self.is_still_unusable and not changed and not has_moved
        if still_unusable and not (drop or retry or other):
            return UNUSABLE
        is_same = now == self.content
        must_retry = REJECTED.get(self.has) == NOT_NOW or (retry and self.has in REJECTED)
        if is_same and not (must_retry or other or self.by_earlier_reader):
            return ""
        self.must_read = True
        is_other = other or self.by_earlier_reader
        kept = self._expect_read(given_by(now, self.version), is_same, drop=drop, other=is_other)
        if has_moved:
            kept = ""
        self.is_still_unusable = kept == UNUSABLE and self._is_settled(now)
        if kept:
            self.by_earlier_reader = self.by_earlier_reader or other
        else:
            self.content, self.has = now, given_by(now, self.version)
            self.by_earlier_reader = False
        return kept

    def _is_settled(self, now):
        return REJECTED.get(given_by(now, self.version), "") not in UNSETTLED

    def _expect_read(self, found, is_same, *, drop, other):
        """The same for a video that was read, and in which `found` was found."""
        if found == "denied":
            return NOT_NOW if self.content else ""
        n_found = int(found) if found.isdigit() else 0
        if n_found >= self.rows:
            return ""
        is_right = other and is_same and REJECTED.get(found, "") not in UNSETTLED
        return "" if drop or is_right else UNUSABLE


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    def ordered_map(job, videos, *_, **__):
        return map(job, videos)

    monkeypatch.setattr("pipeline.processes.ordered.ordered_map", ordered_map)


NUMBERS = ("5", "5 again", "3", "3/5", "5/3", "5/bad", "5/broken")
CONTENTS = (*NUMBERS, "bad", "broken", "denied", "moved")
FLAGS = st.booleans()
STEPS = st.tuples(st.sampled_from([*CONTENTS, "", "unchanged"]), FLAGS, FLAGS, FLAGS, FLAGS)


def check(lab, now, *, drop, retry, other, elsewhere):
    """Change the file of `v`, run the command, and compare with the model. elsewhere: after the
    other split is converted.
    """
    file = lab.raw / "v.txt"
    before = file.read_text() if file.exists() else ""
    changed = now != "unchanged"
    if not changed:
        now = before
    elif now:
        lab.write("v", now)
    else:
        lab.remove("v")
    lab.version += other
    if elsewhere:
        lab.convert("test")
        lab.expect_elsewhere(now)
    expected = lab.expect(now, changed=changed, drop=drop, retry=retry, other=other)
    kept = lab.convert(drop_removed=drop, retry=retry)
    assert kept == ({"v": expected} if expected else {})
    assert lab.was_read == lab.must_read

    committed = lab.committed
    assert committed.pop("other") == (2, "")
    is_there = {"v": (lab.rows, REJECTED.get(lab.has, ""))} if lab.content else {}
    assert committed == is_there

    # what `status` says, without reading a file
    shown = lab.plan(reads_contents=False).losses
    lasting = expected == MISSING or lab.is_still_unusable
    assert shown.keys() == (kept.keys() if lasting else set())


@pytest.mark.promise("rows kept")
@settings(max_examples=30)
@given(st.lists(STEPS, min_size=2, max_size=6))
def test_any_history_of_a_video_keeps_the_rows_that_the_rule_names(tmp_path_factory, history):
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    lab.convert()
    for now, drop, retry, other, elsewhere in history:
        check(lab, now, drop=drop, retry=retry, other=other, elsewhere=elsewhere)


NONE = {"drop": False, "retry": False, "other": False, "elsewhere": False}


@pytest.mark.parametrize("option", [*NONE, "none"])
@pytest.mark.parametrize(
    "before", [["5/3"], ["5/broken"], ["5/3", "1"], ["5", "moved"], ["bad"], ["denied"]]
)
def test_each_cell_of_the_rule(before, option, tmp_path):
    first = Lab(tmp_path / "lab")
    for content in before:
        check(first, content, **NONE)
    shutil.copytree(first.folder, tmp_path / "aside")
    for now in dict.fromkeys([before[0], *CONTENTS, "", "unchanged"]):
        shutil.rmtree(first.folder)
        shutil.copytree(tmp_path / "aside", first.folder)
        check(replace(first), now, **{name: name == option for name in NONE})


def test_a_video_that_was_away_while_the_reader_changed_is_read_when_it_is_back(tmp_path):
    lab = Lab(tmp_path / "lab")
    for now, other in (("3/5", False), ("", True), ("3/5", False)):
        check(lab, now, **{**NONE, "other": other})
    assert lab.was_read
    assert lab.committed["v"] == (5, "")


@pytest.mark.parametrize("drop", [False, True])
def test_a_video_without_one_of_its_files_is_missing(drop, tmp_path):
    lab = Lab(tmp_path / "lab")
    check(lab, "5", **NONE)
    lab.remove("v", ".note")
    for _ in range(2):
        assert missing(lab.plan(drop_removed=drop).losses) == ({} if drop else {"v": "v.note"})
        assert lab.convert(drop_removed=drop) == ({} if drop else {"v": MISSING})
        assert lab.was_read <= drop
        assert lab.committed["v"] == (5, "")


@pytest.mark.parametrize("drop", [False, True])
def test_a_renamed_video_without_rows_leaves_the_old_ones(drop, tmp_path):
    lab = Lab(tmp_path / "lab")
    check(lab, "5", **NONE)
    for suffix in (".txt", ".note"):
        (lab.raw / f"v{suffix}").rename(lab.raw / f"w{suffix}")
    for _ in range(2):
        assert lab.convert(drop_removed=drop) == ({} if drop else {"v": MISSING})
        kept = {} if drop else {"v": (5, "")}
        assert lab.committed == {**kept, "other": (2, ""), "w": (0, "bad_label_file")}


def test_a_video_that_is_renamed_while_the_reader_changes_leaves_its_rows(tmp_path):
    lab = Lab(tmp_path / "lab")
    check(lab, "5", **NONE)
    for suffix in (".txt", ".note"):
        (lab.raw / f"v{suffix}").rename(lab.raw / f"w{suffix}")
    lab.version = 3
    assert lab.convert() == {"v": MISSING}
    assert lab.committed == {"v": (5, ""), "other": (2, ""), "w": (0, "bad_label_file")}


def test_a_video_that_is_renamed_to_another_one_costs_neither_its_rows(tmp_path):
    lab = Lab(tmp_path / "lab")
    lab.write("v", "5")
    lab.write("w", "4")
    lab.convert()
    lab.remove("w")
    for suffix in (".txt", ".note"):
        (lab.raw / f"v{suffix}").rename(lab.raw / f"w{suffix}")
    lab.remove("v")
    assert lab.convert() == {"v": MISSING, "w": UNUSABLE}
    assert lab.committed == {"v": (5, ""), "other": (2, ""), "w": (4, "")}


class Killed(BaseException):
    pass


def killed_at_z(plan):
    """Carry out a plan until `z` is read, which is after a full shard of `v`."""

    def kill(n_done, total, name):
        if name == "z":
            raise Killed

    with pytest.raises(Killed):
        convert.convert(plan, progress=kill)


def test_what_a_killed_run_was_allowed_to_drop_stays_without_the_permission(tmp_path):
    lab = Lab(tmp_path / "lab")
    lab.write("v", "10000")
    lab.write("z", "9000")
    lab.convert()
    lab.write("v", "8192")
    lab.write("z", "9001")
    killed_at_z(lab.plan(drop_removed=True))
    assert lab.convert() == {"v": UNUSABLE}
    assert lab.committed == {"v": (10000, ""), "other": (2, ""), "z": (9001, "")}


def test_rows_that_another_reader_drops_are_counted_also_after_a_kill(tmp_path):
    lab = Lab(tmp_path / "lab")
    lab.write("v", "10000/8192")
    lab.write("z", "9000")
    lab.convert()
    lab.version = 2
    killed_at_z(lab.plan())
    (note,) = convert.convert(lab.plan()).document["notes"]
    assert note == "all videos: 1,808 rows of unchanged files are dropped now: v"
    assert lab.committed["v"] == (8192, "")


def test_a_reason_that_names_another_split_is_no_move(tmp_path):
    lab = Lab(tmp_path / "lab")
    name = "clip of another split"
    lab.write(name, "5")
    lab.convert()
    lab.write(name, "bad")
    for _ in range(2):
        assert lab.convert() == {name: UNUSABLE}
        assert "moved to another split" not in " ".join(problems_of(lab.plan()))
    lab.write(name, "moved")
    for _ in range(2):
        assert lab.convert() == {name: UNUSABLE}
        assert "moved to another split" in " ".join(problems_of(lab.plan()))


def test_reading_that_ended_early_settles_nothing():
    ended = {*reading.WHAT_TO_DO} - {"machine_memory"}  # which is NOT_NOW
    assert {reading.UNEXPECTED, *PASSING, *ended} == UNSETTLED


@dataclass(frozen=True)
class LinesOfImages(Lines):
    """With images in the raw folder itself."""

    def videos(self, raw, split):
        return [replace(video, folders=(Path(),)) for video in super().videos(raw, split)]


def test_videos_of_the_raw_folder_itself_are_read_again(tmp_path):
    lab = Lab(tmp_path / "lab")
    for rows in ("3", "4"):
        lab.write("v", rows)
        plan = planned(LinesOfImages(), "train", raw=lab.raw, root=lab.root)
        convert.convert(plan)
        assert lab.committed["v"] == (int(rows), "")
