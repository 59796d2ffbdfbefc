"""Rotations of the world, cameras and body joints.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.skeletons import LARGEST, Bools, Doubles, Floats


def is_rotation(matrices: Floats) -> Bools:
    """(N, 3, 3) -> (N,): orthogonal to 1%, and no mirror. False for non-finite or huge matrices."""
    finite = np.where(np.abs(matrices) < LARGEST, matrices, 0.0)  # comparisons with NaN are false
    off = np.abs(finite @ finite.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    return np.asarray((off < 1e-2) & (np.linalg.det(finite) > 0))


def pose_in_camera(pose: Floats, to_camera: Floats) -> Doubles:
    """(N, 72) SMPL axis-angle in the world and (N, 3, 3) or (3, 3) world to camera -> (N, 72) in the camera, rad.

    Changes only the global orientation, SMPL's joint 0: the other joints are relative to their parents.
    """
    in_view = np.array(pose, np.float64)
    in_view[:, :3] = compose(to_camera, in_view[:, :3])
    return in_view


def compose(rotation: Floats, vectors: ArrayLike) -> Doubles:
    """`rotation` (..., 3, 3) after `vectors` (..., 3), axis-angle rad -> (..., 3) axis-angle rad."""
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    first = np.asarray(vectors, np.float64)
    shape = np.broadcast_shapes(first.shape[:-1], rotation.shape[:-2])
    then = Rotation.from_matrix(np.broadcast_to(rotation, (*shape, 3, 3)).reshape(-1, 3, 3))
    both = then * Rotation.from_rotvec(np.array(np.broadcast_to(first, (*shape, 3))).reshape(-1, 3))
    return np.asarray(both.as_rotvec().reshape(*shape, 3))


def slerp(start: Doubles, end: Doubles, part: Doubles) -> Doubles:
    """Two (..., 3) axis-angle rotations -> (..., 3) the one at `part` (...,), 0 to 1, of the shortest arc between them.

    Closed forms over whole arrays: several times as fast as SciPy's Rotation.
    """
    first, second = _quaternions(start), _quaternions(end)
    second = np.where(np.einsum("i...,i...->...", first, second) < 0, -second, second)
    apart, together = (np.sqrt(np.einsum("i...,i...->...", q, q)) for q in (second - first, second + first))
    arc = 2 * np.arctan2(apart, together)  # exact for small arcs, where an arc cosine is not
    scale = np.sinc(arc / np.pi)
    of_first, of_second = ((k * np.sinc(k * arc / np.pi) / scale) for k in (1 - part, part))
    quaternion = of_first * first + of_second * second  # Shoemake 1985
    quaternion = np.where(quaternion[0] < 0, -quaternion, quaternion)  # angles up to pi
    sine = np.sqrt(np.einsum("i...,i...->...", quaternion[1:], quaternion[1:]))
    half = np.arctan2(sine, quaternion[0])
    return np.moveaxis(quaternion[1:] * (2 / np.sinc(half / np.pi)), 0, -1)


def _quaternions(rotvec: Doubles) -> Doubles:
    """(..., 3) axis-angle rad -> (4, ...): real part first."""
    angle = np.sqrt(np.einsum("...i,...i->...", rotvec, rotvec))
    half_sine = np.sinc(angle / (2 * np.pi)) / 2  # sin(angle / 2) / angle, at 0 too
    return np.concatenate([np.cos(angle / 2)[None], np.moveaxis(rotvec, -1, 0) * half_sine])


def resample_rotations(rotvec: Doubles, position: Doubles) -> Doubles:
    """(N, J, 3) axis-angle rad at fractional positions (M,) -> (M, J, 3): the shortest arc between neighbours.

    Whole positions give the stored vector itself, whatever its angle.
    """
    before, part = np.floor(position).astype(np.int64), position % 1
    out = rotvec[before]
    between = part > 0
    if between.any():
        start = before[between]
        out[between] = slerp(rotvec[start], rotvec[start + 1], part[between, None])
    return out


def resample_linear(values: Doubles, position: Doubles) -> Doubles:
    """(N, C) at fractional positions (M,) -> (M, C)."""
    before = np.floor(position).astype(np.int64)
    after, part = np.minimum(before + 1, len(values) - 1), (position % 1)[:, None]
    return values[before] * (1 - part) + values[after] * part
