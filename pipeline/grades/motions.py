"""Numbers of motions without a camera: speeds, jumps, feet below the floor.  raw -> [tracks]

`numbers_of_motion` computes those of a grade (`words.Grade`). A body model may be missing, so feet
are computed with the legs of an average person. Their lengths are shares of the height by Drillis
and Contini (1966), as in Winter: Biomechanics and motor control of human movement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.grades.joints import ANKLES, FEWEST, CameraMotion, Joints, Timing
from pipeline.linking import split_at_gaps
from pipeline.skeletons import Array, Doubles, Floats

HEIGHT_M: Final = 1.7
THIGH_M: Final = 0.245 * HEIGHT_M
SHANK_M: Final = 0.246 * HEIGHT_M
# from SMPL's pelvis to its hips, left and right: x to the left, y up; rounded
HIPS_M: Final = (
    (0.09, -0.09, 0.0),
    (-0.09, -0.09, 0.0),
)
DOWN: Final = np.array([0.0, -1.0, 0.0])
HIPS: Final = (1, 2)  # SMPL's joints, left and right
KNEES: Final = (4, 5)
# the floor is at this percentile of the lower ankle's heights
FLOOR_PERCENTILE: Final = 5
CONTACT_M: Final = 0.05  # a foot is on the ground up to this height
BELOW_M: Final = 0.15  # lower than this, a foot is below the floor


def numbers_of_motion(columns: Mapping[str, Array], timing: Timing) -> dict[str, float]:
    """Numbers of `Grade` from a motion: SMPL parameters in a world with z up.

    Only the longest stretch of known frames without a gap is used.
    """
    has_pose = np.isfinite(columns["pose"]).all(axis=1)
    has_place = np.isfinite(columns["trans"]).all(axis=1)
    is_known = has_pose & has_place
    rows = np.flatnonzero(is_known)
    numbers = np.rint(timing.frames[rows]).astype(np.int64)
    stretches = split_at_gaps(numbers, 0)
    longest = max(stretches, key=len)
    rows = rows[longest]
    n_rows = len(rows)
    if n_rows < FEWEST:
        return {}

    timing = timing._replace(frames=timing.frames[rows])
    pose = columns["pose"][rows]
    trans = columns["trans"][rows]
    ankles = _ankles_of(pose, trans)
    points = np.zeros((n_rows, 12, 3))
    points[:, ANKLES] = ankles
    is_ankle = np.zeros(points.shape[:2], np.bool_)
    is_ankle[:, ANKLES] = True
    joints = Joints(timing, points, is_ankle, np.ones(n_rows))
    skating = joints.skating(CameraMotion.still(n_rows), CONTACT_M)
    return {
        "skating_3d_cm_s": 100 * skating,
        "root_speed_m_s": _root_speed(trans, timing.rate),
        "root_jump_m": _root_jump(trans),
        "joint_speed_deg_s": _joint_speed(pose, timing.rate),
        "below_floor_percent": 100 * _below_floor(ankles),
    }


def _ankles_of(pose: Floats, trans: Floats) -> Doubles:
    """Left and right ankles of an average person, (T, 2, 3) m, z up.

    pose: (T, 72) of SMPL; trans: (T, 3) m.
    """
    from scipy.spatial.transform import Rotation  # takes 0.1 s

    rotations = np.asarray(pose, np.float64).reshape(len(pose), -1, 3)
    root = Rotation.from_rotvec(rotations[:, 0])
    ankles = []
    for to_hip, hip, knee in zip(HIPS_M, HIPS, KNEES, strict=True):
        thigh = root * Rotation.from_rotvec(rotations[:, hip])
        shank = thigh * Rotation.from_rotvec(rotations[:, knee])
        hip_place = root.apply(to_hip)
        knee_place = hip_place + THIGH_M * thigh.apply(DOWN)
        ankle = knee_place + SHANK_M * shank.apply(DOWN)
        ankles.append(trans + ankle)
    return np.stack(ankles, axis=1)


def _root_speed(trans: Floats, rate: float) -> float:
    """Largest speed of the root, m/s. trans: (T, 3) m, T >= 2. rate: frames a second."""
    steps = np.diff(trans.astype(np.float64), axis=0)
    lengths = np.linalg.norm(steps, axis=-1)
    return float(lengths.max() * rate)


def _root_jump(trans: Floats) -> float:
    """Largest change of the step from one frame to the next, m; for a jump, this is its length.

    trans: (T, 3) m, T >= 3.
    """
    changes = np.diff(trans.astype(np.float64), 2, axis=0)
    lengths = np.linalg.norm(changes, axis=-1)
    return float(lengths.max())


def _joint_speed(pose: Floats, rate: float) -> float:
    """Largest speed at which a joint turns, degrees/s. pose: (T, 72) rad, T >= 2."""
    from scipy.spatial.transform import Rotation  # takes 0.1 s

    rotations = pose.astype(np.float64).reshape(len(pose), -1, 3)
    before = Rotation.from_rotvec(rotations[:-1].reshape(-1, 3))
    after = Rotation.from_rotvec(rotations[1:].reshape(-1, 3))
    turn = before.inv() * after
    largest = turn.magnitude().max()
    return float(np.degrees(largest) * rate)


def _below_floor(ankles: Doubles) -> float:
    """Share of frames with a foot below the floor. ankles: (T, 2, 3) m, z up."""
    lower = ankles[..., 2].min(axis=1)
    floor = np.percentile(lower, FLOOR_PERCENTILE)
    is_below = lower < floor - BELOW_M
    return float(is_below.mean())
