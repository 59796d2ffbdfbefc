"""What the official release of a dataset consists of, and known mistakes with it, as data: for `doctor`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.accounting import Totals

__all__ = ["Mistake", "Part", "Totals", "globs"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the download that can be looked for by names alone.

    `patterns` are paths below the raw folder as people read them: `labels/<0001>.mat`; `<...>` and `*` stand for any
    part of a name, `{train,val}` for one of the two; one with a slash at its end matches folders alone. They are
    alternatives, since some releases shipped pictures here and videos there: what they match is added up, not opened.
    """

    what: str  # "label files"
    patterns: tuple[str, ...]
    source: str  # what of the download holds it: "Penn_Action.tar.gz"
    splits: tuple[str, ...] = ()  # that need it; empty: all
    known: int | None = None  # how many the full release has
    without: str = ""  # what is lost without it, where the rest can be used all the same; "": it is needed


class Mistake(NamedTuple):
    """A known mistake with this download: one that shows when something below the raw folder matches `pattern`."""

    pattern: str  # as in `Part`
    what: str  # follows the first path that matches: "is of PoseTrack 2017"
    do: str  # "Download PoseTrack 2018."


def globs(patterns: Iterable[str]) -> list[str]:
    """What `patterns` of a Part mean, as globs.

    >>> globs(["<class>/<clip>.{mp4,avi}", "labels/<0001>.mat"])
    ['*/*.mp4', '*/*.avi', 'labels/*.mat']
    """
    found = []
    for pattern in patterns:
        pieces = re.split(r"\{([^{}]*)\}", re.sub("<[^<>]*>", "*", pattern))  # every second one lists alternatives
        choices = [piece.split(",") if i % 2 else [piece] for i, piece in enumerate(pieces)]
        found += ["".join(choice) for choice in itertools.product(*choices)]
    return found
