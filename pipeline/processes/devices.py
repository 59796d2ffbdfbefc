"""A supervised process for each of several devices of this machine.  [tracks -> features], [pixels -> raw keypoints]

As `pipeline.cluster.Workers`, but that a job is called with its process's `device`.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar

from pipeline.errors import ConfigError, PipelineError
from pipeline.processes import LOOK, Failed, Process, alive, end, sendable

R = TypeVar("R")

TRIALS: Final = 2  # processes that may end at a task


def device_names(text: str, device: str = "auto") -> tuple[str, ...]:
    """What `devices` names: GPUs by number, or devices as `device` does, which must not be set beside it.

    Raises ConfigError.

    >>> device_names("0,1")
    ('cuda:0', 'cuda:1')
    """
    if text and device != "auto":
        raise ConfigError(f"devices {text}: there is device {device}, too: name one of both")
    words = text.replace(",", " ").split()
    names = tuple(f"cuda:{word}" if word.isdecimal() else word for word in words)
    for name, n in Counter(names).items():
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise ConfigError(f"devices {text}: expected numbers of GPUs, as 0,1,2,3, found {name!r}")
        if n > 1 and name != "cpu":
            raise ConfigError(f"devices {text}: {name} is named {n} times; one process owns a GPU")
    return names


class Devices:
    """Processes that are started when there is something to do, and ended with the `with` block.

    A job gets `device=`, one of `names`. Raises what a job raises, and PipelineError when two processes, one after the
    other, end at the same task; that of a process that has ended is done again.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._processes: dict[int, Process] = {}  # by the place of the device

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *_: object) -> None:
        end(list(self._processes.values()))

    def number(self) -> int:
        """How many there are."""
        return len(self._names)

    def run_one(self, job: Callable[..., R]) -> R:
        """job(device=...), on the first device."""
        (result,) = self._results([(job,)])
        return result  # type: ignore[no-any-return]

    def as_completed(self, job: Callable[..., R], items: Sequence[object]) -> Iterator[R]:
        """What job(item, alive, device=...) returns, in any order."""
        return self._results([(job, item, alive) for item in items])

    def _results(self, calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        todo, ended = deque(range(len(calls))), Counter[int]()
        while todo or any(process.given for process in self._processes.values()):
            for place, name in enumerate(self._names):
                if todo and not (place in self._processes and self._processes[place].given):
                    if place not in self._processes:
                        self._processes[place] = Process(_work, name)
                    number = todo.popleft()
                    self._processes[place].give([number], pickle.dumps(calls[number], pickle.HIGHEST_PROTOCOL))
            ready = wait([process.pipe for process in self._processes.values()], LOOK)
            for place, process in list(self._processes.items()):
                answer = process.answer(ready, math.inf)
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, Failed):
                    del self._processes[place]
                    ended.update(process.given)
                    todo.extendleft(process.given)
                    if any(ended[number] == TRIALS for number in process.given):
                        raise PipelineError(
                            f"{TRIALS} processes ended at the same task, the last one, of {self._names[place]}, "
                            f"{answer.message}: what they wrote is above. What is finished is kept: run it again, "
                            "without a device that fails."
                        )
                elif answer is not None:
                    process.given.popleft()
                    yield answer[0]


def _work(pipe: Connection[Any, Any], device: str) -> None:
    """A process: answer calls with what they return, until the parent closes the pipe."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            job, *arguments = pipe.recv()
            try:
                answer: Any = (job(*arguments, device=device),)
            except MemoryError:
                raise
            except Exception as error:
                answer = sendable(error, f"In the process of device {device}")
            pipe.send(answer)
