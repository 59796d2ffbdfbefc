"""Poses that are comparable: moved, turned and scaled.  features -> windows -> [evaluation]"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.people.skeletons import KEYPOINTS_13, Bools, Doubles, Floats

_HIPS_13: Final = [KEYPOINTS_13.index(name) for name in ("lhip", "rhip")]
_SHOULDERS_13: Final = [KEYPOINTS_13.index(name) for name in ("lshoulder", "rshoulder")]


def normalise_13(pose: Floats) -> Doubles:
    """Normalise poses (..., 13, 3): centre them at the middle of the hips, in torso sizes.

    The torso size is the distance of the middles of hips and shoulders. A pose of size 0 is only
    centred.
    """
    pose = pose.astype(np.float64)
    shoulders = _middle(pose[..., _SHOULDERS_13, :])
    hips = _middle(pose[..., _HIPS_13, :])
    torso = shoulders - hips
    size = np.linalg.norm(torso, axis=-1, keepdims=True)
    unit = np.where(size > 0, size, 1.0)
    normalised: Doubles = (pose - hips) / unit
    return normalised


def procrustes_align(pred: Floats, target: Floats) -> Doubles:
    """Align `pred` to `target` by a similarity transform, in least squares (Umeyama, PAMI 1991).

    pred, target: (..., J, 3) -> (..., J, 3). Reflections are not allowed. A single point lands on
    the target's mean.
    """
    pred = pred.astype(np.float64)
    target = target.astype(np.float64)
    target_mean = _middle(target)
    source = pred - _middle(pred)
    goal = target - target_mean

    covariance = _transpose(goal) @ source  # (..., 3, 3) eq. 38, a sum instead of a mean
    u, singular, vt = np.linalg.svd(covariance)
    is_reflection = np.linalg.det(u @ vt) < 0
    sign = np.ones_like(singular)  # the diagonal of S, eq. 43
    sign[..., -1] = np.where(is_reflection, -1.0, 1.0)
    signed = u * sign[..., None, :]
    rotation = signed @ vt  # eq. 40

    spread = np.square(source).sum((-2, -1))
    trace = (singular * sign).sum(-1)
    no_scale = np.zeros_like(spread)
    scale = np.divide(trace, spread, out=no_scale, where=spread > 0)  # eq. 42
    scaled = scale[..., None, None] * source
    turned = scaled @ _transpose(rotation)
    aligned: Doubles = turned + target_mean
    return aligned


def aligned_distances(pred: Floats, target: Floats, labelled: Bools) -> Doubles:
    """Distances of labelled points after the best 2D scale and translation, (N, J); others: 0.

    pred, target: (N, J, 2); labelled: (N, J).
    """
    source = _centre_labelled(pred, labelled)
    goal = _centre_labelled(target, labelled)
    # The pseudoinverse gives a single point the scale 0: it lands on the target's mean.
    transposed = _transpose(source)
    spread = transposed @ source
    inverse = np.linalg.pinv(spread, rcond=1e-10, hermitian=True)  # (N, 2, 2)
    best_map = inverse @ transposed @ goal  # (N, 2, 2), in least squares
    scale = np.trace(best_map, axis1=-2, axis2=-1) / 2
    aligned = scale[:, None, None] * source
    distances: Doubles = np.linalg.norm(aligned - goal, axis=-1)
    return distances


def _centre_labelled(points: Floats, labelled: Bools) -> Doubles:
    """Points (N, J, 2) about the mean of each frame's labelled points; others are 0."""
    is_labelled = labelled[..., None]
    points = np.where(is_labelled, points.astype(np.float64), 0)
    count = np.maximum(is_labelled.sum(-2), 1)  # (N, 1)
    total = points.sum(-2)
    mean = total / count  # (N, 2)
    return np.where(is_labelled, points - mean[:, None], 0)


def _middle(points: Floats) -> Doubles:
    """The mean (..., 1, C) of points (..., J, C)."""
    middle: Doubles = points.mean(-2, dtype=np.float64, keepdims=True)
    return middle


def _transpose(matrices: Doubles) -> Doubles:
    return np.swapaxes(matrices, -1, -2)
