"""Check people's joints and boxes: what is sure refuses a file, what is doubtful is noted.
[raw] -> tracks

A `Check` gives each person a number, NaN where it says nothing. If enough people are beyond its
limit, the file is refused, or a note has their number and the first one. CHECKS has all.

The message of a refused file names a cause if one of `_causes` alone makes right people of it: no
check is beyond its limit then, and most people stand upright.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.clips.labels.label_content import CENTRE_BOX, TWO_CORNERS
from pipeline.clips.labels.people_table import blocks
from pipeline.errors import RawDataError, refuse
from pipeline.people.boxes import largest_shares
from pipeline.people.checked_people import FAULTS, HIPS, SHOULDERS, CheckedPeople
from pipeline.people.skeletons import Bools, Doubles, Floats, Ints

# keys of messages: what is wrong
ORDER: Final = "joints"
BOXES: Final = "boxes"
POINTS: Final = "keypoints"
SCORES: Final = "scores"
LOOK: Final = "See it with `python -m pipeline check FILE CLIP`."
FEW: Final = 5  # people beyond a limit; fewer prove nothing
AROUND: Final = 0.1  # of a box or the image: joints that are farther outside count as outside
BEYOND: Final = 0.02  # of the image's size, by which boxes may reach out of it
MOST_BEYOND: Final = 0.1  # share of the boxes that may reach farther, unless they are corners
AT_CORNER: Final = 0.2  # diagonals of the person from the image's corner to where a crop begins
FILLING: Final = 0.75  # of the image's width or height: such people begin at its corner, too
FOLLOWS: Final = 0.9  # least correlation of second numbers of boxes that follow others
MIN_BOXES: Final = 20  # fewer follow nothing
HIGHEST_SCORE: Final = 10.0  # those of OpenPose and AlphaPose may exceed 1, a few by far
MOST: Final = 0.5  # share of the joints that a cause may hide, of the people who may be upside down


@dataclass(frozen=True, slots=True)
class Check:
    """What is odd about people if a number of each is beyond a limit."""

    text: str  # who they are
    value: Callable[[CheckedPeople], Doubles]  # (N,); NaN: it says nothing about a person
    limit: float = 0.5
    share: float = 0.5  # of the people with a number, who may be beyond the limit
    least: int = 8  # people with a number; fewer prove nothing
    is_worse: Callable[[Doubles, float], Bools] = operator.gt
    key: str = ""  # of the message by which a file is refused; "": it is noted

    def describe(self, values: Doubles, frame: Ints) -> str:
        """What is odd about people with these numbers (N,), in these frames (N,); "" if nothing."""
        is_beyond = self.is_worse(values, self.limit)
        n_beyond = int(is_beyond.sum())
        n_known = int(np.isfinite(values).sum())
        if n_known < self.least or n_beyond <= max(self.share * n_known, min(self.least, FEW) - 1):
            return ""
        text = self.text.format(limit=self.limit)
        return f"{n_beyond} of {n_known} {text}, first in frame {frame[is_beyond.argmax()]}"


# --------------------------------------------------------------------------------------------------
# numbers of people (N,)


def _high_scores(people: CheckedPeople) -> Doubles:
    """Share of the scores of all that are too high."""
    scores = people.points[..., 2]
    n_scores = (np.isfinite(scores) & (scores > 0)).sum()
    return np.full(len(scores), (scores > HIGHEST_SCORE).sum() / n_scores)


def _rise_of_hips(people: CheckedPeople) -> Doubles:
    """How far hips are above shoulders, px."""
    return (people.joint(*SHOULDERS) - people.joint(*HIPS)).imag


def _outside(people: CheckedPeople, low: Floats, high: Floats) -> Doubles:
    """Share of the joints outside boxes with these corners (N, 1, 2)."""
    size = high - low
    is_outside = (np.abs(people.xy - low - size / 2) > (0.5 + AROUND) * size).any(axis=-1)
    share = is_outside.sum(axis=1) / np.isfinite(people.places).sum(axis=1)
    is_known = np.isfinite(people.extent[:, 0, 0]) & (size > 0).all(axis=(1, 2))
    return np.where(is_known & (not people.are_boxes), share, np.nan)


def _outside_box(people: CheckedPeople) -> Doubles:
    return _outside(people, people.boxes[:, :1], people.boxes[:, 1:])


def _find_stuck(people: CheckedPeople) -> tuple[complex, Bools]:
    """The place x + iy px where most joints are, and which joints are there, (N, J)."""
    shown = people.places[np.isfinite(people.places)]
    places, n_joints = np.unique(np.append(shown, np.inf), return_counts=True)
    place = places[n_joints.argmax()]
    return place, people.places == place


def _share_stuck(people: CheckedPeople) -> Doubles:
    """Share of the joints that are at one place, far from the others."""
    _, is_there = _find_stuck(people)
    others = people.move(np.where(is_there[..., None], np.nan, people.xy)).extent
    return _outside(people, others[:, :1], others[:, 1:])


def _are_at_corner(people: CheckedPeople) -> Doubles:
    """1 for people without a box who begin at the image's corner, where a crop of a person does; 2
    if several are in a frame. NaN if nearly all fill the image.
    """
    low, high = people.extent.swapaxes(0, 1)
    is_at_corner = np.abs(low).max(axis=1) <= AT_CORNER * np.linalg.norm(high - low, axis=1)
    is_known = np.isfinite(low[:, 0]) & np.isnan(people.boxes[:, 0, 0])
    is_smaller = (high <= FILLING * people.size).all(axis=1)
    frames = people.frame[is_at_corner]
    n_in_frame = 1.0 + (len(np.unique(frames)) < len(frames))
    is_known &= is_smaller.sum() > MOST_BEYOND * is_known.sum()
    return np.where(is_known, is_at_corner * n_in_frame, np.nan)


def _short_side(people: CheckedPeople) -> Doubles:
    """Of the box, px; NaN of 0 0 0 0, which some tools write for no box."""
    sides = people.boxes[:, 1] - people.boxes[:, 0]
    return np.where(sides.max(axis=1) != 0, sides.min(axis=1), np.nan)


def _width_by_height(people: CheckedPeople) -> Doubles:
    """Of the box alone."""
    width, height = people.sides.T
    return np.where(people.are_boxes, width / height, np.nan)


def _reach(people: CheckedPeople) -> Doubles:
    """How far the box reaches out of the image, as a share of its size; NaN of two corners."""
    low, high = people.boxes.swapaxes(0, 1)
    reach = (np.maximum(-low, high - people.size) / people.size).max(axis=1)
    return np.where(people.box_form == TWO_CORNERS, np.nan, reach)


def _are_corners(people: CheckedPeople) -> Doubles:
    """1 for boxes whose second numbers may be those of a corner, 2 if they surely are; 0 of other
    boxes, NaN if nothing says so.

    Read as a corner, they are beyond the first ones and in the image. Read as a size, they lead out
    of the image; or they follow the place, and not the person's joints.
    """
    low, high = people.boxes.swapaxes(0, 1)
    first = (low + high) / 2 if people.box_form == CENTRE_BOX else low
    second = high - low
    reach = _reach(people)
    is_corner = ((second > first) & (second <= (1 + BEYOND) * people.size)).all(axis=1)
    sign = 2 * ((reach > BEYOND).sum() > MOST_BEYOND * np.isfinite(reach).sum())
    if not sign and _follow(second, first):
        sign = 1 if people.are_boxes else 2 * (not _follow(second, people.sides))
    return np.where(np.isfinite(reach) & (sign > 0), is_corner * sign, np.nan)


def _follow(values: Doubles, others: Doubles) -> bool:
    """Whether values (N, 2) follow others on both axes."""
    is_known = np.isfinite(values + others).all(axis=1)
    if is_known.sum() < MIN_BOXES:
        return False
    pairs = zip(values[is_known].T, others[is_known].T, strict=True)
    return min(float(np.corrcoef(*pair)[0, 1]) for pair in pairs) > FOLLOWS


_ORDER: Final = partial(Check, least=20, key=ORDER)
CHECKS: Final = (
    # refusals
    Check("boxes have a side under {limit} px", _short_side, 1, is_worse=operator.lt, key=BOXES),
    Check("boxes look like two corners, x y x y", _are_corners, 1.5, 0.99, 1, key=BOXES),
    Check("people's joints lie elsewhere than their box", _outside_box, 0.5, 0.1, 5, key=POINTS),
    Check("people in a frame are at its upper left corner", _are_at_corner, 1.5, 0.89, key=POINTS),
    Check(
        "people have scores, over {limit:.0%} of them above 10",
        _high_scores,
        0.1,
        least=1,
        key=SCORES,
    ),
    _ORDER("people's shoulders and hips are crossed", CheckedPeople.crossing_of_sides),
    *(
        _ORDER(f"people's {text}", partial(CheckedPeople.fault, index=i), share=0.3)
        for i, text in enumerate(FAULTS)
    ),
    _ORDER(
        "people contradict it in one of these ways",
        lambda people: people.long.faults.max(axis=0),
        share=0.3,
    ),
    _ORDER(
        "people stand on their heads",
        lambda people: np.where(people.is_order_assumed, people.long.are_upside_down(), np.nan),
        share=0.9,
    ),
    _ORDER(
        "people's neck is not midway between their shoulders",
        lambda people: people.long.off_middle("OP Neck", *SHOULDERS),
        limit=0.1,
    ),
    _ORDER(
        "people's hip is not midway between the other two",
        lambda people: people.long.off_middle("OP MidHip", *HIPS),
        limit=0.1,
    ),
    _ORDER(
        "people's hip is not midway between the other two",
        lambda people: people.long.off_middle("hip", *HIPS),
        limit=0.1,
    ),
    # notes
    Check("people's joints lie outside their box", _outside_box, share=0, least=1),
    Check("people are at the upper left corner of the image", _are_at_corner, share=0.89),
    Check(
        "people's joints lie outside the image",
        lambda people: _outside(people, np.zeros((1, 1, 2)), people.size[None, None]),
        share=0.1,
    ),
    Check("boxes may be two corners, x y x y", _are_corners, share=0.99),
    Check("boxes reach out of the image", _reach, BEYOND, MOST_BEYOND, 1),
    Check(
        "boxes are wider than high",
        _width_by_height,
        limit=1,
        share=0.9,
    ),
    Check(
        "boxes have a score above {limit}",
        lambda people: np.where(people.are_boxes, people.points[:, 0, 2], np.nan),
        limit=1,
    ),
    Check("people have joints at one place, far from the others", _share_stuck, 0.2, 0.1),
    Check(
        "people are smaller than {limit} px",
        lambda people: people.sides.max(axis=1),
        limit=32,
        is_worse=operator.lt,
    ),
    Check(
        "people are covered by another one of the frame",
        lambda people: largest_shares(people.extent, people.frame),
        limit=0.85,
    ),
    Check("people have their hips above their shoulders", _rise_of_hips, 0, 0.9),
    Check(
        "people have their head below their ankles", lambda people: people.long.are_upside_down()
    ),
    Check(
        "people have a bone too long for the others",
        lambda people: people.long.compare_bones(),
        limit=1.3,
    ),
    Check("people's heads are over {limit} m", lambda people: people.long.measure_head()),
    Check(
        "people's noses are over {limit} m from the eyes",
        lambda people: people.long.apart("nose", "leye", "reye"),
        limit=0.2,
    ),
    Check(
        "people's shoulders are over {limit} m apart",
        lambda people: people.long.apart(*SHOULDERS),
        limit=0.6,
    ),
    Check(
        "people's hips are over {limit} m apart",
        lambda people: people.long.apart(*HIPS),
        limit=0.45,
    ),
)


# --------------------------------------------------------------------------------------------------
# what is odd, and why


def check_people(place: Path, people: CheckedPeople, order: str) -> list[str]:
    """Check the people of a file, and return what is odd about them.

    Raises RawDataError for people who surely are not as the file says: with the cause, if one is
    left. order: of the joints, for messages.
    """
    expected = {
        ORDER: order,
        BOXES: f"{people.box_form} of each box",
        POINTS: "joints in pixels of the image, in their people's boxes",
        SCORES: "confidences in 0..1",
    }
    odd = [*find_odd(people)]
    refusals = [each for each in odd if each[0].key]
    if refusals:
        check, seen = refusals[0]
        cause, do = find_cause(people, check.key)
        reason = "bad_label_file"
        if check.key == ORDER:
            reason = "unknown_joint_order"
            seen = f"joints that cannot be in it: {seen}"
        refuse(RawDataError(place, check.key, expected[check.key], seen + cause, do, reason))
    return [seen for check, seen in odd if not check.key]


def find_odd(people: CheckedPeople) -> Iterator[tuple[Check, str]]:
    """Yield each check beyond whose limit people are, and what is odd about them."""
    values = []
    if not len(people.frame):
        return
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of people of whom nothing is known
        for rows in blocks(len(people.frame)):
            block = people.take(rows)
            values.append([check.value(block) for check in CHECKS])
    for check, parts in zip(CHECKS, zip(*values, strict=True), strict=True):
        seen = check.describe(np.concatenate(parts), people.frame)
        if seen:
            yield check, seen


def find_cause(people: CheckedPeople, key: str = POINTS) -> tuple[str, str]:
    """The only cause that makes right people of refused ones, as the end of a sentence, and what to
    do about it; "" and LOOK without one, or if there are several. key: as of `Check`.
    """
    xy = people.xy
    width, height = people.size
    place, is_there = _find_stuck(people)
    causes = [
        (
            f"{is_there.sum():,} joints are at ({place.real:.6g}, {place.imag:.6g})",
            "Write 0 as x, y and score of joints that are not there.",
            np.where(is_there[..., None], np.nan, xy),
        ),
        (
            "in shares of the image",
            f"Multiply x (and w) by {width:.0f}, y (and h) by {height:.0f}.",
            xy * people.size,
        ),
        ("y before x", "Write x before y, and w before h.", xy[..., ::-1]),
        (
            "y from the bottom of the image",
            f"Write {height:.0f} - y: y counts from the top of the image.",
            xy * [1, -1] + [0, height],
        ),
        (
            "in pixels from the corner of the box",
            "Add the upper left corner of its box to each joint.",
            people.boxes[:, :1] + xy,
        ),
    ]
    if key == ORDER:
        del causes[1:]  # others turn people, or move them
    right = [cause for *cause, points in causes if _are_right(people.move(points), people)]
    if key not in (ORDER, POINTS) or len(right) != 1:
        return "", LOOK
    text, do = right[0]
    return f": {text}", do


def _are_right(people: CheckedPeople, stated: CheckedPeople) -> bool:
    """Whether nothing is odd about people, most stand upright, and they show at least MOST of the
    joints that they show as the file states them.
    """
    n_shown, n_stated = (np.isfinite(each.xy).sum() for each in (people, stated))
    rise = _rise_of_hips(people)
    is_upright = (rise > 0).sum() <= MOST * np.isfinite(rise).sum()
    assumed = replace(people, is_order_assumed=True)
    return n_shown >= MOST * n_stated and is_upright and not any(find_odd(assumed))
