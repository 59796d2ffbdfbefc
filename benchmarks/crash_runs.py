"""Runs over one tiny split: conversions, extractions; what readers see of it, and every change they make.

`benchmarks/crashes.py` kills them, and the tests of the cache cut their power, fill their disk and damage their files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import CacheChanged, SplitWriter, StreamWriter, TrackRows, VideoEntry

SPLIT, STREAM, CROPS = "toy/train", "resnet50", "crops"
COLUMNS: Final = ("frame_index", "bbox", "kp_2d", "valid")
ROWS_PER_SHARD, ROWS_PER_CHUNK, DIM = 8, 4, 4
UNREADABLE: Final = 7  # every so many-th picture cannot be decoded

Videos = Mapping[str, tuple[Sequence[int], int]]  # name -> (rows of each track, seed of its numbers)
FIRST: Final[Videos] = {"a": ([5], 0), "b": ([3, 9], 0), "c": ([], 0), "d": ([14], 0), "e": ([2, 4], 0)}
SECOND: Final[Videos] = {"a": ([5], 0), "b": ([3, 9], 1), "e": ([2, 4], 0), "g": ([11], 0)}  # b changed, c and d gone


def convert(root: Path, videos: Videos, note: str) -> None:
    """Bring the split to exactly these videos, in one commit."""
    sizes: Any = {"rows_per_shard": ROWS_PER_SHARD, "rows_per_chunk": ROWS_PER_CHUNK}
    with SplitWriter(root, SPLIT, columns=COLUMNS, plan="toy", **sizes) as writer:
        held = {name: entry.fingerprint for name, entry in writer.committed_videos.items()}
        target = {name: fingerprint_of(name, *video) for name, video in videos.items()}
        writer.begin([name for name, mark in held.items() if target.get(name) != mark])
        for name, (lengths, seed) in videos.items():
            if held.get(name) != target[name] and name not in writer.journalled:
                writer.append(*make_video(name, lengths, seed))
        writer.commit({"note": note})


def extract(root: Path) -> None:
    """Features for every row that has none."""
    with StreamWriter(root, SPLIT, STREAM, dim=DIM, plan="toy") as writer:
        for shard in writer.pending:
            keys = keys_of(root, writer.rows(shard))
            found, features, ok = writer.carried(keys)
            own = ((keys[:, :1] >> np.arange(DIM, dtype=np.uint64)) % 1000).astype(np.float32)
            features = np.where(found[:, None], features, own)
            writer.write(shard, features, np.where(found, ok, keys[:, 0] % UNREADABLE > 0), keys)
        writer.commit({"note": "toy"})


def extract_bytes(root: Path) -> None:
    """Bytes for every row that has none, the shards written by the writer and staged for it in turn."""
    with StreamWriter(root, SPLIT, CROPS, dim=0, dtype="bytes", plan="toy") as writer:
        for shard in writer.pending:
            keys = keys_of(root, writer.rows(shard))
            given: Any = (shard, [b"%d" % key for key in keys[:, 0].tolist()], keys[:, 0] % UNREADABLE > 0, keys)
            if shard % 2:
                writer.accept(writer.stage(*given))
            else:
                writer.write(*given)
        writer.commit({"note": "toy"})


def keys_of(root: Path, rows: range) -> NDArray[np.uint64]:
    """(n, 2): the boxes' bits."""
    boxes = cache.open(root)[SPLIT].rows("bbox", rows.start, rows.stop)
    return np.ascontiguousarray(boxes).view(np.uint64)


# One after the other on one cache. Each changes what readers see.
RUNS: Final[Mapping[str, Callable[[Path], object]]] = {
    "first conversion": lambda root: convert(root, FIRST, "first"),
    "extraction": extract,
    "conversion of changes": lambda root: convert(root, SECOND, "second"),
    "extraction of changes": extract,
    "other entries only": lambda root: convert(root, SECOND, "third"),
    "extraction up to date": extract,
    "extraction of bytes": extract_bytes,
}


def make_video(name: str, lengths: Sequence[int], seed: int) -> tuple[VideoEntry, list[TrackRows]]:
    """A video with a track of every length; the same arguments, the same numbers."""
    mark = fingerprint_of(name, lengths, seed)
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


def narrow(video: tuple[VideoEntry, list[TrackRows]], *columns: str) -> tuple[VideoEntry, list[TrackRows]]:
    """A video with some of its columns alone."""
    entry, tracks = video
    return entry, [replace(track, columns={name: track.columns[name] for name in columns}) for track in tracks]


def fingerprint_of(name: str, lengths: Sequence[int], seed: int) -> str:
    return hashlib.sha256(repr((name, list(lengths), seed)).encode()).hexdigest()[:16]


def seen(root: Path) -> str | None:
    """All that a reader finds in a cache, as one digest; None while nothing is committed.

    Raises CacheError when a reader would.
    """
    while True:
        with contextlib.suppress(CacheChanged):  # replaced since it was opened: open it again
            if not (root / "zarr.json").is_file() or not (names := cache.open(root).splits):
                return None
            found = hashlib.sha256()
            for part in (part for name in names for part in parts_of(cache.open(root)[name])):
                found.update(part)
            return found.hexdigest()


def parts_of(split: cache.Split) -> Iterator[bytes]:
    """Everything in a split: tables, rows, and every window of two rows as training reads them."""
    tracks = [(*track, track.gender) for track in split.tracks]
    yield repr((split.name, dict(split.manifest), tracks, list(split.videos))).encode()
    for column in split.columns:
        for track in split.tracks:
            yield split.rows(column, track.start, track.stop).tobytes()
    for stream in (None, *split.streams):
        windows = split.windows(2, 1, stream)
        yield windows.tobytes()
        of = {} if stream is None else dict(split.stream_manifest(stream))
        if stream is not None:
            yield repr((stream, of, split.undecodable(stream))).encode()
        if of.get("dtype") == "bytes":
            yield b"".join(split.blobs(str(stream), np.unique(windows - [0, 1])))
        else:
            yield from (array.tobytes() for array in split.read(windows, stream).values())


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
Around = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def watched(around: Around) -> Iterator[None]:
    """Have every one of `CALLS` go through `around(name, function, args, kwargs)`, which may make the call."""

    def through(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: around(name, function, args, kwargs)

    functions = {name: getattr(os, name) for name in CALLS}
    try:
        for name, function in functions.items():
            setattr(os, name, through(name, function))
        yield
    finally:
        for name, function in functions.items():
            setattr(os, name, function)


def changes(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call changes anything: opening a file to read it does not."""
    return name != "open" or bool(kwargs.get("flags", args[1] if len(args) > 1 else 0) & (os.O_CREAT | os.O_TRUNC))


class Fault:
    """A disk that fails at the n-th change below `root`: with EIO that once, with ENOSPC from then on, but for what
    frees room, with EROFS at every change from then on. Before the first two, a write brings half of its bytes.
    """

    def __init__(self, at: int, code: int, root: Path = Path("/")) -> None:
        self.failed, self.count = False, 0  # count: changes below `root`
        self._left, self._code, self._root, self._lock = at, code, root, threading.Lock()

    def __call__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else Path(args[0])
        if not changes(name, args, kwargs) or not place.is_relative_to(self._root):
            return function(*args, **kwargs)
        with self._lock:
            self.count += 1
            self._left -= 1
            left = self._left
            if left == 0 and name == "write" and len(args[1]) > 1 and self._code != errno.EROFS:
                self._left = 1  # the next one fails
                return function(args[0], bytes(args[1])[: len(args[1]) // 2])
        frees = name in ("unlink", "remove", "rmdir", "fsync", "fdatasync")
        lasting = {errno.ENOSPC: not frees, errno.EROFS: True}.get(self._code, False)
        if left == 0 or (left < 0 and lasting):
            self.failed = True
            raise OSError(self._code, os.strerror(self._code), *([] if isinstance(args[0], int) else [str(place)]))
        return None if name == "fsync" else function(*args, **kwargs)  # as in `crashes.Death`
