"""MPI-INF-3DHP's labels and pictures, by hand."""

import functools
import json

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from pipeline import datasets
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import jpeg

MPI = datasets.get("mpi_inf_3dhp")


# Native joint -> joint of spin49, read off the two lists by hand.
TRAIN_JOINTS = {
    3: 41, 4: 39, 5: 37, 6: 43, 7: 38, 9: 34, 10: 35, 11: 36, 14: 33, 15: 32, 16: 31,
    18: 28, 19: 29, 20: 30, 23: 27, 24: 26, 25: 25,
}  # fmt: skip


TEST_JOINTS = [38, 37, 33, 32, 31, 34, 35, 36, 27, 26, 25, 28, 29, 30, 39, 41, 43]


N = 5


WIDTH, HEIGHT = 200, 100


PICTURE = jpeg(WIDTH, HEIGHT)


def labels_2d(n_joints=28, n_frames=N):
    """(n, J, 2): joint j of frame i at (20 + 2 j + i, 30 + j)."""
    i, j = np.mgrid[:n_frames, :n_joints]
    return np.stack([20 + 2 * j + i, 30 + j], axis=-1).astype(float)


def labels_3d(n_joints=28, n_frames=N):
    """(n, J, 3) mm: joint j of frame i at (100 j, -10 j, 3000 + i + j)."""
    i, j = np.mgrid[:n_frames, :n_joints]
    return np.stack([100 * j, -10 * j, 3000 + i + j], axis=-1).astype(float)


def cell(*arrays):
    out = np.empty((len(arrays), 1), object)
    for k, array in enumerate(arrays):
        out[k, 0] = array
    return out


def write_annot(raw, sequence="S1/Seq1", kp_2d=None, kp_3d=None, camera=0, **changes):
    """annot.mat as officially stored; cells of other cameras than `camera` are shifted by 1000 for
    each in between.
    """
    kp_2d = labels_2d() if kp_2d is None else np.asarray(kp_2d)
    kp_3d = labels_3d() if kp_3d is None else np.asarray(kp_3d)
    flat_2d, flat_3d = kp_2d.reshape(len(kp_2d), -1), kp_3d.reshape(len(kp_3d), -1)
    variables = {
        "annot2": cell(*(flat_2d + 1000 * (k - camera) for k in range(14))),
        "annot3": cell(*(flat_3d + 1000 * (k - camera) for k in range(14))),
        "univ_annot3": cell(*(flat_3d * 2 for _ in range(14))),
        "frames": np.arange(len(kp_2d))[:, None],
        "cameras": np.arange(14, dtype=np.uint8)[None],
    }
    variables |= changes
    file = raw / sequence / "annot.mat"
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        file,
        {key: value for key, value in variables.items() if value is not None},
        do_compression=True,
    )
    return file


def write_pictures(
    raw, folder="S1/Seq1/imageFrames/video_0", name="frame_{:06d}.jpg", numbers=range(N)
):
    (raw / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (raw / folder / name.format(number)).write_bytes(PICTURE)


def write_calibration(raw, sequence="S1/Seq1", size=f"{WIDTH} {HEIGHT}", focal=150):
    blocks = [
        f"name          {k}\n  sensor      10 10\n  size        {size}\n  animated    0\n"
        f"  intrinsic   {focal} 0 {100 + k} 0 0 151 50 0 0 0 1 0 0 0 0 1 \n"
        "  extrinsic   1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 1 \n  radial      0\n"
        for k in range(14)
    ]
    file = raw / sequence / "camera.calibration"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("Skeletool Camera Calibration File V1.0\n" + "".join(blocks))
    return file


def write_test(raw, name="TS1", below="mpi_inf_3dhp_test_set", **changes):
    """annot_data.mat as h5py shows what MATLAB wrote, with pictures."""
    folder = raw / below / name
    variables = {
        "annot2": labels_2d(17)[:, None],
        "annot3": labels_3d(17)[:, None],
        "univ_annot3": 1.5 * labels_3d(17)[:, None],
        "valid_frame": np.array([[1.0], [0], [1], [1], [0]]),
        "activity_annotation": np.ones((N, 1)),
        "bb_crop": np.ones((N, 34)),
    }
    write_pictures(folder, "imageSequence", "img_{:06d}.jpg", range(1, N + 1))
    with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as stored:
        for key, value in (variables | changes).items():
            if value is not None:
                stored[key] = value
    return folder / "annot_data.mat"


read = functools.partial(by_hand.read_one, MPI)


@pytest.fixture
def raw(tmp_path):
    """One camera of one sequence, all in order."""
    write_annot(tmp_path)
    write_calibration(tmp_path)
    write_pictures(tmp_path)
    return tmp_path


TURNED = Rotation.from_rotvec([[0.3, -1.2, 0.5], [0, 1, 2]]).as_matrix()  # two cameras of a world


SHIFTED = np.array([[10.0, 200, 3500], [-300, 50, 4000]])  # mm


NATIVE = [next(n for n, joint in TRAIN_JOINTS.items() if joint == theirs) for theirs in TEST_JOINTS]


def fit_of(frame):
    rng = np.random.default_rng(frame)
    return {"pose": rng.normal(0, 0.4, 72), "shape": rng.normal(0, 1, 10)}


def plant_fits(raw, frames=range(N), **changes):
    """A walking person in a world with two cameras, 0 and 1; the release has the first one's
    labels.

    Without changes, the files agree with it. joints, trans: change the numbers of all frames; late:
    frames that they are counted too late. unknown: first frames whose labels are NaN.
    """
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(30, 10, (30, 1, 3)), axis=0)  # mm: two frames are 50 mm apart
    world = rng.normal(0, 300, (28, 3)) + walk
    labels = (world @ TURNED[0].T + SHIFTED[0])[:N]
    labels[: changes.get("unknown", 0)] = np.nan
    write_annot(raw, kp_3d=labels)
    scale, moved = changes.get("joints", 1), changes.get("trans", lambda x: x)
    late, late_fits = changes.get("late", 0), changes.get("late_fits", 0)
    joints = {frame + late: (scale * world[frame][NATIVE]).tolist() for frame in range(30)}
    fits = {}
    for frame in frames:
        pelvis = world[frame][NATIVE[14]] / 1000
        trans = moved(np.add(pelvis, (0.02, 0.25, -0.03)))
        fits[frame + late_fits] = {
            k: v.tolist() for k, v in (fit_of(frame) | {"trans": trans}).items()
        }
    order = changes.get("order", (0, 1))
    cameras = {
        str(k): {
            "R": TURNED[c].tolist(),
            "t": SHIFTED[c].tolist(),
            "focal": [75, 75],
            "princpt": [50, 25],
        }
        for k, c in enumerate(order)
    }
    for name, content in (("SMPL_NeuralAnnot", fits), ("joint_3d", joints), ("camera_1k", cameras)):
        (raw / f"MPI-INF-3DHP_{name}.json").write_text(json.dumps({"1": {"2": {}, "1": content}}))
