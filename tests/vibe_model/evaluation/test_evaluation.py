import json

import numpy as np
import pytest
import torch

from vibe_model import VIBE, metrics
from vibe_model.errors import ConfigError, DataError, StandInMixed
from vibe_model.evaluation import evaluate as evaluation
from vibe_model.evaluation.windows import Present, select_tracks
from vibe_model.metrics import ERRORS
from vibe_model.networks.generator import Estimate
from vibe_model.rotations import axis_angle_to_matrix, rotation_6d_to_matrix


def cover(split, seqlen=4, drop_last=False):
    present = Present.of(split, "resnet50")
    planned = [present.windows(track, seqlen=seqlen, drop_last=drop_last) for track in split.tracks]
    windows = [window for of_track in planned for window in of_track]
    return windows, [row for window in windows for row in range(window.keep, window.stop)]


def test_every_frame_of_every_track_is_predicted_once(memory_split):
    split = memory_split(0, [8, 9, 3, 1, 5], joints=14, gaps=[10])
    windows, rows = cover(split)
    assert rows == list(range(26))
    assert max(window.stop - window.start for window in windows) == 4


def test_windows_and_runs_do_not_cross_tracks_gaps_or_rows_without_features(memory_split):
    split = memory_split(0, [6, 6], joints=14, gaps=[3], lacking=[8])
    windows, rows = cover(split)
    assert rows == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert {(w.start, w.stop) for w in windows} == {(0, 3), (3, 6), (6, 8), (9, 12)}


def test_the_published_windows_drop_each_tracks_last_frames_and_know_no_gaps(memory_split):
    split = memory_split(0, [9, 3, 8], joints=14, gaps=[2], lacking=[17])
    _, rows = cover(split, drop_last=True)
    assert rows == [*range(8), *range(12, 16)]


def test_tracks_are_chosen_by_a_pattern_of_their_names(memory_split):
    split = memory_split(0, [2, 2, 2])
    assert [track.name for track in select_tracks(split, "v[02]/*")] == ["v0/0", "v2/0"]


class Oracle(torch.nn.Module):
    """Stands in for VIBE: the features of a frame are its row number, and so is its camera; the body is looked up."""

    def __init__(self, body, verts, kp_2d):
        super().__init__()
        self.body = body
        self.verts = torch.nn.Parameter(torch.as_tensor(verts, dtype=torch.float32))
        self.kp_2d = kp_2d
        self.windows = []

    @property
    def joints(self):
        return self.body.common14(self.verts).detach().numpy()

    def regress(self, features):
        assert not self.training
        row = features[..., 0]
        self.windows += [tuple(window) for window in row[:, [0, -1]].long().tolist()]
        frames = row.shape
        camera = torch.stack((row, torch.zeros(frames), torch.zeros(frames)), dim=-1)
        return Estimate(torch.eye(3).expand(*frames, 24, 3, 3), torch.zeros(*frames, 10), camera)

    def pose(self, estimate, eval_joints=False, vertices=True):
        row = estimate.camera[..., 0].long()
        joints = self.body.common14(self.verts[row])
        out = {"kp_2d": torch.as_tensor(self.kp_2d)[row], "kp_3d": joints if eval_joints else None}
        return out | ({"verts": self.verts[row]} if vertices else {})


@pytest.fixture
def world(body, memory_split):
    split = memory_split(0, [9, 7], joints=14)
    split.rows["features"][:, 0] = np.arange(16)
    verts = true_verts(body, split.rows["theta"])
    random = np.random.default_rng(5)
    noise = random.normal(size=verts.shape) * 0.05
    kp_2d = split.rows["kp_2d"][..., :2] + np.float32(random.normal(size=(16, 49, 2)) * 0.1)
    return split, Oracle(body, verts + noise, kp_2d), noise


def true_verts(body, theta):
    theta = torch.tensor(theta)
    rotmat = axis_angle_to_matrix(theta[:, 3:75].reshape(-1, 24, 3))
    return body(betas=theta[:, 75:], rotmat=rotmat).verts.numpy()


def evaluate(world, **settings):
    split, oracle, _ = world
    return evaluation.evaluate_split(oracle, split, stream="resnet50", seqlen=4, **settings)


def test_the_metrics_are_means_over_all_frames(world):
    split, oracle, noise = world
    result = evaluate(world)
    pred, target = oracle.joints, split.rows["kp_3d"]
    assert result["frames"] == result["frames_total"] == 16
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred, target).mean())
    assert result["pa_mpjpe"] == pytest.approx(metrics.pa_mpjpe(pred, target).mean())
    assert result["pve"] == pytest.approx(1000 * np.sqrt(np.square(noise).sum(-1)).mean(), rel=1e-5)
    assert result["pck"] == pytest.approx(metrics.pck(pred, target))
    assert result["auc"] == pytest.approx(metrics.auc(pred, target))


def test_accelerations_stay_within_tracks(world):
    split, oracle, _ = world
    pred, target = oracle.joints, split.rows["kp_3d"]
    of_tracks = [metrics.accel_error(pred[part], target[part]) for part in (slice(0, 9), slice(9, 16))]
    assert evaluate(world)["accel_error"] == pytest.approx(np.concatenate(of_tracks).mean())


def test_frames_that_are_not_valid_or_not_labelled_do_not_count(world):
    split, oracle, _ = world
    split.rows["valid"][4] = 0
    split.rows["w_3d"][12] = 0
    split.rows["kp_3d"][[4, 12]] = 1e3
    counted = np.setdiff1d(np.arange(16), [4, 12])
    pred, target = oracle.joints, split.rows["kp_3d"]
    result = evaluate(world)
    assert (result["frames"], result["frames_not_counted"]) == (14, 2)
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred[counted], target[counted]).mean())
    stretches = (slice(0, 4), slice(5, 9), slice(9, 12), slice(13, 16))
    expected = np.concatenate([metrics.accel(pred[part]) for part in stretches]).mean()
    assert result["accel"] == pytest.approx(expected)


def test_the_published_protocol_has_its_four_defects(world):
    split, oracle, _ = world
    split.rows["valid"][4] = 0
    split.rows["kp_3d"] += 100  # so that rounding to float16 shows
    rows = [*range(8), *range(9, 13)]
    pred = oracle.joints[rows]
    target = split.rows["kp_3d"][rows].astype(np.float16)
    result = evaluate(world, protocol="published")
    assert (result["frames"], result["frames_not_predicted"], result["frames_not_counted"]) == (12, 4, 0)
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred, target).mean())
    assert result["accel"] == pytest.approx(metrics.accel(pred).mean())
    assert result["accel_error"] == pytest.approx(metrics.accel_error(pred, target).mean())
    rounded = true_verts(oracle.body, split.rows["theta"][rows].astype(np.float16).astype(np.float32))
    assert result["pve"] == pytest.approx(metrics.pve(oracle.verts.detach().numpy()[rows], rounded).mean())


def test_the_baseline_is_the_mean_body_standing_still(world, body):
    split, _, _ = world
    mean = body(betas=body.mean_shape[None], rotmat=rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6)))
    joints = np.broadcast_to(body.common14(mean.verts).numpy(), (16, 14, 3))
    baseline = evaluate(world)["baseline"]
    assert baseline["mpjpe"] == pytest.approx(metrics.mpjpe(joints, split.rows["kp_3d"]).mean())
    assert baseline["accel"] == 0
    assert baseline["pve"] > 0


def test_without_smpl_labels_there_is_no_pve(world):
    world[0].rows["w_smpl"][:] = 0
    result = evaluate(world)
    assert "pve" not in result
    assert "pve" not in result["baseline"]


def test_a_split_without_3d_labels_has_counts_and_only_the_2d_pck(world):
    world[0].rows["w_3d"][:] = 0
    for protocol in evaluation.PROTOCOLS:
        result = evaluate(world, protocol=protocol)
        assert result["frames"] == 0
        assert {name for name in ERRORS if name in result} == {"pck_2d"}
        assert result["baseline"].keys() == {"pck_2d"}
        assert result["frames_2d"] == result["frames_total"] - result["frames_not_predicted"]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_tracks_are_evaluated_too(body, memory_split, length):
    torch.manual_seed(0)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    result = evaluation.evaluate_split(model, memory_split(0, [length], joints=14), stream="resnet50")
    assert result["frames"] == length
    assert ("accel" in result) == (length == 3)


def test_the_batch_size_changes_nothing(body, memory_split):
    torch.manual_seed(0)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    split = memory_split(0, [9, 7, 3], joints=14)
    once, other = (
        evaluation.evaluate_split(model, split, stream="resnet50", seqlen=4, batch_size=size) for size in (1, 3)
    )
    assert once.pop("baseline") == pytest.approx(other.pop("baseline"))
    assert once.pop("protocol") == other.pop("protocol")
    assert once == pytest.approx(other, rel=1e-5)
    assert model.training  # as it was


def test_spin49_labels_are_compared_on_common14(body, memory_split):
    torch.manual_seed(0)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    wide, narrow = memory_split(0, [9]), memory_split(0, [9])
    narrow.rows["kp_3d"] = wide.rows["kp_3d"][:, 25:39]
    a, b = (evaluation.evaluate_split(model, split, stream="resnet50") for split in (wide, narrow))
    assert a == b


def test_stand_ins_say_so_and_never_meet_real_data(tiny_body, memory_split):
    def run(body_stands_in, *splits_stand_in):
        model = VIBE(tiny_body(body_stands_in), hidden_size=5, feature_size=6, regressor_size=7)
        splits = {f"{i}/test": memory_split(i, [4], joints=14, stand_in=kind) for i, kind in enumerate(splits_stand_in)}
        return evaluation.evaluate_all(model, splits, stream="resnet50")

    assert run(True, True, True)["1/test"]["stand_in"] is True
    assert run(False, False)["0/test"]["stand_in"] is False
    for mixture in ((True, False), (False, True), (True, True, False)):
        with pytest.raises(StandInMixed):
            run(*mixture)


def test_an_unknown_protocol_is_refused(world):
    with pytest.raises(ConfigError, match="default, published"):
        evaluate(world, protocol="reference")


def test_the_published_way_neighbours_are_still_known_to_smoothing(memory_split):
    split = memory_split(0, [9, 4], joints=14, gaps=[2])
    present = Present.of(split, "resnet50")
    rows = np.array([*range(8), *range(9, 13)])
    assert present.runs(rows).tolist() == [0, 0, *[1] * 6, *[2] * 4]
    assert present.runs(rows[:0]).tolist() == []


def test_the_2d_pck_is_over_all_labelled_keypoints_of_valid_frames(world):
    split, oracle, _ = world
    split.rows["valid"][3] = 0
    split.rows["kp_2d"][:, ::2, 2] = 0
    split.rows["kp_2d"][7, 1:40, 2] = 0  # fewer keypoints weigh less
    right = total = 0
    for row in set(range(16)) - {3}:
        known = split.rows["kp_2d"][row, :, 2] > 0
        label = split.rows["kp_2d"][row, known, :2]
        side = np.ptp(label, axis=0).max()
        away = np.hypot(*(oracle.kp_2d[row, known] - label).T)
        right, total = right + (away <= 0.05 * side).sum(), total + known.sum()
    result = evaluate(world)
    assert 0 < right < total
    assert result["pck_2d"] == pytest.approx(100 * right / total)
    assert result["frames_2d"] == 15
    assert evaluate(world, protocol="published")["frames_2d"] == 12  # with the one that is not valid
    assert "pck_2d" not in evaluate(world, keypoints=False)


def test_without_vertices_there_is_no_pve_and_the_rest_is_the_same(world):
    whole, quick = evaluate(world), evaluate(world, vertices=False)
    del whole["pve"], whole["baseline"]["pve"]
    assert quick.pop("baseline") == pytest.approx(whole.pop("baseline"), rel=1e-6)
    assert quick.pop("protocol") == whole.pop("protocol")
    assert quick == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("tracks", ["none of them", "v1/0"])
def test_a_split_without_a_single_window_has_counts_and_no_metric(body, memory_split, tracks):
    split = memory_split(0, [9, 3], joints=14)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    result = evaluation.evaluate_split(model, split, stream="resnet50", seqlen=4, protocol="published", tracks=tracks)
    assert result["frames"] == result["frames_2d"] == 0
    assert result["frames_total"] == result["frames_not_predicted"] == (3 if tracks == "v1/0" else 0)
    assert not set(ERRORS) & set(result)
    assert result["baseline"] == {}


def test_both_protocols_and_a_smoothed_one_come_of_one_pass_of_the_network(world):
    split, oracle, _ = world
    found = evaluation.evaluate_all(oracle, {"3dpw/test": split}, stream="resnet50", seqlen=4)["3dpw/test"]
    # Tracks of 9 and 7 frames: two and one whole windows, and one that is moved back in each.
    assert sorted(oracle.windows) == [(0, 3), (4, 7), (5, 8), (9, 12), (12, 15)]
    published = found.pop("published")
    assert found == evaluate(world) | {"stand_in": True}
    assert published == evaluate(world, protocol="published") | {"stand_in": True}


def test_smoothed_predictions_stand_beside_what_they_are_of(body, memory_split):
    torch.manual_seed(0)
    model, splits = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7), {"3dpw/test": memory_split(0, [9, 7])}
    options = {"stream": "resnet50", "seqlen": 4}
    torch.nn.init.normal_(model.regressor.decpose.weight)  # a start of its own would hardly move
    both = evaluation.evaluate_all(model, splits, **options, smoothed_too=1.5)["3dpw/test"]
    alone = evaluation.evaluate_all(model, splits, **options, smooth=1.5)["3dpw/test"]
    for beside, of_its_own in ((both, alone), (both["published"], alone["published"])):
        smoothed = beside["smoothed"]
        assert smoothed == {"sigma": 1.5} | {name: of_its_own[name] for name in ERRORS if name in of_its_own}
        assert smoothed["accel"] < 0.5 * beside["accel"]


class Trembling(torch.nn.Module):
    """Stands in for VIBE: the true, turning bodies with noise of its own in every frame."""

    def __init__(self, body, rotmat):
        super().__init__()
        self.body, self.rotmat = body, rotmat
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.network_runs = 0

    def regress(self, features):
        self.network_runs += len(features)
        row = features[..., 0].long()
        camera = torch.tensor([1.0, 0, 0]).expand(*row.shape, 3)
        return Estimate(self.rotmat[row], torch.zeros(*row.shape, 10), camera)

    pose = VIBE.pose


def test_the_sigma_that_validation_likes_best_takes_the_noise_and_leaves_the_motion(body, memory_split):
    n = 60
    split = memory_split(0, [n])
    split.rows["features"][:, 0] = np.arange(n)
    swing = 0.8 * torch.sin(2 * torch.pi * torch.arange(n)[:, None] / 20 + torch.arange(24))  # (n, 24) rad
    true = axis_angle_to_matrix(swing[..., None] * torch.tensor([0.0, 0.6, 0.8]))
    verts = body(betas=torch.zeros(n, 10), rotmat=true).verts
    split.rows["kp_3d"][:, 25:39] = body.common14(verts).numpy()
    noise = torch.randn(n, 24, 3, generator=torch.Generator().manual_seed(3)) * 0.2
    model = Trembling(body, true @ axis_angle_to_matrix(noise))
    best, by_sigma = evaluation.choose_sigma(
        model, {"3dpw/validation": split}, stream="resnet50", candidates=(0, 2, 30)
    )
    assert best == 2
    assert model.network_runs == 4  # windows of 16
    for sigma in (0, 2, 30):
        alone = evaluation.evaluate_split(model, split, stream="resnet50", smooth=sigma)
        assert by_sigma[sigma] == pytest.approx(alone["pa_mpjpe"])


def test_a_sigma_cannot_be_chosen_without_3d_labels_or_candidates(body, memory_split):
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    with pytest.raises(DataError, match=r"kinetics/val.*3D labels"):
        evaluation.choose_sigma(model, {"kinetics/val": memory_split(0, [9], with_3d=False)}, stream="resnet50")
    with pytest.raises(ConfigError, match="at least one"):
        evaluation.choose_sigma(model, {}, stream="resnet50", candidates=())


def test_predictions_that_are_not_finite_are_told_and_not_averaged(world):
    split, _, _ = world
    split.rows["features"][11, 0] = np.nan
    with pytest.raises(DataError, match="v1/0: expected finite predictions"):
        evaluate(world)


def test_metrics_are_strict_json(world):
    split, oracle, _ = world
    split.rows["w_smpl"][:] = 0
    split.rows["w_3d"][9:] = 0
    found = evaluation.evaluate_all(oracle, {"a/test": split}, stream="resnet50", tracks={"a/test": "v1/*"})
    assert json.loads(json.dumps(found, allow_nan=False))["a/test"]["frames"] == 0
