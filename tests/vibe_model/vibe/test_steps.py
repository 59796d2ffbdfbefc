"""Terms and gradients of a step of VIBE's training, and that a term added in one place is trained,
shown and recorded.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.vibe_model.training.tiny_runs import first_batch, gradients, vibe_config, vibe_splits
from vibe_model import losses

SUPERVISED = ("kp_2d", "kp_3d", "pose", "shape")


@pytest.fixture
def step(tmp_path, without_dropout):
    """A trainer and its first batch."""
    return first_batch(vibe_config(tmp_path), vibe_splits())


def test_each_network_is_trained_by_its_own_side_of_the_published_losses(step):
    trainer, batch = step
    weights = trainer.config.weights
    terms = trainer.losses(batch)
    found = gradients(terms.values(), trainer.generator, trainer.discriminator)

    predicted = trainer.generator(batch.labels["features"].float(), vertices=False)
    fake = predicted["theta"][..., 6:75]
    supervised = losses.generator_losses(predicted, batch.labels, weights)
    adversarial = 0.5 * (trainer.discriminator(fake) - 1).square().mean()
    expected = gradients([*supervised.values(), adversarial], trainer.generator)
    fake_side = 0.5 * trainer.discriminator(fake.detach()).square().mean()
    real = trainer.discriminator(batch.real_theta[..., 6:75])
    real_side = 0.5 * (real - 1).square().mean()
    expected += gradients([fake_side, real_side], trainer.discriminator)

    sides = {
        "adversarial": adversarial,
        "discriminator_real": real_side,
        "discriminator_fake": fake_side,
    }
    assert_close(terms, supervised | sides)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_as_published_both_sides_score_generated_motion_with_dropout_of_their_own(tmp_path):
    config = replace(vibe_config(tmp_path), attention_dropout=0.5)
    trainer, batch = first_batch(config, vibe_splits())
    scores = []
    trainer.discriminator.register_forward_hook(lambda *given: scores.append(given[-1]))
    trainer.losses(batch)
    for_generator, for_discriminator = scores
    n_windows = len(for_generator)
    assert not torch.equal(for_generator, for_discriminator[:n_windows])


def test_without_a_discriminator_there_are_the_supervised_terms(tmp_path):
    trainer, batch = first_batch(replace(vibe_config(tmp_path), prior="none"), vibe_splits())
    assert tuple(trainer.losses(batch)) == SUPERVISED
    assert trainer.train_step(batch).good


def test_a_learned_prior_is_a_weighted_term(step):
    trainer, batch = step

    class Prior(nn.Module):
        def energy(self, motion):
            return motion.square().mean()

    trainer.prior = Prior()
    trainer.config = replace(trainer.config, mposer_weight=2.0)
    terms = trainer.losses(batch)
    motion = trainer.generator(batch.labels["features"].float())["theta"][..., 6:75]
    assert_close(terms["mposer"], 2 * motion.square().mean())


def test_products_in_bfloat16_change_terms_and_gradients_by_a_few_thousandths(step):
    trainer, batch = step
    by_precision = {}
    for precision in ("fp32", "bf16"):
        trainer.config = replace(trainer.config, precision=precision)
        terms = trainer.losses(batch)
        (found,) = gradients(terms.values(), trainer.generator)
        every = torch.cat([gradient.flatten() for gradient in found.values()])
        by_precision[precision] = terms, every
    exact, exact_gradient = by_precision["fp32"]
    rounded, rounded_gradient = by_precision["bf16"]
    assert all(value.dtype == torch.float32 for value in (*rounded.values(), rounded_gradient))
    assert any(rounded[name] != exact[name] for name in exact)
    for name in SUPERVISED:
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=5e-3)
    assert (rounded_gradient - exact_gradient).norm() < 0.02 * exact_gradient.norm()
