"""`map` by a pool of supervised processes, with results in order.  raw -> [tracks]

If processes crash, hang or need too much memory at an item, only that item fails.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from pipeline.processes import LOOK, MEMORY, TIMEOUT, Failed
from pipeline.processes.pool import Pool, TaskResult

T = TypeVar("T")
R = TypeVar("R")

AHEAD: Final = 16  # most items that are sent to a process ahead
AHEAD_TIME: Final = 0.1  # s: their intended run time
POLL_EVERY: Final = 0.01  # s
WAITING: Final = 1 << 26  # most bytes of results per process that wait for an earlier result


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
    """`map` by up to `workers` supervised processes, never by this one. `job`, items and results must be picklable.

    Results come in the order of the items. No item starts while more than `WAITING` bytes per process wait for an
    earlier result. An item becomes `Failed` if a process makes no progress at it for `timeout` s, or if two processes,
    the second one fresh, crash at it or need more than `memory` bytes. An exception of the job is raised here, in
    order, with the process's traceback as a note.

    Args:
        same_group: whether one process should run both of two neighbouring items, which share a file, for example.
        preload: see `Process`.

    Processes start one after the other, while there are more items than they can take. All have ended after the last
    result, an error, Ctrl-C, or `close`. Raises PipelineError if processes cannot start.
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
    def __init__(self, items: Sequence[T], same_group: Callable[[T, T], bool], most_waiting: int) -> None:
        self._items, self._same_group, self._most_waiting = items, same_group, most_waiting
        self._results: dict[int, TaskResult[tuple[int, T], R]] = {}
        self._waiting = 0  # bytes of `_results`
        self._awaited = 0  # the item whose result is returned next
        self._polled = 0.0
        self.next = 0  # the first item of the next group

    def jobs(self) -> Iterator[Iterator[tuple[int, T] | None] | None]:
        """Yield groups of items; one process runs all items of a group."""
        items = self._items
        while self.next < len(items):
            start = self.next
            while self._has_to_wait(start):
                yield None
            self.next += 1
            while self.next < len(items) and self._same_group(items[self.next - 1], items[self.next]):
                self.next += 1
            yield self._group(start, self.next)

    def _group(self, start: int, stop: int) -> Iterator[tuple[int, T] | None]:
        for index in range(start, stop):
            while self._has_to_wait(index):
                yield None
            yield index, self._items[index]

    def _has_to_wait(self, index: int) -> bool:
        return index > self._awaited and self._waiting > self._most_waiting

    def result(self, index: int, pool: Pool[tuple[int, T], R]) -> TaskResult[tuple[int, T], R]:
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
