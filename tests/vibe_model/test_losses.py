import math

import pytest
import torch

from pipeline.people.rotations import axis_angle_to_matrix
from vibe_model import losses

ONES = {"kp_2d": 1.0, "kp_3d": 1.0, "pose": 1.0, "shape": 1.0}


def perfect(n_windows=2, n_frames=3):
    """A prediction, and labels that agree with it."""
    random = torch.Generator().manual_seed(0)
    kp_2d = torch.rand(n_windows, n_frames, 49, 2, generator=random)
    kp_3d = torch.randn(n_windows, n_frames, 49, 3, generator=random)
    theta = torch.randn(n_windows, n_frames, 85, generator=random) * 0.3
    rotmat = axis_angle_to_matrix(theta[..., 3:75].reshape(n_windows, n_frames, 24, 3))
    pred = {"theta": theta, "kp_2d": kp_2d, "kp_3d": kp_3d, "rotmat": rotmat}
    ones = torch.ones(n_windows, n_frames)
    batch = {
        "kp_2d": torch.cat([kp_2d, torch.ones_like(kp_2d[..., :1])], -1),
        "kp_3d": kp_3d.clone(),
    }
    return pred, {**batch, "theta": theta.clone(), "w_3d": ones, "w_smpl": ones.clone()}


def terms(pred, batch, weights=ONES):
    return {
        name: term.item() for name, term in losses.generator_losses(pred, batch, weights).items()
    }


def test_2d_is_the_mean_over_all_coordinates_of_confidence_times_squared_error():
    pred, batch = perfect()
    batch["kp_2d"][..., 2] = 0
    batch["kp_2d"][0, 0, 7] = torch.tensor([0.0, 0.0, 0.25])
    pred["kp_2d"][0, 0, 7] = torch.tensor([2.0, 4.0])
    assert terms(pred, batch)["kp_2d"] == pytest.approx(0.25 * (4 + 16) / (2 * 3 * 49 * 2))


def imperfect(n_windows=3, n_frames=5):
    """Predictions beside their labels, all of which are known."""
    pred, batch = perfect(n_windows, n_frames)
    noise = torch.randn(batch["kp_3d"].shape, generator=torch.Generator().manual_seed(1))
    pred["kp_3d"] = pred["kp_3d"] + noise
    return pred, batch


def test_3d_joints_of_frames_that_lack_some_are_weighed_each():
    pred, batch = imperfect()
    weight = (torch.rand(3, 5, 49, generator=torch.Generator().manual_seed(2)) < 0.6).float()
    weight[0, :, [27, 28]] = 1  # the hips
    weight[1, 2:4] = 0
    squared, n_known, n_about_a_hip = 0.0, 0, 0
    for window in range(3):
        for frame in range(5):
            known = [joint for joint in range(25, 39) if weight[window, frame, joint]]
            if not {27, 28} <= {*known}:
                n_about_a_hip += len(known)
                continue
            ours, theirs = (of["kp_3d"][window, frame] for of in (pred, batch))
            error = (ours - (ours[27] + ours[28]) / 2) - (theirs - (theirs[27] + theirs[28]) / 2)
            squared += sum(error[joint].square().sum().item() for joint in known)
            n_known += len(known)
    assert n_about_a_hip > 0
    batch |= {"w_kp_3d": weight, "w_3d": torch.zeros(3, 5)}
    assert terms(pred, batch)["kp_3d"] == pytest.approx(squared / (3 * n_known), rel=1e-5)
    assert terms(pred, batch | {"w_kp_3d": torch.zeros(3, 5, 49)})["kp_3d"] == 0


def test_weights_of_joints_change_no_bit_where_all_are_known():
    pred, batch = imperfect()
    batch["w_3d"][[0, 2], [1, 4]] = 0
    losses_of, gradients = [], []
    for labels in (batch, batch | {"w_kp_3d": batch["w_3d"][..., None].expand(3, 5, 49)}):
        joints = pred["kp_3d"].clone().requires_grad_()
        loss = losses.generator_losses(pred | {"kp_3d": joints}, labels, ONES)["kp_3d"]
        loss.backward()
        losses_of.append(loss)
        gradients.append(joints.grad)
    assert torch.equal(*losses_of)
    assert torch.equal(*gradients)
    # and as before joints had weights: the mean of each frame's mean
    ours, theirs = (
        of["kp_3d"][..., 25:39, :] - of["kp_3d"][..., [27, 28], :].mean(-2, keepdim=True)
        for of in (pred, batch)
    )
    per_frame = (ours - theirs).square().flatten(2).mean(-1)
    expected = (batch["w_3d"] * per_frame).sum() / batch["w_3d"].sum()
    assert torch.equal(losses_of[0].detach(), expected)


def test_pose_compares_matrices():
    pred, batch = perfect(1, 2)
    batch["theta"][..., 3:75] = 0
    pred["rotmat"] = torch.eye(3).expand(1, 2, 24, 3, 3).clone()
    angle = 0.5
    pred["rotmat"][0, 0, 4] = axis_angle_to_matrix(torch.tensor([0.0, angle, 0.0]))
    # Four of nine entries differ: twice 1 - cos, twice sin.
    expected = 2 * ((1 - math.cos(angle)) ** 2 + math.sin(angle) ** 2) / (2 * 24 * 9)
    assert terms(pred, batch)["pose"] == pytest.approx(expected, rel=1e-5)
    batch["w_smpl"][0, 1] = 0  # half the frames, all of the error
    assert terms(pred, batch)["pose"] == pytest.approx(2 * expected, rel=1e-5)


def test_shape_is_the_mean_squared_error_of_betas():
    pred, batch = perfect(1, 2)
    batch["theta"][0, 0, 75:] += 2
    assert terms(pred, batch)["shape"] == pytest.approx(4 / 2, rel=1e-5)


def test_each_weight_multiplies_its_own_term():
    pred, batch = perfect()
    batch = {
        name: value + 0.1 if name.startswith(("kp", "theta")) else value
        for name, value in batch.items()
    }
    batch["kp_3d"][..., 30, :] += 0.1
    once, many = (
        terms(pred, batch),
        terms(pred, batch, {"kp_2d": 2, "kp_3d": 3, "pose": 5, "shape": 7}),
    )
    for name, factor in {"kp_2d": 2, "kp_3d": 3, "pose": 5, "shape": 7}.items():
        assert many[name] == pytest.approx(factor * once[name], rel=1e-5) != 0


def test_adversarial_terms_by_hand():
    fake, real = torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [0.0], [3.0], [1.0]])
    assert losses.adversarial_generator(fake).item() == pytest.approx((0.25 + 1) / 2)
    assert losses.adversarial_discriminator(real, fake).item() == pytest.approx(
        (0.25 + 4) / 2 + (0 + 1 + 4 + 0) / 4
    )
    terms = losses.adversarial_terms(fake, real, 2 * fake, {"discriminator": 3.0})
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {
            "adversarial": 0.5 * (0.25 + 1) / 2,
            "discriminator_real": 3 * (0 + 1 + 4 + 0) / 4,
            "discriminator_fake": 3 * (1 + 16) / 2,
        }
    )
