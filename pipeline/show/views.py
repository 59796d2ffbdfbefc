"""Tracks with their pixels, ready for the page: full frames, crops, 3D views.  tracks -> [pixels, crops] -> page

Crops come from `crop_person` and the joints on them from `normalise_keypoints`, as for training: where pixels and
labels disagree there, they disagree here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CROP_SIZE, crop_person, normalise_keypoints
from pipeline.pixels.frames import Frame, Image
from pipeline.show.drawing import Skeleton, View, ViewBox, flat, view_box, views
from pipeline.show.posed import joints_3d
from pipeline.show.tracks import ShownTrack

Array = NDArray[Any]

LONGEST_PX: Final = 480  # longer side of a full frame on the page
QUALITY: Final = 80  # of the page's JPEGs
DOT: Final = 1 / 75  # half a joint's size / side of the crop: about an eye's


class Rect(NamedTuple):
    """A box drawn on a frame, px of the frame."""

    kind: str  # "box", or "crop": the box larger by the crop scale
    x: float
    y: float
    width: float
    height: float


class Overlay(NamedTuple):
    """A picture with what is drawn on it, in the coordinates of its labels."""

    uri: str  # data:image/jpeg
    shown: tuple[int, int]  # width and height of the JPEG
    width: int  # of the picture that the labels count in
    height: int
    rects: tuple[Rect, ...]
    skeleton: Skeleton
    radius: float  # of a joint's dot
    outside: int  # joints that lie outside the picture


class Card(NamedTuple):
    """One frame of a track."""

    number: int  # the video's own, from 0
    n_visible: int | None  # joints; None where there are no 2D labels
    flags: tuple[str, ...]  # those of has_3d, has_smpl, valid that are not set here
    problem: str  # why there is no picture; "" where there is one, or never was one
    full: Overlay | None
    crop: Overlay | None
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A track as it is drawn."""

    track: ShownTrack
    what_3d: str
    view_box: ViewBox | None  # of all 3D views
    cards: tuple[Card, ...]


def portrait(track: ShownTrack, body: Path | None) -> Portrait:
    """Decode the track's frames, one at a time, and draw them. `body`: the folder of a body model, to pose it.

    What cannot be decoded is a card that says so. Raises as `Body.load` does.
    """
    rows = track.rows
    joints, what = joints_3d(rows, body)
    has_camera = "bbox" in rows
    solid = [views(j, camera=has_camera) if (j[:, 3] > 0).any() else () for j in ([] if joints is None else joints)]
    cards = []
    for i, frame in enumerate(_frames(track)):
        full, crop, problem = _pictures(frame, track, i)
        n_visible = int((rows["kp_2d"][i, :, 2] > 0).sum()) if "kp_2d" in rows else None
        flags = tuple(name for name in track.flags if rows[name][i] != 1)
        cards.append(Card(frame.index, n_visible, flags, problem, full, crop, solid[i] if solid else ()))
    return Portrait(track, what, view_box([view for pair in solid for view in pair]), tuple(cards))


def _frames(track: ShownTrack) -> Iterator[Frame]:
    """The track's frames, decoded where it has pictures."""
    indices = [int(index) for index in track.rows["frame_index"]]
    if track.source is None:
        return (Frame(index, None, None) for index in indices)
    return track.source.read(indices)


def _pictures(frame: Frame, track: ShownTrack, i: int) -> tuple[Overlay | None, Overlay | None, str]:
    """The full frame and the crop of row i, or what is wrong with them."""
    if frame.image is None or "bbox" not in track.rows:
        return None, None, f"{frame.kind}: {frame.problem}" if frame.problem else ""
    image, bbox = frame.image, track.rows["bbox"][i]
    kp_2d = track.rows["kp_2d"][i] if "kp_2d" in track.rows else np.zeros((49, 3))
    try:
        full = _full_frame(image, bbox, kp_2d, track.crop_scale)
        crop = _crop(crop_person(image, bbox, track.crop_scale), bbox, kp_2d, track.crop_scale)
    except ValueError as error:  # a box that no crop has
        return None, None, f"bad_box: {error}"
    return full, crop, ""


def _full_frame(image: Image, bbox: Array, kp_2d: Array, crop_scale: float) -> Overlay:
    height, width = image.shape[:2]
    shrink = min(1.0, LONGEST_PX / max(width, height))
    shown = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = np.asarray(cv2.resize(image, shown, interpolation=cv2.INTER_AREA), np.uint8) if shrink < 1 else image
    rects = (_rect("crop", bbox, crop_scale), _rect("box", bbox, 1.0))
    longest = max(width, height)
    radius = min(max(rects[0].width * DOT, longest / 250), longest / 75)  # small people keep small dots
    outside = _outside(kp_2d, kp_2d, width, height)
    return Overlay(_jpeg(small), shown, width, height, rects, flat(kp_2d), radius, outside)


def _crop(crop: Image, bbox: Array, kp_2d: Array, crop_scale: float) -> Overlay:
    pixels = (normalise_keypoints(kp_2d.astype(np.float64), bbox, crop_scale)[:, :2] + 1) * CROP_SIZE / 2
    side = (CROP_SIZE, CROP_SIZE)
    outside = _outside(pixels, kp_2d, *side)
    return Overlay(_jpeg(crop), side, *side, (), flat(kp_2d, pixels), CROP_SIZE * DOT, outside)


def _rect(kind: str, bbox: Array, scale: float) -> Rect:
    x, y, width, height = (float(v) for v in bbox)
    width, height = width * scale, height * scale
    return Rect(kind, x - width / 2, y - height / 2, width, height)


def _outside(points: Array, kp_2d: Array, width: int, height: int) -> int:
    x, y = points[:, 0], points[:, 1]
    inside = (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)
    return int(((kp_2d[:, 2] > 0) & ~inside).sum())


def _jpeg(image: Image) -> str:
    """RGB pixels -> a data URI."""
    coded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not coded:
        raise AssertionError(f"OpenCV cannot write a JPEG of {image.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
