"""Rows of a cache that stand for all of them.  tracks -> features -> [samples] -> distributions, stream_health

A dataset's rows are cut into as many equal parts as rows are wanted, and of each part one row is drawn. The draw is
always the same, and memory and reading stay what they are however large the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache

Array = NDArray[Any]
Rows = NDArray[np.int64]

ROWS: Final = 2048  # of each dataset


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one dataset."""

    of: list[tuple[cache.Split, Rows]]  # each split with (n,) rows of committed tracks, ascending
    taken: int
    total: int  # rows of committed tracks

    @property
    def in_words(self) -> str:
        """
        >>> Sample([], 5, 5).in_words, Sample([], 5, 9000).in_words
        ('all 5 rows', '5 of 9,000 rows')
        """
        return f"all {self.total:,} rows" if self.taken == self.total else f"{self.taken:,} of {self.total:,} rows"


def sample(splits: Sequence[cache.Split], wanted: int = ROWS) -> Sample:
    """At most `wanted` rows over all the splits of a dataset, each as likely as any other."""
    sizes = [n_rows(split) for split in splits]
    total = sum(sizes)
    ranks = spread_ranks(total, wanted)
    ends = np.cumsum(sizes)
    cut = np.split(ranks, np.searchsorted(ranks, ends[:-1])) if splits else []
    firsts = [int(end) - size for end, size in zip(ends, sizes, strict=True)]
    of = [(split, _rows(split, part - first)) for split, part, first in zip(splits, cut, firsts, strict=True)]
    return Sample(of, len(ranks), total)


def n_rows(split: cache.Split) -> int:
    """Rows of committed tracks."""
    return int((split.tracks.stop - split.tracks.start).sum())


def spread_ranks(total: int, wanted: int) -> Rows:
    """(min(total, wanted),) ascending numbers below `total`: one drawn of each of so many equal parts."""
    if total <= wanted:
        return np.arange(total)
    within = np.random.default_rng(0).random(wanted)
    return np.floor((np.arange(wanted) + within) * (total / wanted)).astype(np.int64).clip(max=total - 1)


def read_rows(split: cache.Split, column: str, rows: Rows) -> Iterator[Array]:
    """A column's rows as they are stored, one after the other. Raises cache.CacheError as `Split.rows` does."""
    return (split.rows(column, row, row + 1)[0] for row in rows.tolist())


def _rows(split: cache.Split, ranks: Rows) -> Rows:
    """The ranks-th rows of the committed tracks: between tracks, rows may belong to none."""
    start, stop = split.tracks.start, split.tracks.stop
    before = np.cumsum(stop - start) - (stop - start)
    track = np.searchsorted(before, ranks, side="right") - 1
    return np.asarray(start[track] + ranks - before[track], np.int64)
