"""A pool of supervised processes, and `map` on it.  raw -> [tracks, crops] -> features

A caller gives jobs to a `Pool`, and calls `Pool.poll` in a loop, which sends tasks to processes,
receives results, and replaces processes that have ended or hang. Nothing else runs in this process:
no thread, and no queue that could fill.

Words:
    work: the function that a process calls with every task. It may keep a state.
    task: its argument, pickled. A result belongs to one task.
    job: an iterator of tasks. One process runs all tasks of a job, in order, so that it can keep an
        open video, a file of labels or a network.
    place: where in a task a process is, such as the number of a frame, by `alive`. It tells what
        a process ended at. Below 0: before the first one, or IDLE.
    worker: a seat of the pool, in which one process after the other sits.
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
ROOM: Final = 1 << 16  # bytes of a pipe's buffer, which fills while its reader is busy
# Processes that end at one place of a task before it is given up. The last one is a fresh process,
# so that no earlier task is to blame.
TRIALS: Final = 2
# Processes in a row that end before they start a task: then the pool gives up.
FRUITLESS: Final = 4
VIDEO_THREADS: Final = "VIDEO_THREADS"  # environment: threads of one video's decoder

# Of `ordered_map`
AHEAD: Final = 16  # most items that are sent to a process ahead
AHEAD_TIME: Final = 0.1  # s: their intended run time
POLL_EVERY: Final = 0.01  # s
WAITING: Final = 1 << 26  # most bytes of results per process that wait for an earlier result


class _Result(NamedTuple, Generic[T, R]):
    """The result of a task."""

    task: T
    # (return value, None) or (None, exception), pickled; or why processes ended at the task
    outcome: bytes | Failed
    seconds: float = 0.0  # run time
    worker: int = 0  # index in the pool's `works`

    def get(self) -> R | Failed:
        """Return what the work returned for the task, or why processes ended at it. Raise what the
        work raised, with the process's traceback as a note.
        """
        if isinstance(self.outcome, Failed):
            return self.outcome
        value, error = pickle.loads(self.outcome)  # noqa: S301 - of our own process
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]


@dataclass(slots=True, eq=False)
class _OpenJob(Generic[T]):
    """A job that a worker has begun, and what is known about all of its tasks."""

    tasks: Iterator[T | None]
    # places at which TRIALS processes ended, which tasks are to leave out (`skips`)
    skipped: dict[int, Failed] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Submitted(Generic[T]):
    """A task that was taken from its job and has no result yet."""

    job: _OpenJob[T]
    task: T
    # place -> number of processes that ended there
    ended: Counter[int] = field(default_factory=Counter)


class _Worker(Generic[T]):
    """One seat of the pool: its process, and its job and tasks, which stay when the process ends
    and the next one takes the seat.
    """

    def __init__(self, number: int, work: Callable[..., Any]) -> None:
        self.number = number
        self.work = work
        self.process: Process | None = None  # None: started with the next task
        self.job: _OpenJob[T] | None = None  # None: take the next job
        # to be sent before other tasks: their process ended, or had no room
        self.pending: deque[_Submitted[T]] = deque()
        # sent to the process, which works at the first one
        self.running: deque[_Submitted[T]] = deque()
        # bytes that were sent since the process was last without tasks: at least those in its pipe
        self.n_sent = 0


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
        env: environment variables of the processes.
        preload: see `Process`.

    When a process ends, a fresh one repeats its unfinished tasks. With `skips`, a place is left out
    after TRIALS processes ended there. Without, the result of a task is `Failed` after TRIALS
    processes ended at it, or one was ended because it hung.

    Processes start one after the other, while there are more tasks than they can take.
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
        self._has_more_jobs = True  # `jobs` has not ended
        self._fruitless = 0  # see FRUITLESS
        self._fds = [os.memfd_create("shared") for _ in shared]
        for fd, size in zip(self._fds, shared, strict=True):
            os.ftruncate(fd, size)
        self.shared = [mmap.mmap(fd, size) for fd, size in zip(self._fds, shared, strict=True)]

    def begin(self, jobs: Iterator[Iterable[T | None] | None]) -> None:
        """Take the tasks from other jobs, once `poll` has returned all results of those before."""
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
        """Whether every task that was taken from a job has a result."""
        return not any(worker.running or worker.pending for worker in self._workers)

    @property
    def has_more(self) -> bool:
        """Whether a job may have more tasks."""
        return self._has_more_jobs or any(worker.job is not None for worker in self._workers)

    def submit(self) -> None:
        """Send tasks to all processes that have room for more, one to each in turn."""
        has_sent = True
        while has_sent:
            has_sent = False
            for worker in self._workers:
                has_sent |= self._submit(worker)

    def poll(self, patience: float = LOOK) -> list[_Result[T, R]]:
        """Send tasks, wait at most `patience` s for results, and return those that have come.
        Replaces processes that have ended or hang.

        Raises PipelineError if FRUITLESS processes in a row end before they start a task.
        """
        self.submit()
        busy = [(w, w.process) for w in self._workers if w.process is not None and w.running]
        if len(busy) < len(self._workers) and self._is_starting():
            patience = min(patience, 0.01)  # the next process starts as soon as this one has
        ready = wait([process.pipe for _, process in busy], patience)
        results = list[_Result[T, R]]()
        for worker, process in busy:
            results += self._receive(worker, process, ready)
        self.submit()
        return results

    def _is_starting(self) -> bool:
        """Whether a process was started and has shown no sign of life. The next one is started
        after that.
        """
        started = [worker.process for worker in self._workers if worker.process is not None]
        return not all(process.has_begun for process in started)

    def _submit(self, worker: _Worker[T]) -> bool:
        """Send one more task to a worker's process, and start the process if there is none. Returns
        False if nothing was sent: the process has no room, or there is no task now.
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
        # A busy process does not read its pipe. Sending more than the pipe holds would wait for it,
        # while it waits for this process to read a large result: a deadlock.
        fits = worker.n_sent + len(message) <= ROOM
        if worker.running and not fits:
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
        """A worker's next task: one that is to be sent again, else one of the worker's job, else
        one of the next job. None: there is none now.
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
        """The next job; None: there is none now, or there are no more (then `_has_more_jobs` is
        False).
        """
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
        """Yield the results that a process has sent. Replaces it if it has ended or hangs.

        ready: the pipes that have a result, or whose process has ended.
        """
        if process.pipe not in ready:
            patience = self._timeout
            if process.place < 0:  # it prepares a task, or starts
                patience = max(patience, START)
            if process.silence() > patience:
                failed = process.kill(timeout=patience)
                yield from self._replace_process(worker, process, failed)
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
        """Keep the tasks of an ended process for the next one. If too many processes ended at this
        place, leave it out (`skips`), or yield the task's result: `Failed`.
        """
        worker.pending.extendleft(reversed(worker.running))
        worker.running.clear()
        worker.process = None
        place = process.place
        if place == IDLE:  # no task is to blame
            self._fruitless += 1
            if self._fruitless == FRUITLESS:
                raise PipelineError(
                    f"processes that read files cannot start: the last one {failed.message}. "
                    "See its output above. "
                    "Finished work is kept: fix the cause, and run it again."
                )
            return
        current = worker.pending[0]
        counted_place = 0  # the task as a whole
        if self._skips:
            counted_place = place
        current.ended[counted_place] += 1
        # a second trial would take the whole time limit again
        is_hopeless = failed.reason == "reader_timeout" and not self._skips
        if not is_hopeless and current.ended[counted_place] < TRIALS:
            return
        if self._skips and place >= 0:
            current.job.skipped[place] = failed
        else:
            worker.pending.popleft()
            yield _Result(current.task, failed, worker=worker.number)


def _serve(pipe: Connection[Any, Any], fds: Sequence[int], work: Callable[..., Any]) -> None:
    """Read tasks from the pipe, and send run times and outcomes (as in `_Result`), until the parent
    closes the pipe: the main function of the pool's processes. fds: the pool's shared memory.
    """
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
    """Yield `job(item)` for each item, in order, computed by up to `workers` supervised processes,
    never by this one. `job`, items and results must be picklable.

    The result of an item is `Failed` if a process makes no progress at it for `timeout` s, or if
    two processes, the second one fresh, crash at it or need more than `memory` bytes. An exception
    of the job is raised here, in order, with the process's traceback as a note.

    No item starts while more than `WAITING` bytes of results per process wait for an earlier one.

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
                # short tasks are sent ahead, but not so many that other processes lack work
                for_a_while = AHEAD_TIME / result.seconds
                fair_share = (len(items) - ordered.n_grouped) / (2 * workers)
                pool.ahead = max(1, int(min(AHEAD, for_a_while, fair_share)))
            yield result.get()


def _run_item(job: Callable[[T], R], task: tuple[int, T]) -> R:
    """The work of `ordered_map`, whose tasks are items with their index."""
    _, item = task
    return job(item)


class _Ordered(Generic[T, R]):
    """The two ends of `ordered_map`: jobs for a pool, made of the items, and results in order.

    A job is a group of neighbouring items that one process should run. If too many bytes of
    results wait for an earlier one, jobs pause. The item whose result is awaited never pauses.
    """

    def __init__(
        self, items: Sequence[T], same_group: Callable[[T, T], bool], most_waiting: int
    ) -> None:
        self._items = items
        self._same_group = same_group
        self._most_waiting = most_waiting
        self._results: dict[int, _Result[tuple[int, T], R]] = {}  # by the index of the item
        self._waiting = 0  # about the bytes of `_results`; a `Failed` counts as 2
        self._awaited = 0  # index of the item whose result is returned next
        self._polled = 0.0  # time of the last poll, s
        self.n_grouped = 0  # number of items that are in a group

    def jobs(self) -> Iterator[Iterator[tuple[int, T] | None]]:
        """Yield the groups, as jobs for a pool."""
        items = self._items
        while self.n_grouped < len(items):
            start = self.n_grouped
            self.n_grouped += 1
            while self.n_grouped < len(items):
                if not self._same_group(items[self.n_grouped - 1], items[self.n_grouped]):
                    break
                self.n_grouped += 1
            yield self._group(start, self.n_grouped)

    def _group(self, start: int, stop: int) -> Iterator[tuple[int, T] | None]:
        """Yield the items of a group with their index, or None while too many results wait."""
        for index in range(start, stop):
            while index > self._awaited and self._waiting > self._most_waiting:
                yield None
            yield index, self._items[index]

    def result(self, index: int, pool: Pool[tuple[int, T], R]) -> _Result[tuple[int, T], R]:
        """Wait for the result of an item. Items must be requested in order."""
        self._awaited = index
        # also if the result has come: processes wait for tasks
        if time.monotonic() - self._polled > POLL_EVERY:
            self._poll(pool, 0)
        while index not in self._results:
            self._poll(pool, LOOK)
        result = self._results.pop(index)
        self._waiting -= len(result.outcome)
        return result

    def _poll(self, pool: Pool[tuple[int, T], R], patience: float) -> None:
        """Keep the results that come within `patience` s."""
        self._polled = time.monotonic()
        for result in pool.poll(patience):
            self._results[result.task[0]] = result
            self._waiting += len(result.outcome)
