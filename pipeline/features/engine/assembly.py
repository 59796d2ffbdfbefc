"""Shards of a stream while their rows come in, in any order.  crops -> [features]"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.features.streams.base import BYTES, Stream

EXAMPLES: Final = 5  # problems of a shard that are told in words; the rest are counted

Data = NDArray[Any] | list[bytes]  # (n, dim) numbers, or n byte strings


class Shards(Protocol):
    """What an extraction has to know of the stream's shards, as cache.StreamShards does."""

    def rows(self, shard: int) -> range: ...
    def live(self, shard: int) -> NDArray[np.bool_]: ...
    def carried(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]: ...


@dataclass(slots=True, eq=False)
class OpenShard:
    """One shard's rows (n of them): what is known of them, and what has come in."""

    number: int
    start: int  # its first row
    frame: NDArray[np.int64]  # (n,)
    bbox: NDArray[np.float32]  # (n, 4) cxcywh px
    keys: NDArray[np.uint64]  # (n, 2)
    todo: NDArray[np.bool_]  # (n,) rows to be computed
    data: Data
    ok: NDArray[np.uint8]  # (n,) 1: there is something
    left: int  # rows that have neither come in nor been given up
    carried: int = 0  # rows of tracks that the stream had already
    held: int = 0  # videos in it whose pixels have not been compared with those that were converted
    problems: Counter[str] = field(default_factory=Counter)  # why rows were given up -> how many
    examples: list[str] = field(default_factory=list)  # the first few, in words

    @property
    def stop(self) -> int:
        return self.start + len(self.ok)

    @property
    def computed(self) -> int:
        """Rows that have come in."""
        return int(self.todo.sum()) - self.left - self.problems.total()

    def put(self, rows: NDArray[np.int64], given: Data) -> None:
        """What has been computed of some of its rows."""
        at = rows - self.start
        if isinstance(self.data, list):
            for where, one in zip(at.tolist(), given, strict=True):
                self.data[where] = bytes(one)
        else:
            with np.errstate(over="ignore"):  # beyond the dtype becomes infinite, which the cache refuses
                self.data[at] = given
        self.ok[at] = 1
        self.left -= len(at)


class Assembly:
    """The open shards of one extraction."""

    def __init__(self, split: Split, shards: Shards, stream: Stream) -> None:
        self._split, self._shards, self._stream = split, shards, stream
        self._open: dict[int, OpenShard] = {}
        self._last = -1  # the highest that was ever open
        self.carried = 0  # rows of tracks that the stream had already, in all shards so far
        self.given_up = 0  # rows

    def __len__(self) -> int:
        return len(self._open)

    def open(self, number: int) -> OpenShard:
        """The open shard, opened now if it is not: its rows are read, and what the stream has of them is taken over."""
        if number not in self._open:
            self._open[number] = self._opened(number)
            self._last = max(self._last, number)
        return self._open[number]

    def is_finished(self, number: int) -> bool:
        """Whether a shard was open and is no longer. They are opened in ascending order."""
        return number <= self._last and number not in self._open

    def put(self, rows: NDArray[np.int64], given: Data) -> None:
        """(n,) rows of the split, all of open shards, and what was computed of them."""
        for shard, at in self._by_shard(rows):
            part = [given[i] for i in at.tolist()] if isinstance(given, list) else given[at]
            shard.put(rows[at], part)

    def give_up(self, rows: NDArray[np.int64], kind: str, said: str) -> None:
        """Rows of which nothing can be had, and why: their `ok` stays 0."""
        self.given_up += len(rows)
        for shard, at in self._by_shard(rows):
            shard.left -= len(at)
            shard.problems[kind] += len(at)
            if len(shard.examples) < EXAMPLES:
                shard.examples.append(said)

    def hold(self, shards: Sequence[int]) -> None:
        """Open shards are not finished before `release`: perhaps a video's pixels are not its own."""
        for number in shards:
            self._open[number].held += 1

    def release(self, shards: Sequence[int]) -> None:
        """The pixels have been compared."""
        for number in shards:
            self._open[number].held -= 1

    def finished(self) -> Iterator[OpenShard]:
        """Shards of which nothing is left to do; they are open no longer."""
        for number in [number for number, shard in self._open.items() if not shard.left and not shard.held]:
            yield self._open.pop(number)

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[OpenShard, NDArray[np.intp]]]:
        size = int(self._split.manifest["geometry"]["rows_per_shard"])
        number = rows // size
        for one in np.unique(number).tolist():
            yield self._open[one], np.flatnonzero(number == one)

    def _opened(self, number: int) -> OpenShard:
        rows = self._shards.rows(number)
        live = np.flatnonzero(self._shards.live(number))
        frame = self._split.rows("frame_index", rows.start, rows.stop)
        bbox = self._split.rows("bbox", rows.start, rows.stop)
        keys = np.zeros((len(rows), 2), np.uint64)
        keys[live] = self._keys(rows.start + live, frame[live], bbox[live])
        had, data, ok = self._shards.carried(keys)
        todo = np.zeros(len(rows), bool)
        todo[live] = ~had[live]
        n_todo = int(todo.sum())
        carried = len(live) - n_todo
        self.carried += carried
        return OpenShard(number, rows.start, frame, bbox, keys, todo, self._room(data), ok, n_todo, carried)

    def _room(self, carried: Any) -> Data:
        if self._stream.dtype == BYTES:
            return list(carried)
        numbers: NDArray[Any] = np.ascontiguousarray(carried, np.dtype(self._stream.dtype))
        return numbers

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
