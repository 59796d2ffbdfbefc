"""Committed videos that keep rows (`pipeline.steps.conversion.keep`): histories beside a model."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.accounting import PASSING, UNSETTLED
from pipeline.steps.conversion import convert, reading
from pipeline.steps.conversion.keep import missing
from pipeline.steps.sentences import problems_of
from tests.fixtures import planned
from tests.pipeline.steps.conversion.lab import MISSING, REJECTED, UNUSABLE, Lab, Lines


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
    contents = [before[0], *CONTENTS, "", "unchanged"]
    if option == "elsewhere":
        contents = ["moved", "5"]  # which the other split has, and has not
    for now in dict.fromkeys(contents):
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


@pytest.mark.parametrize(("drop", "version"), [(False, 1), (True, 1), (False, 3)])
def test_a_renamed_video_without_rows_leaves_the_old_ones(drop, version, tmp_path):
    lab = Lab(tmp_path / "lab")
    check(lab, "5", **NONE)
    for suffix in (".txt", ".note"):
        (lab.raw / f"v{suffix}").rename(lab.raw / f"w{suffix}")
    lab.version = version  # also while the reader changes
    for _ in range(2):
        assert lab.convert(drop_removed=drop) == ({} if drop else {"v": MISSING})
        kept = {} if drop else {"v": (5, "")}
        assert lab.committed == {**kept, "other": (2, ""), "w": (0, "bad_label_file")}


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
