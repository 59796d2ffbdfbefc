"""Motions in AMASS's files, by hand."""

import numpy as np
from scipy.spatial.transform import Rotation


def write_motion(raw, name="ACCAD/s1/walk_poses", n_frames=601, rate=120.0, **changes):
    """Joint j turns about its own axis at (j + 1) / 100 rad/s; the body moves at 1 m/s along x."""
    n_joints = changes.pop("n_joints", 52)
    time = np.arange(n_frames) / rate
    axes = Rotation.random(n_joints, random_state=0).apply([1, 0, 0])
    speed = (np.arange(n_joints) + 1) / 100
    poses = time[:, None, None] * speed[:, None] * axes
    data = {
        "poses": poses.reshape(n_frames, -1),
        "betas": np.arange(16) / 10,
        "trans": np.column_stack([time, 0 * time, 1 + 0 * time]),
        "gender": "male",
        "mocap_framerate": rate,
    }
    data |= changes
    file = raw / f"{name}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{key: value for key, value in data.items() if value is not None})


def smplx(raw, name="ACCAD/s1/wave_stageii", **changes):
    write_motion(raw, name, n_joints=55, mocap_frame_rate=120.0, mocap_framerate=None, **changes)
