"""Shards of a stream while their rows are computed, in any order.  crops -> [features]"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from pipeline.features.pixel_sources import Cut, Labels
from pipeline.features.streams.base import BYTES, LabelStream, PairStream, Stream, policy_of

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
    frame: NDArray[np.int64]  # (n,) and the boxes, of streams of crops
    bbox: NDArray[np.float32]  # (n, 4) cxcywh px
    keys: NDArray[np.uint64]  # (n, 2)
    todo: NDArray[np.bool_]  # (n,) rows to be computed
    values: NDArray[Any]  # (n, dim) numbers, or (n,) `bytes`
    ok: NDArray[np.uint8]  # (n,) COMPUTED, UNDEFINED or NO_VALUE
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
    """The open shards of one stream's extraction. `target`: those that it lacks, ascending."""

    def __init__(self, split: Split, shards: Shards, stream: Stream, target: Sequence[int]) -> None:
        self._split, self._shards, self._stream, self.target = split, shards, stream, target
        self._policy = policy_of(stream)
        self._size = int(split.manifest["geometry"]["rows_per_shard"])
        self._missing = set(target)
        self._open: dict[int, OpenShard] = {}
        self.pairs = isinstance(stream, PairStream)
        self._columns = stream.columns if isinstance(stream, PairStream | LabelStream) else ()
        self.not_computed = 0  # rows, in all shards so far, that were carried over or given up

    def __len__(self) -> int:
        return len(self._open)

    def open(self, number: int) -> OpenShard:
        """The open shard. It is opened if it is not: its rows are read, and what the stream has of them is copied."""
        if number not in self._open:
            self._open[number] = self._opened(number)
        return self._open[number]

    def is_missing(self, number: int) -> bool:
        """Whether a shard is among those that the stream lacks, and not finished."""
        return number in self._missing

    def frames(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) ascending rows -> their frames."""
        return self._read("frame_index", rows)

    def cuts(self, rows: NDArray[np.int64], wanted: NDArray[np.bool_]) -> tuple[Cut | None, ...]:
        """What the crops of (n,) rows show; None where they are not wanted."""
        found: list[Cut | None] = [None] * len(rows)
        at = np.flatnonzero(wanted)
        order = at[np.argsort(rows[at])]
        here = rows[order]
        boxes, mirrored = self._boxes(here, self._read("frame_index", here), self._read("bbox", here))
        scale = np.asarray(self._split.tracks.crop_scale[self._split.track_of(here)], np.float64)
        for i, box, factor, turned in zip(
            order.tolist(), boxes.tolist(), scale.tolist(), mirrored.tolist(), strict=True
        ):
            found[i] = Cut(tuple(box), factor, turned)
        return tuple(found)

    def labels(self, rows: NDArray[np.int64], wanted: NDArray[np.bool_]) -> tuple[Labels | None, ...]:
        """What the stream needs of (n,) rows beside pixels, as stored; None where not wanted, or nothing."""
        found: list[Labels | None] = [None] * len(rows)
        at = np.flatnonzero(wanted) if self._columns else np.zeros(0, np.int64)
        if len(at):
            columns = {name: column(self._split, name, rows[at]) for name in self._columns}
            for i, *values in zip(at.tolist(), *columns.values(), strict=True):
                found[i] = dict(zip(columns, values, strict=True))
        return tuple(found)

    def put(self, rows: NDArray[np.int64], computed: NDArray[Any], known: NDArray[np.bool_] | None = None) -> None:
        """(n,) rows of the split, all of open shards, what was computed of them, and (n,) whether that is known."""
        ok = np.full(len(rows), cache.COMPUTED) if known is None else np.where(known, cache.COMPUTED, cache.UNDEFINED)
        for shard, at in self._by_shard(rows):
            here = rows[at] - shard.start
            with np.errstate(over="ignore"):  # what exceeds the dtype becomes infinite, which the cache refuses
                shard.values[here] = computed[at]
            shard.ok[here] = ok[at]
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
            self._missing.discard(number)
            yield self._open.pop(number)

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[OpenShard, NDArray[np.intp]]]:
        number = rows // self._size
        for one in np.unique(number).tolist():
            yield self._open[one], np.flatnonzero(number == one)

    def _opened(self, number: int) -> OpenShard:
        rows = self._shards.rows(number)
        live = np.flatnonzero(self._shards.live(number))
        at = rows.start + live
        frame, bbox = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
        compared = has_previous(self._split, at) if self.pairs else np.ones(len(live), bool)
        keys = np.zeros((len(rows), 2), np.uint64)
        labels = [self._split.rows(name, rows.start, rows.stop)[live] for name in self._columns]
        if isinstance(self._stream, LabelStream):
            keys[live] = label_keys(labels)
        else:
            before = at[compared] - 1
            first = int(before.min(initial=rows.start)) if self.pairs else rows.start  # one of the shard before
            frames = self._split.rows("frame_index", first, rows.stop)
            frame = frames[rows.start - first :]
            bbox = self._split.rows("bbox", rows.start, rows.stop)
            previous = None
            if self.pairs:
                previous = np.full(len(live), -1)
                previous[compared] = frames[before - first]
            keys[live] = self._keys(at, frame[live], bbox[live], previous, labels)
        had, carried, ok = self._shards.carried(keys)
        values = np.array(carried, object if self._stream.dtype == BYTES else self._stream.dtype)
        todo = np.zeros(len(rows), bool)
        todo[live] = ~had[live] & compared
        without = live[~had[live] & ~compared]
        values[without], ok[without] = 0, cache.UNDEFINED
        left = int(todo.sum())
        counts = Counts(computed=len(without), carried=len(live) - left - len(without))
        self.not_computed += len(live) - left
        return OpenShard(number, rows.start, frame, bbox, keys, todo, values, ok, left, counts)

    def _read(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A column of (n,) ascending rows, from open shards where these have them."""
        if not len(rows):
            return self._split.rows(name, 0, 0)
        parts = []
        ends = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % self._size == 0)) + 1
        for run in np.split(rows, ends):
            first, stop = int(run[0]), int(run[-1]) + 1
            shard = self._open.get(first // self._size)
            if shard is not None and len(shard.frame):
                column = shard.frame if name == "frame_index" else shard.bbox
                parts.append(column[first - shard.start : stop - shard.start])
            else:
                parts.append(self._split.rows(name, first, stop))
        return np.concatenate(parts)

    def _boxes(
        self, rows: NDArray[np.int64], frame: NDArray[np.int64], bbox: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The boxes that the stream's crop policy cuts out, and which of them are mirrored."""
        if self._policy.follows_box:
            return bbox, np.zeros(len(rows), bool)
        track, which = np.unique(self._split.track_of(rows), return_inverse=True)
        keys = self._policy.keys(self._split.tracks[number].name for number in track.tolist())
        scale = np.asarray(self._split.tracks.crop_scale[track], np.float64)
        return self._policy.boxes(bbox, scale[which], keys[which], frame)

    def _keys(
        self,
        rows: NDArray[np.int64],
        frame: NDArray[np.int64],
        bbox: NDArray[np.float32],
        previous: NDArray[np.int64] | None,
        labels: Sequence[NDArray[Any]],
    ) -> NDArray[np.uint64]:
        """(n, 2): 128 bits that differ when the row's pixels, frame, box, crop scale, previous frame or labels do."""
        track = self._split.track_of(rows)
        video = self._split.tracks.video[track].tolist()
        scale = np.asarray(self._split.tracks.crop_scale[track], np.float64)
        boxes, mirrored = self._boxes(rows, frame, bbox)
        parts: list[NDArray[Any]] = [frame, boxes, scale]
        if not self._policy.follows_box:
            parts.append(mirrored)
        if previous is not None:
            parts.append(previous)
        described = _bytes([*parts, *labels])
        out = np.empty((len(rows), 16), np.uint8)
        begun: dict[int, Any] = {}
        for i, number in enumerate(video):
            if number not in begun:
                begun[number] = hashlib.blake2b(self._split.videos[number].pixels.encode(), digest_size=16)
            key = begun[number].copy()
            key.update(described[i])
            out[i] = np.frombuffer(key.digest(), np.uint8)
        return out.view(np.uint64)


def label_keys(columns: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """(n, 2): 128 bits that differ when any of these columns' (n, ...) does."""
    keys = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in _bytes(columns))
    return np.frombuffer(keys, np.uint64).reshape(-1, 2)


def _bytes(columns: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """(n, ...) each -> (n, m): all bytes of each row."""
    return np.concatenate([np.ascontiguousarray(one).view(np.uint8).reshape(len(one), -1) for one in columns], 1)


def column(split: Split, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """(n, ...) of a column as stored, of any rows."""
    found, inverse = np.unique(rows, return_inverse=True)
    runs = np.split(found, np.flatnonzero(np.diff(found) != 1) + 1)
    return np.concatenate([split.rows(name, int(run[0]), int(run[-1]) + 1) for run in runs])[inverse]


def has_previous(split: Split, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) ascending rows of tracks -> whether the row before is of the same run: one step before in the same track."""
    starts = split.runs[:, 0]
    at = np.searchsorted(starts, rows)
    return np.asarray(np.append(starts, -1)[at] != rows)
