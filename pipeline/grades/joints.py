"""Statistics of joints and motions over time: shake, jumps, speeds, sliding feet.  raw -> [tracks]

Shake is measured by third differences over time, x3 - 3 x2 + 3 x1 - x0: those of smooth motion are
small, and those of noise are sqrt(1 + 9 + 9 + 1) = sqrt(20) times as large as the noise. The page
docs/clips/grades.md describes the numbers.

Element i of an n-th difference is computed from rows i to i + n, and counts for row i + n: it goes
with `size[n:]` and `_has_no_gap(n)`. It is nan if one of its rows is unknown.

The 12 joints are those of KEYPOINTS_13 without the nose, left before right: shoulders 0 and 1,
elbows 2 and 3, wrists 4 and 5, hips 6 and 7, knees 8 and 9, ankles 10 and 11. `grade` makes
`Joints` of a track's 2D or 3D joints.

`numbers_of_motion` computes the numbers of a motion without a camera. A body model may be missing,
so feet are computed with the legs of an average person. Their lengths are shares of the height by
Drillis and Contini (1966), as in Winter: Biomechanics and motor control of human movement.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from pipeline.people.skeletons import (
    KEYPOINTS_13,
    LARGEST,
    Bools,
    Doubles,
    Floats,
    Ints,
    keypoints_13,
    limbs_of,
)

LIMB_ENDS: Final = limbs_of(KEYPOINTS_13[1:])  # pairs of the 12 joints
ANKLES: Final = [10, 11]
# Median of absolute third differences -> standard deviation of the noise: that of normal values is
# 1.4826 times their median absolute value.
NOISE: Final = 1.4826 / math.sqrt(20)
FEWEST: Final = 10  # least number of values in a statistic; with fewer, it is unknown (nan)
SPAN: Final = 0.2  # s over which a foot's speed is measured
AROUND: Final = 0.5  # s before and after; the ground is the lowest position of a foot within them
JUMP: Final = 0.25  # of the box's side: if a joint's step changes by more in a frame, it jumps
# motions
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


def seen_points(kp_2d: Floats) -> Floats:
    """Points (T, 12, 2) px of the 12 joints of spin49; nan if not seen."""
    kp = keypoints_13(kp_2d)[:, 1:]
    is_seen = kp[..., 2:] > 0
    unknown = kp.dtype.type(np.nan)
    return np.where(is_seen, kp[..., :2], unknown)


class Timing(NamedTuple):
    """The times of a track's T rows."""

    frames: Doubles  # (T,) from 0, in units of the track's usual step
    rate: float  # steps per second; nan if unknown


class CameraMotion(NamedTuple):
    """The camera of a track's T rows."""

    # (T,) number of the run of rows, in which the camera is still, that a row belongs to:
    # 0, 0, 1, 2, 2 if it moves after the second and the third row; None: unknown
    still_runs: Ints | None = None
    up: Doubles | None = None  # (C,) the direction up in the camera's axes; None: unknown

    @classmethod
    def still(cls, n_rows: int) -> CameraMotion:
        """A still camera with the axes of a motion's world, z up."""
        return cls(np.zeros(n_rows, np.int64), np.array([0.0, 0.0, 1.0]))


class Joints(NamedTuple):
    """The 12 joints of a track in T rows. Statistics of lengths are in units of `size`."""

    timing: Timing
    points: Floats  # (T, 12, C) px (C = 2) or m (C = 3), as stored; nan if unknown
    size: Doubles  # (T,) unit of length: the box's side in px, or 1

    def jitter(self) -> float:
        """Standard deviation of the noise of the joint that shakes most."""
        has_no_gap = self._has_no_gap(3)
        medians = []
        for joint in self.points.swapaxes(0, 1):
            third = np.diff(joint.astype(np.float64), 3, axis=0)
            noise = np.abs(third) / self.size[3:, None]
            noise = noise[has_no_gap & ~np.isnan(noise[:, 0])]
            if len(noise) >= FEWEST:
                medians.append(float(np.median(noise)))
        return NOISE * max(medians, default=math.nan)

    def jumps(self) -> float:
        """Share of frames in which some joint jumps (JUMP)."""
        is_known, is_jump = self.find_jumps()
        if is_known.sum() < FEWEST:
            return math.nan
        return float(is_jump[is_known].mean())

    def find_jumps(self) -> tuple[Bools, Bools]:
        """Whether some joint is seen in a row and the two before it, without a gap, and whether
        one of them jumps (JUMP): (T - 2,) each, from row 2 on.
        """
        has_no_gap = self._has_no_gap(2)
        is_known = np.zeros(len(has_no_gap), np.bool_)
        is_jump = is_known.copy()
        for joint in self.points.swapaxes(0, 1):
            second = np.diff(joint.astype(np.float64), 2, axis=0)
            change = np.linalg.norm(second, axis=-1)
            is_known |= has_no_gap & ~np.isnan(change)
            is_jump |= change > JUMP * self.size[2:]
        return is_known, is_known & is_jump

    def _has_no_gap(self, n: int) -> Bools:
        """(T - n,) whether there is no gap between a row and the n rows before it."""
        frames = self.timing.frames
        has_no_gap: Bools = frames[n:] - frames[:-n] == n
        return has_no_gap

    def limb_spread(self) -> float:
        """Standard deviation of a limb's length, as a share of its mean; that of the worst limb."""
        spreads = []
        for start, end in LIMB_ENDS:
            limb = self.points[:, start].astype(np.float64) - self.points[:, end]
            length = np.linalg.norm(limb, axis=-1) / self.size
            length = length[~np.isnan(length)]
            if len(length) < FEWEST:
                continue
            mean = length.mean()
            if mean > 0:
                spreads.append(float(length.std() / mean))
        return max(spreads, default=math.nan)

    def skating(self, camera: CameraMotion, contact: float) -> float:
        """Median speed per second of the lower foot while it is on the ground; nan if unknown.

        The speed is that of feet on the ground at the start and the end of SPAN, seen by a camera
        that is still in between. Only motion at right angles to the direction up counts.

        contact: Height above the ground, in units of `size`, up to which a foot is on it.
        """
        frames, rate = self.timing
        runs, up = camera
        if runs is None or up is None or not rate > 0:
            return math.nan
        span = max(1, round(SPAN * rate))  # steps
        if span >= len(frames):
            return math.nan
        has_no_gap = frames[span:] - frames[:-span] == span
        is_camera_still = runs[span:] == runs[:-span]
        is_comparable = has_no_gap & is_camera_still
        stands = self._stands(runs, up, contact)
        stays = stands[span:] & stands[:-span] & is_comparable[:, None]  # (T - span, 2)

        row, foot = np.nonzero(stays)
        ankles = self.points[:, ANKLES].astype(np.float64)
        path = ankles[row + span, foot] - ankles[row, foot]
        along_up = path @ up
        across = path - along_up[..., None] * up
        length = np.linalg.norm(across, axis=-1) / self.size[row + span]
        speed = length * rate / span
        if len(speed) < FEWEST:
            return math.nan
        return float(np.median(speed))

    def _stands(self, runs: Ints, up: Doubles, contact: float) -> Bools:
        """(T, 2) whether an ankle is the lower one, seen and on the ground. runs, up: as of
        `CameraMotion`. contact: as of `skating`.
        """
        height = self.points[:, ANKLES].astype(np.float64) @ up  # nan if unknown
        lower_height = np.fmin.reduce(height, axis=1, keepdims=True)  # (T, 1)
        is_lower = height == lower_height

        # an unknown ankle is not the ground
        lower_height = np.nan_to_num(lower_height, nan=LARGEST)
        ground = self._ground(lower_height, runs)
        is_on_ground = lower_height - ground <= contact * self.size[:, None]
        stands: Bools = is_lower & is_on_ground
        return stands

    def _ground(self, heights: Doubles, runs: Ints) -> Doubles:
        """The height of the ground at each row (T, 1): the lowest of `heights` (T, 1) within
        AROUND, in the same one of `runs`, without a gap in time.
        """
        from scipy.ndimage import minimum_filter1d  # takes 0.1 s

        is_cut = (np.diff(self.timing.frames) != 1) | (np.diff(runs) != 0)
        parts = np.split(heights, np.flatnonzero(is_cut) + 1)
        n_rows = 2 * round(AROUND * self.timing.rate) + 1
        return np.concatenate([minimum_filter1d(part, n_rows, axis=0) for part in parts])


def numbers_of_motion(pose: Floats, trans: Floats, timing: Timing) -> dict[str, float]:
    """Numbers of `Grade` from a motion: SMPL parameters in a world with z up.

    Only the longest stretch of known frames without a gap is used. pose: (T, 72); trans: (T, 3) m.
    """
    is_known = np.isfinite(pose).all(axis=1) & np.isfinite(trans).all(axis=1)
    rows = np.flatnonzero(is_known)
    numbers = np.rint(timing.frames[rows]).astype(np.int64)
    stretches = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(numbers) > 1) + 1)
    longest = max(stretches, key=len)
    rows = rows[longest]
    n_rows = len(rows)
    if n_rows < FEWEST:
        return {}

    timing = timing._replace(frames=timing.frames[rows])
    pose = pose[rows]
    trans = trans[rows]
    ankles = _ankles_of(pose, trans)
    points = np.full((n_rows, 12, 3), np.nan)
    points[:, ANKLES] = ankles
    joints = Joints(timing, points, np.ones(n_rows))
    skating = joints.skating(CameraMotion.still(n_rows), CONTACT_M)
    return {
        "skating_3d_cm_s": 100 * skating,
        "root_speed_m_s": _largest_difference(trans, 1) * timing.rate,
        # for a jump, this is its length
        "root_jump_m": _largest_difference(trans, 2),
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


def _largest_difference(trans: Floats, n: int) -> float:
    """Largest length of an n-th difference of places (T, 3) m; T > n."""
    differences = np.diff(trans.astype(np.float64), n, axis=0)
    return float(np.linalg.norm(differences, axis=-1).max())


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
