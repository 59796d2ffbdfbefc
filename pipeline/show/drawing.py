"""Joints -> lines and dots with side and name, in the joints' coordinates.  tracks -> [drawing] ->
page

`flat` makes the `Skeleton` of 2D joints. `joints_3d` finds a track's 3D joints, and `views` their
skeletons from two directions. `page` draws them as SVG, and `clip` into images.

Sides come from the joints' names, so that a wrong order shows as limbs that cross the body.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pipeline.people.skeletons import (
    HIP,
    JOINTS,
    Array,
    add_confidence,
    bones,
    convert,
    opposite_joints,
)

if TYPE_CHECKING:
    from pipeline.people.body import Body


NAMES: Final = JOINTS["spin49"]


def _side(name: str, mirrored_name: str) -> str:
    """The side of the person that a joint is on, by its name and its mirror image's."""
    if name == mirrored_name:
        return "middle"
    is_left = name.removeprefix("OP ").lower().startswith("l")
    return "left" if is_left else "right"


SIDES: Final = tuple(
    _side(NAMES[j], NAMES[other]) for j, other in enumerate(opposite_joints("spin49"))
)
SIDE_COLOURS: Final = {"left": "#3d9bff", "right": "#ff8a1f", "middle": "#d8d8d8"}  # on images
HIPS: Final = [NAMES.index(name) for name in ("rhip", "lhip")]
WITHOUT_BODY: Final = "SMPL parameters only (add --body DIR to show the posed body)"


class _Line(NamedTuple):
    """A bone between two visible joints."""

    x1: float
    y1: float
    x2: float
    y2: float
    side: str  # one of SIDES
    name: str


class _Dot(NamedTuple):
    """A visible joint."""

    x: float
    y: float
    side: str
    name: str


class Skeleton(NamedTuple):
    """One person's joints in an image or a view."""

    lines: tuple[_Line, ...]
    dots: tuple[_Dot, ...]


class SkeletonView(NamedTuple):
    """A 3D skeleton projected along an axis, in metres, right and down positive."""

    title: str
    skeleton: Skeleton


def side_of_bone(a: int, b: int) -> str:
    """The side of a bone between two joints."""
    sides = {SIDES[a], SIDES[b]} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _skeleton(points: Array, visible: Array, labels: Sequence[str]) -> Skeleton:
    """Make the skeleton of the visible joints, and of the bones between two visible joints.

    points: (49, 2). visible: (49,). labels: a text for each joint.
    """
    drawn = np.flatnonzero(visible & np.isfinite(points).all(axis=-1)).tolist()
    lines = []
    for a, b in bones("spin49"):
        if a in drawn and b in drawn:
            side = side_of_bone(a, b)
            (x1, y1), (x2, y2) = points[[a, b]].tolist()
            lines.append(_Line(x1, y1, x2, y2, side, f"{NAMES[a]} – {NAMES[b]}"))
    dots = []
    for j in drawn:
        x, y = points[j].tolist()
        dots.append(_Dot(x, y, SIDES[j], f"{NAMES[j]} {labels[j]}"))
    return Skeleton(tuple(lines), tuple(dots))


def flat(kp_2d: Array, pixels: Array | None = None) -> Skeleton:
    """Make the skeleton of 2D joints kp_2d, (49, 3) px and confidence.

    It is drawn at these coordinates, or at `pixels` (49, 2).
    """
    labels = [f"({x:.1f}, {y:.1f}) px, confidence {c:.2f}" for x, y, c in kp_2d.tolist()]
    if pixels is None:
        pixels = kp_2d[:, :2]
    return _skeleton(pixels, kp_2d[:, 2] > 0, labels)


def views(joints: Array, *, camera: bool) -> tuple[SkeletonView, ...]:
    """Front and side view of 3D joints (49, 4), m and confidence; () without a visible joint.

    In camera axes (x right, y down, z forward) the front is the camera's view, and the side is seen
    from the image's right. Motion without a camera has z up; the front view looks along y.
    """
    visible = joints[:, 3] > 0
    if not visible.any():
        return ()
    labels = [f"({x:.2f}, {y:.2f}, {z:.2f}) m" for x, y, z, _ in joints.tolist()]
    x, y, z, _ = joints.T
    projections = {"looking along +y": (x, -z), "looking along −x": (y, -z)}
    if camera:
        projections = {"camera's view": (x, y), "from the side": (z, y)}
    drawn = []
    for title, right_and_down in projections.items():
        points = np.column_stack(right_and_down)
        drawn.append(SkeletonView(title, _skeleton(points, visible, labels)))
    return tuple(drawn)


def rgb(colour: str) -> tuple[int, int, int]:
    """Parse #rrggbb."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def joints_3d(rows: Mapping[str, Array], body: Path | None) -> tuple[Array | None, str]:
    """Find a track's 3D joints, (n, 49, 4) m and confidence, with the pelvis at 0; None without.

    Also returns a description of them, or why there are none.
    Taken from `kp_3d`, else `kp_3d_eval`, else the neutral body in `pose` with `betas`.
    """
    flag = rows.get("has_3d")
    if "kp_3d" in rows:
        joints = rows["kp_3d"].astype(np.float64)
        caption = "kp_3d: 3D joints as labelled"
    elif "kp_3d_eval" in rows:
        joints = _evaluated_joints(rows["kp_3d_eval"])
        caption = "kp_3d_eval: the 14 joints that evaluation compares"
    elif "pose" not in rows or "betas" not in rows:
        return None, "no labelled joints"
    elif body is None:
        return None, WITHOUT_BODY
    else:
        joints = _posed_joints(rows["pose"], rows["betas"], body)
        caption = "the neutral body, posed by pose and betas"
        flag = rows.get("has_smpl")
    is_known = np.isfinite(joints).all(axis=-1)
    joints[~is_known] = 0
    if flag is not None:
        joints[flag != 1, :, 3] = 0
    return joints, caption


def _evaluated_joints(kp_3d_eval: Array) -> Array:
    """Joints (n, 49, 4) from common14's (n, 14, 3); its pelvis is the middle of the hips."""
    joints = convert(add_confidence(kp_3d_eval), source="common14", target="spin49")
    centre = joints[:, HIPS, :3].mean(axis=1, keepdims=True)
    joints[..., :3] = np.where(joints[..., 3:] > 0, joints[..., :3] - centre, 0)
    return joints


def _posed_joints(pose: Array, betas: Array, body: Path) -> Array:
    """Joints (n, 49, 4) of the neutral body; NaN where pose or betas are not finite."""
    finite = np.isfinite(pose).all(axis=1) & np.isfinite(betas).all(axis=1)
    joints = np.full((len(pose), 49, 4), np.nan)
    if finite.any():
        joints[finite, :, :3], _ = load_body(body).posed_joints(pose[finite], betas[finite])
    joints[..., :3] -= joints[:, HIP : HIP + 1, :3]
    joints[finite, :, 3] = 1
    return joints


@functools.lru_cache(maxsize=1)
def load_body(folder: Path) -> Body:
    """Load the neutral body model. Raises what `Body.load` raises."""
    from pipeline.people.body import Body  # imports torch

    return Body.load(folder)
