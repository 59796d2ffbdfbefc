import numpy as np

from pipeline.crops import normalise_keypoints
from vibe_model.cameras import camera_in_picture, in_picture


def test_the_camera_of_the_picture_shows_a_point_where_the_crop_shows_it():
    random = np.random.default_rng(0)
    camera = random.uniform([0.5, -0.2, -0.2], [1.2, 0.2, 0.2], (5, 3))
    box = np.concatenate([random.uniform(50, 400, (5, 2)), np.repeat(random.uniform(80, 200, (5, 1)), 2, 1)], 1)
    points = random.normal(size=(5, 7, 2))
    in_crop = camera[:, None, :1] * (points + camera[:, None, 1:])
    expected = box[:, None, :2] + in_crop * 1.3 * box[:, None, 2:] / 2
    whole = camera_in_picture(camera, box, (640, 480), crop_scale=1.3)
    shown = whole[:, None, :2] * (points + whole[:, None, 2:])  # [-1, 1] over the picture
    np.testing.assert_allclose((shown + 1) / 2 * (640, 480), expected, rtol=1e-5)


def test_a_camera_that_sees_nothing_has_finite_numbers_too():
    assert np.isfinite(camera_in_picture(np.zeros((1, 3)), np.ones((1, 4)), (640, 480), crop_scale=1.0)).all()


def test_keypoints_go_back_to_where_the_crop_took_them_from():
    random = np.random.default_rng(1)
    kp_2d, side = random.uniform(0, 500, (4, 49, 3)), random.uniform(50, 300, (4, 1))
    box = np.concatenate([random.uniform(0, 500, (4, 2)), side, side], axis=1)
    in_crop = normalise_keypoints(kp_2d, box, scale=1.2)[..., :2]
    np.testing.assert_allclose(in_picture(in_crop, box, crop_scale=1.2), kp_2d[..., :2], rtol=1e-5)
