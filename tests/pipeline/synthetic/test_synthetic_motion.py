"""Motions of the embedded data: plausible, smooth, on the ground, and never twice the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.synthetic import LAYOUTS
from pipeline.synthetic.body import skinning
from pipeline.synthetic.body.body import VERTEX_IDS, procedural
from pipeline.synthetic.layouts.layout import Request
from pipeline.synthetic.motion import anatomy, motion
from pipeline.synthetic.motion.actions import ACTIONS
from pipeline.synthetic.scene import scene

JOINT = {
    "pelvis": 0,
    "lhip": 1,
    "rhip": 2,
    "lknee": 4,
    "rknee": 5,
    "lankle": 7,
    "lshoulder": 16,
    "rshoulder": 17,
    "lelbow": 18,
    "relbow": 19,
}
JOINT |= {"lwrist": 20, "rwrist": 21}


def perform(action: str, seed: int = 0, n_frames: int = 75, fps: float = 30.0, **options) -> motion.Motion:
    rng = np.random.default_rng(seed)
    betas = motion.random_betas(rng)
    return motion.perform(
        procedural(), rng, n_frames=n_frames, fps=fps, betas=betas, facing=0.4, actions=[action], **options
    )


def posed(**degrees: float) -> np.ndarray:
    """SMPL's 24 joints (24, 3) of the mean body, relaxed but for the given angles."""
    angles = np.zeros((1, len(anatomy.DOFS)))
    for name, value in degrees.items():
        angles[0, anatomy.INDEX[name]] = value
    pose = anatomy.to_smpl(angles, np.zeros(1))
    return skinning.skin(procedural(), np.zeros(10), pose, np.zeros((1, 3))).joints[0]


def test_zero_angles_leave_the_template_as_it_is_but_for_the_hanging_arms() -> None:
    body = procedural()
    skinned = skinning.skin(body, np.zeros(10), np.zeros((2, 72)), np.array([[0, 0, 0], [1.0, 2, 3]]))
    np.testing.assert_allclose(skinned.verts[0], body.v_template, atol=1e-12)
    np.testing.assert_allclose(skinned.verts[1], body.v_template + np.array([1, 2, 3]), atol=1e-12)
    joints = posed()
    arm = joints[JOINT["lelbow"]] - joints[JOINT["lshoulder"]]
    assert arm[1] / np.linalg.norm(arm) < -0.95


def test_the_root_turns_about_its_own_joint() -> None:
    body = procedural()
    pose = np.zeros((1, 72))
    pose[0, :3] = [0, np.pi / 2, 0]
    skinned = skinning.skin(body, np.zeros(10), pose, np.zeros((1, 3)))
    pelvis = skinning.rest_joints(body, np.zeros(10))[0]
    turned = body.v_template - pelvis
    expected = np.stack([turned[:, 2], turned[:, 1], -turned[:, 0]], axis=1) + pelvis  # +z goes to +x, +x to -z
    np.testing.assert_allclose(skinned.verts[0], expected, atol=1e-9)


def test_a_part_of_the_vertices_is_skinned_as_in_the_whole() -> None:
    m = perform("dance", n_frames=3)
    some = np.array([5, 332, 6889])
    whole = skinning.skin(procedural(), m.betas, m.pose, m.trans).verts[:, some]
    np.testing.assert_allclose(skinning.skin(procedural(), m.betas, m.pose, m.trans, some).verts, whole, atol=1e-12)


@pytest.mark.parametrize(
    ("degrees", "end", "start", "direction"),
    [
        ({"l_raise": 90}, "lelbow", "lshoulder", (1, 0, 0)),
        ({"l_raise": 90, "l_plane": 90}, "lelbow", "lshoulder", (0, 0, 1)),
        ({"r_raise": 90, "r_plane": 90}, "relbow", "rshoulder", (0, 0, 1)),
        ({"l_elbow": 90}, "lwrist", "lelbow", (0, 0, 1)),
        ({"r_elbow": 90}, "rwrist", "relbow", (0, 0, 1)),
        ({"l_flex": 90}, "lknee", "lhip", (0, 0, 1)),
        ({"l_flex": 90, "l_knee": 90}, "lankle", "lknee", (0, -1, 0)),
        ({"r_abduct": 40}, "rknee", "rhip", (-np.sin(np.radians(40)), -np.cos(np.radians(40)), 0)),
    ],
)
def test_angles_mean_what_their_names_say(degrees, end, start, direction) -> None:
    joints = posed(**degrees)
    bone = joints[JOINT[end]] - joints[JOINT[start]]
    assert bone @ np.array(direction) / np.linalg.norm(bone) > 0.93  # the template's bones are not exactly straight


def test_a_mirrored_motion_is_the_mirror_image() -> None:
    angles = perform("throw").angles[:1]
    heading = np.zeros(1)
    body = procedural()
    joints = skinning.skin(body, np.zeros(10), anatomy.to_smpl(angles, heading), np.zeros((1, 3))).joints[0]
    mirrored_pose = anatomy.to_smpl(anatomy.mirror(angles), heading)
    other = skinning.skin(body, np.zeros(10), mirrored_pose, np.zeros((1, 3))).joints[0]
    for left, right in ((4, 5), (7, 8), (18, 19), (20, 21)):
        np.testing.assert_allclose(joints[left] * [-1, 1, 1], other[right], atol=2e-3)


@given(st.integers(0, 2**32 - 1))
def test_mirroring_twice_changes_nothing(seed: int) -> None:
    angles = np.random.default_rng(seed).normal(0, 50, (3, len(anatomy.DOFS)))
    np.testing.assert_array_equal(anatomy.mirror(anatomy.mirror(angles)), angles)


@given(st.floats(-400, 400), st.floats(-400, 400), st.sampled_from(list(anatomy.DOFS)))
def test_limits_hold_for_any_angle_and_keep_the_order(first: float, second: float, name: str) -> None:
    angles = anatomy.relaxed(2)
    angles[:, anatomy.INDEX[name]] = sorted((first, second))
    low, high = anatomy.within_limits(angles)[:, anatomy.INDEX[name]]
    rounding = 1e-9  # degrees
    assert anatomy.DOFS[name].low - rounding <= low <= high <= anatomy.DOFS[name].high + rounding


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_smooth_within_limits_and_on_the_ground(action: str) -> None:
    m = perform(action)
    assert (m.angles >= anatomy.LOW - 1e-9).all()
    assert (m.angles <= anatomy.HIGH + 1e-9).all()
    body = procedural()
    skinned = skinning.skin(body, m.betas, m.pose, m.trans, motion.sole_vertices(body))
    acceleration = np.diff(skinned.joints, 2, axis=0) * m.fps**2
    assert np.linalg.norm(acceleration, axis=-1).max() < 100  # m/s2: a fast hand has that, a jump in a curve far more
    lowest = skinned.verts[..., 1].min(axis=1)
    assert lowest.min() > -0.01
    assert lowest.max() < (0.12 if action == "jumping_jacks" else 0.01)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_moves_the_body_visibly(action: str) -> None:
    m = perform(action, seed=1)
    joints = skinning.skin(procedural(), m.betas, m.pose, m.trans, np.array([0])).joints
    assert np.ptp(joints - joints[:, :1], axis=0).max() > 0.2  # m, against the pelvis


def test_knees_and_elbows_bend_one_way_only() -> None:
    for action in ("walk", "dance", "kick", "squat"):
        pose = perform(action, seed=2).pose.reshape(-1, 24, 3)
        assert (pose[:, [4, 5], 0] > 0).all()
        assert (pose[:, 18, 1] < 0).all()
        assert (pose[:, 19, 1] > 0).all()


def test_feet_that_bear_weight_do_not_slide() -> None:
    body = procedural()
    m = perform("walk", n_frames=90)
    soles = skinning.skin(body, m.betas, m.pose, m.trans, motion.sole_vertices(body)).verts
    lowest = soles[..., 1].argmin(axis=1)[:-1]
    frames = np.arange(len(lowest))
    slid = np.linalg.norm((soles[frames + 1, lowest] - soles[frames, lowest])[:, [0, 2]], axis=1)
    travelled = np.linalg.norm((m.trans[-1] - m.trans[0])[[0, 2]])
    assert travelled > 0.8
    assert np.median(slid) < 0.1 * travelled / len(lowest)


def test_a_walk_goes_where_the_person_faces() -> None:
    m = perform("walk", n_frames=90)
    way = (m.trans[-1] - m.trans[0])[[0, 2]]
    ahead = np.array([np.sin(m.heading.mean()), np.cos(m.heading.mean())])
    assert way @ ahead / np.linalg.norm(way) > 0.9


def test_actions_follow_each_other_without_a_jump() -> None:
    rng = np.random.default_rng(5)
    m = motion.perform(
        procedural(), rng, n_frames=240, fps=30, betas=np.zeros(10), facing=0.0, actions=["kick", "arm_raise", "squat"]
    )
    assert len(m.actions) >= 2
    assert all(a != b for a, b in zip(m.actions, m.actions[1:], strict=False))
    turns = Rotation.from_rotvec(m.pose[1:].reshape(-1, 3)) * Rotation.from_rotvec(m.pose[:-1].reshape(-1, 3)).inv()
    assert np.degrees(turns.magnitude()).max() < 30  # a frame


def test_the_same_seed_moves_the_same_way_and_another_one_differently() -> None:
    first, again, other = perform("dance", 3), perform("dance", 3), perform("dance", 4)
    np.testing.assert_array_equal(first.pose, again.pose)
    assert np.abs(first.pose - other.pose).max() > 0.3


@pytest.mark.parametrize("name", ["penn_action", "kinetics", "3dpw"])
def test_no_motion_of_evaluation_occurs_in_training(name: str) -> None:
    shots = LAYOUTS[name].shots(Request(n_frames=16))
    assert len({shot.name for shot in shots}) == len(shots)
    angles = [scene.stage(procedural(), shot).actors[0].motion.angles for shot in shots[:: len(shots) // 6]]
    for i, a in enumerate(angles):
        for b in angles[i + 1 :]:
            apart = np.abs(a[:, None] - b[None]).max(axis=-1)  # degrees, every frame against every other
            runs = np.lib.stride_tricks.sliding_window_view(apart, (4, 4))
            along = runs.diagonal(axis1=2, axis2=3).max(axis=-1)  # four frames in a row against four
            assert along.min() > 3


def test_people_keep_their_distance() -> None:
    shot = scene.Shot("test", "", "two", 0, seed=1, n_frames=40, fps=30, n_people=3)
    paths = [actor.trans[:, [0, 2]] for actor in scene.stage(procedural(), shot).actors]
    for i, a in enumerate(paths):
        for b in paths[i + 1 :]:
            assert np.linalg.norm(a - b, axis=1).min() >= scene.ELBOW_ROOM_M


def test_everyone_is_in_the_picture() -> None:
    for number in range(4):
        shot = scene.Shot("test", "", f"{number}", number, 0, 30, 30.0, 300, 260, n_people=1 + number % 2)
        take = scene.stage(procedural(), shot)
        for actor in take.actors:
            assert take.camera.sees(actor.kp_2d).all()
            assert np.ptp(actor.kp_2d[..., 1], axis=1).min() > 40  # px: nobody is a speck


def test_spin49_takes_surface_joints_from_the_vertices_that_smplx_takes() -> None:
    body = procedural()
    skinned = skinning.skin(body, np.zeros(10), np.zeros((1, 72)), np.zeros((1, 3)))
    joints = skinning.spin49(body, skinned)[0]
    np.testing.assert_array_equal(joints[0], skinned.verts[0, VERTEX_IDS["nose"]])
    np.testing.assert_array_equal(joints[19], skinned.verts[0, VERTEX_IDS["lbigtoe"]])
    np.testing.assert_array_equal(joints[36], skinned.joints[0, JOINT["lwrist"]])
    np.testing.assert_allclose(joints[38], body.J_regressor_extra[3] @ body.v_template, atol=1e-12)
