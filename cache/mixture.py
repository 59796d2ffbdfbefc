"""Windows of several splits, mixed into batches by their step alone.  tracks -> features -> [windows] -> training

Which windows step k takes is arithmetic on the seed and k: nothing is drawn in order, nothing is kept, and no version
of NumPy has a say. So a run goes on in the middle of a round, any process can make any step, and all make the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.draws import Draws, Ints
from cache.errors import CacheError

if TYPE_CHECKING:
    from cache.read.split import Split
    from cache.windows import Tail

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of every batch is made of."""

    name: str
    splits: Mapping[str, Split]  # open, by name
    count: int  # windows of a step, of all ranks together
    fields: Sequence[str]  # as `Split.read` takes them
    stream: str | None = None  # of `features`; only windows that have it are taken, also where they are not read
    stride: int = 16
    strides: Mapping[str, int] = field(default_factory=dict)  # of splits where it is not `stride`
    weights: Mapping[str, float] = field(default_factory=dict)  # of splits where it is not 1; see Draws
    tail: Tail = "drop"  # see `Split.windows`


class Pick(NamedTuple):
    """The windows of one split in one part of a batch."""

    split: str
    starts: Ints  # (b,) first rows, ascending
    here: slice  # where they stand in the part


Picks = Mapping[str, Sequence[Pick]]  # by part


class Mixture:
    """Batches of windows of several splits, by step: every part has its own splits, weights and number of windows.

    Within a part, windows stand by split and row, so that each split is read at once and in order; which they are is
    the part's `Draws`. With `world_size` ranks, window i of a step, counted through all parts, is for rank
    i % world_size: ranks differ by at most one window in each part and in all. A mixture can be pickled, into workers
    for instance; the splits are then opened anew, and raise CacheChanged if there has been a commit since.

    Raises CacheError for a part without a window, and for splits whose fields differ in shape; ValueError for a rank
    that is not below world_size, and as Draws does.
    """

    def __init__(
        self, parts: Sequence[Part], *, seqlen: int = 16, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank of 0 to {world_size - 1}, found {rank}")
        if few := [part.name for part in parts if part.count < 1]:
            raise ValueError(f"{', '.join(few)}: expected at least one window in each batch")
        self.seqlen = seqlen
        self.parts = {part.name: part for part in parts}
        self._world_size = world_size
        self._starts = {part.name: _window_starts(part, seqlen) for part in parts}
        self._draws = {part.name: Draws(self.counts[part.name], part.weights, seed, part.name) for part in parts}
        before = np.cumsum([0, *(part.count for part in parts)])
        self._first = {part.name: int(rank - n) % world_size for part, n in zip(parts, before, strict=False)}
        self.sizes = {part.name: len(range(self._first[part.name], part.count, world_size)) for part in parts}
        """Windows of a step that this rank takes, by part."""
        self.fields = {part.name: self._fields_of(part) for part in parts}
        """What follows (B, T) in each field, and its dtype, by part. Features are as stored: no digit is lost."""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many windows each split gives, by part."""
        return {part: {name: len(rows) for name, rows in splits.items()} for part, splits in self._starts.items()}

    def draw(self, step: int) -> dict[str, list[Pick]]:
        """Which windows step `step`, from 0, takes, by part."""
        return {name: self._draw(part, step) for name, part in self.parts.items()}

    def read(self, picks: Picks, out: Mapping[str, Arrays] | None = None) -> dict[str, Arrays]:
        """The fields of drawn windows: by part, arrays of (B, T, ...).

        out: buffers to fill, by part and field; a field that has none is not read. Features are of their buffer's
        dtype. None: all fields, in new arrays. Raises as `Split.read` does.
        """
        if out is None:
            out = {part: self._buffers(part) for part in picks}
        for part, chosen in picks.items():
            for pick in chosen:
                self._fill(self.parts[part], pick, {name: buffer[pick.here] for name, buffer in out[part].items()})
        return dict(out)

    def stream_rows(self) -> StreamRows:
        """The rows of the stream that the windows of all parts need."""
        starts: dict[str, list[Ints]] = {}
        for name, part in self.parts.items():
            if part.stream is not None:
                for split, found in self._starts[name].items():
                    starts.setdefault(split, []).append(found)
        return StreamRows({name: np.concatenate(found) for name, found in starts.items()}, self.seqlen)

    def _draw(self, part: Part, step: int) -> list[Pick]:
        split, window = self._draws[part.name].at(step * part.count, part.count)
        split, window = (column[self._first[part.name] :: self._world_size] for column in (split, window))
        picks, end = [], 0
        for number, (name, starts) in enumerate(self._starts[part.name].items()):
            if len(mine := window[split == number]):
                picks.append(Pick(name, np.sort(starts[mine]), slice(end, end + len(mine))))
                end += len(mine)
        return picks

    def _buffers(self, part: str) -> Arrays:
        shape = (self.sizes[part], self.seqlen)
        return {name: np.empty((*shape, *rest), dtype) for name, (rest, dtype) in self.fields[part].items()}

    def _fill(self, part: Part, pick: Pick, buffers: Arrays) -> None:
        windows = np.stack([pick.starts, pick.starts + self.seqlen], axis=1)
        dtype = buffers["features"].dtype if "features" in buffers else np.dtype(np.float32)
        split = part.splits[pick.split]
        split.read(windows, stream=part.stream, fields=tuple(buffers), dtype=dtype, out=buffers)

    def _fields_of(self, part: Part) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """What the fields of a part look like, from one window of each of its splits."""
        found: dict[str, tuple[str, tuple[int, ...], np.dtype[Any]]] = {}
        for split, starts in self._starts[part.name].items():
            if not len(starts):
                continue
            stream = part.splits[split].stream_manifest(part.stream) if part.stream is not None else {}
            dtype = np.dtype(stream["dtype"] if stream else "float32")
            windows = np.array([[starts[0], starts[0] + self.seqlen]])
            arrays = part.splits[split].read(windows, stream=part.stream, fields=tuple(part.fields), dtype=dtype)
            for name, array in arrays.items():
                first, shape, widest = found.setdefault(name, (split, array.shape[2:], array.dtype))
                if shape != array.shape[2:]:
                    raise CacheError(
                        f"{part.name}: {name}: expected one shape in all splits, found {shape} in {first} and "
                        f"{array.shape[2:]} in {split}. They cannot stand in one batch: leave one of them out."
                    )
                found[name] = (first, shape, np.result_type(widest, array.dtype))
        return {name: (shape, dtype) for name, (_, shape, dtype) in found.items()}


def _window_starts(part: Part, seqlen: int) -> dict[str, Ints]:
    """The first row of every window, by split."""
    found = {
        name: np.ascontiguousarray(
            split.windows(seqlen, part.strides.get(name, part.stride), part.stream, part.tail)[:, 0]
        )
        for name, split in part.splits.items()
    }
    if not any(map(len, found.values())):
        raise CacheError(
            f"{part.name}: expected windows of {seqlen} frames, found none in {', '.join(found) or 'no splits'} "
            f"(stream {part.stream}). Convert and extract these splits, or choose others."
        )
    return found


class StreamRows:
    """The rows that some windows need, put one behind the other in one table; each row is there once.

    starts: first rows of the windows, by split, in any order, repeated or not.
    """

    def __init__(self, starts: Mapping[str, Ints], seqlen: int) -> None:
        self.seqlen = seqlen
        self._runs: dict[str, tuple[Ints, Ints, Ints]] = {}  # first row, last row + 1, place of the first row
        self.total = 0
        for name, found in starts.items():
            begins = np.unique(found)
            # Windows that share a row are of one run. Those that only touch may be of two tracks.
            new = np.diff(begins, prepend=-seqlen) >= seqlen
            first = begins[new]
            stop = begins[np.append(new[1:], True)] + seqlen if len(begins) else begins
            lengths = stop - first
            self._runs[name] = (first, stop, np.cumsum(lengths) - lengths + self.total)
            self.total += int(lengths.sum())

    def place(self, split: str, starts: Ints) -> Ints:
        """Where windows lie in the table: (b,) first rows in the split -> (b,) first rows in the table."""
        first, _, place = self._runs[split]
        run = np.searchsorted(first, starts, side="right") - 1
        return place[run] + starts - first[run]

    def pieces(self, n_windows: int = 512) -> Iterator[tuple[str, Ints]]:
        """(split, first rows of at most `n_windows` windows) that together cover the table, for whoever fills it."""
        for name, (first, stop, _) in self._runs.items():
            counts = -(-(stop - first) // self.seqlen)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            # The last one of a run ends where the run does.
            starts = np.minimum(np.repeat(first, counts) + within * self.seqlen, np.repeat(stop, counts) - self.seqlen)
            for begin in range(0, len(starts), n_windows):
                yield name, starts[begin : begin + n_windows]
