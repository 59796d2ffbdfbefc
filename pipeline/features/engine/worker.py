"""One decoding process: `python -m pipeline.features.engine.worker`, started by `decoders`.  pixels -> [crops]

It is a process of its own, not a thread, since a decoder that hangs or crashes can then be ended without losing more
than a frame; and since every picture costs some Python, which in threads would have to take turns.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final

import cv2

from pipeline.errors import PipelineError
from pipeline.features.engine.memory import SLOT_BYTES, SharedCrops
from pipeline.features.engine.pieces import Done, Failed, Person, Piece, Rest, Shown, Wanted
from pipeline.features.streams.base import ByteStream
from pipeline.pixels.frames import Image

LOOK_EVERY: Final = 1.0  # s between looks at whether the parent is still there


class _Closed(BaseException):
    """The parent wants nothing more. Nobody in between may take it for an error of their own."""


class Worker:
    """Fills slots with what it is asked for, piece after piece, until the pipe is closed."""

    def __init__(self, pipe: Connection[object, object], memory: SharedCrops, number: int) -> None:
        self._pipe, self._memory, self._pulse = pipe, memory, memory.beats[number]
        self._encoder: ByteStream | None = None
        self._next: Piece | None = None  # of another job than the one before
        self._done = Done(-1)
        self._frame: Wanted
        self._waited = 0.0  # s for the next piece, since the last frame

    def run(self) -> None:
        """Until the other end is closed."""
        try:
            while True:
                piece, self._next = self._next or self._received(), None
                self._job(piece)
        except _Closed:
            return

    def _received(self) -> Piece:
        """The next piece. What is said before it is what to make of crops. Raises _Closed when there is none."""
        patience: float | None = None
        while self._pipe.poll(patience):
            try:
                message = self._pipe.recv()
            except (EOFError, ConnectionError):
                break
            if isinstance(message, Piece):
                return message
            if isinstance(message, Rest):
                patience = message.seconds
            else:
                self._encoder = message if isinstance(message, ByteStream) else None
        raise _Closed

    def _job(self, piece: Piece) -> None:
        try:
            if piece.first:
                self._alive()  # it has started
                piece.pixels.check()
            self._at(piece.frames[0])  # opening a video may hang, too
            answers = piece.pixels.show(self._wanted(piece), self._alive)
            while True:
                began, self._waited = time.perf_counter(), 0.0
                shown = next(answers, None)
                if shown is None:
                    return
                self._done.decoding += time.perf_counter() - began - self._waited
                began = time.perf_counter()
                self._take(shown)
                self._done.cropping += time.perf_counter() - began
        except Exception as error:
            error.add_note(f"In a process that decodes {piece.pixels.name}:\n{traceback.format_exc()}")
            self._send(Failed(_sendable(error)))

    def _wanted(self, piece: Piece) -> Iterator[Wanted]:
        """The frames of a job as they are asked for. Taking the next one says that the one before is done."""
        job = piece.job
        while True:
            self._done = Done(piece.number)
            for frame in piece.frames:
                self._at(frame)
                yield frame
            self._send(self._done)
            self._pulse[1] = -1
            began = time.perf_counter()
            piece = self._received()
            self._waited = time.perf_counter() - began
            if piece.job != job:
                self._next = piece
                return

    def _send(self, message: Done | Failed) -> None:
        try:
            self._pipe.send(message)
        except ConnectionError:
            raise _Closed from None

    def _at(self, frame: Wanted) -> None:
        self._frame = frame
        self._pulse[1] = frame.frame
        self._alive()

    def _alive(self) -> None:
        self._pulse[0] += 1

    def _take(self, shown: Shown) -> None:
        if shown.crop is None:
            self._done.problems[self._frame.frame] = (shown.kind, shown.problem)
            return
        self._done.frames += 1
        for person in self._frame.persons:
            self._put(person, shown)

    def _put(self, person: Person, shown: Shown) -> None:
        assert shown.crop is not None
        crop = shown.crop(person)
        if self._encoder is None:
            self._memory.slots[person.slot] = crop
            return
        data = self._encoded(self._encoder, crop)
        self._memory.slots[person.slot].reshape(-1)[: len(data)] = memoryview(data)
        self._done.sizes[person.slot] = len(data)

    def _encoded(self, encoder: ByteStream, crop: Image) -> bytes:
        try:
            data = memoryview(encoder.encode(crop)).tobytes()
        except Exception as error:
            raise PipelineError(
                f"the stream {encoder.kind!r} does not encode a crop of frame {self._frame.frame}: "
                f"{type(error).__name__}: {error}. --debug shows where."
            ) from error
        if len(data) > SLOT_BYTES:
            raise PipelineError(f"the stream {encoder.kind!r} has {len(data)} bytes of one crop; {SLOT_BYTES} is most")
        return data


def _sendable(error: Exception) -> Exception:
    """The error, or what it says where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled in the line before
    except Exception:
        return PipelineError("".join(traceback.format_exception(error)))
    return error


def end_with(parent: int) -> None:
    """End this process soon after its parent was killed: other children may hold the pipe's end open."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def main(arguments: list[str]) -> None:
    """`pipe`, `memory` (file descriptors), slots, processes, this one's number, the parent's process id."""
    pipe, memory, n_slots, n_workers, number, parent = map(int, arguments)
    end_with(parent)
    cv2.setNumThreads(1)  # the processes are the parallelism
    Worker(Connection(pipe), SharedCrops(memory, n_slots, n_workers), number).run()


if __name__ == "__main__":
    main(sys.argv[1:])
