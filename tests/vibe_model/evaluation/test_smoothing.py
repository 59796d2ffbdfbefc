import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vibe_model.errors import ConfigError
from vibe_model.evaluation.smoothing import nearest_rotations, smooth, smooth_rotations


def one_run(n):
    return np.zeros(n, np.int64)


def gaussian_weights(n, frame, sigma):
    """Of all n frames for one of them, from the definition: cut at 4 sigma, normalised over what is there."""
    away = np.arange(n) - frame
    weights = np.where(np.abs(away) <= np.ceil(4 * sigma), np.exp(-0.5 * (away / sigma) ** 2), 0)
    return weights / weights.sum()


def rotations(seed, *shape):
    return Rotation.random(int(np.prod(shape)), random_state=seed).as_matrix().reshape(*shape, 3, 3)


def test_sigma_0_changes_nothing_and_hands_out_a_copy():
    values, rotmat = np.random.default_rng(0).normal(size=(9, 3)), rotations(0, 9, 24)
    for before, after in ((values, smooth(values, one_run(9), 0)), (rotmat, smooth_rotations(rotmat, one_run(9), 0))):
        np.testing.assert_array_equal(after, before)
        assert not np.shares_memory(after, before)


@pytest.mark.parametrize("sigma", [0.3, 1, 4, 30])
def test_what_stands_still_stays_where_it_is_up_to_the_ends(sigma):
    values = np.broadcast_to(np.array([0.9, -0.1, 3.0]), (11, 3))
    rotmat = np.broadcast_to(rotations(1, 24), (11, 24, 3, 3))
    np.testing.assert_allclose(smooth(values, one_run(11), sigma), values, rtol=1e-12)
    np.testing.assert_allclose(smooth_rotations(rotmat, one_run(11), sigma), rotmat, atol=1e-12)


@pytest.mark.parametrize(("n", "sigma"), [(1, 2.0), (2, 5.0), (7, 0.4), (7, 1.0), (12, 40.0)])
def test_every_frame_is_the_normalised_gaussian_mean_of_its_stretch(n, sigma):
    values = np.random.default_rng(n).normal(size=(n, 2, 3))
    expected = [np.tensordot(gaussian_weights(n, frame, sigma), values, 1) for frame in range(n)]
    np.testing.assert_allclose(smooth(values, one_run(n), sigma), expected, atol=1e-12)


def test_a_uniform_turn_stays_on_its_geodesic_in_the_middle():
    axis = np.array([1.0, 2, 2]) / 3
    angles = 0.05 * np.arange(41)
    turn = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()[:, None]
    smoothed = smooth_rotations(turn, one_run(41), 2.0)
    np.testing.assert_allclose(smoothed[8:-8], turn[8:-8], atol=1e-12)
    # At the ends only frames of one side are there: the first ones turn on, but about the same axis.
    ends = Rotation.from_matrix(smoothed[:, 0]).as_rotvec()
    np.testing.assert_allclose(np.cross(ends, axis), 0, atol=1e-12)
    assert 0 < ends[0] @ axis < 0.05 * 8


def test_uniform_motion_stays_uniform_in_the_middle():
    line = 0.1 * np.arange(30)[:, None] + np.array([1.0, -2.0])
    np.testing.assert_allclose(smooth(line, one_run(30), 1.5)[6:-6], line[6:-6], atol=1e-12)


@pytest.mark.parametrize("sigma", [1, 2, 4])
def test_the_variance_of_noise_falls_by_2_sigma_root_pi(sigma):
    n = 40_000
    noise = np.random.default_rng(sigma).normal(size=(n, 3)) * 0.02
    expected = 0.02**2 / (2 * sigma * np.sqrt(np.pi))  # the integral of a squared Gaussian of mass 1
    assert smooth(noise, one_run(n), sigma).var() == pytest.approx(expected, rel=0.05)
    turned = smooth_rotations(Rotation.from_rotvec(noise).as_matrix()[:, None], one_run(n), sigma)
    assert Rotation.from_matrix(turned[:, 0]).as_rotvec().var() == pytest.approx(expected, rel=0.05)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.floats(0.2, 20))
@settings(max_examples=40, deadline=None)
def test_stretches_never_mix(lengths, sigma):
    run = np.repeat(np.arange(len(lengths)) * 3, lengths)
    values, rotmat = np.random.default_rng(0).normal(size=(len(run), 2)), rotations(0, len(run), 2)
    together = smooth(values, run, sigma), smooth_rotations(rotmat, run, sigma)
    for number in set(run.tolist()):
        part = run == number
        alone = one_run(part.sum())
        np.testing.assert_array_equal(together[0][part], smooth(values[part], alone, sigma))
        np.testing.assert_array_equal(together[1][part], smooth_rotations(rotmat[part], alone, sigma))


def test_the_mean_of_rotations_is_scipys_chordal_mean():
    rotmat = rotations(3, 5, 2)
    smoothed = smooth_rotations(rotmat, one_run(5), 1.2)
    for frame in range(5):
        for joint in range(2):
            weights = gaussian_weights(5, frame, 1.2)
            expected = Rotation.from_matrix(rotmat[:, joint]).mean(weights).as_matrix()
            np.testing.assert_allclose(smoothed[frame, joint], expected, atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_nearest_rotation_is_a_rotation_and_none_is_nearer(seed):
    matrix = np.random.default_rng(seed).normal(size=(3, 3))
    nearest = nearest_rotations(matrix)
    np.testing.assert_allclose(nearest @ nearest.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(nearest) == pytest.approx(1)
    best = np.square(nearest - matrix).sum()
    assert (np.square(rotations(seed, 200) - matrix).sum((1, 2)) >= best - 1e-12).all()


def test_smoothed_predictions_keep_their_type():
    rotmat = rotations(0, 6, 24).astype(np.float32)
    assert smooth_rotations(rotmat, one_run(6), 2.0).dtype == np.float32
    assert smooth(np.ones((6, 3), np.float32), one_run(6), 2.0).dtype == np.float32
    assert smooth_rotations(rotmat[:0], one_run(0), 2.0).shape == (0, 24, 3, 3)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(ConfigError, match="0 or more"):
        smooth(np.zeros((3, 1)), one_run(3), sigma)
    with pytest.raises(ConfigError, match="0 or more"):
        smooth_rotations(rotations(0, 3), one_run(3), sigma)
