"""Both protocols against metrics taken by hand: which frames count, means, baseline, smoothing, and
the files of it.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from pipeline.errors import DataError, PipelineError, StandInMixed
from pipeline.people.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    rotation_6d_to_matrix,
)
from tests.results import read_file
from tests.vibe_model.builders import MemorySplit, TinyBody, small_vibe
from tests.vibe_model.evaluation.made_models import OPTIONS, Bodies, Oracle, true_verts
from vibe_model import metrics
from vibe_model.evaluation import protocols
from vibe_model.evaluation.evaluate import (
    EvalOptions,
    EvalOutput,
    choose_sigma,
    evaluate_all,
    evaluate_split,
)
from vibe_model.evaluation.published import FIGURES
from vibe_model.metrics import METRICS


@pytest.fixture
def world():
    split = MemorySplit(0, [9, 7], joints=14)
    split.rows["features"][:, 0] = np.arange(16)
    body, random = TinyBody(), default_rng(5)
    verts = true_verts(body, split.rows["theta"])
    noise = random.normal(size=verts.shape) * 0.05
    kp_2d = split.rows["kp_2d"][..., :2] + np.float32(random.normal(size=(16, 49, 2)) * 0.1)
    return split, Oracle(body, verts + noise, kp_2d), noise


def evaluate(world, protocol="default", **settings):
    options = replace(OPTIONS, **settings)
    return evaluate_split(world[1], world[0], options, protocol=protocol)


# --------------------------------------------------------------------------------------------------
# the protocols


def test_metrics_are_means_over_frames_that_are_valid_and_labelled(world):
    split, oracle, noise = world
    split.rows["valid"][4] = 0
    split.rows["w_3d"][12] = 0
    split.rows["kp_3d"][[4, 12]] = 1e3
    counted = np.setdiff1d(np.arange(16), [4, 12])
    pred, target = oracle.joints, split.rows["kp_3d"]
    result = evaluate(world)
    assert (result["frames"], result["frames_not_counted"]) == (14, 2)
    for name in ("mpjpe", "pa_mpjpe", "pck", "auc"):
        expected = np.mean(getattr(metrics, name)(pred[counted], target[counted]))
        assert result[name] == pytest.approx(expected)
    away = 1000 * np.linalg.norm(noise[counted], axis=-1)
    assert result["pve"] == pytest.approx(away.mean(), rel=1e-5)
    segments = (slice(0, 4), slice(5, 9), slice(9, 12), slice(13, 16))
    expected = np.concatenate([metrics.accel(pred[part]) for part in segments]).mean()
    assert result["accel"] == pytest.approx(expected)


def test_a_metric_of_parts_is_reduced_after_its_mean_over_frames(world, monkeypatch):
    split, oracle, noise = world
    split.rows["w_3d"][12] = 0
    counted = np.setdiff1d(np.arange(16), [12])

    def distances(pred, target):
        return 1000 * np.linalg.norm(pred - target, axis=-1)

    worst = {"unit": "mm", "meaning": "", "of": distances, "reduce": np.max}
    measured = {
        "joint": metrics.Metric(title="worst joint", parts=14, reads="placed joints", **worst),
        "vertex": metrics.Metric(
            title="worst vertex", parts=noise.shape[1], reads="vertices", **worst
        ),
    }
    record = replace(protocols.DEFAULT, name="worst", metrics=measured)
    monkeypatch.setitem(protocols.PROTOCOLS, "worst", record)
    result = evaluate(world, protocol="worst")
    by_joint = distances(oracle.joints[counted], split.rows["kp_3d"][counted]).mean(axis=0)
    assert result["joint"] == pytest.approx(by_joint.max())
    by_vertex = 1000 * np.linalg.norm(noise[counted], axis=-1).mean(axis=0)
    assert result["vertex"] == pytest.approx(by_vertex.max(), rel=1e-5)


def test_the_published_protocol_has_its_four_defects(world):
    split, oracle, _ = world
    split.rows["valid"][4] = 0
    split.rows["kp_3d"] += 100  # so that rounding to float16 shows
    rows = [*range(8), *range(9, 13)]
    pred = oracle.joints[rows]
    target = split.rows["kp_3d"][rows].astype(np.float16)
    result = evaluate(world, protocol="published")
    assert (result["frames"], result["frames_not_predicted"], result["frames_not_counted"]) == (
        12,
        4,
        0,
    )
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred, target).mean())
    assert result["accel"] == pytest.approx(metrics.accel(pred).mean())
    assert result["accel_error"] == pytest.approx(metrics.accel_error(pred, target).mean())
    rounded = true_verts(
        oracle.body, split.rows["theta"][rows].astype(np.float16).astype(np.float32)
    )
    assert result["pve"] == pytest.approx(
        metrics.pve(oracle.verts.detach().numpy()[rows], rounded).mean()
    )


def test_the_baseline_is_the_mean_body_standing_still(world):
    split, oracle, _ = world
    body = oracle.body
    mean = body(
        betas=body.mean_shape[None], rotmat=rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
    )
    joints = np.broadcast_to(body.common14(mean.verts).numpy(), (16, 14, 3))
    baseline = evaluate(world)["baseline"]
    assert baseline["mpjpe"] == pytest.approx(metrics.mpjpe(joints, split.rows["kp_3d"]).mean())
    assert baseline["accel"] == 0
    expected = metrics.pve(mean.verts.numpy(), true_verts(body, split.rows["theta"])).mean()
    assert baseline["pve"] == pytest.approx(expected, rel=1e-5)


def test_the_2d_pck_is_over_all_labelled_keypoints_of_valid_frames(world):
    split, oracle, _ = world
    split.rows["valid"][3] = 0
    split.rows["kp_2d"][:, ::2, 2] = 0
    split.rows["kp_2d"][7, 1:40, 2] = 0  # fewer keypoints weigh less
    right = total = apart = 0
    for row in set(range(16)) - {3}:
        known = split.rows["kp_2d"][row, :, 2] > 0
        label = split.rows["kp_2d"][row, known, :2]
        side = np.ptp(label, axis=0).max()
        away = np.hypot(*(oracle.kp_2d[row, known] - label).T)
        right, total = right + (away <= 0.05 * side).sum(), total + known.sum()
        apart += 50 * away.sum()  # % of the crop's side, which is 2
    result = evaluate(world)
    assert 0 < right < total
    assert result["pck_2d"] == pytest.approx(100 * right / total)
    assert result["frames_2d"] == 15
    validated = evaluate(world, protocol=protocols.VALIDATION_2D)["error_2d"]
    assert validated == pytest.approx(apart / total)
    # with the one that is not valid
    assert evaluate(world, protocol="published")["frames_2d"] == 12
    assert "pck_2d" not in evaluate(world, keypoints=False)


def test_a_metric_without_a_label_is_absent_and_the_others_are_the_same(world):
    split, *_ = world
    whole, quick = evaluate(world), evaluate(world, vertices=False)
    split.rows["w_smpl"][:] = 0
    unlabelled = evaluate(world)
    del whole["pve"], whole["baseline"]["pve"]
    baseline = pytest.approx(whole.pop("baseline"), rel=1e-6)
    del whole["protocol"], whole["label_body"]
    for found in (quick, unlabelled):
        assert found.pop("baseline") == baseline
        assert {name: found[name] for name in whole} == pytest.approx(whole, rel=1e-6)
        assert "pve" not in found
    split.rows["w_3d"][:] = 0
    for protocol in ("default", "published"):
        result = evaluate(world, protocol=protocol)
        assert result["frames"] == 0
        assert (
            {name for name in METRICS if name in result} == result["baseline"].keys() == {"pck_2d"}
        )
        assert result["frames_2d"] == result["frames_total"] - result["frames_not_predicted"]


@pytest.mark.parametrize("tracks", ["none of them", "v1/0"])
def test_a_split_without_a_single_window_has_counts_and_no_metric(tracks):
    split = MemorySplit(0, [9, 3], joints=14)
    options = replace(OPTIONS, tracks=tracks)
    result = evaluate_split(small_vibe(), split, options, protocol="published")
    assert result["frames"] == result["frames_2d"] == 0
    assert (
        result["frames_total"] == result["frames_not_predicted"] == (3 if tracks == "v1/0" else 0)
    )
    assert not set(METRICS) & set(result)
    assert result["baseline"] == {}


def test_demo_data_are_marked_and_never_meet_real_data():
    def run(body, *kinds):
        splits = {
            f"{i}/test": MemorySplit(i, [4], joints=14, stand_in=kind)
            for i, kind in enumerate(kinds)
        }
        return evaluate_all(small_vibe(body=TinyBody(body)), splits, EvalOptions(stream="resnet50"))

    assert run(True, True)["0/test"]["stand_in"] is True
    assert run(False, False)["0/test"]["stand_in"] is False
    with pytest.raises(StandInMixed):
        run(True, True, False)


def test_what_cannot_be_evaluated_is_refused(world):
    with pytest.raises(
        PipelineError,
        match=r"did you mean 'published'\? known: default, published, emdb, rich, hmmr",
    ):
        evaluate(world, protocol="publsihed")
    world[0].rows["features"][11, 0] = np.nan
    with pytest.raises(DataError, match="v1/0"):
        evaluate(world)
    with pytest.raises(DataError, match=r"kinetics/val.*3D labels"):
        choose_sigma(small_vibe(), {"kinetics/val": MemorySplit(0, [9], with_3d=False)}, OPTIONS)


# --------------------------------------------------------------------------------------------------
# smoothing


def test_all_protocols_come_from_one_pass_of_the_network(world):
    split, oracle, _ = world
    split.rows["kp_2d"][4, :, 2] = 0  # counts by one protocol, and by others not
    found = evaluate_all(oracle, {"3dpw/test": split}, OPTIONS)["3dpw/test"]
    # Tracks of 9 and 7 frames: two and one whole windows, and one that is moved back in each.
    assert sorted(oracle.windows) == [(0, 3), (4, 7), (5, 8), (9, 12), (12, 15)]
    published, hmmr = found.pop("published"), found.pop("hmmr")
    assert hmmr == evaluate(world, protocol="hmmr") | {"stand_in": True}
    assert found == evaluate(world) | {"stand_in": True}
    assert published == evaluate(world, protocol="published") | {"stand_in": True}


def test_the_sigma_that_is_best_in_validation_removes_the_noise_and_keeps_the_motion():
    n, body = 60, TinyBody()
    split = MemorySplit(0, [n])
    split.rows["features"][:, 0] = np.arange(n)
    # (n, 24) rad
    swing = 0.8 * torch.sin(2 * torch.pi * torch.arange(n)[:, None] / 20 + torch.arange(24))
    true = axis_angle_to_matrix(swing[..., None] * torch.tensor([0.0, 0.6, 0.8]))
    verts = body(betas=torch.zeros(n, 10), rotmat=true).verts
    split.rows["kp_3d"][:, 25:39] = body.common14(verts).numpy()
    noise = torch.randn(n, 24, 3, generator=torch.Generator().manual_seed(3)) * 0.2
    pose = matrix_to_axis_angle(true @ axis_angle_to_matrix(noise)).flatten(1)
    model = Bodies(body, torch.cat((torch.ones(n, 3), pose, torch.zeros(n, 10)), dim=1))
    options = EvalOptions(stream="resnet50")
    assert choose_sigma(model, {"a/val": split}, options, candidates=(0, 2, 30)) == 2
    assert model.n_windows == 4  # windows of 16
    errors = {}
    for sigma in (2, 30):
        alone = evaluate_split(model, split, replace(options, smoothed_too=sigma))
        errors[sigma] = alone["smoothed"]["pa_mpjpe"]
        whole = evaluate_all(model, {"3dpw/test": split}, replace(options, smoothed_too=sigma))
        for found in (whole["3dpw/test"], whole["3dpw/test"]["published"]):
            assert found["smoothed"].keys() == {"sigma", *METRICS} & {"sigma", *found}
            assert found["smoothed"]["accel"] < 0.5 * found["accel"]
    assert errors[2] < min(errors[30], alone["pa_mpjpe"])


# ------------------------------------------------------------------------------------ means,
# sequences


def test_one_call_leaves_metrics_sequences_and_predictions(tmp_path):
    splits = {
        "a/test": MemorySplit(1, [9, 3], joints=14),
        "b/test": MemorySplit(2, [9, 3], with_3d=False),
    }
    splits["a/test"].rows["valid"][[2, 11]] = 0
    folder, model = tmp_path / "run", small_vibe()
    found = evaluate_all(
        model,
        splits,
        OPTIONS,
        output=EvalOutput(folder=folder, predictions=True, about={"fingerprint": "0123"}),
    )
    sequences = read_file(folder / "sequences.json")["sequences"]
    tracks = [(split, track) for split in splits for track in ("v0/0", "v1/0")]
    assert [(row["split"], row["track"]) for row in sequences] == tracks
    assert [row["frames"] for row in sequences] == [8, 2, 0, 0]
    whole = found["a/test"]["pa_mpjpe"]
    assert (8 * sequences[0]["pa_mpjpe"] + 2 * sequences[1]["pa_mpjpe"]) / 10 == pytest.approx(
        whole
    )
    for row in sequences:
        with np.load(folder / row["predictions"]) as held:
            about = json.loads(str(held["about"]))
            assert held["frame_index"].tolist() == list(
                range(row["first_frame"], row["last_frame"] + 1)
            )
        assert (about["split"], about["track"]) == (row["split"], row["track"])
        assert about["fingerprint"] == "0123"
    assert evaluate_all(model, splits, OPTIONS) == found


def test_published_figures_are_those_of_the_papers_and_of_released_models():
    errors = {figures.model: figures.errors for figures in FIGURES if figures.split == "3dpw/test"}
    scores = {"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4}
    assert errors["VIBE, paper, with 3DPW train"] == scores
    scores = {"pa_mpjpe": 52.2, "mpjpe": 92.8, "pve": 106.1, "accel_error": 6.8}
    assert errors["part dynamics, paper"] == scores
    assert all(set(figures.errors) <= set(METRICS) for figures in FIGURES)
