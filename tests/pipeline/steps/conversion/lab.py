"""A raw folder, its cache, and what is expected of one of its videos."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import cache
from pipeline.accounting import NOT_NOW, UNSETTLED
from pipeline.datasets.base import Dataset
from pipeline.errors import RawDataError
from pipeline.files.raw import RawVideo
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.keep import as_json
from tests.fixtures import planned

NAME = "lines/train"
BROKEN = "unexpected_error"
MISSING, UNUSABLE = "missing", "unusable"
MOVED_ROWS = 4
# what a file says -> why its video is rejected
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
