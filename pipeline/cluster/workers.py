"""Jobs for the workers of a Dask cluster, and their results.  [raw -> tracks] -> features -> windows

Dask gives the tasks of a lost worker to another, and ends a task that several workers died at. Results stay on the
workers until they are taken.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pipeline.cluster import connection
from pipeline.cluster.connection import AGAIN, Needs, client_at, gone, require
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

LOOK_EVERY: Final = 0.5  # s between checks which workers there are
TOGETHER: Final = 8  # items in a batch, at most: handing one over costs as much as reading a short video
BATCHES: Final = 4  # for each worker, between being given out and being taken, at most
BATCH_BYTES: Final = 1 << 22  # of results, in a batch


@contextmanager
def connected(scheduler: str, shared: Sequence[Path]) -> Iterator[Workers]:
    """The workers of the cluster at `scheduler`. `shared`: files and folders that all of them must see.

    Raises as `client_at` does, and PipelineError where there is no worker for PATIENCE seconds, now or later, where one
    lacks something, and where several died at the same task.
    """
    with client_at(scheduler) as client:
        yield Workers(client, Needs.here(shared))


class Workers:
    """The workers of one cluster, each of which does one task at a time."""

    def __init__(self, client: Client, needs: Needs) -> None:
        self._client, self._needs = client, needs
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        self._seen = time.monotonic()  # when there was a worker
        while not self.number():
            time.sleep(connection.TRY_EVERY)
        self._gpu = {"resources": {"GPU": 1}} if require(client, needs) else {}

    def number(self) -> int:
        """How many there are now. Raises PipelineError when there has been none for PATIENCE seconds."""
        try:
            n = len(self._client.nthreads())
        except OSError as error:
            raise gone(self._address) from error
        now = time.monotonic()
        if n:
            self._seen = now
        elif now - self._seen > connection.PATIENCE:
            raise PipelineError(
                f"{self._address}: this Dask scheduler has had no worker for {connection.PATIENCE:.0f} s. "
                f"Start some (docs/cluster.md), or wait until those that are queued have started. {AGAIN}"
            )
        return n

    def run_one(self, job: Callable[[], R]) -> R:
        """What a job returns that any one worker does, one with a GPU where there are such. Raises what it raises."""
        future = self._submit(_One(job), None, **self._gpu)
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

        futures = [self._submit(_Interruptible(job), item, retries=1, **self._gpu) for item in items]
        completed = distributed.as_completed(futures, loop=self._client.loop)
        try:
            while completed.count():
                for future in completed.next_batch(block=False):
                    yield self._result(future)
                self.number()
                time.sleep(LOOK_EVERY / 5)
        finally:
            self._cancel(futures)

    def map(
        self, job: Callable[[T], R], items: Sequence[T], same_group: Callable[[T, T], bool], size: Callable[[R], int]
    ) -> Iterator[R]:
        """What `job(item)` returns, in order. See `map_on_workers`."""
        window: deque[Future[list[R]]] = deque()
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
                    window.append(self._submit(_Batch(job), items[given:stop]))
                    given = stop
                for result in self._result(window[0]):
                    taken, n_bytes = taken + 1, n_bytes + max(1, size(result))
                    yield result
                window.popleft()
        finally:
            self._cancel(window)

    def _submit(self, job: Callable[[Any], Any], item: Any, **options: Any) -> Future[Any]:
        task = _Task(self._needs, job)
        return self._client.submit(task, item, key=f"pipeline-{uuid.uuid4().hex}", pure=False, **options)

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
            with suppress(OSError, TimeoutError):
                self._client.cancel(list(futures), force=True)


def map_on_workers(
    scheduler: str,
    job: Callable[[T], R],
    items: Sequence[T],
    shared: Sequence[Path],
    *,
    same_group: Callable[[T, T], bool] = lambda one, other: False,  # noqa: ARG005
    size: Callable[[R], int] = lambda result: 1,  # noqa: ARG005
) -> Iterator[R]:
    """`map` by the workers of the cluster at `scheduler`: results in the order of the items, an error of the job as is.

    `same_group` says of two neighbouring items that one worker should do both; `size` is the bytes of a result, of
    which a bounded number waits to be taken. When no more results are taken, tasks are cancelled. Raises what
    `connected` raises.
    """
    if items:
        with connected(scheduler, shared) as workers:
            yield from workers.map(job, items, same_group, size)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a worker does with an item."""

    needs: Needs
    job: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        with self.needs.fulfilled():
            return self.job(item)


@dataclass(frozen=True, slots=True)
class _One(Generic[R]):
    job: Callable[[], R]

    def __call__(self, _: object) -> R:
        return self.job()


@dataclass(frozen=True, slots=True)
class _Batch(Generic[T, R]):
    job: Callable[[T], R]

    def __call__(self, items: Sequence[T]) -> list[R]:
        return [self.job(item) for item in items]


@dataclass(frozen=True, slots=True)
class _Interruptible(Generic[T, R]):
    job: Callable[[T, Callable[[], None]], R]

    def __call__(self, item: T) -> R:
        from distributed import get_worker

        worker: Any = get_worker()
        key = worker.get_current_task()

        def alive() -> None:
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                raise InterruptedError("its result is no longer needed")

        return self.job(item, alive)
