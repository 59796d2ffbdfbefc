"""Batches of crops in shared memory: which slot belongs to which row.  crops -> [batches] -> features

A batch is what goes through the network at once. Its slots are filled in place by the decoding processes, and read, or
copied to a GPU, from where they are: a crop is never sent through a pipe.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.features.engine.jobs import Job
from pipeline.features.engine.worker import Done, Task
from pipeline.features.pixel_sources import Person, Target

MOST_ROWS: Final = 16  # of a task: enough that handing it over costs little, few enough that a batch is soon full


@dataclass(slots=True, eq=False)
class Batch:
    """Slots [first, first + size) of the memory, and the split's row in each."""

    first: int
    rows: NDArray[np.int64]  # (size,); -1: empty
    sizes: NDArray[np.int64]  # (size,) bytes in each slot, of a stream of bytes
    taken: int = 0  # slots that have been given out
    waits_for: int = 0  # tasks with slots in it that are being decoded

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + self.size)


@dataclass(slots=True, eq=False)
class _Asked:
    """A task that is being decoded, and where its rows go."""

    job: Job
    rows: slice  # of the job
    slots: NDArray[np.int64]  # (n,) one for each of them
    batches: list[Batch]


class Batches:
    """The memory's slots as batches: given out, filled, computed, free again."""

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        firsts = range(0, n_slots - size + 1, size)
        self._free = deque(Batch(first, np.full(size, -1), np.zeros(size, np.int64)) for first in firsts)
        self._filling: Batch | None = None
        self._asked: dict[int, _Asked] = {}
        self._next = 0
        self.full: deque[Batch] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        """Slots that can be given out now."""
        partly = 0 if self._filling is None else self._size - self._filling.taken
        return partly + len(self._free) * self._size

    def ask(self, job: Job, start: int) -> tuple[Task, int] | None:
        """The next task of a job from its row `start`, and where the one after it starts; None: no slots are free."""
        stop = min(start + MOST_ROWS, len(job.frame))
        stop = int(np.searchsorted(job.frame, job.frame[stop - 1], side="right"))  # whole frames
        if stop - start > self.capacity:
            return None
        slots, batches = self._take(stop - start)
        task = Task(self._next, job.number, job.pixels, _targets(job, start, slots), first=job.first and start == 0)
        for batch in batches:
            batch.waits_for += 1
        self._asked[task.number] = _Asked(job, slice(start, stop), slots, batches)
        self._next += 1
        return task, stop

    def fill(self, done: Done) -> dict[int, NDArray[np.int64]]:
        """A task has been decoded. Returns the rows of each frame that had a problem."""
        asked = self._asked.pop(done.task)
        rows, frame = asked.job.rows[asked.rows], asked.job.frame[asked.rows]
        lost = np.isin(frame, list(done.problems)) if done.problems else np.zeros(len(rows), bool)
        for batch in asked.batches:
            here = (asked.slots >= batch.first) & (asked.slots < batch.first + batch.size)
            batch.rows[asked.slots[here] - batch.first] = np.where(lost[here], -1, rows[here])
            for slot in asked.slots[here].tolist():
                batch.sizes[slot - batch.first] = done.sizes.get(slot, 0)
            batch.waits_for -= 1
            self._ready(batch)
        return {index: rows[frame == index] for index in done.problems}

    def close_batch(self) -> None:
        """Compute the batch that is being filled as it is."""
        batch, self._filling = self._filling, None
        if batch is not None:
            self._ready(batch, partly=True)

    def free(self, batch: Batch) -> None:
        """A batch has been computed."""
        batch.rows[:] = -1
        batch.taken = 0
        self._free.append(batch)

    def _take(self, n: int) -> tuple[NDArray[np.int64], list[Batch]]:
        slots, batches = [], []
        while n:
            batch = self._filling = self._filling or self._free.popleft()
            here = min(n, batch.size - batch.taken)
            slots.append(np.arange(batch.first + batch.taken, batch.first + batch.taken + here))
            batches.append(batch)
            batch.taken += here
            n -= here
            if batch.taken == batch.size:
                self._filling = None
        return np.concatenate(slots), batches

    def _ready(self, batch: Batch, *, partly: bool = False) -> None:
        if not batch.waits_for and batch is not self._filling and (partly or batch.taken == batch.size):
            self.full.append(batch)


def _targets(job: Job, start: int, slots: NDArray[np.int64]) -> tuple[Target, ...]:
    frames: list[Target] = []
    persons: list[Person] = []
    for i, slot in enumerate(slots.tolist(), start):
        persons.append(Person(slot, tuple(job.bbox[i].tolist()), float(job.scale[i])))
        if i + 1 == start + len(slots) or job.frame[i + 1] != job.frame[i]:
            frames.append(Target(int(job.frame[i]), tuple(persons)))
            persons = []
    return tuple(frames)
