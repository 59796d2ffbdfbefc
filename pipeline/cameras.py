"""Cameras that stand or move in a world, and bodies seen by them.  raw -> [tracks] -> features -> windows

`extrinsics` are (..., 4, 4), world to camera, m, rows [R t; 0 0 0 1] with a rotation R: a point p of the world is
R p + t in the camera, whose x axis points right, y down and z into the picture. (`vibe_model.cameras` has the
weak-perspective cameras that models predict, which know no world.) All is computed in float64; leading shapes may
differ where they broadcast.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.rotations import is_rotation, turned
from pipeline.skeletons import LARGEST

Doubles = NDArray[np.float64]

CONVENTIONS: Final = ("gvhmr", "wham")  # of `angular_velocity`
_WHAM_FPS: Final = 30.0
_IDENTITY_6D: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_MIRROR: Final = np.array([-1.0, 1.0, 1.0, 1.0])


def to_camera(root: ArrayLike, trans: ArrayLike, extrinsics: ArrayLike, pelvis: ArrayLike) -> tuple[Doubles, Doubles]:
    """SMPL's global orientation and translation in the world -> the same in the camera.

    root: (..., 3) axis-angle, rad; trans: (..., 3) m, as SMPL adds it to its vertices; extrinsics: (..., 4, 4);
    pelvis: (..., 3) m, joint 0 of the body of these betas in its rest pose -> root, trans (..., 3) each.

    SMPL turns about its pelvis, which is not its origin, so that a camera's rotation moves it (Loper et al. 2015,
    equations 3 and 4; joint 0 of the posed body is pelvis + trans): R_c = R R_w, t_c = R (t_w + pelvis) + t - pelvis.
    """
    rotation, shift = _parts(extrinsics)
    rest = np.asarray(pelvis, np.float64)
    return turned(rotation, root), _applied(rotation, np.asarray(trans, np.float64) + rest) + shift - rest


def to_world(root: ArrayLike, trans: ArrayLike, extrinsics: ArrayLike, pelvis: ArrayLike) -> tuple[Doubles, Doubles]:
    """The inverse of `to_camera`: root and trans (..., 3) in the camera -> the same in the world, rad and m."""
    rotation, shift = _parts(extrinsics)
    back, rest = np.swapaxes(rotation, -1, -2), np.asarray(pelvis, np.float64)
    return turned(back, root), _applied(back, np.asarray(trans, np.float64) + rest - shift) - rest


def project(points: ArrayLike, intrinsics: ArrayLike) -> Doubles:
    """Pinhole projection: points (..., 3) m in the camera, intrinsics (..., 3, 3) px -> (..., 2) px.

    Points on the camera's plane or behind it are NaN. Intrinsics of frames need an axis for the joints of a frame:
    (F, J, 3) by (F, 1, 3, 3).
    """
    points = np.asarray(points, np.float64)
    depth = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
    seen = _applied(np.asarray(intrinsics, np.float64), points / depth)
    return seen[..., :2]


def angular_velocity(extrinsics: ArrayLike, convention: str = "gvhmr") -> Doubles:
    """Return how the camera turns: extrinsics (F, 4, 4) of successive rows -> (F, 6), two matrix rows end to end.

    "gvhmr": the first two rows of R[i + 1] R[i]^T, per frame. The last row repeats the one before it (Shen et al. 2024,
    hmr_global.py). "wham": the first two rows of R[i - 1] R[i]^T, minus the identity's, times 30: per second at 30 fps.
    The first row is 0 (Shin et al. 2024, lib/data/datasets/bedlam.py). Raises ValueError for another convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, found {convention!r}")
    rotation = _parts(extrinsics)[0]
    steps = rotation[1:] @ np.swapaxes(rotation[:-1], -1, -2)  # (F - 1, 3, 3)
    six = np.tile(_IDENTITY_6D, (len(rotation), 1))
    if convention == "wham":
        six[1:] = np.swapaxes(steps, -1, -2)[:, :2].reshape(-1, 6)
        return (six - _IDENTITY_6D) * _WHAM_FPS
    six[:-1] = steps[:, :2].reshape(-1, 6)
    six[-1:] = six[-2:-1] if len(steps) else six[-1:]
    return six


def mirrored(extrinsics: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The camera that sees the mirrored world as the mirrored picture: (..., 4, 4) -> (..., 4, 4) of equal dtype.

    Both the world's and the camera's x axis change sign, so that a rotation stays one: S E S, S = diag(-1, 1, 1, 1).
    """
    extrinsics = np.asarray(extrinsics)
    sign = _MIRROR.astype(extrinsics.dtype)
    return np.asarray(sign[:, None] * extrinsics * sign + 0)  # 0 for -0


def mirrored_axis(axes: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """A direction (..., 3) of the world in the mirrored one of `mirrored`, of equal dtype."""
    axes = np.asarray(axes)
    return np.asarray(axes * _MIRROR[:3].astype(axes.dtype) + 0)  # 0 for -0


def is_rigid(extrinsics: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """(N, 4, 4) -> (N,): finite, a rotation to 1%, no mirror, and a last row of 0 0 0 1."""
    finite = (np.abs(extrinsics) < LARGEST).all(axis=(1, 2))  # comparisons with NaN are false
    last = np.abs(np.where(finite[:, None], extrinsics[:, 3], 0) - (0, 0, 0, 1)).max(axis=1) < 1e-6
    return np.asarray(finite & last & is_rotation(extrinsics[:, :3, :3]))


def _parts(extrinsics: ArrayLike) -> tuple[Doubles, Doubles]:
    """(..., 4, 4) -> R (..., 3, 3), t (..., 3)."""
    matrices = np.asarray(extrinsics, np.float64)
    return matrices[..., :3, :3], matrices[..., :3, 3]


def _applied(matrices: Doubles, points: Doubles) -> Doubles:
    """(..., 3, 3), (..., 3) -> (..., 3)."""
    return np.asarray(np.einsum("...ij,...j->...i", matrices, points))
