"""Motions of the demo data: plausible, smooth, on the ground, and never twice the same."""

from functools import cache

import numpy as np
import pytest

from pipeline.skeletons import JOINTS
from vibe_extensions.demo import motion
from vibe_extensions.demo.actions import ACTIONS, DOFS
from vibe_extensions.demo.body import procedural, skin

JOINT = {name.removeprefix("smpl_"): number for number, name in enumerate(JOINTS["smpl54"][:24])}


@cache
def perform(*actions: str, seed: int = 0, n_frames: int = 75) -> motion.Motion:
    rng = np.random.default_rng(seed)
    betas = motion.random_betas(rng)
    return motion.perform(rng, betas, 0.4, n_frames, 30.0, actions)


def posed(**degrees: float) -> np.ndarray:
    """SMPL's 24 joints (24, 3) of the mean body, relaxed but for the given angles."""
    angles = np.zeros((1, len(DOFS)))
    for name, value in degrees.items():
        angles[0, motion.INDEX[name]] = value
    pose = motion.to_smpl(angles, np.zeros(1))
    return skin(procedural(), np.zeros(10), pose, np.zeros((1, 3)), np.array([0])).joints[0]


@pytest.mark.parametrize(
    ("degrees", "end", "start", "direction"),
    [
        ({}, "lelbow", "lshoulder", (0, -1, 0)),
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
    angles = perform("throw").angles
    np.testing.assert_array_equal(motion.mirror(motion.mirror(angles)), angles)
    poses = motion.to_smpl(np.concatenate([angles[:1], motion.mirror(angles[:1])]), np.zeros(2))
    joints, other = skin(procedural(), np.zeros(10), poses, np.zeros((2, 3)), np.array([0])).joints
    for name in ("knee", "ankle", "elbow", "wrist"):
        np.testing.assert_allclose(joints[JOINT[f"l{name}"]] * [-1, 1, 1], other[JOINT[f"r{name}"]], atol=2e-3)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_smooth_within_limits_visible_and_on_the_ground(action: str) -> None:
    m = perform(action)
    assert ((m.angles >= motion.LOW - 1e-9) & (m.angles <= motion.HIGH + 1e-9)).all()
    verts, joints = skin(procedural(), m.betas, m.pose, m.trans, motion.sole_vertices())
    acceleration = np.diff(joints, 2, axis=0) * m.fps**2
    assert np.linalg.norm(acceleration, axis=-1).max() < 100  # m/s2: a fast hand has that, a jump in a curve far more
    lowest = verts[..., 1].min(axis=1)
    assert lowest.min() > -0.01
    assert lowest.max() < (0.12 if action == "jumping_jacks" else 0.01)
    assert np.ptp(joints - joints[:, :1], axis=0).max() > 0.2  # m, against the pelvis
    pose = m.pose.reshape(-1, 24, 3)  # knees and elbows bend one way only
    assert (pose[:, [4, 5], 0] > 0).all() and (pose[:, 18, 1] < 0).all() and (pose[:, 19, 1] > 0).all()


def test_a_walk_goes_where_the_person_faces_on_feet_that_do_not_slide() -> None:
    m = perform("walk", n_frames=90)
    way = (m.trans[-1] - m.trans[0])[[0, 2]]
    travelled, ahead = np.linalg.norm(way), np.array([np.sin(m.heading.mean()), np.cos(m.heading.mean())])
    assert travelled > 0.8
    assert way @ ahead / travelled > 0.9
    soles = skin(procedural(), m.betas, m.pose, m.trans, motion.sole_vertices()).verts
    lowest, frames = soles[..., 1].argmin(axis=1)[:-1], np.arange(89)
    slid = np.linalg.norm((soles[frames + 1, lowest] - soles[frames, lowest])[:, [0, 2]], axis=1)
    assert np.median(slid) < 0.1 * travelled / len(lowest)
