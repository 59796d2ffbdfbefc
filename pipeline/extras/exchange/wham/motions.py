"""Motions of AMASS at 30 frames per second, for files of WHAM and GVHMR.  tracks -> [files of other
programs]

A `ResampledMotion` is a segment of a split's rows, at AMASS's own rate. `_frame_positions` tells
where among its rows the frames at 30 per second are; values are interpolated there.
`ResampledMotion.find` finds the motions, and `WhamMotion` computes WHAM's arrays of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.extras.exchange.rows import FPS, RATE_NOISE, Segments
from pipeline.extras.exchange.wham.fields import Bodies
from pipeline.people import cameras
from pipeline.people.cameras import (
    frame_positions,
    pose_in_camera,
    resample_linear,
    resample_rotations,
)
from pipeline.people.skeletons import Doubles

MIN_FRAMES: Final = 25  # least number of frames of a motion, at 30 fps
TOO_SHORT: Final = f"motion of fewer than {MIN_FRAMES} frames at 30 per second"
Y_DOWN: Final = np.array(  # transform from a world with z up to one with y down
    [
        [1.0, 0, 0, 0],
        [0, 0, -1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]
)


def _frame_positions(n_rows: int, rate: float) -> Doubles:
    """Positions (m,) of the frames at 30 fps among `n_rows` rows at `rate` fps; fractions are
    between two rows.

    >>> _frame_positions(9, 120.0).tolist(), _frame_positions(5, 50.0).round(2).tolist()
    ([0.0, 4.0, 8.0], [0.0, 1.67, 3.33])
    """
    if abs(rate - FPS) < RATE_NOISE:
        return np.arange(float(n_rows))
    return frame_positions(n_rows, rate, FPS)


@dataclass(frozen=True, slots=True, eq=False)
class ResampledMotion:
    """A motion of a split. m: its number of frames at 30 fps."""

    split: cache.Split
    name: str
    gender: str
    rows: range
    rate: float  # rows per second

    @property
    def positions(self) -> Doubles:
        """Positions (m,) of the frames at 30 fps among the rows."""
        return _frame_positions(len(self.rows), self.rate)

    def read_column(self, column: str) -> Doubles:
        """The rows of a column, at the motion's own rate."""
        return self.split.rows(column, self.rows.start, self.rows.stop).astype(np.float64)

    def translations(self) -> Doubles:
        """Translations at 30 fps, (m, 3) m, z up."""
        return resample_linear(self.read_column("trans"), self.positions)

    @classmethod
    def find(cls, split: cache.Split, segments: Segments) -> tuple[list[ResampledMotion], Segments]:
        """The motions in these segments, and the segments of these motions. Leaves out segments of
        fewer than 25 frames at 30 fps. Raises PipelineError for duplicate names.
        """
        rates = split.tracks.fps / split.tracks.step
        is_long = []
        for number, track in enumerate(segments.track):
            positions = _frame_positions(len(segments.rows(number)), rates[track])
            is_long.append(len(positions) >= MIN_FRAMES)
        segments = segments.only(np.array(is_long, np.bool_), TOO_SHORT)
        names = segments.names(split, [track.video.replace("/", "_") for track in split.tracks])
        motions = []
        for number, track in enumerate(segments.track.tolist()):
            gender = split.tracks[track].gender
            rows = segments.rows(number)
            motions.append(cls(split, names[number], gender, rows, float(rates[track])))
        return motions, segments


@dataclass(frozen=True, slots=True, eq=False)
class WhamMotion:
    """A motion in WHAM's format: 30 fps, y down, the first frame's lowest vertex on the ground."""

    motion: ResampledMotion
    bodies: Bodies
    name_type: np.dtype[np.str_]  # of the array with the names of all motions

    def names(self) -> NDArray[np.str_]:
        """The motion's name, (m,)."""
        return np.full(len(self.motion.positions), self.motion.name, self.name_type)

    def poses(self) -> Doubles:
        """Poses at 30 fps, (m, 72) rad, in a world with y down."""
        return self._interpolate_poses(self.motion.positions)

    def betas(self) -> Doubles:
        """Betas at 30 fps, (m, 10); they are the same in all rows of a motion."""
        return self.motion.read_column("betas")[self.motion.positions.astype(np.int64)]

    def translations(self) -> Doubles:
        """Translations at 30 fps, (m, 3) m, y down, with the first frame on the ground."""
        gender = self.motion.gender
        first_pose = self._interpolate_poses(np.zeros(1))
        first_betas = self.motion.read_column("betas")[:1]
        pelvis, _ = self.bodies.joints(gender, first_pose, first_betas)
        _, trans = cameras.to_camera(np.zeros(3), self.motion.translations(), Y_DOWN, pelvis)
        trans[:, 1] -= self.bodies.lowest(gender, first_pose[0], first_betas[0], trans[0])
        return trans

    def _interpolate_poses(self, positions: Doubles) -> Doubles:
        """Poses (n, 72) rad with y down, at positions (n,) among the rows."""
        joints = self.motion.read_column("pose").reshape(-1, 24, 3)
        pose = resample_rotations(joints, positions)
        return pose_in_camera(pose.reshape(-1, 72), Y_DOWN[:3, :3])
