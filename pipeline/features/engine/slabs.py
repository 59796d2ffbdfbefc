"""Batches in the making: which slot of the shared memory is whose row.  crops -> [batches] -> features"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.features.engine.jobs import Job
from pipeline.features.engine.memory import SharedCrops
from pipeline.features.engine.pieces import Done, Person, Piece, Wanted

MOST_ROWS = 16  # of a piece: enough that handing it over costs little, few enough that a batch is soon full


@dataclass(slots=True, eq=False)
class Slab:
    """One batch: slots [first, first + size) of the memory, and the split's row in each."""

    first: int
    rows: NDArray[np.int64]  # (size,); -1: nothing, or nothing yet
    sizes: NDArray[np.int64]  # (size,) bytes in each, where they are bytes instead of a crop
    taken: int = 0  # slots that have been given out
    waits_for: int = 0  # pieces with slots in it that are being decoded

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + self.size)


@dataclass(slots=True, eq=False)
class _Asked:
    """A piece that is being decoded, and where its rows go."""

    piece: Piece
    job: Job
    rows: slice  # of the job
    slots: NDArray[np.int64]  # (n,) one for each of them
    slabs: list[Slab]


class Slabs:
    """The memory's slots as batches: given out, filled, computed, free again."""

    def __init__(self, memory: SharedCrops, size: int) -> None:
        self._size = size
        firsts = range(0, memory.n_slots - size + 1, size)
        self._free = deque(Slab(first, np.full(size, -1), np.zeros(size, np.int64)) for first in firsts)
        self._filling: Slab | None = None
        self._asked: dict[int, _Asked] = {}
        self._next = 0
        self.full: deque[Slab] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        """Slots that can be given out now."""
        partly = 0 if self._filling is None else self._size - self._filling.taken
        return partly + len(self._free) * self._size

    def ask(self, job: Job, start: int) -> tuple[Piece, int] | None:
        """The next piece of a job from its row `start`, and where the one behind it starts; None: no slots are free."""
        stop = _end_of_piece(job.frame, start)
        if stop - start > self.capacity:
            return None
        slots, slabs = self._take(stop - start)
        piece = Piece(self._next, job.number, job.pixels, _wanted(job, start, slots), first=job.first and start == 0)
        for slab in slabs:
            slab.waits_for += 1
        self._asked[piece.number] = _Asked(piece, job, slice(start, stop), slots, slabs)
        self._next += 1
        return piece, stop

    def fill(self, done: Done) -> dict[int, NDArray[np.int64]]:
        """A piece has been decoded. Returns the rows of each frame that had a problem."""
        asked = self._asked.pop(done.piece)
        rows, frame = asked.job.rows[asked.rows], asked.job.frame[asked.rows]
        lost = np.isin(frame, list(done.problems)) if done.problems else np.zeros(len(rows), bool)
        for slab in asked.slabs:
            here = (asked.slots >= slab.first) & (asked.slots < slab.first + slab.size)
            slab.rows[asked.slots[here] - slab.first] = np.where(lost[here], -1, rows[here])
            for slot in asked.slots[here].tolist():
                slab.sizes[slot - slab.first] = done.sizes.get(slot, 0)
            slab.waits_for -= 1
            self._ready(slab)
        return {index: rows[frame == index] for index in done.problems}

    def close_batch(self) -> bool:
        """Let the batch that is being filled go as it is. False when there is none with anything in it."""
        slab = self._filling
        if slab is None or not slab.taken:
            return False
        self._filling = None
        self._ready(slab, partly=True)
        return True

    def free(self, slab: Slab) -> None:
        """Its batch has been computed."""
        slab.rows[:] = -1
        slab.taken = 0
        self._free.append(slab)

    def _take(self, n: int) -> tuple[NDArray[np.int64], list[Slab]]:
        slots, slabs = [], []
        while n:
            slab = self._filling = self._filling or self._free.popleft()
            here = min(n, slab.size - slab.taken)
            slots.append(np.arange(slab.first + slab.taken, slab.first + slab.taken + here))
            slabs.append(slab)
            slab.taken += here
            n -= here
            if slab.taken == slab.size:
                self._filling = None
        return np.concatenate(slots), slabs

    def _ready(self, slab: Slab, *, partly: bool = False) -> None:
        if not slab.waits_for and slab is not self._filling and (partly or slab.taken == slab.size):
            self.full.append(slab)


def _end_of_piece(frame: NDArray[np.int64], start: int) -> int:
    """Where a piece that starts here ends: behind whole frames, about MOST_ROWS rows."""
    stop = min(start + MOST_ROWS, len(frame))
    return int(np.searchsorted(frame, frame[stop - 1], side="right"))


def _wanted(job: Job, start: int, slots: NDArray[np.int64]) -> tuple[Wanted, ...]:
    frames: list[Wanted] = []
    persons: list[Person] = []
    for i, slot in enumerate(slots.tolist(), start):
        persons.append(Person(slot, tuple(job.bbox[i].tolist()), float(job.scale[i])))
        if i + 1 == start + len(slots) or job.frame[i + 1] != job.frame[i]:
            frames.append(Wanted(int(job.frame[i]), tuple(persons)))
            persons = []
    return tuple(frames)
