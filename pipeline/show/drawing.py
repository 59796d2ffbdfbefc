"""Joints -> lines and dots with a side and a name, in the coordinates that they came in.  tracks -> [drawing] -> page

Which end of the body is which is told by joint name alone, so a wrong order shows as limbs that cross the body.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import JOINTS, bones, mirrored

Array = NDArray[Any]

NAMES: Final = JOINTS["spin49"]
BODY_25: Final = "body25"  # the layer of OpenPose's 25 joints
COMMON: Final = "common"  # the layer of what people annotate: common14, Human3.6M's and the face


class Line(NamedTuple):
    """A bone between two visible joints."""

    x1: float
    y1: float
    x2: float
    y2: float
    side: str  # right, left or middle: of the person
    layer: str
    name: str


class Dot(NamedTuple):
    """A visible joint."""

    x: float
    y: float
    side: str
    layer: str
    name: str


class Skeleton(NamedTuple):
    """One person's joints in one picture or view."""

    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]

    @property
    def has_both_layers(self) -> bool:
        """Whether bones of two layers run side by side, and have to be told apart."""
        return len({line.layer for line in self.lines}) == 2


class View(NamedTuple):
    """A 3D skeleton seen from one side, in metres, right and down positive."""

    title: str
    skeleton: Skeleton


class ViewBox(NamedTuple):
    """What an SVG shows of its coordinates."""

    x: float
    y: float
    width: float
    height: float


def side(joint: int) -> str:
    """Of a joint of spin49: "right", "left", or "middle".

    >>> [side(NAMES.index(name)) for name in ("rwrist", "OP LBigToe", "rear", "nose", "headtop")]
    ['right', 'left', 'right', 'middle', 'middle']
    """
    if _MIRRORED[joint] == joint:
        return "middle"
    return "left" if NAMES[joint].removeprefix("OP ")[0] in "lL" else "right"


def layer(joint: int) -> str:
    """The layer that a joint of spin49 is drawn in."""
    return BODY_25 if NAMES[joint] in JOINTS["body_25"] else COMMON


def skeleton(points: Array, visible: Array, told: list[str]) -> Skeleton:
    """points (49, 2), visible (49,) and what to say of each joint beside its name -> lines and dots.

    A bone is drawn when both of its ends are visible.
    """
    seen = [int(j) for j in np.flatnonzero(visible & np.isfinite(points).all(axis=-1))]
    at = {j: (float(points[j, 0]), float(points[j, 1])) for j in seen}
    lines = tuple(
        Line(*at[a], *at[b], _side_of(a, b), layer(a), f"{NAMES[a]} – {NAMES[b]}")
        for a, b in bones("spin49")
        if a in at and b in at
    )
    dots = tuple(Dot(*at[j], side(j), layer(j), f"{NAMES[j]} {told[j]}") for j in seen)
    return Skeleton(lines, dots)


def flat(kp_2d: Array, pixels: Array | None = None) -> Skeleton:
    """kp_2d (49, 3) with its confidence -> the skeleton at those coordinates, or at `pixels` (49, 2)."""
    told = [f"({x:.1f}, {y:.1f}) px, confidence {c:.2f}" for x, y, c in kp_2d.tolist()]
    return skeleton(kp_2d[:, :2] if pixels is None else pixels, kp_2d[:, 2] > 0, told)


def views(joints: Array, *, camera: bool) -> tuple[View, View]:
    """joints (49, 4) m m m confidence -> the skeleton from the front and from the side.

    In a camera's axes (x right, y down, z away from it) the front is the camera's own view, and the side is seen from
    the picture's right. Motion without a camera has z up, and the front is what one sees who looks along y.
    """
    x, y, z = joints[:, 0], joints[:, 1], joints[:, 2]
    told = [f"({a:.2f}, {b:.2f}, {c:.2f}) m" for a, b, c, _ in joints.tolist()]
    titles = ("camera's view", "from the side") if camera else ("looking along +y", "looking along −x")
    planes = ((x, y), (z, y)) if camera else ((x, -z), (y, -z))
    front, beside = (
        View(title, skeleton(np.stack(plane, axis=-1), joints[:, 3] > 0, told))
        for title, plane in zip(titles, planes, strict=True)
    )
    return front, beside


def view_box(shown: list[View], margin: float = 0.1) -> ViewBox | None:
    """One for all, so that all have the same scale: x is symmetric about the pelvis. None without a joint."""
    dots = [dot for view in shown for dot in view.skeleton.dots]
    if not dots:
        return None
    half = max(abs(dot.x) for dot in dots) + margin
    top, bottom = (pick(dot.y for dot in dots) for pick in (min, max))
    return ViewBox(-half, top - margin, 2 * half, bottom - top + 2 * margin)


def grid(low: float, length: float, step: float = 0.5) -> list[float]:
    """Multiples of `step` within [low, low + length].

    >>> grid(-0.8, 1.6)
    [-0.5, 0.0, 0.5]
    """
    return [float(k * step) for k in range(int(np.ceil(low / step)), int(np.floor((low + length) / step)) + 1)]


def _side_of(a: int, b: int) -> str:
    sides = {side(a), side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


_MIRRORED: Final = mirrored("spin49")
