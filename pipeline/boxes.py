"""Person boxes from keypoints.  raw -> [tracks] -> features -> windows

A box is (cx, cy, w, h) in pixels of the full image: centre and size. Boxes are square, and do not
include the margin of a crop. Only the boxes of `corner_boxes_with_margin` differ.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.skeletons import Bools, Doubles, Float32s, Floats, corners_of

MIN_SIDE_PX: Final = 1.0  # a tight box smaller than this is degenerate
MIN_DIAGONAL_PX: Final = 0.5  # an extent smaller than this is no detection
REFERENCE_PX: Final = 150.0  # a person whose extent has this diagonal has scale 1


def extents(kp_2d: Floats, threshold: float = 0.0) -> tuple[Doubles, Bools]:
    """Corners (N, 2, 2) of the joints with confidence above `threshold`, and (N,) whether there is
    any such joint.

    kp_2d is (N, J, 3) px px confidence. Rows without a joint have corners at 0. Non-finite joints
    count as unseen.
    """
    points = np.asarray(kp_2d, np.float64)
    is_seen = _visible_joints(points, threshold)
    any_seen: Bools = np.any(is_seen, axis=1)

    corners = corners_of(points[..., :2], is_seen)
    corners[~any_seen] = 0
    return corners, any_seen


def _visible_joints(points: Doubles, threshold: float) -> Bools:
    """Whether each joint is finite and has a confidence above `threshold`, (N, J)."""
    is_finite = np.isfinite(points).all(axis=-1)
    confidence = points[..., 2]
    is_seen: Bools = is_finite & (confidence > threshold)
    return is_seen


def tight_boxes(kp_2d: Floats, factor: float = 1.0) -> tuple[Float32s, Bools, Bools]:
    """Boxes around the visible joints, made square by their larger side, times `factor`.

    kp_2d is (N, J, 3); a joint is visible if its confidence is above 0. Returns boxes (N, 4) cxcywh
    px, and two reasons to drop a row: (N,) `empty` (no visible joint) and (N,) `degenerate` (the
    larger side is under a pixel).
    """
    corners, any_seen = extents(kp_2d)
    centre = corners.mean(axis=1)
    sides = np.ptp(corners, axis=1)
    side = sides.max(axis=1)
    width = side * factor
    boxes = np.column_stack([centre, width, width])
    is_empty = ~any_seen
    is_degenerate = any_seen & (side < MIN_SIDE_PX)
    return boxes.astype(np.float32), is_empty, is_degenerate


def smooth_boxes(
    kp_2d: Floats, threshold: float = 0.3, median: int = 11, sigma: float = 8
) -> tuple[Float32s, int, int]:
    """Boxes of one person over time, robust against single bad detections.

    kp_2d is (N, J, 3), one row per frame. Each frame's extent of the joints above `threshold` gives
    a centre and a scale 150 / diagonal. Missing frames between detections are interpolated
    linearly; a median filter (zero-padded) and a Gaussian (mirrored) follow. Returns (boxes, first,
    stop): cxcywh px for the frames [first, stop) from the first to the last detection, side 150 /
    scale, no margin; (0, 4) boxes, 0 and 0 without any detection.

    With fewer than (median + 1) / 2 frames, the zero padding would be the median and the side
    infinite. The filter is then as wide as the number of frames (odd).
    """
    corners, any_seen = extents(kp_2d, threshold)
    sides = corners[:, 1] - corners[:, 0]
    diagonal = np.linalg.norm(sides, axis=-1)
    is_detected = any_seen & (diagonal >= MIN_DIAGONAL_PX)
    detected = np.flatnonzero(is_detected)
    if not len(detected):
        return np.zeros((0, 4), np.float32), 0, 0

    x, y = corners[detected].mean(axis=1).T
    scale = REFERENCE_PX / diagonal[detected]
    first = int(detected[0])
    stop = int(detected[-1]) + 1
    frames = np.arange(first, stop)
    smoothed = []
    for values in (x, y, scale):
        of_all_frames = np.interp(frames, detected, values)
        smoothed.append(_smooth(of_all_frames, median, sigma))

    x, y, scale = smoothed
    side = REFERENCE_PX / scale
    boxes = np.column_stack([x, y, side, side])
    return boxes.astype(np.float32), first, stop


def _smooth(column: Doubles, median: int, sigma: float) -> Doubles:
    """Smooth one number per frame (F,) by both filters of `smooth_boxes`."""
    # Takes a tenth of a second, and most datasets need no smoothing.
    from scipy.ndimage import gaussian_filter1d, median_filter

    if 2 * len(column) <= median:
        median = len(column) - 1 + len(column) % 2  # odd
    # the same as scipy.signal.medfilt, but for any length
    robust = median_filter(column, size=median, mode="constant", cval=0.0)
    # its default mode mirrors: d c b a | a b c d
    smooth: Doubles = gaussian_filter1d(robust, sigma)
    return smooth


def corner_boxes_with_margin(joints: Doubles, margin: float) -> Doubles:
    """Boxes around joints, (N, J, 3) px px confidence, as upper left corner and size.

    Returns (N, 4): x, y, width, height in px, not square; infinite without a joint. margin: added
    to the joints' extent on every side, as a share of it. Non-finite joints count as unseen.
    """
    corners = corners_of(joints[..., :2], _visible_joints(joints, 0))
    low = corners[:, 0]
    extent = corners[:, 1] - low
    # an infinite extent stays as it is: 0 times infinity is NaN
    added = np.multiply(margin, extent, out=np.zeros_like(extent), where=np.isfinite(extent))
    corner = low - added
    size = (1 + 2 * margin) * extent
    return np.concatenate([corner, size], axis=1)
