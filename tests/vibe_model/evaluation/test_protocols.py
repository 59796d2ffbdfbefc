"""A package's protocol of 24 joints against SMPL's equations in NumPy; whole tracks; what is refused and left out."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipeline import plug_ins
from pipeline.errors import PipelineError
from pipeline.synthetic.body import procedural
from tests.packages import install, install_page
from tests.pipeline.test_body import smpl_paper
from tests.vibe_model.builders import MemorySplit, small_vibe
from tests.vibe_model.evaluation.test_evaluation import STREAM, Oracle
from tests.vibe_model.evaluation.test_genders import stand_in
from vibe_model.errors import DataError
from vibe_model.evaluation import protocols
from vibe_model.evaluation.evaluate import evaluate_all, evaluate_split
from vibe_model.metrics import METRICS
from vibe_model.networks.video_model import Estimate, VideoModel
from vibe_model.rotations import axis_angle_to_matrix


class Bodies(VideoModel):
    """In place of VIBE: the feature of a frame is its row number, and its pose and shape are looked up."""

    def __init__(self, body, theta):
        super().__init__()
        self.body, self.theta = body, torch.nn.Parameter(torch.as_tensor(theta))

    def regress(self, features):
        theta = self.theta[features[..., 0].long()]
        pose = axis_angle_to_matrix(theta[..., 3:75].reshape(*theta.shape[:-1], 24, 3))
        return Estimate(pose, theta[..., 75:], theta[..., :3])


@pytest.fixture
def world():
    """Tracks of 6, 5 and 7 frames with a gap before row 14; predictions are the labels' pose and shape with noise."""
    split, random = MemorySplit(0, [6, 5, 7], joints=14, gaps=[14]), np.random.default_rng(1)
    split.rows["features"][:, 0] = np.arange(18)
    split.rows["theta"][:, 3:] *= 0.5
    split.rows["w_3d"][:] = 0  # the split has no 3D joints
    genders = zip(split.tracks, ("male", "female", "neutral"), strict=True)
    split.tracks[:] = [track._replace(gender=gender) for track, gender in genders]
    split.rows["valid"][[2, 8]] = 0
    split.rows["w_smpl"][11] = 0
    pred = split.rows["theta"] + np.float32(random.normal(size=(18, 85)) * 0.1)
    return split, Bodies(stand_in(), pred)


def by_hand(split, theta):
    """Errors of each row by SMPL's equations, the bodies about their pelvis: mpjpe and pve (18,), joints (18, 24, 3)."""
    posed = {"pred": [], "true": []}
    for track in split.tracks:
        for row in range(track.start, track.stop):
            for key, numbers, gender in (
                ("pred", theta[row], "neutral"),
                ("true", split.rows["theta"][row], track.gender),
            ):
                rotations = Rotation.from_rotvec(numbers[3:75].reshape(24, 3).astype(float)).as_matrix()
                verts, joints = smpl_paper(procedural(gender), numbers[75:].astype(float), rotations)
                posed[key].append((joints - joints[0], verts - joints[0]))
    (pred, pred_verts), (true, true_verts) = (map(np.stack, zip(*posed[key], strict=True)) for key in ("pred", "true"))
    distance = lambda a, b: 1000 * np.linalg.norm(a - b, axis=-1).mean(-1)  # noqa: E731
    return distance(pred, true), distance(pred_verts, true_verts), pred, true


def test_a_packages_protocol_of_24_joints_is_that_of_smpls_equations(world, site):
    install_page(site, "protocol")
    split, model = world
    mpjpe, pve, pred, true = by_hand(split, model.theta.detach().numpy())
    counted = np.setdiff1d(np.arange(18), [2, 8, 11])
    found = evaluate_all(model, {"a/test": split}, **STREAM)["a/test"]["smpl24"]
    assert found["frames"] == 15
    assert found["mpjpe"] == pytest.approx(mpjpe[counted].mean(), rel=1e-6)
    assert found["pve"] == pytest.approx(pve[counted].mean(), rel=1e-6)
    # Four neighbours of which all count: of rows 3-5 none, of 12-13 none, of 14-17 one.
    jerk = 1000 * np.linalg.norm(np.diff(pred[14:18] - true[14:18], n=3, axis=0), axis=-1).mean()
    assert found["jerk_error"] == pytest.approx(jerk, rel=1e-5)
    assert found["label_body"] == "female, male, neutral"
    assert 0 < found["pa_mpjpe"] < found["mpjpe"] < found["baseline"]["mpjpe"]
