"""Motions of AMASS at 30 frames per second, for files of WHAM and GVHMR.  tracks -> [files of other
programs]

A motion is a segment of a split's rows, at AMASS's own rate. `positions` tells where among its rows
the frames at 30 per second are; values are interpolated there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

import cache
from pipeline import cameras
from pipeline.cameras import pose_in_camera, resample_linear, resample_rotations
from pipeline.exchange.rows import Segments
from pipeline.exchange.wham.bodies import Bodies
from pipeline.exchange.wham.fields import FPS, RATE_NOISE, Compute
from pipeline.skeletons import Doubles

MIN_FRAMES: Final = 25  # least number of frames of a motion, at 30 fps
TOO_SHORT: Final = f"motion of fewer than {MIN_FRAMES} frames at 30 per second"
TOLERANCE: Final = 1e-9  # frames: rounding must not cut off the last one
Y_DOWN: Final = np.array(  # transform from a world with z up to one with y down
    [
        [1.0, 0, 0, 0],
        [0, 0, -1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]
)


class Motions:
    """AMASS's motions in WHAM's format: 30 fps, y down, the first frame's lowest vertex on the
    ground.

    They have numbers, by which methods take them. m: a motion's number of frames at 30 fps.
    """

    def __init__(self, split: cache.Split, segments: Segments, bodies: Bodies | None) -> None:
        """Leave out segments of fewer than 25 frames. bodies: for `transl`. Raises PipelineError
        for duplicate names.
        """
        self.split = split
        self.bodies = bodies
        # rows of each motion: first of all segments, whose lengths `positions` tells
        self.segments = segments
        n_segments = len(segments.start)
        n_frames = [len(self.positions(number)) for number in range(n_segments)]
        lengths = np.array(n_frames, np.int64)
        is_long = lengths >= MIN_FRAMES
        self.segments = segments.only(is_long, TOO_SHORT)
        self.lengths: list[int] = lengths[is_long].tolist()  # at 30 fps
        track_names = [track.video.replace("/", "_") for track in split.tracks]
        self.names = self.segments.names(split, track_names)
        names = np.array(self.names)
        # field of `layouts.FIELDS` -> its array for one motion, as (number, number + 1)
        self.computed: Mapping[str, Compute] = {
            "vid": lambda number, stop: np.repeat(names[number:stop], self.lengths[number]),
            "pose": lambda number, _: self.pose(number),
            "betas": lambda number, _: self.betas(number),
            "transl": lambda number, _: self.transl(number),
        }

    def positions(self, number: int) -> Doubles:
        """Positions (m,) of the frames at 30 fps among a motion's rows; fractions are between two
        rows.

        At 120 fps: 0, 4, 8, ...; at 50 fps: 0, 1.67, 3.33, ...
        """
        track = self.segments.track[number]
        tracks = self.split.tracks
        rate = float(tracks.fps[track] / tracks.step[track])
        start = self.segments.start[number]
        n_rows = self.segments.stop[number] - start
        if abs(rate - FPS) < RATE_NOISE:
            return np.arange(float(n_rows))
        duration = (n_rows - 1) * FPS / rate  # in frames at 30 fps
        last = np.floor(duration + TOLERANCE)
        return np.arange(last + 1) * rate / FPS

    def pose(self, number: int) -> Doubles:
        """Poses at 30 fps, (m, 72) rad, in a world with y down."""
        stored = self.read_column("pose", number)
        joints = stored.reshape(-1, 24, 3)
        pose = resample_rotations(joints, self.positions(number))
        rotation = Y_DOWN[:3, :3]
        return pose_in_camera(pose.reshape(-1, 72), rotation)

    def betas(self, number: int) -> Doubles:
        """Betas at 30 fps, (m, 10); they are the same in all rows of a motion."""
        rows = self.positions(number).astype(np.int64)
        return self.read_column("betas", number)[rows]

    def transl(self, number: int) -> Doubles:
        """Translations at 30 fps, (m, 3) m, y down, with the first frame on the ground."""
        assert self.bodies is not None
        track = self.split.tracks[int(self.segments.track[number])]
        pose = self.pose(number)
        betas = self.betas(number)
        pelvis, _ = self.bodies.joints(track.gender, pose[:1], betas[:1])
        stored = self.read_column("trans", number)
        in_world = resample_linear(stored, self.positions(number))
        _, trans = cameras.to_camera(np.zeros(3), in_world, Y_DOWN, pelvis)
        lowest = self.bodies.lowest(track.gender, pose[0], betas[0], trans[0])
        trans[:, 1] -= lowest
        return trans

    def read_column(self, column: str, number: int) -> Doubles:
        """A motion's rows of a column, at its own rate."""
        start = int(self.segments.start[number])
        stop = int(self.segments.stop[number])
        return self.split.rows(column, start, stop).astype(np.float64)
