"""Check that joints are in pixels of the image that they belong to.  [labels] -> tracks

For labels of detectors, of tools and of releases, which may be of another size of the image, shares
of it, or metres.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import RawDataError, refuse
from pipeline.people.checked_people import CORNERS, CheckedPeople
from pipeline.people.skeletons import Bools, Floats, Skeleton

MIN_JOINTS: Final = 50  # of a video; fewer prove nothing
MARGIN: Final = 0.1  # of the image's size: joints of people at its border may be this far outside
MAX_JOINTS_OUTSIDE: Final = 0.5  # share of the joints that may be outside, by more than MARGIN
DETECTED_OUTSIDE: Final = 0.2  # the same of a detector's joints, which it finds in the image
MAX_PERSONS_OUTSIDE: Final = 0.1  # share of persons who may be wholly outside the image
MIN_PERSON_PX: Final = 4.0  # longer side of the median person
STRAY_JOINTS: Final = 0.02  # share of joints that may be wrong in any detection
CORNER_PX: Final = 2.0  # joints that are all this near to the corner (0, 0) are no pixels


def require_pixels(
    labels: Path,
    keypoints: Floats,
    size: tuple[int, int],
    most: float = MAX_JOINTS_OUTSIDE,
    *,
    do: str = "",
    skeleton: Skeleton = (),
    find_cause: Callable[[CheckedPeople], tuple[str, str]] | None = None,
) -> None:
    """Refuse keypoints that are not in pixels of this image.

    Args:
        labels: The labels' file or folder, for messages.
        keypoints: (N, J, 3) all persons of all frames: px, px, confidence; 0 is no joint.
        size: The image's width and height in px.
        most: The share of joints that may be far outside.
        do: Advice.
        skeleton: The joints' order, or CORNERS of boxes.
        find_cause: Function that returns a cause, as the end of a sentence, and advice.

    Raises:
        RawDataError: `keypoints_outside`: nearly all joints are within 2 px of the corner, more
            than `most` are far outside the image, more than one person in ten is wholly outside,
            or the median person is smaller than `MIN_PERSON_PX` px.
    """
    each = np.arange(len(keypoints))
    are_boxes = skeleton == CORNERS
    boxes = keypoints[..., :2] if are_boxes else np.full((len(keypoints), 2, 2), np.nan)
    people = CheckedPeople(skeleton, keypoints, each, boxes, "", np.array(size))
    points = people.xy[np.isfinite(people.xy[..., 0])]
    if not len(points):
        return
    # a few wild joints do not decide
    reach = np.quantile(np.abs(points), 0.98, axis=0, overwrite_input=True)
    is_tiny = reach.max() <= CORNER_PX and min(size) > 2 * CORNER_PX
    corners = people.extent[np.isfinite(people.extent[:, 0, 0])]
    least = MIN_JOINTS // 3
    seen: str | None = ""
    if not is_tiny:
        least = MIN_JOINTS
        seen = _find_misfit(points, corners, size, most)
    if seen is None or len(points) < least:
        return

    key = kind = "boxes"
    if not are_boxes:
        key = "keypoints"
        kind = "joints"
    expected = f"{kind} in pixels of the {size[0]} x {size[1]} image"
    actual = f"{kind} up to ({reach[0]:.4g}, {reach[1]:.4g}){seen}"
    if find_cause is not None:
        cause, do = find_cause(people)
        actual += cause
    refuse(RawDataError(labels, key, expected, actual, do, reason="keypoints_outside"))


def _find_misfit(points: Floats, corners: Floats, size: tuple[int, int], most: float) -> str | None:
    """What shows that joints are not in pixels of this image; None if they are.

    points: (N, 2) all joints. corners: (P, 2, 2) of the persons with enough joints to compare their
    size. most: as in `require_pixels`.
    """
    share_of_persons_outside = 0.0
    if len(corners):
        low, high = corners.transpose(1, 0, 2)  # (P, 2)
        side = float(np.median((high - low).max(axis=1)))
        if side < MIN_PERSON_PX:
            return f", persons of {side:.2g} px"
        is_outside = (high < 0) | (low > np.array(size))
        share_of_persons_outside = is_outside.any(axis=1).mean()

    share_outside = far_outside(points, size).mean()
    if share_outside <= most and share_of_persons_outside <= MAX_PERSONS_OUTSIDE:
        return None
    return f", {share_outside:.0%} of them far outside"


def far_outside(points: Floats, size: tuple[int, int], margin: float = MARGIN) -> Bools:
    """Whether points, (N, 2) px, are outside the image by more than `margin` of its size, (N,)."""
    from_middle = points / np.array(size)
    from_middle -= 0.5
    np.abs(from_middle, out=from_middle)  # a video may have millions
    return np.asarray((from_middle > 0.5 + margin).any(axis=1))
