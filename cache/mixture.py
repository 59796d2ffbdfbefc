"""Windows of several splits, mixed into batches by their step alone.  tracks -> features -> [windows] -> training

Which windows step k takes is arithmetic on the seed and k: nothing is drawn in order, nothing is kept, and no version
of NumPy has an influence. So training goes on in the middle of a round, any process can make any step, and all make the
same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError

if TYPE_CHECKING:
    from cache.read.split import Split
    from cache.windows import Tail

Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Drawn = tuple[Ints, Ints]  # of each draw: the number of its split, the number of its window in that split

_FEISTEL_ROUNDS: Final = 12  # fewer show on five elements: not all of their orders come equally often
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)  # any odd number with bits everywhere
_HALF: Final = np.uint64(32)
_BLOCK: Final = 4096  # draws that are computed at once: one costs hardly less


class Permutation:
    """A shuffled order of 0 .. n - 1 that is never stored: any places of it at once, in no memory.

    >>> sorted(Permutation(5, "seed", 3)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]

    A number is a pair (left, right) of digits, and each round adds to one digit a hash of the other: that can be undone
    whatever the hash is, so it is a permutation of all pairs. Those that are not below n go round again until they are;
    there are fewer than about sqrt(n). `key`: texts and whole numbers; another key, another order.
    """

    def __init__(self, n: int, *key: str | int) -> None:
        if n < 1:
            raise ValueError(f"expected something to permute, found {n} elements")
        left = math.isqrt(n - 1) + 1
        self._n = np.uint64(n)
        self._left, self._right = np.uint64(left), np.uint64(-(-n // left))
        digest = hashlib.shake_256(repr(key).encode()).digest(8 * _FEISTEL_ROUNDS)
        self._keys = np.frombuffer(digest, "<u8").astype(np.uint64)

    def __call__(self, places: Ints) -> Ints:
        """What is at each place, (N,) of 0 .. n - 1."""
        found = self._shuffled(places.astype(np.uint64))
        while (beyond := np.flatnonzero(found >= self._n)).size:
            found[beyond] = self._shuffled(found[beyond])
        return found.astype(np.int64)

    def _shuffled(self, number: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(number, self._right)
        for turn, key in enumerate(self._keys):
            if turn % 2:
                right = (right + _hashed(left ^ key) % self._right) % self._right
            else:
                left = (left + _hashed(right ^ key) % self._left) % self._left
        return left * self._right + right


def _hashed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the answer depends on every bit given."""
    for _ in range(2):
        bits = (bits ^ (bits >> _HALF)) * _MIX
    return bits ^ (bits >> _HALF)


class Draws:
    """An endless sequence of windows of several splits, in random order: any part of it at once.

    Each split has an endless sequence of its own: every window once, in a new order, before any comes again. The draws
    come in rounds. With w a split's weight over the heaviest one's and n its windows, round r takes numbers
    floor(r w n) to floor((r + 1) w n) of the split's own sequence, and shuffles those of all splits together. Equal
    weights: a round is every window once. Over any number R of rounds a split gives exactly floor(R w n) draws, and no
    two of its windows differ by more than one in how often they came.

    Args:
        sizes: windows of each split, by name; some may have none, but not all.
        weights: of each split, by name; 1 where it is left out. Taken as the decimal fraction that it is written as.
        key: another key, another order.

    Raises ValueError for a weight that is not more than 0, and when there is no window at all.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], *key: str | int) -> None:
        chosen = {}
        for name in sizes:
            weight = weights.get(name, 1)
            if not (math.isfinite(weight) and weight > 0):
                do = "Leave the split out instead."
                raise ValueError(f"weight of {name}: expected more than 0, found {weight}. {do}")
            chosen[name] = Fraction(str(weight))
        heaviest = max((weight for name, weight in chosen.items() if sizes[name]), default=None)
        if heaviest is None:
            raise ValueError(f"expected windows, found none in {', '.join(sizes) or 'no splits'}")
        self._names, self._sizes, self._key = tuple(sizes), tuple(sizes.values()), key
        self._rates = [size * chosen[name] / heaviest for name, size in sizes.items()]  # draws a round
        self._rate = sum(self._rates, Fraction(0))
        self._block = min(_BLOCK, int(self._rate))
        self._last: tuple[int, Drawn] | None = None

    def at(self, start: int, count: int) -> Drawn:
        """Draws `start` to `start + count`: (count,) each."""
        first, last = start // self._block, (start + count - 1) // self._block
        blocks = [self._block_of(number) for number in range(first, last + 1)]
        part = slice(start - first * self._block, start - first * self._block + count)
        split, window = (np.concatenate(columns)[part] for columns in zip(*blocks, strict=True))
        return split, window

    def begin(self, round_: int) -> int:
        """The number of the first draw of a round."""
        return sum(self._begins(round_))

    def _begins(self, round_: int) -> list[int]:
        """The first number of each split's own sequence that a round takes."""
        return [math.floor(round_ * rate) for rate in self._rates]

    def _block_of(self, number: int) -> Drawn:
        last = self._last  # once: another thread may put its own block there
        if last is None or last[0] != number:
            last = self._last = (number, self._computed(number * self._block, (number + 1) * self._block))
        return last[1]

    def _computed(self, start: int, stop: int) -> Drawn:
        round_ = math.floor(start / self._rate)  # or a later one: floors make rounds begin earlier than that
        parts: list[Drawn] = []
        while start < stop:
            begins, ends = self._begins(round_), self._begins(round_ + 1)
            first, last = sum(begins), min(sum(ends), stop)
            if start < last:
                parts.append(self._of_round(round_, np.arange(start - first, last - first), begins, ends))
                start = last
            round_ += 1
        split, window = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return split, window

    def _of_round(self, round_: int, places: Ints, begins: list[int], ends: list[int]) -> Drawn:
        takes = np.subtract(ends, begins, dtype=np.int64)
        stops = np.cumsum(takes)
        mixed = Permutation(int(stops[-1]), *self._key, "round", round_)(places)
        split = np.searchsorted(stops, mixed, side="right").astype(np.int64)
        own = mixed - (stops - takes)[split] + np.array(begins, np.int64)[split]  # number in the split's own sequence
        window = np.empty_like(own)
        for number in np.unique(split).tolist():
            here = np.flatnonzero(split == number)
            turn, place = np.divmod(own[here], self._sizes[number])
            for time in np.unique(turn).tolist():
                order = Permutation(self._sizes[number], *self._key, "split", self._names[number], time)
                window[here[turn == time]] = order(place[turn == time])
        return split, window


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
    here: slice  # their place in the part


Picks = Mapping[str, Sequence[Pick]]  # by part


class Mixture:
    """Batches of windows of several splits, by step: every part has its own splits, weights and number of windows.

    Within a part, windows are ordered by split and row, so that each split is read at once and in order; which they are
    is the part's `Draws`. With `world_size` ranks, window i of a step, counted through all parts, is for rank
    i % world_size: ranks differ by at most one window in each part and in all. A mixture can be pickled, into workers
    for instance; the splits are then opened again, and raise CacheChanged if there has been a commit since.

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
        picks: dict[str, list[Pick]] = {}
        for name, part in self.parts.items():
            drawn = self._draws[name].at(step * part.count, part.count)
            split, window = (column[self._first[name] :: self._world_size] for column in drawn)
            picks[name], end = [], 0
            for number, (of, starts) in enumerate(self._starts[name].items()):
                if len(mine := window[split == number]):
                    picks[name].append(Pick(of, np.sort(starts[mine]), slice(end, end + len(mine))))
                    end += len(mine)
        return picks

    def read(self, picks: Picks, out: Mapping[str, Arrays] | None = None) -> dict[str, Arrays]:
        """The fields of drawn windows: by part, arrays of (B, T, ...).

        out: buffers to fill, by part and field; a field that has none is not read. Features are of their buffer's
        dtype. None: all fields, in new arrays. Raises as `Split.read` does.
        """
        if out is None:
            out = {
                part: {
                    name: np.empty((self.sizes[part], self.seqlen, *shape), dtype)
                    for name, (shape, dtype) in self.fields[part].items()
                }
                for part in picks
            }
        for name, chosen in picks.items():
            part = self.parts[name]
            for pick in chosen:
                buffers = {field: buffer[pick.here] for field, buffer in out[name].items()}
                windows = np.stack([pick.starts, pick.starts + self.seqlen], axis=1)
                dtype = buffers["features"].dtype if "features" in buffers else np.dtype(np.float32)
                split = part.splits[pick.split]
                split.read(windows, stream=part.stream, fields=tuple(buffers), dtype=dtype, out=buffers)
        return dict(out)

    def stream_rows(self) -> StreamRows:
        """The rows of the stream that the windows of all parts need."""
        starts: dict[str, list[Ints]] = {}
        for name, part in self.parts.items():
            if part.stream is not None:
                for split, found in self._starts[name].items():
                    starts.setdefault(split, []).append(found)
        return StreamRows({name: np.concatenate(found) for name, found in starts.items()}, self.seqlen)

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
                        f"{array.shape[2:]} in {split}. They cannot be in one batch: leave one of them out."
                    )
                found[name] = (first, shape, np.result_type(widest, array.dtype))
        return {name: (shape, dtype) for name, (_, shape, dtype) in found.items()}


def _window_starts(part: Part, seqlen: int) -> dict[str, Ints]:
    """The first row of every window, by split."""
    found = {}
    for name, split in part.splits.items():
        windows = split.windows(seqlen, part.strides.get(name, part.stride), part.stream, part.tail)
        found[name] = np.ascontiguousarray(windows[:, 0])
    if not any(map(len, found.values())):
        raise CacheError(
            f"{part.name}: expected windows of {seqlen} frames, found none in {', '.join(found) or 'no splits'} "
            f"(stream {part.stream}). Convert and extract these splits, or choose others."
        )
    return found


class StreamRows:
    """The rows that some windows need, one behind the other in one table; each row is there once.

    starts: first rows of the windows, by split, in any order, repeated or not.
    """

    def __init__(self, starts: Mapping[str, Ints], seqlen: int) -> None:
        self.seqlen = seqlen
        self._segments: dict[str, tuple[Ints, Ints, Ints]] = {}  # first row, last row + 1, place of the first row
        self.total = 0
        for name, found in starts.items():
            begins = np.unique(found)
            # Windows that share a row are of one run. Those that only touch may be of two tracks.
            new = np.diff(begins, prepend=-seqlen) >= seqlen
            first = begins[new]
            stop = begins[np.append(new[1:], True)] + seqlen if len(begins) else begins
            lengths = stop - first
            self._segments[name] = (first, stop, np.cumsum(lengths) - lengths + self.total)
            self.total += int(lengths.sum())

    def place(self, split: str, starts: Ints) -> Ints:
        """Where windows are in the table: (b,) first rows in the split -> (b,) first rows in the table."""
        first, _, place = self._segments[split]
        segment = np.searchsorted(first, starts, side="right") - 1
        return place[segment] + starts - first[segment]

    def batches(self, n_windows: int = 512) -> Iterator[tuple[str, Ints]]:
        """(split, first rows of at most `n_windows` windows) that together cover the table, to fill it."""
        for name, (first, stop, _) in self._segments.items():
            counts = -(-(stop - first) // self.seqlen)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            # The last one of a segment ends where the segment does.
            starts = np.minimum(np.repeat(first, counts) + within * self.seqlen, np.repeat(stop, counts) - self.seqlen)
            for begin in range(0, len(starts), n_windows):
                yield name, starts[begin : begin + n_windows]
