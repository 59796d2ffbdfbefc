"""A Dask cluster that the user has started: jobs for its workers, and their results.  raw -> tracks -> features

Dask gives the tasks of a lost worker to another, and ends a task that several workers died at. Results stay on the
workers until they are taken. Nothing here imports Dask before a scheduler is named.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import pickle
import platform
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

PATIENCE: Final = 60.0  # s that a scheduler may take to answer, and that a cluster may have no worker
LOOK_EVERY: Final = 0.5  # s between looks at which workers there are
TOGETHER: Final = 8  # items in a batch, at most: handing one over costs as much as reading a short video
BATCHES: Final = 4  # for each worker, between being given out and being taken, at most
BATCH_BYTES: Final = 1 << 22  # of results, in a batch
REPORTED: Final = 3  # problems of workers that are reported; the others are counted
# Libraries that the numbers in the cache depend on. Others only transport them.
LIBRARIES: Final = ("vibe-pipeline", "numpy", "scipy", "opencv-python", "h5py", "torch", "torchvision", "smplx")
START: Final = "Start one (docs/cluster.md), name another address, or leave it out to use this machine alone."
AGAIN: Final = "Finished shards are kept: run the same command again."


@contextlib.contextmanager
def connected(scheduler: str, shared: Sequence[Path]) -> Iterator[Workers]:
    """The workers of the cluster at `scheduler`. `shared`: files and folders that all of them must see.

    Raises as `client_at` does, and PipelineError where there is no worker for PATIENCE seconds, now or later, where one
    lacks something, and where several died at the same task.
    """
    with client_at(scheduler) as client:
        yield Workers(client, Needs.here(shared))


def map_on_workers(
    scheduler: str,
    job: Callable[[T], R],
    items: Sequence[T],
    shared: Sequence[Path],
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

    Raises ConfigError where Dask's distributed part is not installed or the address is not valid, PipelineError where
    no scheduler answers for PATIENCE seconds, and, from the block, when the scheduler goes away.
    """
    try:
        import distributed
    except ImportError as error:
        install = "pip install 'vibe-pipeline[cluster]'"
        raise ConfigError(f"{scheduler}: a Dask cluster needs Dask's distributed part: {install}") from error
    address, log = _address(scheduler), logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # lost workers and schedulers are reported here
    try:
        # Not as the default: what else this process computes with Dask stays here. Results come straight from workers.
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False, direct_to_workers=True)
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{address}: {expected}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{address}: no Dask scheduler answers there, after {PATIENCE:.0f} s ({error}). {START}"
        ) from error
    try:
        yield client
    except CancelledError as error:
        raise _gone(address) from error
    finally:
        with contextlib.suppress(TimeoutError):  # of a scheduler that has gone
            client.close()
        log.setLevel(level)


def _gone(address: str) -> PipelineError:
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def _address(scheduler: str) -> str:
    """An address as it is; that in a scheduler file, which the scheduler may still have to write."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return scheduler if "://" in scheduler else f"tcp://{scheduler}"
    latest = time.monotonic() + PATIENCE
    while True:
        try:
            return str(json.loads(Path(scheduler).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > latest:
                raise PipelineError(
                    f"{scheduler}: expected the file that `dask scheduler --scheduler-file` writes, found none after "
                    f"{PATIENCE:.0f} s ({type(error).__name__}: {error}). {START}"
                ) from error
        time.sleep(LOOK_EVERY / 2)


@dataclass(frozen=True, slots=True)
class Needs:
    """What every worker must have as this process has it."""

    versions: tuple[tuple[str, str], ...]  # library -> version
    folder: Path  # that relative paths start from
    shared: tuple[Path, ...]  # files and folders

    @classmethod
    def here(cls, shared: Sequence[Path]) -> Self:
        """What this process has."""
        return cls(tuple((name, _version(name)) for name in ("python", *LIBRARIES)), Path.cwd(), tuple(shared))

    def problem(self, threads: int) -> str:
        """What the process that calls this, a worker with so many threads, lacks; "" for nothing."""
        if threads != 1:
            return (
                f"expected 1 thread in each worker, found {threads}: readers of videos do not support several. Start "
                "it with --nthreads 1 --nworkers N, one process for each core or GPU"
            )
        for library, version in self.versions:
            if (found := _version(library)) != version:
                return f"expected {library} {version}, as here, found {found}. Give workers the same environment"
        for path in self.shared:
            if not (self.folder / path).exists():
                return f"{path}: not found. It must be shared, under the same absolute path"
        return ""


def _version(library: str) -> str:
    if library == "python":
        return platform.python_version()
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


class Workers:
    """The workers of one cluster, each of which does one task at a time."""

    def __init__(self, client: Client, needs: Needs) -> None:
        self._client, self._needs = client, needs
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        self._seen = time.monotonic()  # when there was a worker
        while not self.number():
            time.sleep(LOOK_EVERY / 2)
        self._gpu = {"resources": {"GPU": 1}} if self._require_needs() else {}

    def number(self) -> int:
        """How many there are now. Raises PipelineError when there has been none for PATIENCE seconds."""
        try:
            n = len(self._client.nthreads())
        except OSError as error:
            raise _gone(self._address) from error
        now = time.monotonic()
        if n:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise PipelineError(
                f"{self._address}: this Dask scheduler has had no worker for {PATIENCE:.0f} s. "
                f"Start some (docs/cluster.md), or wait until those that are queued have started. {AGAIN}"
            )
        return n

    def run_one(self, job: Callable[[], R]) -> R:
        """What a job returns that any one worker does, one with a GPU where there are such. Raises what it raises."""
        future = self._submit(job, **self._gpu)
        try:
            result: R = self._result(future)
        finally:
            self._cancel([future])
        return result

    def as_completed(self, job: Callable[[T, Callable[[], None]], R], items: Sequence[T]) -> Iterator[R]:
        """What `job(item, alive)` returns, in any order. It is tried once more when it raises.

        `alive` is to be called often: it ends a task whose result is no longer needed. Where workers offer the resource
        GPU, only those take part.
        """
        import distributed

        tasks = (functools.partial(_interruptible, job, item) for item in items)
        futures = [self._submit(task, retries=1, **self._gpu) for task in tasks]
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
        window: deque[Future[list[bytes]]] = deque()
        given, taken, n_bytes = 0, 0, 0
        try:
            while given < len(items) or window:
                n_workers = max(1, self.number())
                while given < len(items) and len(window) < BATCHES * n_workers:
                    each = n_bytes / taken if taken else BATCH_BYTES  # one item in a batch until the size is known
                    most = min(TOGETHER, (len(items) - given) // (BATCHES * n_workers), int(BATCH_BYTES / each))
                    stop = min(given + max(1, most), len(items))
                    while stop < len(items) and same_group(items[stop - 1], items[stop]):
                        stop += 1
                    window.append(self._submit(functools.partial(_pickled, job, items[given:stop])))
                    given = stop
                for result in self._result(window[0]):
                    taken, n_bytes = taken + 1, n_bytes + len(result)
                    yield pickle.loads(result)  # noqa: S301 - a scheduler and its workers are trusted
                window.popleft()
        finally:
            self._cancel(window)

    def _require_needs(self) -> bool:
        """Ask all workers before the first task. Returns whether any of them offers the resource GPU.

        Raises PipelineError for those that lack something. Workers that come later are asked in their first task.
        """
        problems, any_gpu = [], False
        for address, answer in self._client.run(_answer, self._needs, on_error="return").items():
            if isinstance(answer, tuple):
                problem, has_gpu = answer
                any_gpu |= has_gpu
            else:  # OSError: it has gone meanwhile
                problem = "" if isinstance(answer, OSError) else f"{answer!r}. Install this package there, as here"
            problems += [f"Dask worker at {address}: {problem}."] if problem else []
        if problems:
            more = f" And {len(problems) - REPORTED:,} more workers." if len(problems) > REPORTED else ""
            raise PipelineError(" ".join(problems[:REPORTED]) + more)
        return any_gpu

    def _submit(self, task: Callable[[], Any], **options: Any) -> Future[Any]:
        key = f"pipeline-{uuid.uuid4().hex}"
        return self._client.submit(_on_worker, self._needs, task, key=key, pure=False, **options)

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


def _answer(needs: Needs, dask_worker: Any) -> tuple[str, bool]:
    """What the worker lacks, and whether it offers the resource GPU."""
    return needs.problem(dask_worker.state.nthreads), bool(dask_worker.state.total_resources.get("GPU"))


def _on_worker(needs: Needs, task: Callable[[], R]) -> R:
    """A task in the folder of the process that has submitted it."""
    _require_here(needs)
    with contextlib.chdir(needs.folder) if needs.folder.is_dir() else contextlib.nullcontext():
        return task()  # a worker does one task at a time


@functools.cache  # of workers that lack nothing: what another one lacks may be repaired
def _require_here(needs: Needs) -> None:
    from distributed import get_worker

    worker = get_worker()
    if problem := needs.problem(worker.state.nthreads):
        raise PipelineError(f"Dask worker at {worker.address}: {problem}.")


def _pickled(job: Callable[[T], R], items: Sequence[T]) -> list[bytes]:
    return [pickle.dumps(job(item), pickle.HIGHEST_PROTOCOL) for item in items]


def _interruptible(job: Callable[[T, Callable[[], None]], R], item: T) -> R:
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def alive() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return job(item, alive)
