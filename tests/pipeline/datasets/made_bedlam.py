"""BEDLAM's labels and pictures, by hand."""

import functools

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.body import procedural, skin
from pipeline.people import cameras
from tests.pipeline.datasets.by_hand import touch

SEQ, SUBJECTS, N = "seq_000000", ("rp_aaron_posed_001", "rp_emma_posed_008"), 6


SCENE = "20221010_3_1000_batch01hand_6fps"


K = np.array([[1400.0, 0, 640], [0, 1400, 360], [0, 0, 1]])


def labels(n=N, step=5, k=K, width=72):
    """Two people, each with a world that begins at its own body; row by row, picture by picture."""
    made = _labels(n, step, tuple(map(tuple, k)), width)
    return {key: rows.copy() for key, rows in made.items()}


@functools.cache
def _labels(n, step, k, width):
    random, arms = np.random.default_rng(0), procedural("neutral")
    rows = []
    tilt = Rotation.from_euler("xz", [0.1, 0.05]).as_matrix()
    for i in range(n):
        for p, sub in enumerate(SUBJECTS):
            pose, betas = random.normal(0, 0.1, 72), np.full(10, 0.3 * p)
            pose[:3] = (np.pi, 0, 0)  # upright in an image whose y points down
            extrinsics = np.eye(4)
            extrinsics[:3, :3], extrinsics[:3, 3] = tilt, (1.2 * p - 0.6, 0.1, 4 + p)
            trans_cam = np.array([0.01 * i, 0.02, 0.1 * p])
            joints = skin(arms, betas, pose[None], (trans_cam + extrinsics[:3, 3])[None]).joints[0]
            px = cameras.project(joints, np.array(k))
            gtkps = np.concatenate([px, np.ones((24, 1))], axis=1)
            row = {
                "imgname": f"{SEQ}/{SEQ}_{step * i:04d}.png",
                "center": (px.min(axis=0) + px.max(axis=0)) / 2,
                "scale": np.ptp(px, axis=0).max() / 200 * 1.2,
                "pose_cam": np.concatenate([pose, np.zeros(width - 72)]),
                "pose_world": np.full(width, 9.0),
                "shape": betas if width == 72 else np.full(11, 0.5),
                "trans_cam": trans_cam,
                "trans_world": np.full(3, 9.0),
                "cam_int": k,
                "cam_ext": extrinsics,
                "gtkps": gtkps,
                "gender": ("male", "female")[p],
                "motion_info": "walk",
                "sub": sub,
            }
            rows.append(row)
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


@functools.cache
def picture():
    return bytes(cv2.imencode(".png", np.zeros((720, 1280, 3), np.uint8))[1])


def write(raw, data, scene=SCENE, folder="all_npz_12_smpl_training", pictures=None):
    place = touch(raw / scene / "png" / SEQ)
    for i in range(0, 5 * N, 5) if pictures is None else pictures:
        (place / f"{SEQ}_{i:04d}.png").write_bytes(picture())
    file = raw / folder / f"{scene}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **data)
    return file
