"""HMMR's training: its gradients, its poses, what a run leaves, that it resumes exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from pipeline.people.rotations import axis_angle_to_matrix
from tests.vibe_model.training.tiny_runs import first_batch, gradients
from vibe_model import models
from vibe_model.hmmr import losses as hmmr_losses
from vibe_model.hmmr.config import VARIANTS
from vibe_model.training.data import TrainingBatches


@pytest.fixture
def kind():
    return "hmmr"


def test_a_step_has_the_terms_and_gradients_of_the_definition(config, splits):
    trainer, batch = first_batch(replace(config, dropout=0.0, adversarial_weight=3.0), splits)
    generator, discriminator = trainer.generator.eval(), trainer.discriminator
    terms = trainer.losses(batch)
    found = gradients(terms.values(), generator, discriminator)

    weights = {**hmmr_losses.WEIGHTS, "adversarial": 3.0}
    sets = generator.sets(batch.labels["features"].float())
    expected = hmmr_losses.supervised(sets, batch.labels, optimal_camera="trace", weights=weights)
    fake = sets.rotations
    expected["adversarial"] = 3 * hmmr_losses.adversarial(discriminator(fake))
    by_definition = gradients(expected.values(), generator)
    real = axis_angle_to_matrix(batch.real_theta[..., 6:75].reshape(-1, 23, 3))
    expected["discriminator"] = hmmr_losses.discriminator(
        discriminator(real), discriminator(fake.detach())
    )
    by_definition += gradients([expected["discriminator"]], discriminator)
    assert_close(terms, expected)
    assert_close(found, by_definition, rtol=1e-3, atol=1e-5)

    step = trainer.train_step(batch)  # its curves have the norms apart from one another
    norms = [torch.stack([g.norm() for g in of.values()]).norm().item() for of in found]
    assert list(step.norms.values()) == pytest.approx(norms, rel=1e-4)


def test_real_poses_are_single_frames_as_many_as_bodies(config, splits):
    _, batch = first_batch(config, splits)
    n_windows, n_frames = batch.labels["kp_2d"].shape[:2]
    assert batch.real_theta.shape == (6 * n_windows * n_frames, 1, 85)
    drawn, every = (
        np.unique(a.reshape(-1, 85), axis=0)
        for a in (batch.real_theta, splits["m/train"].rows["theta"])
    )
    assert_array_equal(drawn, every)  # all of them
    assert_array_equal(batch.real_theta, TrainingBatches(config.poses(), splits)[0].real_theta)


@pytest.mark.parametrize(
    "variant", [name for name, changes in VARIANTS.items() if "datasets_2d" not in changes]
)
def test_every_variant_trains(config, splits, variant):
    trainer, batch = first_batch(models.find("hmmr").vary(config, variant), splits)
    step = trainer.train_step(batch)
    assert step.good
    assert (step.terms["hallucinate"] > 0) == (variant in ("no-const", "no-prior"))
    assert (step.terms["const"] > 0) == (variant != "no-const")
    assert ("adversarial" in step.terms) == (variant != "no-prior")
