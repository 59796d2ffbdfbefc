"""`map` over the workers of a Dask cluster: results in order, bounded memory.  [raw -> tracks] -> features -> windows

Dask gives parcels of items to workers, and those of a lost worker to another. Results stay on the workers until their
turn comes: this process holds one parcel at a time, whatever there is to do.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.cluster.connection import AGAIN, Watch, await_workers, call_off, connected, outcome
from pipeline.cluster.needs import Needs, require
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

TOGETHER: Final = 8  # items in a parcel, at most: handing one over costs as much as reading a short video
PARCELS: Final = 4  # for each worker, between being given out and being taken, at most
PARCEL_BYTES: Final = 1 << 22  # of results, in a parcel


def map_on_workers(
    scheduler: str,
    job: Callable[[T], R],
    items: Sequence[T],
    needs: Needs,
    *,
    kin: Callable[[T, T], bool] = lambda a, b: False,  # noqa: ARG005 - nobody is anybody's
    size: Callable[[R], int] = lambda result: 1,  # noqa: ARG005 - too small to count
) -> Iterator[R]:
    """`map` by the workers of the cluster at `scheduler`, as `pipeline.processes.ordered_map` does it on one machine.

    Results come in the order of the items; an error of the job comes as it is. Whoever stops taking them takes back
    what is out. Raises PipelineError where scheduler or workers are not there or not fit, and when the same items
    have cost several workers their lives.
    """
    if not items:
        return
    with connected(scheduler) as client:
        require(client, needs, await_workers(client))
        yield from _in_order(client, _Job(job, needs), items, kin, size)


class _Job:
    """What a worker does with a parcel."""

    def __init__(self, job: Callable[[T], R], needs: Needs) -> None:
        self._job, self._needs = job, needs

    def __call__(self, parcel: Sequence[T]) -> list[R]:
        with self._needs.fulfilled():
            return [self._job(item) for item in parcel]  # type: ignore[arg-type, misc]


def _in_order(
    client: Client, job: _Job, items: Sequence[T], kin: Callable[[T, T], bool], size: Callable[[R], int]
) -> Iterator[R]:
    watch, run = Watch(client), uuid.uuid4().hex
    window: deque[Future[list[R]]] = deque()
    given, taken, n_bytes = 0, 0, 0
    try:
        while given < len(items) or window:
            n_workers = max(1, len(watch.look()))
            while given < len(items) and len(window) < PARCELS * n_workers:
                each = max(1, n_bytes // max(1, taken))
                most = min(TOGETHER, (len(items) - given) // (PARCELS * n_workers), PARCEL_BYTES // each)
                stop = _end_of_parcel(items, given, max(1, most if taken else 1), kin)
                key = f"read-{run}-{given}"
                window.append(client.submit(job, items[given:stop], key=key, pure=False))
                given = stop
            for result in _take(window[0], watch):
                taken, n_bytes = taken + 1, n_bytes + size(result)
                yield result
            window.popleft()
    finally:
        call_off(client, window)


def _end_of_parcel(items: Sequence[T], start: int, together: int, kin: Callable[[T, T], bool]) -> int:
    """Where the parcel ends that begins at `start`: after `together` items, later where that would part kin."""
    stop = min(start + together, len(items))
    while stop < len(items) and kin(items[stop - 1], items[stop]):
        stop += 1
    return stop


def _take(future: Future[list[R]], watch: Watch) -> list[R]:
    """The results of one parcel, waited for as long as there are workers. Raises what the job raised."""
    from distributed import KilledWorker

    try:
        results: list[R] = outcome(future, watch)
    except KilledWorker as error:
        raise PipelineError(
            f"{watch.address}: several workers died one after the other while they read the same videos, the last one "
            f"at {error.last_worker.address}. Most likely memory ran out: its log says so. Start fewer workers on each "
            f"machine, or give them more memory. {AGAIN}"
        ) from error
    return results
