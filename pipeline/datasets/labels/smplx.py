"""SMPL-X bodies beside SMPL's: extra columns of splits with such labels.  raw -> [tracks] ->
features -> windows

Pavlakos et al.: Expressive Body Capture, CVPR 2019. 55 joints: pelvis to wrists as in SMPL (22),
jaw, left and right eye, 15 finger joints of the left hand and 15 of the right. The hands' angles
are those from a flat hand (flat_hand_mean is True), not from SMPL-X's mean hand.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import numpy as np

import cache
from cache.read.labels import MIRRORED_SMPL
from pipeline.cameras import mirrored_axis
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays, load_npz, npz_shape, numbers
from pipeline.skeletons import Array, Doubles, Floats

N_POSE: Final = 165
N_JOINTS: Final = 55
N_BETAS: Final = 16
# left-right permutation of the joints
MIRRORED: Final = (
    *MIRRORED_SMPL[:22],  # pelvis to wrists
    22,  # jaw
    *(24, 23),  # eyes
    *range(40, 55),  # hands
    *range(25, 40),
)


def is_smplx(file: Path, key: str) -> bool:
    """Whether the array `key` of an .npz file has 165 columns. Reads only its header.

    False for a damaged file.
    """
    with contextlib.suppress(RawDataError):
        return npz_shape(file, key)[-1:] == (N_POSE,)
    return False


def load_rest_joints(file: Path, n_betas: int) -> tuple[Doubles, Doubles]:
    """Read the joints of the rest pose from SMPLX_NEUTRAL.npz. Raises RawDataError.

    Returns the joints of the mean shape, (55, 3) m, and their change per unit of each shape
    parameter, (55, 3, n_betas).
    """
    stored = StoredArrays(file, load_npz(file, ("v_template", "shapedirs", "J_regressor")))
    vertices = stored.take("v_template", None, 3)
    regressor = stored.take("J_regressor", N_JOINTS, len(vertices))
    stored_directions = stored.value("shapedirs")[..., :n_betas]
    directions = numbers(file, "shapedirs", stored_directions, (len(vertices), 3, n_betas))
    return regressor @ vertices, np.einsum("jv,vcb->jcb", regressor, directions)


def _mirror_pose(pose: Floats) -> Floats:
    """Mirror SMPL-X poses (N, 165), axis-angle in rad, as a left-right flip of images needs it.

    Left and right joints are exchanged, and a rotation R becomes S R S, S = diag(-1, 1, 1).
    """
    joints = pose.reshape(len(pose), -1, 3)[:, MIRRORED].copy()
    joints[..., 1:] = 0 - joints[..., 1:]  # 0 stays 0, without a sign
    return joints.reshape(pose.shape)


def labels(pose: Doubles, betas: Doubles) -> dict[str, Array]:
    """Make `Track.extra` from pose, (T, 165) or (T, 55, 3) rad, and betas, (n,) or (T, n); all
    columns except `smplx_trans`.

    Only the first 16 betas are used; missing ones are 0.
    """
    padded = np.zeros((len(pose), N_BETAS), np.float32)
    n = min(betas.shape[-1], N_BETAS)
    padded[:, :n] = betas[..., :n]
    flat = pose.reshape(-1, N_POSE).astype(np.float32)
    return {"smplx_pose": flat, "smplx_betas": padded, "smplx_n_betas": np.array(n, np.int32)}


def columns(
    betas: str, *, trans: bool = False, gaps: bool = False
) -> tuple[cache.ExtraColumn, ...]:
    """Declare the extra columns of SMPL-X bodies.

    Args:
        betas: Text for the manifest on which shape parameters exist.
        trans: Also declare `smplx_trans`, the translation in camera axes.
        gaps: Whether rows of a track may have no body.
    """
    pose = "SMPL-X axis-angle of 55 joints, global orientation as in pose; flat_hand_mean"
    shape = f"SMPL-X shape: {betas}, then zeros"
    declared = [
        cache.ExtraColumn(
            name="smplx_pose",
            about=pose,
            unit="rad",
            shape=(N_POSE,),
            mirror=_mirror_pose,
            gaps=gaps,
        ),
        cache.ExtraColumn(name="smplx_betas", about=shape, shape=(N_BETAS,), gaps=gaps),
        cache.ExtraColumn(
            name="smplx_n_betas",
            about="existing numbers of smplx_betas",
            dtype="int32",
            per="track",
        ),
    ]
    if trans:
        translation = cache.ExtraColumn(
            name="smplx_trans",
            about="of the SMPL-X body",
            unit="m",
            shape=(3,),
            mirror=mirrored_axis,
            gaps=gaps,
        )
        declared.append(translation)
    return tuple(declared)


NAMES: Final = tuple(column.name for column in columns("", trans=True))
