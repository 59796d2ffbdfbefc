"""What a decoding process does: fill slots of the shared memory with crops.  pixels -> [crops] -> features

It is a process of its own, not a thread: a decoder that hangs or crashes costs a frame, not the extraction; and every
picture takes some Python, for which threads would wait for each other.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.computing import row_of
from pipeline.features.pixel_sources import Cut, Pixels, labels_in
from pipeline.features.streams.base import Labels, Stream
from pipeline.files.pixels.frames import Frame, Image
from pipeline.processes import Failed, alive
from pipeline.processes.pool import TRIALS

AHEAD: Final = 2  # tasks that a process has been given: one to do, and one to go on with
KINDS: Final = {  # of `pipeline.processes.Failed` -> of a frame's problem
    "reader_timeout": "decoder_hung",
    "reader_crashed": "decoder_crashed",
    "reader_memory": "decoder_memory",
    "machine_memory": "decoder_memory",
}
AFTER: Final = "after_decoder_failure"  # frames of a video after one at which decoding fails


class Filling(NamedTuple):
    """What a decoding process fills a stream's slots with."""

    size: int  # px, of the crop
    stream: Stream | None  # what computes a row of its crops; None: the crop itself is the filling
    n_slots: int
    slot_bytes: int

    @property
    def n_bytes(self) -> int:
        """Of the memory that has the slots."""
        return -(-self.n_slots * self.slot_bytes // 8) * 8 + self.n_slots * 8


class SharedSlots:
    """`slots` (n_slots, slot_bytes) uint8 and `sizes` (n_slots,) in memory that several processes map.

    A slot holds a crop; or what a stream makes of crops where these are decoded, float32 numbers or as many bytes as
    its size, which is 0 where nothing is known.
    """

    def __init__(self, memory: mmap.mmap, filling: Filling) -> None:
        n_slots, n_bytes = filling.n_slots, filling.slot_bytes
        slots: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, n_slots * n_bytes)
        self.slots = slots.reshape(n_slots, n_bytes)
        self.sizes: NDArray[np.int64] = np.frombuffer(memory, np.int64, n_slots, filling.n_bytes - n_slots * 8)


class CropRequest(NamedTuple):
    """One row of one stream: where its crop, or what is computed of it, goes."""

    output: int  # which of the streams that are extracted together
    slot: int
    cut: Cut
    previous: int  # the frame one step before, for a stream of pairs
    labels: Labels | None = None  # what it reads of them, as stored


class FrameTarget(NamedTuple):
    """One frame, and what is cropped from it. Of stored crops, the frame is a row."""

    frame: int
    requests: tuple[CropRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A few frames of one job. Tasks of a job go to one process, in order; another one can go on at any of them."""

    number: int
    job: int
    pixels: Pixels
    targets: tuple[FrameTarget, ...]
    n_kept: int  # decoded frames that are kept: previous ones of rows
    before: tuple[FrameTarget, ...] = ()  # as many earlier frames, for a process that begins here
    first: bool = False  # its pixels are compared with those that were converted


@dataclass(slots=True)
class Done:
    """A task's slots are filled, but for those with a problem."""

    task: int
    problems: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)  # (output, slot) -> (kind, message)
    frames: int = 0  # decoded
    decoding: float = 0.0  # s
    cropping: float = 0.0  # s
    pairing: float = 0.0  # s


class Decoding:
    """The work of a decoding process: the slots of each `Task` are filled, by output as `fillings`.

    A frame at which processes end is skipped: it costs its rows, and those of the rest of its video where that can only
    be decoded in order.
    """

    def __init__(self, fillings: Sequence[Filling]) -> None:
        self._fillings = fillings
        self._job = -1  # whose pixels are open
        self._kept: dict[int, Frame] = {}  # the last few that were decoded, by their number
        self._upcoming = deque[int]()
        self._memories: list[SharedSlots]
        self._frames: Iterator[Frame]
        self._done: Done
        self._task: Task

    def share(self, *memories: mmap.mmap) -> None:
        """The memory of the slots, by output."""
        cv2.setNumThreads(1)  # the processes are the parallelism
        self._memories = [SharedSlots(memory, one) for memory, one in zip(memories, self._fillings, strict=True)]

    def __call__(self, task: Task, skipped: Mapping[int, Failed]) -> Done:
        """Fill the task's slots. `skipped`: frames at which processes ended."""
        self._task, self._done = task, Done(task.number)
        targets = task.targets if task.job == self._job else self._begin(task)
        targets = tuple(target for target in targets if not self._is_skipped(target, task.pixels, skipped))
        self._upcoming.extend(target.frame for target in targets)
        for target in targets:
            alive(target.frame)  # opening a video may hang, too
            began = time.perf_counter()
            frame = next(self._frames)  # which takes its number, and no other one
            self._done.decoding += time.perf_counter() - began
            for request in target.requests:
                self._fill(request, frame)
            self._done.frames += frame.image is not None
            if task.n_kept:
                self._kept[frame.index] = frame
            if len(self._kept) > task.n_kept:
                del self._kept[next(iter(self._kept))]
        return self._done

    def _begin(self, task: Task) -> tuple[FrameTarget, ...]:
        """Open the pixels of another job than before. Returns all frames that are to be decoded for its task."""
        if task.first:
            alive(-1)
            task.pixels.check()
        self._job, self._kept = task.job, {}
        self._upcoming.clear()
        self._frames = task.pixels.decode(iter(self._upcoming.popleft, None), alive)
        return task.before + task.targets

    def _is_skipped(self, target: FrameTarget, pixels: Pixels, skipped: Mapping[int, Failed]) -> bool:
        """Whether a frame is given up; then, its rows have a problem."""
        frame = min((f for f in skipped if f == target.frame or (pixels.in_order and f < target.frame)), default=None)
        if frame is None:
            return False
        ended = f"{TRIALS} processes that decoded it ended, the last one {skipped[frame].message}"
        kind = KINDS[skipped[frame].reason] if frame == target.frame else AFTER
        for request in target.requests:
            self._done.problems[request.output, request.slot] = (kind, f"{pixels.name}, frame {frame}: {ended}")
        return True

    def _fill(self, request: CropRequest, frame: Frame) -> None:
        """Fill a row's slot, or say why not."""
        size, stream, *_ = self._fillings[request.output]
        place = request.output, request.slot
        if frame.image is None:
            self._done.problems[place] = (frame.kind, str(frame.problem))
            return
        began, crops = time.perf_counter(), list[Image]()
        if stream is not None and stream.reads.crops > 1:
            previous = self._kept.get(request.previous)
            if previous is None or previous.image is None:
                why = previous.problem if previous is not None else "its decoder crashed"
                message = f"frame {frame.index} is not compared with {request.previous}: {why}"
                self._done.problems[place] = ("previous_undecodable", message)
                return
            crops.append(self._task.pixels.crop(previous, request.cut, size, is_own=False))
        crops.append(self._task.pixels.crop(frame, request.cut, size, is_own=True))
        slots, sizes = self._memories[request.output].slots, self._memories[request.output].sizes
        if stream is None:
            slots[request.slot] = crops[0].reshape(-1)
            self._done.cropping += time.perf_counter() - began
            return
        cropped = time.perf_counter()
        row = row_of(stream, crops, labels_in(request.labels or {}, request.cut), f"frame {frame.index}")
        data = np.zeros(slots.shape[1], np.uint8) if row is None else np.frombuffer(row, np.uint8)
        slots[request.slot, : len(data)] = data
        sizes[request.slot] = 0 if row is None else len(data)
        self._done.cropping += cropped - began
        self._done.pairing += time.perf_counter() - cropped
