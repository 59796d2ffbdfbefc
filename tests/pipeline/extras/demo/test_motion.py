"""Motions of the demo data: plausible, smooth, on the ground, and never twice the same."""

import numpy as np
import pytest

from pipeline.extras.demo import motion
from pipeline.extras.demo.actions import ACTIONS
from pipeline.extras.demo.body import procedural, skin


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_smooth_within_limits_visible_and_on_the_ground(action):
    rng = np.random.default_rng(0)
    m = motion.perform(rng, motion.random_betas(rng), 0.4, 75, 30.0, (action,))
    assert ((m.angles >= motion.LOW - 1e-9) & (m.angles <= motion.HIGH + 1e-9)).all()
    verts, joints = skin(procedural(), m.betas, m.pose, m.trans, motion._sole_vertices())
    acceleration = np.diff(joints, 2, axis=0) * 30**2
    # m/s2: a fast hand has that, a jump in a curve far more
    assert np.linalg.norm(acceleration, axis=-1).max() < 100
    lowest = verts[..., 1].min(axis=1)
    assert lowest.min() > -0.01
    assert lowest.max() < 0.01
    assert np.ptp(joints - joints[:, :1], axis=0).max() > 0.2  # m, against the pelvis
    pose = m.pose.reshape(-1, 24, 3)  # knees and elbows bend one way only
    assert (
        (pose[:, [4, 5], 0] > 0).all() and (pose[:, 18, 1] < 0).all() and (pose[:, 19, 1] > 0).all()
    )
