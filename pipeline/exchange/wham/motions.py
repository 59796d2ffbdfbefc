"""Motions of AMASS at 30 frames per second, for files of WHAM and GVHMR.  tracks -> [files of other
programs]

A motion is a segment of a split's rows, at AMASS's own rate. `_frame_positions` tells where among
its rows the frames at 30 per second are; values are interpolated there. `find_motions` finds the
motions, and `MotionFields` computes WHAM's arrays of them. Both take a motion by its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import cameras
from pipeline.cameras import pose_in_camera, resample_linear, resample_rotations
from pipeline.exchange.rows import FPS, RATE_NOISE, Segments
from pipeline.exchange.wham.fields import Bodies
from pipeline.skeletons import Doubles, Ints

MIN_FRAMES: Final = 25  # least number of frames of a motion, at 30 fps
TOO_SHORT: Final = f"motion of fewer than {MIN_FRAMES} frames at 30 per second"
_TOLERANCE: Final = 1e-9  # frames: rounding must not cut off the last one
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
    duration = (n_rows - 1) * FPS / rate  # in frames at 30 fps
    last = np.floor(duration + _TOLERANCE)
    return np.arange(last + 1) * rate / FPS


@dataclass(frozen=True, slots=True, eq=False)
class _Motions:
    """The motions of a split. m: a motion's number of frames at 30 fps."""

    split: cache.Split
    segments: Segments  # rows of each motion
    rates: Doubles  # (n,) frames per second of its rows
    lengths: Ints  # (n,) its m
    names: list[str]

    def positions(self, number: int) -> Doubles:
        """Positions (m,) of a motion's frames at 30 fps among its rows."""
        n_rows = self.segments.stop[number] - self.segments.start[number]
        return _frame_positions(int(n_rows), float(self.rates[number]))

    def read_column(self, column: str, number: int) -> Doubles:
        """A motion's rows of a column, at its own rate."""
        return self.segments.read_column(self.split, column, number).astype(np.float64)

    def translations(self, number: int) -> Doubles:
        """Translations at 30 fps, (m, 3) m, z up."""
        return resample_linear(self.read_column("trans", number), self.positions(number))


def find_motions(split: cache.Split, segments: Segments) -> _Motions:
    """The motions in these segments. Leaves out segments of fewer than 25 frames at 30 fps. Raises
    PipelineError for duplicate names.
    """
    rates = (split.tracks.fps / split.tracks.step)[segments.track]
    n_rows = segments.stop - segments.start
    n_frames = [
        len(_frame_positions(rows, rate))
        for rows, rate in zip(n_rows.tolist(), rates.tolist(), strict=True)
    ]
    lengths = np.array(n_frames, np.int64)
    is_long = lengths >= MIN_FRAMES
    long_segments = segments.only(is_long, TOO_SHORT)
    track_names = [track.video.replace("/", "_") for track in split.tracks]
    names = long_segments.names(split, track_names)
    return _Motions(split, long_segments, rates[is_long], lengths[is_long], names)


class MotionFields:
    """Arrays of motions in WHAM's format: 30 fps, y down, the first frame's lowest vertex on the
    ground. Its methods get a motion as a range with its number.
    """

    def __init__(self, motions: _Motions, bodies: Bodies) -> None:
        self._motions = motions
        self._bodies = bodies
        self._names = np.array(motions.names)

    def vid(self, motion: range) -> NDArray[np.str_]:
        """The motion's name, (m,)."""
        return np.repeat(self._names[motion], self._motions.lengths[motion])

    def pose(self, motion: range) -> Doubles:
        """Poses at 30 fps, (m, 72) rad, in a world with y down."""
        number = motion.start
        joints = self._motions.read_column("pose", number).reshape(-1, 24, 3)
        pose = resample_rotations(joints, self._motions.positions(number))
        rotation = Y_DOWN[:3, :3]
        return pose_in_camera(pose.reshape(-1, 72), rotation)

    def betas(self, motion: range) -> Doubles:
        """Betas at 30 fps, (m, 10); they are the same in all rows of a motion."""
        number = motion.start
        rows = self._motions.positions(number).astype(np.int64)
        return self._motions.read_column("betas", number)[rows]

    def transl(self, motion: range) -> Doubles:
        """Translations at 30 fps, (m, 3) m, y down, with the first frame on the ground."""
        number = motion.start
        track = int(self._motions.segments.track[number])
        gender = self._motions.split.tracks[track].gender
        pose = self.pose(motion)
        betas = self.betas(motion)
        pelvis, _ = self._bodies.joints(gender, pose[:1], betas[:1])
        in_world = self._motions.translations(number)
        _, trans = cameras.to_camera(np.zeros(3), in_world, Y_DOWN, pelvis)
        lowest = self._bodies.lowest(gender, pose[0], betas[0], trans[0])
        trans[:, 1] -= lowest
        return trans
