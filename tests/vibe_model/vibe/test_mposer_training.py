"""What the motion prior's training computes: its noise, its errors on held-out motion, its best
epoch.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pipeline.errors import TrainingDiverged
from tests.results import read_file
from tests.vibe_model.builders import rotations_of
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.vibe import mposer_training
from vibe_model.vibe.mposer_training import _held_out_errors, _mean_rotations, _MPoserTrainer


@pytest.fixture
def kind():
    return "prior"


def test_the_mean_pose_is_the_rotation_nearest_to_the_mean_matrix(config, splits):
    batches = TrainingBatches(config, splits)
    theta = np.concatenate([batches[step].real_theta for step in range(3)])
    rotations = Rotation.from_rotvec(theta[..., 6:75].reshape(-1, 3))
    by_joint = [rotations[joint::23].mean().as_matrix() for joint in range(23)]
    assert_allclose(_mean_rotations(batches, 3), by_joint, atol=1e-5)


def test_held_out_errors_are_mean_angles_of_windows_with_labels_in_every_frame(config, splits):
    split = splits["v/val"]
    split.rows["theta"][:, 3:75] = 0
    # a quarter turn of one joint of 23, in the second window alone
    split.rows["theta"][4:8, 6] = np.pi / 2
    prior = _MPoserTrainer(config).prior
    rest = torch.eye(3).expand(23, 3, 3)
    found = _held_out_errors(prior, rest, config, splits)["v/val"]
    assert found.mean_pose_deg == pytest.approx(90 / 23 / 2, rel=1e-5)
    decoded, _ = prior(torch.as_tensor(split.rows["theta"][:8, 6:75]).reshape(2, 4, 69))
    turns = rotations_of(split.rows["theta"][:8, 6:75]).reshape(2, 4, 23, 3, 3)
    labels = torch.as_tensor(turns, dtype=torch.float32)
    relative = Rotation.from_matrix((decoded.transpose(-1, -2) @ labels).detach().reshape(-1, 3, 3))
    assert found.reconstruction_deg == pytest.approx(
        np.rad2deg(relative.magnitude().mean()), rel=1e-4
    )
    split.rows["w_smpl"][5] = 0
    found = _held_out_errors(prior, rest, config, splits)["v/val"]
    assert (found.mean_pose_deg, found.windows) == (0, 1)


def test_without_labelled_validation_the_training_loss_decides_the_best_epoch(config, splits):
    folder = mposer_training.run(replace(config, validation=("u/val",)))
    history = read_file(folder / "last.pt")["training"]["history"]
    losses = [sum(entry["losses"].values()) for entry in history]
    found = read_file(folder / "metrics.json")["best"]
    assert found == {"epoch": int(np.argmin(losses)), "score": min(losses)}


def test_its_terms_are_the_mean_squared_error_of_the_rotations_and_the_weighted_divergence(
    config, splits
):
    trainer, decoded = _MPoserTrainer(replace(config, kl_weight=0.5)), []
    trainer.prior.register_forward_hook(lambda *given: decoded.append(given[-1]))
    theta = torch.as_tensor(
        splits["m/train"].read([(0, 4), (5, 9)], None, fields=("theta",))["theta"]
    )
    terms = trainer.losses(TrainingBatch({}, theta))
    ((rotmat, code),) = decoded
    apart = rotmat.detach().numpy() - rotations_of(theta[..., 6:75])
    assert float(terms["reconstruction"].detach()) == pytest.approx(
        float(np.square(apart).mean()), rel=1e-5
    )
    assert float(terms["kl"].detach()) == pytest.approx(float(code.kl_divergence().detach()) / 2)


def test_each_step_draws_noise_of_its_own(config, splits):
    noises = []
    theta = splits["m/train"].read([(0, 4), (5, 9)], None, fields=("theta",))["theta"]
    for seed, n_steps in ((config.seed, 2), (1, 1)):
        trainer = _MPoserTrainer(replace(config, seed=seed))
        trainer.prior.register_forward_pre_hook(lambda _, given: noises.append(given[1]))
        for _ in range(n_steps):
            trainer.train_step(TrainingBatch({}, torch.as_tensor(theta)))
    assert noises[0].shape == (2, 3)
    assert len({tuple(noise.flatten().tolist()) for noise in noises}) == 3


def test_motion_without_one_finite_number_gives_no_prior(config, splits):
    splits["m/train"].rows["theta"][:] = np.nan
    with pytest.raises(TrainingDiverged, match="no step had a finite loss"):
        mposer_training.run(replace(config, validation=(), max_non_finite=1000))
    assert not list(config.runs.glob("*/best.pt"))
