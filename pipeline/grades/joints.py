"""Statistics of joints over time: shake, jumps, limbs' lengths, sliding feet.  raw -> [tracks]

Shake is measured by third differences over time, x3 - 3 x2 + 3 x1 - x0: those of smooth motion are
small, and those of noise are sqrt(1 + 9 + 9 + 1) = sqrt(20) times as large as the noise. The page
docs/datasets/videos.md describes the numbers.

Element i of an n-th difference is computed from rows i to i + n, and counts for row i + n: it goes
with `size[n:]` and `_has_history(n)`.

The 12 joints are those of KEYPOINTS_13 without the nose, left before right: shoulders 0 and 1,
elbows 2 and 3, wrists 4 and 5, hips 6 and 7, knees 8 and 9, ankles 10 and 11. `measures` makes
`Joints` of a track's 2D or 3D joints.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.skeletons import LARGEST, Bools, Doubles, Ints

# limbs, as pairs of the 12 joints
ARMS: Final = ((0, 2), (1, 3), (2, 4), (3, 5))  # upper arms, forearms
LEGS: Final = ((6, 8), (7, 9), (8, 10), (9, 11))  # thighs, shins
LIMBS: Final = ARMS + LEGS
ANKLES: Final = [10, 11]
# Median of absolute third differences -> standard deviation of the noise: that of normal values is
# 1.4826 times their median absolute value.
NOISE: Final = 1.4826 / math.sqrt(20)
FEWEST: Final = 10  # least number of values in a statistic; with fewer, it is unknown (nan)
SPAN: Final = 0.2  # s over which a foot's speed is measured
AROUND: Final = 0.5  # s before and after; the ground is the lowest position of a foot within them
JUMP: Final = 0.25  # of the box's side: if a joint's step changes by more in a frame, it jumps


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
    points: Doubles  # (T, 12, C) px (C = 2) or m (C = 3)
    seen: Bools  # (T, 12) whether a joint is known
    size: Doubles  # (T,) unit of length: the box's side in px, or 1

    def jitter(self) -> float:
        """Standard deviation of the noise of the joint that shakes most."""
        third = np.diff(self.points, 3, axis=0)
        size = self.size[3:, None, None]
        noise = np.abs(third) / size

        rows = self._has_history(3)
        n_rows = rows.sum(axis=0)
        medians = []
        for joint in np.flatnonzero(n_rows >= FEWEST):
            joint_noise = noise[rows[:, joint], joint]
            medians.append(float(np.median(joint_noise)))
        return NOISE * max(medians, default=math.nan)

    def jumps(self) -> float:
        """Share of frames in which some joint jumps (JUMP)."""
        second = np.diff(self.points, 2, axis=0)
        change = np.linalg.norm(second, axis=-1)
        size = self.size[2:, None]

        rows = self._has_history(2)
        is_known = rows.any(axis=1)
        if is_known.sum() < FEWEST:
            return math.nan
        jumps = rows & (change > JUMP * size)
        is_jump = jumps.any(axis=1)
        return float(is_jump[is_known].mean())

    def _has_history(self, n: int) -> Bools:
        """(T - n, 12) whether a joint is seen in a row and in the n rows before it, without a
        gap.
        """
        if len(self.seen) <= n:
            return np.zeros((0, self.seen.shape[1]), np.bool_)
        is_seen = sliding_window_view(self.seen, n + 1, axis=0).all(axis=-1)
        frames = self.timing.frames
        has_no_gap = frames[n:] - frames[:-n] == n
        has_rows: Bools = is_seen & has_no_gap[:, None]
        return has_rows

    def limb_spread(self) -> float:
        """Standard deviation of a limb's length, as a share of its mean; that of the worst limb."""
        spreads = []
        for start, end in LIMBS:
            rows = self.seen[:, start] & self.seen[:, end]
            if rows.sum() < FEWEST:
                continue
            limb = self.points[rows, start] - self.points[rows, end]
            length = np.linalg.norm(limb, axis=-1)
            length /= self.size[rows]
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

        ankles = self.points[:, ANKLES]
        path = ankles[span:] - ankles[:-span]
        along_up = path @ up
        across = path - along_up[..., None] * up
        length = np.linalg.norm(across, axis=-1)
        length /= self.size[span:, None]
        speed = length[stays] * rate / span
        if len(speed) < FEWEST:
            return math.nan
        return float(np.median(speed))

    def _stands(self, runs: Ints, up: Doubles, contact: float) -> Bools:
        """(T, 2) whether an ankle is the lower one, seen and on the ground. runs, up: as of
        `CameraMotion`. contact: as of `skating`.
        """
        height = self.points[:, ANKLES] @ up
        is_known = self.seen[:, ANKLES] & np.isfinite(height)
        height = np.where(is_known, height, LARGEST)  # an unknown ankle is not the lower one
        lower_height = height.min(axis=1, keepdims=True)  # (T, 1)
        is_lower = is_known & (height == lower_height)

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
