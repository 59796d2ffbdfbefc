"""A split, streams without a network, pixels that crash and hang, and a slow job for a cluster.

Tests put a copy of this file where decoding processes find it: sources and streams are sent to them
by pickle.
"""

import itertools
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import cache
from pipeline.features.streams.base import NumberStream, PairStream, Reads, Stream
from pipeline.files.pixels.frames import Frame, increasing

SPLIT = "made_up/train"
SIDE = 32  # px


def convert(root, n_videos, n_frames, rows_per_shard=16):
    """A split of videos of one person each, from frame 0 on, whose box is in the middle of the
    picture.
    """
    bbox = np.tile(np.array([SIDE / 2, SIDE / 2, 4, 4], np.float32), (n_frames, 1))
    columns = {"frame_index": np.arange(n_frames), "bbox": bbox}
    geometry = {"rows_per_shard": rows_per_shard, "rows_per_chunk": 8}
    with cache.SplitWriter(root, SPLIT, columns=tuple(columns), plan="", **geometry) as writer:
        following = writer.begin()
        for video in map(str, range(n_videos)):
            track = cache.TrackRows(
                name=f"{video}/0", video=video, step=1, fps=30.0, crop_scale=1.0, columns=columns
            )
            following.append(
                cache.VideoEntry(name=video, pixels=video, width=SIDE, height=SIDE), [track]
            )
        following.commit({"stand_in": True})


def decoders_of(parent):
    """The processes that decode for a process, by number: those that its server has forked. Ended
    ones do not count.
    """
    parents, servers = {}, set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and b"server.serve()" in (process / "cmdline").read_bytes():
                # other children have children, too: a browser's, for instance
                servers.add(int(process.name))
        except OSError:
            continue
        if state != "Z":
            parents[int(process.name)] = int(ppid)
    return sorted(process for process, of in parents.items() if of in servers)


@dataclass(frozen=True, kw_only=True)
class Colour(NumberStream):
    """A crop's mean colour: three numbers, and a network that costs nothing."""

    kind = "colour"
    dim = 3
    dtype = "float32"

    def load(self, machine, recorded):
        return Mean(machine.batch_size or 4, machine.threads or 1)


class Mean:
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": True}

    def __init__(self, batch_size, lanes):
        self.batch_size, self.lanes = batch_size, lanes

    def adopt(self, memory): ...

    def release(self): ...

    def __call__(self, crops):
        middle = crops.shape[1] // 2, crops.shape[2] // 2
        return crops[:, *middle].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Mortal(Colour):
    """As `Colour`. The process that makes one of the calls `fatal`, counted over all processes, is
    killed there. Calls after the first `gate` ones wait for the file `open` in the folder.
    """

    folder: str
    fatal: tuple[int, ...] = ()
    gate: float = math.inf

    kind = "mortal"

    def identity(self):
        return {"kind": self.kind}

    def load(self, machine, recorded):
        return _Dying(self)


class _Dying(Mean):
    def __init__(self, stream):
        super().__init__(4, 1)
        self._stream = stream
        self._own_calls = itertools.count()

    def __call__(self, crops):
        log = Path(self._stream.folder) / "calls"
        call = f"{os.getpid()} {next(self._own_calls)}"
        with log.open("a") as file:  # lines are appended whole, in one order for all processes
            file.write(f"{call}\n")
        number = log.read_text().splitlines().index(call)
        if number in self._stream.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        while number >= self._stream.gate and not log.with_name("open").exists():
            time.sleep(0.01)
        return super().__call__(crops)


@dataclass(frozen=True, kw_only=True)
class Steps(PairStream):
    """The colours of a row's crop and of the one before; nothing is known of frames 24 and 25."""

    kind = "steps"
    dim = 6
    fails: str = ""
    folder: str = ""  # for a file named by each process that computes

    def pair(self, previous, current):
        if self.folder:
            Path(self.folder, str(os.getpid())).touch()
        if self.fails == "raises":
            raise ZeroDivisionError("no such pair")
        if self.fails == "short":
            return np.zeros(5, np.float32)
        colours = np.concatenate([previous[112, 112], current[112, 112]]).astype(np.float32)
        return None if colours[3] == 25 else colours


@dataclass(frozen=True, kw_only=True)
class Followed(PairStream):
    """The mean colours of a row's crop and of the one before, and the left hip, by the later row's
    keypoints.
    """

    kind = "followed"
    dim = 8
    columns = ("kp_2d",)

    def pair(self, previous, current, kp_2d):
        colours = [crop.mean(axis=(0, 1)) for crop in (previous, current)]
        return np.concatenate([*colours, 100 * kp_2d[27, :2]]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Single(PairStream):
    """The first pixel of a crop's middle, computed where images are decoded; or whatever goes
    wrong.
    """

    kind = "single"
    dim = 3
    fails: str = ""

    @property
    def reads(self):
        return Reads(1)

    def pair(self, current):  # type: ignore[override]
        if self.fails == "raises":
            raise ZeroDivisionError("no such colour")
        if self.fails == "ends":
            raise EOFError("of something of its own")
        middle = current.shape[0] // 2
        return (
            np.zeros(2, np.float32)
            if self.fails == "short"
            else current[middle, middle].astype(np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class Whole(Stream):
    """The size of the whole frame, its first pixel, and the row's box."""

    kind = "whole"
    dim = 9

    @property
    def reads(self):
        return Reads(1, ("bbox",), is_whole=True)

    def computed(self, crops, labels):
        (frame,) = crops
        return np.array([*frame.shape[:2], *frame[0, 0], *labels["bbox"]], np.float32)


@dataclass(frozen=True, kw_only=True)
class Replacing(Whole):
    """As `Whole`; when its first row is computed, another file takes the video's place."""

    new: str
    video: str

    kind = "replacing"

    def computed(self, crops, labels):
        if Path(self.new).exists():
            Path(self.new).replace(self.video)
        return super().computed(crops, labels)


DEEDS = {
    "hang": lambda: time.sleep(3600),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "grow": lambda: bytearray(8 << 30),
    "crash": lambda: os._exit(3),
    "slow": lambda: time.sleep(1.5),
}


def colour_of(frame):
    """What every pixel of a frame is."""
    return frame % 256, frame // 256, 77


@dataclass(frozen=True)
class Source:
    """Frames of one colour each. `deeds` are (frame, what happens there), most of them failures."""

    root: Path  # a folder for marks: a deed "once" happens in one process alone
    name: str = "0"
    deeds: tuple[tuple[int, str], ...] = ()
    random_access: bool = True
    takes: float = 0.0  # s a frame

    @property
    def spec(self):
        return f"made up:{self.name}"

    @property
    def place(self):
        return self.root

    def size(self):
        return SIDE, SIDE

    def digest(self):
        with (self.root / "digests").open("a") as file:
            file.write(f"{self.name}\n")
        self._do(-1)
        return self.name

    def read(self, frame_index):
        self._do(-2)
        for index in increasing(frame_index):
            time.sleep(self.takes)
            self._do(index)
            yield Frame(index, np.full((SIDE, SIDE, 3), colour_of(index), np.uint8), None)

    def _do(self, frame):
        for at, deed in self.deeds:
            if at != frame:
                continue
            if deed.endswith(" once"):
                mark = self.root / f"{self.name} {frame} {deed}"
                if mark.exists():
                    continue
                mark.touch()
            DEEDS[deed.removesuffix(" once")]()


class LoggedSource(Source):
    """Logs when it is opened and closed: a line in the file `log` of its folder."""

    def read(self, frame_index):
        self._log("opened")
        try:
            yield from super().read(frame_index)
        finally:
            self._log("closed")

    def _log(self, event):
        with (self.root / "log").open("a") as file:
            file.write(f"{event} {self.name}\n")


def logged(folder):
    """A line for each item that was begun."""
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


@dataclass(frozen=True)
class Doubled:
    """A slow job."""

    folder: Path
    seconds: float = 0.0
    gate: float = math.inf  # items that begin after so many wait for the file `open` in the folder

    def __call__(self, item):
        # one line, whole, also when other processes write
        with (self.folder / "log").open("ab", buffering=0) as file:
            file.write(b"begun\n")
        n_begun = len(logged(self.folder))  # workers take items in any order
        time.sleep(self.seconds)
        while n_begun > self.gate and not (self.folder / "open").exists():
            time.sleep(0.01)
        return 2 * item


@dataclass(frozen=True, kw_only=True)
class Painted(Stream):
    """The number that `made_clips.paint` painted into the whole frame."""

    kind = "painted"
    dim = 1

    @property
    def reads(self):
        return Reads(1, is_whole=True)

    def computed(self, crops, labels):
        (frame,) = crops
        height, width = frame.shape[:2]
        columns = ((np.arange(8) + 0.5) * width / 8).astype(int)
        upper, lower = (frame[place * height // 4, columns].mean(axis=1) for place in (1, 3))
        bits = upper > lower
        return np.array([int((bits << np.arange(8)).sum())], np.float32)
