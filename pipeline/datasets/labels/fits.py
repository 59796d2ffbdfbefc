"""Which SMPL fits of other authors are good enough for training.  [raw -> tracks] -> features ->
windows

The readers of Human3.6M and MPI-INF-3DHP call `usable_fits`, and set `has_smpl` by its result.

I2L-MeshNet and Pose2Mesh do not use fits to Human3.6M whose joints are more than 25 mm off the
motion capture's, and replace shapes with a beta beyond 3 by the mean shape (Moon and Lee, ECCV
2020; Choi, Moon and Lee, ECCV 2020). Here, frames of both kinds have no SMPL label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.skeletons import LARGEST, Bools, Doubles, Floats

if TYPE_CHECKING:
    from pipeline.body import Body

MOST_OFF_M: Final = 0.025  # mean distance of a fit's joints from the labels
MOST_BETA: Final = 3.0  # standard deviations of a component of the shape
N_POSE: Final = 72  # a fit (82,) is a pose, then betas
N_BETAS: Final = 10


def usable_fits(fits: Floats, account: VideoAccount) -> Bools:
    """Whether each fit, (N, 82) pose and betas, is finite and has no beta beyond `MOST_BETA`, (N,).

    Adds a note with the number of finite fits that have such a beta.
    """
    is_finite = (np.abs(fits) < LARGEST).all(axis=1)  # comparisons with NaN are false
    has_large_beta = (np.abs(fits[:, N_POSE:]) > MOST_BETA).any(axis=1)
    n_extreme = int((is_finite & has_large_beta).sum())
    if n_extreme:
        account.notes.append(f"{n_extreme} SMPL fits have a beta beyond {MOST_BETA:g}: not used")
    return np.asarray(is_finite & ~has_large_beta)


def distances_to_joints(body: Body, fits: Floats, joints: Floats) -> Doubles:
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
