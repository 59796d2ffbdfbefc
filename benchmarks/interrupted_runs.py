"""What is killed, cut short or made to fail: runs over one tiny split.  raw -> [tracks] -> [features] -> windows

Each run brings the split from one known state to the next, and started again after whatever happened, it goes on to
the same bytes. Shards hold 8 rows, so that there are many. `benchmarks/crashes.py` and the tests of the cache use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from cache import CacheChanged, SplitWriter, StreamWriter, TrackRows, VideoEntry
from cache.write import compact

SPLIT: Final = "toy/train"
STREAM: Final = "resnet50"
COLUMNS: Final = ("frame_index", "bbox", "kp_2d", "valid")
ROWS_PER_SHARD, ROWS_PER_CHUNK, DIM = 8, 4, 4
UNREADABLE: Final = 7  # every so many-th picture cannot be decoded

Videos = Mapping[str, tuple[Sequence[int], int]]  # name -> (rows of each track, seed of its numbers)
FIRST: Final[Videos] = {"a": ([5], 0), "b": ([3, 9], 0), "c": ([], 0), "d": ([14], 0), "e": ([2, 4], 0)}
SECOND: Final[Videos] = {"a": ([5], 0), "b": ([3, 9], 1), "e": ([2, 4], 0), "g": ([11], 0)}  # b anew, c and d gone


def convert(root: Path, videos: Videos, note: str) -> None:
    """Bring the split to exactly these videos, in one commit."""
    sizes: Any = {"rows_per_shard": ROWS_PER_SHARD, "rows_per_chunk": ROWS_PER_CHUNK}
    with SplitWriter(root, SPLIT, columns=COLUMNS, plan="toy", **sizes) as writer:
        held = {name: entry.fingerprint for name, entry in writer.committed_videos.items()}
        wanted = {name: _fingerprint(name, *video) for name, video in videos.items()}
        writer.begin([name for name, mark in held.items() if wanted.get(name) != mark])
        for name, (lengths, seed) in videos.items():
            if held.get(name) != wanted[name] and name not in writer.journalled:
                writer.append(*make_video(name, lengths, seed))
        writer.commit({"note": note})


def extract(root: Path) -> None:
    """Features for every row that has none."""
    split = cache.open(root)[SPLIT]
    with StreamWriter(root, SPLIT, STREAM, dim=DIM, plan="toy") as writer:
        for shard in writer.pending:
            rows = writer.rows(shard)
            keys = np.ascontiguousarray(split.rows("bbox", rows.start, rows.stop)).view(np.uint64)
            found, features, ok = writer.carried(keys)
            features = np.where(found[:, None], features, _features(keys))
            writer.write(shard, features, np.where(found, ok, keys[:, 0] % UNREADABLE > 0), keys)
        writer.commit({"note": "toy"})


# One after the other on one cache. Each changes what readers see.
RUNS: Final[Mapping[str, Callable[[Path], object]]] = {
    "first conversion": lambda root: convert(root, FIRST, "first"),
    "extraction": extract,
    "conversion of changes": lambda root: convert(root, SECOND, "second"),
    "extraction of changes": extract,
    "other entries only": lambda root: convert(root, SECOND, "third"),
    "extraction up to date": extract,
    "compaction": lambda root: cache.compact(root, SPLIT),
}


def make_video(name: str, lengths: Sequence[int], seed: int) -> tuple[VideoEntry, list[TrackRows]]:
    """A video with a track of every length; the same arguments, the same numbers."""
    mark = _fingerprint(name, lengths, seed)
    tracks = []
    for person, n_rows in enumerate(lengths):
        rng = np.random.default_rng([int(mark, 16), person])
        columns: dict[str, NDArray[Any]] = {
            "frame_index": np.arange(n_rows),
            "bbox": rng.uniform(50, 100, (n_rows, 4)).astype(np.float32),
            "kp_2d": rng.uniform(0, 1, (n_rows, 49, 3)).astype(np.float32),
            "valid": np.ones(n_rows, bool),
        }
        tracks.append(TrackRows(name=f"{name}/{person}", video=name, step=1, fps=25.0, crop_scale=1.3, columns=columns))
    account = {"found": sum(lengths), "kept": sum(lengths), "dropped": {}}
    return VideoEntry(name=name, fingerprint=mark, account=account), tracks


def _fingerprint(name: str, lengths: Sequence[int], seed: int) -> str:
    return hashlib.sha256(repr((name, list(lengths), seed)).encode()).hexdigest()[:16]


def _features(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(n, 2) -> (n, DIM): what the same key always gives."""
    features: NDArray[np.float32] = ((keys[:, :1] >> np.arange(DIM, dtype=np.uint64)) % 1000).astype(np.float32)
    return features


def seen(root: Path) -> str | None:
    """All that a reader finds in a cache, as one digest; None while nothing is committed.

    Raises CacheError when a reader would.
    """
    while True:
        try:
            return _seen(root)
        except CacheChanged:  # made anew since it was opened: open it again, as it says
            continue


def _seen(root: Path) -> str | None:
    if not (root / "zarr.json").is_file() or not (names := cache.open(root).splits):
        return None
    found = hashlib.sha256()
    for name in names:
        split = cache.open(root)[name]
        tracks = [(*track, track.gender) for track in split.tracks]
        found.update(repr((name, dict(split.manifest), tracks, list(split.videos))).encode())
        for column in split.columns:
            for track in split.tracks:
                found.update(split.rows(column, track.start, track.stop).tobytes())
        found.update(_batch(split, None))
        for stream in split.streams:
            found.update(repr((stream, dict(split.stream_manifest(stream)), split.undecodable(stream))).encode())
            found.update(_batch(split, stream))
    return found.hexdigest()


def _batch(split: cache.Split, stream: str | None) -> bytes:
    """Every window of two rows, as training reads them."""
    windows = split.windows(2, 1, stream)
    return windows.tobytes() + b"".join(part.tobytes() for part in split.read(windows, stream).values())


def tree(root: Path, outside: Sequence[str] = ("provenance.json",)) -> dict[str, bytes]:
    """Every file of a cache but those `outside` the promise of equal bytes, and every empty folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name not in outside:
            found[path.relative_to(root).as_posix()] = path.read_bytes()
        elif path.is_dir() and not any(path.iterdir()):
            found[f"{path.relative_to(root).as_posix()}/"] = b""
    return found


# The functions of module os that change files or folders, or make changes durable. Nothing in cache/ writes otherwise.
CALLS: Final = (
    *("open", "write", "pwrite", "writev", "pwritev", "truncate", "ftruncate", "fsync", "fdatasync"),
    *("rename", "replace", "link", "symlink", "mkdir", "rmdir", "unlink", "remove"),
)
_OPENS_TO_CHANGE: Final = os.O_CREAT | os.O_TRUNC

Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def watched(around: Around) -> Iterator[None]:
    """Have every one of `CALLS`, and the exchange of two folders, go through `around(name, function, args, kwargs)`.

    It may make the call.
    """

    def through(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: around(name, function, args, kwargs)

    functions = [(os, name, getattr(os, name)) for name in CALLS]
    functions.append((compact, "exchange", compact.exchange))  # which module os does not have
    try:
        for module, name, function in functions:
            setattr(module, name, through(name, function))
        yield
    finally:
        for module, name, function in functions:
            setattr(module, name, function)


def changes(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call changes anything: opening a file to read it does not."""
    return name != "open" or bool(kwargs.get("flags", args[1] if len(args) > 1 else 0) & _OPENS_TO_CHANGE)


class Moment(NamedTuple):
    """When a process dies: before its n-th change, in the middle of it if that is a write, or some time later."""

    at: int = 0  # the number of the change, from 1; 0: never
    torn: float = 0.0  # share of the bytes that a write still brings to the file
    after: float = -1.0  # s from the first change; negative: never


class Death:
    """SIGKILL to this process at a moment. Counts the changes, and takes the time from the first to the last."""

    def __init__(self, at: int = 0, torn: float = 0.0, after: float = -1.0) -> None:
        self.count = 0
        self._moment = Moment(at, torn, after)
        self._began = self._last = 0.0

    @property
    def seconds(self) -> float:
        return self._last - self._began

    def __call__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if changes(name, args, kwargs):
            self.count += 1
            self._last = time.perf_counter()
            if self.count == 1:
                self._began = self._last
                if self._moment.after >= 0:
                    timer = threading.Timer(self._moment.after, die)
                    timer.daemon = True
                    timer.start()
            if self.count == self._moment.at:
                if name in ("write", "pwrite"):
                    function(args[0], bytes(args[1])[: int(self._moment.torn * len(args[1]))], *args[2:])
                die()
        return function(*args, **kwargs)


def die() -> None:
    """What no program can catch."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_toy(run: str, root: str, moment: Moment) -> None:
    """One of `RUNS`, in a process of its own."""
    with without_waiting(), watched(Death(*moment)):
        RUNS[run](Path(root))


def _return_at_once(fd: Any) -> None:
    """In the place of fsync."""


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """No fsync here waits for the disk: a killed process loses nothing that the system has."""
    waiting = os.fsync
    try:
        os.fsync = _return_at_once
        yield
    finally:
        os.fsync = waiting
