"""Check people's boxes, and that their joints lie in them and in the image.  [raw] -> tracks"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.cli.text import count
from pipeline.clips.labels.joint_orders import BODY_JOINTS
from pipeline.clips.labels.label_content import (
    CENTRE_BOX,
    TWO_CORNERS,
    LabelContent,
    Sizes,
)
from pipeline.clips.labels.label_values import label_error
from pipeline.clips.labels.order_check import LEAST_CONFIDENCE
from pipeline.clips.labels.people_table import PeopleTable, blocks
from pipeline.errors import RawDataError, refuse
from pipeline.people.skeletons import Bools, Doubles, are_usable_numbers

# boxes
MOST_BAD: Final = 0.5  # share of a file's boxes that may have no extent, or no numbers
BEYOND: Final = 0.02  # of the image's size, by which boxes may reach out of it
MOST_BEYOND: Final = 0.1  # share of the boxes that may reach farther

# joints in boxes
AROUND: Final = 0.1  # joints outside a box by this share of its size count as inside
MIN_JOINTS: Final = 4  # people who show fewer are not compared
LEAST_INSIDE: Final = 0.5  # of a person's joints
MOST_OUTSIDE: Final = 0.1  # share of the people of a file whose joints may lie elsewhere
MIN_OUTSIDE: Final = 5  # people; fewer prove nothing
EXPLAINED: Final = 0.9  # least share of the people whom a cause explains
CROPS: Final = ((192, 256), (288, 384), (256, 256), (48, 64))  # px, of top-down networks
CROP_MARGIN: Final = 1.25  # side of such a crop / side of the box

# joints in crops, of people without boxes
MIN_PEOPLE: Final = 8  # fewer prove nothing
AT_CORNER: Final = 0.2  # diagonals of the person from the image's corner to where a crop begins
MOST_CROPPED: Final = 0.9  # share of the people of a file who may be there
FILLING: Final = 0.75  # of the image's width or height: such people begin at its corner, too


class _Cause(NamedTuple):
    """Where joints may be, in place of pixels of the image."""

    found: str
    do: str
    points: Doubles  # (N, J, 2) px, the joints in the image if it is so


def check_people(
    place: Path, content: LabelContent, people: PeopleTable, sizes: Sizes | None
) -> list[str]:
    """Check the people of a file. Returns notes.

    Joints at (0, 0), which tools write for joints that they did not find, get the score 0.

    Raises RawDataError, with the likeliest cause, for boxes that are two corners in place of a
    corner and a size, or mostly bad, and for joints elsewhere than in their boxes or the image.
    """
    n_people = len(people.frame)
    n_bad = content.bad_boxes.total()
    if content.first_bad_box and n_bad >= MOST_BAD * (n_bad + n_people):
        raise content.first_bad_box
    are_boxes = people.points.shape[1] == 2
    boxes = people.points[..., :2] if are_boxes else people.boxes
    notes = []
    if len(boxes) and sizes is not None and content.box_form != TWO_CORNERS:
        notes.append(_require_no_corners(place, boxes, sizes, content.box_form))
    if n_people and not are_boxes:
        notes.append(_zero_joints_at_corner(people.points))
        if len(boxes):
            notes.append(_require_joints_in_boxes(place, people, sizes))
        elif sizes is not None:
            notes.append(_require_no_crops(place, people, sizes))
    return [*filter(None, notes)]


def _require_no_corners(place: Path, boxes: Doubles, sizes: Sizes, form: str) -> str:
    """Raise RawDataError if boxes (N, 2, 2) px are of two corners in a file, read as `form`.

    Then all second corners are right of and below the first ones, and in the image, and as sizes
    they make boxes that reach beyond it. Returns a note of other boxes that do, or "".
    """
    low, high = boxes.swapaxes(0, 1)
    size = _image_size(sizes)
    border = BEYOND * size
    reaches_out = (low < -border) | (high > size + border)
    n_beyond = int(reaches_out.any(axis=1).sum())
    if n_beyond <= MOST_BEYOND * len(boxes):
        return ""
    second = high - low
    first = (low + high) / 2 if form == CENTRE_BOX else low
    beyond = f"{n_beyond} of {len(boxes)} boxes reach beyond the image"
    if ((second > first) & (second <= size + border)).all():
        actual = f"x y x y, two corners: as {form}, {beyond}"
        refuse(label_error(place, "boxes", form, actual, f"Write {form} of each box."))
    return f"{beyond}: are they {form}?"


def _image_size(sizes: Sizes | None) -> Doubles:
    """(2,) px, the likeliest width and height; NaN if not known, or if the clip cannot be opened:
    then its reader says so, and its people count.
    """
    if sizes is not None:
        with contextlib.suppress(RawDataError):
            return np.array(sizes()[0], np.float64)
    return np.full(2, np.nan)


def _zero_joints_at_corner(points: Doubles) -> str:
    """Give joints (N, J, 3) at (0, 0) the score 0. Returns a note of how many had one, or ""."""
    scores = points[..., 2]
    is_zeroed = ~points[..., :2].any(axis=2) & (scores != 0)
    scores[is_zeroed] = 0
    n_zeroed = int(is_zeroed.sum())
    return f"{count(n_zeroed, 'joint')} at (0, 0) not used: no joint is there" if n_zeroed else ""


def _body_joints(people: Doubles) -> Doubles:
    """(N, J, 2) px, the joints of the body of people (N, K, 3); NaN if not shown, or unsure."""
    points = people[:, : BODY_JOINTS.get(people.shape[1])]  # face and hands follow
    is_shown = are_usable_numbers(points).all(axis=-1) & (points[..., 2] >= LEAST_CONFIDENCE)
    return np.where(is_shown[..., None], points[..., :2], np.nan)


def _have_enough(points: Doubles) -> Bools:
    """Whether at least MIN_JOINTS of the joints (N, J, 2) are shown, (N,)."""
    return np.asarray(np.isfinite(points[..., 0]).sum(axis=1) >= MIN_JOINTS)


def _require_no_crops(place: Path, people: PeopleTable, sizes: Sizes) -> str:
    """Raise RawDataError if joints are in a crop of each person: nearly all people begin at the
    image's corner, but do not fill it. Returns a note if they are never two in one of the frames,
    as somebody may stand there, or "".
    """
    parts = []
    for rows in blocks(len(people.frame)):
        points = _body_joints(people.points[rows])
        has_enough = _have_enough(points)
        points = points[has_enough]
        low = np.nanmin(points, axis=1)
        high = np.nanmax(points, axis=1)
        reach = AT_CORNER * np.linalg.norm(high - low, axis=1, keepdims=True)
        is_at_corner = (np.abs(low) <= reach).all(axis=1)
        parts.append((people.frame[rows][has_enough], is_at_corner, high))
    frames, is_at_corner, highest = map(np.concatenate, zip(*parts, strict=True))
    if len(frames) < MIN_PEOPLE or is_at_corner.mean() < MOST_CROPPED:
        return ""
    is_smaller = (highest <= FILLING * _image_size(sizes)).all(axis=1)
    if (~is_smaller).mean() >= MOST_CROPPED:
        return ""
    at_corner = f"{is_at_corner.sum()} of {len(frames)} people at its upper left corner"
    frames = frames[is_at_corner]
    if len(np.unique(frames)) == len(frames):
        return f"{at_corner} of the image: are joints in pixels of a crop of the person?"
    actual = f"{at_corner}: in pixels of a crop of each person"
    do = "Add the upper left corner of its crop to each joint."
    refuse(label_error(place, "keypoints", "joints in pixels of the image", actual, do))
    return actual


def _require_joints_in_boxes(place: Path, people: PeopleTable, sizes: Sizes | None) -> str:
    """Compare people's joints with their boxes. Returns a note, "" if all lie in theirs.

    Raises RawDataError, with the likeliest cause, if more than MOST_OUTSIDE of the people do not.
    """
    n_compared = 0
    n_outside = 0
    for rows in blocks(len(people.boxed)):
        points, boxes = _comparable(people, rows)
        n_compared += len(points)
        n_outside += int((~_are_inside(points, boxes)).sum())
    if not n_outside:
        return ""
    of_people = f"{n_outside} of {n_compared} people"
    if n_outside <= max(MOST_OUTSIDE * n_compared, MIN_OUTSIDE - 1):
        return f"most joints of {of_people} lie outside their boxes"

    points, boxes = _comparable(people, slice(None))
    actual = f"{of_people} whose joints lie elsewhere"
    do = "Write joints and boxes in pixels of the clip, or leave the boxes out."
    explained = []
    for cause in _causes(points, boxes, sizes):
        if _are_inside(cause.points, boxes).mean() >= EXPLAINED:
            explained.append((_distance(cause.points, boxes), cause.found, cause.do))
    if explained:
        _, cause_found, do = min(explained)
        actual += f": {cause_found}"
    refuse(label_error(place, "keypoints", "joints in their people's boxes", actual, do))
    return ""


def _comparable(people: PeopleTable, rows: slice) -> tuple[Doubles, Doubles]:
    """Joints (n, J, 2) and boxes (n, 2, 2) of those of the people with boxes that show enough."""
    points = _body_joints(people.points[people.boxed[rows]])
    boxes = people.boxes[rows]
    has_enough = _have_enough(points) & (boxes[:, 1] > boxes[:, 0]).all(axis=1)
    return points[has_enough], boxes[has_enough]


def _are_inside(points: Doubles, boxes: Doubles) -> Bools:
    """Whether people's joints (N, J, 2), NaN if not shown, lie in boxes (N, 2, 2), (N,)."""
    low = boxes[:, :1]
    high = boxes[:, 1:]
    margin = AROUND * (high - low)
    is_inside = (points >= low - margin) & (points <= high + margin)
    n_inside = is_inside.all(axis=-1).sum(axis=1)
    n_shown = np.isfinite(points).all(axis=-1).sum(axis=1)
    return np.asarray(n_inside >= LEAST_INSIDE * n_shown)


def _distance(points: Doubles, boxes: Doubles) -> float:
    """Distance of the joints' extent from the box, in sizes of the box, of the median person."""
    low = np.nanmin(points, axis=1)
    high = np.nanmax(points, axis=1)
    extents = np.stack([low, high], axis=1)
    sizes = boxes[:, 1:] - boxes[:, :1]
    distances = np.abs(extents - boxes) / sizes
    return float(np.median(distances.max(axis=(1, 2))))


def _causes(points: Doubles, boxes: Doubles, sizes: Sizes | None) -> Iterator[_Cause]:
    """What the joints (N, J, 2) may be, whose boxes are (N, 2, 2)."""
    low = boxes[:, :1]
    size = boxes[:, 1:] - low
    swap = "Write x, y and score of each joint, in this order."
    yield _Cause("y before x", swap, points[..., ::-1])
    add = "Add the upper left corner of its box to each joint"
    yield _Cause("in pixels from the corner of the box", f"{add}.", low + points)
    scale = "Multiply x by the width and y by the height of the box, and a"
    yield _Cause("in shares of the box", f"{scale}{add[1:]}.", low + points * size)
    do = "Map the joints from the network's crop back to the image."
    for crop in CROPS:
        width, height = crop
        factor = CROP_MARGIN * (size / crop).max(axis=-1, keepdims=True)
        from_centre = points - np.array(crop) / 2
        mapped = low + size / 2 + from_centre * factor
        yield _Cause(f"in the {width} x {height} crop of a network", do, mapped)
    image_height = float(_image_size(sizes)[1])
    if math.isfinite(image_height):
        upright = np.abs([0, image_height] - points)
        do = f"Write {image_height:.0f} - y: y counts from the top of the image."
        yield _Cause("y from the bottom of the image", do, upright)
