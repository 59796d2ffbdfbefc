"""SMPL bodies in a world with a moving camera: as the camera sees them.  raw -> [tracks]

Columns of tracks whose labels have such a world, and `smpl_labels`, which converts bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

import cache
from pipeline import cameras
from pipeline.cameras import pose_in_camera
from pipeline.skeletons import HIP, PELVIS, Doubles, add_confidence

if TYPE_CHECKING:
    from pipeline.body import Body

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
    mirror=cameras.mirrored_axis,
)


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
