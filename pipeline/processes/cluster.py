"""Jobs on the workers of a Dask cluster.  raw -> tracks -> features

Dask gives the tasks of a lost worker to another one, and ends a task that several workers died at. Results stay on the
workers until they are taken. Dask is imported when a scheduler is named.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pipeline.errors import ConfigError, PipelineError

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


@contextlib.contextmanager
def connect_workers(scheduler: str, shared: Path | None) -> Iterator[Workers]:
    """Connect to the workers of the cluster at `scheduler`. shared: a file or folder that all of them must see.

    Raises as `connect_client`, and PipelineError if there is no worker for PATIENCE seconds, if one has other libraries
    or does not see the file, and if several died at the same task.
    """
    with connect_client(scheduler) as client:
        yield Workers(client, shared)


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
        with connect_workers(scheduler, shared) as workers:
            yield from workers.map(job, items, same_group)


@contextlib.contextmanager
def connect_client(scheduler: str) -> Iterator[Client]:
    """Connect to the scheduler at an address such as tcp://host:8786, or of a scheduler file.

    Raises ConfigError for an invalid address, PipelineError if no scheduler answers for PATIENCE seconds, and, from the
    block, if the scheduler goes away.
    """
    import distributed

    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # this module reports lost workers and schedulers
    try:
        # Not as the default client: other Dask work of this process stays here. Results come straight from workers.
        options: dict[str, Any] = {"timeout": PATIENCE, "set_as_default": False, "direct_to_workers": True}
        client = distributed.Client(**_address(scheduler), **options)
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{scheduler}: {expected}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{scheduler}: no Dask scheduler answers there after {PATIENCE:.0f} s ({error}). {START}"
        ) from error
    try:
        yield client
    except CancelledError as error:
        raise _gone(scheduler) from error
    finally:
        with contextlib.suppress(TimeoutError):  # the scheduler may have gone
            client.close()
        log.setLevel(level)


def _gone(address: str) -> PipelineError:
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def _address(scheduler: str) -> Mapping[str, str]:
    """Arguments of a client: an address, or a scheduler file, which is waited for."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return {"address": scheduler if "://" in scheduler else f"tcp://{scheduler}"}
    latest = time.monotonic() + PATIENCE
    while not Path(scheduler).exists():
        if time.monotonic() > latest:
            written = "the file that `dask scheduler --scheduler-file` writes"
            raise PipelineError(f"{scheduler}: expected {written}, found none after {PATIENCE:.0f} s. {START}")
        time.sleep(LOOK_EVERY / 2)
    return {"scheduler_file": scheduler}


class Workers:
    """The workers of one cluster, each running one task at a time."""

    def __init__(self, client: Client, shared: Path | None) -> None:
        self._client = client
        self._submitter = _Submitter(_versions(), Path.cwd(), shared)
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        self._last_seen = time.monotonic()  # when there was a worker
        while not self.number():
            time.sleep(LOOK_EVERY / 2)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._gpu = {"resources": {"GPU": 1}} if any(worker["resources"].get("GPU") for worker in workers) else {}

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
        (future,) = futures = self._submit([job], **self._gpu)
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

        futures = self._submit([functools.partial(_interruptible, job, item) for item in items], retries=1, **self._gpu)
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

    def _submit(self, tasks: Sequence[Callable[[], Any]], **options: Any) -> list[Future[Any]]:
        return self._client.map(functools.partial(_on_worker, self._submitter), tasks, pure=False, **options)

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
    alive, results = _alive(), []
    for item in items:
        alive()
        results.append(job(item))
    return results


def _interruptible(job: Callable[[T, Callable[[], None]], R], item: T) -> R:
    return job(item, _alive())


def _alive() -> Callable[[], None]:
    """A function that raises InterruptedError when this task's result is no longer needed."""
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def alive() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return alive
