"""Cameras of the crop and the image.  features -> windows -> [training, evaluation]"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import require_option
from pipeline.people.skeletons import Float32s, Floats
from vibe_model.devices import constant

FOCAL_LENGTH_PX: Final = 5000.0  # of the perspective camera (HMR, SPIN)
CROP_PX: Final = 224
Method = Literal["least_squares", "trace"]  # for the optimal camera's scale
LIMITS: Final = (0.7, 10.0)  # of the optimal camera's scale
_FEWEST_POINTS: Final = 2
# sum of squares about the mean, (half a crop)^2; below it, points coincide
_LEAST_SPREAD: Final = 1e-8
_TRACE_RIDGE: Final = 1e-6


def project(joints: Tensor, camera: Tensor, crop_px: int = CROP_PX) -> Tensor:
    """Perspective projection by a weak-perspective camera.

    joints: (..., J, 3) m; camera: (..., 3) scale, tx, ty; crop_px: crop side for the focal length
    -> (..., J, 2), [-1, 1] over the crop.
    """
    scale = camera[..., :1]
    shift = camera[..., 1:]
    # (..., 1) m, at which the focal length gives this scale
    depth = 2 * FOCAL_LENGTH_PX / (crop_px * scale + 1e-9)
    trans = torch.cat((shift, depth), dim=-1)
    points = joints + trans.unsqueeze(-2)  # (..., J, 3)
    pixels = FOCAL_LENGTH_PX * points[..., :2] / points[..., 2:]
    return pixels / (crop_px / 2)


def project_orthographic(joints: Tensor, camera: Tensor) -> Tensor:
    """Orthographic projection by a weak-perspective camera: scale * (xy + t).

    joints: (..., J, 3) m; camera: (..., 3) scale, tx, ty -> (..., J, 2), [-1, 1] over the crop.
    """
    scale = camera[..., None, :1]
    shift = camera[..., None, 1:]
    return scale * (joints[..., :2] + shift)


def optimal_camera(
    points: Tensor,
    targets: Tensor,
    visible: Tensor,
    method: Method = "least_squares",
    limits: tuple[float, float] = LIMITS,
) -> Tensor:
    """The camera that fits 2D points x to their targets y best (Kanazawa et al., CVPR 2019)::

        scale = sum <x - mean x, y - mean y> / sum |x - mean x|^2,  t = mean y / scale - mean x

    Without gradients.

    points, targets: (..., J, 2), by the camera (1, 0, 0) and in the crop; visible: (..., J), points
    above 0 count -> (..., 3) scale, tx, ty. method: "least_squares", or the authors' "trace": half
    the trace of the best 2 x 2 map. limits: of the scale. Frames without one
    (`_has_optimal_camera`) get (1, 0, 0).
    """
    require_option("method", method, Method)
    with torch.no_grad():
        is_visible = (visible > 0)[..., None]  # (..., J, 1)
        source, source_mean = _centre(points, is_visible)
        goal, goal_mean = _centre(targets, is_visible)
        is_defined = _has_optimal_camera(points, visible)  # (...)
        if method == "least_squares":
            product = _sum_points(source * goal)
            spread = _sum_points(source.square())
            scale = product / torch.where(is_defined, spread, 1.0)
        else:
            scale = _half_trace(source, goal)
        scale = scale.clamp(*limits)[..., None]
        shift = goal_mean / scale - source_mean
        camera = torch.cat((scale, shift), dim=-1)
        unit_camera = constant((1.0, 0.0, 0.0), camera)
        return torch.where(is_defined[..., None], camera, unit_camera)


def apply_optimal_camera(
    points: Tensor,
    label: Tensor,
    method: Method = "least_squares",
    limits: tuple[float, float] = LIMITS,
) -> tuple[Tensor, Tensor]:
    """Project points (..., J, 2) by the `optimal_camera` for their labels (..., J, 3): x, y,
    visibility.

    Also returns the labels, with visibility 0 in frames for which there is no such camera.
    """
    target = label[..., :2]
    visible = label[..., 2]
    camera = optimal_camera(points, target, visible, method, limits)
    projected = project_orthographic(points, camera)
    compared = visible * _has_optimal_camera(points, visible)[..., None]
    return projected, torch.cat((target, compared[..., None]), dim=-1)


def _half_trace(source: Tensor, goal: Tensor) -> Tensor:
    """Half the trace of the best 2 x 2 map of (..., J, 2) centred points: (...).

    The map is the inverse of [[xx, xy], [xy, yy]] times [[to_xx, to_xy], [to_yx, to_yy]].
    """
    covariance = source.mT @ source  # (..., 2, 2)
    xx = covariance[..., 0, 0] + _TRACE_RIDGE
    xy = covariance[..., 0, 1]
    yy = covariance[..., 1, 1] + _TRACE_RIDGE
    determinant = xx * yy - xy.square()

    to_goal = source.mT @ goal  # (..., 2, 2)
    to_xx = to_goal[..., 0, 0]
    to_xy = to_goal[..., 0, 1]
    to_yx = to_goal[..., 1, 0]
    to_yy = to_goal[..., 1, 1]
    return (yy * to_xx - xy * to_yx - xy * to_xy + xx * to_yy) / determinant / 2


def _sum_points(values: Tensor) -> Tensor:
    """Sum over points and coordinates: (..., J, 2) -> (...)."""
    return values.sum((-2, -1))


def _has_optimal_camera(points: Tensor, visible: Tensor) -> Tensor:
    """Whether at least two different points are visible: (..., J, 2), (..., J) -> (...) bool."""
    is_visible = (visible > 0)[..., None]
    centred, _ = _centre(points.detach(), is_visible)
    has_points = _sum_points(is_visible) >= _FEWEST_POINTS
    has_spread = _sum_points(centred.square()) >= _LEAST_SPREAD
    return has_points & has_spread


def _centre(points: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Centre the known points (..., J, 2) at their mean; unknown ones become 0.

    Also returns the mean, (..., 2).
    """
    n_known = known.sum(-2).clamp(min=1)
    mean = torch.where(known, points, 0.0).sum(-2) / n_known
    centred = points - mean[..., None, :]
    return torch.where(known, centred, 0.0), mean


def camera_in_picture(
    camera: Floats, bbox: Floats, picture: tuple[int, int], *, crop_scale: float
) -> Float32s:
    """Convert the weak-perspective camera of a crop to one of the whole image.

    camera: (F, 3) scale, tx, ty in the crop; bbox: (F, 4) cxcywh px; picture: width, height px ->
    (F, 4) sx, sy, tx, ty, which project (x, y) m to (sx (x + tx), sy (y + ty)), [-1, 1] over the
    image.
    """
    size = np.asarray(picture, np.float64)  # (2,)
    camera = camera.astype(np.float64)
    bbox = bbox.astype(np.float64)
    scale = camera[:, :1] * bbox[:, 2:] * crop_scale / size  # (F, 2)
    centre = 2 * bbox[:, :2] / size - 1  # (F, 2) of the crop, in the image
    no_shift = np.zeros_like(centre)
    shift = camera[:, 1:] + np.divide(centre, scale, out=no_shift, where=scale != 0)
    return np.concatenate([scale, shift], axis=1).astype(np.float32)


def crop_to_image(points: Floats, bbox: Floats, *, crop_scale: float) -> Float32s:
    """Convert points (F, J, 2) from [-1, 1] over the crop to px of the image.

    bbox: (F, 4) cxcywh px.
    """
    centre = bbox[:, None, :2]
    half_side = 0.5 * crop_scale * bbox[:, None, 2:].astype(np.float64)
    pixels = centre + half_side * points
    return pixels.astype(np.float32)
