"""Cameras in a world, bodies in their view, and rotations.  raw -> [tracks] -> features -> windows

Readers of datasets, streams and exports convert poses and positions between world and camera with
it (`to_camera`, `to_world`, `pose_in_camera`, `project`), mirror and check cameras (`mirrored`,
`is_rigid`), and change the frame rate of motions (`frame_positions`, `resample_rotations`,
`resample_linear`).

`extrinsics` are (..., 4, 4), world to camera, m, rows [R t; 0 0 0 1] with a rotation R: a world
point p is R p + t in the camera, whose axes point right (x), down (y) and into the image (z).
Computed in float64; leading shapes broadcast. `vibe_model.cameras` has the weak-perspective cameras
that models predict.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from pipeline.people.skeletons import Array, Bools, Doubles, Floats, are_usable_numbers

CONVENTIONS: Final = ("gvhmr", "wham")  # ways to write a camera's rotation (`angular_velocity`)
_WHAM_FPS: Final = 30.0
FEWEST: Final = 4  # visible joints needed to estimate a weak perspective camera
_IDENTITY_6D: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the first two rows of a matrix
_MIRROR: Final = np.array([-1.0, 1.0, 1.0, 1.0])  # the diagonal of S, which flips x
_LAST_ROW: Final = (0, 0, 0, 1)  # of extrinsics
_MOST_ERROR: Final = 1e-2  # of a rotation R, in R R^T
_TOLERANCE: Final = 1e-9  # frames: rounding must not cut off the last one


def to_camera(
    root: ArrayLike, trans: ArrayLike, extrinsics: ArrayLike, pelvis: ArrayLike
) -> tuple[Doubles, Doubles]:
    """Convert SMPL's global orientation and translation from the world to the camera.

    root: (..., 3) axis-angle, rad; trans: (..., 3) m, as SMPL adds it to its vertices; extrinsics:
    (..., 4, 4); pelvis: (..., 3) m, joint 0 of the body of these betas in its rest pose -> root,
    trans (..., 3) each.

    SMPL turns about its pelvis, which is not its origin (Loper et al. 2015, equations 3 and 4;
    joint 0 of the posed body is pelvis + trans): R_c = R R_w, t_c = R (t_w + pelvis) + t - pelvis.
    """
    rotation, shift = _parts(extrinsics)
    rest_pelvis = np.asarray(pelvis, np.float64)
    pelvis_in_world = np.asarray(trans, np.float64) + rest_pelvis
    pelvis_in_camera = _apply(rotation, pelvis_in_world) + shift
    return compose(rotation, root), pelvis_in_camera - rest_pelvis


def to_world(
    root: ArrayLike, trans: ArrayLike, extrinsics: ArrayLike, pelvis: ArrayLike
) -> tuple[Doubles, Doubles]:
    """The inverse of `to_camera`: root (rad) and trans (m), (..., 3), from the camera to the world.

    extrinsics and pelvis: as in `to_camera`.
    """
    rotation, shift = _parts(extrinsics)
    inverse = np.swapaxes(rotation, -1, -2)
    rest_pelvis = np.asarray(pelvis, np.float64)
    pelvis_in_camera = np.asarray(trans, np.float64) + rest_pelvis
    pelvis_in_world = _apply(inverse, pelvis_in_camera - shift)
    return compose(inverse, root), pelvis_in_world - rest_pelvis


def project(points: ArrayLike, intrinsics: ArrayLike) -> Doubles:
    """Pinhole projection: points (..., 3) m in the camera, intrinsics (..., 3, 3) px -> (..., 2)
    px.

    Points at or behind the camera's plane are NaN. Intrinsics per frame need an axis for the
    joints: (F, J, 3) by (F, 1, 3, 3).
    """
    points = np.asarray(points, np.float64)
    z = points[..., 2:]
    depth = np.where(z > 0, z, np.nan)
    matrices = np.asarray(intrinsics, np.float64)
    pixels = _apply(matrices, points / depth)
    return pixels[..., :2]


def fit_weak_perspective(points: Floats, pixels: Floats, weights: Array) -> Doubles:
    """Weak perspective cameras (N, 3), scale px per m and shift px, that bring points (N, J, 2) m
    closest to pixels (N, J, 2), by weighted least squares: pixels = scale * points + shift.

    weights: (N, J), 0 of invisible joints. With points x and pixels y, both from their weighted
    centres, the scale is sum(x y) / sum(x x), and the shift maps centre to centre. NaN for rows
    with fewer than FEWEST visible joints, or without a positive scale.
    """
    n_seen = (weights > 0).sum(axis=1)
    weights = weights[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = weights / weights.sum(axis=1, keepdims=True)
        middle = (weights * points).sum(axis=1, keepdims=True)
        centre = (weights * pixels).sum(axis=1, keepdims=True)
        spread = points - middle
        covariance = (weights * spread * (pixels - centre)).sum((1, 2))
        variance = (weights * spread**2).sum((1, 2))
        scale = covariance / variance
        shift = centre[:, 0] - scale[:, None] * middle[:, 0]
    cameras = np.column_stack([scale, shift])
    has_camera = (n_seen >= FEWEST) & (scale > 0)
    cameras[~has_camera] = np.nan
    return cameras


def angular_velocity(extrinsics: ArrayLike, convention: str = "gvhmr") -> Doubles:
    """Rotation of the camera from row to row: extrinsics (F, 4, 4) -> (F, 6), two matrix rows.

    "gvhmr": the first two rows of R[i + 1] R[i]^T, per frame. The last row repeats the one before
    it (Shen et al. 2024, hmr_global.py). "wham": the first two rows of R[i - 1] R[i]^T, minus the
    identity's, times 30: per second at 30 fps. The first row is 0 (Shin et al. 2024,
    lib/data/datasets/bedlam.py). Raises ValueError for another convention.
    """
    if convention not in CONVENTIONS:
        expected = ", ".join(CONVENTIONS)
        raise ValueError(f"convention: expected one of {expected}, found {convention!r}")
    rotation, _ = _parts(extrinsics)
    inverse = np.swapaxes(rotation, -1, -2)
    steps = rotation[1:] @ inverse[:-1]  # (F - 1, 3, 3): R[i + 1] R[i]^T
    turns = np.tile(_IDENTITY_6D, (len(rotation), 1))
    if convention == "wham":
        backwards = np.swapaxes(steps, -1, -2)  # R[i] R[i + 1]^T
        two_rows = backwards[:, :2]
        turns[1:] = two_rows.reshape(-1, 6)
        difference = turns - _IDENTITY_6D
        return difference * _WHAM_FPS

    two_rows = steps[:, :2]
    turns[:-1] = two_rows.reshape(-1, 6)
    if len(steps):
        turns[-1] = turns[-2]
    return turns


def mirrored(extrinsics: Floats) -> Floats:
    """Mirror extrinsics (..., 4, 4), as a left-right flip of the images needs it. Keeps the dtype.

    The new camera sees the mirrored world as the mirrored image. The x axes of both world and
    camera change sign, so a rotation stays a rotation: S E S with S = diag(-1, 1, 1, 1).
    """
    sign = _MIRROR.astype(extrinsics.dtype)
    flipped = sign[:, None] * extrinsics * sign
    return np.asarray(flipped + 0)  # 0 for -0


def mirrored_axis(axes: Floats) -> Floats:
    """Mirror directions (..., 3) as `mirrored` mirrors the world. Keeps the dtype."""
    sign = _MIRROR[:3].astype(axes.dtype)
    return np.asarray(axes * sign + 0)  # 0 for -0


def rigid(rotation: Doubles, shift: Doubles) -> Doubles:
    """Rotations (..., 3, 3) and shifts (..., 3) -> matrices (..., 4, 4)."""
    matrices = np.zeros((*shift.shape[:-1], 4, 4))
    matrices[..., :3, :3] = rotation
    matrices[..., :3, 3] = shift
    matrices[..., 3, :] = _LAST_ROW
    return matrices


def is_rigid(extrinsics: Floats) -> Bools:
    """Whether each of N matrices (N, 4, 4) is a rotation (to 1%) and a shift, (N,).

    False for mirrors, non-finite numbers, and another last row than 0 0 0 1.
    """
    is_small = are_usable_numbers(extrinsics)
    is_finite = np.asarray(is_small.all(axis=(1, 2)))
    last_row = np.where(is_finite[:, None], extrinsics[:, 3], 0)
    difference = np.abs(last_row - _LAST_ROW)
    error = difference.max(axis=1)
    is_homogeneous = is_finite & (error < 1e-6)
    has_rotation = is_rotation(extrinsics[:, :3, :3])
    return np.asarray(is_homogeneous & has_rotation)


def is_rotation(matrices: Floats) -> Bools:
    """Whether each of N matrices (N, 3, 3) is a rotation (orthogonal to 1%, and no mirror), (N,).

    False for non-finite and huge matrices.
    """
    is_small = are_usable_numbers(matrices)
    is_finite = is_small.all(axis=(1, 2))
    finite = np.where(is_small, matrices, 0.0)
    product = finite @ finite.transpose(0, 2, 1)
    difference = np.abs(product - np.eye(3))
    error = difference.max(axis=(1, 2))
    is_orthogonal = error < _MOST_ERROR
    is_proper = np.linalg.det(finite) > 0  # no mirror
    return np.asarray(is_finite & is_orthogonal & is_proper)


def pose_in_camera(pose: Floats, to_camera: Floats) -> Doubles:
    """Convert SMPL poses (N, 72), axis-angle in rad, from the world to the camera.

    to_camera: rotation from world to camera, (N, 3, 3) or (3, 3). Only the global orientation,
    SMPL's joint 0, changes: the other joints are relative to their parents.
    """
    in_view = np.array(pose, np.float64)
    in_view[:, :3] = compose(to_camera, in_view[:, :3])
    return in_view


def compose(rotation: Floats, vectors: ArrayLike) -> Doubles:
    """Compose rotations: first `vectors` (..., 3), then `rotation` (..., 3, 3).

    `vectors` and the result (..., 3) are axis-angle in rad.
    """
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    vectors = np.asarray(vectors, np.float64)
    shape = np.broadcast_shapes(vectors.shape[:-1], rotation.shape[:-2])
    all_vectors = np.broadcast_to(vectors, (*shape, 3))
    all_matrices = np.broadcast_to(rotation, (*shape, 3, 3))

    first = Rotation.from_rotvec(np.array(all_vectors.reshape(-1, 3)))
    second = Rotation.from_matrix(all_matrices.reshape(-1, 3, 3))
    composed = second * first
    rotvec = composed.as_rotvec()
    return np.asarray(rotvec.reshape(*shape, 3))


def frame_positions(n_rows: int, rate: float, fps: float) -> Doubles:
    """Positions (M,) of the frames at `fps` among N rows at `rate`, both per second, from the first
    row to the last one. Fractions are between two rows.

    >>> frame_positions(5, 50.0, 30.0).round(2).tolist()
    [0.0, 1.67, 3.33]
    """
    n_intervals = (n_rows - 1) * fps / rate
    last = np.floor(n_intervals + _TOLERANCE)
    return np.arange(last + 1) * rate / fps


def resample_rotations(rotvec: Doubles, position: Doubles) -> Doubles:
    """Sample finite rotations (N, J, 3), axis-angle in rad, at fractional rows `position` (M,).

    Returns (M, J, 3), interpolated on the shortest arc between neighbouring rows. A whole position
    gives the stored vector itself, whatever its angle. A position may be after the last row by
    rounding.
    """
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(rotvec) - 1)
    part = position % 1
    resampled = rotvec[before]
    is_between = part > 0
    if is_between.any():
        from scipy.spatial.transform import Rotation  # takes 0.4 s

        start = rotvec[before[is_between]]
        end = rotvec[after[is_between]]
        first = Rotation.from_rotvec(start.reshape(-1, 3))
        second = Rotation.from_rotvec(end.reshape(-1, 3))
        turn = first.inv() * second
        arc = turn.as_rotvec()  # the shortest one
        n_joints = rotvec.shape[1]
        shares = np.repeat(part[is_between], n_joints)
        partial_arc = shares[:, None] * arc
        between = first * Rotation.from_rotvec(partial_arc)
        vectors = between.as_rotvec()
        resampled[is_between] = vectors.reshape(start.shape)
    return resampled


def resample_linear(values: Doubles, position: Doubles) -> Doubles:
    """Sample values (N, C) at fractional rows `position` (M,), interpolated linearly, (M, C).

    A position may be after the last row by rounding.
    """
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(values) - 1)
    part = (position % 1)[:, None]
    from_before = values[before] * (1 - part)
    from_after = values[after] * part
    return from_before + from_after


def _parts(extrinsics: ArrayLike) -> tuple[Doubles, Doubles]:
    """Split extrinsics (..., 4, 4) into R (..., 3, 3) and t (..., 3)."""
    matrices = np.asarray(extrinsics, np.float64)
    return matrices[..., :3, :3], matrices[..., :3, 3]


def _apply(matrices: Doubles, points: Doubles) -> Doubles:
    """Multiply matrices (..., 3, 3) by points (..., 3)."""
    return np.asarray(np.einsum("...ij,...j->...i", matrices, points))
