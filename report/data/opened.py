"""The splits that a report is about, and what cannot be read of them.  tracks -> features -> [opened] -> report"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cache
from pipeline.cli.text import error_text

UNREADABLE: Final = (cache.CacheError, OSError)  # what costs a split its place in a section, and nothing else


@dataclass(slots=True)
class Opened:
    """The committed splits of a report, and in words what is wrong with others."""

    root: cache.Root
    splits: list[cache.Split] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> dict[str, list[cache.Split]]:
        """Dataset -> its splits."""
        found: dict[str, list[cache.Split]] = {}
        for split in self.splits:
            found.setdefault(dataset_of(split), []).append(split)
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


def dataset_of(split: cache.Split) -> str:
    """The first part of the split's name."""
    return split.name.partition("/")[0]


def stands_in(split: cache.Split) -> bool:
    """Whether the split comes from stand-in data."""
    return bool(split.manifest.get("stand_in", False))


def problem(name: str, error: BaseException) -> str:
    """What cannot be read of a split, in the error's own words."""
    return f"{name}: {error_text(error)}"
