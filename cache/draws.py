"""Random order of windows, computed from a key and a number without storing it.  features -> [windows]"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Drawn = tuple[Ints, Ints]  # of each draw: number of its split, number of its window in that split

_FEISTEL_ROUNDS: Final = 12  # with fewer, the orders of five elements are not equally likely
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)  # any odd number with bits everywhere
_HALF: Final = np.uint64(32)
_BLOCK: Final = 4096  # draws that are computed at once: one costs hardly less


class Permutation:
    """A shuffled order of 0 .. n - 1 that takes no memory. `key`: texts and integers; another key, another order.

    >>> sorted(Permutation(5, "seed", 3)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]

    A Feistel network over pairs (left, right); results that are not below n are permuted again (fewer than about
    sqrt(n)).
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
        """Elements at these places, (N,) of 0 .. n - 1."""
        elements = self._shuffle(places.astype(np.uint64))
        while (beyond := np.flatnonzero(elements >= self._n)).size:
            elements[beyond] = self._shuffle(elements[beyond])
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

    Each split has its own sequence: every window once, in a new order each time. Draws come in rounds: with w a split's
    weight over the heaviest one's and n its windows, round r shuffles numbers floor(r w n) to floor((r + 1) w n) of all
    splits together: exactly floor(R w n) draws of a split in R rounds, each window as often as others, or once more.

    Args:
        sizes: number of windows by split; 0 is allowed, but not for all.
        weights: by split, taken as the decimal fraction that is written (default: 1).
        key: another key, another order.

    Raises ValueError for a weight of 0 or less, and when there is no window.
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

    def take(self, start: int, count: int) -> Drawn:
        """Draws from `start` on, (count,) each."""
        first, last = start // self._block, (start + count - 1) // self._block
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
            last = self._last = (number, self._compute(number * self._block, (number + 1) * self._block))
        return last[1]

    def _compute(self, start: int, stop: int) -> Drawn:
        round_ = math.floor(start / self._rate)  # or a later one: floors make rounds begin earlier than that
        parts: list[Drawn] = []
        while start < stop:
            begins, ends = self._begins(round_), self._begins(round_ + 1)
            first, last = sum(begins), min(sum(ends), stop)
            if start < last:
                parts.append(self._draw_round(round_, np.arange(start - first, last - first), begins, ends))
                start = last
            round_ += 1
        split, window = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return split, window

    def _draw_round(self, round_: int, places: Ints, begins: list[int], ends: list[int]) -> Drawn:
        takes = np.subtract(ends, begins, dtype=np.int64)
        stops = np.cumsum(takes)
        mixed = Permutation(int(stops[-1]), *self._key, "round", round_)(places)
        split = np.searchsorted(stops, mixed, side="right").astype(np.int64)
        number_in_split = mixed - (stops - takes)[split] + np.array(begins, np.int64)[split]
        window = np.empty_like(number_in_split)
        for number in np.unique(split).tolist():
            draws = np.flatnonzero(split == number)
            turn, position = np.divmod(number_in_split[draws], self._sizes[number])
            for time in np.unique(turn).tolist():
                order = Permutation(self._sizes[number], *self._key, "split", self._names[number], time)
                window[draws[turn == time]] = order(position[turn == time])
        return split, window
