"""Supervised processes, which read and decode untrusted files.  raw -> [tracks, crops] -> features

`pool.Pool` gives tasks to processes, and replaces those that end or hang; `pool.ordered_map` is a `map` on it,
`workers` has a process for each GPU, or the
workers of a cluster. Code in a process shows progress by `alive`.

Processes are forked by a server: a fresh interpreter with one thread that has imported their modules. So only the first
process waits for imports, and no thread of the parent is forked. The server ends with its parent, and the kernel ends
the processes with the server (PR_SET_PDEATHSIG), also those that hang in C.

RLIMIT_DATA limits private writable memory beyond that of the libraries; an allocation beyond it fails at once. Unlike
RLIMIT_AS, it does not count mapped files and reserved address space.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

TIMEOUT: Final = 600.0  # default limit in s without progress
MEMORY: Final = 4 << 30  # default limit of a process in bytes
LOOK: Final = 1.0  # s between two polls, and the most that counts as silence between two
PR_SET_PDEATHSIG: Final = 1  # of Linux
OUT_OF_MEMORY: Final = 86  # exit code of a process at its memory limit
IDLE: Final = -2  # the place of a process without a task

pulse = memoryview(bytearray(16)).cast("q")  # this process's number of signs of life, and its place


def cores(workers: int) -> int:
    """Number of processes; 0 means one per core."""
    return workers or len(os.sched_getaffinity(0))


def alive(place: int | None = None) -> None:
    """Show that this process makes progress, and where. Has no effect without a pool.

    place: a number within the task, such as a frame; below 0 during preparation, which may take longer.
    """
    pulse[0] += 1
    if place is not None:
        pulse[1] = place


class Failed(NamedTuple):
    """Why a process ended."""

    reason: str  # reader_crashed, reader_timeout, reader_memory (its own limit) or machine_memory
    message: str  # what it did: "crashed with SIGSEGV"
