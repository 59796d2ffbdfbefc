"""Joints -> lines and dots with side and name, in the joints' coordinates.  tracks -> [drawing] ->
page

Sides come from the joints' names, so that a wrong order shows as limbs that cross the body.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.files.pixels.frames import Image
from pipeline.skeletons import JOINTS, bones, convert, mirrored

if TYPE_CHECKING:
    from pipeline.body import Body

Array = NDArray[Any]

NAMES: Final = JOINTS["spin49"]
# Each joint is one of OpenPose's 25, or a manually annotated one (common14, Human3.6M's, the face).
LAYERS: Final = tuple("body25" if name in JOINTS["body_25"] else "common" for name in NAMES)
SIDES: Final = tuple(  # of the person
    "middle"
    if other == joint
    else "left"
    if NAMES[joint].removeprefix("OP ")[0] in "lL"
    else "right"
    for joint, other in enumerate(mirrored("spin49"))
)
SIDE_COLOURS: Final = {"left": "#3d9bff", "right": "#ff8a1f", "middle": "#d8d8d8"}  # on images
PELVIS: Final = NAMES.index("hip")
HIPS: Final = [NAMES.index(name) for name in ("rhip", "lhip")]
WITHOUT_BODY: Final = "SMPL parameters only (add --body DIR to show the posed body)"
MARGIN_M: Final = 0.1  # around 3D skeletons
CAPTION_FOR: Final = 480  # px, smaller side up to which captions have their minimum size
BAND_PX: Final = 16  # height of a caption's band at that size


class _Line(NamedTuple):
    """A bone between two visible joints."""

    x1: float
    y1: float
    x2: float
    y2: float
    side: str  # one of SIDES
    layer: str  # one of LAYERS
    name: str


class _Dot(NamedTuple):
    """A visible joint."""

    x: float
    y: float
    side: str
    layer: str
    name: str


class Skeleton(NamedTuple):
    """One person's joints in an image or a view."""

    lines: tuple[_Line, ...]
    dots: tuple[_Dot, ...]


class View(NamedTuple):
    """A 3D skeleton projected along an axis, in metres, right and down positive."""

    title: str
    skeleton: Skeleton


class ViewBox(NamedTuple):
    """The part of its coordinates that an SVG shows."""

    x: float
    y: float
    width: float
    height: float


def _skeleton(points: Array, visible: Array, labels: Sequence[str]) -> Skeleton:
    """points (49, 2), visible (49,), a text for each joint -> visible joints, and bones between two
    visible joints.
    """
    drawn = np.flatnonzero(visible & np.isfinite(points).all(axis=-1)).tolist()
    positions: dict[int, tuple[float, float]] = dict(
        zip(drawn, map(tuple, points[drawn].tolist()), strict=True)
    )
    lines = []
    for a, b in bones("spin49"):
        if a in positions and b in positions:
            sides = {SIDES[a], SIDES[b]} - {"middle"}
            side = sides.pop() if len(sides) == 1 else "middle"
            lines.append(
                _Line(*positions[a], *positions[b], side, LAYERS[a], f"{NAMES[a]} – {NAMES[b]}")
            )
    dots = [
        _Dot(*position, SIDES[j], LAYERS[j], f"{NAMES[j]} {labels[j]}")
        for j, position in positions.items()
    ]
    return Skeleton(tuple(lines), tuple(dots))


def flat(kp_2d: Array, pixels: Array | None = None) -> Skeleton:
    """kp_2d (49, 3) px and confidence -> the skeleton at these coordinates, or at `pixels` (49,
    2).
    """
    labels = [f"({x:.1f}, {y:.1f}) px, confidence {c:.2f}" for x, y, c in kp_2d.tolist()]
    return _skeleton(kp_2d[:, :2] if pixels is None else pixels, kp_2d[:, 2] > 0, labels)


def views(joints: Array, *, camera: bool) -> tuple[View, ...]:
    """joints (49, 4) m and confidence -> front and side view; () without a visible joint.

    In camera axes (x right, y down, z forward) the front is the camera's view, and the side is seen
    from the image's right. Motion without a camera has z up; the front view looks along y.
    """
    (x, y, z, confidence), titles = joints.T, ("looking along +y", "looking along −x")
    if not (confidence > 0).any():
        return ()
    front = (x, -z)
    aside = (y, -z)
    if camera:
        titles = ("camera's view", "from the side")
        front = (x, y)
        aside = (z, y)
    labels = [f"({a:.2f}, {b:.2f}, {c:.2f}) m" for a, b, c, _ in joints.tolist()]
    planes = (np.stack(plane, axis=-1) for plane in (front, aside))
    return tuple(
        View(title, _skeleton(p, confidence > 0, labels))
        for title, p in zip(titles, planes, strict=True)
    )


def view_box(shown: Sequence[View]) -> ViewBox | None:
    """A common box for all views, symmetric in x about the pelvis; None without a joint."""
    dots = [dot for view in shown for dot in view.skeleton.dots]
    if not dots:
        return None
    half = max(abs(dot.x) for dot in dots) + MARGIN_M
    top, bottom = (pick(dot.y for dot in dots) for pick in (min, max))
    return ViewBox(-half, top - MARGIN_M, 2 * half, bottom - top + 2 * MARGIN_M)


def rgb(colour: str) -> tuple[int, int, int]:
    """Parse #rrggbb."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def draw_label(
    image: Image,
    text: str,
    left: float,
    bottom: float,
    size: float,
    colour: Sequence[int],
    taken: list[Array],
) -> None:
    """Draw a box's label inside the image, between its captions, past those at `taken` (x, y, x,
    y); adds its own.
    """
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, 1)
    left = max(0, min(left, image.shape[1] - width))
    line = height + round(4 * size)
    first = round(2 * BAND_PX * size)
    last = image.shape[0] - round(BAND_PX * size)
    bottom = round(max(first, min(bottom, last)))
    places = sorted(
        (bottom + k * line for k in range(-len(taken), len(taken) + 1)),
        key=lambda y: abs(y - bottom),
    )
    boxes = [
        np.array([left, y - line, left + width, y])
        for y in places
        if first <= y <= last or y == bottom
    ]
    free = (
        box
        for box in boxes
        if not any((box[:2] < of[2:]).all() and (of[:2] < box[2:]).all() for of in taken)
    )
    taken.append(next(free, boxes[0]))
    draw_text(image, text, round(left), int(taken[-1][3]), size, colour)


def draw_text(
    image: Image,
    text: str,
    left: int,
    bottom: int,
    size: float,
    colour: Sequence[int] = (255, 255, 255),
) -> None:
    """Draw a text with a black outline, readable on anything, in place."""
    for ink, thickness in (((0, 0, 0), 3), (colour, 1)):
        thick = round(thickness * size)
        cv2.putText(
            image,
            text,
            (left, bottom),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4 * size,
            ink,
            thick,
            cv2.LINE_AA,
        )


def joints_3d(rows: Mapping[str, Array], body: Path | None) -> tuple[Array | None, str]:
    """3D joints (n, 49, 4) m and confidence, pelvis at 0, or None; and a description, or why there
    are none.

    Taken from `kp_3d`, else `kp_3d_eval`, else the neutral body in `pose` with `betas`.
    """
    n_frames = len(rows["frame_index"])
    flag = rows.get("has_3d")
    if "kp_3d" in rows:
        joints = rows["kp_3d"].astype(np.float64)
        caption = "kp_3d: 3D joints as labelled"
    elif "kp_3d_eval" in rows:
        confident = np.concatenate([rows["kp_3d_eval"], np.ones((n_frames, 14, 1))], axis=-1)
        joints = convert(confident, source="common14", target="spin49")
        centre = joints[:, HIPS, :3].mean(axis=1, keepdims=True)  # common14 has no pelvis
        joints[..., :3] = np.where(joints[..., 3:] > 0, joints[..., :3] - centre, 0)
        caption = "kp_3d_eval: the 14 joints that evaluation compares"
    elif "pose" not in rows or "betas" not in rows:
        return None, "no 3D labels"
    elif body is None:
        return None, WITHOUT_BODY
    else:
        pose = rows["pose"]
        betas = rows["betas"]
        flag = rows.get("has_smpl")
        finite = np.isfinite(pose).all(axis=1) & np.isfinite(betas).all(axis=1)
        joints = np.full((n_frames, 49, 4), np.nan)
        if finite.any():
            joints[finite, :, :3], _ = load_body(body).posed_joints(pose[finite], betas[finite])
        joints[..., :3] -= joints[:, PELVIS : PELVIS + 1, :3]
        joints[finite, :, 3] = 1
        caption = "the neutral body, posed by pose and betas"
    joints[~np.isfinite(joints).all(axis=-1)] = 0
    if flag is not None:
        joints[flag != 1, :, 3] = 0
    return joints, caption


@functools.lru_cache(maxsize=1)
def load_body(folder: Path) -> Body:
    """Load the neutral body model. Raises what `Body.load` raises."""
    from pipeline.body import Body  # imports torch

    return Body.load(folder)
