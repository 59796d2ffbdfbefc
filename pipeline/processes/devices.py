"""One supervised process per device of this machine.  [tracks -> features], [pixels -> raw keypoints]

As `pipeline.processes.cluster.Workers`, but a job is called with its process's `device`.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from pipeline.errors import ConfigError, PipelineError
from pipeline.processes import Failed, alive
from pipeline.processes.pool import TRIALS, Pool

R = TypeVar("R")


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("auto, cpu, cuda or one of several GPUs, such as cuda:1")
    return text


DeviceName = Annotated[
    str, AfterValidator(_device), Field(description="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
]
DeviceNames = Annotated[str | None, Field(description="GPUs of this machine (0,1,2,3), one process each; none: device")]


def device_names(text: str, device: str = "auto") -> tuple[str, ...]:
    """Parse `devices`: GPUs by number, or names of devices. Raises ConfigError, also if `device` is set, too.

    >>> device_names("0,1")
    ('cuda:0', 'cuda:1')
    """
    if text and device != "auto":
        raise ConfigError(f"devices {text}: device {device} is set, too. Name one of both.")
    words = text.replace(",", " ").split()
    names = tuple(f"cuda:{word}" if word.isdecimal() else word for word in words)
    for name, n in Counter(names).items():
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise ConfigError(f"devices {text}: expected numbers of GPUs such as 0,1,2,3, found {name!r}")
        if n > 1 and name != "cpu":
            raise ConfigError(f"devices {text}: {name} is there {n} times. Name each GPU once.")
    return names


class Devices:
    """Processes that start on demand and end with the `with` block.

    A job gets `device=`, one of `names`. Raises what a job raises, with the device in its message. The task of a
    process that has ended is repeated; PipelineError if two processes end at the same task.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._calls: deque[Callable[..., Any]] = deque()
        works = [functools.partial(operator.call, device=name) for name in names]
        self._pool = Pool[Callable[..., Any], Any](works, self._jobs(), ahead=1, timeout=math.inf, memory=None)

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__()

    def number(self) -> int:
        return len(self._names)

    def run_one(self, job: Callable[..., R]) -> R:
        (result,) = self._results([job])
        return result  # type: ignore[no-any-return]

    def as_completed(self, job: Callable[..., R], items: Sequence[object]) -> Iterator[R]:
        return self._results([functools.partial(job, item, alive) for item in items])

    def _jobs(self) -> Iterator[list[Callable[..., Any]] | None]:
        while True:
            yield [self._calls.popleft()] if self._calls else None

    def _results(self, calls: Sequence[Callable[..., Any]]) -> Iterator[Any]:
        self._calls += calls
        while self._calls or not self._pool.is_idle:
            for result in self._pool.poll():
                device = self._names[result.worker]
                try:
                    outcome = result.get()
                except Exception as error:
                    if device not in str(error) and not isinstance(error, OSError):
                        error.args = (f"{device}: {error}",)
                    raise
                if isinstance(outcome, Failed):
                    raise PipelineError(
                        f"{device}: {TRIALS} processes ended at the same task, the last one {outcome.message}. See "
                        "their output above. Finished work is kept: run it again, without a failing device."
                    )
                yield outcome
