"""Tell that joints cannot be in an order, by people who are stretched out.  [raw] -> tracks

All joints of a person who stands, walks or lies stretched out form a long shape, whatever they are
called (`_StretchedOut`). Along it follow head, shoulders, hips, knees and ankles, and its length
limits that of each bone. In a wrong order, the way from head to ankles turns back, bones are too
long, or the end of an arm or leg lies midway between its other joints. People who crouch, or show a
part of their body, prove nothing.

The limits were chosen on projected motions and 23 postures of the demo body, seen from all sides
and heights, and on real output of OpenPose, and judged on others: of 21,840 right files of 40 to 60
frames, 11 are refused: people who hug their knees in profile, or hold their hands on their heads
below the camera, in the whole clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pipeline.clips.labels.people_table import blocks
from pipeline.people.joint_spellings import bare_name
from pipeline.people.skeletons import LIMBS, SIDED_JOINTS, Bools, Doubles, joint_names

LEAST_CONFIDENCE: Final = 0.3  # joints with a lower score are ignored
MIN_PEOPLE: Final = 20  # who are stretched out; fewer prove nothing
MOST_WIDTH: Final = 0.35  # of the shape of their joints, as a share of its length
MIN_JOINTS: Final = 10  # of SIDES
MOST_WRONG: Final = 0.3  # share of the people who contradict the order

HEAD: Final = ("nose", "leye", "reye", "lear", "rear", "headtop", "head (h36m)")
LEVELS: Final = ("shoulder", "hip", "knee", "ankle")
SIDES: Final = [side + joint for side, joint in itertools.product("lr", SIDED_JOINTS)]
# Lengths in m of an adult. A person whose limb is longer, as a share of the shape, would be shorter
# than the limits. Kneeling people are 0.95 m or taller.
_WITH_TRUNK: Final = {("shoulder", "hip"): 0.55, **LIMBS}
_WITHOUT_ARMS: Final = {ends: metres for ends, metres in _WITH_TRUNK.items() if "elbow" not in ends}
LEAST_HEIGHT: Final = 0.86  # m, by trunk and legs, of people whose way turns back a little
LEAST_HEIGHT_ALONE: Final = 0.5  # m, by arms, too
# How far the way from head to ankles turns back, as a share of the shape
TURNS_BACK: Final = 0.12
TURNS_BACK_ALONE: Final = 0.45
# Distance of a limb's end from the middle between its other joints, as a share of theirs
MIDWAY: Final = 0.35
LONG_UPPER_ARM: Final = 0.75  # of the trunk; it is at most 0.55, in a wrong order 0.8
LONG_THIGH: Final = 1.0  # of the trunk; it is at most 0.75, in a wrong order 1.2
# Largest distance of a midpoint joint from its midpoint, as a share of the shape: 0.06 in the demo
# data, whose neck is the body model's
MOST_OFF_MIDPOINT: Final = 0.1
# Least cosine between the lines through the shoulders and through the hips. It is 0.7 or more in
# the poses of the tests and in real data, and -0.7 or less if the sides of one pair are exchanged.
LEAST_COSINE_OF_SIDES: Final = -0.5
LEAST_WIDTH: Final = 0.3  # of shoulders, as a share of the trunk: seen from the front or behind

# Share of the people who stand on their heads, of an order that nothing states
UPSIDE_DOWN: Final = 0.9
VERTICAL: Final = 0.87  # least cosine between the shape and the vertical

FAULTS: Final = (  # what contradicts an order
    "the way from head to ankles turns back",
    "bones are too long",
    "wrists lie between shoulders and elbows",
    "ankles lie between hips and knees",
)

_HIPS: Final = ("lhip", "rhip")
_SHOULDERS: Final = ("lshoulder", "rshoulder")
# joint -> the two joints whose midpoint it is by definition
MIDPOINTS: Final = {"OP Neck": _SHOULDERS, "OP MidHip": _HIPS, "hip": _HIPS}


def find_fault(
    order: str | Sequence[str], persons: Doubles, *, is_assumed: bool = False
) -> str | None:
    """Why the joints of people (N, J, 3), px px score, cannot be in an order; None if they can, or
    if too few people show it.

    Args:
        order: its name, or the joints' names.
        is_assumed: whether nothing states the order. Then people do not stand on their heads.
    """
    names = joint_names(order)
    columns = {bare_name(name): i for i, name in enumerate(names)}
    if not columns.keys() >= {*SIDES}:
        return None
    midpoints = {joint: ends for joint, ends in MIDPOINTS.items() if joint in names}
    with np.errstate(all="ignore"):
        seen = [_examine(persons[rows], columns, midpoints) for rows in blocks(len(persons))]
    products, sizes, is_wrong, is_upside_down, offsets = (
        np.concatenate(parts, axis=-1) for parts in zip(*seen, strict=True)
    )
    if len(sizes) >= MIN_PEOPLE and products.sum() < LEAST_COSINE_OF_SIDES * sizes.sum():
        return "shoulders and hips are crossed"
    n_people = is_wrong.shape[1]
    if n_people < MIN_PEOPLE:
        return None
    n_wrong = int(is_wrong.any(axis=0).sum())
    if n_wrong > MOST_WRONG * n_people:
        fault = FAULTS[is_wrong.sum(axis=1).argmax()]
        return f"{fault}: {n_wrong} of {n_people} people contradict it"
    n_upside_down = int(is_upside_down.sum())
    if is_assumed and n_upside_down > UPSIDE_DOWN * n_people:
        return f"{n_upside_down} of {n_people} people stand on their heads"
    for offset, (joint, ends) in zip(offsets, midpoints.items(), strict=True):
        offset = offset[np.isfinite(offset)]
        if len(offset) >= MIN_PEOPLE and np.median(offset) > MOST_OFF_MIDPOINT:
            return f"{joint} is not midway between {' and '.join(ends)}"
    return None


class _Seen(NamedTuple):
    """What some of the people say about an order."""

    products: Doubles  # (F,) px^2 of `_sides`, of people who are seen from the front or behind
    sizes: Doubles
    is_wrong: Bools  # (FAULTS, M) of M people who are stretched out, as the others
    is_upside_down: Bools  # (M,)
    offsets: Doubles  # (K, M) of K joints from their midpoints, as shares of the shape; NaN


def _examine(
    persons: Doubles, columns: Mapping[str, int], midpoints: Mapping[str, tuple[str, str]]
) -> _Seen:
    """Look at people (N, J, 3) in an order. columns: of joints, by bare name. midpoints: K of
    MIDPOINTS.
    """
    is_confident = persons[..., 2] >= LEAST_CONFIDENCE
    points = np.where(is_confident[..., None], persons[..., :2], np.nan)
    people = _find_stretched_out(points, columns)
    offsets = [
        people.distance(bare_name(joint), *ends) / people.length
        for joint, ends in midpoints.items()
    ]
    products, sizes = _sides(points, columns)
    return _Seen(products, sizes, people.faults(), people.are_upside_down(), np.array(offsets))


@dataclass(frozen=True, slots=True)
class _StretchedOut:
    """N people who show head, limbs and trunk, and whose joints form a long shape."""

    columns: Mapping[str, int]  # of joints, by bare name
    heads: Sequence[int]  # columns of HEAD's joints
    points: Doubles  # (N, J, 2) px; NaN: not shown
    along: Doubles  # (N, J) px along the shape
    length: Doubles  # (N,) px of the shape
    is_vertical: Bools  # (N,) of the shape

    def distance(self, joint: str, *others: str) -> Doubles:
        """(N,) px from a joint to another one, or to the middle of two; NaN where not shown."""
        middle = np.mean([self.points[:, self.columns[other]] for other in others], axis=0)
        offset = self.points[:, self.columns[joint]] - middle
        return np.asarray(np.linalg.norm(offset, axis=-1))

    def are_upside_down(self) -> Bools:
        """(N,) whether they stand on their heads: all shown joints of the head are below both
        ankles.
        """
        y = self.points[..., 1]
        ankles = [self.columns["lankle"], self.columns["rankle"]]
        highest_head = np.nanmin(y[:, self.heads], axis=1, initial=np.inf)  # or no column
        is_below = highest_head > np.nanmax(y[:, ankles], axis=1)
        return np.asarray(self.is_vertical & is_below)

    def faults(self) -> Bools:
        """(FAULTS, N) whether each contradicts the order in a person."""
        back = self.turn_back()
        is_short = self.height(_WITHOUT_ARMS) < LEAST_HEIGHT
        turns_back = back > TURNS_BACK_ALONE
        turns_back |= is_short & (back > TURNS_BACK)
        width = self.distance("lshoulder", "rshoulder")
        arm = ("shoulder", "elbow", "wrist")
        leg = ("hip", "knee", "ankle")
        return np.stack(
            [
                turns_back,
                self.height(_WITH_TRUNK) < LEAST_HEIGHT_ALONE,
                self.have_ends_midway(arm, LONG_UPPER_ARM, width),
                self.have_ends_midway(leg, LONG_THIGH, 0),
            ]
        )

    def height(self, lengths: Mapping[tuple[str, str], float]) -> Doubles:
        """(N,) m: the height that the longest limb leaves for the whole person."""
        ratios = []
        for (start, end), metres in lengths.items():
            ratios += [self.distance(side + start, side + end) / metres for side in "lr"]
        return np.asarray(self.length / np.nanmax(ratios, axis=0))

    def turn_back(self) -> Doubles:
        """(N,) how far the way from head to ankles turns back on one side, as a share of the
        shape.
        """
        head = np.nanmean(self.along[:, self.heads], axis=1)
        ways = []
        for side in "lr":
            levels = [self.along[:, self.columns[side + joint]] for joint in LEVELS]
            ways.append([head, *levels])
        both_directions = np.stack([ways, np.negative(ways)])  # (2, 2, 5, N)
        furthest = np.fmax.accumulate(both_directions, axis=2)
        steps_back = furthest - both_directions
        back = np.nanmax(steps_back, axis=(1, 2)).min(axis=0)
        return np.asarray(back / self.length)

    def have_ends_midway(
        self, limb: tuple[str, str, str], share: float, least: Doubles | float
    ) -> Bools:
        """(N,) whether a limb's end lies midway between its other joints, which are further apart
        than that share of the trunk, and than `least` px.
        """
        is_midway = np.zeros(len(self.length), np.bool_)
        for side in "lr":
            start, middle, end = (side + joint for joint in limb)
            upper = self.distance(start, middle)
            trunk = self.distance(f"{side}shoulder", f"{side}hip")
            is_long = upper > np.fmax(share * trunk, least)
            off_middle = self.distance(end, start, middle)
            is_midway |= is_long & (off_middle < MIDWAY * upper)
        return is_midway


def _find_stretched_out(points: Doubles, columns: Mapping[str, int]) -> _StretchedOut:
    """Choose them among all people (M, J, 2)."""
    is_shown = np.isfinite(points[..., 0])
    sides = is_shown[:, [columns[joint] for joint in SIDES]].reshape(-1, 2, len(SIDED_JOINTS))
    heads = [columns[joint] for joint in HEAD if joint in columns]
    n_of_head = is_shown[:, heads].sum(axis=1)
    n_of_sides = sides.sum(axis=2)
    has_side = n_of_sides.max(axis=1, initial=0) == len(SIDED_JOINTS)
    points = points[(n_of_head > 0) & has_side & (n_of_sides.sum(axis=1) >= MIN_JOINTS)]
    centred = points - np.nanmean(points, axis=1, keepdims=True)
    shown = np.nan_to_num(centred)
    variances, axes = np.linalg.eigh(np.einsum("nji,njk->nik", shown, shown))
    is_long = variances[:, 0] < MOST_WIDTH**2 * variances[:, 1]
    along = np.einsum("nji,ni->nj", centred, axes[..., 1])[is_long]
    length = np.nanmax(along, axis=1) - np.nanmin(along, axis=1)
    is_vertical = np.abs(axes[is_long, 1, 1]) > VERTICAL
    return _StretchedOut(columns, heads, points[is_long], along, length, is_vertical)


def _sides(points: Doubles, columns: Mapping[str, int]) -> tuple[Doubles, Doubles]:
    """Inner products (F,) px^2 of the lines through shoulders and hips, below 0 if their directions
    are opposite, and products of their lengths, of people who are seen from the front or behind.
    """
    left, right, left_hip, right_hip = (
        points[:, columns[joint]] for joint in (*_SHOULDERS, *_HIPS)
    )
    shoulders = left - right
    hips = left_hip - right_hip
    width = np.linalg.norm(shoulders, axis=-1)
    trunk = np.linalg.norm(left + right - left_hip - right_hip, axis=-1) / 2
    is_shown = np.isfinite(hips).all(axis=-1) & (width > LEAST_WIDTH * trunk)
    products = (shoulders * hips).sum(axis=-1)[is_shown]
    sizes = (width * np.linalg.norm(hips, axis=-1))[is_shown]
    return products, sizes
