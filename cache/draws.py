"""Random orders that are computed where they are needed.  [cache]

`Draws` is an endless random sequence of windows of several splits, of which a `Mixture` takes the
draws of one step. It is made of `Permutation`s, which compute single elements of a random order
without storing it. Both depend only on their keys, so that any process finds the same draws.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Ints

_FEISTEL_ROUNDS: Final = 12  # with fewer, the orders of five elements are not equally likely
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)  # any odd number with bits everywhere
_HALF: Final = np.uint64(32)
_BLOCK: Final = 4096  # draws computed at once: computing a single one takes nearly as long


class DrawnWindows(NamedTuple):
    """Random windows of several splits, (count,) each."""

    split: Ints  # number of each window's split
    window: Ints  # number of each window within its split

    def select(self, chosen: slice) -> DrawnWindows:
        return DrawnWindows(self.split[chosen], self.window[chosen])


class Permutation:
    """A random permutation of 0 .. n - 1 that is computed element by element, without memory.

    Each `key`, of texts and integers, gives another permutation.

    >>> sorted(Permutation(5, "seed", 3)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]

    It is a Feistel network over pairs (left, right), with slightly more than n pairs. Results that
    are not below n (fewer than about sqrt(n)) are permuted again.
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

    def __call__(self, positions: Ints) -> Ints:
        """The elements (N,) at these positions (N,) of the permutation."""
        elements = self._shuffle(positions.astype(np.uint64))
        beyond = elements >= self._n
        while beyond.any():
            elements[beyond] = self._shuffle(elements[beyond])
            beyond = elements >= self._n
        return elements.astype(np.int64)

    def _shuffle(self, number: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(number, self._right)
        for turn, key in enumerate(self._keys):
            if turn % 2:
                right = (right + hash_bits(left ^ key) % self._right) % self._right
            else:
                left = (left + hash_bits(right ^ key) % self._left) % self._left
        return left * self._right + right


def hash_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash so that every output bit depends on every input bit."""
    for _ in range(2):
        bits = (bits ^ (bits >> _HALF)) * _MIX
    return bits ^ (bits >> _HALF)


class Draws:
    """An endless sequence of windows of several splits in random order, readable at any position.

    Each split has its own endless sequence: all its windows in random order, then all again in a
    new order, and so on. Draws come in rounds. Let n be a split's number of windows, and w its
    weight divided by the heaviest split's. Round r takes the elements from floor(r w n) up to, not
    including, floor((r + 1) w n) of each split's sequence, and shuffles those of all splits
    together. So R rounds have exactly floor(R w n) draws of a split, and each of its windows is
    drawn as often as the others, or once more.

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
        self._names = tuple(sizes)
        self._sizes = tuple(sizes.values())
        self._key = key
        # how many draws a round has on average, by split and in all
        self._per_round = [size * chosen[name] / heaviest for name, size in sizes.items()]
        self._all_per_round = sum(self._per_round, Fraction(0))
        self._block = min(_BLOCK, int(self._all_per_round))
        # the block computed last: its number and draws
        self._last: tuple[int, DrawnWindows] | None = None

    def take(self, start: int, count: int) -> DrawnWindows:
        """Return draws `start` to `start + count - 1`."""
        first = start // self._block
        last = (start + count - 1) // self._block
        blocks = [self._block_of(number) for number in range(first, last + 1)]
        begin = start - first * self._block
        return _join(blocks).select(slice(begin, begin + count))

    def _round_starts(self, round_: int) -> list[int]:
        """Position of a round's first draw in each split's sequence."""
        return [math.floor(round_ * n) for n in self._per_round]

    def _block_of(self, number: int) -> DrawnWindows:
        """The draws of one block of `_block` draws, from memory if they were computed last."""
        last = self._last  # read once: another thread may replace it
        if last is not None and last[0] == number:
            return last[1]
        start = number * self._block
        drawn = self._compute(start, start + self._block)
        self._last = (number, drawn)
        return drawn

    def _compute(self, start: int, stop: int) -> DrawnWindows:
        """Draws `start` to `stop - 1`, which may be in several rounds."""
        # `start` is in this round or a later one: floors make rounds begin earlier than on average
        round_ = math.floor(start / self._all_per_round)
        parts: list[DrawnWindows] = []
        while start < stop:
            begins = self._round_starts(round_)
            ends = self._round_starts(round_ + 1)
            first = sum(begins)  # number of draws in all earlier rounds
            end = min(sum(ends), stop)
            if start < end:
                positions = np.arange(start - first, end - first)
                parts.append(self._draw_round(round_, positions, begins, ends))
                start = end
            round_ += 1
        return _join(parts)

    def _draw_round(
        self, round_: int, positions: Ints, begins: list[int], ends: list[int]
    ) -> DrawnWindows:
        """Draws at positions (N,) of a round, which takes [begin, end) of each split's sequence."""
        counts = np.subtract(ends, begins, dtype=np.int64)
        stops = np.cumsum(counts)
        starts = stops - counts
        # Before the shuffle, the round has the draws of the first split, then of the second, ...
        shuffle = Permutation(int(stops[-1]), *self._key, "round", round_)
        unshuffled = shuffle(positions)
        split = np.searchsorted(stops, unshuffled, side="right").astype(np.int64)
        in_sequence = unshuffled - starts[split] + np.array(begins, np.int64)[split]

        # A split's sequence is one permutation of its windows after the other.
        window = np.empty_like(in_sequence)
        for number in np.unique(split).tolist():
            draws = np.flatnonzero(split == number)
            size = self._sizes[number]
            repetition, position = np.divmod(in_sequence[draws], size)
            for nth in np.unique(repetition).tolist():
                order = Permutation(size, *self._key, "split", self._names[number], nth)
                is_nth = repetition == nth
                window[draws[is_nth]] = order(position[is_nth])
        return DrawnWindows(split, window)


def _join(parts: Sequence[DrawnWindows]) -> DrawnWindows:
    return DrawnWindows(*map(np.concatenate, zip(*parts, strict=True)))
