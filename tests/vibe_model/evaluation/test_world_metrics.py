"""Metrics in the world: closed forms, and the same by SciPy's alignment and plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vibe_model.evaluation import world


def walk(n=230, seed=0):
    """(n, 24, 3) m: 24 points about a root that goes along a bent path."""
    random, frame = np.random.default_rng(seed), np.arange(n) / 30
    root = np.stack([frame, np.sin(frame), 0.3 * frame**2], axis=1)
    return root[:, None] + random.normal(size=(24, 3)) * 0.4 + random.normal(size=(n, 24, 3)) * 0.02


def aligned_by_scipy(source, goal, points, *, scaled=True):
    """`points` by the transform of `source` nearest to `goal`: Kabsch's as SciPy has it, the scale
    after it.
    """
    rotation, _ = Rotation.align_vectors(goal - goal.mean(0), source - source.mean(0))
    turned = rotation.apply(source - source.mean(0))
    scale = (turned * (goal - goal.mean(0))).sum() / np.square(turned).sum() if scaled else 1
    return scale * rotation.apply(points - source.mean(0)) + goal.mean(0)


@pytest.mark.parametrize("metric", [world.w_mpjpe, world.wa_mpjpe])
@given(seed=st.integers(0, 1000), scale=st.floats(0.2, 5))
def test_another_world_is_no_error(metric, seed, scale):
    target = walk(130, seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    np.testing.assert_allclose(metric(scale * target @ turn.T + (5, -3, 1), target), 0, atol=1e-6)


@pytest.mark.parametrize(("metric", "n_fitted"), [(world.w_mpjpe, 2), (world.wa_mpjpe, 100)])
@pytest.mark.parametrize("n", [1, 2, 100, 101, 230])
def test_chunks_of_100_frames_are_aligned_each_by_its_own_frames(metric, n_fitted, n):
    target, pred = (
        walk(n),
        walk(n, 1) * 1.1 + np.random.default_rng(2).normal(size=(n, 24, 3)) * 0.05,
    )
    expected = []
    for start in range(0, n, 100):
        ours, truth = pred[start : start + 100], target[start : start + 100]
        fitted = [frames[:n_fitted].reshape(-1, 3) for frames in (ours, truth)]
        moved = aligned_by_scipy(*fitted, ours.reshape(-1, 3)).reshape(ours.shape)
        for frame, right in zip(moved, truth, strict=True):
            expected.append(
                1000 * sum(np.linalg.norm(a - b) for a, b in zip(frame, right, strict=True)) / 24
            )
    np.testing.assert_allclose(metric(pred, target), expected, rtol=1e-6)


def test_a_drift_is_seen_from_the_first_frames_and_spread_over_all():
    """A body that slides by 10 mm a frame beside one that stands: W counts from frame 0 on; WA from
    the middle.
    """
    target = np.tile(walk(1), (100, 1, 1))
    pred = target + np.arange(100)[:, None, None] * (0.01, 0, 0)
    w, wa = world.w_mpjpe(pred, target), world.wa_mpjpe(pred, target)
    assert w[99] > 700
    assert wa.mean() < w.mean() / 1.5
    assert world.w_mpjpe(pred[:0], target[:0]).shape == (0,)


def test_rte_is_a_share_of_the_path_and_has_no_scale():
    """A straight path of 10 m, predicted as one of 9 m: after alignment, ends are off by 0.5 m, the
    middle by none.
    """
    along = np.linspace(0, 10, 101)
    target, turn = along[:, None] * (1, 0, 0), Rotation.from_rotvec((0.2, 1, -0.5)).as_matrix()
    error = world.rte(0.9 * target @ turn.T + 7, target)
    np.testing.assert_allclose(error, 100 * np.abs(along - 5) * 0.1 / 10, atol=1e-9)
    assert np.isnan(world.rte(target, np.zeros((101, 3)))).all()
    np.testing.assert_allclose(
        world.rte(np.array([[0, 0, 0], [0.2, 0, 0]]), np.array([[0, 0, 0], [0.4, 0, 0]])), 25
    )


def test_rte_by_scipy():
    target, pred = walk()[:, 0], walk(seed=1)[:, 0] * 1.2
    moved = aligned_by_scipy(pred, target, pred, scaled=False)
    length = sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(target))
    np.testing.assert_allclose(
        world.rte(pred, target), 100 * np.linalg.norm(moved - target, axis=1) / length, 1e-6
    )


def test_jitter_of_a_cubic_is_its_third_derivative():
    seconds = np.arange(40) / 25
    # the third derivative is 12 m/s^3
    joints = (seconds**3)[:, None, None] * np.tile((2.0, 0, 0), (24, 1))
    np.testing.assert_allclose(world.jitter(joints, 25), np.full(37, 1.2), rtol=1e-6)
    np.testing.assert_allclose(
        world.jitter(np.square(joints[:, :, :1] ** (1 / 3)), 25), 0, atol=1e-6
    )
    assert [world.jitter(joints[:n], 25).shape for n in (0, 3, 4)] == [(0,), (0,), (1,)]


def test_feet_slide_only_while_the_targets_stand():
    target, pred = np.zeros((4, 6890, 3), np.float32), np.zeros((4, 6890, 3), np.float32)
    target[2:, 3387, 0] = 0.02  # the left heel steps between frames 1 and 2
    target[:, 6617, 0] = np.arange(4) * 0.009  # slowly enough to stand
    pred[:, 3387, 2] = np.arange(4) * 0.005
    pred[:, 100] = np.random.default_rng(0).normal(size=(4, 3))  # no foot
    expected = [0, 5, 0, 0, 0, 0, 0, 0, 5, 0, 0]  # by frame: left toe, heel, right toe, heel
    np.testing.assert_allclose(world.foot_sliding(pred, target), expected, atol=1e-4)
    target[:, :, 1] = np.arange(4)[:, None]
    assert world.foot_sliding(pred, target).shape == (0,)
