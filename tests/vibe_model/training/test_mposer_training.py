"""The motion prior's training: it learns, it can be killed anywhere, and it tells what went wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cache import CacheError
from tests.vibe_model.tiny_runs import (
    EPOCHS,
    ITERATIONS,
    assert_same_state,
    killed_at,
    prior_config,
    prior_splits,
    scalars,
    tensors,
)
from vibe_model import runs
from vibe_model.checkpoints import load_mposer
from vibe_model.errors import CheckpointError, ConfigError, StandInMixed, TrainingDiverged
from vibe_model.networks.mposer import matrices
from vibe_model.settings.mposer_config import MPoserConfig
from vibe_model.training import mposer
from vibe_model.training.data import Batch, Batches
from vibe_model.training.mposer import MPoserTrainer, held_out_errors, mean_rotations


@pytest.fixture
def config(tmp_path):
    return prior_config(tmp_path)


@pytest.fixture
def world(monkeypatch, memory_split):
    splits = prior_splits(memory_split)
    monkeypatch.setattr(runs, "open_splits", lambda config: splits)
    return splits


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, memory_split):
    """The folder of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "open_splits", lambda config: prior_splits(memory_split))
        return mposer.run(prior_config(tmp_path_factory.mktemp("undisturbed")))


def assert_same_run(folder, expected):
    # best.pt to the byte: a generator's run is named after it.
    for name in ("metrics.json", "best.pt"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert_same_state(folder / "last.pt", expected / "last.pt")


def test_a_run_leaves_what_it_promises(config, world):
    folder = mposer.run(config)
    assert folder == config.runs / f"mposer-{runs.fingerprint(config, world)}"
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "last.pt", "best.pt", "metrics.json"} < names
    assert not [name for name in names if name.endswith(".part")]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stand_in"] is True
    assert metrics["skipped_steps"] == 0
    assert metrics["v/val"]["windows"] == 2  # of nine frames; three are too few
    assert metrics["best"]["score"] == metrics["v/val"]["reconstruction_deg"]
    assert "u/val" not in metrics, "it has no labels to be compared with"
    about = json.loads((folder / "config.json").read_text())
    assert about["config"] == config.as_dict()
    assert about["inputs"].keys() == world.keys()
    prior = load_mposer(folder / "best.pt")
    assert (prior.latent_size, prior.stand_in) == (3, True)
    assert str(config.runs).encode() not in (folder / "best.pt").read_bytes()
    tags = {tag for tag, _ in scalars(folder)}
    losses = {"train/reconstruction", "train/kl", "train/total", "gradient/mposer", "learning_rate/mposer"}
    assert tags == losses | {"validation/v/val/reconstruction_deg", "validation/v/val/mean_pose_deg"}


def test_a_few_steps_reconstruct_periodic_motion_better_than_its_mean_pose(config, world):
    for split in world.values():
        phase = np.arange(len(split.rows["theta"])) / 3
        split.rows["theta"][:, 6:75] = 0.6 * np.sin(phase[:, None] + np.arange(69) % 5)
        split.rows["w_smpl"][:] = 1
    folder = mposer.run(replace(config, hidden_size=24, iterations=60, batch_size=8, kl_weight=1e-6))
    metrics = json.loads((folder / "metrics.json").read_text())
    for split in ("v/val", "u/val"):
        assert metrics[split]["reconstruction_deg"] < 0.6 * metrics[split]["mean_pose_deg"]


def test_the_mean_pose_is_the_rotation_nearest_to_the_mean_matrix(config, world):
    batches = Batches(config, world)
    theta = [batches.at(step).real_theta for step in range(3)]
    rotations = Rotation.from_rotvec(np.concatenate(theta)[..., 6:75].reshape(-1, 3))
    by_joint = [rotations[joint::23].mean().as_matrix() for joint in range(23)]
    np.testing.assert_allclose(mean_rotations(batches, 3), by_joint, atol=1e-5)


def test_held_out_errors_are_mean_angles_of_windows_with_labels_in_every_frame(config, world):
    split = world["v/val"]
    split.rows["theta"][:, 3:75] = 0
    split.rows["theta"][4:8, 6] = np.pi / 2  # a quarter turn of one joint of 23, in the second window alone
    prior = MPoserTrainer(config).prior
    rest = torch.eye(3).expand(23, 3, 3)
    found = held_out_errors(prior, rest, config, world)["v/val"]
    assert found["mean_pose_deg"] == pytest.approx(90 / 23 / 2, rel=1e-5)
    decoded, _ = prior(torch.as_tensor(split.rows["theta"][:8, 6:75]).reshape(2, 4, 69))
    labels = matrices(torch.as_tensor(split.rows["theta"][:8])).reshape(2, 4, 23, 3, 3)
    relative = Rotation.from_matrix((decoded.transpose(-1, -2) @ labels).detach().reshape(-1, 3, 3))
    assert found["reconstruction_deg"] == pytest.approx(np.rad2deg(relative.magnitude().mean()), rel=1e-4)
    split.rows["w_smpl"][5] = 0
    found = held_out_errors(prior, rest, config, world)["v/val"]
    assert (found["mean_pose_deg"], found["windows"]) == (0, 1)


def test_without_labelled_validation_the_training_loss_tells_the_best_epoch(config, world):
    folder = mposer.run(replace(config, validation=("u/val",)))
    history = torch.load(folder / "last.pt", weights_only=True)["course"]["history"]
    losses = [sum(entry["losses"].values()) for entry in history]
    best = json.loads((folder / "metrics.json").read_text())["best"]
    assert best == {"epoch": int(np.argmin(losses)), "score": min(losses)}


def test_the_learning_rate_falls_when_the_score_stalls(config, world, monkeypatch):
    still = {"v/val": {"reconstruction_deg": 5.0, "mean_pose_deg": 9.0, "windows": 1}}
    monkeypatch.setattr(mposer, "held_out_errors", lambda *_: still)
    folder = mposer.run(replace(config, epochs=3, plateau_patience=0))
    history = torch.load(folder / "last.pt", weights_only=True)["course"]["history"]
    np.testing.assert_allclose([entry["learning_rates"]["mposer"] for entry in history], [1e-2, 1e-3, 1e-4])
    assert torch.load(folder / "best.pt", weights_only=True)["epoch"] == 0  # no better is not better


@pytest.mark.parametrize("kill_at", range(1, EPOCHS * (ITERATIONS + 1) + 1))
def test_killed_after_any_step_it_ends_with_the_same_bits_and_curves(config, world, undisturbed, tmp_path, kill_at):
    folder = killed_at(mposer.run, config, kill_at, tmp_path / "left")
    assert mposer.run(config) == folder
    assert_same_run(folder, undisturbed)
    assert scalars(folder) == scalars(undisturbed)


def test_each_step_draws_noise_of_its_own(config, world):
    trainer = MPoserTrainer(config)
    noises = []
    trainer.prior.register_forward_pre_hook(lambda _, given: noises.append(given[1]))
    theta = world["m/train"].read([(0, 4), (5, 9)], None, fields=("theta",))["theta"]
    for _ in range(2):
        trainer.train_step(Batch({}, torch.as_tensor(theta)))
    again = MPoserTrainer(replace(config, seed=1))
    again.prior.register_forward_pre_hook(lambda _, given: noises.append(given[1]))
    again.train_step(Batch({}, torch.as_tensor(theta)))
    assert noises[0].shape == (2, 3)
    assert len({tuple(noise.flatten().tolist()) for noise in noises}) == 3


def test_a_step_without_a_finite_loss_updates_nothing_and_is_counted(config, world):
    world["m/train"].rows["theta"][0, 10] = np.nan  # in some batches
    news = []
    folder = mposer.run(config, progress=lambda n: news.append(n.terms is None and not n.validation))
    skipped = json.loads((folder / "metrics.json").read_text())["skipped_steps"]
    assert skipped == sum(news)
    assert 0 < skipped < EPOCHS * ITERATIONS
    state = tensors(torch.load(folder / "last.pt", weights_only=True))
    assert all(torch.isfinite(value).all() for value in state.values() if isinstance(value, torch.Tensor))


def test_losses_that_stay_non_finite_stop_training_with_the_last_good_state(config, world):
    def spoil(news):
        if (news.epoch, news.iteration) == (1, 1):
            world["m/train"].rows["theta"][:] = np.nan

    with pytest.raises(TrainingDiverged, match="2 steps in a row"):
        mposer.run(replace(config, max_non_finite=2, checkpoint_every=1000), progress=spoil)
    (last,) = config.runs.glob("*/last.pt")
    state = torch.load(last, weights_only=True)
    # The batch that was read ahead may have been good still.
    assert state["course"]["step"] - state["course"]["skipped"] in (5, 6)
    assert all(torch.isfinite(v).all() for v in tensors(state).values() if isinstance(v, torch.Tensor))


def test_motion_without_one_finite_number_gives_no_prior(config, world):
    world["m/train"].rows["theta"][:] = np.nan
    with pytest.raises(TrainingDiverged, match="no step had a finite loss"):
        mposer.run(replace(config, validation=(), max_non_finite=1000))
    assert not list(config.runs.glob("*/best.pt"))


def test_a_damaged_or_foreign_state_is_refused(config, world):
    folder = mposer.run(config)
    (folder / "metrics.json").unlink()
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save({**state, "fingerprint": "other"}, folder / "last.pt")
    with pytest.raises(CheckpointError, match="other"):
        mposer.run(config)
    torch.save({"fingerprint": state["fingerprint"], "course": {}}, folder / "last.pt")
    with pytest.raises(CheckpointError, match="mposer_state_dict"):
        mposer.run(config)
    (folder / "last.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        mposer.run(config)


def test_stand_in_motion_and_real_motion_are_not_mixed(config, world, memory_split):
    world["v/val"] = memory_split(2, [9], stand_in=False)
    with pytest.raises(StandInMixed, match=r"split m/train, split u/val\).*real data \(split v/val"):
        mposer.run(config)


def test_motion_without_a_window_is_told(config, world):
    with pytest.raises(CacheError, match="expected windows of 40 frames"):
        mposer.run(replace(config, seqlen=40))


def test_the_fingerprint_covers_what_changes_numbers_and_nothing_else(config, world, memory_split, tmp_path):
    name = runs.fingerprint(config, world)
    for setting, value in {"name": "x", "runs": tmp_path, "cache": tmp_path, "checkpoint_every": 7}.items():
        assert runs.fingerprint(replace(config, **{setting: value}), world) == name
    other = {"seed": 1, "kl_weight": 1.0, "latent_size": 4, "seqlen": 5, "validation": (), "strides": {"m/train": 3}}
    names = {runs.fingerprint(replace(config, **{s: v}), world) for s, v in other.items()}
    assert len(names | {name}) == len(other) + 1
    assert runs.fingerprint(config, world | {"m/train": memory_split(1, [12, 8])}) != name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"latent_size": 0}, "latent_size: expected more than 0, found 0"),
        ({"lr": float("nan")}, "lr: expected float, found nan"),
        ({"kl_weight": -1.0}, "kl_weight: expected 0 or more, found -1.0"),
        ({"plateau_factor": 1.0}, "plateau_factor: expected 0 or more and less than 1"),
        ({"strides": {"m/train": 0}}, "strides: expected more than 0 for m/train"),
        ({"motion": ()}, "motion: expected splits of real motion"),
        ({"tail": "wag"}, "tail: expected one of drop, cover, found 'wag'"),
        ({"name": "a/b"}, "name: expected the name of a folder, found 'a/b'"),
    ],
)
def test_a_setting_out_of_range_is_told_by_name(given, told) -> None:
    with pytest.raises(ConfigError, match=told):
        MPoserConfig(**given)
