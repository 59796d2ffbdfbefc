import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from tests.vibe_model.builders import TinyBody
from vibe_model import MotionDiscriminator
from vibe_model.vibe.config import VARIANTS, TrainConfig
from vibe_model.vibe.training import VIBETrainer


def small(**settings):
    return MotionDiscriminator(**{"rnn_size": 5, "attention_size": 5, **settings})


def test_attention_starts_small():
    weights = MotionDiscriminator(rnn_size=50, attention_size=50).attention.state_dict()
    for name, value in weights.items():
        if name.endswith("bias"):
            assert (value == 0.01).all()
        else:
            assert 0.08 < value.abs().max() <= 0.1


@pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
def test_scores_are_one_a_window_also_for_one_window_of_one_frame(shape):
    model, motion = small(feature_pool="last", attention_size=3), torch.randn(*shape, 69)
    assert model(motion).shape == (shape[0], 1)
    assert_close(model(motion), model.fc(model.gru(motion)[1][-1]))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_attention_equals_a_loop_written_out(n_layers):
    torch.manual_seed(0)
    model = small(attention_layers=n_layers).eval()
    motion = torch.randn(2, 4, 69)
    states = model.gru(motion)[0].detach().numpy()
    weights = {
        name: value.numpy() for name, value in model.attention.attention.state_dict().items()
    }
    for b in range(2):
        energy = []
        for t in range(4):
            h = states[b, t]
            for layer in range(n_layers):
                h = np.tanh(weights[f"{3 * layer}.weight"] @ h + weights[f"{3 * layer}.bias"])
            energy.append(h[0])
        share = np.exp(energy) / np.exp(energy).sum()
        pooled = sum(share[t] * states[b, t] for t in range(4))
        expected = model.fc.weight.detach().numpy() @ pooled + model.fc.bias.detach().numpy()
        assert_allclose(model(motion)[b].detach(), expected, atol=1e-6)


def test_concat_puts_mean_and_maximum_of_the_active_states_side_by_side():
    torch.manual_seed(0)
    model = small(feature_pool="concat")
    motion = torch.randn(2, 4, 69)
    states = np.maximum(model.gru(motion)[0].detach().numpy(), 0)
    pooled = np.concatenate([states.mean(1), states.max(1)], axis=1)
    expected = pooled @ model.fc.weight.detach().numpy().T + model.fc.bias.detach().numpy()
    assert_allclose(model(motion).detach(), expected, atol=1e-6)


def layers_of(config):
    """(outputs, inputs) of each layer of the discriminator's attention."""
    weights = VIBETrainer(config, TinyBody()).discriminator.attention.state_dict()
    return [tuple(value.shape) for name, value in weights.items() if name.endswith("weight")]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("attention")])
def test_a_variant_has_as_many_layers_as_its_name_says_and_one_for_the_score(variant):
    n_layers, size = map(int, variant.removeprefix("attention-").split("x"))
    assert str([n_layers, size]) in VARIANTS[variant].title
    layers = layers_of(TrainConfig().vary(VARIANTS[variant].changes))
    assert layers == [(size, size)] * n_layers + [(1, size)]


def test_the_papers_best_attention_is_that_of_both_presets():
    best = TrainConfig().vary(VARIANTS["attention-2x1024"].changes)
    assert layers_of(best) == layers_of(TrainConfig()) == layers_of(TrainConfig.paper())
