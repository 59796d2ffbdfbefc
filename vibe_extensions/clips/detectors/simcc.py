"""Inputs and outputs of YOLOX, RTMDet and RTMPose, in NumPy.  [pixels -> keypoints] -> tracks

The person detector sees the whole image, scaled and padded to its input size. RTMPose sees each person's crop, and
returns for each joint a score for every half pixel of the crop's width and height (SimCC; Li et al., ECCV 2022). Sizes
are (width, height) px. As in OpenMMLab's training, (0, 0) is the image's corner for boxes and the first pixel's centre
for joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.files.pixels.frames import Image

Floats = NDArray[np.floating[Any]]

GREY: Final = 114  # of the padding
MEAN: Final = np.array([123.675, 116.28, 103.53], np.float32)  # of ImageNet's pixels: red, green, blue
STD: Final = np.array([58.395, 57.12, 57.375], np.float32)
STRIDES: Final = (8, 16, 32)  # px, of YOLOX's grids
CROP_SCALE: Final = 1.25  # of RTMPose's training: crop side / box side
BINS: Final = 2  # per px of the crop


def letterbox(image: Image, size: tuple[int, int]) -> tuple[Image, Floats]:
    """Scale an image (H, W, 3) to fit `size`, and pad it on the right and below; also return the (x, y) scale, (2,)."""
    height, width = image.shape[:2]
    ratio = min(size[0] / width, size[1] / height)
    scaled = max(1, int(width * ratio + 0.5)), max(1, int(height * ratio + 0.5))
    padded = np.full((size[1], size[0], 3), GREY, np.uint8)
    padded[: scaled[1], : scaled[0]] = cv2.resize(image, scaled, interpolation=cv2.INTER_LINEAR)
    return padded, np.array(scaled) / (width, height)


def detector_input(padded: Image, *, normalised: bool) -> NDArray[np.float32]:
    """(H, W, 3) RGB -> (1, 3, H, W) blue, green, red: 0 to 255 for YOLOX, normalised for RTMDet."""
    pixels = padded[..., ::-1].astype(np.float32)
    if normalised:
        pixels = (pixels - MEAN[::-1]) / STD[::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def persons(outputs: Sequence[NDArray[Any]], size: tuple[int, int]) -> tuple[Floats, Floats] | None:
    """Persons (class 0): corners (N, 4) in px of the padded image, and scores (N,). None for an unknown output format.

    Formats: boxes with scores (1, N, 5) and labels (1, N), as exported by OpenMMLab; or YOLOX's own rows
    (1, R, 5 + classes): centre and log size in grid cells, objectness score, class scores.
    """
    shapes = [output.shape for output in outputs]
    match shapes:
        case [(1, rows, 5), (1, labels)] if rows == labels:
            is_person = outputs[1][0] == 0
            return outputs[0][0, is_person, :4], outputs[0][0, is_person, 4]
        case [(1, rows, columns)] if columns > 5 and rows == len(cells := _cells(size)):
            (table,) = outputs[0]
            centres = (table[:, :2] + cells[:, :2]) * cells[:, 2:]
            halves = np.exp(np.minimum(table[:, 2:4], 20)) * cells[:, 2:] / 2
            scores = np.where(table[:, 5:].argmax(axis=1) == 0, table[:, 4] * table[:, 5], 0)
            return np.hstack([centres - halves, centres + halves]), scores
    return None


def _cells(size: tuple[int, int]) -> NDArray[np.float32]:
    """(R, 3) column, row and stride of each cell of YOLOX's grids."""
    grids = []
    for stride in STRIDES:
        rows, columns = np.indices((size[1] // stride, size[0] // stride)).reshape(2, -1)
        grids.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=1))
    return np.concatenate(grids).astype(np.float32)


def forms(size: tuple[int, int]) -> str:
    """The formats that `persons` supports, for a message."""
    return f"boxes (1, N, 5) and labels (1, N), or YOLOX's (1, {len(_cells(size))}, 6 or more)"


def suppress_overlaps(boxes: Floats, scores: Floats, *, min_score: float, max_overlap: float) -> NDArray[np.int64]:
    """Indices of the persons to keep, best first (greedy non-maximum suppression by intersection over union)."""
    sure = np.nonzero(scores >= min_score)[0]
    sides = np.hstack([boxes[sure, :2], boxes[sure, 2:] - boxes[sure, :2]]).astype(float)
    best = cv2.dnn.NMSBoxes(sides.tolist(), scores[sure].astype(float).tolist(), 0.0, max_overlap)
    return sure[np.array(best, np.int64).reshape(-1)]


def crop_affines(boxes: Floats, size: tuple[int, int]) -> NDArray[np.float64]:
    """Transforms (P, 2, 3) from image px to px of a crop of `size` around each box, (P, 4) corners."""
    corners = boxes.astype(np.float64)
    sides = (corners[:, 2:] - corners[:, :2]) * CROP_SCALE
    scale = np.minimum(size[0] / sides[:, 0], size[1] / sides[:, 1])
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, :, 2] = np.array(size) / 2 - scale[:, None] * (corners[:, :2] + corners[:, 2:]) / 2
    return affines


def pose_input(image: Image, affines: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """(P, 3, height, width) normalised RGB crops, black outside the image."""
    crops = np.stack([cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR) for affine in affines])
    return np.ascontiguousarray(((crops - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def joints(across: Floats, down: Floats, affines: Floats) -> NDArray[np.float32]:
    """Scores (P, J, 2 width) and (P, J, 2 height) of P crops -> (P, J, 3) image px and confidence 0..1.

    A joint is at its highest scores; its confidence is the lower of the two maxima.
    """
    crop_px = np.stack([across.argmax(axis=-1), down.argmax(axis=-1)], axis=-1) / BINS
    points = (crop_px - affines[:, None, :, 2]) / affines[:, None, None, 0, 0]
    confidence = np.clip(np.minimum(across.max(axis=-1), down.max(axis=-1)), 0, 1)
    return np.concatenate([points, confidence[..., None]], axis=-1).astype(np.float32)
