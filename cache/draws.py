"""Random order without a list: which windows of which split come, by their number alone.  features -> [windows]

Arithmetic on a key and a number: nothing is drawn in order, nothing is kept, and no version of NumPy has an influence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
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
        n_left = math.isqrt(n - 1) + 1
        self._n = np.uint64(n)
        self._left, self._right = np.uint64(n_left), np.uint64(-(-n // n_left))
        digest = hashlib.shake_256(repr(key).encode()).digest(8 * _FEISTEL_ROUNDS)
        self._keys = np.frombuffer(digest, "<u8").astype(np.uint64)

    def __call__(self, places: Ints) -> Ints:
        """What is at each place, (N,) of 0 .. n - 1."""
        elements = self._shuffled(places.astype(np.uint64))
        while (beyond := np.flatnonzero(elements >= self._n)).size:
            elements[beyond] = self._shuffled(elements[beyond])
        return elements.astype(np.int64)

    def _shuffled(self, number: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(number, self._right)
        for turn, key in enumerate(self._keys):
            if turn % 2:
                right = (right + hashed(left ^ key) % self._right) % self._right
            else:
                left = (left + hashed(right ^ key) % self._left) % self._left
        return left * self._right + right


def hashed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
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
        number_in_split = (
            mixed - (stops - takes)[split] + np.array(begins, np.int64)[split]
        )  # number in the split's own sequence
        window = np.empty_like(number_in_split)
        for number in np.unique(split).tolist():
            draws = np.flatnonzero(split == number)
            turn, position = np.divmod(number_in_split[draws], self._sizes[number])
            for time in np.unique(turn).tolist():
                order = Permutation(self._sizes[number], *self._key, "split", self._names[number], time)
                window[draws[turn == time]] = order(position[turn == time])
        return split, window
