"""A pool of supervised processes.  raw -> [tracks, crops] -> features

A caller gives jobs to a `Pool`, and calls `Pool.poll` in a loop, which sends tasks to processes,
receives results, and replaces processes that have ended or hang. Nothing else runs in this process:
no thread, and no queue that could fill.

Words:
    work: the function that a process calls with every task. It may keep a state.
    task: its argument, pickled. A result belongs to one task.
    job: an iterator of tasks. One process runs all tasks of a job, in order, so that it can keep an
        open video, a file of labels or a network.
    place: where in its task a process is, such as the number of a frame, as the work shows it by
        `alive`; PREPARING and NO_TASK are below 0. It tells what a process ended at.
    worker: a seat of the pool, in which one process after the other sits.

What becomes of the tasks of a process that ended is in `Pool._replace_process` and
`_Submitted.gives_up`.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import pickle
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from pipeline.errors import PipelineError
from pipeline.processes import (
    COUNTED,
    MEMORY,
    NO_TASK,
    POLL_INTERVAL,
    PREPARING,
    TIMEOUT,
    Failed,
    alive,
    show_done,
)
from pipeline.processes.server import Process

T = TypeVar("T")
R = TypeVar("R")

START: Final = 300.0  # s: limit for the start of a process, or the preparation of a task
ROOM: Final = 1 << 16  # bytes of a pipe's buffer, which fills while its reader is busy
# Processes that end at one place of a task before it is given up. The last one is a fresh process,
# so that no earlier task is to blame.
TRIALS: Final = 2
# Processes in a row that end before they start a task: then the pool gives up.
FRUITLESS: Final = 4


class _Outcome(NamedTuple):
    """What the work returned or raised for a task."""

    value: Any = None
    error: Exception | None = None


class Result(NamedTuple, Generic[T, R]):
    """The result of a task."""

    task: T
    outcome: bytes | Failed  # an `_Outcome`, pickled; or why processes ended at the task
    seconds: float = 0.0  # run time
    worker: int = 0  # index in the pool's `works`

    def get(self) -> R | Failed:
        """Return what the work returned for the task, or why processes ended at it. Raise what the
        work raised, with the process's traceback as a note.
        """
        if isinstance(self.outcome, Failed):
            return self.outcome
        outcome: _Outcome = pickle.loads(self.outcome)  # noqa: S301 - of our own process
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[no-any-return]


@dataclass(slots=True, eq=False)
class _OpenJob(Generic[T]):
    """A job that a worker has begun, and what is known about all of its tasks."""

    tasks: Iterator[T | None]
    # place -> how the last of TRIALS processes ended there; tasks are to leave it out (`skips`)
    skipped: dict[int, Failed] = field(default_factory=dict)


class _Submitted(Generic[T]):
    """A task that was taken from its job and has no result yet. It is given up after TRIALS
    processes ended at it, or one was ended because it hung.
    """

    def __init__(self, job: _OpenJob[T], task: T) -> None:
        self.job = job
        self.task = task
        self._n_ended = Counter[int]()  # place -> number of processes that ended there

    def arguments(self) -> tuple[Any, ...]:
        """What the work is called with."""
        return (self.task,)

    def gives_up(self, place: int, failed: Failed) -> bool:
        """Count a process that ended at a place. Returns whether no other one is to try again."""
        self._n_ended[place] += 1
        # a second trial would take the whole time limit again
        return failed.reason == "reader_timeout" or self._n_ended.total() == TRIALS


class _SkippingTask(_Submitted[T]):
    """A task that is repeated without a place after TRIALS processes ended there."""

    def arguments(self) -> tuple[Any, ...]:
        return (self.task, self.job.skipped)

    def gives_up(self, place: int, failed: Failed) -> bool:
        self._n_ended[place] += 1
        is_hopeless = self._n_ended[place] >= TRIALS
        if is_hopeless and place != PREPARING:
            self.job.skipped[place] = failed
        return is_hopeless and place == PREPARING


@dataclass(slots=True, eq=False)
class _Worker(Generic[T]):
    """One seat of the pool: its process, and its job and tasks, which stay when the process ends
    and the next one takes the seat.
    """

    number: int
    work: Callable[..., Any]
    process: Process | None = None  # None: started with the next task
    job: _OpenJob[T] | None = None  # None: take the next job
    # to be sent before other tasks: their process ended, or had no room
    pending: deque[_Submitted[T]] = field(default_factory=deque)
    # sent to the process, which works at the first one
    running: deque[_Submitted[T]] = field(default_factory=deque)
    # bytes that were sent since the process was last without tasks: at least those in its pipe
    n_sent: int = 0


class Pool(Generic[T, R]):
    """Supervised processes, one for each of `works`. They end with the `with` block.

    Args:
        works: functions, each of which is called as `work(task)` in a process of its own.
        jobs: iterators of tasks. If one of them, or `jobs` itself, gives None, there is nothing to
            do now, and it is asked again later.
        ahead: most tasks that are sent to a process and have no result.
        timeout: s without progress (`alive`) after which a process is ended.
        memory: limit in bytes beyond what a process starts with; None: no limit.
        skips: call `work(task, skipped)` instead, where the keys of `skipped` are places at which
            processes have ended. The work leaves these out, and so can finish the task.
        shared: sizes in bytes of memory that all processes map, this one as `Pool.shared`.
            `work.share(*memory)` is called before the first task.
        preload: see `Process`.
        on_loss: called with the number of a worker whose process has ended, and why.

    When a process ends, a fresh one repeats its unfinished tasks. With `skips`, a place is left out
    after TRIALS processes ended there. Without, the result of a task is `Failed` after TRIALS
    processes ended at it, or one was ended because it hung.
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
        preload: Callable[[], object] | None = None,
        on_loss: Callable[[int, Failed], None] = lambda *_: None,
    ) -> None:
        self.ahead = ahead
        self._on_loss = on_loss
        self._jobs = jobs
        self._timeout = timeout
        self._task_type: type[_Submitted[T]] = _SkippingTask if skips else _Submitted
        self._workers = [_Worker[T](number, work) for number, work in enumerate(works)]
        self._has_more_jobs = True  # `jobs` has not ended
        self._fruitless = 0  # processes in a row that ended before they started a task
        self._fds = [os.memfd_create("shared") for _ in shared]
        for fd, size in zip(self._fds, shared, strict=True):
            os.ftruncate(fd, size)
        self._start_process = functools.partial(
            Process, _serve, preload=preload, fds=self._fds, memory=memory
        )
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
        """Whether every task that was taken from a job has a result."""
        return not any(worker.running or worker.pending for worker in self._workers)

    @property
    def has_more(self) -> bool:
        """Whether a job may have more tasks."""
        return self._has_more_jobs or any(worker.job is not None for worker in self._workers)

    def done(self, task: T) -> str:
        """How much the process that works at a task has done of it (`Pulse.done`); "" if none
        works at it, or it does not tell.
        """
        for worker in self._workers:
            if worker.process is not None and worker.running and worker.running[0].task == task:
                return worker.process.done
        return ""

    def submit(self) -> None:
        """Send tasks to all processes that have room for more, one to each in turn."""
        while sum(map(self._send_task, self._workers)):
            pass

    def poll(self, patience: float = POLL_INTERVAL) -> list[Result[T, R]]:
        """Send tasks, wait at most `patience` s for results, and return those that have come.
        Replaces processes that have ended or hang.

        Raises PipelineError if FRUITLESS processes in a row end before they start a task.
        """
        self.submit()
        busy = [(w, w.process) for w in self._workers if w.process is not None and w.running]
        ready = wait([process.pipe for _, process in busy], patience)
        results = list[Result[T, R]]()
        for worker, process in busy:
            results += self._receive(worker, process, ready)
        self.submit()
        return results

    def _send_task(self, worker: _Worker[T]) -> bool:
        """Send one more task to a worker's process, and start the process if there is none. Returns
        False if nothing was sent: the process has no room, or there is no task now.
        """
        if len(worker.running) >= self.ahead:
            return False
        submitted = self._take_task(worker)
        if submitted is None:
            return False
        message = pickle.dumps(submitted.arguments(), pickle.HIGHEST_PROTOCOL)
        # A busy process does not read its pipe. Sending more than the pipe holds would wait for it,
        # while it waits for this process to read a large result: a deadlock.
        fits = worker.n_sent + len(message) <= ROOM
        if worker.running and not fits:
            worker.pending.appendleft(submitted)
            return False

        if worker.process is None:
            worker.process = self._start_process(worker.work)
        if not worker.running:
            worker.process.reset_silence()
            worker.n_sent = 0
        worker.running.append(submitted)
        worker.n_sent += len(message)
        with contextlib.suppress(ConnectionError):  # it has ended: `poll` replaces it
            worker.process.pipe.send_bytes(message)
        return True

    def _take_task(self, worker: _Worker[T]) -> _Submitted[T] | None:
        """Take a worker's next task: one that is to be sent again, else one of the worker's job,
        else one of the next job. Returns None if there is none now.
        """
        if worker.pending:
            return worker.pending.popleft()
        while True:
            worker.job = worker.job or self._open_job()
            if worker.job is None:
                return None
            for task in worker.job.tasks:
                return None if task is None else self._task_type(worker.job, task)
            worker.job = None  # all of its tasks have been taken

    def _open_job(self) -> _OpenJob[T] | None:
        """Open the next job. Returns None if there is none now, or if there are no more (then
        `_has_more_jobs` becomes False).
        """
        for tasks in self._jobs:
            return None if tasks is None else _OpenJob(iter(tasks))
        self._has_more_jobs = False
        return None

    def _receive(
        self, worker: _Worker[T], process: Process, ready: Sequence[object]
    ) -> Iterator[Result[T, R]]:
        """Yield the results that a process has sent. Replaces it if it has ended or hangs.

        ready: the pipes that have a result, or whose process has ended.
        """
        if process.pipe not in ready:
            patience = self._timeout
            if process.place in (PREPARING, NO_TASK):  # or it starts
                patience = max(patience, START)
            if process.silence() > patience:
                process.kill()
                hung = Failed("reader_timeout", f"made no progress for {patience:g} s")
                yield from self._replace_process(worker, process, hung)
            return
        try:
            while worker.running and process.pipe.poll():
                seconds = process.pipe.recv()
                outcome = process.pipe.recv_bytes()
                process.reset_silence()
                self._fruitless = 0
                yield Result(worker.running.popleft().task, outcome, seconds, worker.number)
        except (EOFError, OSError):  # also in the middle of a result
            yield from self._replace_process(worker, process, process.kill())

    def _replace_process(
        self, worker: _Worker[T], process: Process, failed: Failed
    ) -> Iterator[Result[T, R]]:
        """Keep the tasks of an ended process for the next one. The current one may be given up
        (`_Submitted.gives_up`): then its result, `Failed`, is yielded. No task is to blame if the
        process ended without one.
        """
        self._on_loss(worker.number, failed)
        worker.pending.extendleft(reversed(worker.running))
        worker.running.clear()
        worker.process = None
        place = process.place
        if place == NO_TASK:
            self._count_fruitless(failed)
            return
        current = worker.pending[0]  # the first one that was running
        if current.gives_up(place, failed):
            worker.pending.popleft()
            yield Result(current.task, failed, worker=worker.number)

    def _count_fruitless(self, failed: Failed) -> None:
        """Count a process that ended without a task. Raises PipelineError: see FRUITLESS."""
        self._fruitless += 1
        if self._fruitless == FRUITLESS:
            raise PipelineError(
                f"processes that read files cannot start: the last one {failed.message}. "
                "See its output above. "
                "Finished work is kept: fix the cause, and run it again."
            )


def _serve(pipe: Connection[Any, Any], fds: Sequence[int], work: Callable[..., Any]) -> None:
    """Read tasks from the pipe, and send run times and outcomes (as in `Result`), until the parent
    closes the pipe: the main function of the pool's processes. fds: the pool's shared memory.
    """
    if fds:
        work.share(*(mmap.mmap(fd, os.fstat(fd).st_size) for fd in fds))  # type: ignore[attr-defined]
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            arguments = pickle.loads(pipe.recv_bytes())  # noqa: S301 - the parent's
            alive(0)
            show_done(0, 0, COUNTED[0])  # of this task
            began = time.perf_counter()
            try:
                outcome = pickle.dumps(_Outcome(work(*arguments)), pickle.HIGHEST_PROTOCOL)
            except MemoryError:
                raise
            except Exception as error:
                outcome = pickle.dumps(_Outcome(error=_sendable(error)))
            pipe.send(time.perf_counter() - began)
            pipe.send_bytes(outcome)  # aside, so that it is not pickled a second time
            alive(NO_TASK)


def _sendable(error: Exception) -> Exception:
    """An error that can be sent to the parent: this one with its traceback as a note, or, if it
    cannot be pickled, a PipelineError with the traceback.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return PipelineError(text)
    error.add_note(f"In a process of its own:\n{text}")
    return error
