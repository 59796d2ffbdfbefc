"""Databases as VIBE's preprocessing writes them, by hand."""

import numpy as np

from pipeline.people.skeletons import JOINTS

SPIN, LSP = JOINTS["spin49"], JOINTS["common14"]
N = 40  # rows of a hand-made file: two videos of 25 and 15 frames
BOXES = np.tile([100.0, 80.0, 60.0, 60.0], (N, 1))
FRAMES = np.r_[np.arange(25), np.arange(15)]


def vid_names(first="a", second="b"):
    return np.repeat(np.array([first, second]), [25, 15])


def keypoints(n_joints):
    """Joint j of row i at (100 i + j, j), as float64, which VIBE's files have."""
    out = np.ones((N, n_joints, 3))
    out[..., 0] = 100 * np.arange(N)[:, None] + np.arange(n_joints)
    out[..., 1] = np.arange(n_joints)
    return out


def feature_rows(n=N):
    return np.repeat(np.arange(n, dtype=np.float32)[:, None] / 4, 2048, axis=1)


def posetrack(**changed):
    held = {
        "vid_name": vid_names("data/posetrack/train/1.json_0", "data/posetrack/train/1.json_1"),
        "img_name": np.array([f"images/train/1/{k:06d}.jpg" for k in FRAMES]),
        "joints2D": keypoints(49),
        "bbox": BOXES.copy(),
        "features": feature_rows(),
    }
    return {key: value for key, value in {**held, **changed}.items() if value is not None}


def mpii3d(**changed):
    """Joints as VIBE's script leaves them: those that are not annotated are at minus the pelvis."""
    joints = np.random.default_rng(1).normal(size=(N, 49, 3))
    joints[:, [SPIN.index(name) for name in SPIN if name not in JOINTS["mpi_inf_3dhp"]]] = 0
    joints -= joints[:, [SPIN.index("hip")]]
    names = [f"frame_{k:06d}" for k in range(10, 10 + N)]
    pictures = np.array([f"/home/x/S1/Seq1/video_0/{name}.jpg" for name in names])
    held = {
        "vid_name": vid_names("seg0", "seg1"),
        "frame_id": np.array(names),
        "img_name": pictures,
    }
    return {**posetrack(), **held, "joints3D": joints, **changed}


def threedpw(n_3d=49, **changed):
    rng = np.random.default_rng(2)
    sizes = {"joints3D": (n_3d, 3), "shape": (10,), "pose": (72,)}
    held = {name: rng.normal(size=(N, *size)).astype(np.float32) for name, size in sizes.items()}
    held |= {
        "vid_name": vid_names("courtyard_00_0", "courtyard_00_1"),
        "frame_id": np.r_[np.arange(3, 28), FRAMES[25:]],
        "img_name": np.array([f"/data/courtyard_00/image_{k:05d}.jpg" for k in range(N)]),
    }
    return {**posetrack(), **held, "joints2D": keypoints(14), "valid": np.arange(N) % 2, **changed}
