"""The random order in which a training reads the windows of several splits.  [cache]

`Draws` is an endless sequence of windows, of which a `Mixture` (`cache/mixture.py`) takes the draws
of one step. It depends only on its key, so that any process finds the same draws from any step on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from cache.arrays import Ints


def generator_for(*key: str | int) -> np.random.Generator:
    """NumPy's generator for a key of texts and integers. Each key gives other random numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


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
                order = generator_for(*self._key, "split", name, repetition).permutation(size)
                order += n_before
                part = order[first : first + end - element]
                drawn.append(part)
                element += len(part)
            n_before += size
        order = np.concatenate(drawn)
        generator_for(*self._key, "round", round_number).shuffle(order)
        self._last = (round_number, order)
        return order


def _floor_product(number: int, fraction: Fraction) -> int:
    """The product, rounded down. Much faster than `math.floor(number * fraction)`."""
    return number * fraction.numerator // fraction.denominator
