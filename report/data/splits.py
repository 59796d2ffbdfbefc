"""The splits that a report is about, and rows that stand for all of them.  tracks -> features -> [splits] -> report"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.text import error_text

Array = NDArray[Any]
Rows = NDArray[np.int64]

UNREADABLE: Final = (cache.CacheError, OSError)  # what costs a split its place in a section, and nothing else
ROWS: Final = 2048  # of each dataset, in a sample


@dataclass(slots=True)
class Opened:
    """The committed splits of a report, and what is wrong with others."""

    root: cache.Root
    splits: list[cache.Split] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> dict[str, list[cache.Split]]:
        """Dataset -> its splits."""
        found: dict[str, list[cache.Split]] = {}
        for split in self.splits:
            found.setdefault(split.name.partition("/")[0], []).append(split)
        return found


def open_splits(root: cache.Root, names: Sequence[str] = ()) -> Opened:
    """Those named `names`, or all of the cache. Raises cache.CacheError when there is no cache."""
    opened, found = cache.open(root), Opened(root)
    for name in names or opened.splits:
        try:
            found.splits.append(opened[name])
        except UNREADABLE as error:
            found.problems.append(problem(name, error))
    return found


def is_demo(split: cache.Split) -> bool:
    """Does the split come from demo data?"""
    return bool(split.manifest.get("stand_in", False))


def is_untrained(split: cache.Split, stream: str) -> bool:
    """Are the stream's features those of an untrained network?"""
    return bool((split.stream_manifest(stream).get("backbone") or {}).get("stand_in"))


def n_rows(split: cache.Split) -> int:
    """Rows of committed tracks."""
    return int((split.tracks.stop - split.tracks.start).sum())


def problem(name: str, error: BaseException) -> str:
    """What cannot be read of a split, by the error's message."""
    return f"{name}: {error_text(error)}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one dataset that stand for all: the same ones each time, and few however large the cache."""

    of: list[tuple[cache.Split, Rows]]  # each split with (n,) rows of committed tracks, ascending
    taken: int
    total: int  # rows of committed tracks

    def __str__(self) -> str:
        """
        >>> str(Sample([], 5, 5)), str(Sample([], 5, 9000))
        ('all 5 rows', '5 of 9,000 rows')
        """
        return f"all {self.total:,} rows" if self.taken == self.total else f"{self.taken:,} of {self.total:,} rows"


def sample(splits: Sequence[cache.Split], most: int = ROWS) -> Sample:
    """At most `most` rows over all the splits of a dataset, each as likely as any other."""
    ranks = spread_ranks(sum(map(n_rows, splits)), most)
    of, first = [], 0
    for split in splits:
        within = ranks[(ranks >= first) & (ranks < first + n_rows(split))] - first
        first += n_rows(split)
        # Between tracks, rows may belong to none.
        start, lengths = split.tracks.start, split.tracks.stop - split.tracks.start
        before = np.cumsum(lengths) - lengths
        track = np.searchsorted(before, within, side="right") - 1
        of.append((split, np.asarray(start[track] + within - before[track], np.int64)))
    return Sample(of, len(ranks), first)


def spread_ranks(total: int, most: int) -> Rows:
    """(min(total, most),) ascending numbers below `total`: one drawn of each of so many equal parts."""
    if total <= most:
        return np.arange(total)
    within = np.random.default_rng(0).random(most)
    return np.floor((np.arange(most) + within) * (total / most)).astype(np.int64).clip(max=total - 1)


def read_rows(split: cache.Split, column: str, rows: Rows) -> Iterator[Array]:
    """A column's rows as they are stored, one after the other. Raises cache.CacheError as `Split.rows` does."""
    return (split.rows(column, row, row + 1)[0] for row in rows.tolist())
