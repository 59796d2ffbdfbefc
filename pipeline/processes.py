"""Work for several processes, this one among them: results in order, bounded memory, none that outlives its work.

A new process takes half a second to import what it needs, and a body model takes seconds to load. So this process
begins alone, sees how long an item takes, starts others when enough is left for that, goes on meanwhile, and takes its
share of the work beside them.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from joblib.externals.loky import get_reusable_executor

T = TypeVar("T")
R = TypeVar("R")

START_UP: Final = 0.5  # s until a new process has imported what it needs
PATIENCE: Final = 2.0  # times what starting costs: that much must be left to do, or other processes do not pay
TOGETHER: Final = 8  # items in a parcel, at most: handing one over costs as much as reading a short video
PARCELS: Final = 4  # a process, between being given out and being taken, at most
PARCEL_BYTES: Final = 1 << 22  # of results, in a parcel
IDLE: Final = 10.0  # s that processes wait for more: the next split often comes at once
HAND_OVER: Final = 2.0  # s, at most, that an end waits for parcels on their way: a broken pool takes none any more
LOOK_EVERY: Final = 1.0  # s between looks at whether the parent is still there
# Processes end when they have been idle for a while, which may be just when something comes: others are started then.
# loky warns of it in the thread that looks after all of them, and where warnings are errors, that thread would end.
STOPPED: Final = "A worker stopped while some jobs were given to the executor"
# The processes are the parallelism: threads of their libraries would only be in each other's way.
ONE_THREAD: Final = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

warnings.filterwarnings("ignore", message=STOPPED, category=UserWarning)


def in_processes(
    job: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    *,
    kin: Callable[[T, T], bool] = lambda a, b: False,  # noqa: ARG005 - nobody is anybody's
    size: Callable[[R], int] = lambda result: 1,  # noqa: ARG005 - too small to count
) -> Iterator[R]:
    """`map` by this process and up to `workers` - 1 others. `job` and what goes in and out of it must be picklable.

    `kin` says of two neighbouring items that one process should do both, for something that it would otherwise have to
    load twice; `size` says how many bytes a result has, since results that cannot be taken yet have to be kept.
    """
    first, rest, done, n_bytes = 0.0, 0.0, 0, 0  # s of the first item, which may have to load something, and of others
    while done < len(items) and (workers == 1 or not _are_worth_starting(first, rest, done, len(items))):
        began = time.perf_counter()
        result = job(items[done])
        took = time.perf_counter() - began
        first, rest = (took, 0.0) if done == 0 else (first, rest + took)
        done += 1
        n_bytes += size(result)
        yield result
    if done < len(items):
        left = items[done:]
        each = max(1, n_bytes // max(1, done))
        together = max(1, min(TOGETHER, len(left) // (PARCELS * workers), PARCEL_BYTES // each))
        ahead = PARCELS * workers * together
        yield from _with_others(job, deque(_parcels(left, together, kin)), workers, ahead)


def _are_worth_starting(first: float, rest: float, done: int, n: int) -> bool:
    """Whether other processes pay, from the seconds that the first of `n` items took and the others done so far."""
    if not PATIENCE:
        return True
    return done >= 2 and rest / (done - 1) * (n - done) > PATIENCE * (START_UP + first)


@dataclass(slots=True, eq=False)
class _Parcel(Generic[T, R]):
    """Items that one process does, and what becomes of them: a future for results of another process, or our own."""

    items: Sequence[T]
    future: Future[list[R]] | None = None
    results: list[R] | None = None

    @property
    def has_begun(self) -> bool:
        return self.future is not None or self.results is not None

    @property
    def is_away(self) -> bool:
        return self.future is not None and not self.future.done()

    def take(self) -> list[R]:
        """The results, waited for when another process is at them. Raises what the job raised there."""
        if self.future is not None:
            return self.future.result()
        if self.results is None:
            raise AssertionError("nobody began with this parcel")
        return self.results


def _parcels(items: Sequence[T], together: int, kin: Callable[[T, T], bool]) -> Iterator[Sequence[T]]:
    """Neighbours in parcels of `together`, more where that would part kin."""
    start = 0
    for stop in range(1, len(items) + 1):
        if stop == len(items) or (stop - start >= together and not kin(items[stop - 1], items[stop])):
            yield items[start:stop]
            start = stop


def _with_others(job: Callable[[T], R], parcels: deque[Sequence[T]], workers: int, ahead: int) -> Iterator[R]:
    """The results of all parcels, in order. At most `ahead` items are given out before the first of them is taken."""
    guarded = functools.partial(_guarded, job, os.getpid())
    pool = get_reusable_executor(max_workers=workers - 1, timeout=IDLE, env=ONE_THREAD)
    ready = pool.submit(guarded, ())
    window: deque[_Parcel[T, R]] = deque()
    try:
        while parcels and not _is_there(ready):
            yield from map(job, parcels.popleft())
        while parcels or window:
            while parcels and (len(window) <= workers or _n_items(window) + len(parcels[0]) <= ahead):
                window.append(_Parcel(parcels.popleft()))
            _give_away(window, 2 * workers - 1, lambda items: pool.submit(guarded, items))
            if not (window[0].is_away and _help(job, window)):
                yield from window.popleft().take()
    except BaseException:  # of the job, of the one who takes the results, or Ctrl-C: nobody waits for the others
        _end(pool, [ready, *(parcel.future for parcel in window if parcel.future is not None)])
        raise


def _n_items(window: Iterable[_Parcel[T, R]]) -> int:
    return sum(len(parcel.items) for parcel in window)


def _is_there(ready: Future[Any]) -> bool:
    """Whether the first of the other processes has come so far that it can work."""
    return ready.done()


def _give_away(window: Iterable[_Parcel[T, R]], most: int, submit: Callable[[Sequence[T]], Future[list[R]]]) -> None:
    """Parcels that nobody has begun with to the others, the first ones first, until they have `most`."""
    away = sum(parcel.is_away for parcel in window)
    for parcel in window:
        if away >= most:
            return
        if not parcel.has_begun:
            parcel.future = submit(parcel.items)
            away += 1


def _help(job: Callable[[T], R], window: Iterable[_Parcel[T, R]]) -> bool:
    """Do the first parcel that nobody has begun with; False when there is none."""
    parcel = next((parcel for parcel in window if not parcel.has_begun), None)
    if parcel is None:
        return False
    parcel.results = [job(item) for item in parcel.items]
    return True


def _end(pool: Any, futures: Sequence[Future[Any]]) -> None:
    """Kill the other processes."""
    # What is only on its way to a process would make loky's own thread fail. There is room for all of it in its queue
    # (two for each process, and one), so that takes no time.
    latest = time.monotonic() + HAND_OVER
    while time.monotonic() < latest and not all(future.running() or future.done() for future in futures):
        time.sleep(0.001)
    pool.shutdown(wait=False, kill_workers=True)


def _guarded(job: Callable[[T], R], parent: int, parcel: Sequence[T]) -> list[R]:
    _end_with(parent)
    return [job(item) for item in parcel]


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent was killed; by itself it would wait for another task."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
