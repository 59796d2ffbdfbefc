"""The decoder of body regions, the model about it and the uncertainty loss, beside plain NumPy in
float64.
"""

import math

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose
from torch.testing import assert_close

from tests.vibe_model.builders import TinyBody, everything_matters, small_vibe
from vibe_model.part_dynamics import losses as part_dynamics_losses
from vibe_model.part_dynamics.generator import (
    REGIONS,
    PartDynamics,
    RegionDecoder,
    _RegionConvolution,
)
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE

SIZES = {"hidden_size": 5, "feature_size": 6, "regressor_size": 7}  # as the small VIBE's


def small_decoder(recombine="multiply", **changes):
    return RegionDecoder(
        **{"n_features": 7, "regions": 5, "width": 4, "recombine": recombine} | changes
    )


def small_model(**changes):
    torch.manual_seed(1)
    return PartDynamics(TinyBody(), **{"width": 4} | SIZES | changes)


def inputs(n_frames=4):
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(2, n_frames, n, generator=draw) for n in (6, 64, 135)]


def plain_norm(x, at, name):
    scaled = (x - at[f"{name}.running_mean"]) / np.sqrt(at[f"{name}.running_var"] + 1e-5)
    return scaled * at[f"{name}.weight"] + at[f"{name}.bias"]


def plain_convolution(x, at, name, dilation, recombine):
    """(T, R, W) -> (T, R, W), one number after the other."""
    weight = at[f"{name}.weight"]
    n_frames, regions, _ = x.shape
    kernel = weight.shape[1]
    frame = lambda t, j: min(max(t + (j - (kernel - 1) // 2) * dilation, 0), n_frames - 1)  # noqa: E731
    factor = np.ones((n_frames, regions, kernel))
    if recombine != "none":
        context = np.zeros((n_frames, regions * kernel))
        for t in range(n_frames):
            for r in range(regions):
                others = [s for s in range(regions) if s != r]
                for j in range(kernel):
                    found = at[f"{name}.context_bias"][r, j]
                    for i in range(kernel):
                        for place, s in enumerate(others):
                            found += at[f"{name}.context"][r, j, place, i] @ x[frame(t, i), s]
                    context[t, r * kernel + j] = found
        factor = plain_norm(context, at, f"{name}.context_norm").reshape(n_frames, regions, kernel)
    out = np.zeros_like(x)
    for t in range(n_frames):
        for r in range(regions):
            for j in range(kernel):
                tap = x[frame(t, j), r]
                if recombine == "multiply":
                    tap = tap / (1 + math.exp(-factor[t, r, j]))
                elif recombine == "add":
                    tap = tap + factor[t, r, j]
                out[t, r] += tap @ weight[r, j]
    return out


def plain_decoder(x, at, recombine):
    leaky = lambda y: np.where(y > 0, y, 0.01 * y)  # noqa: E731
    states = leaky(x @ at["split.weight"].T + at["split.bias"]).reshape(len(x), 5, 4)
    for i, dilation in enumerate((1, 3)):
        inner = states
        for part, step in ((1, dilation), (2, 1)):
            inner = plain_convolution(inner, at, f"layers.{i}.conv{part}", step, recombine)
            inner = leaky(
                plain_norm(inner.reshape(len(x), 20), at, f"layers.{i}.norm{part}")
            ).reshape(len(x), 5, 4)
        states = states + inner
    return states


@pytest.mark.parametrize("recombine", ["multiply", "add", "none"])
def test_the_decoder_is_that_of_plain_numpy(recombine):
    decoder = everything_matters(small_decoder(recombine))
    at = {name: value.numpy() for name, value in decoder.state_dict().items()}
    windows = default_rng(0).normal(size=(2, 5, 7))
    expected = [plain_decoder(window, at, recombine) for window in windows]
    assert_allclose(decoder(torch.tensor(windows)).detach(), expected, atol=1e-10)


def test_at_the_start_every_factor_is_a_half():
    torch.manual_seed(0)
    gated, plain = (
        _RegionConvolution(5, 4, 3, 1, "multiply"),
        _RegionConvolution(5, 4, 3, 1, "none"),
    )
    plain.weight.data = gated.weight.data
    states = torch.randn(2, 6, 5, 4)
    assert_close(gated(states), plain(states) / 2)


def test_regions_share_out_the_joints():
    assert sorted(joint for region in REGIONS for joint in region) == list(range(24))


def test_without_corrections_it_is_vibe_and_its_neighbours_are_the_same_pose():
    vibe, model = small_vibe().eval(), small_model().eval()
    for name in ("encoder", "regressor"):
        getattr(model, name).load_state_dict(getattr(vibe, name).state_dict())
    for layer in (model.current, *(head.out for heads in model.deltas.values() for head in heads)):
        torch.nn.init.zeros_(layer.weight)
    features, pr_vipe, homography = inputs()
    expected, found = vibe(features), model(features, pr_vipe, homography)
    assert found["deltas"].keys() == {-5, 5}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    for neighbour in found["deltas"].values():
        assert neighbour.keys() == expected.keys()
        assert torch.equal(neighbour["rotmat"], expected["rotmat"])
        # by the camera (1, 0, 0)
        assert torch.equal(neighbour["kp_2d"], expected["kp_3d"][..., :2])
        assert neighbour["theta"][..., :3].unique(dim=1).tolist()[0][0] == [1, 0, 0]


def test_what_is_read_is_what_it_uses():
    features, pr_vipe, homography = inputs()
    model = everything_matters(small_model())
    whole = model.regress(*(x.double() for x in (features, pr_vipe, homography))).rotmat
    # beyond five standard deviations: clipped
    far = homography.double() + 100 * homography.sign().double()
    clipped, further = (
        model.regress(features.double(), pr_vipe.double(), f * far).rotmat for f in (1, 2)
    )
    assert torch.equal(clipped, further)
    assert not torch.equal(whole, clipped)
    assert not torch.equal(
        whole, model.regress(features.double(), pr_vipe.double() + 1, homography.double()).rotmat
    )
    with pytest.raises(ValueError, match=r"homography: expected \(B, T, 135\)"):
        model.regress(features.double(), pr_vipe.double())
    plain = small_model(extra_streams=(), delta=0, regions=1)
    assert plain(features)["deltas"] == {}


def labelled(seed=0):
    """(2, 3, 13, 3) keypoints, their embedding, and a flag that is 0 once."""
    random = torch.Generator().manual_seed(seed)
    kp = torch.randn(2, 3, 13, 3, generator=random, dtype=torch.float64)
    kp[..., 2] = 1
    kp[0, 1, [0, 4], 2] = 0
    embedding = everything_matters(PrVIPE(hidden=8))
    with torch.no_grad():
        pr_vipe = torch.cat(embedding(PrVIPE.normalise(kp)[0].flatten(0, 1)), dim=1).unflatten(
            0, (2, 3)
        )
    ok = torch.ones(2, 3)
    ok[1, 2] = 0
    return embedding, kp, pr_vipe, ok


def test_the_uncertainty_loss_is_that_of_plain_numpy():
    embedding, kp, pr_vipe, ok = labelled()
    assert part_dynamics_losses.uncertainty(embedding, kp, pr_vipe, ok).item() == pytest.approx(
        0, abs=2e-6
    )
    other = kp + 0.1 * torch.randn(kp.shape, generator=torch.Generator().manual_seed(1)).double()
    other[..., 2] = kp[..., 2]
    mean, std = (x.detach().numpy() for x in embedding(PrVIPE.normalise(other)[0].flatten(0, 1)))
    target = pr_vipe.flatten(0, 1).numpy()
    weighted = [np.maximum(s, 1e-3) ** 2 * m / (np.maximum(s, 1e-3) ** 2).sum(1, keepdims=True)
                for m, s in ((mean, std), (target[:, :32], target[:, 32:]))]  # fmt: skip
    expected = np.linalg.norm(weighted[0] - weighted[1], axis=1)[ok.flatten().numpy() > 0].mean()
    found = part_dynamics_losses.uncertainty(embedding, other, pr_vipe, ok).item()
    assert found == pytest.approx(expected, abs=1e-9)
    moved = torch.cat((other[..., :2] * 3 + 7, other[..., 2:]), dim=-1)  # another box
    assert part_dynamics_losses.uncertainty(embedding, moved, pr_vipe, ok).item() == pytest.approx(
        found, abs=1e-9
    )


def test_its_gradient_reaches_the_prediction_alone():
    embedding, kp, pr_vipe, ok = labelled()
    embedding.train()
    before = {name: value.clone() for name, value in embedding.state_dict().items()}
    other = (kp + 0.3).requires_grad_()
    visible = kp[..., 2:]

    def loss(x):
        predicted = torch.cat((x[..., :2] * (1 + x[..., :2]), visible), dim=-1)
        return part_dynamics_losses.uncertainty(embedding, predicted, pr_vipe, ok)

    loss(other).backward()
    assert embedding.training
    assert all(torch.equal(value, before[name]) for name, value in embedding.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in embedding.parameters())
    assert not other.grad[1, 2].any()
    assert other.grad[0, 2, 5].any()


def test_without_known_frames_it_is_0_for_an_infinite_prediction_too():
    embedding, kp, pr_vipe, ok = labelled()
    kp[0, 0, 0, 0] = float("inf")
    kp.requires_grad_()
    none = part_dynamics_losses.uncertainty(embedding, kp, pr_vipe, 0 * ok)
    none.backward()
    assert none.item() == 0
    assert not kp.grad.any()


def test_after_an_error_the_network_is_trained_as_before():
    embedding, kp, pr_vipe, ok = labelled()
    embedding.train()
    embedding.stem = torch.nn.Linear(1, 1).double()  # of another size
    with pytest.raises(RuntimeError, match="shapes"):
        part_dynamics_losses.uncertainty(embedding, kp, pr_vipe, ok)
    assert embedding.training
