"""Shards of a stream while their rows are computed, in any order.  crops -> [features]"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.features.streams.base import BYTES, Stream

EXAMPLES: Final = 5  # problems that are reported with their message; the others are counted


class Shards(Protocol):
    """What an extraction has to know of the stream's shards: of cache.StreamShards."""

    def rows(self, shard: int) -> range: ...
    def live(self, shard: int) -> NDArray[np.bool_]: ...
    def carried(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]: ...


@dataclass(slots=True)
class Counts:
    """What became of rows."""

    computed: int = 0
    carried: int = 0  # whose pixels, frame and box the stream already had
    problems: Counter[str] = field(default_factory=Counter)  # why rows have no feature -> how many
    examples: list[str] = field(default_factory=list)  # messages of the first few problems

    def add(self, other: Counts) -> None:
        """Of other rows, too."""
        self.computed += other.computed
        self.carried += other.carried
        self.problems += other.problems
        self.examples = (self.examples + other.examples)[:EXAMPLES]


@dataclass(slots=True, eq=False)
class OpenShard:
    """One shard's rows (n of them)."""

    number: int
    start: int  # its first row
    frame: NDArray[np.int64]  # (n,)
    bbox: NDArray[np.float32]  # (n, 4) cxcywh px
    keys: NDArray[np.uint64]  # (n, 2)
    todo: NDArray[np.bool_]  # (n,) rows to be computed
    values: NDArray[Any]  # (n, dim) numbers, or (n,) `bytes`
    ok: NDArray[np.uint8]  # (n,) 1: the row has a feature
    left: int  # rows that have neither been computed nor been given up
    counts: Counts

    @property
    def stop(self) -> int:
        return self.start + len(self.ok)

    @property
    def data(self) -> NDArray[Any] | list[bytes]:
        """The values as the cache takes them."""
        return self.values.tolist() if self.values.dtype == object else self.values


class OpenShards:
    """The open shards of one extraction."""

    def __init__(self, split: Split, shards: Shards, stream: Stream) -> None:
        self._split, self._shards, self._stream = split, shards, stream
        self._size = int(split.manifest["geometry"]["rows_per_shard"])
        self._open: dict[int, OpenShard] = {}
        self._last = -1  # the highest that was ever open
        self.not_computed = 0  # rows, in all shards so far, that were carried over or given up

    def __len__(self) -> int:
        return len(self._open)

    def open(self, number: int) -> OpenShard:
        """The open shard. It is opened if it is not: its rows are read, and what the stream has of them is copied."""
        if number not in self._open:
            self._open[number] = self._opened(number)
            self._last = max(self._last, number)
        return self._open[number]

    def is_finished(self, number: int) -> bool:
        """Whether a shard was open and no longer is. They are opened in ascending order."""
        return number <= self._last and number not in self._open

    def put(self, rows: NDArray[np.int64], computed: NDArray[Any]) -> None:
        """(n,) rows of the split, all of open shards, and what was computed of them."""
        for shard, at in self._by_shard(rows):
            here = rows[at] - shard.start
            with np.errstate(over="ignore"):  # what exceeds the dtype becomes infinite, which the cache refuses
                shard.values[here] = computed[at]
            shard.ok[here] = 1
            shard.left -= len(at)
            shard.counts.computed += len(at)

    def give_up(self, rows: NDArray[np.int64], kind: str, message: str) -> None:
        """Rows that cannot be computed, and why: their `ok` stays 0."""
        self.not_computed += len(rows)
        for shard, at in self._by_shard(rows):
            shard.left -= len(at)
            shard.counts.add(Counts(problems=Counter({kind: len(at)}), examples=[message]))

    def finished(self, but: Container[int] = ()) -> Iterator[OpenShard]:
        """Shards without any row left to compute, `but` some; they are open no longer."""
        for number in [number for number, shard in self._open.items() if not shard.left and number not in but]:
            yield self._open.pop(number)

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[OpenShard, NDArray[np.intp]]]:
        number = rows // self._size
        for one in np.unique(number).tolist():
            yield self._open[one], np.flatnonzero(number == one)

    def _opened(self, number: int) -> OpenShard:
        rows = self._shards.rows(number)
        live = np.flatnonzero(self._shards.live(number))
        frame = self._split.rows("frame_index", rows.start, rows.stop)
        bbox = self._split.rows("bbox", rows.start, rows.stop)
        keys = np.zeros((len(rows), 2), np.uint64)
        keys[live] = self._keys(rows.start + live, frame[live], bbox[live])
        had, carried, ok = self._shards.carried(keys)
        values = np.array(carried, object if self._stream.dtype == BYTES else self._stream.dtype)
        todo = np.zeros(len(rows), bool)
        todo[live] = ~had[live]
        left = int(todo.sum())
        counts = Counts(carried=len(live) - left)
        self.not_computed += counts.carried
        return OpenShard(number, rows.start, frame, bbox, keys, todo, values, ok, left, counts)

    def _keys(self, rows: NDArray[np.int64], frame: NDArray[np.int64], bbox: NDArray[np.float32]) -> NDArray[np.uint64]:
        """(n, 2): 128 bits that differ when the row's pixels, frame, box or crop scale do."""
        track = self._split.track_of(rows)
        video = self._split.tracks.video[track].tolist()
        scale = np.asarray(self._split.tracks.crop_scale[track], np.float64)
        out = np.empty((len(rows), 16), np.uint8)
        begun: dict[int, Any] = {}
        for i, number in enumerate(video):
            if number not in begun:
                begun[number] = hashlib.blake2b(self._split.videos[number].pixels.encode(), digest_size=16)
            key = begun[number].copy()
            key.update(frame[i].tobytes() + bbox[i].tobytes() + scale[i].tobytes())
            out[i] = np.frombuffer(key.digest(), np.uint8)
        return out.view(np.uint64)
