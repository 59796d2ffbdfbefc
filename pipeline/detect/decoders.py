"""Frames of many clips, decoded by supervised processes.  [pixels] -> raw keypoints

Each process decodes one clip after the other, from its first frame on, two batches ahead. The frames of the earliest
open clip come first: while the network is what takes the time, one clip is worked on, and a kill costs little; while
decoding does, all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.errors import RawDataError
from pipeline.files.pixels.cuts import Histogram, histogram
from pipeline.files.pixels.frames import Frame, Image, Video
from pipeline.processes import LOOK, MEMORY, Failed, Process, alive, end, sendable

AHEAD: Final = 2  # batches that a process has been given: one to decode, and one to go on with
TRIALS: Final = 2  # processes that may end at a batch
THREADS: Final = "OPENCV_FFMPEG_THREADS"  # of one clip's decoder


class Seen(NamedTuple):
    """A frame of a clip, and its colours; both are None where it cannot be decoded."""

    number: int  # from 0
    image: Image | None
    colours: Histogram | None


class Batch(NamedTuple):
    """The next frames of a clip."""

    clip: str
    frames: list[Seen]
    ended: bool  # the clip has no more
    problem: RawDataError | None  # why it is given up


@dataclass(slots=True)
class _Lane:
    """A clip that is being decoded, by a process of its own."""

    clip: str
    start: int  # the next frame that is expected
    asked: int  # the next frame that no process has been asked for
    process: Process
    trials: int = 0  # processes that have ended since the last answer


class Decoders:
    """`n` processes, started when first needed and replaced when they end or hang. To be ended by `close`.

    size: frames in a batch. threads: of each clip's decoder. timeout: s without progress after which one is ended.
    """

    def __init__(self, raw: Path, n: int, size: int, *, threads: int, timeout: float) -> None:
        self._raw, self._n, self._size, self._timeout = raw, n, size, timeout
        self._env = {THREADS: str(threads)}
        self._lanes: list[_Lane] = []
        self._idle: list[Process] = []

    def batches(self, clips: Iterator[tuple[str, int]]) -> Iterator[Batch]:
        """All frames of (clip, first frame): of each clip in order; clips side by side, the earliest one preferred."""
        while True:
            while len(self._lanes) < self._n and (one := next(clips, None)) is not None:
                self._lanes.append(_Lane(one[0], one[1], one[1], self._idle.pop() if self._idle else self._start()))
            if not self._lanes:
                return
            found = self._look()
            if found is None:
                continue
            lane, batch = found
            if batch.ended:
                self._lanes.remove(lane)
                self._idle.append(lane.process)
            yield batch

    def close(self) -> None:
        """End all processes."""
        end([*self._idle, *(lane.process for lane in self._lanes)])

    def _start(self) -> Process:
        return Process(_decode, str(self._raw), self._size, env=self._env, memory=MEMORY)

    def _look(self) -> tuple[_Lane, Batch] | None:
        """What the earliest clip's process has sent, if any has."""
        for lane in self._lanes:
            while len(lane.process.given) < AHEAD:
                task = (lane.clip, lane.asked)
                lane.process.give([task], pickle.dumps(task))
                lane.asked += self._size
        ready = wait([lane.process.pipe for lane in self._lanes], LOOK)
        for lane in self._lanes:
            answer = lane.process.answer(ready, self._timeout)
            if isinstance(answer, Failed):
                lane.process, lane.asked, lane.trials = self._start(), lane.start, lane.trials + 1
                if lane.trials == TRIALS:
                    found = f"after frame {lane.start}: {TRIALS} processes ended, the last one {answer.message}"
                    return lane, Batch(lane.clip, [], True, _unreadable(self._raw / lane.clip, found))
            elif isinstance(answer, Exception):
                raise answer
            elif answer is not None:
                (clip, _), frames, ended, why = answer
                lane.process.given.popleft()
                if clip == lane.clip:  # else asked for ahead, of a clip that is over
                    lane.start, lane.trials = lane.start + len(frames), 0
                    unreadable = _unreadable(self._raw / clip, why) if why else None
                    return lane, Batch(clip, frames, ended, unreadable)
        return None


def _unreadable(file: Path, found: str) -> RawDataError:
    expected, do = "a video that can be decoded", "Download or encode it again, or remove it."
    return RawDataError(file, "video", expected=expected, found=found, do=do, reason="video_unreadable")


def _decode(pipe: Connection[Any, Any], raw: str, size: int) -> None:
    """What a process does: answer tasks with frames, going on where it is in a clip, until the pipe is closed."""
    clip, position, over = "", -1, False
    frames: Iterator[Frame] = iter(())
    while True:
        try:
            task: tuple[str, int] = pipe.recv()
        except (EOFError, ConnectionError):
            return
        alive(task[1])
        try:
            if clip != task[0] or (position != task[1] and not over):
                (clip, position), over = task, False
                frames = Video(Path(raw), clip).read(itertools.count(position), alive=alive)
            batch: list[Seen] = []
            why = ""
            for frame in itertools.islice(frames, 0 if over else size):  # a task beyond the end was given ahead
                if over := frame.kind in ("video_ended", "video_unreadable"):
                    why = str(frame.problem) if frame.index == 0 else ""
                    break
                batch.append(Seen(frame.index, frame.image, None if frame.image is None else histogram(frame.image)))
            position += len(batch)
            message: object = (task, batch, over, why)
        except MemoryError:
            raise
        except Exception as error:
            message = sendable(error, "While decoding")
        with contextlib.suppress(ConnectionError):
            pipe.send(message)
