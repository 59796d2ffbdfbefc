"""Threads in which torch computes, each on one core.  [crops, pixels] -> features, raw keypoints

Importing this imports torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

_SETTING: Final = threading.Lock()


class Threads:
    """`number` threads in which torch computes side by side, each on one core. Any thread may call.

    Two batches in a thread each take no longer than two batches by two threads each: no thread waits for the other half
    of every layer. The threads live as long as this object: cuDNN remembers by thread what it tried.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="network", initializer=_one_thread_here)

    def __call__(self, work: Callable[[A], B], argument: A) -> B:
        """work(argument) in the next free thread, waited for."""
        return self._threads.submit(work, argument).result()

    def map(self, work: Callable[[A], B], arguments: Iterable[A]) -> list[B]:
        """work(argument) of each, side by side."""
        return list(self._threads.map(work, arguments))


def _one_thread_here() -> None:
    """Torch computes in this thread alone; new threads elsewhere find the process's number as it was.

    `torch.set_num_threads` sets the number of the calling thread and that of all new ones. So a short-lived thread
    sets the second back.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        others = threading.Thread(target=torch.set_num_threads, args=(before,))
        others.start()
        others.join()
