"""Make the record of a video while something else decodes it.  [pixels] -> crops"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Doubles
from pipeline.files.pixels.clip_record import OTHER_RATE, ClipRecord
from pipeline.files.pixels.numbering import NumberedFrame
from pipeline.files.pixels.video import OpenVideo, Undecodable, VideoHeader
from pipeline.files.pixels.view import View

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Of each frame and the one before, every eighth pixel of every eighth row is compared first. Only
# if these are equal, all are.
SAMPLED: Final = 8
# Frames a second from which a camera's stated rate means slow motion. It states 30 or 60 also where
# it filmed fewer in the dark.
SLOW_MOTION: Final = 100.0


class Survey:
    """Makes the record of a video while something else decodes it.

    `add` is called with every frame, in order; `record` after the last one.
    """

    def __init__(self) -> None:
        self._times: list[float] = []  # s, of all frames; nan: not known
        self._lost: list[int] = []  # numbers
        self._n_interlaced = 0
        self._n_resized = 0
        self._n_repeated = 0
        self._first: VideoFrame | None = None  # the first frame that is not lost
        self._previous: VideoFrame | None = None  # the last one that is not lost

    def add(self, frame: NumberedFrame) -> None:
        """Count the next frame of the video."""
        self._times.append(frame.time)
        decoded = frame.decoded
        if decoded is None:
            self._lost.append(frame.number)
            return

        if self._first is None:
            self._first = decoded
        first = self._first
        if decoded.interlaced_frame:
            self._n_interlaced += 1
        if (decoded.width, decoded.height) != (first.width, first.height):
            self._n_resized += 1
        if self._previous is not None and _is_copy(self._previous, decoded):
            self._n_repeated += 1
        self._previous = decoded

    def record(self, video: OpenVideo, path: Path) -> ClipRecord:
        """The record of the frames that were added, and of the header. Raises Undecodable if no
        frame was decoded.
        """
        if self._first is None:
            why = "it is encrypted" if video.is_encrypted else "none of its frames can be decoded"
            raise Undecodable(f"{path}: {why}")
        header = video.header()
        n_hidden = video.n_hidden
        if video.index is not None:  # frames that it lacks are cut out, too, and have no packets
            n_hidden += max(0, (header.n_frames or 0) - len(video.index))
        view = View.from_frame(video.stream, self._first)
        times, n_restarts = _join_recordings(_drop_wrong(np.array(self._times)))

        return ClipRecord(
            stored=view.stored,
            aspect=view.aspect.as_integer_ratio(),
            matrix=view.matrix,
            times=times,
            lost=tuple(self._lost),
            n_hidden=n_hidden,
            n_missing=video.count_missing(path, video.n_packets),
            n_interlaced=self._n_interlaced,
            n_resized=self._n_resized,
            n_repeated=self._n_repeated,
            n_streams=len(video.streams),
            stream=video.streams.index(video.stream) + 1,
            n_restarts=n_restarts,
            transfer=int(self._first.color_trc),
            header_frames=header.n_frames,
            header_fps=header.fps,
            filmed_fps=_filmed_fps(video, header),
        )


def _filmed_fps(video: OpenVideo, header: VideoHeader) -> float:
    """The rate at which Android's camera says that it has filmed, if it is slow motion, which the
    file plays at a lower rate. nan for all other clips.
    """
    stated = video.metadata.get("com.android.capture.fps", "")
    try:
        rate = float(stated)
    except ValueError:
        return math.nan
    is_played = abs(rate / header.fps - 1) < OTHER_RATE
    if is_played or not rate >= SLOW_MOTION:  # nan, too
        return math.nan
    return rate


def _is_copy(previous: VideoFrame, frame: VideoFrame) -> bool:
    """Whether two frames look the same: their first planes are equal, which hold the brightness or
    all colours.
    """
    plane = _first_plane(frame)
    previous_plane = _first_plane(previous)
    # a few pixels first, which is faster
    if not np.array_equal(plane[::SAMPLED, ::SAMPLED], previous_plane[::SAMPLED, ::SAMPLED]):
        return False
    return np.array_equal(plane, previous_plane)


def _first_plane(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, bytes of a row) of a frame's first plane, without the padding at the end of its rows."""
    plane = frame.planes[0]
    data: Any = plane
    rows: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(plane.height, plane.line_size)
    if frame.format.is_planar:
        n_bytes = plane.width * math.ceil(frame.format.components[0].bits / 8)
    else:
        n_bytes = plane.width * frame.format.padded_bits_per_pixel // 8
    return rows[:, :n_bytes]


def _drop_wrong(times: Doubles) -> Doubles:
    """Times (n,) with nan for each that is not between its neighbours', although these increase:
    0, 1, 7, 3, 4 becomes 0, 1, nan, 3, 4.
    """
    is_known = np.isfinite(times)
    padded = np.concatenate([[-np.inf], times[is_known], [np.inf]])
    before = padded[:-2]
    after = padded[2:]
    known = padded[1:-1]
    is_wrong = (before < after) & ((known < before) | (known > after))
    checked = times.copy()
    checked[is_known] = np.where(is_wrong, np.nan, known)
    return checked


def _join_recordings(times: Doubles) -> tuple[Doubles, int]:
    """Times (n,) that never go back, from a file's own, and the number of places where these do.

    In a file of several recordings, times begin anew with each. Here, each goes on after the one
    before, by the median step: 0, 1, 2, 0, 1 becomes 0, 1, 2, 3, 4.
    """
    is_known = np.isfinite(times)
    steps = np.diff(times[is_known])
    is_restart = steps < 0
    if not is_restart.any():
        return times, 0
    median_step = 0.0
    if not is_restart.all():
        median_step = np.median(steps[~is_restart])
    steps[is_restart] = median_step
    first, *later = np.flatnonzero(is_known)
    joined = times.copy()
    joined[later] = times[first] + np.cumsum(steps)
    return joined, int(is_restart.sum())
