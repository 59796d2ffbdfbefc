"""People of a file as its checks look at them: where their joints are, and how long their bones.
[raw] -> tracks

All joints of a person who stands, walks or lies stretched out form a long shape, whatever they are
called (`CheckedPeople.long`). Along it follow head, shoulders, hips, knees and ankles, and its
length limits that of each bone. In a wrong order, the way from head to ankles turns back, bones are
too long, or the end of an arm or leg lies midway between its other joints. People who crouch, or
show a part of their body, prove nothing.

The limits of the methods that return whether somebody contradicts an order were chosen on projected
motions and 23 postures of the demo body, seen from all sides and heights, and on real output of
OpenPose, and judged on others: of 21,840 right files of 40 to 60 frames, 11 are refused: people who
hug their knees in profile, or hold their hands on their heads below the camera, in the whole clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.people.joint_spellings import bare_name
from pipeline.people.skeletons import (
    LIMBS,
    SIDED_JOINTS,
    Bools,
    Doubles,
    Floats,
    Ints,
    Skeleton,
    are_usable_numbers,
    joint_names,
)

Complexes = NDArray[np.complex128]

# the "joints" of people of whom only boxes are known
CORNERS: Final = ("upper left corner", "lower right corner")
LEAST_CONFIDENCE: Final = 0.3  # joints with a lower score are ignored
MIN_JOINTS: Final = 4  # people who show fewer have no extent
MIN_SIDES: Final = 10  # of SIDES, of people who are stretched out
MOST_WIDTH: Final = 0.35  # of the shape of their joints, as a share of its length

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
LEAST_WIDTH: Final = 0.3  # of shoulders, as a share of the trunk: seen from the front or behind
VERTICAL: Final = 0.87  # least cosine between the shape and the vertical


SHOULDERS: Final = ("lshoulder", "rshoulder")
HIPS: Final = ("lhip", "rhip")
FAULTS: Final = (  # what contradicts an order
    "wrists lie between shoulders and elbows",
    "ankles lie between hips and knees",
    "bones are too long",
    "way from head to ankles turns back",
)


@dataclass(frozen=True, eq=False)
class CheckedPeople:
    """N people of a file, who have joints, or the corners of a box (CORNERS)."""

    skeleton: Skeleton
    points: Floats  # (N, J, 3) px px score
    frame: Ints  # (N,)
    boxes: Floats  # (N, 2, 2) px, upper left and lower right corner; NaN: none
    box_form: str  # of the boxes in the file
    size: Doubles  # (2,) px, width and height of the image; NaN: unknown
    is_order_assumed: bool = False

    @property
    def are_boxes(self) -> bool:
        """Whether only boxes are known."""
        return self.skeleton == CORNERS

    def take(self, rows: slice | Ints) -> CheckedPeople:
        """Some of the people."""
        points = self.points[rows]
        return replace(self, points=points, frame=self.frame[rows], boxes=self.boxes[rows])

    def move(self, xy: Floats) -> CheckedPeople:
        """The same people with other places (N, J, 2) px of their joints; NaN if not shown."""
        points = np.concatenate([xy, self.points[..., 2:]], axis=-1)
        if self.are_boxes:
            return replace(self, points=points, boxes=xy)
        return replace(self, points=points)

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """Of the joints, by bare name."""
        return {bare_name(name): i for i, name in enumerate(joint_names(self.skeleton))}

    @cached_property
    def xy(self) -> Doubles:
        """(N, J, 2) px, the joints; NaN if not shown, or unsure."""
        is_shown = are_usable_numbers(self.points).all(axis=-1)
        is_shown &= self.points[..., 2] >= LEAST_CONFIDENCE
        return np.where(is_shown[..., None], self.points[..., :2], np.nan)

    @cached_property
    def extent(self) -> Floats:
        """(N, 2, 2) px, corners around the joints; NaN of people who show too few. Or the boxes."""
        if self.are_boxes:
            return self.boxes
        low = np.fmin.reduce(self.xy, axis=1)
        high = np.fmax.reduce(self.xy, axis=1)
        corners = np.stack([low, high], axis=1)
        has_enough = np.isfinite(self.xy[..., 0]).sum(axis=1) >= MIN_JOINTS
        return np.where(has_enough[:, None, None], corners, np.nan)

    @cached_property
    def sides(self) -> Doubles:
        """(N, 2) px, width and height of the extent."""
        return np.asarray(self.extent[:, 1] - self.extent[:, 0])

    @cached_property
    def places(self) -> Complexes:
        """(N, J) px, the joints as x + iy."""
        return np.asarray(self.xy @ [1, 1j])

    def joint(self, *names: str) -> Complexes:
        """(N,) px, a joint, or the middle of two; NaN if one is not shown."""
        if not {*names} <= self.columns.keys():
            return np.full(len(self.frame), complex(np.nan, np.nan))
        columns = [self.columns[name] for name in names]
        return np.asarray(self.places[:, columns].mean(axis=1))

    def distance(self, joint: str, *others: str) -> Doubles:
        """(N,) px from a joint to another one, or to the middle of two; NaN where not shown."""
        return np.abs(self.joint(joint) - self.joint(*others))

    @cached_property
    def heads(self) -> Complexes:
        """(H, N) px, the joints of the head."""
        return np.array([self.joint(name) for name in HEAD])

    def crossing_of_sides(self) -> Doubles:
        """(N,) minus the cosine between the lines through shoulders and hips, of all people who are
        seen from the front or behind: the longer their lines, the more they count. NaN of others.

        It is -0.7 or less in the poses of the tests and in real data, and 0.7 or more if the sides
        of one pair are exchanged.
        """
        shoulders = self.joint("lshoulder") - self.joint("rshoulder")
        hips = self.joint("lhip") - self.joint("rhip")
        trunk = self.joint(*SHOULDERS) - self.joint(*HIPS)
        is_wide = np.abs(shoulders) > LEAST_WIDTH * np.abs(trunk)
        products = np.where(is_wide, shoulders * hips.conj(), np.nan)
        cosine = np.nansum(products.real) / np.nansum(np.abs(products))
        return np.where(np.isfinite(products), -cosine, np.nan)

    @cached_property
    def variances(self) -> tuple[Complexes, Doubles]:
        """(N,) each of the joints about their mean: sums of squares, and of squared distances."""
        centred = self.places - np.nanmean(self.places, axis=1, keepdims=True)
        squares = np.nansum(centred**2, axis=1)
        distances = np.nansum(np.abs(centred) ** 2, axis=1)
        return squares, distances

    @cached_property
    def long(self) -> CheckedPeople:
        """The same N people, of whom those show no joint who do not show head, limbs and trunk, or
        whose joints do not form a long shape. Their numbers are NaN.
        """
        is_shown = np.isfinite([self.joint(name) for name in SIDES])
        n_of_side = is_shown.reshape(2, len(SIDED_JOINTS), -1).sum(axis=1)
        has_side = n_of_side.max(axis=0) == len(SIDED_JOINTS)
        shows_head = np.isfinite(self.heads).any(axis=0)
        squares, distances = self.variances
        length = distances + np.abs(squares)
        is_long = distances - np.abs(squares) < MOST_WIDTH**2 * length
        is_long &= has_side & shows_head & (n_of_side.sum(axis=0) >= MIN_SIDES)
        return self.move(np.where(is_long[:, None, None], self.xy, np.nan))

    # of people who are stretched out

    @cached_property
    def axis(self) -> Complexes:
        """(N,) the direction of the shape, of length 1."""
        squares, _ = self.variances
        return np.asarray(np.sqrt(squares / np.abs(squares)))

    @cached_property
    def length(self) -> Doubles:
        """(N,) px of the shape."""
        along = (self.places * self.axis.conj()[:, None]).real
        first = np.fmin.reduce(along, axis=1)
        last = np.fmax.reduce(along, axis=1)
        return np.asarray(last - first)

    def are_upside_down(self) -> Doubles:
        """(N,) 1 for people who stand on their heads, 0 for others: all shown joints of the head
        are below both ankles.
        """
        ankles = np.fmax(self.joint("lankle").imag, self.joint("rankle").imag)
        is_below = np.fmin.reduce(self.heads.imag) > ankles
        is_vertical = np.abs(self.axis.imag) > VERTICAL
        return np.where(self.length > 0, is_vertical & is_below, np.nan)

    @cached_property
    def faults(self) -> Doubles:
        """(FAULTS, N) 1 if one contradicts the order in a person, else 0."""
        back = self.turn_back()
        is_short = self.height(_WITHOUT_ARMS) < LEAST_HEIGHT
        turns_back = back > TURNS_BACK_ALONE
        turns_back |= is_short & (back > TURNS_BACK)
        arm = ("shoulder", "elbow", "wrist")
        leg = ("hip", "knee", "ankle")
        faults = [
            self.have_ends_midway(arm, LONG_UPPER_ARM, self.distance(*SHOULDERS)),
            self.have_ends_midway(leg, LONG_THIGH, 0),
            self.height(_WITH_TRUNK) < LEAST_HEIGHT_ALONE,
            turns_back,
        ]
        return np.where(self.length > 0, faults, np.nan)

    def fault(self, index: int) -> Doubles:
        """(N,) one of `faults` of people who are stretched out."""
        return np.asarray(self.long.faults[index])

    def turn_back(self) -> Doubles:
        """(N,) how far the way from head to ankles turns back on one side, as a share of the
        shape.
        """
        head = np.nanmean(self.heads, axis=0)
        ways = []
        for side in "lr":
            levels = [self.joint(side + joint) for joint in LEVELS]
            ways.append([head, *levels])
        along = (np.array(ways) * self.axis.conj()).real
        both_directions = np.stack([along, -along])  # (2, 2, 5, N)
        furthest = np.fmax.accumulate(both_directions, axis=2)
        steps_back = furthest - both_directions
        of_direction = np.nanmax(steps_back, axis=(1, 2))
        back = of_direction.min(axis=0)
        return np.asarray(back / self.length)

    def height(self, lengths: Mapping[tuple[str, str], float]) -> Doubles:
        """(N,) m: the height that the longest limb leaves for the whole person."""
        return np.asarray(self.length / self.scales(lengths)[0])

    def scales(self, lengths: Mapping[tuple[str, str], float] = _WITH_TRUNK) -> Doubles:
        """(L, N) px in a metre by each of L limbs on its longer side, from the largest on."""
        scales = []
        for (start, end), metres in lengths.items():
            sides = [self.distance(side + start, side + end) for side in "lr"]
            scales.append(np.fmax(*sides) / metres)
        return -np.sort(-np.nan_to_num(scales), axis=0)

    def have_ends_midway(
        self, limb: tuple[str, str, str], share: float, least: Doubles | float
    ) -> Bools:
        """(N,) whether a limb's end lies midway between its other joints, which are further apart
        than that share of the trunk, and than `least` px.
        """
        is_midway = np.zeros(len(self.frame), np.bool_)
        for side in "lr":
            start, middle, end = (side + joint for joint in limb)
            upper = self.distance(start, middle)
            trunk = self.distance(f"{side}shoulder", f"{side}hip")
            is_long = upper > np.fmax(share * trunk, least)
            is_midway |= is_long & (self.distance(end, start, middle) < MIDWAY * upper)
        return is_midway

    def compare_bones(self) -> Doubles:
        """(N,) how many times as long as the next one the longest limb is, by their lengths in m.

        Seen from anywhere, a limb is at most as long as it is.
        """
        longest, second, *_ = self.scales()
        return np.asarray(longest / second)

    def apart(self, *joints: str) -> Doubles:
        """(N,) m from a joint to another one, or to the middle of two."""
        return np.asarray(self.distance(*joints) / self.scales()[0])

    def off_middle(self, joint: str, *ends: str) -> Doubles:
        """(N,) from a joint of this very name to the middle of two, as a share of the shape."""
        distance = self.distance(bare_name(joint), *ends) / self.length
        return np.where(joint in joint_names(self.skeleton), distance, np.nan)

    def measure_head(self) -> Doubles:
        """(N,) m: the diagonal of the joints of the head."""
        heads = np.array([self.heads.real, self.heads.imag])
        low = np.fmin.reduce(heads, axis=1)
        high = np.fmax.reduce(heads, axis=1)
        diagonal = np.hypot(*(high - low))
        return np.asarray(diagonal / self.scales()[0])
