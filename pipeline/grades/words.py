"""The grade of a track: numbers, and a word (good, doubtful or bad) by their limits.  [tracks]

The limits were chosen on clips with known answers: benchmarks/grades.md.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

BAD: Final = "bad"
DOUBTFUL: Final = "doubtful"
GOOD: Final = "good"
WORDS: Final = (BAD, DOUBTFUL, GOOD)  # from the worst to the best
NO_WORD: Final = ""  # of a track without joints
NO_JOINTS: Final = "no joints"


class Grade(NamedTuple):
    """Numbers about a track's quality; nan for a number that is unknown, or has no joints."""

    visible_percent: float = math.nan  # of the 12 joints from shoulders to ankles
    # standard deviation of the worst joint's noise, in % of the box's side
    jitter_2d_percent: float = math.nan
    # standard deviation of the worst limb's length, in % of its mean
    limb_spread_2d_percent: float = math.nan
    # median speed along x of the foot on the ground, in % of the box's side per second
    skating_2d_percent_s: float = math.nan
    jitter_3d_mm: float = math.nan
    limb_spread_3d_percent: float = math.nan
    skating_3d_cm_s: float = math.nan

    arms_visible_percent: float = math.nan  # elbows and wrists that are seen inside the image
    legs_visible_percent: float = math.nan  # knees and ankles
    cut_percent: float = math.nan  # frames in which the image's edge cuts the person
    overlap_percent: float = math.nan  # frames in which others cover much of the person's box
    jumps_percent: float = math.nan  # frames in which a joint jumps in the image
    repeated_percent: float = math.nan  # frames of the clip that repeat the one before
    lost_percent: float = math.nan  # frames of the clip that cannot be decoded

    # numbers of motions without a camera
    root_speed_m_s: float = math.nan  # largest speed of the root
    root_jump_m: float = math.nan  # largest change of the root's step from frame to frame
    joint_speed_deg_s: float = math.nan  # largest speed at which a joint turns
    below_floor_percent: float = math.nan  # frames with a foot below the floor

    body_distance_mm: float = math.nan  # from the fitted body's joints to the track's
    estimate_percent: float = math.nan  # from an estimated body's joints to the track's, of the box

    @property
    def word(self) -> str:
        """One of WORDS; NO_WORD without joints."""
        if not self.is_known:
            return NO_WORD
        if self._beyond(BAD):
            return BAD
        return DOUBTFUL if self._beyond(DOUBTFUL) else GOOD

    @property
    def reasons(self) -> list[str]:
        """The numbers beyond their limits, in words; empty for a good track."""
        if not self.is_known:
            return [NO_JOINTS]
        return [_NUMBERS[name].text_of(getattr(self, name)) for name in self._beyond(DOUBTFUL)]

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
        return not math.isnan(self.visible_percent) or not math.isnan(self.root_speed_m_s)

    def __str__(self) -> str:
        """The numbers that are shown for every track, not only those beyond a limit.

        >>> print(str(Grade(91.4, limb_spread_2d_percent=12.3)).partition("; ")[2])
        2D: the worst limb's length varies by 12 % (with foreshortening)
        """
        parts = []
        for title, names in _PARTS.items():
            measured_names = [name for name in names if not math.isnan(getattr(self, name))]
            texts = [_NUMBERS[name].text_of(getattr(self, name)) for name in measured_names]
            if texts:
                parts.append(title + ", ".join(texts))
        return "; ".join(parts) or NO_JOINTS

    def worse(self, other: Grade) -> Grade:
        """Combine two grades: of each number, the worse value."""
        numbers = {}
        for name, mine, theirs in zip(self._fields, self, other, strict=True):
            values = [number for number in (mine, theirs) if not math.isnan(number)]
            worst = min if _NUMBERS[name].is_least else max
            numbers[name] = worst(values, default=math.nan)
        return Grade(**numbers)

    def _beyond(self, word: str) -> list[str]:
        """Names of the numbers that are beyond their limit for a word, DOUBTFUL or BAD."""
        names = []
        for name, number in zip(self._fields, self, strict=True):
            limits = _NUMBERS[name]
            limit = limits.bad if word == BAD else limits.doubtful
            is_beyond = number < limit if limits.is_least else number > limit
            if is_beyond:  # never of nan
                names.append(name)
        return names


class _Number(NamedTuple):
    """Text of a number, and limits beyond which a track is doubtful or bad (nan: never)."""

    text: str
    doubtful: float = math.nan
    bad: float = math.nan
    is_least: bool = False  # whether the limits are least values: less is worse

    def text_of(self, number: float) -> str:
        return self.text.format(round(number, 3))


_NUMBERS: Final = {
    "visible_percent": _Number("{:.0f} % of 12 joints visible", 50, 25, is_least=True),
    "jitter_2d_percent": _Number("the worst joint shakes by {:.2g} % of the box", 1.2, 4),
    "limb_spread_2d_percent": _Number(
        "the worst limb's length varies by {:.2g} % (with foreshortening)", 50
    ),
    "skating_2d_percent_s": _Number("feet slide by {:.2g} % of the box a second"),
    "jitter_3d_mm": _Number("the worst joint shakes by {:.2g} mm", 30, 100),
    "limb_spread_3d_percent": _Number("the worst limb's length varies by {:.2g} %", 35, 60),
    "skating_3d_cm_s": _Number("feet slide by {:.2g} cm a second", 40),
    "arms_visible_percent": _Number(
        "elbows and wrists are seen in {:.0f} % of the frames", 40, is_least=True
    ),
    "legs_visible_percent": _Number(
        "knees and ankles are seen in {:.0f} % of the frames", 60, is_least=True
    ),
    "cut_percent": _Number("the image's edge cuts the person in {:.0f} % of the frames", 40),
    "overlap_percent": _Number("others cover the person's box in {:.0f} % of the frames", 50),
    "jumps_percent": _Number("joints jump in {:.0f} % of the frames", 10, 40),
    "repeated_percent": _Number("{:.0f} % of the clip's frames repeat the one before", 20),
    "lost_percent": _Number("{:.0f} % of the clip's frames cannot be decoded", 5),
    "root_speed_m_s": _Number("the root moves by up to {:.2g} m a second", 13),
    "root_jump_m": _Number("the root jumps by {:.2g} m", 0.25, 1),
    "joint_speed_deg_s": _Number("a joint turns by up to {:.0f} degrees a second", 3000),
    "below_floor_percent": _Number("feet are below the floor in {:.1f} % of the frames", 1),
    "body_distance_mm": _Number("the body is {:.0f} mm from the joints", 60, 120),
    "estimate_percent": _Number("the estimated body is {:.1f} % of the box from the joints", 10),
}
_PARTS: Final = {
    "": ("visible_percent",),
    "2D: ": ("jitter_2d_percent", "limb_spread_2d_percent", "skating_2d_percent_s"),
    "3D: ": ("jitter_3d_mm", "limb_spread_3d_percent", "skating_3d_cm_s"),
    "motion: ": ("root_speed_m_s", "root_jump_m", "joint_speed_deg_s", "below_floor_percent"),
}
