"""Where points of a body are seen: in the crop, in the whole picture.  features -> windows -> [training, evaluation]"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating[Any]]
Float32s = NDArray[np.float32]

FOCAL_LENGTH_PX: Final = 5000.0  # of the perspective camera that a weak-perspective one becomes (HMR, SPIN)
CROP_PX: Final = 224


def project(joints: Tensor, camera: Tensor) -> Tensor:
    """Perspective projection by a weak-perspective camera, into crop coordinates.

    joints: (..., J, 3) m, in the body's own frame; camera: (..., 3) scale, tx, ty ->
    (..., J, 2), [-1, 1] over the crop.
    """
    scale, shift = camera[..., :1], camera[..., 1:]
    depth = 2 * FOCAL_LENGTH_PX / (CROP_PX * scale + 1e-9)  # (..., 1) m: where the focal length gives this scale
    points = joints + torch.cat((shift, depth), dim=-1).unsqueeze(-2)  # (..., J, 3)
    return FOCAL_LENGTH_PX * points[..., :2] / points[..., 2:] / (CROP_PX / 2)


def camera_in_picture(camera: Floats, bbox: Floats, picture: tuple[int, int], *, crop_scale: float) -> Float32s:
    """The weak-perspective camera of the whole picture, as overlays need it.

    camera: (F, 3) scale, tx, ty in the crop; bbox: (F, 4) cxcywh px; picture: width, height px; crop_scale: crop side /
    box side -> (F, 4) sx, sy, tx, ty: a point (x, y) m is seen at sx (x + tx), sy (y + ty), [-1, 1] over the picture.
    """
    size = np.asarray(picture, np.float64)  # (2,)
    scale = camera[:, :1].astype(np.float64) * bbox[:, 2:] * crop_scale / size  # (F, 2)
    centre = 2 * bbox[:, :2].astype(np.float64) / size - 1  # (F, 2) of the crop, in the picture
    shift = camera[:, 1:].astype(np.float64) + np.divide(centre, scale, out=np.zeros_like(centre), where=scale != 0)
    return np.concatenate([scale, shift], axis=1).astype(np.float32)


def in_picture(points: Floats, bbox: Floats, *, crop_scale: float) -> Float32s:
    """(F, J, 2) in [-1, 1] over the crop, boxes (F, 4) cxcywh px -> (F, J, 2) px of the picture."""
    half = 0.5 * crop_scale * bbox[:, None, 2:].astype(np.float64)
    pixels: Float32s = (bbox[:, None, :2] + half * points).astype(np.float32)
    return pixels
