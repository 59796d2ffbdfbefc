import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d
from scipy.signal import medfilt

from pipeline.people.boxes import corner_boxes_with_margin, extents, smooth_boxes, tight_boxes


def person(cx, cy, w, h, confidence=1.0):
    """(4, 3): the corners of an extent as joints."""
    corners = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
    return np.array([(cx + sx * w / 2, cy + sy * h / 2, confidence) for sx, sy in corners])


def test_a_tight_box_is_the_extent_of_visible_joints_made_square_by_its_larger_side():
    joints = np.concatenate([person(50, 80, 20, 60), [[1000, 1000, 0], [np.nan, 5, 1]]])
    boxes, empty, degenerate = tight_boxes(joints[None])
    assert_array_equal(boxes, [[50, 80, 60, 60]])
    assert (boxes.dtype, empty.any(), degenerate.any()) == (np.float32, False, False)
    assert_allclose(tight_boxes(joints[None], factor=1.1)[0], [[50, 80, 66, 66]])


def test_no_visible_joint_is_empty_and_under_a_pixel_is_degenerate():
    rows = np.stack([person(5, 5, 9, 9, 0), person(5, 5, 0.9, 0.9), person(5, 5, 0.2, 1.0)])
    boxes, empty, degenerate = tight_boxes(rows)
    assert empty.tolist() == [True, False, False]
    assert degenerate.tolist() == [False, True, False]
    assert np.isfinite(boxes).all()


def test_boxes_of_nothing_are_no_boxes():
    assert tight_boxes(np.zeros((0, 13, 3)))[0].shape == (0, 4)
    assert extents(np.zeros((3, 0, 3)))[1].tolist() == [False] * 3
    boxes, first, stop = smooth_boxes(np.zeros((5, 4, 3)))
    assert (boxes.shape, first, stop) == ((0, 4), 0, 0)


@pytest.mark.parametrize(("n", "median"), [(60, 11), (5, 5), (4, 3), (2, 1)])
def test_smoothing_is_scipys_median_then_gaussian_of_centre_and_scale(n, median):
    rng = np.random.default_rng(0)
    centre, size = rng.uniform(100, 400, (n, 2)), rng.uniform(20, 80, (n, 2))
    kp_2d = np.stack([person(*c, *s) for c, s in zip(centre, size, strict=True)])
    boxes, first, stop = smooth_boxes(kp_2d)
    values = np.column_stack([centre, 150 / np.hypot(*size.T)])
    smooth = np.column_stack([gaussian_filter1d(medfilt(v, median), 8) for v in values.T])
    assert (first, stop) == (0, n)
    assert_allclose(boxes[:, :2], smooth[:, :2], rtol=1e-6)
    assert_allclose(boxes[:, 2], 150 / smooth[:, 2], rtol=1e-6)
    assert_array_equal(boxes[:, 2], boxes[:, 3])


def test_frames_before_the_first_and_after_the_last_detection_have_no_box():
    kp_2d = np.repeat(person(100, 200, 30, 40)[None], 30, axis=0)
    kp_2d[:7, :, 2] = 0
    kp_2d[25:, :, 2] = 0.3  # not above the threshold
    boxes, first, stop = smooth_boxes(kp_2d)
    assert (first, stop) == (7, 25)
    assert boxes.shape == (18, 4)
    assert_allclose(boxes[:, :2], [[100, 200]] * 18, rtol=1e-6)


def test_centre_and_scale_are_interpolated_linearly_over_missing_frames():
    kp_2d = np.zeros((21, 4, 3))
    kp_2d[0], kp_2d[20] = person(100, 100, 30, 40), person(300, 200, 60, 80)
    boxes, _, _ = smooth_boxes(kp_2d, median=1, sigma=1e-3)  # filters that change nothing
    assert_allclose(boxes[10, :2], [200, 150], rtol=1e-6)
    # Scales 150 / 50 = 3 and 150 / 100 = 1.5: halfway 2.25, not the mean of the sides.
    assert_allclose(boxes[10, 2], 150 / 2.25, rtol=1e-6)


def test_an_extent_under_half_a_pixel_is_no_detection():
    kp_2d = np.repeat(person(100, 100, 30, 40)[None], 30, axis=0)
    kp_2d[0] = person(100, 100, 0.3, 0.3)  # diagonal 0.42
    assert smooth_boxes(kp_2d)[1:] == (1, 30)
    kp_2d[0] = person(100, 100, 0, 0.5)
    assert smooth_boxes(kp_2d)[1:] == (0, 30)


@pytest.mark.parametrize(("margin", "expected"), [(0, [40, 50, 20, 60]), (0.5, [30, 20, 40, 120])])
def test_a_corner_box_has_a_margin_of_finite_joints_and_is_infinite_without_one(margin, expected):
    joints = np.concatenate([person(50, 80, 20, 60), [[np.nan, 5, 1]]])
    boxes = corner_boxes_with_margin(np.stack([joints, np.zeros((5, 3))]), margin)
    assert_array_equal(boxes, [expected, [np.inf, np.inf, -np.inf, -np.inf]])
