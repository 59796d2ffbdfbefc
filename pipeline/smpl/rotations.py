"""Rotations between the world, a camera and a body's joints.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.skeletons import LARGEST

Doubles = NDArray[np.float64]


def is_rotation(matrices: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """(N, 3, 3) -> (N,): orthogonal to 1%, and no mirror. Those that are not finite, or huge, are none."""
    finite = np.where(np.abs(matrices) < LARGEST, matrices, 0.0)  # comparisons with NaN are false
    off = np.abs(finite @ finite.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    return np.asarray((off < 1e-2) & (np.linalg.det(finite) > 0))


def in_camera(pose: NDArray[np.floating[Any]], to_camera: NDArray[np.floating[Any]]) -> Doubles:
    """(N, 72) SMPL axis-angle in the world and (N, 3, 3) or (3, 3) world to camera -> (N, 72) in the camera, rad.

    Only the global orientation, SMPL's joint 0, is in the world's axes: the other joints turn against their parents.
    """
    turned = np.array(pose, np.float64)
    turned[:, :3] = (Rotation.from_matrix(to_camera) * Rotation.from_rotvec(turned[:, :3])).as_rotvec()
    return turned
