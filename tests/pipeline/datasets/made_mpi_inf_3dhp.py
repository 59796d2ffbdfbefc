"""Changes of MPI-INF-3DHP's demo data, and NeuralAnnot's fits of them."""

import functools
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets
from tests.pipeline.datasets.by_hand import read_video
from tests.pipeline.datasets.label_files import edit_labels

MPI = datasets.get("mpi_inf_3dhp")
VIDEO, N = "S1/Seq1/video_0", 6  # of 320 x 320 px
LABELS, IMAGES = "S1/Seq1/annot.mat", "S1/Seq1/imageFrames/video_0"
# Native joint of train -> the same in test, read off the two lists by hand.
NATIVE = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]

read = functools.partial(read_video, MPI, split="train", name=VIDEO)


@pytest.fixture
def raw(embedded, tmp_path):
    """The demo data's files."""
    return embedded.copy("mpi_inf_3dhp", tmp_path / "mpi_inf_3dhp")


def put(raw, key, array, n_cells=14):
    """Make an array (F, ...) that of all cameras in `annot.mat`."""
    cells = np.empty((n_cells, 1), object)
    for k in range(n_cells):
        cells[k, 0] = array.reshape(len(array), -1)
    edit_labels(raw / LABELS, lambda labels: labels | {key: cells})


TURNED = Rotation.from_rotvec([[0.3, -1.2, 0.5], [0, 1, 2]]).as_matrix()  # two cameras of a world
SHIFTED = np.array([[10.0, 200, 3500], [-300, 50, 4000]])  # mm


def fit_of(frame):
    rng = np.random.default_rng(frame)
    return {"pose": rng.normal(0, 0.4, 72), "shape": rng.normal(0, 1, 10)}


def plant_fits(raw, frames=range(N), **changes):
    """A walking person in a world with two cameras, 0 and 1; the release has the first one's
    labels.

    Without changes, the files agree with it. joints, trans: change the numbers of all frames; late,
    late_fits: frames that they are counted too late; order: of the cameras.
    """
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(30, 10, (30, 1, 3)), axis=0)  # mm: two frames are 50 mm apart
    world = rng.normal(0, 300, (28, 3)) + walk
    put(raw, "annot3", (world @ TURNED[0].T + SHIFTED[0])[:N])
    scale, moved = changes.get("joints", 1), changes.get("trans", lambda x: x)
    late, late_fits = changes.get("late", 0), changes.get("late_fits", 0)
    joints = {frame + late: (scale * world[frame][NATIVE]).tolist() for frame in range(30)}
    fits = {}
    for frame in frames:
        pelvis = world[frame][NATIVE[14]] / 1000
        fit = fit_of(frame) | {"trans": moved(np.add(pelvis, (0.02, 0.25, -0.03)))}
        fits[frame + late_fits] = {key: values.tolist() for key, values in fit.items()}
    cameras = {}
    for k, c in enumerate(changes.get("order", (0, 1))):
        turn, shift = TURNED[c].tolist(), SHIFTED[c].tolist()
        cameras[str(k)] = {"R": turn, "t": shift, "focal": [75, 75], "princpt": [50, 25]}
    for name, content in (("SMPL_NeuralAnnot", fits), ("joint_3d", joints), ("camera_1k", cameras)):
        (raw / f"MPI-INF-3DHP_{name}.json").write_text(json.dumps({"1": {"2": {}, "1": content}}))
