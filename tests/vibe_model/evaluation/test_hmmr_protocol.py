"""HMMR's protocol against loops in plain NumPy, and what a model knows of past and future against
planted motion.
"""

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from tests.vibe_model.builders import MemorySplit, TinyBody
from tests.vibe_model.evaluation.made_models import OPTIONS, Bodies, Oracle, matrices, true_verts
from vibe_model import metrics
from vibe_model.evaluation.evaluate import evaluate_all, evaluate_split
from vibe_model.hmmr.dynamics import _KnownPoses, dynamics
from vibe_model.hmmr.generator import HMMR
from vibe_model.metrics import METRICS

LENGTHS = (9, 5, 4)
TRACKS = [slice(0, 9), slice(9, 14), slice(14, 18)]
VIDEOS = [slice(0, 14), slice(14, 18)]


@pytest.fixture
def world():
    """Three tracks, two of one video; the frames of the last one have no keypoint label."""
    split, body, random = MemorySplit(0, LENGTHS, joints=14), TinyBody(), default_rng(5)
    split.tracks[1] = split.tracks[1]._replace(video=split.tracks[0].video)
    rows, n = split.rows, sum(LENGTHS)
    rows["features"][:, 0] = np.arange(n)
    rows["kp_2d"][..., 2] = random.random((n, 49)) < 0.3  # some frames have fewer than 6
    rows["kp_2d"][2, :, 2] = 0
    rows["kp_2d"][2, [0, 1, 2, 3, 45, 46, 47, 48], 2] = 1  # 8 keypoints, 3 of the 14 joints
    rows["kp_2d"][14:, :, 2] = 0
    verts = true_verts(body, rows["theta"]) + random.normal(size=(n, 30, 3)) * 0.05
    kp_2d = rows["kp_2d"][..., :2] + np.float32(random.normal(size=(n, 49, 2)) * 0.05)
    return split, Oracle(body, verts, kp_2d)


def limbs(confidence):
    """How many of the 14 joints are seen, by spin49's two halves: LSP's order is 25 to 38."""
    openpose = [11, 10, 9, 12, 13, 14, 4, 3, 2, 5, 6, 7, 1, None]
    return sum(
        bool(confidence[25 + i] > 0 or (o is not None and confidence[o] > 0))
        for i, o in enumerate(openpose)
    )


def test_the_protocol_is_that_of_a_loop_over_sequences(world):
    split, oracle = world
    confidence = split.rows["kp_2d"][..., 2]
    with_2d = (confidence > 0).sum(1) >= 6
    with_3d = np.array([limbs(one) > 6 for one in confidence]) | (np.arange(18) >= 14)
    assert (with_3d & ~with_2d).sum() + (with_2d & ~with_3d).sum() > 0
    target, pred = split.rows["kp_3d"], oracle.joints
    verts, true = oracle.verts.detach().numpy(), true_verts(oracle.body, split.rows["theta"])
    of_videos = {
        name: [] for name in ("mpjpe", "pa_mpjpe", "pve", "pck_aligned", "accel", "accel_error")
    }
    for video in VIDEOS:
        rows = range(video.start, video.stop)
        counted = [row for row in rows if with_3d[row]]
        of_videos["mpjpe"].append(metrics.mpjpe(pred[counted], target[counted]).mean())
        of_videos["pa_mpjpe"].append(metrics.pa_mpjpe(pred[counted], target[counted]).mean())
        of_videos["pve"].append(
            1000 * np.linalg.norm(verts[counted] - true[counted], axis=-1).mean()
        )
        shares, three = [], {"accel": [], "accel_error": []}
        for row in (row for row in rows if with_2d[row]):
            seen = confidence[row] > 0
            points, goal = (
                oracle.kp_2d[row, seen].astype(float),
                split.rows["kp_2d"][row, seen, :2].astype(float),
            )
            pixels = 150 / np.hypot(*np.ptp(goal, axis=0))
            p, q = points - points.mean(0), goal - goal.mean(0)
            half_trace = np.trace(np.linalg.solve(p.T @ p, p.T @ q)) / 2
            away = np.hypot(*(half_trace * p - q).T) * pixels
            shares.append(100 * (away < 0.05 * 224).mean())
        of_videos["pck_aligned"] += [np.mean(shares)] if shares else []
        for row in (
            row for part in TRACKS for row in range(part.start + 1, part.stop - 1) if row in rows
        ):
            beside = slice(row - 1, row + 2)
            three["accel"].append(
                1000 * np.linalg.norm(np.diff(pred[beside], n=2, axis=0), axis=-1).mean()
            )
            if with_3d[beside].all():
                three["accel_error"] += [*metrics.accel_error(pred[beside], target[beside])]
        for name, values in three.items():
            of_videos[name] += [np.mean(values)] if values else []
    found = evaluate_split(oracle, split, OPTIONS, protocol="hmmr")
    assert found["frames"] == with_3d.sum()
    assert found["frames_2d"] == with_2d.sum()
    for name, values in of_videos.items():
        assert values
        assert found[name] == pytest.approx(np.mean(values), rel=1e-4), name
    assert not {"pck", "auc", "pck_2d"} & set(found)


class Prophet(Bodies):
    """Knows what comes, `late` frames too late."""

    steps = (-2, 3)
    regress = None

    def __init__(self, body, theta, late=0):
        super().__init__(body, theta)
        self.late = late

    def regress_stills(self, features):
        assert features.shape[1] == 1
        rows, last = features[..., 0].long(), len(self.theta) - 1
        found = {0: self.at(rows)}
        for step in self.steps:
            found[step] = self.at((rows + step - self.late).clamp(0, last))
        return found


def moving(seed, lengths, **options):
    """A split whose joints are its bodies', and whose features are its row numbers."""
    split, body = MemorySplit(seed, lengths, joints=14, **options), TinyBody()
    theta = torch.tensor(split.rows["theta"])
    split.rows["kp_3d"] = body.joints(
        betas=theta[:, 75:], rotmat=matrices(theta), order="common14"
    ).numpy()
    split.rows["features"][:, 0] = np.arange(sum(lengths))
    return split, body


def test_past_and_future_are_compared_with_their_own_frames():
    split, body = moving(3, [12, 9], gaps=[4], lacking=[15])
    split.rows["valid"][8] = 0
    found = dynamics(Prophet(body, split.rows["theta"]), split, stream="resnet50")
    # Frames with a label at -2 and +3, none of them across the gap before row 4; 8 is not valid, 15
    # has no feature.
    frames = {0: [6, 7], 1: [14, 16, 17]}
    assert (found["frames"], found["tracks"]) == (5, 2)
    joints = split.rows["kp_3d"]
    for model, expected in (
        ("from a still", lambda row, step: row + step),
        ("constant", lambda row, step: row),
    ):
        for step in (-2, 0, 3):
            by_track = [
                np.mean(
                    [
                        metrics.pa_mpjpe(joints[[expected(r, step)]], joints[[r + step]])[0]
                        for r in rows
                    ]
                )
                for rows in frames.values()
            ]
            assert found["pa_mpjpe"][model][str(step)] == pytest.approx(np.mean(by_track), abs=1e-2)
    assert list(found["pa_mpjpe"]["constant"]) == ["-2", "0", "3"]
    assert found["pa_mpjpe"]["true pose, still"] == pytest.approx(
        found["pa_mpjpe"]["constant"], abs=1e-2
    )
    late = dynamics(Prophet(body, split.rows["theta"], late=1), split, stream="resnet50")[
        "pa_mpjpe"
    ]["from a still"]
    assert late["0"] < 1e-2 < 1 < min(late["-2"], late["3"])


def test_the_nearest_training_pose_brings_its_own_past_and_future():
    split, body = moving(3, [12])
    other, _ = moving(8, [40])
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).numpy()
    # the same motion, elsewhere
    joints = np.concatenate([other.rows["kp_3d"], 1.3 * split.rows["kp_3d"] @ turn.T + 5])
    known = MemorySplit(9, [40, 12], joints=14)
    known.rows["kp_3d"] = joints.astype(np.float32)
    model = Prophet(body, split.rows["theta"])
    found = dynamics(model, split, stream="resnet50", known=_KnownPoses({"a/train": known}, model))[
        "pa_mpjpe"
    ]
    assert max(found["nearest"].values()) < 0.01
    without = dynamics(
        model, split, stream="resnet50", known=_KnownPoses({"a/train": other}, model)
    )["pa_mpjpe"]
    assert min(without["nearest"].values()) > 10
    assert "nearest" not in dynamics(model, split, stream="resnet50")["pa_mpjpe"]


OF_HMMR = "pa_mpjpe mpjpe pve pve_unposed accel accel_error pck_aligned"


def test_every_model_is_evaluated_by_it_and_only_those_of_past_and_future_have_dynamics():
    splits = {"a/test": MemorySplit(1, [9], joints=14)}
    torch.manual_seed(0)
    for deltas in ((-2, 2), ()):
        model = HMMR(TinyBody(), feature_size=6, regressor_size=7, width=32, deltas=deltas)
        found = evaluate_all(model, splits, OPTIONS, training=splits)["a/test"]["hmmr"]
        assert found.keys() & METRICS.keys() == {*OF_HMMR.split()}
        assert ("dynamics" in found) == bool(deltas)
        assert model.training
