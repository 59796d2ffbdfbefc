"""Labels as training takes them, from the columns as they are stored.  tracks -> features -> [windows] -> training

What is not known is 0 with weight 0, never NaN: a NaN times weight 0 is NaN still.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]
Raw = Callable[
    [str], Array | None
]  # column name -> (B, T, *trailing) as stored, None when the split has no such column

N_JOINTS: Final = 49
COMMON_JOINTS: Final = slice(25, 39)  # the 14 joints that 3D losses and metrics compare
N_EVAL_JOINTS: Final = 14
N_THETA: Final = 85  # camera 3, pose 72, betas 10
FIELDS: Final = ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "valid")


def field_shape(name: str, *, evaluation: bool) -> tuple[int, ...]:
    """What follows (B, T) in a field; `evaluation`: the split has kp_3d_eval."""
    n_3d = N_EVAL_JOINTS if evaluation else N_JOINTS
    return {"kp_2d": (N_JOINTS, 3), "kp_3d": (n_3d, 3), "theta": (N_THETA,)}.get(name, ())


def field(name: str, raw: Raw, shape: tuple[int, int], crop_scale: NDArray[np.float64]) -> Floats:
    """One field (B, T, ...) float32 of B windows of T frames.

    Args:
        name: one of FIELDS.
        raw: gives the columns.
        shape: (B, T).
        crop_scale: (B,) of each window's track.
    """
    if name == "kp_2d":
        kp_2d, bbox = raw("kp_2d"), raw("bbox")
        if kp_2d is None or bbox is None:
            return np.zeros((*shape, N_JOINTS, 3), np.float32)
        return in_crop(kp_2d, bbox, crop_scale)
    if name == "kp_3d":
        return _joints_3d(raw, shape)
    if name == "theta":
        return _theta(raw, shape)
    if name == "w_3d":
        return _known_3d(raw, shape).astype(np.float32)
    if name == "w_smpl":
        return _known_smpl(raw, shape).astype(np.float32)
    valid = raw("valid")
    return np.ones(shape, np.float32) if valid is None else (valid != 0).astype(np.float32)


def in_crop(kp_2d: Array, bbox: Array, crop_scale: Array) -> Floats:
    """(B, T, J, 3) px -> x and y in [-1, 1] across the crop, confidence kept; (0, 0, 0) where there is no keypoint.

    The crop is the box about its centre, `crop_scale` (B,) times as wide: 2 (x - c) / (side * crop_scale).
    """
    centre, side = bbox[..., None, :2], bbox[..., None, 2:] * crop_scale.astype(np.float32)[:, None, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        place = 2 * (kp_2d[..., :2] - centre) / side
        there = (kp_2d[..., 2] > 0) & np.isfinite(place).all(axis=-1)
    out = np.concatenate([place, kp_2d[..., 2:]], axis=-1)
    return np.where(there[..., None], out, 0).astype(np.float32)


def _flag(raw: Raw, name: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    flag = raw(name)
    return np.zeros(shape, bool) if flag is None else flag == 1


def _joints_3d(raw: Raw, shape: tuple[int, int]) -> Floats:
    evaluation, kp_3d = raw("kp_3d_eval"), raw("kp_3d")
    if evaluation is not None:
        return np.where(np.isfinite(evaluation), evaluation, 0).astype(np.float32)
    if kp_3d is None:
        return np.zeros((*shape, N_JOINTS, 3), np.float32)
    known = (kp_3d[..., 3] > 0) & _flag(raw, "has_3d", shape)[..., None]
    return np.where(known[..., None], kp_3d[..., :3], 0).astype(np.float32)


def _known_3d(raw: Raw, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where all 14 joints that a 3D loss compares are there."""
    evaluation, kp_3d, flag = raw("kp_3d_eval"), raw("kp_3d"), raw("has_3d")
    if evaluation is not None:
        complete: NDArray[np.bool_] = np.all(np.isfinite(evaluation), axis=(-2, -1))
        return complete if flag is None else complete & (flag != 0)
    if kp_3d is None:
        return np.zeros(shape, bool)
    common: NDArray[np.bool_] = np.all(kp_3d[..., COMMON_JOINTS, 3] > 0, axis=-1)
    return common & _flag(raw, "has_3d", shape)


def _known_smpl(raw: Raw, shape: tuple[int, int]) -> NDArray[np.bool_]:
    pose, betas = raw("pose"), raw("betas")
    if pose is None or betas is None:
        return np.zeros(shape, bool)
    known: NDArray[np.bool_] = np.all(np.isfinite(pose), axis=-1) & np.all(np.isfinite(betas), axis=-1)
    return known & _flag(raw, "has_smpl", shape)


def _theta(raw: Raw, shape: tuple[int, int]) -> Floats:
    """(1, 0, 0) as camera, then pose and betas where both are known."""
    theta = np.zeros((*shape, N_THETA), np.float32)
    theta[..., 0] = 1
    pose, betas = raw("pose"), raw("betas")
    if pose is not None and betas is not None:
        known = _known_smpl(raw, shape)[..., None]
        theta[..., 3:75] = np.where(known, pose, 0)
        theta[..., 75:] = np.where(known, betas, 0)
    return theta
