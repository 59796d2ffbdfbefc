"""Person boxes from keypoints, and the crops that boxes cut.  raw -> [tracks -> crops] -> features

A box is (cx, cy, w, h) in pixels of the full image: centre and size. Boxes are square, and do not
include the margin of a crop. Only the boxes of `corner_boxes_with_margin` differ.

`crop_person` cuts pixels, and `normalise_keypoints` converts keypoints; both use the same affine
map (`crop_affine`). A crop is `size` px wide and high, and shows the box times `scale`. The centre
of the pixel in row i and column j is at x = j, y = i.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.errors import ConfigError
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Bools, Doubles, Float32s, Floats, Ints, corners_of
from pipeline.people.track import CROP_SCALE

MIN_SIDE_PX: Final = 1.0  # a tight box smaller than this is degenerate
MIN_DIAGONAL_PX: Final = 0.5  # an extent smaller than this is no detection
REFERENCE_PX: Final = 150.0  # a person whose extent has this diagonal has scale 1
CROP_SIZE: Final = 224  # px, the side of a crop
# a crop this wide shows an image as less than a pixel; OpenCV's integers end at 2^21
LARGEST_PX: Final = 2.0**20


def require_opencv() -> None:
    """Raise ConfigError for OpenCV before 5, which cuts crops at 32nds of a pixel: rows of both
    must not be in one stream.
    """
    import cv2

    if int(cv2.__version__.partition(".")[0]) < 5:
        raise ConfigError(
            f"OpenCV {cv2.__version__} cuts other crops than OpenCV 5, whose rows must not be "
            "mixed with its own. Install OpenCV 5: pip install 'opencv-python>=5'"
        )


def extents(kp_2d: Floats, threshold: float = 0.0) -> tuple[Doubles, Bools]:
    """Corners (N, 2, 2) of the joints with confidence above `threshold`, and (N,) whether there is
    any such joint.

    kp_2d is (N, J, 3) px px confidence. Rows without a joint have corners at 0. Non-finite joints
    count as unseen.
    """
    points = np.asarray(kp_2d, np.float64)
    is_finite = np.isfinite(points).all(axis=-1)
    is_seen = is_finite & (points[..., 2] > threshold)
    any_seen: Bools = np.any(is_seen, axis=1)
    corners = corners_of(points[..., :2], is_seen)
    corners[~any_seen] = 0
    return corners, any_seen


def largest_shares(corners: Floats, frame: Ints) -> Doubles:
    """Largest share (n,) of each box (n, 2, 2) that another one of its frame (n,) covers."""
    # in each frame from left to right, so that a box meets some of those right after it
    order = np.lexsort((corners[:, 0, 0], frame))
    frame = frame[order]
    corners = corners[order]
    largest = np.zeros(len(order))
    rows = np.arange(len(order))
    for step in range(1, len(order)):
        rows = rows[rows < len(order) - step]
        others = rows + step
        begins_in_it = corners[others, 0, 0] < corners[rows, 1, 0]
        meets = begins_in_it & (frame[rows] == frame[others])
        rows = rows[meets]
        others = others[meets]
        if not len(rows):
            break
        for these, those in ((rows, others), (others, rows)):
            largest[these] = np.fmax(
                largest[these], _covered_shares(corners[these], corners[those])
            )
    return largest[np.argsort(order)]


def _covered_shares(boxes: Floats, others: Floats) -> Doubles:
    """Share of each box's area inside its other box, (n,). Both are (n, 2, 2) corners."""
    low = np.maximum(boxes[:, 0], others[:, 0])
    high = np.minimum(boxes[:, 1], others[:, 1])
    common = np.maximum(high - low, 0).prod(axis=-1)
    sides = np.diff(boxes, axis=1)[:, 0]
    area = sides.prod(axis=-1)
    return np.asarray(common / np.maximum(area, 1))


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
    corners, any_seen = extents(joints)
    low = corners[:, 0]
    extent = corners[:, 1] - low
    boxes = np.concatenate([low - margin * extent, (1 + 2 * margin) * extent], axis=1)
    boxes[~any_seen] = (np.inf, np.inf, -np.inf, -np.inf)
    return boxes


def crop_affine(bbox: Floats, scale: float, size: int = CROP_SIZE) -> Doubles:
    """Affine map from image pixels to crop pixels: boxes (..., 4) cxcywh px -> (..., 2, 3).

    The centre of the box, scaled by `scale`, goes to (size / 2, size / 2), and its width and height
    become `size`. Raises ValueError for a box that is not finite or has no area.
    """
    box = np.asarray(bbox, np.float64)
    if not (np.isfinite(box).all() and (box[..., 2:] > 0).all() and 0 < scale < np.inf):
        raise ValueError(
            f"no crop has box {box.tolist()} and scale {scale}: centre, size and scale must be "
            "finite, size > 0"
        )
    centre = box[..., :2]
    zoom = size / (box[..., 2:] * scale)  # crop px per image px
    matrix = np.zeros((*box.shape[:-1], 2, 3))
    matrix[..., 0, 0] = zoom[..., 0]
    matrix[..., 1, 1] = zoom[..., 1]
    matrix[..., 2] = size / 2 - zoom * centre
    return matrix


def crop_person(
    image: Image,
    bbox: Floats,
    scale: float = CROP_SCALE,
    size: int = CROP_SIZE,
    *,
    mirrored: bool = False,
) -> Image:
    """Cut a crop (size, size, 3) out of an image (H, W, 3), both uint8 RGB; bbox is (4,) cxcywh px.

    Pixels are interpolated linearly, and black outside the image. `mirrored` flips the crop, so a
    keypoint's normalised x changes sign. However large the box is, only memory for the crop is
    needed. Raises ValueError for an image of another shape or type, and for a box that
    `crop_affine` refuses.
    """
    import cv2

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"expected an (H, W, 3) uint8 RGB image, found {image.shape} {image.dtype}"
        )
    matrix = crop_affine(bbox, scale, size)
    box = np.asarray(bbox, np.float64)
    half = box[2:] * scale / 2
    low = box[:2] - half
    high = box[:2] + half
    height, width = image.shape[:2]
    is_outside = (high < -1).any() or (low > (width, height)).any()
    if is_outside or 2 * half.max() > LARGEST_PX:
        return np.zeros((size, size, 3), np.uint8)
    if mirrored:  # x becomes size - x
        matrix[0] *= -1
        matrix[0, 2] += size
    crop = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


def normalise_keypoints(
    kp_2d: Floats, bbox: Floats, scale: float = CROP_SCALE, size: int = CROP_SIZE
) -> Floats:
    """Convert keypoints (..., J, 3) from image px to [-1, 1] across the crops of boxes (..., 4).

    A coordinate x of the crop becomes 2 x / size - 1. Confidence is unchanged. The result is of
    floats: of the dtype of `kp_2d` if that is float32 or float64.
    """
    matrix = crop_affine(bbox, scale, size)
    zoom = np.diagonal(matrix[..., :2], axis1=-2, axis2=-1)
    shift = matrix[..., 2]
    in_image = np.asarray(kp_2d[..., :2], np.float64)
    in_crop = in_image * zoom[..., None, :] + shift[..., None, :]
    normalised = np.array(kp_2d, np.result_type(kp_2d, np.float32))
    normalised[..., :2] = 2 * in_crop / size - 1
    return normalised
