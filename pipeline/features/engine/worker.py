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
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CROP_SIZE
from pipeline.errors import PipelineError
from pipeline.features.pixel_sources import Decoded, Pixels, Target
from pipeline.features.streams.base import ByteStream
from pipeline.processes import alive, sendable

SLOT_BYTES: Final = CROP_SIZE * CROP_SIZE * 3


class SharedCrops:
    """`slots` (n_slots, 224, 224, 3) and `sizes` (n_slots,) in memory that several processes map.

    A slot holds a crop or, of a stream of bytes, as many of them as its size. The memory goes with its last user.
    """

    def __init__(self, fd: int, n_slots: int) -> None:
        self.fd, self.n_slots = fd, n_slots
        memory = mmap.mmap(fd, n_slots * (SLOT_BYTES + 8))
        pixels: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, n_slots * SLOT_BYTES)
        self.slots = pixels.reshape(n_slots, CROP_SIZE, CROP_SIZE, 3)
        self.sizes: NDArray[np.int64] = np.frombuffer(memory, np.int64, n_slots, n_slots * SLOT_BYTES)

    @classmethod
    @contextlib.contextmanager
    def new(cls, n_slots: int) -> Iterator[SharedCrops]:
        """Memory of this process, to be handed to others by its `fd` inside the block."""
        fd = os.memfd_create("crops")
        try:
            os.ftruncate(fd, n_slots * (SLOT_BYTES + 8))
            yield cls(fd, n_slots)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Task:
    """A few frames of one job. Tasks of a job go to one process, in order; another one can go on at any of them."""

    number: int
    job: int
    pixels: Pixels
    targets: tuple[Target, ...]
    first: bool = False  # its pixels are compared with those that were converted
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)  # of frames that were given up: see Done


@dataclass(slots=True)
class Done:
    """A task's slots are filled, but for those of frames with a problem."""

    task: int
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)  # frame -> (kind, message)
    frames: int = 0  # decoded
    decoding: float = 0.0  # s
    cropping: float = 0.0  # s


def decode(pipe: Connection[Any, Any], encoder: ByteStream | None, n_slots: int, *, fds: list[int]) -> None:
    """The main function of a decoding process: answer each `Task` with `Done`, until the pipe is closed.

    `encoder`: what is stored of a crop; None: the crop itself. An exception that is no frame's fault is the answer,
    too, with its traceback as a note.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    with contextlib.suppress(SystemExit):  # the pipe is closed
        _Worker(pipe, SharedCrops(fds[0], n_slots), encoder).run()


class _Worker:
    def __init__(self, pipe: Connection[Any, Any], memory: SharedCrops, encoder: ByteStream | None) -> None:
        self._pipe, self._memory, self._encoder = pipe, memory, encoder
        self._next: Task | None = None  # of another job than the one before
        self._done = Done(-1)
        self._target: Target
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
        alive(task.targets[0].frame)  # opening a video may hang, too
        decoded = task.pixels.decode(self._targets(task), alive)
        while True:
            began, self._waited = time.perf_counter(), 0.0
            one = next(decoded, None)
            if one is None:
                return
            self._done.decoding += time.perf_counter() - began - self._waited
            began = time.perf_counter()
            self._take(one)
            self._done.cropping += time.perf_counter() - began

    def _targets(self, task: Task) -> Iterator[Target]:
        """The frames of a job as tasks come. Taking the next one means that the one before is done."""
        job = task.job
        while task.job == job:
            self._done = Done(task.number, task.problems)
            for self._target in task.targets:
                alive(self._target.frame)
                yield self._target
            self._send(self._done)
            alive(-1)
            began = time.perf_counter()
            task = self._receive()
            self._waited = time.perf_counter() - began
        self._next = task

    def _take(self, decoded: Decoded) -> None:
        if decoded.crop is None:
            self._done.problems[self._target.frame] = (decoded.kind, decoded.problem)
            return
        self._done.frames += 1
        for person in self._target.persons:
            crop = decoded.crop(person)
            if self._encoder is None:
                self._memory.slots[person.slot] = crop
            else:
                data = self._encoded(self._encoder, crop)
                self._memory.slots[person.slot].reshape(-1)[: len(data)] = memoryview(data)
                self._memory.sizes[person.slot] = len(data)

    def _encoded(self, encoder: ByteStream, crop: NDArray[np.uint8]) -> bytes:
        try:
            data = memoryview(encoder.encode(crop)).tobytes()
        except Exception as error:
            raise PipelineError(
                f"the stream {encoder.kind!r} does not encode a crop of frame {self._target.frame}: "
                f"{type(error).__name__}: {error}. --debug shows where."
            ) from error
        if len(data) > SLOT_BYTES:
            raise PipelineError(
                f"the stream {encoder.kind!r} has {len(data)} bytes of one crop; at most {SLOT_BYTES} are allowed"
            )
        return data

    def _receive(self) -> Task:
        try:
            task: Task = self._pipe.recv()
        except (EOFError, ConnectionError):
            sys.exit()  # what no decoder catches
        return task

    def _send(self, message: Done | Exception) -> None:
        with contextlib.suppress(ConnectionError):  # closed, as the next `_receive` finds
            self._pipe.send(message)
