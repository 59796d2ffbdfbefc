"""A split in memory, and pixels that crash and hang: what an extraction needs, without a cache or a network.

Tests put a copy of this file where decoding processes find it: sources and streams are sent to them by pickle.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pipeline.features.streams.base import ByteStream, Machine, NumberStream, PairStream
from pipeline.files.pixels.frames import Frame, increasing, nothing

SIDE = 32  # px


class Track(NamedTuple):
    """Rows of one person: its video, row, length, and frame of the first row."""

    video: int
    start: int
    length: int
    frame: int = 0


class Tracks:
    def __init__(self, tracks: Sequence[Track]) -> None:
        self.video, self.start, self.length, self.frame = np.array(tracks, np.int64).reshape(-1, 4).T
        self.stop = self.start + self.length
        self.crop_scale = 1 + np.arange(len(tracks)) / 16

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(name=f"{self.video[number]}/{number}")


class Split:
    """What extraction reads of `cache.Split`. A row's box is in the middle of the picture, with a width of its own."""

    def __init__(self, tracks: Sequence[Track], rows_per_shard: int) -> None:
        self.name = "made_up/train"
        self.tracks = Tracks(tracks)
        self.n_rows = max((track.start + track.length for track in tracks), default=0)
        self.manifest = {"geometry": {"rows_per_shard": rows_per_shard}}
        self.videos = [
            SimpleNamespace(pixels=f"{video}") for video in range(1 + max((t.video for t in tracks), default=0))
        ]
        self.track = np.full(self.n_rows, -1)
        self.frame = np.full(self.n_rows, -1)
        for i, track in enumerate(tracks):
            self.track[track.start : track.start + track.length] = i
            self.frame[track.start : track.start + track.length] = track.frame + np.arange(track.length)
        self.bbox = np.tile(np.array([SIDE / 2, SIDE / 2, 4, 4], np.float32), (self.n_rows, 1))
        self.bbox[:, 2] += np.arange(self.n_rows, dtype=np.float32) / max(1, self.n_rows)

    @property
    def runs(self) -> np.ndarray:
        """One for each track."""
        return np.stack([self.tracks.start, self.tracks.stop], axis=1)

    @property
    def live(self) -> np.ndarray:
        """Rows of tracks."""
        return np.flatnonzero(self.track >= 0)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        found: np.ndarray = {"frame_index": self.frame, "bbox": self.bbox}[name][start:stop]
        return found

    def track_of(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.track[rows]
        return found


class Shards:
    """What extraction asks of `cache.StreamShards`; it has no row."""

    def __init__(self, split: Split, stream: Any) -> None:
        self._split, self._stream = split, stream

    @property
    def pending(self) -> list[int]:
        """All that hold rows of tracks."""
        found: list[int] = np.unique(self._split.live // self._size).tolist()
        return found

    @property
    def _size(self) -> int:
        return self._split.manifest["geometry"]["rows_per_shard"]

    def rows(self, shard: int) -> range:
        return range(shard * self._size, min((shard + 1) * self._size, self._split.n_rows))

    def live(self, shard: int) -> np.ndarray:
        live: np.ndarray = self._split.track[shard * self._size : (shard + 1) * self._size] >= 0
        return live

    def carried(self, keys: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        return self.kept(0, keys)

    def kept(self, shard: int, keys: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        n, dim = len(keys), self._stream.dim
        values = np.full((n, dim), np.nan) if dim else np.array([b""] * n, object)
        return np.zeros(n, bool), values, np.zeros(n, np.uint8)

    def checkpoint(self, *_: Any) -> None:
        """What is interrupted here is not gone on with."""


def decoders_of(parent: int) -> list[int]:
    """The processes that decode for a process, by number: those that its server has forked. Ended ones do not count."""
    parents, servers = {}, set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and b"server.serve()" in (process / "cmdline").read_bytes():
                servers.add(int(process.name))  # other children have children, too: a browser's, for instance
        except OSError:
            continue
        if state != "Z":
            parents[int(process.name)] = int(ppid)
    return sorted(process for process, of in parents.items() if of in servers)


# ----------------------------------------------------------------------------------------------------- streams


@dataclass(frozen=True, kw_only=True)
class Colour(NumberStream):
    """A crop's mean colour: three numbers, and a network that costs nothing."""

    kind: ClassVar[str] = "colour"
    dim: ClassVar[int] = 3
    dtype: ClassVar[str] = "float32"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:
        return _Mean(machine.batch_size or 4, machine.threads or 1)


@dataclass(frozen=True, kw_only=True)
class Size(ByteStream):
    """A crop's shape, and how many of its pixels are black: beyond the picture."""

    kind: ClassVar[str] = "size"

    def encode(self, crop: np.ndarray) -> bytes:
        return f"{crop.shape} {int((crop == 0).all(axis=2).sum())}".encode()


class _Mean:
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": True}

    def __init__(self, batch_size: int, lanes: int) -> None:
        self.batch_size, self.lanes = batch_size, lanes

    def adopt(self, memory: np.ndarray) -> None: ...

    def release(self) -> None: ...

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        middle: np.ndarray = crops[:, 112, 112].astype(np.float32)
        return middle


@dataclass(frozen=True, kw_only=True)
class Logged(Colour):
    """As `Colour`. Each process logs that it computes; its first, or every one, is killed there."""

    folder: str
    dies: str = ""  # once, always

    kind: ClassVar[str] = "logged"

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:
        return _Logging(self, machine.device)


class _Logging(_Mean):
    def __init__(self, stream: Logged, device: str) -> None:
        super().__init__(4, 1)
        self._stream, self._device = stream, device

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        log = Path(self._stream.folder) / "log"
        first = not log.exists()
        with log.open("a") as file:
            file.write(f"{self._device} {os.getpid()}\n")
        if self._stream.dies == "always" or (self._stream.dies and first):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(crops)


@dataclass(frozen=True, kw_only=True)
class Steps(PairStream):
    """The colours of a row's crop and of the one before; nothing is known of frames 24 and 25."""

    kind: ClassVar[str] = "steps"
    dim: ClassVar[int] = 6
    fails: str = ""

    def pair(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray | None:
        if self.fails == "raises":
            raise ZeroDivisionError("no such pair")
        if self.fails == "short":
            return np.zeros(5, np.float32)
        colours = np.concatenate([previous[112, 112], current[112, 112]]).astype(np.float32)
        return None if colours[3] == 25 else colours


@dataclass(frozen=True, kw_only=True)
class Followed(PairStream):
    """The mean colours of a row's crop and of the one before, and the left hip, by the later row's keypoints."""

    kind: ClassVar[str] = "followed"
    dim: ClassVar[int] = 8
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def pair(self, previous: np.ndarray, current: np.ndarray, kp_2d: np.ndarray) -> np.ndarray:
        colours = [crop.mean(axis=(0, 1)) for crop in (previous, current)]
        return np.concatenate([*colours, 100 * kp_2d[27, :2]]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Bytes(ByteStream):
    """The first pixel of a crop's middle, as text; or whatever goes wrong."""

    kind: ClassVar[str] = "bytes"
    fails: str = ""

    def encode(self, crop: np.ndarray) -> bytes:
        if self.fails == "raises":
            raise ZeroDivisionError("no such colour")
        if self.fails == "ends":
            raise EOFError("of something of its own")
        if self.fails in ("long", "empty"):
            return bytes(10**6 if self.fails == "long" else 0)
        return b"%d,%d,%d" % tuple(crop[112, 112].tolist())

    def __reduce__(self) -> Any:
        return (_unloadable, ()) if self.fails == "unloadable" else super().__reduce__()


def _unloadable() -> None:
    raise ImportError("libGL.so.1 is missing")


# ----------------------------------------------------------------------------------------------------- pixels


def colour_of(frame: int) -> tuple[int, int, int]:
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
    def spec(self) -> str:
        return f"made up:{self.name}"

    @property
    def place(self) -> Path:
        return self.root

    def size(self) -> tuple[int, int]:
        return SIDE, SIDE

    def digest(self) -> str:
        with (self.root / "digests").open("a") as file:
            file.write(f"{self.name}\n")
        self._do(-1)
        return self.name

    def read(self, frame_index: Iterable[int], *, alive: Callable[[], None] = nothing) -> Iterator[Frame]:
        self._do(-2)
        for index in increasing(frame_index):
            alive()
            time.sleep(self.takes)
            problem = self._do(index)
            if problem:
                yield Frame(index, None, problem, "made_up")
            else:
                yield Frame(index, np.full((SIDE, SIDE, 3), colour_of(index), np.uint8), None)

    def _do(self, frame: int) -> str:
        for at, deed in self.deeds:
            if at != frame:
                continue
            if deed.endswith(" once"):
                mark = self.root / f"{self.name} {frame} {deed}"
                if mark.exists():
                    continue
                mark.touch()
            what = deed.removesuffix(" once")
            if what == "hang":
                time.sleep(3600)
            elif what == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "grow":
                bytearray(8 << 30)
            elif what == "crash":
                os._exit(3)
            elif what == "raise":
                raise RuntimeError(f"a bug at frame {frame}")
            elif what == "slow":
                time.sleep(1.5)
            elif what == "broken":
                return "is broken"
        return ""
