"""Numbers of motions without a camera: speeds, jumps, feet below the floor.  raw -> [tracks]

A body model may be missing, so feet are computed with the legs of an average person. Their lengths
are shares of the height by Drillis and Contini (1966), as in Winter: Biomechanics and motor control
of human movement.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.skeletons import Doubles, Floats

HEIGHT_M: Final = 1.7
THIGH_M: Final = 0.245 * HEIGHT_M
SHANK_M: Final = 0.246 * HEIGHT_M
# from SMPL's pelvis to its hips, left and right: x to the left, y up; rounded
HIPS_M: Final = ((0.09, -0.09, 0.0), (-0.09, -0.09, 0.0))
DOWN: Final = np.array([0.0, -1.0, 0.0])
HIPS: Final = (1, 2)  # SMPL's joints, left and right
KNEES: Final = (4, 5)
# the floor is at this percentile of the lower ankle's heights
FLOOR_PERCENTILE: Final = 5
BELOW_M: Final = 0.15  # lower than this, a foot is below the floor


def ankles_of(pose: Floats, trans: Floats) -> Doubles:
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
        knee_place = root.apply(to_hip) + THIGH_M * thigh.apply(DOWN)
        ankle = knee_place + SHANK_M * shank.apply(DOWN)
        ankles.append(trans + ankle)
    return np.stack(ankles, axis=1)


def root_speed(trans: Floats, rate: float) -> float:
    """Largest speed of the root, m/s. trans: (T, 3) m, T >= 2. rate: frames a second."""
    steps = np.diff(trans.astype(np.float64), axis=0)
    return float(np.linalg.norm(steps, axis=-1).max() * rate)


def root_jump(trans: Floats) -> float:
    """Largest change of the step from one frame to the next, m; for a jump, this is its length.

    trans: (T, 3) m, T >= 3.
    """
    changes = np.diff(trans.astype(np.float64), 2, axis=0)
    return float(np.linalg.norm(changes, axis=-1).max())


def joint_speed(pose: Floats, rate: float) -> float:
    """Largest speed at which a joint turns, degrees/s. pose: (T, 72) rad, T >= 2."""
    from scipy.spatial.transform import Rotation  # takes 0.1 s

    rotations = pose.astype(np.float64).reshape(len(pose), -1, 3)
    before = Rotation.from_rotvec(rotations[:-1].reshape(-1, 3))
    after = Rotation.from_rotvec(rotations[1:].reshape(-1, 3))
    turns = (before.inv() * after).magnitude()
    return float(np.degrees(turns.max()) * rate)


def below_floor(ankles: Doubles) -> float:
    """Share of frames with a foot below the floor. ankles: (T, 2, 3) m, z up."""
    lower = ankles[..., 2].min(axis=1)
    floor = np.percentile(lower, FLOOR_PERCENTILE)
    return float((lower < floor - BELOW_M).mean())
