"""Supervised processes, and parts of a step on devices or a Dask cluster.  raw -> [tracks, crops]
-> features

`pool.Pool` gives tasks to processes, and replaces processes that end or hang; `ordered.ordered_map`
is a `map` on such a pool. `cluster` runs parts of a step in one process for each GPU, or on the
workers of a Dask cluster; `settings` has the settings of both. This module has what a process and
its parent share: limits, signs of life, and the result of a task whose process failed.

Processes are forked by a server: a fresh interpreter with one thread, which has imported the
modules that processes need. So only the first process waits for imports, and no thread of the
parent is forked. The server ends with its parent, and the kernel ends the processes with the server
(PR_SET_PDEATHSIG), even processes that hang in C code.

Signs of life: code in a process calls `alive` to show that it makes progress, and at which place of
its task, such as the number of a frame. A process that is silent for too long is ended, and its
last place tells what it ended at. Two places are below 0: PREPARING and NO_TASK. Long loops call
`show_done`, whose numbers the parent shows while it waits.

RLIMIT_DATA limits private writable memory beyond that of the libraries; an allocation beyond it
fails at once. Unlike RLIMIT_AS, it does not count mapped files and reserved address space.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Final, NamedTuple

TIMEOUT: Final = 600.0  # default limit in s without progress
MEMORY: Final = 4 << 30  # default limit of a process in bytes
# s between two polls of a process. If the parent polls later, it was busy itself: only this much of
# the time counts as silence of the process.
POLL_INTERVAL: Final = 1.0
PR_SET_PDEATHSIG: Final = 1  # of Linux: prctl's option for a signal when the parent ends
OUT_OF_MEMORY: Final = 86  # exit code of a process that has reached its memory limit
PREPARING: Final = -1  # place of a process that prepares its task, which may take longer
NO_TASK: Final = -2  # place of a process that starts, or waits for a task
SAME_FILES: Final = "Mount the same files there."  # on a cluster's other machines
# what `show_done` counts
COUNTED: Final = ("frames decoded", "bytes read", "frames linked", "labels tracked")


@dataclass(frozen=True, slots=True)
class Machine:
    """The resources of a computation. They may change the results only by rounding."""

    device: str = "auto"  # auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, ...
    batch_size: int = 0  # crops in a batch; 0: chosen by device
    threads: int = 0  # number of batches at a time on a CPU; 0: one per core


class Pulse:
    """The signs of life of a process, in memory that it shares with its parent.

    Five int64: the number of signs, the process's place in its task, and what it has `done`.
    """

    SIZE: Final = 40  # bytes

    def __init__(self, memory: bytearray | mmap.mmap) -> None:
        self._numbers = memoryview(memory).cast("q")

    @property
    def n_signs(self) -> int:
        return self._numbers[0]

    @property
    def place(self) -> int:
        return self._numbers[1]

    def beat(self) -> None:
        self._numbers[0] += 1

    def set_place(self, place: int) -> None:
        self._numbers[1] = place

    @property
    def done(self) -> str:
        """What `show_done` has shown: "12,000 of 216,000 frames linked"; "" before that."""
        number, total, what = self._numbers[2:]
        return f"{number:,} of {total:,} {COUNTED[what]}" if total else ""

    def set_done(self, *numbers: int) -> None:
        for place, number in enumerate(numbers, 2):
            self._numbers[place] = number


# this process's own; in a process of a pool, `server` replaces it by one that the parent sees
pulse = Pulse(bytearray(Pulse.SIZE))


def cores(workers: int) -> int:
    """The number of processes that the setting `workers` means: 0 is one per core."""
    return workers or len(os.sched_getaffinity(0))


def alive(place: int | None = None) -> None:
    """Show that this process makes progress, and where in its task. Has no effect outside a pool.

    Args:
        place: a number within the task, such as that of a frame, or PREPARING. None: the same place
            as before.
    """
    pulse.beat()
    if place is not None:
        pulse.set_place(place)


def show_done(number: int, total: int, what: str) -> None:
    """Show progress, and how much of a long loop of a task is done. what: one of COUNTED."""
    pulse.beat()
    pulse.set_done(number, total, COUNTED.index(what))


class Failed(NamedTuple):
    """The result of a task whose process failed: why it ended."""

    # reader_crashed, reader_timeout, reader_memory (its limit) or machine_memory (the machine's)
    reason: str
    message: str  # what the process did, such as "crashed with SIGSEGV"
