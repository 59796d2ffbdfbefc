"""Jobs on the workers of a Dask cluster, or on one process per device.  raw -> tracks -> features

`connect_workers` gives one of two objects, on which a caller runs the same jobs:

- `_Workers`: the workers of a cluster. Dask runs the tasks of a lost worker again on another one,
  by its own rules. Results stay on the workers until they are taken here. Dask is imported only
  when a scheduler is named.
- `_Devices`: a process of this machine for each GPU. A job gets the process's `device`.

Words:
    job: the caller's function. It is called with an item: that is a call.
    task: what a worker runs at once, in Dask's word: one call, or in `map` a few.
    future: Dask's handle of a submitted task, from which its result is taken.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import operator
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pipeline.cli.console import duration, err, plain
from pipeline.cli.progress import EVERY, SLOW
from pipeline.errors import ConfigError, PipelineError
from pipeline.processes import Failed, alive
from pipeline.processes.on_worker import (
    Submitter,
    run_each,
    run_interruptible,
    run_on_device,
    run_task,
)
from pipeline.processes.pool import TRIALS, Pool
from pipeline.processes.settings import Dask

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

ANSWER: Final = 60.0  # s that a scheduler may take to answer, and a result to arrive
ASK_AGAIN: Final = 5.0  # s after which a scheduler is asked again for its workers
LOOK_EVERY: Final = 0.5  # s between polls of the workers
# Most calls in a task of `map`: submitting a task costs as much as reading a short video.
TOGETHER: Final = 8
# Most tasks per worker whose results are not taken. One runs and one waits, so that the worker has
# work and Dask's `adapt` starts more workers. Not more: when a worker is lost, Dask counts that
# against all tasks that it had.
WAITING: Final = 2
# The same for `map`, where results are taken in order and may wait for an earlier one.
AHEAD: Final = 4
HOW_TO_START: Final = (
    "Start one (docs/operations.md), name another address, or leave it out to use only this "
    "machine."
)
RUN_AGAIN: Final = "Finished shards are kept: run the same command again."


def connect_workers(
    dask: Dask | str,
    devices: Sequence[str] = (),
    shared: Path | None = None,
    plug_ins: Sequence[object] = (),
) -> AbstractContextManager[_Workers | _Devices]:
    """Connect to the workers of a cluster, or, if `dask` names none, start a process for each of
    the `devices`. To be used in a `with` statement.

    Args:
        dask: settings of a cluster, or its address.
        shared: a file or folder that all workers of a cluster must see.
        plug_ins: datasets, streams and detectors that the workers use.

    Raises ConfigError for an invalid address. Inside the `with` block, PipelineError:

    - of a cluster: no scheduler answers, or goes away; there is no worker for `patience` seconds; a
      worker has other code or libraries, or does not see `shared`; more workers were lost at one
      task than Dask allows.
    - of devices: two processes end at one task, or one has other code. A job's own error has the
      device in its message.
    """
    dask = Dask(dask) if isinstance(dask, str) else dask
    if dask.scheduler is None:
        return _Devices(devices, Submitter.here(shared, plug_ins))
    return connect_cluster(dask, shared, plug_ins)


@contextlib.contextmanager
def connect_cluster(
    dask: Dask, shared: Path | None = None, plug_ins: Sequence[object] = ()
) -> Iterator[_Workers]:
    """Connect to the workers of a cluster, as `connect_workers` does."""
    scheduler = str(dask.scheduler)
    with _quiet_logs():
        client = _connect(scheduler)
        try:
            yield _Workers(client, Submitter.here(shared, plug_ins), dask.patience)
        except CancelledError as error:
            gone = "the Dask scheduler went away or was restarted. Make sure that it runs."
            raise PipelineError(f"{scheduler}: {gone} {RUN_AGAIN}") from error
        finally:
            with contextlib.suppress(TimeoutError):  # the scheduler may have gone
                client.close()


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Inside, distributed logs nothing: this module reports lost workers and schedulers."""
    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _connect(scheduler: str) -> Client:
    """Connect to a scheduler, and raise errors as messages for the user."""
    location = _scheduler_location(scheduler)
    try:
        return _new_client(location)
    except ValueError as error:
        expected = (
            "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler "
            "file, FILE.json"
        )
        raise ConfigError(f"{scheduler}: {expected}: {error}") from error
    except OSError as error:
        silent = f"no Dask scheduler answers there after {ANSWER:.0f} s ({error})."
        raise PipelineError(f"{scheduler}: {silent} {HOW_TO_START}") from error
    except AssertionError as error:
        busy = "this Dask scheduler sent something else while the command connected."
        raise PipelineError(f"{scheduler}: {busy} {RUN_AGAIN}") from error


def _new_client(location: dict[str, str]) -> Client:
    """A client that is connected to a scheduler (`_scheduler_location`).

    distributed asserts that a scheduler's first message comes alone. A busy scheduler may send a
    second one with it; then another attempt succeeds.
    """
    import distributed

    attempts = 3
    while True:
        try:
            return distributed.Client(
                **location,
                timeout=ANSWER,
                set_as_default=False,  # other Dask work of this process stays here
                direct_to_workers=True,  # results come straight from workers
            )
        except AssertionError:
            attempts -= 1
            if not attempts:
                raise


def _scheduler_location(scheduler: str) -> dict[str, str]:
    """The argument of Dask's client for an address, or for a scheduler file (FILE.json), for which
    this function waits.

    >>> _scheduler_location("node1:8786")
    {'address': 'tcp://node1:8786'}
    """
    if "://" in scheduler:
        return {"address": scheduler}
    if not scheduler.endswith(".json"):
        return {"address": f"tcp://{scheduler}"}
    latest = time.monotonic() + ANSWER
    while not Path(scheduler).exists():
        if time.monotonic() > latest:
            written = "the file that `dask scheduler --scheduler-file` writes"
            raise PipelineError(
                f"{scheduler}: expected {written}, found none after {ANSWER:.0f} s. {HOW_TO_START}"
            )
        time.sleep(LOOK_EVERY / 2)
    return {"scheduler_file": scheduler}


class _Workers:
    """The workers of one cluster, each of which runs one task at a time.

    A job that raises is retried once. Dask repeats the tasks of a lost worker. If more workers were
    lost at one task than the scheduler allows (`distributed.scheduler.allowed-failures`), Dask
    gives up, and so does this class.

    GPUs: a worker may offer the resource GPU. From then on, `run_one` and `as_completed` use only
    such workers, because their jobs compute. `map` uses any worker, because its jobs read files.
    """

    def __init__(self, client: Client, submitter: Submitter, patience: float) -> None:
        self._client = client
        self._submitter = submitter
        self._patience = patience
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        # set by `_select_usable`:
        self._usable: list[str] = []  # addresses of the workers for the job that runs
        self._needs_gpu = False  # whether a worker has ever offered a GPU
        self._task_ended = threading.Event()  # set by Dask's thread whenever a task ends

    def number(self) -> int:
        """Number of workers that `as_completed` would use now. Waits until there is one."""
        self._await_workers()
        return len(self._usable)

    def run_one(self, job: Callable[[], R]) -> R:
        """Run a job on one worker, with a GPU if any has one, and return its result. Raises what it
        raises.
        """
        (result,) = self._results([job])
        return result

    def as_completed(
        self, job: Callable[[T, Callable[[], None]], R], items: Sequence[T]
    ) -> Iterator[R]:
        """Run `job(item, alive)` for all items, and yield the results as they come.

        The job should call `alive` often: it ends a task whose result is no longer needed.
        """
        return self._results(functools.partial(run_interruptible, job, item) for item in items)

    def map(
        self, job: Callable[[T], R], items: Sequence[T], same_group: Callable[[T, T], bool]
    ) -> Iterator[R]:
        """Run `job(item)` for all items, and yield the results in the items' order. Only a few of
        them are computed ahead.

        same_group: whether two neighbouring items should be in one task.
        """

        def tasks() -> Iterator[Callable[[], list[R]]]:
            """Yield tasks of several calls each, of fewer towards the end: all workers get some."""
            start = 0
            while start < len(items):
                share = (len(items) - start) // (AHEAD * len(self._usable))
                stop = start + max(1, min(TOGETHER, share))
                while stop < len(items) and same_group(items[stop - 1], items[stop]):
                    stop += 1
                yield functools.partial(run_each, job, items[start:stop])
                start = stop

        for results in self._results(tasks(), in_order=True):
            yield from results

    def _results(self, tasks: Iterable[Callable[[], R]], *, in_order: bool = False) -> Iterator[R]:
        """Run tasks, and yield their results as they come, or `in_order`: then any worker runs
        them, with a GPU or without. Raises the error of a task.

        Each turn takes the results that have come, submits as many tasks as the workers of the
        moment can have, and waits for the next result.
        """
        todo = iter(tasks)  # not submitted yet; `map` counts the usable workers for each task
        most_per_worker = AHEAD if in_order else WAITING
        futures: list[Future[R]] = []  # of submitted tasks whose results are not taken, in order
        while True:
            candidates = futures[:1] if in_order else futures
            ended = [future for future in candidates if future.done()]
            for future in ended:
                try:
                    result = self._take(future)
                except TimeoutError:
                    is_tasks_own = future.status == "error"
                    if is_tasks_own:
                        raise
                    continue  # the worker went away with the result: Dask computes it again
                futures.remove(future)
                yield result

            self._await_workers(on_any=in_order)
            most = most_per_worker * len(self._usable)
            n_free = max(0, most - len(futures))
            for task in itertools.islice(todo, n_free):
                futures.append(self._submit(task, on_any=in_order))
            if not futures:
                return
            if not ended:
                self._task_ended.wait(LOOK_EVERY)
                self._task_ended.clear()

    def _submit(self, task: Callable[[], R], *, on_any: bool) -> Future[R]:
        """Have Dask run a task, on any worker, or on one with a GPU if there are such."""
        resources = {"GPU": 1} if self._needs_gpu and not on_any else None
        future: Future[R] = self._client.submit(
            run_task, self._submitter, task, pure=False, retries=1, resources=resources
        )
        future.add_done_callback(lambda _: self._task_ended.set())
        return future

    def _take(self, future: Future[R]) -> R:
        """The result of a task that has ended. Raises the task's error; PipelineError if Dask has
        given it up; CancelledError if the scheduler has gone, so that no result would arrive;
        TimeoutError if the result does not arrive.
        """
        from distributed import KilledWorker

        if self._client.status != "running":
            raise CancelledError
        try:
            return future.result(ANSWER)
        except KilledWorker as error:
            losses = error.allowed_failures + 1
            raise PipelineError(
                f"{self._address}: {losses} workers were lost while they ran the same task, the "
                f"last one {error.last_worker.address}. If memory ran out (see its log), start "
                f"fewer workers per machine. {RUN_AGAIN}"
            ) from error

    def _await_workers(self, *, on_any: bool = False) -> None:
        """Update the list of usable workers, and wait until there is one: any worker, or one with a
        GPU if a worker has ever offered one.

        Raises PipelineError after `patience` seconds without any, or without an answer of the
        scheduler; CancelledError if the scheduler has gone.
        """
        began = time.monotonic()
        next_line = SLOW  # s of waiting after which a line is printed
        demand: Future[int] | None = None
        while self._client.status == "running":
            try:
                workers = self._ask_workers()
            except TimeoutError:  # it is busy, suspended or gone: then the client's status changes
                wanted = "an answer of this Dask scheduler"
            else:
                self._select_usable(workers, on_any=on_any)
                if self._usable:
                    return
                if demand is None:  # Dask's `adapt` starts workers for tasks
                    demand = self._client.submit(int, pure=False)
                wanted = "a Dask worker with a GPU" if workers else "a Dask worker"
            waited = time.monotonic() - began
            if waited > self._patience:
                raise self._gave_up(wanted)
            if waited > next_line:
                next_line = waited + EVERY
                passed = f"{duration(waited)} of at most {duration(self._patience)}"
                err.print(plain(f"{self._address}: waiting for {wanted}, {passed}"))
            time.sleep(LOOK_EVERY / 2)
        raise CancelledError

    def _gave_up(self, wanted: str) -> PipelineError:
        """The error after `patience` seconds of waiting, for the caller to raise."""
        return PipelineError(
            f"{self._address}: waited {self._patience:g} s for {wanted}. Start workers "
            "(docs/operations.md), or wait longer for queued ones: [dask] patience. "
            f"{RUN_AGAIN}"
        )

    def _select_usable(self, workers: dict[str, Any], *, on_any: bool) -> None:
        """Update the usable workers of these: all, or, once one has offered a GPU, those with a
        GPU. on_any: all in any case.
        """
        gpus = [address for address, worker in workers.items() if worker["resources"].get("GPU")]
        self._needs_gpu |= bool(gpus)
        self._usable = gpus
        if on_any or not self._needs_gpu:
            self._usable = list(workers)

    def _ask_workers(self) -> dict[str, Any]:
        """All workers by address, as `Client.scheduler_info` has them. Raises TimeoutError if the
        scheduler does not answer in time.
        """
        scheduler: Any = self._client.scheduler
        identity = self._client.sync(scheduler.identity, n_workers=-1, callback_timeout=ASK_AGAIN)
        workers: dict[str, Any] = identity["workers"]
        return workers


class _Devices:
    """A process for each device of `names`, which ends with the `with` block.

    It has the methods of `_Workers` that jobs on a GPU need, and runs `job(..., device=NAME)`.
    Raises a job's error, with the device in its message. If a process ends at a task, another one
    repeats it; PipelineError if that ends, too.
    """

    def __init__(self, names: Sequence[str], submitter: Submitter) -> None:
        self._names = names
        self._submitter = submitter
        self._calls: deque[Callable[..., Any]] = deque()  # not given to a process yet
        works = [functools.partial(operator.call, device=name) for name in names]
        self._pool = Pool[Callable[..., Any], Any](
            works, self._jobs(), ahead=1, timeout=math.inf, memory=None
        )

    def __enter__(self) -> _Devices:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__()

    def number(self) -> int:
        """Number of processes."""
        return len(self._names)

    def run_one(self, job: Callable[..., R]) -> R:
        """Run `job(device=NAME)` in one process, and return its result."""
        (result,) = self._results([self._call(job)])
        return result  # type: ignore[no-any-return]

    def as_completed(self, job: Callable[..., R], items: Sequence[object]) -> Iterator[R]:
        """Run `job(item, alive, device=NAME)` for all items, and yield the results as they come."""
        return self._results([self._call(job, item, alive) for item in items])

    def _call(self, job: Callable[..., R], *arguments: object) -> Callable[..., R]:
        return functools.partial(run_on_device, self._submitter, job, *arguments)

    def _jobs(self) -> Iterator[list[Callable[..., Any]] | None]:
        """Yield the calls for the pool, each as a job of one task; None: there is none now."""
        while True:
            yield [self._calls.popleft()] if self._calls else None

    def _results(self, calls: Sequence[Callable[..., Any]]) -> Iterator[Any]:
        """Make calls in the processes, and yield their results as they come."""
        self._calls += calls
        while self._calls or not self._pool.is_idle:
            for result in self._pool.poll():
                device = self._names[result.worker]
                try:
                    outcome = result.get()
                except Exception as error:
                    if device not in str(error) and not isinstance(error, OSError):
                        error.args = (f"{device}: {error}",)
                    raise
                if isinstance(outcome, Failed):
                    raise PipelineError(
                        f"{device}: {TRIALS} processes ended at the same task, the last one "
                        f"{outcome.message}. See their output above. Finished work is kept: "
                        "run it again, without a failing device."
                    )
                yield outcome
