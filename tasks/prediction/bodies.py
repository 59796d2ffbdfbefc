"""All predicted bodies of a video, by frame, on disk.  windows -> [bodies] -> pictures"""

from __future__ import annotations

import math
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vibe_model.prediction.predict import TrackBodies


def record_type(n_steps: int = 0) -> np.dtype[Any]:
    """Of a body in a frame. `moved`: its rotations at each step before and after, with the same shape and camera."""
    return np.dtype(
        [
            ("frame", "<i8"),
            ("track", "<i4"),
            ("crop_scale", "<f4"),
            ("bbox", "<f4", 4),
            ("camera", "<f4", 3),
            ("shape", "<f4", 10),
            ("rotmat", "<f4", (24, 3, 3)),
            ("moved", "<f4", (n_steps, 24, 3, 3)),
        ]
    )


class PredictedBodies:
    """All bodies of a video, by frame. They are kept on disk: an hour of a crowd has gigabytes of them."""

    def __init__(self, folder: Path, steps: tuple[int, ...] = ()) -> None:
        """folder: on the disk to use. The file has no name, and is deleted with this object. steps: the model's."""
        self.steps = steps
        self.fps = math.nan  # of the source's frames, as the tracks have it
        self.step = 1  # frames from one row of a track to the next
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._type = record_type(len(steps))
        self._frames: list[NDArray[np.int64]] = []
        self._sorted: tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, bodies: TrackBodies) -> None:
        """The next track."""
        self.fps, self.step = bodies.track.fps, bodies.track.step
        records = np.zeros(len(bodies), self._type)
        records["track"], records["crop_scale"] = len(self._frames), bodies.track.crop_scale
        records["frame"] = bodies.frame_index
        for name in ("bbox", "camera", "shape", "rotmat"):
            records[name] = getattr(bodies, name)
        for i, step in enumerate(self.steps):
            records["moved"][:, i] = bodies.moved[step]
        self._file.write(records.tobytes())
        self._frames.append(bodies.frame_index)
        self._sorted = None

    def __len__(self) -> int:
        return sum(map(len, self._frames))

    @property
    def stop(self) -> int:
        """The frame after the last one with a body."""
        return max((int(frames[-1]) + 1 for frames in self._frames), default=0)

    def of_frames(self, start: int, stop: int) -> NDArray[Any]:
        """(N,) records of the frames [start, stop), by frame and then by track."""
        if not len(self):
            return np.zeros(0, self._type)
        if self._sorted is None:
            self._file.flush()
            frames = np.concatenate(self._frames)
            order = np.argsort(frames, kind="stable")
            self._sorted = np.memmap(self._file, self._type, mode="r"), frames[order], order
        records, frames, order = self._sorted
        first, last = np.searchsorted(frames, (start, stop))
        return np.asarray(records[order[first:last]])
