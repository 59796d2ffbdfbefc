"""What is decoded, and where it goes: videos -> jobs -> tasks -> slots of batches.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So work goes by videos, each frame is
decoded once for all its persons, and shards are open from the first video that reaches into them to the last.

A batch is what goes through the network at once. Its slots of the shared memory are filled in place by the decoding
processes, and read, or copied to a GPU, from where they are: a crop is never sent through a pipe.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.features.engine.shards import OpenShards
from pipeline.features.engine.worker import Done, Task
from pipeline.features.pixel_sources import Person, Pixels, Target

MOST_SHARDS: Final = 4  # that one video has open at a time. One with more rows is decoded again for each so many
RUN_ROWS: Final = 256  # rows of a job where pictures can be decoded in any order: several processes share a long video
MOST_ROWS: Final = 16  # of a task: enough that handing it over costs little, few enough that a batch is soon full


class Job(NamedTuple):
    """Rows of one video, in the order of its frames. n rows; a frame with several persons has several."""

    number: int
    pixels: Pixels
    rows: NDArray[np.int64]  # (n,) of the split
    frame: NDArray[np.int64]  # (n,) ascending; the rows themselves where targets are rows
    bbox: NDArray[np.float32]  # (n, 4)
    scale: NDArray[np.float64]  # (n,)
    shards: tuple[int, ...]  # whose pixels this job compares, the first of its video; () for the others


def jobs(
    split: Split, target: Sequence[int], open_shards: OpenShards, pixels_of: Callable[[int], Pixels], most_rows: int
) -> Iterator[list[Job]]:
    """The rows to compute of the target shards, which are opened on the way: the jobs of a video's next few shards.

    `pixels_of`: number of a video -> its pixels. No frame of a job has more than `most_rows` persons.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    missing = np.asarray(target, np.int64)  # once: there may be as many shards as videos
    numbers = itertools.count()
    for video, start, stop in _videos(split, missing, size):
        here = np.searchsorted(missing, [start // size, -(-stop // size)])
        touched = [shard for shard in missing[slice(*here)].tolist() if not open_shards.is_finished(shard)]
        for at in range(0, len(touched), MOST_SHARDS):
            shards = tuple(touched[at : at + MOST_SHARDS])
            rows, frame, bbox = (
                np.concatenate(parts) for parts in zip(*_todo(open_shards, shards, start, stop), strict=True)
            )
            if not len(rows):
                yield []
                continue
            pixels = pixels_of(video)
            scale = np.asarray(split.tracks.crop_scale[split.track_of(rows)], np.float64)
            if pixels.by_row:
                frame = rows
            order = np.lexsort((rows, frame))
            parts = [order[part] for part in _parts(frame[order], pixels.in_order, most_rows)]
            yield [
                Job(next(numbers), pixels, rows[part], frame[part], bbox[part], scale[part], () if i else shards)
                for i, part in enumerate(parts)
            ]


def _videos(split: Split, target: NDArray[np.int64], size: int) -> Iterator[tuple[int, int, int]]:
    """(video, first row, last row + 1) of every range of tracks of one video that reaches into a target shard."""
    tracks = split.tracks
    if not len(tracks) or not len(target):
        return
    video, starts, stops = tracks.video, tracks.start, tracks.stop
    first = np.concatenate([[0], np.flatnonzero(np.diff(video)) + 1])
    last = np.concatenate([first[1:], [len(video)]]) - 1
    reached = np.searchsorted(target, starts[first] // size)  # the first target shard at or after its first row
    after = np.append(target, np.iinfo(np.int64).max)[reached]
    for i in np.flatnonzero(after <= (stops[last] - 1) // size).tolist():
        yield int(video[first[i]]), int(starts[first[i]]), int(stops[last[i]])


def _todo(
    open_shards: OpenShards, shards: Sequence[int], start: int, stop: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Of each shard: its rows in [start, stop) that are to be computed, their frames and boxes."""
    for number in shards:
        shard = open_shards.open(number)
        within = slice(max(start, shard.start) - shard.start, min(stop, shard.stop) - shard.start)
        at = np.flatnonzero(shard.todo[within]) + within.start
        yield at + shard.start, shard.frame[at], shard.bbox[at]


def _parts(frame: NDArray[np.int64], in_order: bool, most_rows: int) -> Iterator[slice]:
    """Slices of rows that are a job each. `frame` is ascending; a frame is divided only where it has too many persons.

    >>> [(part.start, part.stop) for part in _parts(np.array([3, 3, 3, 5]), True, 2)]
    [(0, 2), (2, 4)]
    """
    start = 0
    while start < len(frame):
        stop = len(frame) if in_order else min(start + RUN_ROWS, len(frame))
        if stop < len(frame):
            stop = int(np.searchsorted(frame, frame[stop - 1], side="right"))
        counts = np.unique(frame[start:stop], return_counts=True)[1]
        if counts.max() > most_rows:  # the other persons are another job, which decodes the frame again
            crowded = int(np.argmax(counts > most_rows))
            stop = start + int(counts[:crowded].sum()) + most_rows
        yield slice(start, stop)
        start = stop


@dataclass(slots=True, eq=False)
class Batch:
    """Slots [first, first + size) of the memory, and the split's row in each."""

    first: int
    rows: NDArray[np.int64]  # (size,); -1: empty
    taken: int = 0  # slots that have been given out
    waits_for: int = 0  # tasks with slots in it that are being decoded

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.rows))


class _Asked(NamedTuple):
    """A task that is being decoded, and where its rows go."""

    job: Job
    rows: slice  # of the job
    slots: NDArray[np.int64]  # (n,) one for each of them
    batches: list[Batch]


class Batches:
    """The memory's slots as batches: given out, filled, computed, free again."""

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        self._free = deque(Batch(first, np.full(size, -1)) for first in range(0, n_slots - size + 1, size))
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
        first = start == 0 and bool(job.shards)
        task = Task(self._next, job.number, job.pixels, _targets(job, start, slots), first)
        self._asked[task.number] = _Asked(job, slice(start, stop), slots, batches)
        self._next += 1
        return task, stop

    def fill(self, done: Done) -> tuple[Job, dict[int, NDArray[np.int64]]]:
        """A task has been decoded. Returns its job, and the rows of each frame that had a problem."""
        asked = self._asked.pop(done.task)
        rows, frame = asked.job.rows[asked.rows], asked.job.frame[asked.rows]
        filled = np.where(np.isin(frame, list(done.problems)), -1, rows)
        for batch in asked.batches:
            here = (asked.slots >= batch.first) & (asked.slots < batch.span.stop)
            batch.rows[asked.slots[here] - batch.first] = filled[here]
            batch.waits_for -= 1
            self._ready(batch)
        return asked.job, {index: rows[frame == index] for index in done.problems}

    def close_batch(self) -> None:
        """Compute the batch that is being filled as it is."""
        batch, self._filling = self._filling, None
        if batch is not None:
            batch.taken = self._size
            self._ready(batch)

    def free(self, batch: Batch) -> None:
        """A batch has been computed."""
        batch.rows[:] = -1
        batch.taken = 0
        self._free.append(batch)

    def _take(self, n: int) -> tuple[NDArray[np.int64], list[Batch]]:
        slots, batches = [], []
        while n:
            batch = self._filling = self._filling or self._free.popleft()
            here = min(n, self._size - batch.taken)
            slots.append(np.arange(batch.first + batch.taken, batch.first + batch.taken + here))
            batches.append(batch)
            batch.taken += here
            batch.waits_for += 1
            n -= here
            if batch.taken == self._size:
                self._filling = None
        return np.concatenate(slots), batches

    def _ready(self, batch: Batch) -> None:
        if not batch.waits_for and batch.taken == self._size:
            self.full.append(batch)


def _targets(job: Job, start: int, slots: NDArray[np.int64]) -> tuple[Target, ...]:
    """The frames of as many of a job's rows as there are slots, each with its persons."""
    persons = (
        (int(job.frame[row]), Person(slot, tuple(job.bbox[row].tolist()), float(job.scale[row])))
        for row, slot in enumerate(slots.tolist(), start)
    )
    return tuple(
        Target(frame, tuple(person for _, person in group))
        for frame, group in itertools.groupby(persons, key=lambda one: one[0])
    )
