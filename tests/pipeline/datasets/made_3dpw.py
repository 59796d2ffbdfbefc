"""3DPW's labels and pictures, by hand."""

import pickle

import numpy as np
from scipy.spatial.transform import Rotation

from tests.pipeline.datasets.by_hand import touch

SEQ = "courtyard_arguing_00"


N = 40


def keypoints(n_frames=N, x=300):
    """(n, 3, 18): joint j at (x + j, 400 + 2 j), score 0.9: the extent is 17 x 34 px."""
    j = np.arange(18.0)
    return np.tile(np.stack([x + j, 400 + 2 * j, np.full(18, 0.9)]), (n_frames, 1, 1))


def sequence(n_actors=1, n_frames=N):
    """A sequence with random poses and a turning, moving camera."""
    rng = np.random.default_rng(0)
    camera = np.tile(np.eye(4), (n_frames, 1, 1))
    camera[:, :3, :3] = Rotation.from_rotvec(
        np.linspace([0, 0, 0], [2, 1, 3], n_frames)
    ).as_matrix()
    camera[:, :3, 3] = rng.normal(size=(n_frames, 3))
    return {
        "poses": [rng.normal(0, 0.4, (n_frames, 72)) for _ in range(n_actors)],
        "betas": [rng.normal(0, 1, 300) for _ in range(n_actors)],
        "trans": [rng.normal(0, 1, (n_frames, 3)) for _ in range(n_actors)],
        "poses2d": [keypoints(n_frames, 300 + 200 * p) for p in range(n_actors)],
        "campose_valid": [np.ones(n_frames) for _ in range(n_actors)],
        "genders": ["m", "f"][:n_actors],
        "cam_poses": camera,
        "cam_intrinsics": np.array([[1961.0, 0, 540], [0, 1969, 960], [0, 0, 1]]),
        "img_frame_ids": np.arange(n_frames) * 2,  # counted at another rate
        "sequence": SEQ,
    }


def write(raw, data, split="train", pictures=range(N)):
    file = raw / "sequenceFiles" / split / f"{SEQ}.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(data, protocol=2))
    touch(raw / "imageFiles" / SEQ, *map("image_{:05d}.jpg".format, pictures))
    return file
