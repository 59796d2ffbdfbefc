"""SMPL and SMPL-X bodies as labels of tracks, and the columns that they need.  raw -> [tracks]

`smpl_labels` converts SMPL bodies in a world with a moving camera to what the camera sees.
EXTRINSICS, INTRINSICS and UP are columns of tracks whose labels have such a world.

SMPL-X bodies stand beside SMPL's, in extra columns (`smplx_columns`, `smplx_labels`). Pavlakos et
al.: Expressive Body Capture, CVPR 2019. 55 joints: pelvis to wrists as in SMPL (22), jaw, left and
right eye, 15 finger joints of the left hand and 15 of the right. The hands' angles are those from a
flat hand (flat_hand_mean is True), not from SMPL-X's mean hand.

`fit_labels` makes labels of SMPL fits of other authors that are good enough for training.
I2L-MeshNet and Pose2Mesh do not use fits to Human3.6M whose joints are more than 25 mm off the
motion capture's, and replace shapes with a beta beyond 3 by the mean shape (Moon and Lee, ECCV
2020; Choi, Moon and Lee, ECCV 2020). Here, frames of both kinds have no SMPL label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import ZipFile

import numpy as np
from numpy.typing import ArrayLike

import cache
from cache.read.labels import MIRRORED_SMPL
from pipeline.accounting import VideoAccount
from pipeline.datasets.shared.checks import finite_rows
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import (
    StoredArrays,
    load_npz,
    numbers,
    read_npy_header,
    reading,
)
from pipeline.files.raw.files import open_regular
from pipeline.people import cameras
from pipeline.people.cameras import mirrored_axis, pose_in_camera
from pipeline.people.skeletons import HIP, PELVIS, Array, Doubles, Floats, add_confidence
from pipeline.people.smpl_files import N_BETAS, N_POSE, SMPLX_N_BETAS, SMPLX_N_POSE

if TYPE_CHECKING:
    from pipeline.people.body import Body

#: `Dataset.uses` of readers that call functions of this module
BODIES: Final[dict[str, int]] = {"bodies": 1}
EXTRINSICS: Final = cache.ExtraColumn(  # only if the camera's position in a world is known
    name="extrinsics",
    about="world to camera, rows R t and 0 0 0 1, R a rotation",
    unit="m",
    shape=(4, 4),
    mirror=cameras.mirrored,
)
INTRINSICS: Final = cache.ExtraColumn(  # not mirrored, like boxes and a track's intrinsics
    name="intrinsics",
    about="camera matrix of the row, if the camera zooms",
    unit="px",
    shape=(3, 3),
)
UP: Final = cache.ExtraColumn(  # only if the world's vertical axis is known
    name="up",
    about="the axis of the world that points up, of length 1",
    shape=(3,),
    per="track",
    mirror=mirrored_axis,
)
# SMPL-X
_SMPLX_N_JOINTS: Final = 55
# left-right permutation of the joints
_SMPLX_MIRRORED: Final = (
    *MIRRORED_SMPL[:22],  # pelvis to wrists
    22,  # jaw
    *(24, 23),  # eyes
    *range(40, 55),  # hands
    *range(25, 40),
)
MOST_OFF_M: Final = 0.025  # mean distance of a fit's joints from the labels
MOST_BETA: Final = 3.0  # standard deviations of a component of the shape


def smpl_labels(
    pose: Doubles,
    betas: ArrayLike,
    trans: ArrayLike,
    to_camera: ArrayLike,
    body: Body | None,
    *,
    evaluation: bool,
) -> dict[str, Any]:
    """Make `Track` fields from SMPL parameters in a world, seen by a camera that may move.

    pose: (T, 72) axis-angle in rad, the first three the global orientation in the world. betas:
    (10,) or (T, 10). trans: (T, 3) m in the world, as SMPL adds it to its vertices. to_camera: (T,
    4, 4) or (4, 4), world to camera, m; `np.eye(4)` for parameters in the camera.

    Returns `pose`, `betas` and `has_smpl`; with a body also `trans`, `has_3d`, and `kp_3d_eval` for
    `evaluation`, else `kp_3d`. Joints and `trans` depend on the body: choose its gender with
    `body.of(...)`.
    """
    n_frames = len(pose)
    camera = np.broadcast_to(np.asarray(to_camera, np.float64), (n_frames, 4, 4))
    pose = pose_in_camera(pose, camera[:, :3, :3])
    betas = np.asarray(betas, np.float64)
    if betas.ndim == 1:
        betas = np.tile(betas, (n_frames, 1))
    labels: dict[str, Any] = {
        "pose": pose,
        "betas": betas,
        "has_smpl": np.ones(n_frames, np.bool_),
    }
    if body is None:
        return labels

    joints, common14 = body.posed_joints(pose, betas)
    labels["trans"] = cameras.to_camera(np.zeros(3), trans, camera, joints[:, PELVIS])[1]
    labels["has_3d"] = np.ones(n_frames, np.bool_)
    if evaluation:
        labels["kp_3d_eval"] = common14
    else:
        about_hip = joints - joints[:, HIP : HIP + 1]
        labels["kp_3d"] = add_confidence(about_hip)
    return labels


def is_smplx(file: Path, key: str) -> bool:
    """Whether the array `key` of an .npz file has 165 columns. Reads only its header.

    False for a damaged file.
    """
    with (
        contextlib.suppress(RawDataError),
        reading(file, "a NumPy .npz archive", key=key),
        open_regular(file) as stream,
        ZipFile(stream) as archive,
    ):
        shape = read_npy_header(archive.open(f"{key}.npy")).shape
        return shape[-1:] == (SMPLX_N_POSE,)
    return False


def load_smplx_rest_joints(file: Path, n_betas: int) -> tuple[Doubles, Doubles]:
    """Read the joints of the rest pose from SMPLX_NEUTRAL.npz. Raises RawDataError.

    Returns the joints of the mean shape, (55, 3) m, and their change per unit of each shape
    parameter, (55, 3, n_betas).
    """
    stored = StoredArrays(file, load_npz(file, ("v_template", "shapedirs", "J_regressor")))
    vertices = stored.take("v_template", None, 3)
    regressor = stored.take("J_regressor", _SMPLX_N_JOINTS, len(vertices))
    stored_directions = stored.value("shapedirs")[..., :n_betas]
    directions = numbers(file, "shapedirs", stored_directions, (len(vertices), 3, n_betas))
    return regressor @ vertices, np.einsum("jv,vcb->jcb", regressor, directions)


def _mirror_pose(pose: Floats) -> Floats:
    """Mirror SMPL-X poses (N, 165), axis-angle in rad, as a left-right flip of images needs it.

    Left and right joints are exchanged, and a rotation R becomes S R S, S = diag(-1, 1, 1).
    """
    joints = pose.reshape(len(pose), -1, 3)[:, _SMPLX_MIRRORED].copy()
    joints[..., 1:] = 0 - joints[..., 1:]  # 0 stays 0, without a sign
    return joints.reshape(pose.shape)


SMPLX_MIRRORS: Final[dict[str, cache.Mirror]] = {  # by column
    "smplx_pose": _mirror_pose,
    "smplx_trans": mirrored_axis,
}


def smplx_labels(pose: Doubles, betas: Doubles) -> dict[str, Array]:
    """Make `Track.extra` from pose, (T, 165) or (T, 55, 3) rad, and betas, (n,) or (T, n); all
    columns except `smplx_trans`.

    Only the first 16 betas are used; missing ones are 0.
    """
    padded = np.zeros((len(pose), SMPLX_N_BETAS), np.float32)
    n = min(betas.shape[-1], SMPLX_N_BETAS)
    padded[:, :n] = betas[..., :n]
    flat = pose.reshape(-1, SMPLX_N_POSE).astype(np.float32)
    return {"smplx_pose": flat, "smplx_betas": padded, "smplx_n_betas": np.array(n, np.int32)}


def smplx_columns(
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
            shape=(SMPLX_N_POSE,),
            mirror=SMPLX_MIRRORS["smplx_pose"],
            gaps=gaps,
        ),
        cache.ExtraColumn(name="smplx_betas", about=shape, shape=(SMPLX_N_BETAS,), gaps=gaps),
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
            mirror=SMPLX_MIRRORS["smplx_trans"],
            gaps=gaps,
        )
        declared.append(translation)
    return tuple(declared)


SMPLX_UNMIRRORED: Final = ("smplx_betas", "smplx_n_betas")
SMPLX_NAMES: Final = tuple(column.name for column in smplx_columns("", trans=True))


def fit_labels(
    load: Callable[[], Floats] | None,
    n_rows: int,
    account: VideoAccount,
    body: Body | None = None,
    joints: Floats | None = None,
) -> dict[str, Any]:
    """Make the `Track` fields `pose`, `betas` and `has_smpl` of the N rows of a track.

    Rows without a usable fit have NaN, and false in `has_smpl`. Notes say how many fits are missing
    or not used.

    Args:
        load: Reads the fits, (N, 82) pose and betas, NaN for rows without one. If it raises
            RawDataError, none is used: the other labels are good without fits. None: the raw folder
            has no fits of the video.
        body: With a body model, fits that are far from the joints are not used, either.
        joints: (N, 14, 3) m, the labelled joints, in the order of common14.
    """
    fits: Floats = np.full((n_rows, N_POSE + N_BETAS), np.nan, np.float32)
    if load is not None:
        try:
            fits = load()
            n_absent = int((~np.isfinite(fits).all(axis=1)).sum())
            if n_absent:
                account.note(f"{n_absent} of the kept frames have no SMPL fit")
        except RawDataError as error:
            account.note(f"SMPL fits are not used: {error}")

    has_smpl = finite_rows(fits)
    is_extreme = has_smpl & (np.abs(fits[:, N_POSE:]) > MOST_BETA).any(axis=1)
    has_smpl &= ~is_extreme
    if is_extreme.any():
        n_extreme = int(is_extreme.sum())
        account.note(f"{n_extreme} SMPL fits have a beta beyond {MOST_BETA:g}: not used")
    if body is not None and joints is not None and has_smpl.any():
        distance = _distances_to_joints(body, fits[has_smpl], joints[has_smpl])
        is_far = distance > MOST_OFF_M  # comparisons with NaN are false
        has_smpl[has_smpl] = ~is_far
        if is_far.any():
            limit = f"over {1000 * MOST_OFF_M:.0f} mm off the joints"
            account.note(f"{int(is_far.sum())} SMPL fits are {limit}: not used")
    fits = np.where(has_smpl[:, None], fits, np.nan)
    return {"pose": fits[:, :N_POSE], "betas": fits[:, N_POSE:], "has_smpl": has_smpl}


def _distances_to_joints(body: Body, fits: Floats, joints: Floats) -> Doubles:
    """Mean distance in m, (N,), between the joints of fits, (N, 82), and labelled joints.

    joints: (N, 14, 3) m, in the order of common14. Both are centred at the mean of their joints.
    """
    import torch

    from pipeline.people.body import rotations_of  # imports torch

    betas = torch.from_numpy(fits[:, N_POSE:]).float()
    rotmat = rotations_of(fits[:, :N_POSE])
    with torch.no_grad():
        posed = body.joints(betas=betas, rotmat=rotmat, order="common14").double().numpy()
    posed -= posed.mean(axis=1, keepdims=True)
    offsets = posed - (joints - joints.mean(axis=1, keepdims=True))
    return np.asarray(np.linalg.norm(offsets, axis=-1).mean(axis=1))
