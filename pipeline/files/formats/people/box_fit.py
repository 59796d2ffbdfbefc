"""Check that people's joints lie in their own boxes, in files that have both.  [raw] -> tracks"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.errors import refuse
from pipeline.files.formats.people.found import FoundPerson, Sizes, label_error
from pipeline.skeletons import Bools, Doubles

AROUND: Final = 0.1  # joints outside a box by this share of its size count as inside
MIN_JOINTS: Final = 4  # people who show fewer are not compared
LEAST_INSIDE: Final = 0.5  # of a person's joints
MOST_OUTSIDE: Final = 0.1  # share of the people of a file whose joints may lie elsewhere
MIN_OUTSIDE: Final = 5  # people; fewer prove nothing
EXPLAINED: Final = 0.9  # least share of the people whom a cause explains
CROPS: Final = ((192, 256), (288, 384), (256, 256), (48, 64))  # px, of top-down networks
CROP_MARGIN: Final = 1.25  # side of such a crop / side of the box


class _Cause(NamedTuple):
    """Where joints may be, in place of pixels of the image."""

    found: str
    do: str
    points: Doubles  # (N, J, 2) px, the joints in the image if it is so


def require_joints_in_boxes(place: Path, people: Sequence[FoundPerson], sizes: Sizes | None) -> str:
    """Compare the joints of all people with their boxes. Returns a note, "" if all lie in theirs.

    Raises RawDataError, with the likeliest cause, if more than MOST_OUTSIDE of the people do not.
    """
    compared = [person for person in people if person.box is not None]
    if not compared:
        return ""
    points = np.stack([person.points for person in compared])
    boxes = np.stack([person.box for person in compared if person.box is not None])
    is_shown = (points[..., 2] > 0) & np.isfinite(points).all(axis=-1)
    has_enough = (is_shown.sum(axis=1) >= MIN_JOINTS) & (boxes[:, 1] > boxes[:, 0]).all(axis=1)
    points = np.where(is_shown[..., None], points[..., :2], np.nan)[has_enough]
    boxes = boxes[has_enough]
    n_outside = int((~_are_inside(points, boxes)).sum())
    if not n_outside:
        return ""
    of_people = f"{n_outside} of {len(points)} people"
    if n_outside <= max(MOST_OUTSIDE * len(points), MIN_OUTSIDE - 1):
        return f"most joints of {of_people} lie outside their boxes"

    found = f"{of_people} whose joints lie elsewhere"
    do = "Write joints and boxes in pixels of the clip, or leave the boxes out."
    explained = []
    for cause in _causes(points, boxes, sizes):
        if _are_inside(cause.points, boxes).mean() >= EXPLAINED:
            explained.append((_distance(cause.points, boxes), cause.found, cause.do))
    if explained:
        _, cause_found, do = min(explained)
        found += f": {cause_found}"
    refuse(label_error(place, "keypoints", "joints in their people's boxes", found, do))
    return ""


def _are_inside(points: Doubles, boxes: Doubles) -> Bools:
    """Whether people's joints (N, J, 2), NaN if not shown, lie in boxes (N, 2, 2), (N,)."""
    margin = AROUND * (boxes[:, 1:] - boxes[:, :1])
    is_inside = (points >= boxes[:, :1] - margin) & (points <= boxes[:, 1:] + margin)
    n_shown = np.isfinite(points).all(axis=-1).sum(axis=1)
    return np.asarray(is_inside.all(axis=-1).sum(axis=1) >= LEAST_INSIDE * n_shown)


def _distance(points: Doubles, boxes: Doubles) -> float:
    """Distance of the joints' extent from the box, in sizes of the box, of the median person."""
    extents = np.stack([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1)
    sizes = boxes[:, 1:] - boxes[:, :1]
    return float(np.median((np.abs(extents - boxes) / sizes).max(axis=(1, 2))))


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
        factor = CROP_MARGIN * (size / crop).max(axis=-1, keepdims=True)
        mapped = low + size / 2 + (points - np.array(crop) / 2) * factor
        yield _Cause(f"in the {crop[0]} x {crop[1]} crop of a network", do, mapped)
    if sizes is not None:
        height = sizes()[0][1]
        upright = np.abs([0, height] - points)
        do = f"Write {height} - y: y counts from the top of the image."
        yield _Cause("y from the bottom of the image", do, upright)
