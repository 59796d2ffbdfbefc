import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation, Slerp

from pipeline.extras.demo.body import procedural, rest_joints, skin
from pipeline.people import cameras

K = np.array([[900.0, 0, 500], [0, 880, 400], [0, 0, 1]])


def moving_cameras(n, seed=0):
    """A person at the origin is 4 to 6 m in front of each of them."""
    random = np.random.default_rng(seed)
    extrinsics = np.tile(np.eye(4), (n, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(random.normal(size=(n, 3)) * 0.5).as_matrix()
    extrinsics[:, :3, 3] = random.normal(size=(n, 3)) * 0.2 + (0, 0, 5)
    return extrinsics


def turning(n, vector):
    """(n, 4, 4): by `vector` rad from each frame to the next, about the camera's own axes."""
    extrinsics = np.tile(np.eye(4), (n, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(np.arange(n)[:, None] * vector).as_matrix()
    return extrinsics


def test_a_still_persons_joints_in_the_world_do_not_move_while_the_camera_does():
    """Through the body: its joints in the camera, brought into the world by the extrinsics, are
    where they were.
    """
    random, body, extrinsics = np.random.default_rng(1), procedural(), moving_cameras(7)
    betas, pose, trans = (
        random.normal(size=10),
        random.normal(size=72) * 0.3,
        np.array([0.4, 1.1, -0.3]),
    )
    in_world = skin(body, betas, pose[None], trans[None]).joints[0]
    pelvis = rest_joints(body, betas)[0]
    assert np.linalg.norm(pelvis) > 0.1  # else nobody would notice a forgotten one
    root, shift = cameras.to_camera(pose[:3], trans, extrinsics, pelvis)
    poses = np.concatenate([root, np.tile(pose[3:], (7, 1))], axis=1)
    in_camera = skin(body, betas, poses, shift).joints  # (7, 24, 3)
    assert np.ptp(in_camera, axis=0).max() > 0.3
    rotation, t = extrinsics[:, None, :3, :3], extrinsics[:, None, :3, 3]
    back = np.einsum("fjba,fjb->fja", np.broadcast_to(rotation, (7, 24, 3, 3)), in_camera - t)
    assert_allclose(back, np.broadcast_to(in_world, back.shape), atol=1e-9)


def test_a_projection_by_hand_and_nothing_behind_the_camera():
    points = np.array([[1.0, -0.5, 2], [0, 0, 0], [1, 1, -2]])
    assert_allclose(cameras.project(points, K), [[950, 180], [np.nan] * 2, [np.nan] * 2])
    by_frame = cameras.project(np.tile(points[0], (2, 4, 1)), np.stack([K, K * (2, 2, 1)])[:, None])
    assert_allclose(by_frame[:, 3], [[950, 180], [1400, -40]])


@given(st.integers(0, 10_000))
def test_a_mirrored_camera_sees_the_mirrored_world_as_the_mirrored_picture(seed):
    extrinsics, points = (
        moving_cameras(4, seed),
        np.random.default_rng(seed).normal(size=(4, 3)) * 0.5,
    )

    def seen(camera, world):
        return np.einsum("fij,fj->fi", camera[:, :3, :3], world) + camera[:, :3, 3]

    flipped = cameras.mirrored(extrinsics)
    assert cameras.is_rigid(flipped).all()
    assert_allclose(
        seen(flipped, points * (-1, 1, 1)), seen(extrinsics, points) * (-1, 1, 1), atol=1e-12
    )
    assert_array_equal(cameras.mirrored(flipped), extrinsics)
    assert cameras.mirrored(extrinsics.astype(np.float32)).dtype == np.float32
    up = np.array([0.6, 0.0, -0.8], np.float32)
    assert_array_equal(cameras.mirrored_axis(up), up * np.float32([-1, 1, 1]))


def test_whams_turn_is_the_inverse_one_row_later_and_0_in_the_first_row():
    extrinsics = moving_cameras(6)
    turns = [extrinsics[i - 1, :3, :3] @ extrinsics[i, :3, :3].T - np.eye(3) for i in range(1, 6)]
    expected = np.stack([np.zeros(6), *(30 * turn[:2].ravel() for turn in turns)])
    assert_allclose(cameras.angular_velocity(extrinsics, "wham"), expected, atol=1e-12)


def test_the_step_is_after_the_camera_of_before_and_the_last_row_is_repeated():
    """In the camera's axes: R[i + 1] R[i]^T is the same whatever the world is turned by; the other
    order is not.
    """
    world = Rotation.from_rotvec((0.3, -0.8, 0.4)).as_matrix()
    extrinsics = turning(4, (0.1, 0.2, 0))
    other = extrinsics.copy()
    other[:, :3, :3] = extrinsics[:, :3, :3] @ world
    six = cameras.angular_velocity(extrinsics)
    assert_allclose(cameras.angular_velocity(other), six, atol=1e-12)
    step = Rotation.from_rotvec((0.1, 0.2, 0)).as_matrix()
    # rows, not columns: sines differ in sign
    assert_allclose(six, [step[:2].ravel()] * 4, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_what_has_no_successor_does_not_turn(n):
    assert_array_equal(
        cameras.angular_velocity(turning(n, (0, 1, 0))), np.tile([1, 0, 0, 0, 1, 0], (n, 1))
    )
    assert_array_equal(cameras.angular_velocity(turning(n, (0, 1, 0)), "wham"), np.zeros((n, 6)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e * 1.5,
        lambda e: e * np.array([-1, 1, 1, 1]),
        lambda e: e * np.nan,
        lambda e: e + np.eye(4)[3],
    ],
    ids=["scaled", "a mirror", "not finite", "last row"],
)
def test_matrices_that_are_no_camera(spoil):
    extrinsics = moving_cameras(3)
    extrinsics[1] = spoil(extrinsics[1])
    assert cameras.is_rigid(extrinsics).tolist() == [True, False, True]


def test_a_matrix_with_one_number_that_is_not_finite_is_no_rotation():
    matrices = np.tile(np.eye(3), (3, 1, 1))
    matrices[1:, 0, 1] = np.nan, np.inf
    assert cameras.is_rotation(matrices).tolist() == [True, False, False]


def test_rotations_between_rows_are_scipys_and_what_rounding_puts_after_the_last_is_the_last():
    rotvec = Rotation.random(4001 * 2, random_state=0).as_rotvec().reshape(4001, 2, 3)
    rate = 24000 / 1001
    position = np.array([5005 * rate / 30])
    assert position > 4000
    sampled = cameras.resample_rotations(rotvec, position)
    assert_allclose(sampled[0], rotvec[-1], atol=1e-9)
    between = np.linspace(0, 4000, 999)
    ours = Rotation.from_rotvec(cameras.resample_rotations(rotvec, between)[:, 1])
    expected = Slerp(range(4001), Rotation.from_rotvec(rotvec[:, 1]))(between)
    assert_allclose((ours.inv() * expected).magnitude(), 0, atol=1e-7)
    values = rotvec.reshape(4001, 6)
    assert_allclose(cameras.resample_linear(values, position)[0], values[-1])
