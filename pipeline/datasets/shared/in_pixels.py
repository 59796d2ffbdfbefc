"""Check that joints are in pixels of the image that they belong to.  [labels] -> tracks

For labels of detectors, of tools and of releases, which may be of another size of the image, shares
of it, metres, or have y before x.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.clips.labels.people_table import blocks
from pipeline.errors import RawDataError, refuse
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Bools, Doubles, Floats

MIN_JOINTS: Final = 50  # of a video; fewer prove nothing
MARGIN: Final = 0.1  # of the image's size: joints of people at its border may be this far outside
MAX_JOINTS_OUTSIDE: Final = 0.5  # share of the joints that may be outside, by more than MARGIN
DETECTED_OUTSIDE: Final = 0.2  # the same of a detector's joints, which it finds in the image
MAX_PERSONS_OUTSIDE: Final = 0.1  # share of persons who may be wholly outside the image
MIN_PERSON_JOINTS: Final = 6  # of a person whose size is compared
MIN_PERSON_PX: Final = 4.0  # longer side of the median person
STRAY_JOINTS: Final = 0.02  # share of joints that may be wrong in any detection
CORNER_PX: Final = 2.0  # joints that are all this near to the corner (0, 0) are no pixels

# advice
SAME_VIDEO: Final = (
    "Run the detector on this very file, on every frame of it, into an empty folder, and "
    "write pixels."
)
IN_PIXELS: Final = (
    "Write the joints of a 2D detector, in pixels of the clip, not those of a pose lifter."
)


def require_pixels(
    labels: Path,
    keypoints: Floats,
    size: tuple[int, int],
    most: float = MAX_JOINTS_OUTSIDE,
    *,
    boxes: bool = False,
    do: str = SAME_VIDEO,
    in_pixels: str = "",
) -> None:
    """Refuse keypoints that are not in pixels of this image.

    Args:
        labels: The labels' file or folder, for messages.
        keypoints: (N, J, 3) all persons of all frames: px, px, confidence; 0 is no joint.
        size: The image's width and height in px.
        most: The share of joints that may be far outside.
        boxes: Whether the keypoints are corners of boxes, for messages.
        do: Advice for joints far outside, unless the cause is clear.
        in_pixels: Advice for joints in shares of the image: how their tool writes pixels.

    Raises:
        RawDataError: `keypoints_outside`: nearly all joints are within 2 px of the corner, more
            than `most` are far outside the image, more than one person in ten is wholly outside,
            or the median person is smaller than `MIN_PERSON_PX` px.
    """
    points, corners = _shown_joints(keypoints)
    if not len(points):
        return
    # a few wild joints do not decide
    reach = np.quantile(np.abs(points), 0.98, axis=0, overwrite_input=True)
    is_tiny = reach.max() <= CORNER_PX and min(size) > 2 * CORNER_PX
    misfit: _Misfit | None = None
    if is_tiny and len(points) >= MIN_JOINTS // 3:
        misfit = _share_or_metres(points, size, in_pixels, boxes=boxes)
    elif len(points) >= MIN_JOINTS:
        misfit = _find_misfit(points, corners, size, most, do)
    if misfit is None:
        return

    key = "boxes" if boxes else "keypoints"
    kind = "boxes" if boxes else "joints"
    expected = f"{kind} in pixels of the {size[0]} x {size[1]} image"
    actual = f"{kind} up to ({reach[0]:.4g}, {reach[1]:.4g}), {misfit.cause}"
    refuse(RawDataError(labels, key, expected, actual, misfit.do, reason="keypoints_outside"))


def _shown_joints(keypoints: Floats) -> tuple[Floats, Doubles]:
    """The shown joints (N, 2) px of all persons, and corners (P, 2, 2) of persons with enough to
    compare their size.
    """
    points = []
    corners = []
    for rows in blocks(len(keypoints)):
        persons = keypoints[rows]
        is_shown = (persons[..., 2] > 0) & np.isfinite(persons).all(axis=-1)
        points.append(persons[..., :2][is_shown])
        has_enough = is_shown.sum(axis=1) >= min(MIN_PERSON_JOINTS, keypoints.shape[1])
        corners.append(extents(persons[has_enough])[0])
    return np.concatenate(points), np.concatenate(corners)


class _Misfit(NamedTuple):
    """Why keypoints are not in pixels of an image, as a part of a message, and what to do."""

    cause: str
    do: str


def _share_or_metres(
    points: Floats, size: tuple[int, int], in_pixels: str, *, boxes: bool
) -> _Misfit:
    """Explain points (N, 2) that are all near the image's corner: shares of its size, or metres."""
    if np.quantile(points.min(axis=1), STRAY_JOINTS) < -STRAY_JOINTS:
        return _Misfit("in metres, or normalised about the middle", IN_PIXELS)
    if np.quantile(points, 1 - STRAY_JOINTS) > 1 + MARGIN:
        return _Misfit("in metres", IN_PIXELS)
    do = in_pixels or f"multiply x by {size[0]}, y by {size[1]}."
    if boxes:
        do = f"multiply x and w by {size[0]}, y and h by {size[1]}."
    return _Misfit("normalised to the picture's size", f"Write pixels: {do}")


def _find_misfit(
    points: Floats, corners: Doubles, size: tuple[int, int], most: float, do: str
) -> _Misfit | None:
    """Find out by joints and persons whether keypoints are in pixels of this image; None if so.

    points: (N, 2) all joints. corners: (P, 2, 2) of the persons with enough joints to compare their
    size. most, do: as in `require_pixels`.
    """
    share_of_persons_outside = 0.0
    if len(corners):
        low, high = corners.transpose(1, 0, 2)  # (P, 2)
        side = float(np.median((high - low).max(axis=1)))
        if side < MIN_PERSON_PX:
            cause = f"persons of {side:.2g} px: of a far smaller copy, or in metres"
            return _Misfit(cause, IN_PIXELS)
        is_outside = (high < 0) | (low > np.array(size))
        share_of_persons_outside = is_outside.any(axis=1).mean()

    share_outside = far_outside(points, size).mean()
    if share_outside <= most and share_of_persons_outside <= MAX_PERSONS_OUTSIDE:
        return None
    far = f"{share_outside:.0%} of them far outside"
    exchanged = points[:, ::-1]
    if far_outside(exchanged, size).mean() < STRAY_JOINTS:
        cause = f"{far}, but not if x and y are exchanged: y before x"
        return _Misfit(cause, "Write x before y.")
    return _Misfit(f"{far}: of another resolution or of another video", do)


def far_outside(points: Floats, size: tuple[int, int], margin: float = MARGIN) -> Bools:
    """Whether points, (N, 2) px, are outside the image by more than `margin` of its size, (N,)."""
    below = points < -margin * np.array(size)
    above = points > (1 + margin) * np.array(size)
    return np.asarray((below | above).any(axis=1))
