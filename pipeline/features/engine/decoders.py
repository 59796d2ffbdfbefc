"""The decoding processes, as the process with the network sees them.  pixels -> [crops] -> features

A process that ends or hangs is replaced, and does again what the old one had not done. A frame at which that happens
twice costs its rows, and those of the rest of its video where that can only be decoded in order.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Final

from pipeline.cli.options import cores
from pipeline.errors import PipelineError
from pipeline.features.engine.worker import Done, Filling, SharedSlots, Task, decode
from pipeline.processes import MEMORY, Failed, Process, end

AHEAD: Final = 2  # tasks that a process has been given: one to do, and one to go on with
TRIALS: Final = 2  # processes that may end at a frame
FRUITLESS: Final = 4  # processes that may end while they start, or while they compare a video's pixels

VIDEO_THREADS: Final = "OPENCV_FFMPEG_THREADS"  # of one video's decoder: cores that no process has, if there are any

KINDS: Final = {  # of `pipeline.processes.Failed` -> of a frame's problem
    "reader_timeout": "decoder_hung",
    "reader_crashed": "decoder_crashed",
    "reader_memory": "decoder_memory",
    "machine_memory": "decoder_memory",
}
AFTER: Final = "after_decoder_failure"  # frames of a video after one at which decoding fails


class Decoders:
    """`n` processes that fill the slots of `memories`, until the `with` block is left.

    `fillings`: with what, by output. `timeout`: seconds without progress after which a process is replaced.
    """

    def __init__(self, n: int, memories: Sequence[SharedSlots], fillings: Sequence[Filling], *, timeout: float) -> None:
        self._n, self._memories, self._fillings, self._timeout = n, memories, fillings, timeout
        self._processes: list[Process] = []
        self._ended: Counter[tuple[int, int]] = Counter()  # (job, frame; -1 before the first) -> processes
        self.lost: dict[int, tuple[str, str]] = {}  # job -> (kind, message): why the rest of it cannot be decoded

    def __enter__(self) -> Decoders:
        self._processes += [self._start() for _ in range(self._n)]
        return self

    def __exit__(self, *_: object) -> None:
        end(self._processes)

    @property
    def connections(self) -> list[Connection[Any, Any]]:
        """What becomes readable when there are `answers`."""
        return [process.pipe for process in self._processes]

    @property
    def outstanding(self) -> bool:
        """Whether tasks have been given and not been answered."""
        return any(process.given for process in self._processes)

    def has_room(self, number: int) -> bool:
        """Whether a process may be given a task now."""
        return len(self._processes[number].given) < AHEAD

    def give(self, number: int, task: Task) -> None:
        """Hand a task to a process."""
        self._processes[number].give([task], pickle.dumps(task, pickle.HIGHEST_PROTOCOL))

    def answers(self, ready: Sequence[object]) -> Iterator[Done]:
        """What has been done, of processes whose pipes are ready; replace those that have ended or make no progress.

        Raises what a process raised, and PipelineError when processes end again and again before they have decoded
        anything.
        """
        for number, process in enumerate(self._processes):
            answer = process.answer(ready, self._timeout)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Failed):
                yield from self._replace(number, answer)
            elif answer is not None:
                task = process.given.popleft()
                for where in ((-1, -1), (task.job, -1)):
                    self._ended.pop(where, None)
                yield answer

    def _start(self) -> Process:
        threads = {VIDEO_THREADS: str(max(1, cores(0) // self._n))}
        fds = [memory.fd for memory in self._memories]
        return Process(decode, tuple(self._fillings), fds=fds, env=threads, memory=MEMORY)

    def _replace(self, number: int, failed: Failed) -> Iterator[Done]:
        """Start a new process for one that has ended; it is given what the old one had not done."""
        old = self._processes[number]
        at, given = old.at, old.given
        has_begun = given and old.pulse > 0
        where = (given[0].job, at) if has_begun else (-1, -1)
        self._ended[where] += 1
        if at < 0 and self._ended[where] == FRUITLESS:
            del self._processes[number]  # it has been ended
            doing = f"compared the pixels of {given[0].pixels.name}" if has_begun else "started"
            raise PipelineError(
                f"{FRUITLESS} decoding processes, one after the other, {failed.message} while they {doing}: what they "
                "wrote is above. Can the storage of the videos be read? Finished shards are kept: run it again then."
            )
        self._processes[number] = self._start()
        gives_up = at >= 0 and given and self._ended[where] == TRIALS
        for task in self._give_up(given, at, failed) if gives_up else given:
            if task.targets:
                self.give(number, task)
            else:
                yield Done(task.number, task.problems)

    def _give_up(self, given: Sequence[Task], frame: int, failed: Failed) -> Iterator[Task]:
        """The same tasks, without the frame at which processes ended, and without those that only come after it."""
        job, pixels = given[0].job, given[0].pixels
        why = f"{pixels.name}, frame {frame}: {TRIALS} processes that decoded it ended, the last one {failed.message}"
        if pixels.in_order:
            self.lost[job] = (AFTER, why)
        for task in given:
            lost = [
                one
                for one in task.targets
                if task.job == job and (one.frame == frame or (pixels.in_order and one.frame > frame))
            ]
            problems = {
                (person.output, person.slot): (KINDS[failed.reason] if one.frame == frame else AFTER, why)
                for one in lost
                for person in one.persons
            }
            left = tuple(one for one in task.targets if one not in lost)
            before = tuple(one for one in task.before if one.frame != frame)
            yield replace(task, targets=left, before=before, problems=task.problems | problems)
