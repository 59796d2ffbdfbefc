import numpy as np
import pytest
import torch

from vibe_model import VIBE, evaluation, metrics
from vibe_model.errors import ConfigError, StandInMixed
from vibe_model.eval_windows import plan_windows, select_tracks
from vibe_model.rotations import axis_angle_to_matrix


def cover(split, seqlen=4, drop_last=False):
    windows = plan_windows(split, split.tracks, stream="resnet50", seqlen=seqlen, drop_last=drop_last)
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
    assert len({w.run for w in windows}) == 4


def test_the_published_windows_drop_each_tracks_last_frames_and_know_no_gaps(memory_split):
    split = memory_split(0, [9, 3, 8], joints=14, gaps=[2], lacking=[17])
    _, rows = cover(split, drop_last=True)
    assert rows == [*range(8), *range(12, 16)]


def test_tracks_are_chosen_by_a_pattern_of_their_names(memory_split):
    split = memory_split(0, [2, 2, 2])
    assert [track.name for track in select_tracks(split, "v[02]/*")] == ["v0/0", "v2/0"]


class Oracle(torch.nn.Module):
    """Stands in for VIBE: the features of a frame are its row number; the prediction is looked up."""

    def __init__(self, body, joints, verts):
        super().__init__()
        self.body = body
        self.joints, self.verts = (torch.nn.Parameter(torch.as_tensor(x, dtype=torch.float32)) for x in (joints, verts))

    def forward(self, features, eval_joints=False):
        assert eval_joints
        assert not self.training
        row = features[..., 0].long()
        return {"kp_3d": self.joints[row], "verts": self.verts[row]}


@pytest.fixture
def world(body, memory_split):
    split = memory_split(0, [9, 7], joints=14)
    split.rows["features"][:, 0] = np.arange(16)
    theta = torch.tensor(split.rows["theta"])
    rotmat = axis_angle_to_matrix(theta[:, 3:75].reshape(-1, 24, 3))
    verts = body(betas=theta[:, 75:], rotmat=rotmat).verts.numpy()
    noise = np.random.default_rng(5).normal(size=(16, 14, 3)) * 0.05
    return split, Oracle(body, split.rows["kp_3d"] + noise, verts + np.array([0.003, 0.004, 0])), noise


def evaluate(world, **settings):
    split, oracle, _ = world
    return evaluation.evaluate_split(oracle, split, stream="resnet50", seqlen=4, **settings)


def test_the_metrics_are_means_over_all_frames(world):
    split, oracle, _ = world
    result = evaluate(world)
    pred, target = oracle.joints.detach().numpy(), split.rows["kp_3d"]
    assert result["frames"] == result["frames_total"] == 16
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred, target).mean())
    assert result["pa_mpjpe"] == pytest.approx(metrics.pa_mpjpe(pred, target).mean())
    assert result["pve"] == pytest.approx(5, rel=1e-3)
    assert result["pck"] == pytest.approx(metrics.pck(pred, target))
    assert result["auc"] == pytest.approx(metrics.auc(pred, target))


def test_accelerations_stay_within_tracks(world):
    split, oracle, _ = world
    pred, target = oracle.joints.detach().numpy(), split.rows["kp_3d"]
    of_tracks = [metrics.accel_error(pred[part], target[part]) for part in (slice(0, 9), slice(9, 16))]
    assert evaluate(world)["accel_error"] == pytest.approx(np.concatenate(of_tracks).mean())


def test_frames_that_are_not_valid_or_not_labelled_do_not_count(world):
    split, oracle, _ = world
    split.rows["valid"][4] = 0
    split.rows["w_3d"][12] = 0
    split.rows["kp_3d"][[4, 12]] = 1e3
    counted = np.setdiff1d(np.arange(16), [4, 12])
    pred, target = oracle.joints.detach().numpy(), split.rows["kp_3d"]
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
    pred = oracle.joints.detach().numpy()[rows]
    target = split.rows["kp_3d"][rows].astype(np.float16)
    result = evaluate(world, protocol="published")
    assert (result["frames"], result["frames_not_predicted"], result["frames_not_counted"]) == (12, 4, 0)
    assert result["mpjpe"] == pytest.approx(metrics.mpjpe(pred, target).mean())
    assert result["accel"] == pytest.approx(metrics.accel(pred).mean())
    assert result["accel_error"] == pytest.approx(metrics.accel_error(pred, target).mean())
    theta = torch.tensor(split.rows["theta"][rows]).half().float()
    body = oracle.body(betas=theta[:, 75:], rotmat=axis_angle_to_matrix(theta[:, 3:75].reshape(-1, 24, 3)))
    assert result["pve"] == pytest.approx(metrics.pve(oracle.verts.detach().numpy()[rows], body.verts.numpy()).mean())


def test_the_baseline_is_the_mean_body_standing_still(world, body):
    from vibe_model.rotations import rotation_6d_to_matrix

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


def test_a_split_without_any_label_has_counts_and_no_metric(world):
    world[0].rows["w_3d"][:] = 0
    for protocol in evaluation.PROTOCOLS:
        result = evaluate(world, protocol=protocol)
        assert result["frames"] == 0
        assert "mpjpe" not in result


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
        return evaluation.evaluate(model, splits, stream="resnet50")

    assert run(True, True, True)["1/test"]["stand_in"] is True
    assert run(False, False)["0/test"]["stand_in"] is False
    for mixture in ((True, False), (False, True), (True, True, False)):
        with pytest.raises(StandInMixed):
            run(*mixture)


def test_an_unknown_protocol_is_refused(world):
    with pytest.raises(ConfigError, match="default, published"):
        evaluate(world, protocol="reference")
