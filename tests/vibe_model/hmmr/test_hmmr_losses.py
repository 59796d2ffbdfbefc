"""HMMR's losses: loops written out, and what must not change them. Motion is planted: no network
predicts it.
"""

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from tests.vibe_model.builders import rotations_of
from vibe_model import cameras
from vibe_model.hmmr import losses as hmmr_losses
from vibe_model.hmmr.generator import HMMR, Sets

B, T, F = 2, 20, 64
COMMON14 = range(25, 39)
HIPS = [27, 28]  # of spin49, right and left of common14


def random(seed=0):
    return default_rng(seed)


class Planted:
    """Predicts what it is made of: bodies by set, (B, T, ...), and two strips."""

    def __init__(self, real, hallucinated, strip, hallucination):
        self.sets, self.strips = {False: real, True: hallucinated}, (strip, hallucination)

    def as_sets(self):
        strip, hallucination = self.strips
        return Sets(strip, hallucination, self.sets[False], self.sets[True])


def body_of(theta, joints):
    """A set's dict from theta (B, T, 85) and joints (B, T, 49, 3), by the orthographic camera."""
    theta, joints = torch.as_tensor(theta), torch.as_tensor(joints)
    rotmat = torch.as_tensor(rotations_of(theta[..., 3:75]))
    kp_2d = cameras.project_orthographic(joints, theta[..., :3])
    return {"theta": theta, "kp_3d": joints, "rotmat": rotmat, "kp_2d": kp_2d}


def anything(seed, camera=None):
    """A set of random bodies."""
    theta = random(seed).normal(size=(B, T, 85)) * 0.3
    theta[..., :3] = (1, 0, 0) if camera is None else camera
    return body_of(theta, random(seed + 100).normal(size=(B, T, 49, 3)) * 0.3)


def a_batch(seed=0):
    r = random(seed)
    kp_2d = np.concatenate(
        [r.uniform(-1, 1, (B, T, 49, 2)), r.integers(0, 2, (B, T, 49, 1)) * 0.7], -1
    )
    numbers = {
        "kp_2d": kp_2d,
        "kp_3d": r.normal(size=(B, T, 49, 3)),
        "theta": r.normal(size=(B, T, 85)) * 0.3,
    }
    flags = {name: r.integers(0, 2, (B, T)).astype(float) for name in ("w_3d", "w_smpl")}
    return {"features": torch.zeros(B, T, F, dtype=torch.float64), **numbers, **flags}


def a_model(seed=0):
    sets = [
        {**anything(s, (0.9, 0.1, 0)), "deltas": {-5: anything(s + 1), 5: anything(s + 2)}}
        for s in (seed, seed + 10)
    ]
    for of in sets:
        for moved in of["deltas"].values():
            # all points at one place: no camera shows them where they belong
            moved["kp_2d"][0, 7] = 0.5
    strips = [torch.as_tensor(random(seed + i).normal(size=(B, T, F))) for i in (1, 2)]
    return Planted(*sets, *strips)


def terms_of(model, batch, **options):
    sets = model.sets(batch["features"]) if isinstance(model, HMMR) else model.as_sets()
    return hmmr_losses.supervised(sets, batch, **options)


def values(model, batch, **options):
    return {name: term.item() for name, term in terms_of(model, batch, **options).items()}


# ------------------------------------------------------------------------------------------------
# written out


def plain(model, batch, method):
    """The definition, frame by frame."""
    rotmat = rotations_of(batch["theta"][..., 3:75])
    sums = dict.fromkeys(("kp", "joints", "smpl"), 0.0)
    every = []
    for of in model.sets.values():
        for dt, pred in ((0, of), *of["deltas"].items()):
            pred = {name: value.numpy() for name, value in pred.items() if name != "deltas"}
            every.append(pred)
            kp, n_kp, joints, smpl, w_3d, w_smpl = np.zeros(6)
            for b in range(B):
                for t in range(max(-dt, 0), T - max(dt, 0)):
                    label = t + dt
                    target, v = batch["kp_2d"][b, label, :, :2], batch["kp_2d"][b, label, :, 2] > 0
                    x, y = pred["kp_2d"][b, t][v], target[v]
                    if dt and not np.ptp(x, axis=0).any():
                        x = y = x[:0]  # without a camera, a frame leaves the mean
                    elif dt:
                        p, q = x - x.mean(0), y - y.mean(0)
                        if method == "least_squares":
                            s = (p * q).sum() / (p * p).sum()
                        else:
                            s = np.trace(np.linalg.inv(p.T @ p + 1e-6 * np.eye(2)) @ p.T @ q) / 2
                        s = np.clip(s, 0.7, 10)
                        x = s * (x + y.mean(0) / s - x.mean(0))
                    kp, n_kp = kp + np.abs(x - y).sum(), n_kp + 2 * len(x)
                    ours, theirs = (
                        a - a[HIPS].mean(0) for a in (pred["kp_3d"][b, t], batch["kp_3d"][b, label])
                    )
                    weights = np.full(14, batch["w_3d"][b, label])
                    if "w_kp_3d" in batch:
                        weights = batch["w_kp_3d"][b, label]
                        weights = weights[COMMON14] * weights[HIPS].min()
                    error = np.square(ours - theirs)[COMMON14].mean(axis=1)
                    joints, w_3d = joints + (weights * error).sum(), w_3d + weights.sum()
                    error = np.square(pred["rotmat"][b, t] - rotmat[b, label]).mean()
                    error += np.square(
                        pred["theta"][b, t, 75:] - batch["theta"][b, label, 75:]
                    ).mean()
                    smpl, w_smpl = (
                        smpl + batch["w_smpl"][b, label] * error,
                        w_smpl + batch["w_smpl"][b, label],
                    )
            sums["kp"] += 60 * kp / n_kp
            sums["joints"] += 60 * 0.5 * joints / w_3d
            sums["smpl"] += 60 * 0.5 * smpl / w_smpl
    betas = model.sets[False]["theta"].numpy()[..., 75:]
    return {
        **sums,
        "const": 0.5 * np.square(np.diff(betas, axis=1)).mean(),
        "hallucinate": float((model.strips[0] - model.strips[1]).square().mean()),
        "shape": np.mean([np.square(pred["theta"][..., 75:]).mean() for pred in every]),
    }


@pytest.mark.parametrize(
    ("method", "lacks_joints"), [("least_squares", False), ("trace", False), ("trace", True)]
)
def test_terms_equal_loops_over_sets_windows_and_frames(method, lacks_joints):
    model, batch = a_model(), a_batch()
    if lacks_joints:
        batch["w_kp_3d"] = random(5).integers(0, 2, (B, T, 49)).astype(float)
    # the labels of a frame without a camera
    assert (batch["kp_2d"][0, [2, 12], :, 2] > 0).sum(-1).min() > 1
    assert values(model, batch, optimal_camera=method) == pytest.approx(
        plain(model, batch, method), abs=1e-10
    )


def test_windows_of_five_frames_have_no_neighbours_five_frames_away():
    model, batch = a_model(), a_batch()

    def five(value):
        return {k: five(v) for k, v in value.items()} if isinstance(value, dict) else value[:, :5]

    sets, strip = [five(of) for of in model.sets.values()], model.strips[0][:, :5]
    alone = [{**of, "deltas": {}} for of in sets]
    found, without = (values(Planted(*them, strip, strip), five(batch)) for them in (sets, alone))
    assert [found[name] for name in ("kp", "joints")] == [
        without[name] for name in ("kp", "joints")
    ]


# ------------------------------------------------------------------------------------------------
# labels


def test_without_labels_terms_are_zero_with_zero_gradients():
    model, batch = a_model(), a_batch()
    for of in model.sets.values():
        for pred in (of, *of["deltas"].values()):
            for name in ("kp_2d", "kp_3d", "rotmat"):
                pred[name].requires_grad_()
    nothing = {name: np.zeros_like(batch[name]) for name in ("kp_2d", "w_3d", "w_smpl")}
    found = terms_of(model, batch | nothing)
    assert [found[name].item() for name in ("kp", "joints", "smpl")] == [0, 0, 0]
    (found["kp"] + found["joints"] + found["smpl"]).backward()
    gradients = [
        of[name].grad for of in model.sets.values() for name in ("kp_2d", "kp_3d", "rotmat")
    ]
    assert all((gradient == 0).all() for gradient in gradients)


# ------------------------------------------------------------------------------------------------
# priors


def test_scores_of_a_perfect_discriminator():
    real, fake = torch.ones(960, 24), torch.zeros(960, 24)
    assert float(hmmr_losses.discriminator(real, fake)) == 0
    assert float(hmmr_losses.adversarial(fake)) == 24


def test_the_global_rotation_is_not_judged():
    model = a_model()
    before = model.as_sets().rotations
    assert before.shape == (6 * B * T, 23, 3, 3)
    model.sets[False]["rotmat"][..., 0, :, :] += 1
    assert torch.equal(model.as_sets().rotations, before)
    model.sets[False]["rotmat"][..., 1, :, :] += 1
    assert not torch.equal(model.as_sets().rotations, before)


@pytest.mark.parametrize(("target", "reaches"), [("joint", True), ("detached", False)])
def test_whether_the_hallucinator_pulls_the_movie_strip(body, target, reaches):
    torch.manual_seed(0)
    model = HMMR(body, feature_size=F, regressor_size=32)
    batch = a_batch() | {"features": torch.randn(B, T, F)}
    terms_of(model, batch, hallucinator_target=target)["hallucinate"].backward()
    gradient = model.temporal.blocks[0].conv1.weight.grad
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == reaches
    assert model.hallucinator.fc3.weight.grad.abs().sum() > 0
