"""Frames of many clips, decoded by supervised processes.  [pixels] -> raw keypoints

`run.py` iterates over `Decoders.decode`. A job is one clip: one process of a
`pipeline.processes.pool.Pool` decodes it, in order. A task is the next `size` frames of a clip, the
unit that is sent to a process, where `ClipDecoding` decodes them. Of the frames that are ready,
those of the earliest open clip are yielded first, so that few clips are unfinished at any time.

How long a clip is, is known only when it has been decoded. So tasks are sent until one has reached
the end, and tasks that were already sent then have no frames.

For each frame, the process also computes a histogram of colours, by which scene cuts are found, and
the camera's motion since the frame before.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np

from pipeline import homography
from pipeline.errors import RawDataError
from pipeline.files.pixels.clip_record import ClipRecord, Survey
from pipeline.files.pixels.cuts import Histogram, histogram
from pipeline.files.pixels.frames import Frame, Image, Video
from pipeline.processes import Failed, alive
from pipeline.processes.pool import VIDEO_THREADS, Pool, Result

SMALL: Final = (320, 192)  # px, size of the reduced images of which the camera's motion is computed
# The camera is still if no corner moves by more, in units of half the image: 1.3 px of 1280.
STILL: Final = 0.002
PLACES: Final = 6  # decimals of the camera's motion


class _ClipFrame(NamedTuple):
    """A frame of a clip, decoded or damaged."""

    number: int  # in the clip, from 0
    image: Image | None  # None: it cannot be decoded
    colours: Histogram | None  # histogram of the image's colours; None without an image
    camera: list[float] | None  # `_camera_motion` from the frame before


class DecodedTask(NamedTuple):
    """The result of a task: the next frames of a clip."""

    clip: str
    frames: list[_ClipFrame]
    ended: bool  # this is the clip's last task
    problem: RawDataError | None = None  # why the clip cannot be read
    record: ClipRecord | None = None  # what the clip is; known when it has been decoded to its end


Task = tuple[str, int]  # a clip, and the task's first frame


class ClipDecoding:
    """Decodes tasks of up to `size` frames in one process.

    Keeps the clip open between tasks, so that the next task continues where the last one stopped.
    """

    def __init__(self, raw: Path, size: int) -> None:
        self._raw = raw
        self._size = size
        self._clip = ""  # the open clip; "" before the first
        self._position = -1  # the next frame of the open clip
        # whether the open clip has been decoded to its end: all later tasks are beyond it
        self._over = False
        self._frames: Iterator[Frame]  # the frames of the open clip from `_position` on
        self._before: homography.Bytes | None = None  # the frame before, grey and small

    def __call__(self, task: Task) -> DecodedTask:
        """Decode a task's frames. The result has a `problem` if the clip cannot be read."""
        alive()
        clip, start = task
        continues = self._position == start or self._over
        if self._clip != clip or not continues:
            self._open(clip, start)
        frames: list[_ClipFrame] = []
        if self._over:
            return DecodedTask(clip, frames, ended=True)
        problem = None
        record = None
        for frame in itertools.islice(self._frames, self._size):
            if frame.kind in ("video_ended", "video_unreadable"):
                self._over = True
                record = frame.record
                if not frame.index:
                    problem = Video(self._raw, clip).unreadable(str(frame.problem))
                break
            colours = None
            small = None
            if frame.image is not None:
                colours = histogram(frame.image)
                small = _small(frame.image)
            camera = _camera_motion(self._before, small)
            frames.append(_ClipFrame(frame.index, frame.image, colours, camera))
            self._before = small
        self._position += len(frames)
        return DecodedTask(clip, frames, self._over, problem, record)

    def _open(self, clip: str, start: int) -> None:
        """Open a clip at frame `start`, which is not 0 if another process began the clip.

        Decodes the frame before, too, from which the camera's motion is computed.
        """
        self._clip = clip
        self._position = start
        self._over = False
        self._before = None
        before = max(start - 1, 0)
        self._frames = Video(self._raw, clip).read(itertools.count(before), Survey())
        if before < start:
            image = next(self._frames).image
            if image is not None:
                self._before = _small(image)


def _small(image: Image) -> homography.Bytes:
    return homography.grey(cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA))


def _camera_motion(
    before: homography.Bytes | None, now: homography.Bytes | None
) -> list[float] | None:
    """The first 8 elements of the homography between two small images (`homography.between`).

    None if an image is missing, the homography is unknown, or the camera is still.
    """
    if before is None or now is None:
        return None
    matrix, is_known = homography.between(before, now)
    moves = homography.transfer(matrix, homography.CORNERS) - homography.CORNERS
    if is_known and np.abs(moves).max() > STILL:
        elements: list[float] = matrix.ravel()[:8].round(PLACES).tolist()
        return elements
    return None


class Decoders:
    """Decodes clips in `n` processes, each with `threads` threads, in tasks of `size` frames.

    A clip is open, and has an entry in `_waiting`, from its first task (`_tasks`) until its last
    frames are yielded (`_take`). While decoded frames of it wait to be yielded, no other task of it
    is sent, so that memory is bounded.
    """

    def __init__(self, raw: Path, n: int, size: int, *, threads: int, timeout: float) -> None:
        self._raw = raw
        self._n = n
        self._size = size
        self._timeout = timeout
        self._env = {VIDEO_THREADS: str(threads)}
        self._waiting: dict[str, list[DecodedTask]] = {}  # open clip -> decoded tasks, in order

    def decode(self, clips: Iterator[str]) -> Generator[DecodedTask]:
        """Yield all frames of all clips. Frames of a clip are in order, those of clips alternate.

        A clip whose process fails ends with a problem.
        """
        jobs = map(self._tasks, clips)
        works = [ClipDecoding(self._raw, self._size)] * self._n
        with Pool[Task, DecodedTask](works, jobs, timeout=self._timeout, env=self._env) as pool:
            while pool.has_more or not pool.is_idle or self._waiting:
                clip = self._first_ready()
                patience = 1 if clip is None else 0  # s
                for result in pool.poll(patience):
                    self._receive(result)
                if clip is not None:
                    yield self._take(clip)

    def _tasks(self, clip: str) -> Iterator[Task | None]:
        """Open a clip, and yield its tasks; None ("later") while decoded frames of it wait."""
        start = 0
        self._waiting[clip] = []
        while clip in self._waiting:
            tasks = self._waiting[clip]
            if any(decoded.ended for decoded in tasks):
                break
            if tasks:
                yield None
            else:
                yield clip, start
                start += self._size

    def _first_ready(self) -> str | None:
        """The earliest open clip that has decoded tasks; None if none has."""
        for clip, tasks in self._waiting.items():
            if tasks:
                return clip
        return None

    def _receive(self, result: Result[Task, DecodedTask]) -> None:
        """Let a task's result wait; that of a process that failed is the end of its clip."""
        clip, start = result.task
        decoded = result.get()
        if isinstance(decoded, Failed):
            why = f"after frame {start}: the process that decodes it {decoded.message}"
            problem = Video(self._raw, clip).unreadable(why)
            decoded = DecodedTask(clip, [], True, problem)
        if clip in self._waiting:  # else the task was beyond the end of its clip
            self._waiting[clip].append(decoded)

    def _take(self, clip: str) -> DecodedTask:
        """Remove the first decoded task of a clip, and with the last one the clip."""
        decoded = self._waiting[clip].pop(0)
        if decoded.ended:
            del self._waiting[clip]
        return decoded
