"""The decoding processes, as the process with the network sees them.  pixels -> [crops] -> features

A process that ends or hangs is replaced, and does again what the old one had not done. A frame at which that happens
twice costs its rows, and those of the rest of its video where that can only be decoded in order.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Final

from pipeline.errors import PipelineError
from pipeline.features.engine.worker import Done, SharedCrops, Task, decode
from pipeline.features.streams.base import ByteStream
from pipeline.processes import MEMORY, Process, how_it_ended

AHEAD: Final = 2  # tasks that a process has been given: one to do, and one to go on with
TRIALS: Final = 2  # processes that may end at a frame
FRUITLESS: Final = 4  # processes that may end while they start, or while they compare a video's pixels
QUIET: Final = 300.0  # s that a process may take to start or to compare a video's pixels, which shows no progress

VIDEO_THREADS: Final = "OPENCV_FFMPEG_THREADS"  # of one video's decoder: cores that no process has, if there are any

KINDS: Final = {  # of `pipeline.processes.Failed` -> of a frame's problem
    "reader_timeout": "decoder_hung",
    "reader_crashed": "decoder_crashed",
    "reader_memory": "decoder_memory",
}
AFTER: Final = "after_decoder_failure"  # frames of a video after one at which decoding fails


@dataclass(slots=True, eq=False)
class _Worker:
    process: Process
    given: deque[Task] = field(default_factory=deque)


class Decoders:
    """`n` processes that fill the slots of `memory`, until the `with` block is left.

    `timeout`: seconds without progress after which a process is replaced.
    """

    def __init__(self, n: int, memory: SharedCrops, *, timeout: float, encoder: ByteStream | None = None) -> None:
        self._n, self._memory, self._timeout, self._encoder = n, memory, timeout, encoder
        self._workers: list[_Worker] = []
        self._ended: Counter[tuple[int, int]] = Counter()  # (job, frame; -1 before the first) -> processes
        self._lost: dict[int, tuple[str, str]] = {}  # job in order -> why nothing after that frame can be decoded
        self._failed: dict[int, dict[int, tuple[str, str]]] = {}  # task -> frames that are given up, and why

    def __enter__(self) -> Decoders:
        self._workers += [self._start() for _ in range(self._n)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.pipe.close()  # so that all of them end at the same time
        for worker in self._workers:
            worker.process.kill()

    @property
    def connections(self) -> list[Connection[Any, Any]]:
        """What becomes readable when there are `answers`."""
        return [worker.process.pipe for worker in self._workers]

    @property
    def outstanding(self) -> int:
        """Tasks that have been given and not been answered."""
        return sum(len(worker.given) for worker in self._workers)

    def has_room(self, number: int) -> bool:
        """Whether a process may be given a task now."""
        return len(self._workers[number].given) < AHEAD

    def give(self, number: int, task: Task) -> None:
        """Hand a task to a process."""
        worker = self._workers[number]
        if not worker.given:
            worker.process.heard()
        worker.given.append(task)
        with contextlib.suppress(ConnectionError):  # it has ended, which is found when its pipe is read
            worker.process.pipe.send(task)

    def answers(self, ready: Sequence[object]) -> Iterator[Done]:
        """What has been done, of processes whose pipes are ready. Raises what a process raised.

        PipelineError when processes end again and again before they have decoded anything.
        """
        for number, worker in enumerate(self._workers):
            if worker.process.pipe not in ready:
                continue
            try:
                answer = worker.process.pipe.recv()
            except (EOFError, OSError):  # also in the middle of an answer
                yield from self._replace(number, hung=False)
                continue
            if isinstance(answer, Exception):
                raise answer
            worker.process.heard()
            task = worker.given.popleft()
            for where in ((-1, -1), (task.job, -1)):
                self._ended.pop(where, None)
            answer.problems |= self._failed.pop(task.number, {})
            yield answer

    def hung(self) -> Iterator[Done]:
        """Replace processes that make no progress; as `answers` where a task has no frame left after that."""
        for number, worker in enumerate(self._workers):
            if worker.given and worker.process.silence() > self._patience(worker.process.at):
                yield from self._replace(number, hung=True)

    def is_lost(self, job: int) -> bool:
        """Whether the rest of a job cannot be decoded."""
        return job in self._lost

    def lost(self, job: int) -> tuple[str, str]:
        """(kind, message): why."""
        return self._lost[job]

    def _patience(self, at: int) -> float:
        return self._timeout if at >= 0 else max(self._timeout, QUIET)

    def _start(self) -> _Worker:
        arguments = (decode, self._encoder, self._memory.n_slots)
        threads = {VIDEO_THREADS: str(max(1, cores() // self._n))}
        return _Worker(Process(*arguments, fds=[self._memory.fd], env=threads, memory=MEMORY))

    def _replace(self, number: int, *, hung: bool) -> Iterator[Done]:
        """Start a new process for one that has ended or hangs; it is given what the old one had not done."""
        old = self._workers[number]
        at, has_begun, given = old.process.at, old.process.pulse > 0, list(old.given)
        code = old.process.kill()
        kind, message = how_it_ended(code, timeout=self._patience(at) if hung else None)
        where = (given[0].job, at) if given and has_begun else (-1, -1)
        self._ended[where] += 1
        if at < 0 and self._ended[where] == FRUITLESS:
            del self._workers[number]  # it has been ended
            doing = f"compared the pixels of {given[0].pixels.name}" if given and has_begun else "started"
            raise PipelineError(
                f"{FRUITLESS} decoding processes, one after the other, {message} while they {doing}: what they wrote "
                "is above. Can the storage of the videos be read? Finished shards are kept: run it again then."
            )
        self._workers[number] = self._start()
        if at >= 0 and given and self._ended[where] == TRIALS:
            given = self._give_up(given, at, KINDS[kind], message)
        for task in given:
            if task.targets:
                self.give(number, task)
            else:
                yield Done(task.number, problems=self._failed.pop(task.number))

    def _give_up(self, given: Sequence[Task], frame: int, kind: str, message: str) -> list[Task]:
        """The same tasks, without the frame at which processes ended, and without those that only come after it."""
        first, left = given[0], []
        why = f"{first.pixels.name}, frame {frame}: {TRIALS} processes that decoded it ended, the last one {message}"
        if first.pixels.in_order:
            self._lost[first.job] = (AFTER, why)
        for task in given:
            lost = {
                target.frame: (kind if target.frame == frame else AFTER, why)
                for target in task.targets
                if task.job == first.job and (target.frame == frame or (first.pixels.in_order and target.frame > frame))
            }
            self._failed.setdefault(task.number, {}).update(lost)
            left.append(replace(task, targets=tuple(one for one in task.targets if one.frame not in lost)))
        return left


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
