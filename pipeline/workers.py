"""Worker processes: results in order, bounded memory, and no process that outlives its work."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

import joblib

T = TypeVar("T")
R = TypeVar("R")

AHEAD: Final = 32  # items a worker, at most, between being given out and being taken
LOOK_EVERY: Final = 1.0  # s between a worker's looks at whether its parent is still there


def in_processes(job: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map` over worker processes. `job` and what goes in and out of it must be picklable."""
    guarded = functools.partial(_guarded, job, os.getpid())
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1)
    waiting = iter(items)
    while part := list(itertools.islice(waiting, AHEAD * workers)):  # by itself joblib runs ahead without a bound
        yield from parallel(joblib.delayed(guarded)(item) for item in part)


def _guarded(job: Callable[[T], R], parent: int, item: T) -> R:
    if os.getppid() == parent:  # joblib may be configured to work elsewhere than in child processes
        _end_with(parent)
    return job(item)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent was killed; joblib's own would wait minutes for another task."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
