"""Pr-VIPE's poses, cameras, retrieval and training, on random poses of a body of 30 vertices."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from pipeline.errors import DataError, StandInMixed
from pipeline.people.skeletons import KEYPOINTS_13, joint_names
from tests.results import read_file
from tests.vibe_model.builders import MemorySplit, TinyBody
from tests.vibe_model.training.tiny_runs import assert_same_run, killed_at, without_files
from vibe_model.metrics import normalise_13, np_mpjpe
from vibe_model.part_dynamics.config import PRESETS
from vibe_model.part_dynamics.pr_vipe import retrieval, training
from vibe_model.part_dynamics.pr_vipe.config import PrVIPEConfig
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.part_dynamics.pr_vipe.poses import PoseSet, _parse_recording
from vibe_model.part_dynamics.pr_vipe.retrieval import (
    _flat_distances,
    _has_foreshortened_limb,
    render_views,
)

NOSE = [joint_names("spin49").index(name) for name in ("nose", "OP Nose")]
HIPS = [KEYPOINTS_13.index(name) for name in ("lhip", "rhip")]


def filmed(seed, cameras=2, **options):
    """Tracks of 5 frames of one sequence: the same poses, seen by several cameras."""
    split = MemorySplit(seed, [5] * cameras, **options)
    split.tracks[:] = [
        track._replace(name=f"S1/Walking 1.{60 + i}/0") for i, track in enumerate(split.tracks)
    ]
    split.frame_index = np.tile(np.arange(5), cameras)
    for name in ("kp_3d", "theta"):
        split.rows[name][:] = np.tile(
            split.rows[name][:5], (cameras, *[1] * (split.rows[name].ndim - 1))
        )
    return split


@pytest.fixture
def splits(monkeypatch):
    found = {
        "amass/train": MemorySplit(3, [9, 12, 7, 8]),
        "h36m/train": filmed(4),
        "h36m/val": filmed(5),
    }
    without_files(monkeypatch, found)
    monkeypatch.setattr(training, "load_body", lambda folder: TinyBody())
    return found


def tiny(root, **changes):
    sizes = {
        "size": 4,
        "hidden_size": 8,
        "samples": 3,
        "batch_size": 6,
        "iterations": 4,
        "epochs": 2,
    }
    places = {"runs": root / "runs", "cache": root / "cache"}
    options = {
        "poses_3d": ("h36m/train",),
        "stride": 1,
        "held_out": 0.3,
        "checkpoint_every": 3,
        "device": "cpu",
    }
    return PrVIPEConfig(**sizes | places | options | {"threads": 1} | changes)


def read(split, name="h36m/train", **options):
    chosen = {"stride": 1, "z_up": False, "tracks": np.ones(len(split.tracks), bool)} | options
    return PoseSet.read(split, name, TinyBody(), **chosen)


# --------------------------------------------------------------------------------------------------
# poses


def test_poses_are_of_smpl_where_it_is_labelled_and_else_of_3d_joints():
    split = MemorySplit(1, [6])
    split.rows["w_smpl"][3:] = 0
    split.rows["w_3d"][5] = 0
    split.rows["kp_3d"][:, NOSE] = 0
    found = read(split)
    # the last has no label
    assert found.shown[:, KEYPOINTS_13.index("nose")].tolist() == [True] * 3 + [False] * 2
    names = [joint_names("spin49").index(name) for name in KEYPOINTS_13]
    expected = split.rows["kp_3d"][4, names]
    assert_allclose(found.poses[4, 1:], normalise_13(expected)[1:], atol=1e-6)
    assert_allclose(found.poses[:, HIPS].mean(1), 0, atol=1e-6)
    upright = read(split, z_up=True).poses
    assert_allclose(upright, found.poses[..., [0, 2, 1]] * [1, -1, 1], atol=1e-6)


def test_every_so_many_frames_of_the_chosen_tracks_are_read():
    split = MemorySplit(1, [7, 9], gaps=(3,))  # frames 0 1 2 4 5 6 7, 8 ... 16
    assert len(read(split, stride=4)) == 2 + 3
    assert len(read(split, stride=4, tracks=np.array([False, True]))) == 3
    halved = MemorySplit(1, [8])  # every second frame of a video: 0 2 ... 14
    halved.tracks[0] = halved.tracks[0]._replace(step=2)
    halved.frame_index = 2 * np.arange(8)
    assert len(read(halved, stride=4)) == 2
    split.rows["theta"][:] = np.nan
    assert len(read(split)) == 0


@pytest.mark.parametrize(
    ("split", "track", "expected"),
    [
        ("h36m/val", "S9/Posing 1.55011271/0", ("S9/Posing 1", "55011271")),
        ("mpi_inf_3dhp/train", "S2/Seq1/video_10/0", ("S2/Seq1", "10")),
        ("3dpw/train", "courtyard_walking_00/0", None),
    ],
)
def test_tracks_of_one_sequence_differ_by_camera(split, track, expected):
    assert _parse_recording(split, track) == expected


def test_real_pairs_are_of_one_instant_and_two_cameras():
    split = filmed(1, cameras=3)
    torso = [joint_names("spin49").index(name) for name in ("lhip", "OP LHip")]
    split.rows["kp_2d"][np.ix_([2, 7], torso, [2])] = 0  # frame 2 is left to one camera
    found = read(split)
    assert sorted(map(tuple, found.instants)) == [(0, 5, 10), (1, 6, 11), (3, 8, 13), (4, 9, 14)]
    drawn = found.draw(40, 0.5, seed=0, step=7)
    assert (drawn["poses"].shape, drawn["kp_2d"].shape) == ((40, 13, 3), (20, 2, 13, 3))
    place = {found.kp_2d[row].tobytes(): row for row in range(len(found))}
    for first, second in drawn["kp_2d"]:
        a, b = place[first.tobytes()], place[second.tobytes()]
        assert a % 5 == b % 5
        assert a != b
    assert_array_equal(found.draw(40, 0.5, seed=0, step=7)["poses"], drawn["poses"])
    assert (found.draw(40, 0.5, seed=0, step=8)["poses"] != drawn["poses"]).any()
    assert len(read(MemorySplit(2, [4])).draw(5, 0.5, seed=0, step=0)["kp_2d"]) == 0


# --------------------------------------------------------------------------------------------------
# cameras


def test_a_made_up_camera_turns_a_pose_and_projects_it():
    torch.manual_seed(0)
    poses = torch.tensor(normalise_13(default_rng(0).normal(size=(200, 13, 3)) * 0.2))
    view = render_views(poses, torch.ones(200, 13, dtype=torch.bool), depth=4.0)
    assert_allclose(np_mpjpe(poses.numpy(), view.poses.numpy()), 0, atol=1e-7)
    x, y, z = view.poses.unbind(-1)
    assert_array_equal(view.keypoints[..., 2], z + 4 > 0.25)
    there = view.keypoints[..., 2] > 0
    assert_allclose(view.keypoints[..., 0][there], (x / (z + 4))[there])
    assert_allclose(view.keypoints[..., 1][there], (y / (z + 4))[there])
    # a point below the hips stays below
    upright = poses.new_tensor((0.0, 1.0, 0.0)).expand(200, 13, 3)
    below = render_views(upright, torch.ones(200, 13, dtype=torch.bool), depth=4.0).poses[:, 0, 1]
    assert below.min() > math.cos(math.radians(30)) ** 2 - 1e-6
    assert below.min() < 0.8


def test_a_limb_that_points_at_the_camera_is_foreshortened():
    pose = torch.randn(1, 13, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 1.0, 0.0]
    )
    assert not _has_foreshortened_limb(pose, 50.0)
    wrist, elbow = KEYPOINTS_13.index("lwrist"), KEYPOINTS_13.index("lelbow")
    pose[0, wrist] = pose[0, elbow] + torch.tensor([0.0, 0.2, -1.0])  # 11 degrees beside
    assert _has_foreshortened_limb(pose, 50.0)


# --------------------------------------------------------------------------------------------------
# retrieval


def test_hits_are_counted_among_the_nearest():
    distances = np.array([[1.0, 2.0, 3.0, *range(4, 24)], [3.0, 2.0, 1.0, *range(4, 24)]])
    poses = np.full((2, 23), 0.5)
    poses[0, 0], poses[1, 9] = 0.1, 0.05  # the nearest; the tenth
    assert retrieval._hits(distances, poses) == {"hit_1": 50, "hit_10": 100, "hit_20": 100}
    poses[1, 9], poses[1, 22] = 0.5, 0.0  # beyond the twentieth
    assert retrieval._hits(distances, poses) == {"hit_1": 50, "hit_10": 50, "hit_20": 50}


def test_keypoints_are_compared_after_the_best_similarity_in_the_picture():
    random = default_rng(0)
    points, others = random.normal(size=(2, 3, 13, 2))
    turned = 2.5 * points @ [[0, 1], [-1, 0]] + 7
    assert_allclose(np.diag(_flat_distances(turned, points)), 0, atol=1e-12)
    source, goal = points[1] - points[1].mean(0), others[2] - others[2].mean(0)
    # as it is, a quarter turn on
    columns = np.stack([source.ravel(), (source @ [[0, 1], [-1, 0]]).ravel()], axis=1)
    fit = (columns @ np.linalg.lstsq(columns, goal.ravel())[0]).reshape(13, 2)
    assert _flat_distances(points, others)[1, 2] == pytest.approx(
        np.linalg.norm(fit - goal, axis=1).mean()
    )


# --------------------------------------------------------------------------------------------------
# training


def test_a_killed_run_ends_with_the_same_bits_and_held_out_tracks_are_not_trained_on(
    splits, tmp_path
):
    expected = training.run(tiny(tmp_path / "whole"))
    config = tiny(tmp_path / "killed")
    killed_at(training.run, config, 6, tmp_path / "aside")
    assert_same_run(training.run(config), expected)
    metrics = read_file(expected / "metrics.json")
    assert metrics["stand_in"]
    assert set(metrics["h36m/val"]) >= {"hit_1", "procrustes_hit_20", "cameras_hit_10", "std_other"}
    n_held_out = metrics["amass/train"]["poses"]
    n_train = read_file(expected / "config.json")["trained_on"]
    assert n_train == {"poses": 36 - n_held_out + 10, "instants": 5}
    assert 0 < n_held_out < 36
    best = read_file(expected / "best.pt")
    PrVIPE(4, best["pr_vipe_state_dict"]["stem.linear.bias"].numel()).load_state_dict(
        best["pr_vipe_state_dict"]
    )
    assert best["stand_in"]


def test_the_average_follows_the_weights_and_the_rate_a_cosine(splits, tmp_path):
    trainer = training._PrVIPETrainer(tiny(tmp_path, average=0.5))
    drawn = read(splits["h36m/train"]).draw(6, 0.5, 0, 0)
    batch = SimpleNamespace(
        labels={name: torch.as_tensor(values) for name, values in drawn.items()}
    )
    mean = {name: value.clone() for name, value in trainer.average.state_dict().items()}
    for decay in (2 / 11, 3 / 12):
        assert trainer.train_step(batch).good
        for name, value in trainer.embedding.state_dict().items():
            mean[name] = (
                decay * mean[name] + (1 - decay) * value if value.is_floating_point() else value
            )
            assert_close(trainer.average.state_dict()[name], mean[name].to(value.dtype))
    rate = trainer.learning_rates()["pr_vipe_optimizer"]
    # of step 1 of 8
    assert rate == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 8)) / 2)
    adagrad = training._PrVIPETrainer(tiny(tmp_path, optimiser="adagrad", lr=0.02))
    assert adagrad.train_step(batch).good
    assert adagrad.learning_rates()["pr_vipe_optimizer"] == 0.02


def test_data_that_cannot_be_trained_on_are_refused(splits, tmp_path):
    for preset in PRESETS.values():
        assert preset(batch_size=3).batch_size == 3
    for name in ("amass/train", "h36m/train"):
        splits[name].rows["w_smpl"][:] = splits[name].rows["w_3d"][:] = 0
    with pytest.raises(DataError, match="expected frames with SMPL or 3D labels"):
        training.run(tiny(tmp_path))
    splits["h36m/val"].manifest["stand_in"] = False
    with pytest.raises(StandInMixed):
        training.run(tiny(tmp_path))
