"""Jobs on the workers of a Dask cluster, or on one process per device.  raw -> tracks -> features

Dask gives the tasks of a lost worker to another one, and ends a task that several workers died at. Results stay on the
workers until they are taken. Dask is imported when a scheduler is named. A job on a device is called with its process's
`device`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import operator
import platform
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, Field

from pipeline.errors import ConfigError, PipelineError
from pipeline.processes import Failed, alive
from pipeline.processes.pool import TRIALS, Pool

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

PATIENCE: Final = 60.0  # s that a scheduler may take to answer, and that a cluster may have no worker
LOOK_EVERY: Final = 0.5  # s between polls of the number of workers
TOGETHER: Final = 8  # most items in a task: submitting one costs as much as reading a short video
WINDOW: Final = 4  # most tasks per worker that are submitted and whose results are not taken
LIBRARIES: Final = ("vibe-pipeline", "numpy", "opencv-python", "torch")  # that the numbers in the cache depend on
START: Final = "Start one (docs/operations.md), name another address, or leave it out to use only this machine."
AGAIN: Final = "Finished shards are kept: run the same command again."


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("auto, cpu, cuda or one of several GPUs, such as cuda:1")
    return text


DeviceName = Annotated[
    str, AfterValidator(_device), Field(description="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
]
DeviceNames = Annotated[str | None, Field(description="GPUs (0,1,2,3), one process each; 0,0: two; none: device")]


def device_names(text: str, device: str = "auto") -> tuple[str, ...]:
    """Parse `devices`: GPUs by number, or names of devices. Raises ConfigError, also if `device` is set, too.

    >>> device_names("0,1")
    ('cuda:0', 'cuda:1')
    """
    if text and device != "auto":
        raise ConfigError(f"devices {text}: device {device} is set, too. Name one of both.")
    words = text.replace(",", " ").split()
    names = tuple(f"cuda:{word}" if word.isdecimal() else word for word in words)
    for name in names:
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise ConfigError(f"devices {text}: expected numbers of GPUs such as 0,1,2,3, found {name!r}")
    return names


def connect_workers(
    scheduler: str | None, devices: Sequence[str] = (), shared: Path | None = None
) -> AbstractContextManager[_Workers | _Devices]:
    """Connect to the workers of the cluster at `scheduler`; None: start a process for each of the `devices`.

    shared: a file or folder that all workers of a cluster must see. Raises ConfigError for an invalid address;
    PipelineError if no scheduler answers or there is no worker for PATIENCE seconds, if a worker has other libraries or
    does not see the file, if several died at the same task, and if the scheduler goes away. Of devices: what a job
    raises, with the device in its message, and PipelineError if two processes end at the same task.
    """
    return _Devices(devices) if scheduler is None else _connect_cluster(scheduler, shared)


def map_on_workers(
    scheduler: str,
    job: Callable[[T], R],
    items: Sequence[T],
    shared: Path | None = None,
    *,
    same_group: Callable[[T, T], bool] = lambda one, other: False,  # noqa: ARG005
) -> Iterator[R]:
    """`map` by the workers of the cluster at `scheduler`, with results in the order of the items.

    same_group: whether one worker should run both of two neighbouring items. A bounded number of results waits to be
    taken; closing the iterator cancels tasks. Raises what the job and `connect_workers` raise.
    """
    if items:
        with _connect_cluster(scheduler, shared) as workers:
            yield from workers.map(job, items, same_group)


@contextlib.contextmanager
def _connect_cluster(scheduler: str, shared: Path | None) -> Iterator[_Workers]:
    import distributed

    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # this module reports lost workers and schedulers
    address, file = _address(scheduler)
    try:
        client = distributed.Client(
            address,
            scheduler_file=file,
            timeout=PATIENCE,
            set_as_default=False,  # other Dask work of this process stays here
            direct_to_workers=True,  # results come straight from workers
        )
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{scheduler}: {expected}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{scheduler}: no Dask scheduler answers there after {PATIENCE:.0f} s ({error}). {START}"
        ) from error
    try:
        yield _Workers(client, shared)
    except CancelledError as error:
        raise _gone(scheduler) from error
    finally:
        with contextlib.suppress(TimeoutError):  # the scheduler may have gone
            client.close()
        log.setLevel(level)


def _gone(address: str) -> PipelineError:
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def _address(scheduler: str) -> tuple[str | None, str | None]:
    """An address, or a scheduler file, which is waited for."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return scheduler if "://" in scheduler else f"tcp://{scheduler}", None
    latest = time.monotonic() + PATIENCE
    while not Path(scheduler).exists():
        if time.monotonic() > latest:
            written = "the file that `dask scheduler --scheduler-file` writes"
            raise PipelineError(f"{scheduler}: expected {written}, found none after {PATIENCE:.0f} s. {START}")
        time.sleep(LOOK_EVERY / 2)
    return None, scheduler


class _Workers:
    """The workers of one cluster, each running one task at a time."""

    def __init__(self, client: Client, shared: Path | None) -> None:
        self._client = client
        self._submitter = _Submitter(_versions(), Path.cwd(), shared)
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        self._last_seen = time.monotonic()  # when there was a worker
        while not self.number():
            time.sleep(LOOK_EVERY / 2)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._gpu = {"GPU": 1} if any(worker["resources"].get("GPU") for worker in workers) else None

    def number(self) -> int:
        """Number of workers now. Raises PipelineError after PATIENCE seconds without any."""
        try:
            n = len(self._client.nthreads())
        except OSError as error:
            raise _gone(self._address) from error
        now = time.monotonic()
        if n:
            self._last_seen = now
        elif now - self._last_seen > PATIENCE:
            raise PipelineError(
                f"{self._address}: this Dask scheduler has had no worker for {PATIENCE:.0f} s. "
                f"Start workers (docs/operations.md), or wait for queued ones. {AGAIN}"
            )
        return n

    def run_one(self, job: Callable[[], R]) -> R:
        """Run a job on one worker, with a GPU if any has one, and return its result. Raises what it raises."""
        (future,) = futures = self._submit([job], resources=self._gpu)
        try:
            result: R = self._result(future)
        finally:
            self._cancel(futures)
        return result

    def as_completed(self, job: Callable[[T, Callable[[], None]], R], items: Sequence[T]) -> Iterator[R]:
        """Results of `job(item, alive)` in any order. A job that raises is retried once.

        The job should call `alive` often: it ends a task whose result is no longer needed. If workers offer the
        resource GPU, only those are used.
        """
        import distributed

        tasks = [functools.partial(_interruptible, job, item) for item in items]
        futures = self._submit(tasks, retries=1, resources=self._gpu)
        completed = distributed.as_completed(futures, loop=self._client.loop)
        try:
            while completed.count():
                for future in completed.next_batch(block=False):
                    yield self._result(future)
                self.number()
                time.sleep(LOOK_EVERY / 5)
        finally:
            self._cancel(futures)

    def map(self, job: Callable[[T], R], items: Sequence[T], same_group: Callable[[T, T], bool]) -> Iterator[R]:
        """Results of `job(item)` in order: see `map_on_workers`."""
        window: deque[Future[list[R]]] = deque()
        start = 0
        try:
            while start < len(items) or window:
                most = WINDOW * max(1, self.number())
                while start < len(items) and len(window) < most:
                    stop = start + max(1, min(TOGETHER, (len(items) - start) // most))
                    while stop < len(items) and same_group(items[stop - 1], items[stop]):
                        stop += 1
                    window += self._submit([functools.partial(_each, job, items[start:stop])])
                    start = stop
                yield from self._result(window[0])
                window.popleft()
        finally:
            self._cancel(window)

    def _submit(
        self, tasks: Sequence[Callable[[], Any]], retries: int | None = None, resources: dict[str, int] | None = None
    ) -> list[Future[Any]]:
        on_worker = functools.partial(_on_worker, self._submitter)
        return self._client.map(on_worker, tasks, pure=False, retries=retries, resources=resources)

    def _result(self, future: Future[Any]) -> Any:
        """Wait for a task's result while there are workers. Raises what the task raised."""
        from distributed import KilledWorker

        while True:
            try:
                future.exception(timeout=LOOK_EVERY)
                break
            except TimeoutError:
                self.number()
        try:
            return future.result()
        except KilledWorker as error:
            raise PipelineError(
                f"{self._address}: several workers died one after the other at the same task, the last one at "
                f"{error.last_worker.address}. Most likely memory ran out: see its log. Start fewer workers per "
                f"machine, or give them more memory. {AGAIN}"
            ) from error

    def _cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Cancel tasks. A running one continues until it calls `alive` or ends."""
        if self._client.status == "running" and futures:
            with contextlib.suppress(OSError, TimeoutError):
                self._client.cancel(list(futures), force=True)


class _Devices:
    """Processes that start on demand and end with the `with` block.

    A job gets `device=`, one of `names`. Raises what a job raises, with the device in its message. The task of a
    process that has ended is repeated; PipelineError if two processes end at the same task.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._calls: deque[Callable[..., Any]] = deque()
        works = [functools.partial(operator.call, device=name) for name in names]
        self._pool = Pool[Callable[..., Any], Any](works, self._jobs(), ahead=1, timeout=math.inf, memory=None)

    def __enter__(self) -> _Devices:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__()

    def number(self) -> int:
        return len(self._names)

    def run_one(self, job: Callable[..., R]) -> R:
        (result,) = self._results([job])
        return result  # type: ignore[no-any-return]

    def as_completed(self, job: Callable[..., R], items: Sequence[object]) -> Iterator[R]:
        return self._results([functools.partial(job, item, alive) for item in items])

    def _jobs(self) -> Iterator[list[Callable[..., Any]] | None]:
        while True:
            yield [self._calls.popleft()] if self._calls else None

    def _results(self, calls: Sequence[Callable[..., Any]]) -> Iterator[Any]:
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
                        f"{device}: {TRIALS} processes ended at the same task, the last one {outcome.message}. See "
                        "their output above. Finished work is kept: run it again, without a failing device."
                    )
                yield outcome


# --------------------------------------------------------------------------------------------------------- on workers

_one_task: Final = threading.Lock()  # a worker's threads share its folder, and readers are not thread-safe


@dataclass(frozen=True)
class _Submitter:
    versions: tuple[str, ...]
    folder: Path  # working folder, for relative paths
    shared: Path | None


def _versions() -> tuple[str, ...]:
    return (f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in LIBRARIES))


def _on_worker(submitter: _Submitter, task: Callable[[], R]) -> R:
    with _one_task, contextlib.chdir(submitter.folder) if submitter.folder.is_dir() else contextlib.nullcontext():
        _require(submitter)
        return task()


@functools.cache  # successes only
def _require(submitter: _Submitter) -> None:
    """Raise PipelineError if this worker has other libraries, or does not see the shared file."""
    from distributed import get_worker

    at = f"Dask worker at {get_worker().address}"
    for expected, version in zip(submitter.versions, _versions(), strict=True):
        if version != expected:
            raise PipelineError(f"{at}: expected {expected}, as here, found {version}. Use the same environment.")
    if submitter.shared is not None and not submitter.shared.exists():
        raise PipelineError(f"{at}: {submitter.shared} not found. Share it under the same path.")


def _each(job: Callable[[T], R], items: Sequence[T]) -> list[R]:
    require_needed, results = _check_needed(), []
    for item in items:
        require_needed()
        results.append(job(item))
    return results


def _interruptible(job: Callable[[T, Callable[[], None]], R], item: T) -> R:
    return job(item, _check_needed())


def _check_needed() -> Callable[[], None]:
    """A function that raises InterruptedError when this task's result is no longer needed."""
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def require_needed() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return require_needed
