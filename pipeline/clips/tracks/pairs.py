"""Pairs of a person and a detection of a frame.  raw -> [tracks] -> features"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipeline.people.skeletons import Doubles, Ints

MAX_COST: Final = 25.0  # 5 standard deviations
# 3 standard deviations; such pairs are linked first, so that a lost person cannot take over
# another's detections
SURE_COST: Final = 9.0
CAP: Final = 9.0  # cost of a person whom a shift does not explain


class Pairs(NamedTuple):
    """P pairs of persons and detections of a frame, ascending."""

    row: Ints  # (P,) of the person, 0 to A - 1
    column: Ints  # (P,) of the detection, 0 to B - 1
    offset: Doubles  # (P, 2) px: d
    variance: Doubles  # (P,) px^2: S
    shape: Doubles  # (P,) (r / SHAPE)^2; infinite if no joint is seen in both
    other: Doubles  # (P,) the terms of the cost that do not depend on places

    @property
    def first(self) -> Ints:
        """(F,) the first pair of each person who has some."""
        return np.flatnonzero(np.diff(self.row, prepend=-1))

    @property
    def cost(self) -> Doubles:
        """Costs (P,) of place and shape."""
        return square(self.offset) / self.variance + self.shape

    def costs(self, shifts: Doubles) -> Doubles:
        """Costs (C, P) of place and shape, if the camera shifts all by one of C shifts px."""
        squared = square(self.offset) - 2 * (shifts @ self.offset.T)
        squared += square(shifts)[:, None]
        return squared / self.variance + self.shape

    def least(self, costs: Doubles) -> Doubles:
        """The least of costs (..., P) of each person who has some (..., F), up to CAP."""
        least: Doubles = np.minimum(np.minimum.reduceat(costs, self.first, axis=-1), CAP)
        return least


def square(vectors: Doubles) -> Doubles:
    """Squared lengths of vectors (..., 2)."""
    return np.asarray(np.einsum("...k,...k->...", vectors, vectors), np.float64)


def assign(pairs: Pairs, cost: Doubles) -> Ints:
    """Find the pairs with the least total cost: their positions (n,) among P. cost: (P,)."""
    near = np.flatnonzero(cost < MAX_COST)
    row = pairs.row[near]
    column = pairs.column[near]
    has_rivals = np.bincount(row)[row] * np.bincount(column)[column] > 1
    if not has_rivals.any():
        return near
    rows, i = np.unique(row[has_rivals], return_inverse=True)
    columns, j = np.unique(column[has_rivals], return_inverse=True)
    number = np.full((len(rows), len(columns)), len(cost))
    number[i, j] = near[has_rivals]
    costs = np.append(cost, np.inf)[number]
    return np.append(near[~has_rivals], number[tuple(_assign_rivals(costs))])


def _assign_rivals(cost: Doubles) -> Ints:
    """Find the n pairs with the least total cost: rows and columns of `cost`, (2, n).

    Pairs below SURE_COST are linked first, then others below MAX_COST.
    """
    # 0.2 s, which commands that link nothing need not wait for
    from scipy.optimize import linear_sum_assignment

    pairs = []
    cost = cost.copy()
    for limit in (SURE_COST, MAX_COST):
        rows, columns = linear_sum_assignment(np.minimum(cost, limit))
        linked = cost[rows, columns] < limit
        rows = rows[linked]
        columns = columns[linked]
        pairs.append([rows, columns])
        cost[rows] = np.inf
        cost[:, columns] = np.inf
    return np.concatenate(pairs, axis=1)
