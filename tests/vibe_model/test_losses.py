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


def test_3d_looks_at_common14_about_the_hips_in_frames_that_have_labels():
    pred, batch = perfect()
    # where the body stands is not looked at
    pred["kp_3d"] = pred["kp_3d"] + torch.tensor([5.0, -3.0, 1.0])
    pred["kp_3d"][:, :, :25] += 100  # nor are joints outside common14
    pred["kp_3d"][:, :, 39:] += 100
    pred["kp_3d"][0, 0, 25] += torch.tensor([0.3, 0.0, 0.0])  # an ankle
    pred["kp_3d"][1] += torch.randn(3, 49, 3)
    batch["w_3d"][1] = 0
    assert terms(pred, batch)["kp_3d"] == pytest.approx(0.09 / (3 * 14 * 3), rel=1e-4)


def test_moving_one_hip_moves_every_joint_the_other_way_by_half():
    pred, batch = perfect(1, 1)
    # the right hip: its own error is 0.1, so is the others'
    pred["kp_3d"][0, 0, 27] += torch.tensor([0.2, 0.0, 0.0])
    assert terms(pred, batch)["kp_3d"] == pytest.approx(14 * 0.01 / (14 * 3), rel=1e-4)


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
