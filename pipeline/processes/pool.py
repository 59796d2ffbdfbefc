"""A pool of supervised processes, and `map` on it.  raw -> [tracks, crops] -> features

A job is an iterator of tasks. One process runs all tasks of a job, in order, so that it can keep an
open video, a file of labels or a network. A few tasks are taken ahead. The caller's loop receives
results by `Pool.poll`.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from pipeline.errors import PipelineError
from pipeline.processes import IDLE, LOOK, MEMORY, TIMEOUT, Failed, alive
from pipeline.processes.server import Process

T = TypeVar("T")
R = TypeVar("R")

START: Final = 300.0  # s: limit for the start of a process, or the preparation of a task
ROOM: Final = 1 << 16  # bytes: a pipe's buffer, which fills while its reader is busy
# failures at one place of a task before it is given up, the last one in a fresh process
TRIALS: Final = 2
FRUITLESS: Final = 4  # processes in a row that end before they start a task: then the pool gives up
VIDEO_THREADS: Final = "VIDEO_THREADS"  # environment: threads of one video's decoder

# Of `ordered_map`
AHEAD: Final = 16  # most items that are sent to a process ahead
AHEAD_TIME: Final = 0.1  # s: their intended run time
POLL_EVERY: Final = 0.01  # s
WAITING: Final = 1 << 26  # most bytes of results per process that wait for an earlier result


class _Result(NamedTuple, Generic[T, R]):
    """The result of a task."""

    task: T
    # the pickled return value or exception, or why processes ended at the task
    outcome: bytes | Failed
    seconds: float = 0.0  # run time
    worker: int = 0  # index in the pool's `works`

    def get(self) -> R | Failed:
        """Return what the task returned. Raise what it raised, with the process's traceback as a
        note.
        """
        if isinstance(self.outcome, Failed):
            return self.outcome
        value, error = pickle.loads(self.outcome)  # noqa: S301 - of our own process
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]


@dataclass(slots=True, eq=False)
class _OpenJob(Generic[T]):
    """A job with tasks to run or without all results."""

    tasks: Iterator[T | None]
    # places at which TRIALS processes ended
    skipped: dict[int, Failed] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Submitted(Generic[T]):
    """A task taken from its job."""

    job: _OpenJob[T]
    task: T
    # place -> number of processes that ended there
    ended: Counter[int] = field(default_factory=Counter)


class _Worker(Generic[T]):
    """One seat of the pool: a process, its job and its tasks. A process that ends is replaced."""

    def __init__(self, number: int, work: Callable[..., Any]) -> None:
        self.number = number
        self.work = work
        self.process: Process | None = None  # started with its first task
        self.job: _OpenJob[T] | None = None  # None: take the next job
        self.pending: deque[_Submitted[T]] = deque()  # to be sent: their process ended, or was busy
        self.running: deque[_Submitted[T]] = deque()  # sent, without a result yet
        self.n_sent = 0  # bytes of `running`, pickled


class Pool(Generic[T, R]):
    """Supervised processes, one for each of `works`, which end with the `with` block.

    Args:
        works: functions, called as `work(task)` in a process each, which may keep a state. Tasks
            and results are pickled.
        jobs: iterators of tasks. None, from a job or from `jobs`, means: nothing now, try again
            later.
        ahead: most tasks that are sent to a process and have no result.
        timeout: s without progress after which a process is ended.
        memory: limit in bytes beyond what a process starts with; None: no limit.
        skips: call `work(task, skipped)`. A task is repeated without the places (`alive`) at which
            processes ended.
        shared: sizes in bytes of memory that all processes map, this one as `Pool.shared`.
            `work.share(*memory)` is called before the first task.
        env: environment variables of the processes.
        preload: see `Process`.

    When a process ends, a fresh one repeats its unfinished tasks. A task becomes `Failed` after
    TRIALS processes ended at the same place, or, without `skips`, once it hangs. Processes start
    one after the other, while there are more tasks than they can take.
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
        self.ahead = ahead
        self._jobs = jobs
        self._timeout = timeout
        self._skips = skips
        self._memory = memory
        self._env = env
        self._preload = preload
        self._workers = [_Worker[T](number, work) for number, work in enumerate(works)]
        self._has_more_jobs = True
        self._fruitless = 0
        self._fds = [os.memfd_create("shared") for _ in shared]
        for fd, size in zip(self._fds, shared, strict=True):
            os.ftruncate(fd, size)
        self.shared = [mmap.mmap(fd, size) for fd, size in zip(self._fds, shared, strict=True)]

    def begin(self, jobs: Iterator[Iterable[T | None] | None]) -> None:
        """Take other jobs, after the last result of those before."""
        self._jobs = jobs
        self._has_more_jobs = True

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
        """Whether every task that was taken from a job has its result."""
        return not any(worker.running or worker.pending for worker in self._workers)

    @property
    def has_more(self) -> bool:
        """Whether a job may have more tasks."""
        return self._has_more_jobs or any(worker.job is not None for worker in self._workers)

    def submit(self) -> None:
        """Send tasks to all processes that have room, one to each in turn."""
        has_sent = True
        while has_sent:
            has_sent = False
            for worker in self._workers:
                has_sent |= self._submit(worker)

    def poll(self, patience: float = LOOK) -> list[_Result[T, R]]:
        """Wait at most `patience` s for new results. Replaces processes that have ended or hang.

        Raises PipelineError if FRUITLESS processes in a row end before they start a task.
        """
        self.submit()
        busy = [(w, w.process) for w in self._workers if w.process is not None and w.running]
        if len(busy) < len(self._workers) and self._is_starting():
            patience = min(patience, 0.01)
        ready = wait([process.pipe for _, process in busy], patience)
        results = list[_Result[T, R]]()
        for worker, process in busy:
            results += self._receive(worker, process, ready)
        self.submit()
        return results

    def _is_starting(self) -> bool:
        """Whether a process has not begun yet: the others start after it."""
        started = [worker.process for worker in self._workers if worker.process is not None]
        return not all(process.has_begun for process in started)

    def _submit(self, worker: _Worker[T]) -> bool:
        """Send one more task to a worker's process. Returns False if it has no room, or there is no
        task.
        """
        if len(worker.running) >= self.ahead:
            return False
        if worker.process is None and self._is_starting():
            return False
        submitted = self._next(worker)
        if submitted is None:
            return False
        arguments: tuple[Any, ...] = (submitted.task,)
        if self._skips:
            arguments += (submitted.job.skipped,)
        message = pickle.dumps(arguments, pickle.HIGHEST_PROTOCOL)
        # it may be sending, too: a deadlock
        if worker.running and worker.n_sent + len(message) > ROOM:
            worker.pending.appendleft(submitted)
            return False
        if worker.process is None:
            worker.process = Process(
                _serve,
                worker.work,
                preload=self._preload,
                fds=self._fds,
                env=self._env,
                memory=self._memory,
            )
        if not worker.running:
            worker.process.reset_silence()
            worker.n_sent = 0
        worker.running.append(submitted)
        worker.n_sent += len(message)
        with contextlib.suppress(ConnectionError):  # it has ended: `poll` replaces it
            worker.process.pipe.send_bytes(message)
        return True

    def _next(self, worker: _Worker[T]) -> _Submitted[T] | None:
        """The task to send again, or the next one of a worker's job or of the next job; None: there
        is none now.
        """
        if worker.pending:
            return worker.pending.popleft()
        while True:
            if worker.job is None:
                worker.job = self._next_job()
                if worker.job is None:
                    return None
            try:
                task = next(worker.job.tasks)
            except StopIteration:  # all of the job's tasks have been taken
                worker.job = None
            else:
                if task is None:
                    return None
                return _Submitted(worker.job, task)

    def _next_job(self) -> _OpenJob[T] | None:
        """The next job; None: no job now, or, unless `_has_more_jobs`, no more jobs."""
        if not self._has_more_jobs:
            return None
        try:
            tasks = next(self._jobs)
        except StopIteration:
            self._has_more_jobs = False
            return None
        if tasks is None:
            return None
        return _OpenJob(iter(tasks))

    def _receive(
        self, worker: _Worker[T], process: Process, ready: Sequence[object]
    ) -> Iterator[_Result[T, R]]:
        """Yield the results that a process has sent. Replaces it if it has ended or hangs."""
        if process.pipe not in ready:
            patience = self._timeout
            if process.place < 0:
                patience = max(patience, START)
            if process.silence() > patience:
                yield from self._replace_process(worker, process, process.kill(timeout=patience))
            return
        try:
            while worker.running:
                seconds, outcome = process.pipe.recv()
                process.reset_silence()
                self._fruitless = 0
                yield _Result(worker.running.popleft().task, outcome, seconds, worker.number)
                if not process.pipe.poll():
                    return
        except (EOFError, OSError):  # also in the middle of a result
            yield from self._replace_process(worker, process, process.kill())

    def _replace_process(
        self, worker: _Worker[T], process: Process, failed: Failed
    ) -> Iterator[_Result[T, R]]:
        """Keep the tasks of an ended process for the next one. Give up where TRIALS processes
        ended.
        """
        worker.pending.extendleft(reversed(worker.running))
        worker.running.clear()
        worker.process = None
        place = process.place
        if place == IDLE:
            self._fruitless += 1
            if self._fruitless == FRUITLESS:
                raise PipelineError(
                    f"processes that read files cannot start: the last one {failed.message}. "
                    "See its output above. "
                    "Finished work is kept: fix the cause, and run it again."
                )
            return
        current = worker.pending[0]
        where = place if self._skips else 0
        current.ended[where] += 1
        # a second trial would take the limit again
        hangs = failed.reason == "reader_timeout" and not self._skips
        if hangs or current.ended[where] == TRIALS:
            if self._skips and place >= 0:
                current.job.skipped[place] = failed
            else:
                worker.pending.popleft()
                yield _Result(current.task, failed, worker=worker.number)


def _serve(pipe: Connection[Any, Any], fds: Sequence[int], work: Callable[..., Any]) -> None:
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
                outcome = pickle.dumps((None, _sendable(error)))
            pipe.send((time.perf_counter() - began, outcome))
            alive(IDLE)


def _sendable(error: Exception) -> Exception:
    """The error with its traceback as a note; if it cannot be pickled, a PipelineError with the
    traceback.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return PipelineError(text)
    error.add_note(f"In a process of its own:\n{text}")
    return error


def ordered_map(
    job: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    *,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    same_group: Callable[[T, T], bool] = lambda one, other: False,  # noqa: ARG005
    preload: Callable[[], object] | None = None,
) -> Iterator[R | Failed]:
    """`map` by up to `workers` supervised processes, never by this one. `job`, items and results
    must be picklable.

    Results come in the order of the items. No item starts while more than `WAITING` bytes per
    process wait for an earlier result. An item becomes `Failed` if a process makes no progress at
    it for `timeout` s, or if two processes, the second one fresh, crash at it or need more than
    `memory` bytes. An exception of the job is raised here, in order, with the process's traceback
    as a note.

    Args:
        same_group: whether one process should run both of two neighbouring items, which share a
            file, for example.
        preload: see `Process`.

    Processes start one after the other, while there are more items than they can take. All have
    ended after the last result, an error, Ctrl-C, or `close`. Raises PipelineError if processes
    cannot start.
    """
    ordered: _Ordered[T, R] = _Ordered(items, same_group, WAITING * workers)
    works = [functools.partial(_run_item, job)] * workers
    with Pool[tuple[int, T], R](
        works, ordered.jobs(), ahead=1, timeout=timeout, memory=memory, preload=preload
    ) as pool:
        for index in range(len(items)):
            result = ordered.result(index, pool)
            if result.seconds:
                fair = (len(items) - ordered.next) / (2 * workers)
                pool.ahead = max(1, int(min(AHEAD, AHEAD_TIME / result.seconds, fair)))
            yield result.get()


def _run_item(job: Callable[[T], R], task: tuple[int, T]) -> R:
    return job(task[1])


class _Ordered(Generic[T, R]):
    def __init__(
        self, items: Sequence[T], same_group: Callable[[T, T], bool], most_waiting: int
    ) -> None:
        self._items = items
        self._same_group = same_group
        self._most_waiting = most_waiting
        self._results: dict[int, _Result[tuple[int, T], R]] = {}
        self._waiting = 0  # bytes of `_results`
        self._awaited = 0  # the item whose result is returned next
        self._polled = 0.0
        self.next = 0  # the first item of the next group

    def jobs(self) -> Iterator[Iterator[tuple[int, T] | None]]:
        """Yield groups of items; one process runs all items of a group."""
        items = self._items
        while self.next < len(items):
            start = self.next
            self.next += 1
            while self.next < len(items):
                if not self._same_group(items[self.next - 1], items[self.next]):
                    break
                self.next += 1
            yield self._group(start, self.next)

    def _group(self, start: int, stop: int) -> Iterator[tuple[int, T] | None]:
        for index in range(start, stop):
            while index > self._awaited and self._waiting > self._most_waiting:
                yield None
            yield index, self._items[index]

    def result(self, index: int, pool: Pool[tuple[int, T], R]) -> _Result[tuple[int, T], R]:
        """The result of one item. Items must be requested in order."""
        self._awaited = index
        if time.monotonic() - self._polled > POLL_EVERY:
            self._poll(pool, 0)  # also when the result has been received: processes wait for tasks
        while index not in self._results:
            self._poll(pool, LOOK)
        result = self._results.pop(index)
        self._waiting -= len(result.outcome)
        return result

    def _poll(self, pool: Pool[tuple[int, T], R], patience: float) -> None:
        self._polled = time.monotonic()
        for result in pool.poll(patience):
            self._results[result.task[0]] = result
            self._waiting += len(result.outcome)
