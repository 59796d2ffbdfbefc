"""Check that people's joints lie in their own boxes, in files that have both.  [raw] -> tracks"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.errors import refuse
from pipeline.files.formats.people.label_content import FoundPerson, Sizes
from pipeline.files.formats.people.label_values import label_error
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
    is_finite = np.isfinite(points).all(axis=-1)
    is_shown = is_finite & (points[..., 2] > 0)
    n_shown = is_shown.sum(axis=1)
    has_area = (boxes[:, 1] > boxes[:, 0]).all(axis=1)
    has_enough = has_area & (n_shown >= MIN_JOINTS)
    points = np.where(is_shown[..., None], points[..., :2], np.nan)
    points = points[has_enough]
    boxes = boxes[has_enough]
    n_outside = int((~_are_inside(points, boxes)).sum())
    if not n_outside:
        return ""
    of_people = f"{n_outside} of {len(points)} people"
    if n_outside <= max(MOST_OUTSIDE * len(points), MIN_OUTSIDE - 1):
        return f"most joints of {of_people} lie outside their boxes"

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
    if sizes is not None:
        height = sizes()[0][1]
        upright = np.abs([0, height] - points)
        do = f"Write {height} - y: y counts from the top of the image."
        yield _Cause("y from the bottom of the image", do, upright)
