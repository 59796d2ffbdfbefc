import pytest
import torch

from vibe_model import VIBE, MotionDiscriminator, losses
from vibe_model.vibe.training import step_gradients, step_losses

WEIGHTS = losses.PUBLISHED_WEIGHTS


def make_step(body, size, n_frames, feature_size):
    """Networks without dropout, six labelled windows, four of real motion."""
    torch.manual_seed(0)
    generator = VIBE(body, hidden_size=size, feature_size=feature_size, regressor_size=size).eval()
    discriminator = MotionDiscriminator(rnn_size=size, attention_size=size, attention_dropout=0.0)
    batch = {
        "features": torch.randn(6, n_frames, feature_size),
        "kp_2d": torch.rand(6, n_frames, 49, 3),
        "kp_3d": torch.randn(6, n_frames, 49, 3) * 0.3,
        "theta": torch.randn(6, n_frames, 85) * 0.3,
        "w_3d": torch.tensor([0.0, 0, 0, 1, 1, 1])[:, None].expand(6, n_frames),
        "w_smpl": torch.tensor([0.0, 0, 0, 0, 1, 1])[:, None].expand(6, n_frames),
    }
    return generator, discriminator, batch, torch.randn(4, n_frames, 85) * 0.3


@pytest.fixture
def step(body):
    return make_step(body, size=5, n_frames=3, feature_size=6)


def gradients(*networks):
    return {
        f"{number} {name}": parameter.grad
        for number, network in enumerate(networks)
        for name, parameter in network.named_parameters()
    }


def by_the_definition(generator, discriminator, batch, real, weights=WEIGHTS):
    """All terms, and the gradients of both losses, each by its own backward."""
    for network in (generator, discriminator):
        network.zero_grad(set_to_none=True)
    generator_loss, discriminator_loss, terms = step_losses(
        generator, discriminator, batch, real, weights
    )
    generator_loss.backward()
    discriminator_loss.backward()
    return terms, gradients(generator, discriminator)


def in_one_go(generator, discriminator, batch, real, weights=WEIGHTS, **options):
    for network in (generator, discriminator):
        network.zero_grad(set_to_none=True)
    terms = step_gradients(generator, discriminator, batch, real, weights, **options)
    return terms, gradients(generator, discriminator)


def assert_close(found, expected, rtol=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).norm()
        assert error <= rtol * value.norm() + 1e-9, f"{name}: {error} of {value.norm()}"


@pytest.mark.parametrize(
    "weights", [WEIGHTS, {**WEIGHTS, "adversarial": 3.0, "discriminator_real": 0.2}]
)
def test_one_pass_through_the_discriminator_has_the_terms_and_gradients_of_three(step, weights):
    expected_terms, expected = by_the_definition(*step, weights)
    terms, found = in_one_go(*step, weights)
    assert_close(terms, {name: term.detach() for name, term in expected_terms.items()})
    assert_close(found, expected)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
    assert not any(term.requires_grad for term in terms.values())


def test_a_window_scored_exactly_zero_still_moves_the_generator(step):
    generator, discriminator, batch, _ = step
    torch.nn.init.zeros_(discriminator.fc.bias)
    with torch.no_grad():
        fake = generator(batch["features"])["theta"][..., 6:75]
        discriminator.fc.bias -= discriminator(fake)[0]
        assert discriminator(fake)[0].item() == pytest.approx(0, abs=1e-7)
    _, expected = by_the_definition(*step)
    _, found = in_one_go(*step)
    assert_close(found, expected)
    # all windows ask for nothing
    _, expected = by_the_definition(*step, {**WEIGHTS, "discriminator": 0.0})
    _, found = in_one_go(*step, {**WEIGHTS, "discriminator": 0.0})
    assert_close(found, expected)


def test_gradients_are_added_to_those_that_are_there(step):
    _, once = in_one_go(*step)
    once = {name: gradient.clone() for name, gradient in once.items()}
    step_gradients(*step, WEIGHTS)
    assert_close(gradients(*step[:2]), {name: 2 * gradient for name, gradient in once.items()})


def test_without_a_discriminator_its_terms_are_zero_and_the_generators_gradients_its_own(step):
    generator, _, batch, _ = step
    terms = step_gradients(generator, None, batch, None, WEIGHTS)
    assert [
        terms[name].item() for name in ("adversarial", "discriminator_real", "discriminator_fake")
    ] == [0, 0, 0]
    found = {name: gradient.clone() for name, gradient in gradients(generator).items()}
    generator.zero_grad(set_to_none=True)
    step_losses(generator, None, batch, None, WEIGHTS)[0].backward()
    assert_close(found, gradients(generator))


def test_a_discriminator_wants_real_motion(step):
    generator, discriminator, batch, _ = step
    with pytest.raises(ValueError, match="real_theta"):
        step_gradients(generator, discriminator, batch, None, WEIGHTS)


def test_a_learned_prior_is_a_term_of_the_generators_loss(step):
    generator, _, batch, _ = step
    alone = step_gradients(generator, None, batch, None, WEIGHTS)
    generator.zero_grad(set_to_none=True)
    zero = dict.fromkeys(WEIGHTS, 0.0)
    terms = step_gradients(
        generator, None, batch, None, {**zero, "mposer": 2.0}, prior=lambda m: m.square().mean()
    )
    fake = generator(batch["features"])["theta"][..., 6:75]
    torch.testing.assert_close(terms["mposer"], 2 * fake.square().mean().detach())
    assert "mposer" not in alone
    assert generator.regressor.decpose.weight.grad.abs().sum() > 0


def test_products_in_bfloat16_change_terms_and_gradients_by_a_few_thousandths(body):
    step = make_step(body, size=64, n_frames=16, feature_size=96)
    expected_terms, expected = in_one_go(*step)
    expected = {name: gradient.clone() for name, gradient in expected.items()}
    terms, found = in_one_go(*step, precision="bf16")
    assert all(value.dtype == torch.float32 for value in (*terms.values(), *found.values()))
    assert any(terms[name] != expected_terms[name] for name in terms)
    for name in ("kp_2d", "kp_3d", "pose", "shape"):
        assert terms[name].item() == pytest.approx(expected_terms[name].item(), rel=2e-3)
    every = [
        torch.cat([value.flatten() for value in values.values()]) for values in (found, expected)
    ]
    assert (every[0] - every[1]).norm() < 0.02 * every[1].norm()


def test_without_3d_labels_their_terms_are_zero_and_gradients_finite(step):
    batch = step[2]
    batch |= {name: torch.zeros_like(batch[name]) for name in ("kp_3d", "theta", "w_3d", "w_smpl")}
    terms, found = in_one_go(*step)
    assert [terms[name].item() for name in ("kp_3d", "pose", "shape")] == [0, 0, 0]
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_the_losses_are_the_sums_of_their_terms_with_the_published_half_by_default(step):
    generator, discriminator, batch, real = step
    supervised = {name: WEIGHTS[name] for name in ("kp_2d", "kp_3d", "pose", "shape")}
    generator_loss, discriminator_loss, parts = step_losses(*step, supervised)
    pred = generator(batch["features"])
    fake, genuine = discriminator(pred["theta"][..., 6:75]), discriminator(real[..., 6:75])
    expected = (
        sum(losses.generator_losses(pred, batch, supervised).values())
        + 0.5 * ((fake - 1) ** 2).sum() / 6
    )
    torch.testing.assert_close(generator_loss, expected)
    torch.testing.assert_close(
        discriminator_loss, 0.5 * ((fake**2).sum() / 6 + ((genuine - 1) ** 2).sum() / 4)
    )
    torch.testing.assert_close(
        generator_loss, sum(parts[name] for name in (*supervised, "adversarial"))
    )
    torch.testing.assert_close(
        discriminator_loss, parts["discriminator_real"] + parts["discriminator_fake"]
    )
