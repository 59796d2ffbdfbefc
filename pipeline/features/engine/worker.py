"""What a decoding process does: fill slots of the shared memory with crops.  pixels -> [crops] -> features

It is a process of its own, not a thread: a decoder that hangs or crashes costs a frame, not the extraction; and every
picture takes some Python, for which threads would wait for each other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.computing import row_of
from pipeline.features.pixel_sources import Cut, Decoded, Person, Pixels, Target, labels_in
from pipeline.features.streams.base import Stream
from pipeline.files.pixels.frames import Image
from pipeline.processes import alive, sendable


class SharedSlots:
    """`slots` (n_slots, slot_bytes) uint8 and `sizes` (n_slots,) in memory that several processes map.

    A slot holds a crop; or what a stream makes of crops where these are decoded, float32 numbers or as many bytes as
    its size, which is 0 where nothing is known. The memory goes with its last user.
    """

    def __init__(self, fd: int, n_slots: int, slot_bytes: int) -> None:
        self.fd, self.n_slots, self.slot_bytes = fd, n_slots, slot_bytes
        pixels = -(-n_slots * slot_bytes // 8) * 8
        memory = mmap.mmap(fd, pixels + n_slots * 8)
        slots: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, n_slots * slot_bytes)
        self.slots = slots.reshape(n_slots, slot_bytes)
        self.sizes: NDArray[np.int64] = np.frombuffer(memory, np.int64, n_slots, pixels)

    @classmethod
    @contextlib.contextmanager
    def new(cls, n_slots: int, slot_bytes: int) -> Iterator[SharedSlots]:
        """Memory of this process, to be handed to others by its `fd` inside the block."""
        fd = os.memfd_create("crops")
        try:
            os.ftruncate(fd, n_slots * (8 + slot_bytes) + 8)
            yield cls(fd, n_slots, slot_bytes)
        finally:
            os.close(fd)


class Filling(NamedTuple):
    """What a decoding process fills a stream's slots with."""

    size: int  # px, of the crop
    stream: Stream | None  # what computes a row of its crops; None: the crop itself is the filling
    n_slots: int
    slot_bytes: int


@dataclass(frozen=True, slots=True)
class Task:
    """A few frames of one job. Tasks of a job go to one process, in order; another one can go on at any of them."""

    number: int
    job: int
    pixels: Pixels
    targets: tuple[Target, ...]
    before: tuple[Target, ...] = ()  # earlier frames, for a process that begins here: previous ones of rows
    first: bool = False  # its pixels are compared with those that were converted
    problems: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)  # of rows given up: see Done


@dataclass(slots=True)
class Done:
    """A task's slots are filled, but for those with a problem."""

    task: int
    problems: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)  # (output, slot) -> (kind, message)
    frames: int = 0  # decoded
    decoding: float = 0.0  # s
    cropping: float = 0.0  # s
    pairing: float = 0.0  # s


def decode(pipe: Connection[Any, Any], fillings: Sequence[Filling], *, fds: list[int]) -> None:
    """The main function of a decoding process: answer each `Task` with `Done`, until the pipe is closed.

    `fillings`: by output, as in `Person`. An exception that is no frame's fault is the answer, too, with its traceback
    as a note.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    with contextlib.suppress(SystemExit):  # the pipe is closed
        memories = [SharedSlots(fd, one.n_slots, one.slot_bytes) for fd, one in zip(fds, fillings, strict=True)]
        _Worker(pipe, memories, fillings).run()


class _Worker:
    def __init__(
        self, pipe: Connection[Any, Any], memories: Sequence[SharedSlots], fillings: Sequence[Filling]
    ) -> None:
        self._pipe, self._memories, self._fillings = pipe, memories, fillings
        self._next: Task | None = None  # of another job than the one before
        self._done = Done(-1)
        self._target: Target
        self._kept: dict[int, Decoded] = {}  # frames that are the previous ones of rows to come
        self._waited = 0.0  # s for the next task, since the last frame

    def run(self) -> None:
        while True:
            task, self._next = self._next or self._receive(), None
            try:
                self._job(task)
            except MemoryError:
                raise
            except Exception as error:
                self._send(sendable(error, f"In a process that decodes {task.pixels.name}"))

    def _job(self, task: Task) -> None:
        """One task, and those of the same job that follow."""
        if task.first:
            alive(-1)  # it has started
            task.pixels.check()
        alive((task.before or task.targets)[0].frame)  # opening a video may hang, too
        self._kept = {}
        decoded = task.pixels.decode(self._targets(task), alive)
        while True:
            began, self._waited = time.perf_counter(), 0.0
            one = next(decoded, None)
            if one is None:
                return
            self._done.decoding += time.perf_counter() - began - self._waited
            self._take(one)

    def _targets(self, task: Task) -> Iterator[Target]:
        """The frames of a job as tasks come. Taking the next one means that the one before is done."""
        job, before = task.job, task.before
        while task.job == job:
            self._done = Done(task.number, task.problems)
            for self._target in before + task.targets:
                alive(self._target.frame)
                yield self._target
            before = ()
            self._send(self._done)
            alive(-1)
            began = time.perf_counter()
            task = self._receive()
            self._waited = time.perf_counter() - began
        self._next = task

    def _take(self, decoded: Decoded) -> None:
        if self._target.keep_from <= self._target.frame:
            self._kept[self._target.frame] = decoded
        if decoded.crop is None:
            for person in self._target.persons:
                self._done.problems[person.output, person.slot] = (decoded.kind, decoded.problem)
        else:
            self._done.frames += 1
            for person in self._target.persons:
                self._fill(person, decoded.crop)
        self._kept = {frame: one for frame, one in self._kept.items() if frame >= self._target.keep_from}

    def _fill(self, person: Person, crop_of: Callable[[Cut, int], Image]) -> None:
        """Fill a row's slot."""
        size, stream, *_ = self._fillings[person.output]
        began, crops = time.perf_counter(), []
        if stream is not None and stream.reads.crops > 1:
            previous = self._kept.get(person.previous)
            if previous is None or previous.crop is None:
                why = previous.problem if previous is not None else "its decoder crashed"
                message = f"frame {self._target.frame} is not compared with {person.previous}: {why}"
                self._done.problems[person.output, person.slot] = ("previous_undecodable", message)
                return
            crops.append(previous.crop(person.cut, size))
        crops.append(crop_of(person.cut, size))
        slots, sizes = self._memories[person.output].slots, self._memories[person.output].sizes
        if stream is None:
            slots[person.slot] = crops[0].reshape(-1)
            self._done.cropping += time.perf_counter() - began
            return
        cropped = time.perf_counter()
        row = row_of(stream, crops, labels_in(person.labels or {}, person.cut), f"frame {self._target.frame}")
        data = np.zeros(slots.shape[1], np.uint8) if row is None else np.frombuffer(row, np.uint8)
        slots[person.slot, : len(data)] = data
        sizes[person.slot] = 0 if row is None else len(data)
        self._done.cropping += cropped - began
        self._done.pairing += time.perf_counter() - cropped

    def _receive(self) -> Task:
        try:
            task: Task = self._pipe.recv()
        except (EOFError, ConnectionError):
            sys.exit()  # what no decoder catches
        return task

    def _send(self, message: Done | Exception) -> None:
        with contextlib.suppress(ConnectionError):  # closed, as the next `_receive` finds
            self._pipe.send(message)
