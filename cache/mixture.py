"""Mix windows of several splits into batches.  tracks -> features -> [windows] -> training

A mixture has parts, such as one with 2D labels and one with 3D labels. Each batch holds a fixed
number of windows of every part, and a part draws them from its own splits by their weights. Which
windows step k gets depends only on the seed and k, so any process can make the batch of any step.

`Mixture.draw(k)` chooses windows, and `Mixture.read` reads them:

    A part with 2 windows a step has an endless random sequence of windows (`Draws`).
    Step 5 takes draws 10 and 11 of it.
    Rank 1 of 2 reads every second one of these (its rank slice): draw 11.
    {"3d": [Pick(split="3dpw/train", windows=[[480, 496]], rows=slice(0, 1), copy=0)]}

In a part with *copies* of streams, a second random number chooses the copy that a window reads.
The copy is read as the fields of the part's own stream.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cache.arrays import Array, Ints
from cache.errors import CacheError
from cache.windows import Ranges, StreamRows, find_ranges

if TYPE_CHECKING:
    from cache.read.split import Split
    from cache.windows import Tail

Arrays = dict[str, Array]
_Form = tuple[tuple[int, ...], np.dtype[Any]]  # of a field: shape after (B, T), and dtype


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One part of every batch: its splits, fields, weights, and number of windows."""

    name: str
    splits: Mapping[str, Split]  # open, by name
    count: int  # windows per step, for all ranks together; 1 or more
    fields: Sequence[str]  # fields to read, as for `Split.read`
    # streams, as for `Split.read`: fields `<name>` and `<name>_ok`. Only windows with features in
    # all of them are taken, even if `fields` does not name them.
    streams: Sequence[str] = ()
    # stream (one of `streams`) -> number of rows to read before each window
    history: Mapping[str, int] = field(default_factory=dict)
    # stream -> its copies, streams with different jitter. Each window reads one copy at random,
    # with the same number for all streams.
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stride: int = 16
    # In this and the next mappings, names of other splits are not used: parts can share a mapping.
    strides: Mapping[str, int] = field(default_factory=dict)  # split -> stride, if not `stride`
    # split -> weight, if not 1; see `Draws`
    weights: Mapping[str, float] = field(default_factory=dict)
    tail: Tail = "drop"  # see `Split.windows`
    # split -> ranges of rows in which no window may start
    left_out: Mapping[str, Ranges] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_copies = {len(copies) for copies in self.copies.values()}
        mistakes = (
            self.history.keys() - set(self.streams),
            self.copies.keys() - set(self.streams),
            len(n_copies) > 1 or 0 in n_copies,
        )
        if any(mistakes):  # one message shows all three fields
            raise ValueError(
                f"{self.name}: expected history of some of `streams`, and equally many copies of "
                f"some; found streams {list(self.streams)}, history {dict(self.history)}, copies "
                f"{dict(self.copies)}"
            )

    @cached_property
    def copy_streams(self) -> list[dict[str, str]]:
        """For each copy number, a dict: stream of the part -> stream to read in its place.

        Without copies, a list of one dict that maps each stream to itself.
        """
        n_copies = max(map(len, self.copies.values()), default=1)
        copies = {name: [name] * n_copies for name in self.streams} | {**self.copies}
        by_number = []
        for number in range(n_copies):
            by_number.append({name: copies[name][number] for name in self.streams})
        return by_number

    @property
    def all_streams(self) -> tuple[str, ...]:
        """Every stream and copy, once each."""
        names = [name for copies in self.copy_streams for name in copies.values()]
        return tuple(dict.fromkeys(names))

    def history_rows(self, name: str) -> int:
        """How many rows of a field are read before each window."""
        return self.history.get(name.removesuffix("_ok"), 0)


class Pick(NamedTuple):
    """The windows of one split (and one copy of its streams) in one part of a batch."""

    split: str
    windows: Ints  # (b, 2) or (b, T) as of `Split.windows`, ascending
    rows: slice  # where these windows are in the part's arrays, along B
    copy: int = 0  # number in the part's `copy_streams`

    @property
    def starts(self) -> Ints:
        """(b,) first rows."""
        return self.windows[:, 0]


_Picks = Mapping[str, Sequence[Pick]]  # name of a part -> the picks of its windows


class Mixture:
    """Random batches of windows from several splits, one batch per step: `draw`, then `read`.

    Within a part, windows are sorted by split, copy and row, so that each split is read in one go.
    With `world_size` ranks, window i of a step, counted through all parts, is for rank i %
    world_size. With a `rate`, windows are of `seqlen` times, `rate` a second.

    Raises CacheError for a part without a window, and for splits whose fields differ in shape;
    ValueError for a rank that is not below world_size, for parts of one name, and as Draws does.
    """

    def __init__(
        self,
        parts: Sequence[MixturePart],
        *,
        seqlen: int = 16,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        rate: float | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank of 0 to {world_size - 1}, found {rank}")
        self.seqlen = seqlen
        self.rate = rate
        self.seed = seed
        self.parts = {part.name: part for part in parts}
        if len(self.parts) < len(parts):
            raise ValueError(
                f"expected parts of different names, found {len(parts)} of {[*self.parts]}"
            )
        self._windows: dict[str, _PartWindows] = {}  # by part
        n_before = 0  # windows of the earlier parts in a step
        for part in parts:
            # Window i of the part is window n_before + i of the step. It is for this rank if
            # (n_before + i) % world_size == rank.
            share = slice((rank - n_before) % world_size, None, world_size)
            self._windows[part.name] = _PartWindows(part, seqlen, rate, seed, share)
            n_before += part.count
        self.sizes = {name: windows.size for name, windows in self._windows.items()}
        """Windows per step of this rank, by part."""
        self.fields = {name: windows.fields for name, windows in self._windows.items()}
        """Shape after (B, T) and dtype of each field, by part. Features keep their stored dtype."""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of windows of each split, by part."""
        return {name: windows.counts for name, windows in self._windows.items()}

    def draw(self, step: int) -> dict[str, list[Pick]]:
        """Draw this rank's windows of a step (counted from 0), by part."""
        return {name: windows.draw(step) for name, windows in self._windows.items()}

    def read(self, picks: _Picks, out: Mapping[str, Arrays] | None = None) -> dict[str, Arrays]:
        """Read the fields of drawn windows. Returns arrays (B, T, ...) by part and field.

        Args:
            out: buffers to fill and return, by part and field; features are converted to their
                dtypes, and fields without a buffer are not read. None: read all fields into new
                arrays.

        Raises the errors of `Split.read`.
        """
        if out is None:
            out = {name: self._windows[name].new_buffers() for name in picks}
        for name, chosen in picks.items():
            for pick in chosen:
                buffers = {field: buffer[pick.rows] for field, buffer in out[name].items()}
                self._windows[name].read(pick, tuple(buffers), buffers)
        return dict(out)

    def stream_rows(self) -> StreamRows:
        """The rows that the windows of all parts with streams need, without history and `rate`."""
        starts = defaultdict[str, list[Ints]](list)
        for windows in self._windows.values():
            if windows.part.streams:
                for split, rows in windows.rows.items():
                    starts[split].append(rows[:, 0])
        joined = {split: np.concatenate(first_rows) for split, first_rows in starts.items()}
        return StreamRows(joined, self.seqlen)


class _PartWindows:
    """The windows of one part, and which of them this rank reads in a step.

    Args:
        seed: of the mixture.
        share: this rank's windows among the `count` windows of a step.
    """

    def __init__(
        self, part: MixturePart, seqlen: int, rate: float | None, seed: int, share: slice
    ) -> None:
        self.part = part
        self.rows = _rows_of_windows(part, seqlen, rate)
        """Rows of all windows, by split: (W, 1) the first ones; with a rate (W, T) all."""
        self.counts = {split: len(rows) for split, rows in self.rows.items()}
        self.size = len(range(part.count)[share])
        """Windows per step of this rank."""
        self._seqlen = seqlen
        self._seed = seed
        self._share = share
        self._draws = Draws(self.counts, part.weights, seed, part.name)
        self.fields = self._find_fields()
        """Shape after (B, T) and dtype of each field."""

    def draw(self, step: int) -> list[Pick]:
        """This rank's windows in a step, ordered by split, copy and row."""
        # Choose window and copy of the step's `count` windows; take this rank's.
        count = self.part.count
        windows = self._draws.take(step * count, count)[self._share]
        n_copies = len(self.part.copy_streams)
        copies = np.zeros(count, np.int64)
        if n_copies > 1:  # with a key of its own, so that the copy does not depend on the window
            generator = _make_generator(self._seed, self.part.name, "copy", step)
            copies = generator.integers(n_copies, size=count)
        copies = copies[self._share]

        # Group them by split and copy: one pick each.
        picks = []
        end = 0
        n_before = 0  # windows of the earlier splits
        for split, all_rows in self.rows.items():
            stop = n_before + len(all_rows)
            is_of_split = (n_before <= windows) & (windows < stop)
            for copy in range(n_copies):
                chosen = windows[is_of_split & (copies == copy)] - n_before
                if len(chosen):
                    rows = slice(end, end + len(chosen))
                    drawn = self._windows(all_rows[np.sort(chosen)])
                    picks.append(Pick(split, drawn, rows, copy))
                    end = rows.stop
            n_before = stop
        return picks

    def new_buffers(self) -> Arrays:
        """New arrays (B, T, ...) for this rank's windows of a step, by field."""
        buffers = {}
        for name, (shape, dtype) in self.fields.items():
            n_rows = self.part.history_rows(name) + self._seqlen
            buffers[name] = np.empty((self.size, n_rows, *shape), dtype)
        return buffers

    def read(self, pick: Pick, fields: Sequence[str], out: Arrays | None = None) -> Arrays:
        """Read the fields of one pick, from its copy of each stream.

        Args:
            out: a buffer for each field, of any float dtype for features; None: make arrays.

        Returns the arrays (b, T, ...) by field.
        """
        streams = self.part.copy_streams[pick.copy]
        split = self.part.splits[pick.split]
        return split.read(
            pick.windows, fields=fields, out=out, streams=streams, history=self.part.history
        )

    def _windows(self, rows: Ints) -> Ints:
        """Some of `rows` as windows, as `Split.read` takes them."""
        if rows.shape[1] != 1:
            return rows
        return np.concatenate([rows, rows + self._seqlen], axis=1)

    def _find_fields(self) -> dict[str, _Form]:
        """Read one window of each split and copy for the shape and dtype of each field."""
        part = self.part
        fields: dict[str, _Form] = {}
        first_split: dict[str, str] = {}  # field -> the split that it was read from first
        for split, copy in itertools.product(part.splits, range(len(part.copy_streams))):
            if not self.counts[split]:
                continue
            dtypes = {}  # of features, as stored
            for stream, copied in part.copy_streams[copy].items():
                dtypes[stream] = part.splits[split].open_stream(copied).form.dtype
            pick = Pick(split, self._windows(self.rows[split][:1]), slice(1), copy)
            for name, array in self.read(pick, part.fields).items():
                dtype = np.dtype(dtypes.get(name, array.dtype))
                shape, widest = fields.setdefault(name, (array.shape[2:], dtype))
                first = first_split.setdefault(name, split)
                if shape != array.shape[2:]:
                    raise CacheError(
                        f"{part.name}: {name}: expected one shape in all splits, found {shape} in "
                        f"{first} and {array.shape[2:]} in {split}. They cannot be in one batch: "
                        "leave one of them out."
                    )
                fields[name] = (shape, np.result_type(widest, dtype))
        return fields


def _rows_of_windows(part: MixturePart, seqlen: int, rate: float | None) -> dict[str, Ints]:
    """Rows of all windows of a part, by split: (W, 1) the first ones; with a rate (W, T) all.
    Raises CacheError if there is no window.
    """
    length: dict[str, Any] = {"seqlen": seqlen}
    if rate is not None:
        length = {"seconds": seqlen / rate, "rate": rate}
    rows = {}
    for name, split in part.splits.items():
        stride = part.strides.get(name, part.stride)
        # a window must have features in all streams and copies
        windows = split.windows(stride=stride, tail=part.tail, streams=part.all_streams, **length)
        left_out = part.left_out.get(name, np.empty((0, 2), np.int64))
        of_part = windows if rate is not None else windows[:, :1]
        rows[name] = of_part[find_ranges(windows[:, 0], *left_out.T) < 0]
    if not any(map(len, rows.values())):
        raise CacheError(
            f"{part.name}: expected windows of {seqlen} frames, found none in "
            f"{', '.join(part.splits) or 'no splits'} (stream {', '.join(part.streams) or None}). "
            "Convert and extract these splits, or choose others."
        )
    return rows


class Draws:
    """An endless sequence of windows of several splits in random order, readable at any position.

    Each split has its own endless sequence: all its windows in random order, then all again in a
    new order, and so on. Draws come in rounds. Let n be a split's number of windows, and w its
    weight divided by the heaviest split's. Round r takes the elements from floor(r w n) up to, not
    including, floor((r + 1) w n) of each split's sequence, and shuffles those of all splits
    together. So R rounds have exactly floor(R w n) draws of a split, and each of its windows is
    drawn as often as the others, or once more.

    The order of one round is in memory: 8 bytes for each of its draws. To compute it takes about
    0.1 us for each window of the splits that it draws from, also where a small weight takes few.

    NumPy's feature releases may give another order for a key.

    Args:
        sizes: number of windows by split; 0 is allowed, but not for all.
        weights: by split (default: 1), taken as exact decimal fractions.
        key: texts and integers; each key gives another order.

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
        with_windows = [weight for name, weight in chosen.items() if sizes[name]]
        heaviest = max(with_windows, default=None)
        if heaviest is None:
            raise ValueError(f"expected windows, found none in {', '.join(sizes) or 'no splits'}")
        self._sizes = dict(sizes)
        self._key = key
        # how many draws a round has on average, by split
        self._per_round = {name: n * chosen[name] / heaviest for name, n in sizes.items()}
        self._rounds_per_draw = 1 / sum(self._per_round.values(), Fraction(0))
        # the round whose order was computed last, and its order
        self._last: tuple[int, Ints] | None = None

    def take(self, start: int, count: int) -> Ints:
        """Return draws `start` to `start + count - 1`: (count,) numbers of windows, which count
        through all splits in the order of `sizes`. count: 1 or more.
        """
        stop = start + count
        # `start` is in this round or a later one: floors make rounds begin earlier than on average
        round_number = _floor_product(start, self._rounds_per_draw)
        parts = []
        while start < stop:
            first = self._first_draw(round_number)
            end = min(self._first_draw(round_number + 1), stop)
            if start < end:
                parts.append(self._order(round_number)[start - first : end - first])
                start = end
            round_number += 1
        return np.concatenate(parts)

    def _first_draw(self, round_number: int) -> int:
        """Number of draws in all earlier rounds."""
        return sum(_floor_product(round_number, n) for n in self._per_round.values())

    def _order(self, round_number: int) -> Ints:
        """All draws of a round, from memory if they were computed last."""
        last = self._last  # read once: another thread may replace it
        if last is not None and last[0] == round_number:
            return last[1]
        drawn = []
        n_before = 0  # windows of the earlier splits
        for name, size in self._sizes.items():
            element = _floor_product(round_number, self._per_round[name])
            end = _floor_product(round_number + 1, self._per_round[name])
            while element < end:
                # the split's sequence is one order of its windows after the other
                repetition, first = divmod(element, size)
                order = _make_generator(*self._key, "split", name, repetition).permutation(size)
                order += n_before
                part = order[first : first + end - element]
                drawn.append(part)
                element += len(part)
            n_before += size
        order = np.concatenate(drawn)
        _make_generator(*self._key, "round", round_number).shuffle(order)
        self._last = (round_number, order)
        return order


def _make_generator(*key: str | int) -> np.random.Generator:
    """NumPy's generator for a key of texts and integers. Each key gives other random numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _floor_product(number: int, fraction: Fraction) -> int:
    """The product, rounded down. Much faster than `math.floor(number * fraction)`."""
    return number * fraction.numerator // fraction.denominator
