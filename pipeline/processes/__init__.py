"""Supervised processes, which read and decode untrusted files.  raw -> [tracks, crops] -> features

`pool.Pool` gives tasks to processes, and replaces processes that end or hang; `pool.ordered_map` is
a `map` on such a pool. `cluster` runs one process for each GPU, or uses the workers of a Dask
cluster. Code in a process calls `alive` to show that it makes progress.

Processes are forked by a server: a fresh interpreter with one thread, which has imported the
modules that processes need. So only the first process waits for imports, and no thread of the
parent is forked. The server ends with its parent, and the kernel ends the processes with the server
(PR_SET_PDEATHSIG), even processes that hang in C code.

RLIMIT_DATA limits private writable memory beyond that of the libraries; an allocation beyond it
fails at once. Unlike RLIMIT_AS, it does not count mapped files and reserved address space.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field, PositiveFloat
from pydantic.dataclasses import dataclass as validated

from pipeline.errors import ConfigError

TIMEOUT: Final = 600.0  # default limit in s without progress
MEMORY: Final = 4 << 30  # default limit of a process in bytes
LOOK: Final = 1.0  # s between two polls; of a longer time, only this much counts as silence
PR_SET_PDEATHSIG: Final = 1  # of Linux: prctl's option for a signal when the parent ends
OUT_OF_MEMORY: Final = 86  # exit code of a process that has reached its memory limit
IDLE: Final = -2  # the place of a process without a task


class Pulse:
    """The signs of life of a process, in memory that it shares with its parent. Two int64: the
    number of signs, and the process's place in its task.
    """

    SIZE: Final = 16  # bytes

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

    def move_to(self, place: int) -> None:
        self._numbers[1] = place


# this process's own; in a process of a pool, `server` replaces it by one that the parent sees
pulse = Pulse(bytearray(Pulse.SIZE))


def cores(workers: int) -> int:
    """The number of processes that the setting `workers` means: 0 is one per core."""
    return workers or len(os.sched_getaffinity(0))


def alive(place: int | None = None) -> None:
    """Show that this process makes progress, and where in its task. Has no effect outside a pool.

    Args:
        place: a number within the task, such as that of a frame; below 0 during preparation, which
            may take longer. None: the same place as before.
    """
    pulse.beat()
    if place is not None:
        pulse.move_to(place)


class Failed(NamedTuple):
    """The result of a task whose process failed: why it ended."""

    # reader_crashed, reader_timeout, reader_memory (its limit) or machine_memory (the machine's)
    reason: str
    message: str  # what the process did, such as "crashed with SIGSEGV"


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
    """Parse the setting `devices`, numbers of GPUs or names of devices. Raises ConfigError for
    other texts, and if the setting `device` is given, too.

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
