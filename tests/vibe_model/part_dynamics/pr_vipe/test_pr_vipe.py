"""Pr-VIPE's network, matching probability, losses and metric, beside plain NumPy in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.testing import assert_allclose
from scipy.integrate import quad
from torch.testing import assert_close

from tests.vibe_model.builders import everything_matters
from vibe_model.metrics import np_mpjpe, procrustes_align
from vibe_model.part_dynamics.pr_vipe import losses as pr_vipe_losses
from vibe_model.part_dynamics.pr_vipe.losses import pose_distances
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE

TORSO = [1, 2, 7, 8]  # shoulders, hips


def plain_embedding(state, poses):
    """mean and std of (N, 39), by hand."""
    at = {name: value.numpy() for name, value in state.items()}

    def layer(x, linear, norm):
        x = x @ at[f"{linear}.weight"].T + at[f"{linear}.bias"]
        x = (x - at[f"{norm}.running_mean"]) / np.sqrt(at[f"{norm}.running_var"] + 1e-5)
        return np.maximum(x * at[f"{norm}.weight"] + at[f"{norm}.bias"], 0)

    x = layer(poses, "stem.linear", "stem.norm")
    for i in range(2):
        inner = layer(x, f"blocks.{i}.linear1", f"blocks.{i}.norm1")
        x = x + layer(inner, f"blocks.{i}.linear2", f"blocks.{i}.norm2")
    mean, s = (x @ at[f"{head}.weight"].T + at[f"{head}.bias"] for head in ("mean", "spread"))
    return mean, np.maximum(np.where(s > 0, s, np.expm1(s)) + 1, 1e-6)


def test_the_embedding_is_that_of_plain_numpy():
    network, poses = (
        everything_matters(PrVIPE(size=5, hidden=11)),
        default_rng(0).normal(size=(6, 39)),
    )
    for found, expected in zip(
        network(torch.tensor(poses)), plain_embedding(network.state_dict(), poses), strict=True
    ):
        assert_allclose(found.detach(), expected, atol=1e-10)


def test_the_start_is_the_published_one():
    network = PrVIPE()
    assert math.exp(network.raw_a.item()) == pytest.approx(0.522, abs=1e-3)
    assert network.b.item() == -0.5
    assert network.blocks[0].linear1.weight.std().item() == pytest.approx(
        math.sqrt(2 / 1024), rel=0.01
    )
    _, std = network.eval()(torch.full((1, 39), -1e6))
    assert (std > 0).all()


# -------------------------------------------------------------------------------------------------
# normalisation


def plain_normalised(kp):
    xy, visible = kp[:, :2], kp[:, 2] > 0
    size = max(np.linalg.norm(xy[a] - xy[b]) for a in TORSO for b in TORSO)
    if not visible[TORSO].all() or size == 0:
        return np.zeros(39), False
    scaled = np.where(visible[:, None], (xy - (xy[7] + xy[8]) / 2) / size / 2, 0)
    return np.concatenate([scaled.ravel(), visible]), True


keypoints = st.lists(
    st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.sampled_from([0.0, 0.3, 1.0])),
    min_size=13,
    max_size=13,
)


@settings(max_examples=40)
@given(kp=keypoints, seen=st.booleans(), scale=st.floats(0.1, 100), shift=st.floats(-100, 100))
def test_a_pose_is_normalised_by_its_torso_alone(kp, seen, scale, shift):
    kp = np.round(np.array(kp), 3)
    kp[TORSO, 2] = np.maximum(kp[TORSO, 2], seen)
    expected, defined = plain_normalised(kp)
    moved = np.concatenate([kp[:, :2] * scale + shift, kp[:, 2:]], axis=1)
    found, ok = PrVIPE.normalise(torch.tensor(np.stack([kp, moved])))
    # moved, one point is no longer one
    if not math.isclose(abs(kp[TORSO, :2] - kp[TORSO[0], :2]).max(), 0):
        assert ok.tolist() == [defined, defined]
        assert_allclose(found, [expected, expected], atol=1e-9)
    else:
        assert not ok[0] and not found[0].any()


# ------------------------------------------------------------------------------------------
# matching probability


def test_a_sure_embedding_matches_by_distance_alone():
    network = PrVIPE(size=4, hidden=3).double()
    a, b = torch.randn(2, 7, 4, dtype=torch.float64)
    none = torch.full_like(a, 1e-12)
    slope, offset = math.expm1(-0.65) + 1, -0.5
    sure = 1 / (1 + np.exp(slope * np.linalg.norm((a - b).numpy(), axis=1) - offset))
    assert_allclose(
        network.match_probability(a, none, b, none).detach(), 0.9 * sure + 0.05, atol=1e-6
    )
    every = network.distances(a, none, b, none, samples=3).detach()
    assert_allclose(every.diagonal(), -np.log(0.9 * sure + 0.05), atol=1e-6)
    with torch.no_grad():
        assert_close(network.distances(a, none, b, none, samples=3), every)


def test_twenty_samples_estimate_what_thousands_do():
    network = PrVIPE(size=3, hidden=3)
    torch.manual_seed(1)
    mean, std = torch.randn(2, 3), torch.full((2, 3), 0.8)
    one, two = (
        (m[None].expand(400, 3), s[None].expand(400, 3)) for m, s in zip(mean, std, strict=True)
    )
    with torch.no_grad():
        few = network.match_probability(*one, *two)
        many = network.match_probability(*(x[:1] for x in (*one, *two)), samples=2000)
    assert abs(float(few.mean() - many)) < 3 * float(few.std() / math.sqrt(len(few))) + 1e-3
    assert few.min() >= 0.05
    assert few.max() <= 0.95


# --------------------------------------------------------------------------------------------------
# losses


@given(st.integers(2, 6), st.integers(0, 99))
def test_the_triplet_loss_is_that_of_plain_numpy(n, seed):
    random = default_rng(seed)
    distances, poses = random.uniform(0, 2, (n, n)), random.uniform(0, 0.3, (n, n))
    hinges = []
    for i in range(n):
        harder = [
            distances[i, j]
            for j in range(n)
            if j != i and poses[i, j] >= 0.1 and distances[i, j] > distances[i, i]
        ]
        hinges.append(max(0.0, distances[i, i] - min(harder) + math.log(2)) if harder else 0.0)
    active = [hinge for hinge in hinges if hinge > 0]
    found = pr_vipe_losses.triplet_ratio(torch.tensor(distances), torch.tensor(poses))
    assert float(found) == pytest.approx(np.mean(active) if active else 0.0, abs=1e-12)
    positive = pr_vipe_losses.positive_pairwise(torch.tensor(distances))
    assert float(positive) == pytest.approx(distances.trace() / n)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.3, 0.4), (-0.2, 2.5)])
def test_the_prior_is_a_divergence_from_the_normal_distribution(mean, std):
    def integrand(x):
        own = -0.5 * ((x - mean) / std) ** 2 - math.log(std)
        return math.exp(own) / math.sqrt(2 * math.pi) * (own + 0.5 * x * x)

    expected, _ = quad(integrand, mean - 12 * std, mean + 12 * std)
    found = pr_vipe_losses.prior(
        torch.tensor([[mean, mean]]).double(), torch.tensor([[std, std]]).double()
    )
    assert float(found) == pytest.approx(2 * expected, abs=1e-6)


# --------------------------------------------------------------------------------------------------
# NP-MPJPE


def svd_distances(poses, others):
    """(M, N): of each pair, after the best similarity."""
    every = np.broadcast_to(poses[:, None], (len(poses), *others.shape))
    return np.linalg.norm(procrustes_align(every, others) - others, axis=-1).mean(-1)


def test_np_mpjpe_is_of_poses_about_their_hips_in_units_of_the_torso():
    random = default_rng(0)
    poses, others = random.normal(size=(2, 6, 13, 3))
    others[0] = poses[0] * [1, 1, -1]  # its mirror image
    normalised = [
        (p - p[:, [7, 8]].mean(1, keepdims=True))
        / np.linalg.norm((p[:, [1, 2]].mean(1) - p[:, [7, 8]].mean(1)), axis=1)[:, None, None]
        for p in (poses, others)
    ]
    expected = svd_distances(*normalised)
    assert_allclose(np_mpjpe(poses, others), np.diag(expected), atol=1e-9)
    assert expected[0][0] > 0.1
    normalised = [torch.tensor(p) for p in normalised]
    assert_allclose(pose_distances(*normalised), expected, atol=1e-9)
    assert_allclose(pose_distances(*(p.float() for p in normalised)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "flat", [(1, 1, 0), (1, 1, 1e-6), (1, 0, 0), (1, 1e-9, 1e-9), (0, 0, 0), (1, 1, -1)]
)
def test_poses_in_a_plane_a_line_or_a_point_have_the_distances_of_an_svd(flat):
    poses, others = torch.from_numpy(default_rng(1).normal(size=(2, 9, 13, 3)))
    flattened = poses * torch.tensor(flat)
    for a, b in (
        (flattened, others),
        (others, flattened),
        (flattened, flattened),
        (flattened, poses),
    ):
        assert_allclose(pose_distances(a, b), svd_distances(a.numpy(), b.numpy()), atol=1e-6)
