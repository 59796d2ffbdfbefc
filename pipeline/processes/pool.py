"""The pool: tasks for supervised processes, and what became of them.  raw -> [tracks, crops] -> features

A job is an iterator of tasks. One process does all tasks of a job, in order, so it may keep what they share: the video
that is open, a file of labels, a network. Tasks are taken from their job as its process has room for them, a few
ahead; results are received by `Pool.poll`, which any loop can call beside what else it does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from pipeline.errors import PipelineError
from pipeline.processes import IDLE, LOOK, MEMORY, TIMEOUT, Failed, alive, how_it_ended, sendable
from pipeline.processes.server import Process

T = TypeVar("T")
R = TypeVar("R")

START: Final = 300.0  # s that a process may take to start, or a task to prepare
ROOM: Final = 1 << 16  # bytes that a pipe takes while its reader is busy
TRIALS: Final = 2  # processes that may end at the same place of a task; the last has done nothing before
FRUITLESS: Final = 4  # processes in a row that may end without having begun with anything
VIDEO_THREADS: Final = "OPENCV_FFMPEG_THREADS"  # environment: threads of one video's decoder

_NO_MORE: Final = object()


class Result(NamedTuple, Generic[T, R]):
    """What became of a task."""

    task: T
    outcome: bytes | Failed  # pickled, or why processes ended at it
    seconds: float = 0.0  # that it took

    def get(self) -> R | Failed:
        """What the work returned. Raises what it raised, with its traceback there as a note."""
        if isinstance(self.outcome, Failed):
            return self.outcome
        value, error = pickle.loads(self.outcome)  # noqa: S301 - of our own process
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    tasks: Iterator[T | None]
    skipped: dict[int, Failed] = field(default_factory=dict)  # places at which processes ended


@dataclass(slots=True, eq=False)
class _Submitted(Generic[T]):
    """A task that has been taken from its job."""

    job: _Job[T]
    task: T
    ended: Counter[int] = field(default_factory=Counter)  # place -> processes


class _Worker(Generic[T]):
    """What one process does, the one after it when it ends, and so on."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.process: Process | None = None  # started with its first task
        self.job: _Job[T] | None = None  # that has more tasks
        self.again: deque[_Submitted[T]] = deque()  # submitted to a process that has ended
        self.given: deque[_Submitted[T]] = deque()  # without a result
        self.sent = 0  # bytes of them


class Pool(Generic[T, R]):
    """Supervised processes, one for each of `works`, in a `with` block, after which none of them is left.

    Args:
        works: what a process does: `work(task)` of each task. It is pickled once a process, so it may keep a state;
            tasks and results are pickled, too.
        jobs: iterators of tasks. An iterator, or `jobs`, gives None for: not now, ask again.
        ahead: tasks that a process is given at once: one to do, others to go on with.
        timeout: s without progress after which a process is ended.
        memory: bytes that a process may take beyond what it starts with; None: no limit.
        skips: call `work(task, skipped)`. A task is done again without the places (`alive`) at which processes ended.
        shared: sizes in bytes of memory that this process, as `Pool.shared`, and all others map. It is given to
            `work.share(*memory)` before the first task, and is gone with its last user.
        env: environment variables of the processes.
        preload: see `Process`.

    A task at which TRIALS processes ended, one after the other, at the same place, becomes `Failed`; the one that a
    process was doing when it ended is done again by a fresh one, and so are those that it had not begun. Processes are
    started one after the other, while there is more to do than they can take.
    """

    def __init__(
        self,
        works: Sequence[Callable[..., R]],
        jobs: Iterator[Iterable[T | None] | None],
        *,
        ahead: int = 2,
        timeout: float = TIMEOUT,
        memory: int | None = MEMORY,
        skips: bool = False,
        shared: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        preload: Callable[[], object] | None = None,
    ) -> None:
        self.ahead, self._jobs, self._timeout, self._skips = ahead, jobs, timeout, skips
        self._options: Mapping[str, Any] = {"memory": memory, "env": env, "preload": preload}
        self._workers: list[_Worker[T]] = [_Worker(work) for work in works]
        self._has_more_jobs, self._fruitless = True, 0
        self._fds = [os.memfd_create("shared") for _ in shared]
        for fd, size in zip(self._fds, shared, strict=True):
            os.ftruncate(fd, size)
        self.shared = [mmap.mmap(fd, size) for fd, size in zip(self._fds, shared, strict=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        started = [worker.process for worker in self._workers if worker.process is not None]
        for process in started:  # so that all of them end at the same time
            process.pipe.close()
        for process in started:
            process.kill()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    @property
    def is_idle(self) -> bool:
        """Whether all tasks that were taken from their jobs have their result."""
        return not any(worker.given or worker.again for worker in self._workers)

    @property
    def has_more(self) -> bool:
        """Whether a job may have more tasks."""
        return self._has_more_jobs or any(worker.job is not None for worker in self._workers)

    def submit(self) -> None:
        """Take tasks from jobs while processes have room."""
        while sum(self._submit(worker) for worker in self._workers):
            pass

    def poll(self, patience: float = LOOK) -> list[Result[T, R]]:
        """Results, waited for `patience` s at most. Processes that have ended or hang are replaced.

        Raises PipelineError when FRUITLESS processes, one after the other, end before they have begun with anything.
        """
        self.submit()
        busy = [(worker, worker.process) for worker in self._workers if worker.process is not None and worker.given]
        is_starting = len(busy) < len(self._workers) and not all(process.has_begun for _, process in busy)
        ready = wait([process.pipe for _, process in busy], min(patience, 0.01) if is_starting else patience)
        results = [result for worker, process in busy for result in self._received(worker, process, ready)]
        self.submit()
        return results

    def _submit(self, worker: _Worker[T]) -> bool:
        """Give a worker one task more. Whether it has room, and there is one."""
        if len(worker.given) >= self.ahead:
            return False
        if worker.process is None and not all(w.process.has_begun for w in self._workers if w.process is not None):
            return False
        submitted = worker.again.popleft() if worker.again else self._next(worker)
        if submitted is None:
            return False
        arguments = (submitted.task, submitted.job.skipped) if self._skips else (submitted.task,)
        message = pickle.dumps(arguments, pickle.HIGHEST_PROTOCOL)
        if worker.given and worker.sent + len(message) > ROOM:  # it may be sending, too: both would wait for ever
            worker.again.appendleft(submitted)
            return False
        if worker.process is None:
            worker.process = Process(_serve, worker.work, fds=self._fds, **self._options)
        if not worker.given:
            worker.process.heard()
            worker.sent = 0
        worker.given.append(submitted)
        worker.sent += len(message)
        with contextlib.suppress(ConnectionError):  # it has ended, which `poll` finds
            worker.process.pipe.send_bytes(message)
        return True

    def _next(self, worker: _Worker[T]) -> _Submitted[T] | None:
        """The next task of a worker's job, or of the next job."""
        while True:
            if worker.job is None:
                tasks = next(self._jobs, _NO_MORE) if self._has_more_jobs else _NO_MORE
                self._has_more_jobs = tasks is not _NO_MORE
                if tasks is None or tasks is _NO_MORE:
                    return None
                worker.job = _Job(iter(tasks))  # type: ignore[call-overload]
            task = next(worker.job.tasks, _NO_MORE)
            if task is not _NO_MORE:
                return None if task is None else _Submitted(worker.job, task)  # type: ignore[arg-type]
            worker.job = None

    def _received(self, worker: _Worker[T], process: Process, ready: Sequence[object]) -> Iterator[Result[T, R]]:
        """What a process has sent; where it has ended or hangs, what becomes of its tasks."""
        if process.pipe not in ready:
            patience = self._timeout if process.place >= 0 else max(self._timeout, START)
            if process.silence() > patience:
                yield from self._ended(worker, process, how_it_ended(process.kill(), timeout=patience))
            return
        try:
            while worker.given:
                seconds, outcome = process.pipe.recv()
                process.heard()
                self._fruitless = 0
                yield Result(worker.given.popleft().task, outcome, seconds)
                if not process.pipe.poll():
                    return
        except (EOFError, OSError):  # also in the midst of a result
            yield from self._ended(worker, process, how_it_ended(process.kill()))

    def _ended(self, worker: _Worker[T], process: Process, failed: Failed) -> Iterator[Result[T, R]]:
        """Let the next process go on with what one has not done, but for what processes end at."""
        worker.again.extendleft(reversed(worker.given))
        worker.given.clear()
        worker.process = None
        place = process.place
        if place == IDLE:
            self._fruitless += 1
            if self._fruitless == FRUITLESS:
                raise PipelineError(
                    f"processes that read files cannot start: the last one {failed.message}. What it wrote is above. "
                    "What is finished is kept: run it again when that is repaired."
                )
            return
        current = worker.again[0]
        where = place if self._skips else 0
        current.ended[where] += 1
        if current.ended[where] == TRIALS:
            if self._skips and place >= 0:
                current.job.skipped[place] = failed
            else:
                worker.again.popleft()
                yield Result(current.task, failed)


def _serve(pipe: Connection[Any, Any], fds: Sequence[int], work: Callable[..., Any]) -> None:
    """A process of a pool: send each task's result, until the parent closes the pipe."""
    if fds:
        work.share(*(mmap.mmap(fd, os.fstat(fd).st_size) for fd in fds))  # type: ignore[attr-defined]
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            arguments = pickle.loads(pipe.recv_bytes())  # noqa: S301 - the parent's
            alive(0)
            began = time.perf_counter()
            try:
                outcome = pickle.dumps((work(*arguments), None), pickle.HIGHEST_PROTOCOL)
            except MemoryError:
                raise
            except Exception as error:
                outcome = pickle.dumps((None, sendable(error, "In a process of its own")))
            pipe.send((time.perf_counter() - began, outcome))
            alive(IDLE)
