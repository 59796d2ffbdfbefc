"""That HMMR learns: a window by heart, and what comes next in a motion with a direction."""

import numpy as np
import pytest
import torch

from tests.vibe_model.builders import TinyBody
from vibe_model import HMMR, cameras, hmmr_losses, metrics
from vibe_model.losses import COMMON14
from vibe_model.rotations import axis_angle_to_matrix

T, F = 20, 64


def swinging(n_windows, seed, *, shuffled=False):
    """Windows of one motion: a limb turns about an axis at constant speed, from any phase; features show the phase.

    shuffled: frames in random order, so that nothing follows from anything.
    """
    random = torch.Generator().manual_seed(seed)
    phase = torch.rand(n_windows, 1, generator=random) * 6.28 + 0.25 * torch.arange(T)
    if shuffled:
        phase = torch.stack([row[torch.randperm(T, generator=random)] for row in phase])
    seen = torch.stack((phase.cos(), phase.sin()), -1) @ torch.randn(2, F, generator=torch.Generator().manual_seed(9))
    pose = torch.zeros(n_windows, T, 24, 3)
    for joint in range(1, 24):  # a wave through the whole body
        pose[..., joint, :] = 0.8 * (phase + joint).sin()[..., None] * torch.tensor([0.0, 0.6, 0.8])
    theta = torch.cat((torch.tensor([1.0, 0, 0]).expand(n_windows, T, 3), pose.flatten(-2)), -1)
    theta = torch.cat((theta, torch.zeros(n_windows, T, 10)), -1)
    rotmat = axis_angle_to_matrix(pose)
    joints = TinyBody().joints(betas=theta[..., 75:].flatten(0, 1), rotmat=rotmat.flatten(0, 1)).unflatten(0, (-1, T))
    kp_2d = cameras.project_orthographic(joints, theta[..., :3])
    ones = torch.ones(n_windows, T)
    kp_2d = torch.cat((kp_2d, torch.ones(*kp_2d.shape[:-1], 1)), -1)
    return {"features": seen, "kp_2d": kp_2d, "kp_3d": joints, "theta": theta, "w_3d": ones, "w_smpl": ones}


def trained(batches, n_steps, **options):
    torch.manual_seed(0)
    model = HMMR(TinyBody(), feature_size=F, regressor_size=64, norm="frame", dropout=0.0, **options)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(n_steps):
        optimiser.zero_grad()
        batch = batches[step % len(batches)]
        terms = hmmr_losses.supervised(model.sets(batch["features"]), batch)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    return model.eval(), {name: term.item() for name, term in terms.items()}


def errors(joints, target):
    """Mean PA-MPJPE, mm."""
    arrays = (np.asarray(a.detach()[..., COMMON14, :].reshape(-1, 14, 3)) for a in (joints, target))
    return float(metrics.pa_mpjpe(*arrays).mean())


@pytest.mark.slow
def test_a_window_is_learned_by_heart():
    batch = swinging(1, 0)
    model, terms = trained([batch], 500)
    with torch.no_grad():
        joints = model(batch["features"], vertices=False)["kp_3d"]
    assert terms["kp"] / 60 / 6 < 0.01  # the mean of the six sets
    arrays = (np.asarray(a[..., COMMON14, :].reshape(-1, 14, 3)) for a in (joints, batch["kp_3d"]))
    assert metrics.mpjpe(*arrays).mean() < 20


@pytest.mark.slow
def test_the_future_is_better_than_the_present_where_there_is_a_direction():
    """In frames of random order all that can be learned is the mean pose: nearer than Const, and far from the truth."""
    found, const = {}, {}
    for shuffled in (False, True):
        model, _ = trained([swinging(8, seed, shuffled=shuffled) for seed in range(8)], 300)
        held_out = swinging(4, 99, shuffled=shuffled)
        with torch.no_grad():
            out = model(held_out["features"], vertices=False, hallucinated=True)
        target = held_out["kp_3d"][:, 5:]
        found[shuffled] = errors(out["deltas"][5]["kp_3d"][:, :-5], target)
        const[shuffled] = errors(out["kp_3d"][:, :-5], target)
    assert found[False] < 0.8 * const[False]
    assert found[False] < 0.5 * found[True]
