"""Threads in which torch computes side by side, each on one core."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

_SETTING: Final = threading.Lock()


class Lanes:
    """`number` threads of our own. Whoever calls may do so from any thread, and keeps its own number of threads.

    Two batches in a thread each are computed in the time of two batches by two threads each, or less: nothing waits
    for the other half of every layer. They live as long as this object does: cuDNN remembers by thread what it tried.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="network", initializer=_one_thread_here)

    def __call__(self, work: Callable[[A], B], argument: A) -> B:
        """work(argument) in the next free lane, waited for."""
        return self._threads.submit(work, argument).result()


def _one_thread_here() -> None:
    """Torch computes in this thread alone; new threads elsewhere find the process's number as it was.

    `torch.set_num_threads` sets both at once, the number of the thread that calls it and that of all new ones. So a
    thread that lives for no longer than that sets the second back.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        others = threading.Thread(target=torch.set_num_threads, args=(before,))
        others.start()
        others.join()
