"""Find the order of a file's joints, and check that of named ones, by geometry.  [raw] -> tracks

Several joint orders have the same number of joints: 25 joints are OpenPose's BODY_25 or BODY_25B,
17 are COCO's, Human3.6M's or PoseTrack's. In a wrong order, at least one bone is far longer than
the others allow, shoulders and hips are crossed, or joints that the order defines as midpoints are
not in the middle. Each is measured as a median over a whole sequence, which odd poses and bad
detections hardly change.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.errors import RawDataError, refuse
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.people.label_values import EXPORT
from pipeline.skeletons import BONES, Doubles, Ints, Skeleton, joint_names

# number of joints -> the known orders, the usual one first
ORDERS: Final = {
    17: ("coco", "h36m_lifters", "h36m", "posetrack"),
    18: ("openpose_coco", "coco_neck"),
    25: ("body_25", "body_25b"),
    23: ("coco_feet",),
    26: ("halpe_26",),
}
# number of joints of Halpe-136 and COCO-WholeBody -> how many come before face and hands
BODY_JOINTS: Final = {136: 26, 133: 23}
# how many joints a person may have if the file does not name them
JOINT_COUNTS: Final = (*ORDERS, *sorted(BODY_JOINTS))

# the orders whose name is not noted where a file does not name its joints
_USUAL: Final = frozenset(orders[0] for orders in ORDERS.values())
FEWEST: Final = 6  # least number of joints that a file must name and that are known here

LEAST_CONFIDENCE: Final = 0.3  # joints with a lower score are ignored
MIN_BONES: Final = 6  # persons who show fewer are ignored
MIN_PERSONS: Final = 8  # with fewer in a sequence, the usual order is taken
# Largest length of a bone, in its person's scale. It is at most 1.4 in all poses of the tests and
# in real data, and in a wrong order 1.7 or more in nearly all of them.
LONGEST_BONE: Final = 1.6
# If the usual order fits, too, another one is taken if its bones are shorter by this factor.
MUCH_SHORTER: Final = 0.85
# What may be wrong about the length of a bone: m in the person's scale, and px
LENGTH_NOISE: Final = 0.05
LENGTH_NOISE_PX: Final = 2.0
# Largest distance of a midpoint joint from its midpoint, in m of the person's scale. It is 0.09 in
# the demo data, whose neck is the body model's and not midway between the shoulders.
MOST_OFF_MIDPOINT: Final = 0.2
# Least cosine between the lines through the shoulders and through the hips. It is 0.7 or more in
# the poses of the tests and in real data, and -0.7 or less if the sides of one pair are exchanged.
LEAST_COSINE_OF_SIDES: Final = -0.5
UPSIDE_DOWN: Final = 0.9  # share of the people who are, which is noted

# Joint order -> joint -> the two joints whose midpoint it is by definition.
MIDPOINTS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "body_25": {"OP Neck": ("OP LShoulder", "OP RShoulder"), "OP MidHip": ("OP LHip", "OP RHip")},
    "openpose_coco": {"OP Neck": ("OP LShoulder", "OP RShoulder")},
    "coco_neck": {"OP Neck": ("lshoulder", "rshoulder")},
    "halpe_26": {"OP MidHip": ("lhip", "rhip")},
    "h36m_lifters": {"hip": ("lhip", "rhip")},
    "h36m": {"hip": ("lhip", "rhip")},
}
# x y z m of an adult who stands with arms stretched to the sides; right joints are mirrored. The
# face and toes are half as large again: those of a child, or near the camera, are larger.
_STANDING_BODY: Final[Mapping[str, tuple[float, float, float]]] = {
    "headtop": (0, 1.72, 0),
    "nose": (0, 1.55, 0.14),
    "leye": (0.045, 1.6, 0.11),
    "lear": (0.12, 1.57, 0),
    "head (h36m)": (0, 1.62, 0.08),
    "neck": (0, 1.42, 0),
    "lshoulder": (0.18, 1.4, 0),
    "lelbow": (0.45, 1.4, 0),
    "lwrist": (0.7, 1.4, 0),
    "spine (h36m)": (0, 1.18, 0),
    "hip": (0, 0.92, 0),
    "midhip": (0, 0.92, 0),
    "lhip": (0.11, 0.92, 0),
    "lknee": (0.11, 0.5, 0),
    "lankle": (0.11, 0.08, 0),
    "lbigtoe": (0.11, 0.02, 0.18),
    "lsmalltoe": (0.2, 0.02, 0.11),
    "lheel": (0.11, 0.02, -0.05),
}
# distances that are no bones for drawing
_MORE_BONES: Final = (
    ("leye", "reye"),
    ("lear", "rear"),
    ("nose", "lshoulder"),
    ("nose", "rshoulder"),
    ("nose", "neck"),
    ("nose", "headtop"),
    ("neck", "lshoulder"),
    ("neck", "rshoulder"),
)


@dataclass(frozen=True, slots=True)
class _OrderFit:
    """How well a sequence fits one joint order; 0 or NaN is what too few persons show."""

    order: str
    longest_bone: float  # its length in its person's scale, the median over persons
    ends: tuple[str, str]  # the joints of the longest bone
    off_midpoint: float  # m in the person's scale from a midpoint joint to its midpoint: the worst
    cosine_of_sides: float  # cosine between the lines through the shoulders and through the hips

    def fault(self) -> str | None:
        """Why the sequence does not fit the order; None if it does."""
        if self.longest_bone > LONGEST_BONE:
            start, end = self.ends
            return f"bones up to {self.longest_bone:.1f} times too long ({start} to {end})"
        if self.cosine_of_sides < LEAST_COSINE_OF_SIDES:
            return "shoulders and hips crossed"
        if self.off_midpoint > MOST_OFF_MIDPOINT:
            return f"midpoints {self.off_midpoint:.1f} m off"
        return None


class _OrderedJoints(NamedTuple):
    """Joints in a known order."""

    skeleton: Skeleton
    points: list[Doubles]  # by frame, (P, J, 3)
    notes: list[str]  # what is unusual or doubtful


def order_joints(place: Path, points: list[Doubles], names: Sequence[str] | None) -> _OrderedJoints:
    """Find the joint order of one sequence, (P, K, 3) by frame: by the joints' names in the file,
    or else by geometry. Raises RawDataError for an unknown order, and for names that the numbers
    contradict.
    """
    if names is not None:
        ordered = _joints_by_name(place, points, names)
    elif points:
        # without face and hands
        bodies = [persons[:, : BODY_JOINTS.get(persons.shape[1])] for persons in points]
        ordered = _OrderedJoints(_find_order(place, bodies), bodies, [])
    else:
        return _OrderedJoints("coco", points, [])
    if points:
        doubt = _note_if_upside_down(ordered.skeleton, ordered.points)
        ordered.notes.extend(filter(None, [doubt]))
    if names is None and ordered.skeleton not in _USUAL:
        n_points = points[0].shape[1]
        ordered.notes.append(f"{n_points} joints without names are read as {ordered.skeleton}")
    return ordered


def _joints_by_name(place: Path, points: list[Doubles], names: Sequence[str]) -> _OrderedJoints:
    """The joints that a file names, as far as they are known here."""
    column_of: dict[str, int] = {}
    for column, name in enumerate(names):
        joint = _joint_called(name)
        if joint is not None:
            column_of.setdefault(joint, column)
    if len(column_of) < FEWEST:
        expected = f"{FEWEST} or more of {', '.join(JOINT_OF_SPELLING)}"
        actual = f"{len(column_of)} among {shown_names(names)}"
        raise _other_order(place, expected, actual, "Give the joints these names.")
    skeleton = tuple(column_of)
    named = [persons[:, [*column_of.values()]] for persons in points]
    notes: list[str] = []
    if points:
        doubt = _check_named_order(place, skeleton, np.concatenate(named), np.concatenate(points))
        notes += filter(None, [doubt])
    if skeleton == joint_names("coco"):
        return _OrderedJoints("coco", named, notes)
    return _OrderedJoints(skeleton, named, notes)


def _find_order(place: Path, keypoints: Sequence[Doubles]) -> str:
    """Find the joint order of one sequence by geometry, from each frame's people (P, J, 3).

    ORDERS has the usual order of J joints first. Another one is taken if the usual one does not
    fit, or fits much worse (MUCH_SHORTER). Raises RawDataError if none fits, or several others do.
    """
    persons = np.concatenate(keypoints)
    n_joints = persons.shape[1]
    fits = [_fit(order, joint_names(order), persons) for order in ORDERS[n_joints]]
    usual, *alternatives = fits
    better = [fit for fit in alternatives if not fit.fault()]
    if not usual.fault():
        better = [fit for fit in better if fit.longest_bone < MUCH_SHORTER * usual.longest_bone]
        if not better:
            return usual.order
    if len(better) != 1:
        refuse(_unknown_order(place, n_joints, fits, better))
    return better[0].order if better else usual.order


def _check_named_order(
    place: Path, names: Sequence[str], named: Doubles, stored: Doubles
) -> str | None:
    """Check joints (N, J, 3) that are `named` in our spelling by `names`.

    stored: (N, K, 3), all joints in the file's order.

    Returns a note if they are doubtful, as of people seen from above; None if not. Raises
    RawDataError if the numbers fit another order of as many joints than their names say.
    """
    fault = _fit("named", names, named).fault()
    if fault is None:
        return None
    orders = ORDERS.get(stored.shape[1], ())
    fits = [_fit(order, joint_names(order), stored) for order in orders]
    fitting = [fit.order for fit in fits if not fit.fault()]
    if fitting:
        refuse(_names_contradict(place, fault, fitting))
    return f"joints may not be where their names say: {fault}"


def _note_if_upside_down(skeleton: Skeleton, keypoints: Sequence[Doubles]) -> str | None:
    """A note if nearly all people (P, J, 3) of all frames are upside down; else None."""
    names = [_bare_name(name) for name in joint_names(skeleton)]
    if not {"lshoulder", "rshoulder", "lhip", "rhip"} <= {*names}:
        return None
    persons = np.concatenate(keypoints)
    y = np.where(persons[..., 2] >= LEAST_CONFIDENCE, persons[..., 1], np.nan)
    shoulders = y[:, names.index("lshoulder")] + y[:, names.index("rshoulder")]
    hips = y[:, names.index("lhip")] + y[:, names.index("rhip")]
    n_compared = int(np.isfinite(shoulders + hips).sum())
    n_upside_down = int((hips < shoulders).sum())
    if n_compared < MIN_PERSONS or n_upside_down < UPSIDE_DOWN * n_compared:
        return None
    people = f"{n_upside_down} of {n_compared} people have their hips above their shoulders"
    return f"{people}: is y counted from the bottom, or the clip upside down?"


def _fit(order: str, names: Sequence[str], persons: Doubles) -> _OrderFit:
    """Measure how well persons (N, J, 3) fit the joints `names`.

    A person's scale, px per m, is that of all bones together, so each person counts alike.
    """
    is_confident = persons[..., 2] >= LEAST_CONFIDENCE
    points = np.where(is_confident[..., None], persons[..., :2], np.nan)
    columns, lengths = _bones(tuple(names))
    point_of = dict(zip(names, points.swapaxes(0, 1), strict=True))
    with np.errstate(all="ignore"):
        starts = points[:, columns[:, 0]]
        ends_of_bones = points[:, columns[:, 1]]
        measured = np.linalg.norm(starts - ends_of_bones, axis=-1)
        is_shown = np.isfinite(measured)
        squares = (is_shown * lengths**2).sum(axis=1)
        scale = np.sqrt(np.nansum(measured**2, axis=1) / squares)  # (N,) px per m
        scale[is_shown.sum(axis=1) < MIN_BONES] = np.nan
        without_noise = np.maximum(
            measured / scale[:, None] - LENGTH_NOISE - LENGTH_NOISE_PX / scale[:, None], 0
        )
        longest = [_median(bone) for bone in (without_noise / lengths).T]

        offsets = [0.0]
        for joint, (a, b) in MIDPOINTS.get(order, {}).items():
            middle = (point_of[a] + point_of[b]) / 2
            offset = np.linalg.norm(point_of[joint] - middle, axis=-1)
            offsets.append(_median(offset / scale))
        sides = _cosine_of_sides({_bare_name(name): point for name, point in point_of.items()})
    bone = float(np.nanmax([0.0, *longest]))
    ends = ("", "")
    if bone:
        start, end = columns[longest.index(bone)]
        ends = names[start], names[end]
    return _OrderFit(order, bone, ends, float(np.nanmax(offsets)), sides)


@functools.lru_cache(maxsize=64)
def _bones(names: tuple[str, ...]) -> tuple[Ints, Doubles]:
    """Columns (B, 2) of the two ends of bones, and their lengths (B,) m."""
    plain = [_bare_name(name) for name in names]
    pairs = {}
    for ends in (*BONES, *_MORE_BONES):
        start, end = map(_bare_name, ends)
        if start in plain and end in plain:
            pairs[plain.index(start), plain.index(end)] = math.dist(
                _standing_position(start), _standing_position(end)
            )
    return np.array([*pairs], np.int64).reshape(-1, 2), np.array([*pairs.values()])


def _bare_name(name: str) -> str:
    return name.removeprefix("OP ").lower()


def _standing_position(joint: str) -> tuple[float, float, float]:
    if joint in _STANDING_BODY:
        return _STANDING_BODY[joint]
    x, y, z = _STANDING_BODY[f"l{joint[1:]}"]
    return -x, y, z


def _cosine_of_sides(point_of: Mapping[str, Doubles]) -> float:
    """Cosine between the lines through shoulders and hips, over all persons, those seen from the
    front and from behind above all; NaN if too few show these joints.
    """
    ends = ("lshoulder", "rshoulder", "lhip", "rhip")
    if not set(ends) <= set(point_of):
        return math.nan
    left, right, left_hip, right_hip = (point_of[joint] for joint in ends)
    shoulders = left - right
    hips = left_hip - right_hip
    products = (shoulders * hips).sum(axis=-1)
    is_shown = np.isfinite(products)
    sizes = np.linalg.norm(shoulders, axis=-1) * np.linalg.norm(hips, axis=-1)
    if is_shown.sum() < MIN_PERSONS or not sizes[is_shown].any():
        return math.nan
    return float(products[is_shown].sum() / sizes[is_shown].sum())


def _median(values: Doubles) -> float:
    """The median; NaN with fewer than MIN_PERSONS finite values."""
    finite = values[np.isfinite(values)]
    if len(finite) < MIN_PERSONS:
        return math.nan
    return float(np.median(finite))


def _other_order(place: Path, expected: str, found: str, do: str) -> RawDataError:
    """The error for joints in another order."""
    return RawDataError(place, "joints", expected, found, do, reason="unknown_joint_order")


def _unknown_order(
    place: Path, n_joints: int, fits: Sequence[_OrderFit], fitting: Sequence[_OrderFit]
) -> RawDataError:
    """The error that none of the orders fits, or that several do."""
    faults = "; ".join(f"as {fit.order}, {fit.fault()}" for fit in fits)
    actual = f"{n_joints} joints in an order that is not known, or not of people: {faults}"
    do = EXPORT
    if fitting:
        names = " or ".join(fit.order for fit in fitting)
        actual = f"{n_joints} joints without names that may be {names}"
        do = "Name the joints, in COCO's JSON."
    return _other_order(place, "joints in a known order", actual, do)


def _names_contradict(place: Path, fault: str, fitting: Sequence[str]) -> RawDataError:
    """The error that joints are not those that the file names, with the orders that they fit."""
    orders = " or ".join(fitting)
    actual = f"names that the numbers contradict: {fault}. Without names they fit {orders}"
    do = "Name the joints in the order of their numbers."
    return _other_order(place, "joints where their names say", actual, do)


# --------------------------------------------------------------------------------------------------
# spellings of annotation tools and detectors


def _joints_by_spelling() -> dict[str, str]:
    """Lower-case names of joints in files of PoseTrack, COCO, COCO-WholeBody and MPII -> our names:
    "left_eye" -> "leye", "left_big_toe" -> "OP LBigToe".
    """
    names = {
        "nose": "nose",
        "head_bottom": "neck",
        "upper_neck": "neck",
        "head_top": "headtop",
        "top_head": "headtop",
    }
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        for side in ("left", "right"):
            names[f"{side}_{joint}"] = f"{side[0]}{joint}"
    for joint in ("big_toe", "small_toe", "heel"):
        for side in ("left", "right"):
            title = joint.title().replace("_", "")
            names[f"{side}_{joint}"] = f"OP {side[0].upper()}{title}"
    return names


JOINT_OF_SPELLING: Final[Mapping[str, str]] = _joints_by_spelling()


def _joint_called(name: str) -> str | None:
    """Our name of a joint; None if it is unknown. Case, blanks, hyphens, underscores and dots do
    not matter, and a side may be one letter.

    "Neck" alone is unknown: some tools mean the middle of the shoulders, others the upper neck.

    >>> [_joint_called(name) for name in ("RHip", "left-shoulder", "LBigToe", "Left Ankle", "Neck")]
    ['rhip', 'lshoulder', 'OP LBigToe', 'lankle', None]
    """
    return _JOINT_OF_COMPACT_SPELLING.get(_compact(name))


def _compact(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[\s_.-]", "", name).lower()


def _joints_by_compact_spelling() -> dict[str, str]:
    """All compact spellings -> our names."""
    spelled = {}
    for name, ours in JOINT_OF_SPELLING.items():
        spelled[_compact(name)] = ours
        side, _, joint = name.partition("_")
        if side in ("left", "right"):
            spelled[side[0] + _compact(joint)] = ours
    return spelled


_JOINT_OF_COMPACT_SPELLING: Final = _joints_by_compact_spelling()
