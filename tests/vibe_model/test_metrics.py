import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from vibe_model import metrics


def body(n=5, seed=0):
    return default_rng(seed).normal(size=(n, 14, 3))


def test_mpjpe_of_one_wrong_joint_by_hand():
    target = body(2)
    pred = target.copy()
    pred[1, 0] += (0.03, 0.04, 0)  # 50 mm, an ankle
    assert_allclose(metrics.mpjpe(pred, target), [0, 50 / 14], atol=1e-9)


def test_the_bodies_are_centred_on_the_midpoint_of_joints_2_and_3():
    target = body(1)
    pred = target.copy()
    # the midpoint moves by 50 mm: 50 mm for each joint, also for the hip itself
    pred[0, 2] += (0.1, 0, 0)
    assert_allclose(metrics.mpjpe(pred, target), 50)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_a_similarity_transform_is_undone_by_the_alignment(seed, scale):
    random = default_rng(seed)
    target = body(3, seed)
    rotation = Rotation.random(3, random_state=seed).as_matrix()
    pred = scale * target @ rotation.transpose(0, 2, 1) + random.normal(size=(3, 1, 3))
    assert_allclose(metrics.procrustes_align(pred, target), target, atol=1e-9)
    assert_allclose(metrics.pa_mpjpe(pred, target), 0, atol=1e-6)


def test_a_mirrored_body_is_not_aligned_by_mirroring_it_back():
    target = body()
    assert (metrics.pa_mpjpe(target * (-1, 1, 1), target) > 100).all()


def test_a_body_collapsed_to_a_point_aligns_to_the_mean():
    target = body(1)
    aligned = metrics.procrustes_align(np.ones((1, 14, 3)), target)
    assert_allclose(aligned, np.broadcast_to(target.mean(1, keepdims=True), (1, 14, 3)))


def test_accelerations_are_second_differences_about_the_hips():
    frames = np.arange(5.0)
    target = np.zeros((5, 14, 3))
    pred = np.zeros((5, 14, 3))
    pred[:, 0, 0] = 0.5 * 0.014 * frames**2  # an ankle, 14 mm per frame^2
    assert metrics.accel(pred).shape == (3,)
    assert_allclose(metrics.accel(pred, target), 1)
    assert_allclose(metrics.accel_error(pred, target), 1)
    assert_allclose(metrics.accel_error(pred, pred), 0)
    pred += 100 * frames[:, None, None] ** 2  # how the whole body moves is not looked at
    assert_allclose(metrics.accel(pred), 1, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_frames_have_no_acceleration(n):
    assert metrics.accel(body(n)).shape == metrics.accel_error(body(n), body(n)).shape == (0,)


@pytest.mark.promise("problems of MPI-INF-3DHP")
def test_pck_is_the_share_of_joints_closer_than_150_mm():
    target = body(2)
    pred = target.copy()
    pred[0, 0] += (0.149, 0, 0)
    pred[0, 1] += (0.151, 0, 0)
    pred[1, 5] += (0, 0, 2.0)
    assert metrics.pck(pred, target) == pytest.approx(100 * 26 / 28)
    assert metrics.pck(pred, target, threshold_mm=100) == pytest.approx(100 * 25 / 28)


@pytest.mark.promise("problems of MPI-INF-3DHP")
def test_auc_is_the_mean_over_31_thresholds():
    target = body(1)
    # nothing is closer than 0 mm
    assert metrics.auc(target, target) == pytest.approx(100 * 30 / 31)
    pred = target.copy()
    # half the joints: below 75, 80, ..., 150 mm, 16 thresholds
    pred[0, [0, 1, 4, 5, 6, 7, 8]] += (0.0725, 0, 0)
    assert metrics.auc(pred, target) == pytest.approx(100 * (0.5 * 30 / 31 + 0.5 * 16 / 31))


def test_no_frames_give_no_number():
    assert np.isnan(metrics.pck(body(0), body(0)))
    assert np.isnan(metrics.auc(body(0), body(0)))


def test_inputs_are_left_alone_and_other_joints_refused():
    pred, target = body(3, 1), body(3, 2)
    copies = pred.copy(), target.copy()
    for name in ("mpjpe", "pa_mpjpe", "pve", "accel", "accel_error", "pck", "auc"):
        getattr(metrics, name)(pred, target)
    assert_array_equal((pred, target), copies)
    with pytest.raises(ValueError, match="common14"):
        metrics.mpjpe(np.zeros((1, 17, 3)), np.zeros((1, 17, 3)))


def keypoints(*points):
    """One frame of labelled keypoints (x, y)."""
    return np.array([[(x, y, 1.0) for x, y in points]])


def pck_2d(pred, target, **share):
    hits, counted = metrics.hits_2d(pred, target, **share)
    return 100 * hits.sum() / counted.sum()


def test_2d_pck_by_hand():
    # the tight box's larger side is 2: within 0.1 is right
    target = keypoints((0, 0), (1, 0), (1, 2), (0.5, 1))
    pred = target[..., :2] + np.array([[(0, 0.05), (0.06, 0.09), (0, 0.11), (0.2, 0)]])
    hits, counted = metrics.hits_2d(pred, target)
    assert (hits.tolist(), counted.tolist()) == ([1], [4])  # the second one is 0.108 away
    assert pck_2d(pred, target) == 25
    assert pck_2d(pred, target, share=0.0999) == 75
    assert pck_2d(pred, target, share=0.1) == 100
    bound = keypoints((0, 0), (0, 16))
    assert pck_2d(bound[..., :2] + np.array([4.0, 0]), bound, share=0.25) == 100


def test_keypoints_without_a_label_neither_count_nor_widen_the_box():
    target = keypoints((0, 0), (1, 1), (50, 50))
    target[0, 2, 2] = 0
    pred = target[..., :2] + 0.04  # 0.057 away
    assert pck_2d(pred, target) == 0
    target[0, 2, 2] = 0.01  # a doubtful one counts, and the box is 50 wide now
    assert pck_2d(pred, target) == 100


def test_a_frame_whose_box_has_no_extent_gives_no_2d_pck():
    alone, none = keypoints((0.3, 0.3), (0.3, 0.3)), keypoints((0, 0), (1, 1)) * (1, 1, 0)
    for target in (alone, none, alone[:0]):
        assert metrics.hits_2d(target[..., :2], target)[1].sum() == 0


def in_crop(n=4, joints=25, seed=0):
    return default_rng(seed).uniform(40, 180, (n, joints, 2))


def test_aligned_pck_is_a_mean_over_frames_with_six_points():
    target, visible = in_crop(3), np.zeros((3, 25))
    visible[0, :5] = visible[1, :6] = visible[2] = 1  # too few, enough, all
    pred = target.copy()
    pred[2] = -pred[2]  # mirrored: nothing fits
    pred[:, 24] = 1e9  # seen in the last frame alone
    _, second, third = (metrics.pck_aligned(pred[[i]], target[[i]], visible[[i]]) for i in range(3))
    assert second == 100
    assert metrics.pck_aligned(pred, target, visible) == pytest.approx((100 + third) / 2)
    assert np.isnan(metrics.pck_aligned(pred[:1], target[:1], visible[:1]))
    # one point, taken to the target's mean: all are within 11.2 px of it
    assert metrics.pck_aligned(np.zeros((1, 6, 2)), target[:1, :6] / 40, np.ones((1, 6))) == 100


def test_a_keypoint_is_right_within_11_2_px_of_a_person_of_150_px():
    others = default_rng(0).uniform(-40, 40, (2000, 2))
    target = np.concatenate([[[-45, -60], [45, 60]], others])[None]
    labels = np.concatenate([target, np.ones((1, 2002, 1))], axis=-1)
    shares = []
    for px in (11.19, 11.21):
        pred = target.copy()
        pred[0, 2] += (px, 0)  # of 2,002 points: the alignment does not follow it
        shares += metrics.METRICS["pck_aligned"].of(pred, labels).tolist()
    assert shares == pytest.approx([100, 100 * (1 - 1 / 2002)], abs=1e-9)
