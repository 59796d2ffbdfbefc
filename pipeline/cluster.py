"""A Dask cluster that the user has started: jobs for its workers, and their results.  raw -> tracks -> features

Dask gives the tasks of a lost worker to another, and ends a task that several workers died at. Results stay on the
workers until they are taken. Nothing here imports Dask before a scheduler is named.
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
TOGETHER: Final = 8  # items in a task, at most: handing one over costs as much as reading a short video
WINDOW: Final = 4  # tasks for each worker that are submitted and whose results are not taken, at most
LIBRARIES: Final = ("vibe-pipeline", "numpy", "opencv-python", "torch")  # that the numbers in the cache depend on
START: Final = "Start one (docs/operations.md), name another address, or leave it out to use this machine alone."
AGAIN: Final = "Finished shards are kept: run the same command again."


@contextlib.contextmanager
def connected(scheduler: str, shared: Path | None = None) -> Iterator[Workers]:
    """The workers of the cluster at `scheduler`. `shared`: a file or folder that all of them must see.

    Raises as `client_at` does, and PipelineError where there is no worker for PATIENCE seconds, now or later, where one
    has other libraries or does not see the file, and where several died at the same task.
    """
    with client_at(scheduler) as client:
        yield Workers(client, shared)


def map_on_workers(
    scheduler: str,
    job: Callable[[T], R],
    items: Sequence[T],
    shared: Path | None = None,
    *,
    same_group: Callable[[T, T], bool] = lambda one, other: False,  # noqa: ARG005
) -> Iterator[R]:
    """`map` by the workers of the cluster at `scheduler`: results in the order of the items, an error of the job as is.

    `same_group`: should one worker do both of two neighbouring items? A bounded number of results waits to be taken.
    When no more results are taken, tasks are cancelled. Raises what `connected` raises.
    """
    if items:
        with connected(scheduler, shared) as workers:
            yield from workers.map(job, items, same_group)


@contextlib.contextmanager
def client_at(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at an address, as tcp://host:8786, or of a scheduler file.

    Raises ConfigError where the address is not valid, PipelineError where no scheduler answers for PATIENCE seconds,
    and, from the block, when the scheduler goes away.
    """
    import distributed

    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # lost workers and schedulers are reported here
    try:
        # Not as the default: what else this process computes with Dask stays here. Results come straight from workers.
        options: dict[str, Any] = {"timeout": PATIENCE, "set_as_default": False, "direct_to_workers": True}
        client = distributed.Client(**_address(scheduler), **options)
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{scheduler}: {expected}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{scheduler}: no Dask scheduler answers there, after {PATIENCE:.0f} s ({error}). {START}"
        ) from error
    try:
        yield client
    except CancelledError as error:
        raise _gone(scheduler) from error
    finally:
        with contextlib.suppress(TimeoutError):  # of a scheduler that has gone
            client.close()
        log.setLevel(level)


def _gone(address: str) -> PipelineError:
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def _address(scheduler: str) -> Mapping[str, str]:
    """Return a client's arguments: an address, or a scheduler file. Waits for a file that is not written yet."""
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
    """The workers of one cluster, each of which does one task at a time."""

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
        """Return the number of workers now. Raises PipelineError after PATIENCE seconds without any."""
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
                f"Start some (docs/operations.md), or wait until those that are queued have started. {AGAIN}"
            )
        return n

    def run_one(self, job: Callable[[], R]) -> R:
        """Run a job on one worker, with a GPU where there are such, and return its result. Raises what it raises."""
        (future,) = futures = self._submit([job], **self._gpu)
        try:
            result: R = self._result(future)
        finally:
            self._cancel(futures)
        return result

    def as_completed(self, job: Callable[[T, Callable[[], None]], R], items: Sequence[T]) -> Iterator[R]:
        """What `job(item, alive)` returns, in any order. It is tried once more when it raises.

        `alive` is to be called often: it ends a task whose result is no longer needed. Where workers offer the resource
        GPU, only those take part.
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
        """What `job(item)` returns, in order. See `map_on_workers`."""
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
        """What a task returned, waited for as long as there are workers. Raises what it raised."""
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
                f"{error.last_worker.address}. Most likely memory ran out: see its log. Start fewer workers on each "
                f"machine, or give them more memory. {AGAIN}"
            ) from error

    def _cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Cancel tasks. What is running on a worker goes on until it calls `alive` or ends."""
        if self._client.status == "running" and futures:
            with contextlib.suppress(OSError, TimeoutError):
                self._client.cancel(list(futures), force=True)


# ------------------------------------------------------------------------------------------------- done by the workers

_one_task: Final = threading.Lock()  # a worker's threads share its folder, and readers are not made for several


@dataclass(frozen=True)
class _Submitter:
    """The process that submits tasks."""

    versions: tuple[str, ...]
    folder: Path  # that relative paths start from
    shared: Path | None


def _versions() -> tuple[str, ...]:
    """Of Python and of LIBRARIES, each with its name."""
    return (f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in LIBRARIES))


def _on_worker(submitter: _Submitter, task: Callable[[], R]) -> R:
    """Run a task in the folder of the process that submitted it."""
    with _one_task, contextlib.chdir(submitter.folder) if submitter.folder.is_dir() else contextlib.nullcontext():
        _require(submitter)
        return task()


@functools.cache  # of a worker that has all: what another one is missing may be repaired
def _require(submitter: _Submitter) -> None:
    """Raise PipelineError where this worker has other libraries, or does not see the shared file."""
    from distributed import get_worker

    at = f"Dask worker at {get_worker().address}"
    for expected, version in zip(submitter.versions, _versions(), strict=True):
        if version != expected:
            raise PipelineError(f"{at}: expected {expected}, as here, found {version}. Give it the same environment.")
    if submitter.shared is not None and not submitter.shared.exists():
        raise PipelineError(f"{at}: {submitter.shared}: not found. It must be shared, under the same path.")


def _each(job: Callable[[T], R], items: Sequence[T]) -> list[R]:
    alive, results = _alive(), []
    for item in items:
        alive()
        results.append(job(item))
    return results


def _interruptible(job: Callable[[T, Callable[[], None]], R], item: T) -> R:
    return job(item, _alive())


def _alive() -> Callable[[], None]:
    """Return a function that raises InterruptedError when this task's result is no longer needed."""
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def alive() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return alive
