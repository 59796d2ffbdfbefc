import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose
from torch.testing import assert_close

from pipeline.people.boxes import normalise_keypoints
from vibe_model.cameras import (
    camera_in_picture,
    crop_to_image,
    optimal_camera,
    project_orthographic,
)

METHODS = pytest.mark.parametrize("method", ["least_squares", "trace"])


def test_the_camera_of_the_picture_shows_a_point_where_the_crop_shows_it():
    random = default_rng(0)
    camera = random.uniform([0.5, -0.2, -0.2], [1.2, 0.2, 0.2], (5, 3))
    box = np.concatenate(
        [random.uniform(50, 400, (5, 2)), np.repeat(random.uniform(80, 200, (5, 1)), 2, 1)], 1
    )
    points = random.normal(size=(5, 7, 2))
    in_crop = camera[:, None, :1] * (points + camera[:, None, 1:])
    expected = box[:, None, :2] + in_crop * 1.3 * box[:, None, 2:] / 2
    whole = camera_in_picture(camera, box, (640, 480), crop_scale=1.3)
    shown = whole[:, None, :2] * (points + whole[:, None, 2:])  # [-1, 1] over the picture
    assert_allclose((shown + 1) / 2 * (640, 480), expected, rtol=1e-5)


def test_a_camera_that_sees_nothing_has_finite_numbers_too():
    assert np.isfinite(
        camera_in_picture(np.zeros((1, 3)), np.ones((1, 4)), (640, 480), crop_scale=1.0)
    ).all()


def test_keypoints_go_back_to_where_the_crop_took_them_from():
    random = default_rng(1)
    kp_2d, side = random.uniform(0, 500, (4, 49, 3)), random.uniform(50, 300, (4, 1))
    box = np.concatenate([random.uniform(0, 500, (4, 2)), side, side], axis=1)
    in_crop = normalise_keypoints(kp_2d, box, scale=1.2)[..., :2]
    assert_allclose(crop_to_image(in_crop, box, crop_scale=1.2), kp_2d[..., :2], rtol=1e-5)


def planted(n=1000, scale=None, seed=0):
    """Points (n, 25, 2), 5 to 25 of them visible, as planted cameras (n, 3) see them."""
    random = default_rng(seed)
    points = random.normal(size=(n, 25, 2)) * 0.5
    visible = np.argsort(random.random((n, 25))) < random.integers(5, 26, (n, 1))
    camera = np.concatenate([random.uniform(0.75, 5, (n, 1)), random.uniform(-1, 1, (n, 2))], 1)
    if scale is not None:
        camera[:, 0] = scale
    return [
        torch.as_tensor(a)
        for a in (points, camera[:, None, :1] * (points + camera[:, None, 1:]), visible, camera)
    ]


def test_the_orthographic_camera_drops_depth_shifts_and_scales():
    camera, joints = torch.tensor([2.0, 0.1, -0.2]), torch.tensor([[[0.5, 1.0, 7.0]]])
    assert_close(project_orthographic(joints, camera), torch.tensor([[[1.2, 1.6]]]))


@METHODS
def test_a_planted_camera_is_found(method):
    points, targets, visible, camera = planted()
    found = optimal_camera(points, targets, visible, method)
    exact = (
        {"rtol": 0, "atol": 1e-12} if method == "least_squares" else {"rtol": 5e-5, "atol": 5e-5}
    )
    assert_close(found, camera, **exact)
    elsewhere = torch.where(visible[..., None], targets, 1e6)
    assert torch.equal(optimal_camera(points, elsewhere, visible.double() * 0.2, method), found)


@METHODS
def test_the_scale_stays_within_its_limits(method):
    for scale, expected in ((0.3, 0.7), (20.0, 10.0)):
        points, targets, visible, _ = planted(20, scale)
        assert (optimal_camera(points, targets, visible, method)[:, 0] == expected).all()
    mirrored = optimal_camera(-points, targets, visible, method)
    assert (mirrored[:, 0] == 0.7).all()
    assert (optimal_camera(points, targets, visible, method, limits=(0.1, 15.0))[:, 0] == 15).all()


@METHODS
def test_a_frame_without_two_points_gets_the_camera_that_changes_nothing(method):
    points, targets, visible, _ = planted(3)
    visible[0] = False
    visible[1] = torch.arange(25) == 4
    points[2] = 0.25
    still = torch.tensor([1.0, 0, 0]).double().expand(3, 3)
    assert torch.equal(optimal_camera(points, targets, visible, method), still)


@METHODS
def test_no_gradient_passes_through_the_optimal_camera(method):
    points, targets, visible, _ = planted(4)
    targets = (
        targets
        + 0.1 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    points.requires_grad_()
    camera = optimal_camera(points, targets, visible, method)
    assert not camera.requires_grad
    residual = camera[:, None, :1] * (points + camera[:, None, 1:]) - targets
    residual.abs().sum().backward()
    expected = camera[:, None, :1] * residual.detach().sign()
    assert_close(points.grad, expected)
