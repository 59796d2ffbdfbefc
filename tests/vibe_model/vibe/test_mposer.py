"""The motion prior by hand: KL, reconstruction, angles, energy; and its checkpoint, of any
origin.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from scipy.spatial.transform import Rotation
from torch import nn
from torch.testing import assert_close

from pipeline.errors import CheckpointError
from vibe_model.vibe.mposer import MPoser, _Code
from vibe_model.vibe.mposer_training import _geodesic_degrees


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return MPoser(hidden_size=7, latent_size=3, n_layers=2)


def motion(n_frames=4):
    return torch.as_tensor(default_rng(0).normal(size=(2, n_frames, 69)) * 0.3).float()


# means, log variances
WINDOW = st.tuples(st.tuples(*[st.floats(-3, 3)] * 2), st.tuples(*[st.floats(-3, 3)] * 2))


@given(st.lists(WINDOW, min_size=1, max_size=3))
@settings(max_examples=40)
def test_the_kl_divergence_is_that_of_torch_distributions_and_a_mean_over_windows(windows):
    mean, log_variance = torch.tensor(windows, dtype=torch.float64).unbind(1)  # (B, 2) each
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(own, standard).sum(1).mean()
    assert float(_Code(mean, log_variance).kl_divergence()) == pytest.approx(
        float(expected), abs=1e-12
    )


@pytest.mark.parametrize("degrees", [0, 1e-4, 1, 90, 179, 180])
def test_the_angle_between_rotations_is_the_one_that_they_were_made_with(degrees):
    first = Rotation.from_rotvec([0.3, -1.2, 0.5])
    second = first * Rotation.from_rotvec(np.array([2.0, -1, 2]) / 3 * np.deg2rad(degrees))
    angle = _geodesic_degrees(
        torch.as_tensor(first.as_matrix()), torch.as_tensor(second.as_matrix())
    )
    assert float(angle) == pytest.approx(degrees, abs=1e-5)


def test_the_code_depends_on_all_frames_and_noise_moves_it_by_the_standard_deviation(prior):
    given = motion().requires_grad_()
    prior.encode(given).mean.sum().backward()
    assert (given.grad.abs().sum(dim=-1) > 0).all()
    rotmat, code = prior(motion(), torch.full((2, 3), 2.0))
    assert_close(rotmat, prior.decode(code.mean + 2 * torch.exp(code.log_variance) ** 0.5, 4))
    assert_close(prior(motion())[0], prior.decode(code.mean, 4))


def test_the_energy_is_the_mean_squared_norm_of_the_codes_and_its_gradient_reaches_the_motion_alone(
    prior,
):
    mean = prior.encode(motion()).mean.detach()
    assert prior.energy(motion()).item() == pytest.approx(float((mean**2).sum() / 2))
    prior = prior.double()
    given = motion()[:1, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(prior.energy, (given,))
    prior.energy(given).backward()
    assert given.grad.abs().max() > 0
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in prior.parameters()
    )


@pytest.fixture
def saved(prior, tmp_path):
    def save(**changes):
        content = {
            "mposer_state_dict": dict(prior.state_dict()),
            "stand_in": True,
            "epoch": 1,
        } | changes
        torch.save(content, tmp_path / "best.pt")
        return tmp_path / "best.pt"

    return save


def test_a_loaded_prior_is_the_saved_one_frozen(prior, saved):
    loaded, given = MPoser.load(saved()), motion().requires_grad_()
    energy = loaded.energy(given)
    assert_close(energy, prior.energy(motion()))
    energy.backward()
    assert given.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.encoder.training, "it stays in evaluation mode"
    assert loaded.stand_in
    assert not MPoser.load(saved(stand_in=False)).stand_in


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: without(t, "decoder.weight_ih_l1"), "decoder.weight_ih_l1"),
        (lambda t: without(t, "mean.weight"), r"mean.weight \(\)"),
        (lambda t: t | {"mean.weight": torch.zeros(0, 7)}, r"mean.weight \(0, 7\)"),
        (lambda _: 3, "expected the best.pt of a motion prior.*TrainMPoser"),
        (lambda _: nn.Linear(1, 1), "expected tensors and numbers only"),
    ],
)
def test_a_checkpoint_that_is_not_exactly_a_prior_is_refused_by_name(prior, saved, change, name):
    path = saved(mposer_state_dict=change(dict(prior.state_dict())))
    with pytest.raises(CheckpointError, match=rf"best\.pt: .*{name}"):
        MPoser.load(path)
