import pytest
import torch
from torch import nn
from torch.nn import functional

from vibe_model.networks.cpu_kernels import Dropout, Linear, linear, multiplier, product

ROWS = [(1, 6), (5, 6), (2, 3, 6)]


def gradients(layer, weight, bias, rows):
    inputs = [tensor.clone().requires_grad_() for tensor in (rows, weight, bias)]
    out = layer(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


@pytest.mark.parametrize("shape", ROWS)
def test_a_linear_layer_and_its_gradients_are_torchs(shape):
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(*shape), torch.randn(4, 6), torch.randn(4)
    expected = gradients(functional.linear, weight, bias, rows)
    for found, theirs in zip(gradients(linear, weight, bias, rows), expected, strict=True):
        torch.testing.assert_close(found, theirs)


def test_a_part_of_a_weight_and_a_turned_input_are_multiplied_as_torch_does():
    torch.manual_seed(0)
    weight, rows = torch.randn(4, 9, requires_grad=True), torch.randn(3, 5, 6).transpose(0, 1)
    torch.testing.assert_close(linear(rows, weight[:, 2:8]), functional.linear(rows, weight[:, 2:8]))
    left, right = torch.randn(7, 10)[:, 1:7], torch.randn(6, 8)[:, ::2]
    torch.testing.assert_close(product(left, right), left @ right)
    torch.testing.assert_close(multiplier(right, 7)(left.contiguous()), left @ right)


def test_what_needs_no_gradient_gets_none():
    layer, rows = Linear(6, 4), torch.randn(3, 6)
    layer(rows).sum().backward()
    assert rows.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 3.0))


def test_what_it_is_not_made_for_is_left_to_torch():
    layer, rows = Linear(6, 4), torch.randn(3, 6)
    with torch.no_grad():
        assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))
    layer.double()
    assert torch.equal(layer(rows.double()), functional.linear(rows.double(), layer.weight, layer.bias))


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_expectation(p):
    torch.manual_seed(0)
    values = torch.ones(1001, 999, requires_grad=True)
    out = Dropout(p)(values)
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=3e-3)  # a standard deviation is at most 5e-4
    assert out.detach().unique().tolist() == [0, pytest.approx(1 / (1 - p), rel=1e-4)]
    out.sum().backward()
    assert torch.equal(values.grad, out.detach()), "what is dropped gets no gradient, what is kept its factor"


def test_dropout_draws_anew_each_time_and_the_same_from_the_same_seed():
    values, draws = torch.ones(64, 64), []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        draws.append(Dropout()(values))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_dropout_of_nothing_of_all_and_in_evaluation_is_torchs():
    values = torch.randn(8, 8)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(1.0)(values), nn.Dropout(1.0)(values))
    assert torch.equal(Dropout().eval()(values), values)
