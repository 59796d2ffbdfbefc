"""`map` by a pool of supervised processes, in order.  raw -> [tracks]

An item whose process crashes, hangs or needs too much memory costs itself alone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from pipeline.processes import LOOK, MEMORY, TIMEOUT, Failed
from pipeline.processes.pool import Pool, Result

T = TypeVar("T")
R = TypeVar("R")

AHEAD: Final = 16  # items that a process is given at once, at most
AHEAD_TIME: Final = 0.1  # s that they should take
POLL_EVERY: Final = 0.01  # s
WAITING: Final = 1 << 26  # bytes of results for each process that may wait for an earlier one


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

    Results come in the order of the items; no item is begun while more than `WAITING` bytes a process wait for an
    earlier one. An item at which two processes, the second of which has done nothing before, crash, show no progress
    for `timeout` s, or need more than `memory` bytes, becomes `Failed`. What the job raises is raised here, in its
    turn, with its traceback there as a note.

    `same_group`: should one process do both of two neighbouring items, since they share something that takes long to
    load? `preload` is called before processes are forked (`Process`). They are started one after the other
    while there is more to do than they can take: none for no items. All of them have ended when the last result has
    been taken, after an error, after Ctrl-C, and when no more results are taken. Raises PipelineError when processes
    cannot even start.
    """
    ordered: _Ordered[T, R] = _Ordered(items, same_group, WAITING * workers)
    works = [functools.partial(_of_item, job)] * workers
    with Pool[tuple[int, T], R](
        works, ordered.jobs(), ahead=1, timeout=timeout, memory=memory, preload=preload
    ) as pool:
        for index in range(len(items)):
            result = ordered.result(index, pool)
            if result.seconds:
                fair = (len(items) - ordered.next) / (2 * workers)
                pool.ahead = max(1, int(min(AHEAD, AHEAD_TIME / result.seconds, fair)))
            yield result.get()


def _of_item(job: Callable[[T], R], task: tuple[int, T]) -> R:
    return job(task[1])


class _Ordered(Generic[T, R]):
    """Items as tasks, and results in their order."""

    def __init__(self, items: Sequence[T], same_group: Callable[[T, T], bool], most_waiting: int) -> None:
        self._items, self._same_group, self._most_waiting = items, same_group, most_waiting
        self._results: dict[int, Result[tuple[int, T], R]] = {}
        self._waiting = 0  # bytes of them
        self._awaited = 0  # the item whose result is taken next
        self._polled = 0.0
        self.next = 0  # the first item of the next group

    def jobs(self) -> Iterator[Iterator[tuple[int, T] | None] | None]:
        """Groups of items that one process does."""
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

    def result(self, index: int, pool: Pool[tuple[int, T], R]) -> Result[tuple[int, T], R]:
        """Of one item. They must be requested in order."""
        self._awaited = index
        if time.monotonic() - self._polled > POLL_EVERY:
            self._poll(pool, 0)  # also when the result is there: processes wait for something to do
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
