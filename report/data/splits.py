"""The splits that a report is about, and rows that stand for all of them.  tracks -> features -> [splits] -> report"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.text import error_text
from pipeline.features.plan import missing_rows

Array = NDArray[Any]
Rows = NDArray[np.int64]

UNREADABLE: Final = (cache.CacheError, OSError)  # what costs a split its place in a section, and nothing else
ROWS: Final = 2048  # of each dataset, in a sample


@dataclass(slots=True)
class Opened:
    """The splits of a cache that can be read, and what is wrong with the others."""

    root: cache.Root
    splits: list[cache.Split] = field(default_factory=list)
    missing: dict[tuple[str, str], int] = field(default_factory=dict)  # (split, its stream) -> rows without features
    problems: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> dict[str, list[cache.Split]]:
        """Dataset -> its splits."""
        found: dict[str, list[cache.Split]] = {}
        for split in self.splits:
            found.setdefault(split.name.partition("/")[0], []).append(split)
        return found

    @property
    def stand_in(self) -> bool:
        """Is anything demo data: rows of a split, or features of a stream?"""
        manifests = (m for s in self.splits for m in (s.manifest, *(s.stream_manifest(name) for name in s.streams)))
        return any(map(stands_in, manifests))


def open_splits(root: cache.Root) -> Opened:
    """All splits of a cache. Raises nothing: what cannot be read is in `problems`."""
    found = Opened(root)
    try:
        opened = cache.open(root)
        names = opened.splits
    except UNREADABLE as error:
        found.problems.append(str(error))
        return found
    if not names:
        found.problems.append(f"{root}: the cache holds no split yet. `luigi --module tasks Data` fills it.")
    for name in names:
        try:
            split = opened[name]
            n_rows(split)  # reads the tables
            found.missing |= {(name, stream): missing_rows(split, stream).rows for stream in split.streams}
            found.splits.append(split)
        except UNREADABLE as error:
            found.problems.append(problem(name, error))
    return found


def stands_in(manifest: Mapping[str, Any]) -> bool:
    """Is it the manifest of a split of demo data, or of a stream of it or of an untrained network?"""
    return bool(manifest.get("stand_in") or (manifest.get("backbone") or {}).get("stand_in"))


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
