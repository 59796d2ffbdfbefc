"""Is a dataset's part of a stream sound? One line each.  features -> report: [health_verdicts] -> stream_health"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from pipeline.cli.text import count

MOST_CONSTANT: Final = 0.5  # of the channels
NORM_RATIO: Final = 2.0
FAR: Final = 1.0  # in units of the spread within
TIMES_OWN: Final = 3.0  # the diagonal of the table of drift
RULE: Final = (
    "A dataset gets “!” where rows lack features or have ok = 0, where a row that was looked at has NaN, an infinity "
    f"or only zeros, and where more than {MOST_CONSTANT:.0%} of the channels never change."
)
RULE_TRAINED: Final = (
    f"Also where its median norm differs from that of the other datasets by more than a factor of {NORM_RATIO:g}, "
    f"and where even the nearest other dataset is further away than {FAR:g} in the table of drift "
    f"and further than {TIMES_OWN:g} times its own diagonal."
)
UNTRAINED: Final = (
    "The network is untrained, a stand-in: its norms and its drift say nothing about the data, and are not judged."
)
LOOK: Final = "look at its crops under Example tracks: colours, size, what is in them"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one dataset's features."""

    lacking: int  # rows without features
    lost: int  # rows with ok = 0
    not_finite: int  # of the rows looked at
    zeros: int  # of the rows looked at
    constant: float  # share of the channels
    norm: float  # the median; NaN where it is not known
    own_drift: float  # one half of its tracks against the other; NaN where it is not known
    nearest: float  # drift to the nearest other dataset; NaN without one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is found of a dataset."""

    dataset: str
    found: Sequence[str]  # what is wrong; nothing: sound
    do: Sequence[str]

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Of the table."""
        if not self.found:
            return self.dataset, "✓", "nothing found", "nothing"
        return self.dataset, "!", "; ".join(self.found), "; ".join(dict.fromkeys(self.do))


def judge(seen: Mapping[str, Seen], *, trained: bool) -> list[Verdict]:
    """By the rule that the page states. trained: whether norms and drift say anything."""
    found = []
    for name, one in seen.items():
        others = [other.norm for key, other in seen.items() if key != name and math.isfinite(other.norm)]
        told = [*_counted(one), *(_compared(one, others) if trained else ())]
        found.append(Verdict(name, [what for what, _ in told], [do for _, do in told]))
    return found


def _counted(one: Seen) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do)"""
    if one.lacking:
        yield f"{count(one.lacking, 'row')} without features", "python -m pipeline extract computes them"
    if one.lost:
        yield (
            f"{count(one.lost, 'row')} with ok = 0",
            "get these pictures again (python -m pipeline extract names the problems), or go without these rows: "
            "training leaves them out",
        )
    if one.not_finite:
        yield (
            f"NaN or infinity in {count(one.not_finite, 'row')} looked at",
            "python -m pipeline verify, then extract the stream anew",
        )
    if one.zeros:
        yield f"only zeros in {count(one.zeros, 'row')} looked at", LOOK
    if one.constant > MOST_CONSTANT:
        yield f"{one.constant:.0%} of the channels never change", LOOK


def _compared(one: Seen, norms: Sequence[float]) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do), of a trained network."""
    if norms and math.isfinite(one.norm):
        of_others = median(norms)
        if not of_others / NORM_RATIO <= one.norm <= of_others * NORM_RATIO:
            yield f"median norm {one.norm:.3g}, of the other datasets {of_others:.3g}", LOOK
    own = one.own_drift if math.isfinite(one.own_drift) else 0.0
    if one.nearest > max(FAR, TIMES_OWN * own):
        yield f"drift of {one.nearest:.2f} even to the nearest dataset, {own:.2f} within", LOOK
