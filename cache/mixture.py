"""Mix windows of several splits into batches.  tracks -> features -> [windows] -> training

The windows of step k follow from the seed and k, through orders that are computed and not stored:
any process can make any step.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.windows import Ints, Ranges, StreamRows

if TYPE_CHECKING:
    from cache.read.split import Split
    from cache.windows import Tail

Arrays = dict[str, NDArray[Any]]
Drawn = tuple[Ints, Ints]  # of each draw: number of its split, number of its window in that split

_FEISTEL_ROUNDS: Final = 12  # with fewer, the orders of five elements are not equally likely
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)  # any odd number with bits everywhere
_HALF: Final = np.uint64(32)
_BLOCK: Final = 4096  # draws that are computed at once: one costs hardly less


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One part of every batch: its splits, fields, weights, and number of windows."""

    name: str
    splits: Mapping[str, Split]  # open, by name
    count: int  # windows of a step, of all ranks together
    fields: Sequence[str]  # as `Split.read` takes them
    # of `features`; only windows that have it are taken, also where they are not read
    stream: str | None = None
    # several, in its place: fields of their own names, and with `_ok`, as `Split.read` has
    streams: Sequence[str] = ()
    # rows before each window, of some of `streams`
    history: Mapping[str, int] = field(default_factory=dict)
    # stream -> copies, of which each window takes one at random, the same one of each stream
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stride: int = 16
    strides: Mapping[str, int] = field(default_factory=dict)  # of splits where it is not `stride`
    # of splits where it is not 1; see Draws
    weights: Mapping[str, float] = field(default_factory=dict)
    tail: Tail = "drop"  # see `Split.windows`
    # of splits, tracks' rows without a window
    left_out: Mapping[str, Ranges] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.streams if self.stream is None else (self.stream,)
        lengths = {len(of_one) for of_one in self.copies.values()}
        strange = (self.copies.keys() - set(names)) | (self.history.keys() - set(self.streams))
        if (
            (self.stream is not None and self.streams)
            or strange
            or len(lengths) > 1
            or 0 in lengths
        ):
            raise ValueError(
                f"{self.name}: expected stream or streams, history of some of `streams`, and "
                f"equally many copies of some; found stream {self.stream}, streams "
                f"{list(self.streams)}, history {dict(self.history)}, copies "
                f"{dict(self.copies)}"
            )

    @cached_property
    def alternatives(self) -> list[dict[str, str]]:
        """Streams to read instead of the part's own, by name. Each window uses one of these."""
        names = self.streams if self.stream is None else (self.stream,)
        n_copies = max(map(len, self.copies.values()), default=1)
        return [
            {name: self.copies.get(name, [name] * n_copies)[k] for name in names}
            for k in range(n_copies)
        ]

    def history_rows(self, of_field: str) -> int:
        return self.history.get(of_field.removesuffix("_ok"), 0)


class Pick(NamedTuple):
    """The windows of one split (and one copy of its streams) in one part of a batch."""

    split: str
    starts: Ints  # (b,) first rows, ascending
    here: slice  # their place in the part
    copy: int = 0  # number in the part's `alternatives`


Picks = Mapping[str, Sequence[Pick]]  # by part


class Mixture:
    """Batches of windows of several splits, by step. Each part has its own splits, weights and
    number of windows.

    Within a part, windows are ordered by split, copy and row, to read each split at once. With
    `world_size` ranks, window i of a step, counted through all parts, is for rank i % world_size. A
    pickled mixture opens the splits again, and raises CacheChanged if there has been a commit
    since.

    Raises CacheError for a part without a window, and for splits whose fields differ in shape;
    ValueError for a rank that is not below world_size, and as Draws does.
    """

    def __init__(
        self,
        parts: Sequence[MixturePart],
        *,
        seqlen: int = 16,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank of 0 to {world_size - 1}, found {rank}")
        if few := [part.name for part in parts if part.count < 1]:
            raise ValueError(f"{', '.join(few)}: expected at least one window in each batch")
        self.seqlen = seqlen
        self._seed = seed
        self.parts = {part.name: part for part in parts}
        self._world_size = world_size
        self._starts = {part.name: _window_starts(part, seqlen) for part in parts}
        self._draws = {
            part.name: Draws(self.counts[part.name], part.weights, seed, part.name)
            for part in parts
        }
        before = np.cumsum([0, *(part.count for part in parts)])
        self._first = {
            part.name: int(rank - n) % world_size for part, n in zip(parts, before, strict=False)
        }
        self.sizes = {
            part.name: len(range(self._first[part.name], part.count, world_size)) for part in parts
        }
        """Windows per step of this rank, by part."""
        self.fields = {part.name: self._fields_of(part) for part in parts}
        """Shape after (B, T) and dtype of each field, by part. Features keep their stored dtype."""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of windows of each split, by part."""
        return {
            part: {name: len(rows) for name, rows in splits.items()}
            for part, splits in self._starts.items()
        }

    def draw(self, step: int) -> dict[str, list[Pick]]:
        """The windows of a step (from 0), by part."""
        picks: dict[str, list[Pick]] = {}
        for name, part in self.parts.items():
            drawn = self._draws[name].take(step * part.count, part.count)
            split, window = (column[self._first[name] :: self._world_size] for column in drawn)
            picks[name] = []
            end = 0
            n_copies = len(part.alternatives)
            copy = (
                self._copies(part, step)[self._first[name] :: self._world_size]
                if n_copies > 1
                else None
            )
            for number, (split_name, starts) in enumerate(self._starts[name].items()):
                for k in range(n_copies):
                    if len(
                        mine := window[
                            (split == number) if copy is None else (split == number) & (copy == k)
                        ]
                    ):
                        picks[name].append(
                            Pick(split_name, np.sort(starts[mine]), slice(end, end + len(mine)), k)
                        )
                        end += len(mine)
        return picks

    def _copies(self, part: MixturePart, step: int) -> Ints:
        """(count,) the alternative of each draw of a step."""
        draws = np.arange(step * part.count, (step + 1) * part.count, dtype=np.uint64)
        digest = hashlib.shake_256(repr((self._seed, part.name, "copy")).encode()).digest(8)
        return (
            _hash_bits(draws ^ np.frombuffer(digest, "<u8")) % np.uint64(len(part.alternatives))
        ).astype(np.int64)

    def read(self, picks: Picks, out: Mapping[str, Arrays] | None = None) -> dict[str, Arrays]:
        """Read the fields of drawn windows: by part, arrays of (B, T, ...). Raises as `Split.read`
        does.

        out: buffers to fill, by part and field, in their dtypes; fields without one are not read.
        None: all fields.
        """
        if out is None:
            out = {
                part: {
                    name: np.empty(
                        (
                            self.sizes[part],
                            self.parts[part].history_rows(name) + self.seqlen,
                            *shape,
                        ),
                        dtype,
                    )
                    for name, (shape, dtype) in self.fields[part].items()
                }
                for part in picks
            }
        for name, chosen in picks.items():
            part = self.parts[name]
            for pick in chosen:
                buffers = {field: buffer[pick.here] for field, buffer in out[name].items()}
                _read(
                    part, pick.split, pick.starts, self.seqlen, pick.copy, tuple(buffers), buffers
                )
        return dict(out)

    def stream_rows(self) -> StreamRows:
        """The stream rows that the windows of all parts need, without history."""
        starts: dict[str, list[Ints]] = {}
        for name, part in self.parts.items():
            if part.stream is not None or part.streams:
                for split, first_rows in self._starts[name].items():
                    starts.setdefault(split, []).append(first_rows)
        return StreamRows(
            {name: np.concatenate(first_rows) for name, first_rows in starts.items()}, self.seqlen
        )

    def _fields_of(self, part: MixturePart) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each field of a part, read from one window of each of its splits."""
        by_name: dict[str, tuple[str, tuple[int, ...], np.dtype[Any]]] = {}
        first_window = {
            name: starts[:1] for name, starts in self._starts[part.name].items() if len(starts)
        }
        for split, copy in itertools.product(first_window, range(len(part.alternatives))):
            for name, array in _read(
                part, split, first_window[split], self.seqlen, copy, part.fields
            ).items():
                first, shape, widest = by_name.setdefault(
                    name, (split, array.shape[2:], array.dtype)
                )
                if shape != array.shape[2:]:
                    raise CacheError(
                        f"{part.name}: {name}: expected one shape in all splits, found {shape} "
                        f"in {first} and {array.shape[2:]} in {split}. They cannot be in one "
                        "batch: leave one of them out."
                    )
                by_name[name] = (first, shape, np.result_type(widest, array.dtype))
        return {name: (shape, dtype) for name, (_, shape, dtype) in by_name.items()}


def _read(
    part: MixturePart,
    split: str,
    starts: Ints,
    seqlen: int,
    copy: int,
    fields: Sequence[str],
    out: Arrays | None = None,
) -> Arrays:
    """Read windows of one split and copy: into `out`, a buffer for each field, or new arrays with
    streams as stored.
    """
    opened = part.splits[split]
    names = part.alternatives[copy]
    windows = np.stack([starts, starts + seqlen], axis=1)

    def dtype(stream: str, of_field: str) -> Any:
        if out is not None:
            return out[of_field].dtype
        stored = opened.stream_manifest(stream)["dtype"]
        return "float32" if stored == "bytes" else stored  # reading them says what they are

    if not part.streams:
        stream = None if part.stream is None else names[part.stream]
        dtype_as_read = (
            dtype(stream, "features") if stream is not None and "features" in fields else "float32"
        )
        return opened.read(
            windows, stream=stream, fields=tuple(fields), dtype=dtype_as_read, out=out
        )
    read_as = {
        f"{name}{part}": f"{stream}{part}" for name, stream in names.items() for part in ("", "_ok")
    }
    batch = opened.read(
        windows,
        streams=tuple(names.values()),
        history={names[name]: n_rows for name, n_rows in part.history.items()},
        fields=[read_as.get(name, name) for name in fields],
        dtype={stream: dtype(stream, name) for name, stream in names.items() if name in fields},
        out=None
        if out is None
        else {read_as.get(name, name): buffer for name, buffer in out.items()},
    )
    return {name: batch[read_as.get(name, name)] for name in fields}


def _window_starts(part: MixturePart, seqlen: int) -> dict[str, Ints]:
    starts = {}
    for name, split in part.splits.items():
        stride = part.strides.get(name, part.stride)
        if part.streams or part.copies:
            every = tuple(
                dict.fromkeys(stream for names in part.alternatives for stream in names.values())
            )
            windows = split.windows(seqlen, stride, tail=part.tail, streams=every)
        else:
            windows = split.windows(seqlen, stride, part.stream, part.tail)
        first = windows[:, 0]
        left_out = part.left_out.get(name, np.empty((0, 2), np.int64))
        # ranges that begin at or before the window
        before = np.searchsorted(left_out[:, 0], first, side="right")
        stop = np.concatenate([[0], left_out[:, 1]])[before]
        starts[name] = np.ascontiguousarray(first[first >= stop])
    if not any(map(len, starts.values())):
        raise CacheError(
            f"{part.name}: expected windows of {seqlen} frames, found none in "
            f"{', '.join(starts) or 'no splits'} (stream "
            f"{part.stream or ', '.join(part.streams) or None}). Convert and extract these "
            "splits, or choose others."
        )
    return starts


class _Permutation:
    """A shuffled order of 0 .. n - 1 that takes no memory. `key`: texts and integers; another key,
    another order.

    >>> sorted(_Permutation(5, "seed", 3)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]

    A Feistel network over pairs (left, right); results that are not below n are permuted again
    (fewer than about sqrt(n)).
    """

    def __init__(self, n: int, *key: str | int) -> None:
        if n < 1:
            raise ValueError(f"expected something to permute, found {n} elements")
        n_left = math.isqrt(n - 1) + 1
        self._n = np.uint64(n)
        self._left = np.uint64(n_left)
        self._right = np.uint64(-(-n // n_left))
        digest = hashlib.shake_256(repr(key).encode()).digest(8 * _FEISTEL_ROUNDS)
        self._keys = np.frombuffer(digest, "<u8").astype(np.uint64)

    def __call__(self, places: Ints) -> Ints:
        """Elements at these places, (N,) of 0 .. n - 1."""
        elements = self._shuffle(places.astype(np.uint64))
        while (beyond := np.flatnonzero(elements >= self._n)).size:
            elements[beyond] = self._shuffle(elements[beyond])
        return elements.astype(np.int64)

    def _shuffle(self, number: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(number, self._right)
        for turn, key in enumerate(self._keys):
            if turn % 2:
                right = (right + _hash_bits(left ^ key) % self._right) % self._right
            else:
                left = (left + _hash_bits(right ^ key) % self._left) % self._left
        return left * self._right + right


def _hash_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash so that every output bit depends on every input bit."""
    for _ in range(2):
        bits = (bits ^ (bits >> _HALF)) * _MIX
    return bits ^ (bits >> _HALF)


class Draws:
    """An endless sequence of windows of several splits in random order, readable at any position.

    Each split has its own sequence: every window once, in a new order each time. Draws come in
    rounds: with w a split's weight over the heaviest one's and n its windows, round r shuffles
    numbers floor(r w n) to floor((r + 1) w n) of all splits together: exactly floor(R w n) draws of
    a split in R rounds, each window as often as others, or once more.

    Args:
        sizes: number of windows by split; 0 is allowed, but not for all.
        weights: by split, taken as the decimal fraction that is written (default: 1).
        key: another key, another order.

    Raises ValueError for a weight of 0 or less, and when there is no window.
    """

    def __init__(
        self, sizes: Mapping[str, int], weights: Mapping[str, float], *key: str | int
    ) -> None:
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
        self._names = tuple(sizes)
        self._sizes = tuple(sizes.values())
        self._key = key
        # draws a round
        self._rates = [size * chosen[name] / heaviest for name, size in sizes.items()]
        self._rate = sum(self._rates, Fraction(0))
        self._block = min(_BLOCK, int(self._rate))
        self._last: tuple[int, Drawn] | None = None

    def take(self, start: int, count: int) -> Drawn:
        """Draws from `start` on, (count,) each."""
        first = start // self._block
        last = (start + count - 1) // self._block
        blocks = [self._block_of(number) for number in range(first, last + 1)]
        part = slice(start - first * self._block, start - first * self._block + count)
        split, window = (np.concatenate(columns)[part] for columns in zip(*blocks, strict=True))
        return split, window

    def _begins(self, round_: int) -> list[int]:
        """Position of a round's first draw in each split's own sequence."""
        return [math.floor(round_ * rate) for rate in self._rates]

    def _block_of(self, number: int) -> Drawn:
        last = self._last  # read once: another thread may replace it
        if last is None or last[0] != number:
            last = self._last = (
                number,
                self._compute(number * self._block, (number + 1) * self._block),
            )
        return last[1]

    def _compute(self, start: int, stop: int) -> Drawn:
        # or a later one: floors make rounds begin earlier than that
        round_ = math.floor(start / self._rate)
        parts: list[Drawn] = []
        while start < stop:
            begins = self._begins(round_)
            ends = self._begins(round_ + 1)
            first = sum(begins)
            last = min(sum(ends), stop)
            if start < last:
                parts.append(
                    self._draw_round(round_, np.arange(start - first, last - first), begins, ends)
                )
                start = last
            round_ += 1
        split, window = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return split, window

    def _draw_round(self, round_: int, places: Ints, begins: list[int], ends: list[int]) -> Drawn:
        takes = np.subtract(ends, begins, dtype=np.int64)
        stops = np.cumsum(takes)
        mixed = _Permutation(int(stops[-1]), *self._key, "round", round_)(places)
        split = np.searchsorted(stops, mixed, side="right").astype(np.int64)
        number_in_split = mixed - (stops - takes)[split] + np.array(begins, np.int64)[split]
        window = np.empty_like(number_in_split)
        for number in np.unique(split).tolist():
            draws = np.flatnonzero(split == number)
            turn, position = np.divmod(number_in_split[draws], self._sizes[number])
            for time in np.unique(turn).tolist():
                order = _Permutation(
                    self._sizes[number], *self._key, "split", self._names[number], time
                )
                window[draws[turn == time]] = order(position[turn == time])
        return split, window
