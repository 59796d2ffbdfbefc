"""GRU, linear layers and dropout of the CPU are torch's up to rounding, and the same to the bit
each time.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vibe_model.networks.cpu_kernels import (
    GRU,
    Dropout,
    Linear,
    _multiplier,
    _product,
    _Recurrence,
    linear,
)


@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (2, 3, 6)])
def test_a_linear_layer_and_its_gradients_are_torchs(shape):
    torch.manual_seed(0)
    found = []
    rows, weight, bias = torch.randn(*shape), torch.randn(4, 6), torch.randn(4)
    for layer in (linear, functional.linear):
        inputs = [tensor.clone().requires_grad_() for tensor in (rows, weight, bias)]
        out = layer(*inputs)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_part_of_a_weight_and_a_transposed_input_are_multiplied_as_torch_does():
    torch.manual_seed(0)
    weight, rows = torch.randn(4, 9, requires_grad=True), torch.randn(3, 5, 6).transpose(0, 1)
    torch.testing.assert_close(
        linear(rows, weight[:, 2:8]), functional.linear(rows, weight[:, 2:8])
    )
    left, right = torch.randn(7, 10)[:, 1:7], torch.randn(6, 8)[:, ::2]
    torch.testing.assert_close(_product(left, right), left @ right)
    torch.testing.assert_close(_multiplier(right, 7)(left.contiguous()), left @ right)


def test_inference_other_types_and_inputs_without_gradient_are_left_to_torch():
    layer, rows = Linear(6, 4), torch.randn(3, 6)
    with torch.no_grad():
        assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))
    layer(rows).sum().backward()
    assert rows.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 3.0))
    layer.double()
    assert torch.equal(
        layer(rows.double()), functional.linear(rows.double(), layer.weight, layer.bias)
    )


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_expectation(p):
    draws = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        values = torch.ones(1001, 999, requires_grad=True)
        draws.append(Dropout(p)(values))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    out = draws[2]
    # a standard deviation is at most 5e-4
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=3e-3)
    assert out.detach().unique().tolist() == [0, pytest.approx(1 / (1 - p), rel=1e-4)]
    out.sum().backward()
    assert torch.equal(values.grad, out.detach()), (
        "what is dropped gets no gradient, what is kept its factor"
    )


def test_dropout_of_no_value_of_all_and_in_evaluation_is_torchs():
    values = torch.randn(8, 8)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(1.0)(values), nn.Dropout(1.0)(values))
    assert torch.equal(Dropout().eval()(values), values)


def both(*sizes, **settings):
    """torch's GRU and ours with the same parameters."""
    torch.manual_seed(0)
    theirs = nn.GRU(*sizes, batch_first=True, **settings)
    torch.manual_seed(0)
    ours = GRU(*sizes, batch_first=True, **settings)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert all(
        torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items()
    )
    return theirs, ours


def outputs(gru, features, toward):
    """States, last states, d sum(states * toward + last states) / d (features, every parameter)."""
    features = features.clone().requires_grad_()
    gru.zero_grad(set_to_none=True)
    states, last = gru(features)
    ((states * toward).sum() + last.square().sum()).backward()
    return [states.detach(), last.detach(), features.grad, *(p.grad for p in gru.parameters())]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 16)])
def test_states_and_all_gradients_are_those_of_torchs_gru_and_the_same_each_time(
    n_layers, bidirectional, shape
):
    theirs, ours = both(6, 5, n_layers, bidirectional=bidirectional)
    features, toward = torch.randn(*shape, 6), torch.randn(*shape, 10 if bidirectional else 5)
    found = outputs(ours, features, toward)
    for expected, one in zip(outputs(theirs, features, toward), found, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)
    assert all(
        torch.equal(a, b) for a, b in zip(found, outputs(ours, features, toward), strict=True)
    )


def gru_by_hand(gru, features):
    """Cho et al. 2014, as torch documents it: a loop over layers, windows and frames."""
    sequence = features.double().numpy()
    for layer in range(gru.num_layers):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(gru, f"{name}_l{layer}").detach().double().numpy()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        out = np.zeros((*sequence.shape[:2], gru.hidden_size))
        for b in range(len(sequence)):
            h = np.zeros(gru.hidden_size)
            for t in range(sequence.shape[1]):
                xr, xz, xn = np.split(w_ih @ sequence[b, t] + b_ih, 3)
                hr, hz, hn = np.split(w_hh @ h + b_hh, 3)
                r, z = 1 / (1 + np.exp(-(xr + hr))), 1 / (1 + np.exp(-(xz + hz)))
                n = np.tanh(xn + r * hn)
                h = (1 - z) * n + z * h
                out[b, t] = h
        sequence = out
    return sequence


def test_the_recurrences_gradient_is_that_of_finite_differences_and_a_second_one_is_refused():
    torch.manual_seed(0)
    gates, weight, bias = (
        torch.randn(*shape, dtype=torch.float64) for shape in ((3, 2, 12), (12, 4), (4,))
    )
    assert torch.autograd.gradcheck(
        _Recurrence.apply, [tensor.requires_grad_() for tensor in (gates, weight, bias)]
    )
    _, ours = both(6, 5)
    features = torch.randn(1, 2, 6, requires_grad=True)
    (once,) = torch.autograd.grad(ours(features)[0].square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


def test_products_in_bfloat16_keep_states_and_gradients_in_float32_and_close():
    theirs, ours = both(64, 48, 2)
    features, toward = torch.randn(4, 16, 64), torch.randn(4, 16, 48)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(ours, features, toward)
    for exact, rounded in zip(outputs(theirs, features, toward), found, strict=True):
        assert rounded.dtype == torch.float32
        assert 1e-5 < ((rounded - exact).norm() / exact.norm()).item() < 2e-2, "bfloat16 has 8 bits"


def test_a_given_state_and_packed_sequences_are_left_to_torch():
    theirs, ours = both(6, 5)
    features, start = torch.randn(2, 3, 6), torch.randn(1, 2, 5)
    assert torch.equal(ours(features, start)[0], theirs(features, start)[0])
    packed = nn.utils.rnn.pack_padded_sequence(features, torch.tensor([3, 2]), batch_first=True)
    assert torch.equal(ours(packed)[0].data, theirs(packed)[0].data)
