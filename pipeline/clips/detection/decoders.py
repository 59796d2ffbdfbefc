"""Frames of many clips, decoded by supervised processes.  [pixels] -> raw keypoints

As in `pipeline.features.engine.run`, a job is decoded in order by one process, here a clip, and a
task is sent to it at once, here up to `size` frames. Processes are two tasks ahead. Frames of the
earliest open clip come first, so that few clips are unfinished at any time.
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
from pipeline.processes.pool import VIDEO_THREADS, Pool

SMALL: Final = (320, 192)  # px to which images are reduced before the camera's motion is computed
STILL: Final = 0.002  # of half the image: corners that move by less, which is 1.3 px of 1280
PLACES: Final = 6  # decimals


class _ClipFrame(NamedTuple):
    """A frame of a clip and its colours; both are None if it cannot be decoded."""

    number: int  # from 0
    image: Image | None
    colours: Histogram | None
    camera: list[float] | None  # `_camera_motion` from the frame before


class DecodedTask(NamedTuple):
    """The frames of a task: the next ones of a clip."""

    clip: str
    frames: list[_ClipFrame]
    ended: bool  # this is the clip's last task
    problem: RawDataError | None = None  # why the clip cannot be read
    record: ClipRecord | None = None  # of a clip that has ended


Task = tuple[str, int]  # a clip, and the task's first frame


class ClipDecoding:
    """Decodes tasks of up to `size` frames in one process, and continues where it stopped in a
    clip.
    """

    def __init__(self, raw: Path, size: int) -> None:
        self._raw = raw
        self._size = size
        self._clip = ""
        self._position = -1
        self._over = False
        self._frames: Iterator[Frame]
        self._before: homography.Bytes | None = None  # the frame before, grey and small

    def __call__(self, task: Task) -> DecodedTask:
        alive()
        clip, start = task
        if self._clip != clip or (self._position != start and not self._over):
            self._open(clip, start)
        frames: list[_ClipFrame] = []
        if self._over:  # a task beyond the end
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
        """Begin a clip, or a task of a clip that another process began."""
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
    """Two small images -> 8 elements of `homography.between`; None if it is unknown, or the camera
    is still.
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
    """`n` decoding processes, started when first needed. `size`: frames per task; `threads`:
    threads per decoder.
    """

    def __init__(self, raw: Path, n: int, size: int, *, threads: int, timeout: float) -> None:
        self._raw = raw
        self._n = n
        self._size = size
        self._timeout = timeout
        self._env = {VIDEO_THREADS: str(threads)}
        self._waiting: dict[str, list[DecodedTask]] = {}  # open clip -> decoded tasks, in order

    def decode(self, clips: Iterator[str]) -> Generator[DecodedTask]:
        """Yield all frames, in order within each clip. Clips are decoded side by side, the earliest
        first.
        """
        jobs = map(self._tasks, clips)
        works = [ClipDecoding(self._raw, self._size)] * self._n
        with Pool[Task, DecodedTask](works, jobs, timeout=self._timeout, env=self._env) as pool:
            while pool.has_more or not pool.is_idle or self._waiting:
                ready = self._first_ready()
                for result in pool.poll(0 if ready else 1):
                    clip, start = result.task
                    decoded = result.get()
                    if isinstance(decoded, Failed):
                        failure = (
                            f"after frame {start}: the process that decodes it {decoded.message}"
                        )
                        problem = Video(self._raw, clip).unreadable(failure)
                        decoded = DecodedTask(clip, [], True, problem)
                    if clip in self._waiting:  # else beyond the end of the clip
                        self._waiting[clip].append(decoded)
                if ready:
                    decoded = ready.pop(0)
                    if decoded.ended:
                        del self._waiting[decoded.clip]
                    yield decoded

    def _first_ready(self) -> list[DecodedTask]:
        """The decoded tasks of the earliest clip that has any."""
        for tasks in self._waiting.values():
            if tasks:
                return tasks
        return []

    def _tasks(self, clip: str) -> Iterator[Task | None]:
        """Yield the tasks of one clip; None while a decoded one waits."""
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
