"""The grade of a track: numbers, and a word (good, doubtful or bad) by their limits.  [tracks]

Each number of `Grade` states its `_Measure`: its text, and its limits. The limits were chosen on
clips with known answers: benchmarks/grades.md.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

Word = Literal["bad", "doubtful", "good"]
VERSION: Final = 3  # raised with each change of a number or a limit: stored words are void then
NUMBERS_VERSION: Final = 3  # raised with each change of a number: stored numbers are void then
WORDS: Final[tuple[Word, ...]] = ("bad", "doubtful", "good")  # from the worst to the best
LARGE: Final = 99.5
NO_JOINTS: Final = "no joints"
# one of these numbers is known of a track that has a word: of one with joints, or of a motion
ALWAYS_KNOWN: Final = ("visible_percent", "root_speed_m_s")


@dataclass(frozen=True)
class _Measure:
    """What a number says."""

    text: str
    # limits beyond which a track is doubtful or bad; nan: none, as nothing is beyond nan
    doubtful: float = math.nan
    bad: float = math.nan
    is_worse: Callable[[float, float], bool] = operator.gt  # lt: smaller numbers are worse
    # start of the line in which `str` shows the number of every track; None: only beyond its limit
    line: str | None = None

    def describe(self, number: float, name: str) -> str:
        """The number in words. name: of the track that it means, if it is a track's."""
        # two digits of 200 would be 2e+02
        text = self.text if number < LARGE else self.text.replace(".2g", ".0f")
        return text.format(round(number, 3), name=name)

    def word(self, number: float) -> Word:
        """The word of a track by this number alone."""
        if self.is_worse(number, self.bad):
            return "bad"
        return "doubtful" if self.is_worse(number, self.doubtful) else "good"


def _number(*of_measure: Any, **fields_of_measure: Any) -> Any:
    """A field of `Grade`, with what `_Measure` takes."""
    measure = _Measure(*of_measure, **fields_of_measure)
    return field(default=math.nan, metadata={"measure": measure})


@dataclass(frozen=True)
class Grade:
    """Numbers about a track's quality; nan for a number that is unknown, or has no joints."""

    # of the 12 joints from shoulders to ankles
    visible_percent: float = _number("{:.0f} % of 12 joints visible", 50, 25, operator.lt, line="")
    # standard deviation of the worst joint's noise, in % of the box's side
    jitter_2d_percent: float = _number(
        "the worst joint shakes by {:.2g} % of the box", 1.2, 4, line="2D: "
    )
    # standard deviation of the worst limb's length, in % of its mean
    limb_spread_2d_percent: float = _number(
        "the worst limb's length varies by {:.2g} % (with foreshortening)", 50, line="2D: "
    )
    # median speed along x of the foot on the ground, in % of the box's side per second
    skating_2d_percent_s: float = _number("feet slide by {:.2g} % of the box a second", line="2D: ")
    jitter_3d_mm: float = _number("the worst joint shakes by {:.2g} mm in 3D", 30, 100, line="3D: ")
    limb_spread_3d_percent: float = _number(
        "the worst limb's length varies by {:.2g} % in 3D", 35, 60, line="3D: "
    )
    skating_3d_cm_s: float = _number("feet slide by {:.2g} cm a second in 3D", 40, line="3D: ")

    # inside the image
    arms_visible_percent: float = _number(
        "elbows and wrists are seen in {:.0f} % of the frames", 40, is_worse=operator.lt
    )
    legs_visible_percent: float = _number(
        "knees and ankles are seen in {:.0f} % of the frames", 60, is_worse=operator.lt
    )
    cut_percent: float = _number("the image's edge cuts the person in {:.0f} % of the frames", 40)
    overlap_percent: float = _number("others cover the person's box in {:.0f} % of the frames", 50)
    jumps_percent: float = _number("joints jump in {:.0f} % of the frames", 10, 40)
    identity_changes: float = _number("its identity changes places in {:.0f} frames", 1)
    doubts: float = _number("{:.0f} notes of its video doubt its people", 0)
    # number of the other track among those of its video, from 0
    same_person: float = _number("may be one person with {name}", -1)
    # of the seen joints; no limit was tried
    outside_crop_percent: float = _number(
        "{:.0f} % of the joints are outside the crop", line="2D: "
    )
    repeated_percent: float = _number("{:.0f} % of the frames or poses repeat the one before", 20)
    lost_percent: float = _number("{:.0f} % of the clip's frames cannot be decoded", 5)

    # numbers of motions without a camera
    root_speed_m_s: float = _number(
        "the root moves by up to {:.2g} m a second", 13, line="motion: "
    )
    # largest change of the root's step from frame to frame
    root_jump_m: float = _number("the root jumps by {:.2g} m", 0.25, 1, line="motion: ")
    joint_speed_deg_s: float = _number(
        "a joint turns by up to {:.0f} degrees a second", 3000, line="motion: "
    )
    below_floor_percent: float = _number(
        "feet are below the floor in {:.1f} % of the frames", 1, line="motion: "
    )

    # from the fitted body's joints to the track's
    body_distance_mm: float = _number("the body is {:.0f} mm from the joints", 60, 120)
    # from an estimated body's joints to the track's
    estimate_percent: float = _number(
        "the estimated body is {:.1f} % of the box from the joints", 10
    )

    # name of the track that `same_person` means
    other: str = "another track"

    @property
    def numbers(self) -> list[float]:
        """All of them, in the order of MEASURES; nan if unknown."""
        return [getattr(self, name) for name in MEASURES]

    def name_other(self, names: Sequence[str]) -> Grade:
        """The grade with the name of the other track. names: of all tracks of the video."""
        if math.isnan(self.same_person):
            return self
        return replace(self, other=names[int(self.same_person)])

    @property
    def word(self) -> Word | None:
        """The worst word of its numbers; None without joints."""
        if not self.is_known:
            return None
        words = [MEASURES[name].word(number) for name, number in self._known_numbers().items()]
        return min(words, key=WORDS.index)

    @property
    def reasons(self) -> list[str]:
        """The numbers beyond their limits, in words; empty for a good track."""
        if not self.is_known:
            return [NO_JOINTS]
        texts = []
        for name, number in self._known_numbers().items():
            measure = MEASURES[name]
            if measure.word(number) != "good":
                texts.append(measure.describe(number, self.other))
        return texts

    @property
    def verdict(self) -> str:
        """The word with its reasons.

        >>> Grade(91.4, legs_visible_percent=12).verdict
        'doubtful: knees and ankles are seen in 12 % of the frames'
        >>> Grade(91.4).verdict, Grade().verdict
        ('good', 'no joints')
        """
        return ": ".join(filter(None, (self.word, ", ".join(self.reasons))))

    @property
    def is_known(self) -> bool:
        """Whether the track has joints, or is a motion."""
        return not all(math.isnan(getattr(self, name)) for name in ALWAYS_KNOWN)

    def __str__(self) -> str:
        """The numbers that are shown for every track, not only those beyond a limit.

        >>> print(str(Grade(91.4, limb_spread_2d_percent=12.3)).partition("; ")[2])
        2D: the worst limb's length varies by 12 % (with foreshortening)
        """
        lines = defaultdict(list)
        for name, number in self._known_numbers().items():
            measure = MEASURES[name]
            if measure.line is not None:
                lines[measure.line].append(measure.describe(number, self.other))
        texts = [start + ", ".join(parts) for start, parts in lines.items()]
        return "; ".join(texts) or NO_JOINTS

    def is_below(self, word: Word) -> bool:
        """Whether the track's word is worse than this one; False without joints."""
        return self.word is not None and WORDS.index(self.word) < WORDS.index(word)

    def _known_numbers(self) -> dict[str, float]:
        numbers = zip(MEASURES, self.numbers, strict=True)
        return {name: number for name, number in numbers if not math.isnan(number)}

    @classmethod
    def worst_of(cls, grades: Iterable[Grade]) -> Grade:
        """Combine grades: of each number, the worst known value."""
        worst: dict[str, Any] = {}
        for grade in grades:
            for name, number in grade._known_numbers().items():
                if name not in worst or MEASURES[name].is_worse(number, worst[name]):
                    worst[name] = number
        return cls(**worst)


MEASURES: Final[dict[str, _Measure]] = {  # by the names of the numbers
    number.name: number.metadata["measure"] for number in fields(Grade) if number.metadata
}
