"""Which SMPL fits of other authors are good enough for training.  [raw -> tracks] -> features ->
windows

The readers of Human3.6M and MPI-INF-3DHP make labels of such fits by `fit_labels`.

I2L-MeshNet and Pose2Mesh do not use fits to Human3.6M whose joints are more than 25 mm off the
motion capture's, and replace shapes with a beta beyond 3 by the mean shape (Moon and Lee, ECCV
2020; Choi, Moon and Lee, ECCV 2020). Here, frames of both kinds have no SMPL label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.datasets.checks import finite_rows
from pipeline.errors import RawDataError
from pipeline.files.formats.smpl_files import N_BETAS, N_POSE
from pipeline.skeletons import Doubles, Floats

if TYPE_CHECKING:
    from pipeline.body import Body

MOST_OFF_M: Final = 0.025  # mean distance of a fit's joints from the labels
MOST_BETA: Final = 3.0  # standard deviations of a component of the shape


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
                account.notes.append(f"{n_absent} of the kept frames have no SMPL fit")
        except RawDataError as error:
            account.notes.append(f"SMPL fits are not used: {error}")

    has_smpl = finite_rows(fits)
    is_extreme = has_smpl & (np.abs(fits[:, N_POSE:]) > MOST_BETA).any(axis=1)
    has_smpl &= ~is_extreme
    if is_extreme.any():
        n_extreme = int(is_extreme.sum())
        account.notes.append(f"{n_extreme} SMPL fits have a beta beyond {MOST_BETA:g}: not used")
    if body is not None and joints is not None and has_smpl.any():
        distance = _distances_to_joints(body, fits[has_smpl], joints[has_smpl])
        is_far = distance > MOST_OFF_M  # comparisons with NaN are false
        has_smpl[has_smpl] = ~is_far
        if is_far.any():
            limit = f"over {1000 * MOST_OFF_M:.0f} mm off the joints"
            account.notes.append(f"{int(is_far.sum())} SMPL fits are {limit}: not used")
    fits = np.where(has_smpl[:, None], fits, np.nan)
    return {"pose": fits[:, :N_POSE], "betas": fits[:, N_POSE:], "has_smpl": has_smpl}


def _distances_to_joints(body: Body, fits: Floats, joints: Floats) -> Doubles:
    """Mean distance in m, (N,), between the joints of fits, (N, 82), and labelled joints.

    joints: (N, 14, 3) m, in the order of common14. Both are centred at the mean of their joints.
    """
    import torch
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    rotations = Rotation.from_rotvec(fits[:, :N_POSE].reshape(-1, 3)).as_matrix()
    rotmat = torch.from_numpy(rotations.reshape(len(fits), -1, 3, 3)).float()
    betas = torch.from_numpy(fits[:, N_POSE:]).float()
    with torch.no_grad():
        posed = body.joints(betas=betas, rotmat=rotmat, order="common14").double().numpy()
    posed -= posed.mean(axis=1, keepdims=True)
    offsets = posed - (joints - joints.mean(axis=1, keepdims=True))
    return np.asarray(np.linalg.norm(offsets, axis=-1).mean(axis=1))
