"""`map` on supervised processes, with results in order.  raw -> [tracks, crops] -> features

Readers of raw files call `ordered_map`. It gives the items to a `Pool` in groups, and holds results
back until the earlier ones have come (`_OrderedResults`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from pipeline.processes import MEMORY, POLL_INTERVAL, TIMEOUT, Failed
from pipeline.processes.pool import Pool, Result

T = TypeVar("T")
R = TypeVar("R")

MAX_AHEAD: Final = 16  # items that are sent to a process ahead
AHEAD_TIME: Final = 0.1  # s: their intended run time
# A poll waits for results up to POLL_INTERVAL if they are needed. If not, polls are this far apart:
MIN_POLL_GAP: Final = 0.01  # s
MAX_WAITING: Final = 1 << 26  # bytes of results per process that wait for an earlier result


def ordered_map(
    job: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    *,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    same_group: Callable[[T, T], bool] = lambda one, other: False,  # noqa: ARG005
    preload: Callable[[], object] | None = None,
    on_wait: Callable[[int, str], None] = lambda index, done: None,  # noqa: ARG005
) -> Iterator[R | Failed]:
    """Yield `job(item)` for each item, in order, computed by up to `workers` supervised processes,
    never by this one. `job`, items and results must be picklable.

    The result of an item is `Failed` if a process makes no progress at it for `timeout` s, or if
    two processes, the second one fresh, crash at it or need more than `memory` bytes. An exception
    of the job is raised here, in order, with the process's traceback as a note.

    No item starts while more than `MAX_WAITING` bytes of results per process wait for an earlier
    one.

    Args:
        same_group: whether one process should run both of two neighbouring items, which share a
            file, for example.
        preload: see `Process`.
        on_wait: called each second in which the result of an item is awaited, with its index, and
            how much of it is done (`Pulse.done`), if its process tells that.

    Processes start when the first result is requested. All have ended after the last result, an
    error, Ctrl-C, or `close`. Raises PipelineError if processes cannot start.
    """
    ordered = _OrderedResults[T, R](items, same_group, MAX_WAITING * workers)
    works = [functools.partial(_run_item, job)] * workers
    with Pool[tuple[int, T], R](
        works, ordered.groups(), ahead=1, timeout=timeout, memory=memory, preload=preload
    ) as pool:
        for _ in items:
            result = ordered.next_result(pool, on_wait)
            if result.seconds:
                # short tasks are sent ahead, but not so many that other processes lack work
                for_a_while = AHEAD_TIME / result.seconds
                fair_share = (len(items) - ordered.n_grouped) / (2 * workers)
                pool.ahead = max(1, int(min(MAX_AHEAD, for_a_while, fair_share)))
            yield result.get()


def _run_item(job: Callable[[T], R], task: tuple[int, T]) -> R:
    """The work of `ordered_map`, whose tasks are items with their index."""
    _, item = task
    return job(item)


class _OrderedResults(Generic[T, R]):
    """The two ends of `ordered_map`: groups of items, as jobs for a pool, and results in order.

    One process should run all items of a group, which are neighbours. An item with its index is a
    task. If too many bytes of results wait for an earlier one, groups pause. The item whose result
    is awaited never pauses.

    `next_result` polls the pool, and the pool, while it is polled, takes tasks from `groups`.
    """

    def __init__(
        self, items: Sequence[T], same_group: Callable[[T, T], bool], max_waiting: int
    ) -> None:
        self._items = items
        self._same_group = same_group
        self._max_waiting = max_waiting
        self._results: dict[int, Result[tuple[int, T], R]] = {}  # by the index of the item
        self._waiting = 0  # about the bytes of `_results`; a `Failed` counts as 2
        self._awaited = 0  # index of the item whose result is returned next
        self._polled = 0.0  # time of the last poll, s
        self.n_grouped = 0  # number of items in the groups that the pool has got so far

    def groups(self) -> Iterator[Iterator[tuple[int, T] | None]]:
        """Yield the groups, each as an iterator of its tasks."""
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
        """Yield the tasks of a group, or None while too many results wait."""
        for index in range(start, stop):
            while index > self._awaited and self._waiting > self._max_waiting:
                yield None
            yield index, self._items[index]

    def next_result(
        self, pool: Pool[tuple[int, T], R], on_wait: Callable[[int, str], None]
    ) -> Result[tuple[int, T], R]:
        """Wait for the result of the next item. on_wait: as in `ordered_map`."""
        # also if the result has come: processes wait for tasks
        if time.monotonic() - self._polled > MIN_POLL_GAP:
            self._poll(pool, 0)
        while self._awaited not in self._results:
            self._poll(pool, POLL_INTERVAL)
            done = pool.done((self._awaited, self._items[self._awaited]))
            if done:
                on_wait(self._awaited, done)
        result = self._results.pop(self._awaited)
        self._waiting -= len(result.outcome)
        self._awaited += 1
        return result

    def _poll(self, pool: Pool[tuple[int, T], R], patience: float) -> None:
        """Keep the results that come within `patience` s."""
        self._polled = time.monotonic()
        for result in pool.poll(patience):
            self._results[result.task[0]] = result
            self._waiting += len(result.outcome)
