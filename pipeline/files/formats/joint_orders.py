"""The joint order of a detector's numbers, by geometry.  [raw] -> tracks

Several layouts have the same number of joints: 25 joints are OpenPose's BODY_25 or BODY_25B, 17 are COCO's or
Human3.6M's. In a wrong order, bones are long for the body's size, and joints that a layout defines as midpoints are
not. Both are medians over a whole sequence, robust against odd poses and bad detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.skeletons import Doubles, bones, joint_names

CONFIDENT: Final = 0.3  # a joint below it does not count
SHOWN: Final = 0.83  # persons with a smaller share of visible joints are ignored for bones
MIN_PERSONS: Final = 8  # with fewer in a sequence, the usual order is taken
CLEARLY: Final = 0.75  # bones must be this much shorter than in the usual order, if that fits too
# In body diagonals: 0.01 in real BODY_25, 0.34 for BODY_25B read as BODY_25; 0.05 in the demo data, whose neck is the
# body model's and not midway between the shoulders.
MIDPOINT: Final = 0.1
# Mean bone in body diagonals: at most 0.26 in all poses of the tests, 0.15 in real BODY_25.
LONGEST: Final = 0.28

# Joint -> the two joints whose midpoint it is, by definition of the layout.
MIDPOINTS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "body_25": {"OP Neck": ("OP LShoulder", "OP RShoulder"), "OP MidHip": ("OP LHip", "OP RHip")},
    "openpose_coco": {"OP Neck": ("OP LShoulder", "OP RShoulder")},
    "coco_neck": {"OP Neck": ("lshoulder", "rshoulder")},
    "halpe_26": {"OP MidHip": ("lhip", "rhip")},
    "h36m": {"hip": ("lhip", "rhip")},
}
# Number of joints -> the known orders, the usual one first.
ORDERS: Final[Mapping[int, tuple[str, ...]]] = {
    17: ("coco", "h36m"),
    18: ("openpose_coco", "coco_neck"),
    25: ("body_25", "body_25b"),
    23: ("coco_feet",),
    26: ("halpe_26",),
}
# Lower-case joint names in files -> ours: PoseTrack's, COCO's, COCO-WholeBody's, MPII's.
DECLARED: Final[Mapping[str, str]] = {
    "nose": "nose",
    "head_bottom": "neck",
    "upper_neck": "neck",
    "head_top": "headtop",
    "top_head": "headtop",
    **{
        f"{side}_{joint}": f"{side[0]}{joint}"
        for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    },
    **{
        f"{side}_{joint}": f"OP {side[0].upper()}{joint.title().replace('_', '')}"
        for joint in ("big_toe", "small_toe", "heel")
        for side in ("left", "right")
    },
}


@dataclass(frozen=True, slots=True)
class OrderFit:
    """How well a sequence fits one order, in diagonals of the persons' bounding boxes."""

    order: str
    bone: float  # mean bone length, the median of persons; NaN where no person shows enough bones
    midpoint: float  # the largest distance of a midpoint joint from its midpoint, a median; 0 where there is none

    @property
    def fits(self) -> bool:
        return self.midpoint <= MIDPOINT and not self.bone > LONGEST


def order_of(keypoints: Sequence[Doubles]) -> tuple[str | None, Sequence[OrderFit]]:
    """The joint order of one sequence, None if none fits; and how well each order of that length fits.

    Args:
        keypoints: of each frame (P, J, 3): px, px, the detector's score.

    Raises:
        KeyError: no order of J joints is known (`ORDERS`).
    """
    n_joints = next((persons.shape[1] for persons in keypoints if len(persons)), 25)
    persons = np.concatenate([*keypoints, np.empty((0, n_joints, 3))])
    fits = [fit(order, persons) for order in ORDERS[n_joints]]
    usual = fits[0]
    others = [other for other in fits[1:] if other.fits]
    clear = [other for other in others if not usual.fits or other.bone < CLEARLY * usual.bone]
    chosen = min(clear, key=lambda other: np.nan_to_num(other.bone, nan=1.0), default=usual)
    return (chosen.order if chosen.fits else None), fits


def fit(order: str, persons: Doubles) -> OrderFit:
    """How well (N, J, 3) persons fit one order. Bones of persons with most joints, midpoints of all."""
    names = joint_names(order)
    points = np.where(persons[..., 2:] >= CONFIDENT, persons[..., :2], np.nan)
    shown = (persons[..., 2] >= CONFIDENT).mean(axis=1) >= SHOWN
    with np.errstate(all="ignore"):
        size = np.fmax.reduce(points, axis=1) - np.fmin.reduce(points, axis=1)  # NaN where a person shows no joint
        diagonal = np.linalg.norm(size, axis=-1)
        lines = bones(order)
        lengths = np.linalg.norm(points[:, [a for a, _ in lines]] - points[:, [b for _, b in lines]], axis=-1)
        mean = np.nansum(lengths, axis=1) / np.isfinite(lengths).sum(axis=1)
        bone = _median((mean / diagonal)[shown])
        apart = [0.0]
        for joint, (a, b) in MIDPOINTS.get(order, {}).items():
            middle = (points[:, names.index(a)] + points[:, names.index(b)]) / 2
            apart.append(_median(np.linalg.norm(points[:, names.index(joint)] - middle, axis=-1) / diagonal))
    return OrderFit(order, bone, float(np.nanmax(apart)))


def _median(values: Doubles) -> float:
    """The median; NaN with fewer than MIN_PERSONS finite values."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) >= MIN_PERSONS else float("nan")
