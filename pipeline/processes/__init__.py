"""Supervised processes, which read and decode untrusted files.  raw -> [tracks, crops] -> features

`pool.Pool` gives tasks to processes, and replaces those that end or hang; `pool.ordered_map` is a
`map` on it. `cluster` has a process for each GPU, or the workers of a cluster. Code in a process
shows progress by `alive`.

Processes are forked by a server: a fresh interpreter with one thread that has imported their
modules. So only the first process waits for imports, and no thread of the parent is forked. The
server ends with its parent, and the kernel ends the processes with the server (PR_SET_PDEATHSIG),
also those that hang in C.

RLIMIT_DATA limits private writable memory beyond that of the libraries; an allocation beyond it
fails at once. Unlike RLIMIT_AS, it does not count mapped files and reserved address space.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field, PositiveFloat
from pydantic.dataclasses import dataclass as validated

from pipeline.errors import ConfigError

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

    place: a number within the task, such as a frame; below 0 during preparation, which may take
    longer.
    """
    pulse[0] += 1
    if place is not None:
        pulse[1] = place


class Failed(NamedTuple):
    """Why a process ended."""

    reason: str  # reader_crashed, reader_timeout, reader_memory (its own limit) or machine_memory
    message: str  # what it did: "crashed with SIGSEGV"


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("auto, cpu, cuda or one of several GPUs, such as cuda:1")
    return text


DeviceName = Annotated[
    str,
    AfterValidator(_device),
    Field(description="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."),
]
DeviceNames = Annotated[
    str | None, Field(description="GPUs (0,1,2,3), one process each; 0,0: two; none: device")
]


@validated(frozen=True, config={"extra": "forbid", "defer_build": True})
class Dask:
    """[dask]: detection, conversion and extraction on a cluster."""

    scheduler: Annotated[
        str | None, Field(description="Dask cluster (tcp://node:8786); none: this machine")
    ] = None
    patience: Annotated[
        PositiveFloat, Field(description="Seconds to wait while there is no Dask worker")
    ] = 3600


NO_CLUSTER: Final = Dask()


def device_names(text: str, device: str = "auto") -> tuple[str, ...]:
    """Parse `devices`: GPUs by number, or names of devices. Raises ConfigError, also if `device` is
    set, too.

    >>> device_names("0,1")
    ('cuda:0', 'cuda:1')
    """
    if text and device != "auto":
        raise ConfigError(f"devices {text}: device {device} is set, too. Name one of both.")
    words = text.replace(",", " ").split()
    names = tuple(f"cuda:{word}" if word.isdecimal() else word for word in words)
    for name in names:
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise ConfigError(
                f"devices {text}: expected numbers of GPUs such as 0,1,2,3, found {name!r}"
            )
    return names
