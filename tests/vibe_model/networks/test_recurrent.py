import numpy as np
import pytest
import torch
from torch import nn

from tests.vibe_model.networks.test_generator import gru_by_hand
from vibe_model.networks.cpu_kernels import GRU, Recurrence


def both(*sizes, **settings):
    """torch's GRU and ours with the same parameters."""
    torch.manual_seed(0)
    theirs = nn.GRU(*sizes, batch_first=True, **settings)
    torch.manual_seed(0)
    return theirs, GRU(*sizes, batch_first=True, **settings)


def gradients(gru, features, toward):
    """d sum(output * toward + last states) / d (features, every parameter)."""
    features = features.clone().requires_grad_()
    output, last = gru(features)
    ((output * toward).sum() + last.square().sum()).backward()
    return [features.grad, *(p.grad for p in gru.parameters())]


def test_names_shapes_and_first_values_are_those_of_torchs_gru():
    theirs, ours = (gru.state_dict() for gru in both(6, 5, 2, bidirectional=True))
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 16)])
def test_states_and_all_gradients_are_those_of_torchs_gru(n_layers, bidirectional, shape):
    theirs, ours = both(6, 5, n_layers, bidirectional=bidirectional)
    features = torch.randn(*shape, 6)
    for expected, found in zip(theirs(features), ours(features), strict=True):
        torch.testing.assert_close(found, expected)
    toward = torch.randn(*shape, 10 if bidirectional else 5)
    for expected, found in zip(gradients(theirs, features, toward), gradients(ours, features, toward), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_states_are_those_of_a_loop_written_out():
    _, ours = both(6, 5, 2)
    features = torch.randn(2, 4, 6)
    np.testing.assert_allclose(ours(features)[0].detach(), gru_by_hand(ours, features), atol=1e-6)


def test_the_recurrences_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    gates, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 2, 12), (12, 4), (4,)))
    inputs = [tensor.requires_grad_() for tensor in (gates, weight, bias)]
    assert torch.autograd.gradcheck(Recurrence.apply, inputs)


def test_a_second_derivative_is_refused_and_not_wrong():
    _, ours = both(6, 5)
    features = torch.randn(1, 2, 6, requires_grad=True)
    (once,) = torch.autograd.grad(ours(features)[0].square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


def test_the_same_inputs_give_the_same_bits():
    _, ours = both(40, 32, 2)
    features, toward = torch.randn(8, 16, 40), torch.randn(8, 16, 32)
    first = gradients(ours, features, toward)
    ours.zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(ours, features, toward), strict=True))


def test_products_in_bfloat16_keep_states_and_gradients_in_float32_and_close():
    theirs, ours = both(64, 48, 2)
    features, toward = torch.randn(4, 16, 64), torch.randn(4, 16, 48)
    expected = [theirs(features)[0], *gradients(theirs, features, toward)]
    with torch.autocast("cpu", torch.bfloat16):
        found = [ours(features)[0], *gradients(ours, features, toward)]
    for exact, rounded in zip(expected, found, strict=True):
        assert rounded.dtype == torch.float32
        error = ((rounded - exact).norm() / exact.norm()).item()
        assert 1e-5 < error < 2e-2, "bfloat16 has 8 bits"


def test_features_that_need_no_gradient_get_none():
    _, ours = both(6, 5)
    features = torch.randn(2, 3, 6)
    ours(features)[0].sum().backward()
    assert features.grad is None
    assert all(p.grad is not None for p in ours.parameters())


def test_what_it_is_not_made_for_is_left_to_torch():
    theirs, ours = both(6, 5)
    features, start = torch.randn(2, 3, 6), torch.randn(1, 2, 5)
    assert torch.equal(ours(features, start)[0], theirs(features, start)[0])
    packed = nn.utils.rnn.pack_padded_sequence(features, torch.tensor([3, 2]), batch_first=True)
    assert torch.equal(ours(packed)[0].data, theirs(packed)[0].data)
