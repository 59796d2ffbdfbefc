"""Threads in which torch computes, each on one core.  [crops, pixels] -> features, raw keypoints"""

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
    """`number` threads in which torch computes in parallel, each on one core. Any thread may call.

    One thread per batch is as fast as several threads per batch. The threads live as long as this object, since cuDNN
    remembers its trials by thread.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="network", initializer=_one_thread_here)

    def __call__(self, work: Callable[[A], B], argument: A) -> B:
        return self._threads.submit(work, argument).result()

    def map(self, work: Callable[[A], B], arguments: Iterable[A]) -> list[B]:
        return list(self._threads.map(work, arguments))


def _one_thread_here() -> None:
    """Let torch use one thread for this thread only.

    `torch.set_num_threads` sets the number for the calling thread and for all new ones; a short-lived thread resets
    the second.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        others = threading.Thread(target=torch.set_num_threads, args=(before,))
        others.start()
        others.join()
