"""Cut out crops of one person, and convert keypoints to them.  raw -> tracks -> [crops] -> features
-> windows

`crop_person` cuts pixels, and `normalise_keypoints` converts keypoints; both use the same affine
map (`crop_affine`). A crop is `size` px wide and high, and shows the box times `scale`. The centre
of the pixel in row i and column j is at x = j, y = i.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from pipeline.files.pixels.frames import Image
from pipeline.skeletons import Doubles, Floats
from pipeline.track import CROP_SCALE

CROP_SIZE: Final = 224  # px, the side of a crop
# a crop this wide shows an image as less than a pixel; OpenCV's integers end at 2^21
LARGEST_PX: Final = 2.0**20


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

    A coordinate x of the crop becomes 2 x / size - 1. Confidence is unchanged.
    """
    matrix = crop_affine(bbox, scale, size)
    zoom = np.diagonal(matrix[..., :2], axis1=-2, axis2=-1)
    shift = matrix[..., 2]
    in_image = np.asarray(kp_2d[..., :2], np.float64)
    in_crop = in_image * zoom[..., None, :] + shift[..., None, :]
    normalised = np.array(kp_2d)
    normalised[..., :2] = 2 * in_crop / size - 1
    return normalised
