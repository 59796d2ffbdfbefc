"""A map over items by supervised processes: results in order, bounded memory.  raw -> [tracks, crops] -> features

An item whose process crashes, hangs or needs too much memory costs itself alone.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.processes import LOOK, MEMORY, TIMEOUT, Failed, Process, alive, end, sendable

T = TypeVar("T")
R = TypeVar("R")

BATCH: Final = 16  # items that a process is given at once, at most
BATCH_TIME: Final = 0.05  # s that they should take
ROOM: Final = 1 << 16  # bytes that a pipe takes while its reader is busy
WAITING: Final = 1 << 26  # bytes of results for each process that may wait for an earlier one
TRIALS: Final = 2  # processes that may crash or run out of memory at an item; the last has done nothing before
FRUITLESS: Final = 3  # processes in a row that may end before they have begun with anything


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

    Results come in the order of the items; those that wait for an earlier one take at most `WAITING` bytes a process.
    An item at which a process crashes, shows no progress for `timeout` s, or needs more than `memory` bytes, becomes
    `Failed`: after a crash or a lack of memory only at the second process, which has done nothing before. Items that
    such a process had done and not handed over are done again. What the job raises is raised here, in its turn, with
    its traceback there as a note.

    `same_group`: should one process do both of two neighbouring items, since they share something that takes long to
    load? `preload` is called before processes are forked (`Process`). They are started one after the other
    while there is more to do than they can take: none for no items. All of them have ended when the last result has
    been taken, after an error, after Ctrl-C, and when no more results are taken. Raises PipelineError when processes
    cannot even start.
    """
    run = _Map(job, items, workers, timeout, memory, same_group, preload)
    try:
        for index in range(len(items)):
            yield run.result(index)
    finally:
        end(run.processes)


@dataclass(slots=True, eq=False)
class _Map(Generic[T, R]):
    """The parent's side of `ordered_map`. Tasks of its processes are the items' indices."""

    job: Callable[[T], R]
    items: Sequence[T]
    most: int  # processes
    timeout: float
    memory: int
    same_group: Callable[[T, T], bool]
    preload: Callable[[], object] | None
    processes: list[Process] = field(default_factory=list)
    next: int = 0  # the first item that no process has been given
    again: deque[int] = field(default_factory=deque)  # to be given again
    results: dict[int, bytes | Failed] = field(default_factory=dict)  # pickled
    waiting: int = 0  # bytes of them
    seconds: float = BATCH_TIME  # that an item took recently
    trials: Counter[int] = field(default_factory=Counter)
    fruitless: int = 0
    looked: float = 0.0

    def result(self, index: int) -> R | Failed:
        """Of one item. They must be asked for in order."""
        if time.monotonic() - self.looked > BATCH_TIME / 5:
            self._look(index, 0)  # also when the result is there: others wait for something to do
        while index not in self.results:
            self._look(index, LOOK if len(self.processes) == self.most else 0.01)
        result = self.results.pop(index)
        if isinstance(result, Failed):
            return result
        self.waiting -= len(result)
        done, error = pickle.loads(result)  # noqa: S301 - of our own process
        if error is not None:
            raise error
        return done  # type: ignore[no-any-return]

    def _look(self, index: int, patience: float) -> None:
        """Give out what can be given, take what has been answered, replace processes that have ended or hang."""
        self.looked = time.monotonic()
        self._give()
        # What cannot be taken yet stays with the processes when there is too much of it here.
        room = self.waiting < WAITING * self.most
        heard = [process for process in self.processes if process.given and (room or index in process.given)]
        ready = wait([process.pipe for process in heard], patience)
        for process in heard:
            answer = process.answer(ready, self.timeout)
            if isinstance(answer, Failed):
                self._replace(process, answer)
            elif answer is not None:
                seconds, results = answer
                for result in results:
                    self.results[process.given.popleft()] = result
                    self.waiting += len(result)
                self.seconds, self.fruitless = seconds / len(results), 0

    def _give(self) -> None:
        left = len(self.again) + len(self.items) - self.next
        size = max(1, int(min(BATCH, BATCH_TIME / max(self.seconds, 1e-6), left / (2 * self.most))))
        for most in (0, size) if size > 1 or len(self.processes) == self.most else (0,):
            for process in self.processes:
                if len(process.given) <= most:
                    self._send(process, self._batch(size))
        if len(self.processes) < self.most and all(process.pulse for process in self.processes):
            self._send(None, self._batch(size))

    def _batch(self, size: int) -> list[int]:
        """The next items that one process should do."""
        if self.again:
            return [self.again.popleft() for _ in range(min(size, len(self.again)))]
        start, self.next = self.next, min(len(self.items), self.next + size)
        items = self.items
        while start < self.next < len(items) and self.same_group(items[self.next - 1], items[self.next]):
            self.next += 1
        return list(range(start, self.next))

    def _send(self, process: Process | None, batch: Sequence[int]) -> None:
        """Give a process, by default a new one, what it should do."""
        if not batch:
            return
        if process is None:
            process = Process(_work, self.job, preload=self.preload, memory=self.memory)
            self.processes.append(process)
        message = pickle.dumps([(index, self.items[index]) for index in batch], pickle.HIGHEST_PROTOCOL)
        if process.given and len(message) > ROOM:  # it may be sending, too: both would wait for ever
            self.again.extendleft(reversed(batch))
        else:
            process.give(batch, message)

    def _replace(self, process: Process, ended: Failed) -> None:
        """Have done again what a process has not answered, but for an item at which processes end."""
        at = process.at
        self.processes.remove(process)
        self.again.extendleft(index for index in reversed(process.given) if index != at)
        if at in process.given:
            self.trials[at] += TRIALS if ended.reason == "reader_timeout" else 1
            if self.trials[at] < TRIALS:
                self._send(None, [at])
            else:
                self.results[at] = ended
            return
        self.fruitless += 1
        if self.fruitless == FRUITLESS:
            raise PipelineError(
                f"processes that read files cannot start: the last one {ended.message}. What it wrote is above. "
                "Finished shards are kept: run it again when that is repaired."
            )


def _work(pipe: Connection[Any, Any], job: Callable[[Any], Any]) -> None:
    """A process of `ordered_map`: answer batches of items with their results, until the parent closes the pipe."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            batch = pipe.recv()
            results, began = [], time.perf_counter()
            for index, item in batch:
                alive(index)
                try:
                    results.append(pickle.dumps((job(item), None), pickle.HIGHEST_PROTOCOL))
                except MemoryError:
                    raise
                except Exception as error:
                    results.append(pickle.dumps((None, sendable(error, "In a process of its own"))))
                took = time.perf_counter() - began
                if took >= BATCH_TIME or index == batch[-1][0]:
                    pipe.send((took, results))
                    results, began = [], time.perf_counter()
            alive(-1)
