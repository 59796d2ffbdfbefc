"""What the official release of a dataset consists of: for `doctor`, and for totals beside which to read our own.

Said by each dataset as data, so that a dataset from elsewhere is examined and counted like ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the download that can be looked for by names alone.

    `patterns` are globs below the raw folder, such as `labels/*.mat`, without `**`; one with a slash at its end
    matches folders alone. One that matches is enough, since some releases shipped pictures here and videos there. What
    they match is added up, not opened.
    """

    what: str  # "label files"
    patterns: tuple[str, ...]
    source: str  # what of the download holds it: "Penn_Action.tar.gz"
    splits: tuple[str, ...] = ()  # that need it; empty: all
    known: int | None = None  # how many the full release has
    without: str = ""  # what is lost without it, where the rest can be used all the same; "": it is needed
    shown: tuple[str, ...] = ()  # the patterns as people read them: "labels/<0001>.mat"; empty: as they are


@dataclass(frozen=True, slots=True)
class Totals:
    """What the full release has of a split, counted as the accounting counts it. None: not known."""

    videos: int | None = None
    frames: int | None = None  # person-frames found

    def as_dict(self) -> dict[str, int]:
        """What is known, by name."""
        counts = {"videos": self.videos, "frames": self.frames}
        return {name: count for name, count in counts.items() if count is not None}


class Mistake(NamedTuple):
    """Something in a raw folder that looks as if a known mistake had been made."""

    what: str  # "frames/ is empty, but frames.zip lies beside it"
    do: str  # "Unpack it."
    instead: bool = False  # this is another download: whatever else looks wrong follows from it, and is not told


def counted(n: int, one: str, many: str) -> str:
    """How many, in good English.

    >>> counted(1, "label file has", "label files have"), counted(1200, "folder", "folders")
    ('1 label file has', '1,200 folders')
    """
    return f"{n:,} {one if n == 1 else many}"
