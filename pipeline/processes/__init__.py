"""Supervised processes, which read and decode untrusted files.  raw -> [tracks, crops] -> features

`pool.Pool` gives tasks to processes, and replaces those that end or hang; `pool.ordered_map` is a `map` on it,
`devices.Devices` has a process for each GPU. Code in a process shows progress by `alive`.

Processes are forked by a server: a fresh interpreter with one thread that has imported their modules. So only the first
process waits for imports, and no thread of the parent is forked. The server ends with its parent, and the kernel ends
the processes with the server (PR_SET_PDEATHSIG), also those that hang in C.

RLIMIT_DATA limits private writable memory beyond that of the libraries; an allocation beyond it fails at once. Unlike
RLIMIT_AS, it does not count mapped files and reserved address space.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import Final, NamedTuple

from pipeline.errors import PipelineError

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


def how_it_ended(code: int | None, *, timeout: float | None = None) -> Failed:
    """Why a process ended, from its exit code or minus a signal. timeout: the limit in s that it exceeded.

    >>> how_it_ended(-11)
    Failed(reason='reader_crashed', message='crashed with SIGSEGV')
    """
    if timeout is not None:
        return Failed("reader_timeout", f"made no progress for {timeout:g} s")
    if code == OUT_OF_MEMORY:
        return Failed("reader_memory", "needed more memory than a process may take")
    if code == -signal.SIGKILL:
        return Failed("machine_memory", "was killed by SIGKILL, most likely because the machine's memory ran out")
    if code is not None and code < 0:
        return Failed("reader_crashed", f"crashed with {signal.Signals(-code).name}")
    return Failed("reader_crashed", f"ended with exit code {code}")


def sendable(error: Exception) -> Exception:
    """The error with its traceback as a note; if it cannot be pickled, a PipelineError with the traceback."""
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return PipelineError(text)
    error.add_note(f"In a process of its own:\n{text}")
    return error
