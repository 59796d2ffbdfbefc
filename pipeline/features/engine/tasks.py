"""Plan the decoding: videos -> jobs -> tasks -> slots of batches.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So jobs go by videos, each frame is
decoded once for all persons and streams, and shards are open from their first video to the last.

Decoding processes fill the slots of a batch in shared memory; networks read or copy them from there.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.features.engine.shards import OpenShards
from pipeline.features.engine.worker import CropRequest, Problems, Task
from pipeline.features.inputs import Pixels, column

MOST_SHARDS: Final = 4  # open shards of one video; a video with more rows is decoded several times
RUN_ROWS: Final = 256  # rows of a job with images in any order, so that several processes share a long video
MOST_ROWS: Final = 16  # of a task: sending it costs little, and a batch is full soon


class DecodingJob(NamedTuple):
    """n rows of one video in the order of frames, one for each person.

    They include rows that are not missing, if another row needs their frame as its previous one.
    """

    number: int
    pixels: Pixels
    rows: NDArray[np.int64]  # (n,) of the split
    frame: NDArray[np.int64]  # (n,) ascending
    requests: tuple[Mapping[int, CropRequest], ...]  # by output: index of a missing row -> request, without a slot
    shards: tuple[tuple[int, int], ...]  # (output, shard) that wait for this job to compare the video's pixels
    video: range  # all rows of the video
    n_kept: int  # number of decoded frames to keep, which later rows need as previous ones


def jobs(
    split: Split, open_shards: Sequence[OpenShards], pixels_of: Callable[[int], Pixels], most_rows: int
) -> Iterator[list[DecodingJob]]:
    """Jobs for all streams' target shards, which are opened on the way: a list for a video's next few shards.

    pixels_of: number of a video -> its pixels. No frame of a job has more than `most_rows` persons.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    targets = [np.asarray(out.target, np.int64) for out in open_shards]
    missing = np.unique(np.concatenate(targets))
    numbers = itertools.count()
    for video, start, stop in _videos(split, missing, size):
        here = missing[slice(*np.searchsorted(missing, [start // size, -(-stop // size)]))]
        touched = [shard for shard in here.tolist() if any(out.is_missing(shard) for out in open_shards)]
        for at in range(0, len(touched), MOST_SHARDS):
            shards = tuple(
                (output, shard)
                for shard in touched[at : at + MOST_SHARDS]
                for output, out in enumerate(open_shards)
                if out.is_missing(shard)
            )
            lacks = [_todo(out, [s for o, s in shards if o == i], start, stop) for i, out in enumerate(open_shards)]
            rows = np.unique(np.concatenate(lacks))
            if not len(rows):
                yield []
                continue
            pixels = pixels_of(video)
            frame = column(open_shards[0].rows, "frame_index", rows)
            order = np.lexsort((rows, frame))
            parts = [order[part] for part in _parts(frame[order], pixels.in_order, most_rows)]
            yield [
                _job(next(numbers), pixels, rows[part], open_shards, lacks, () if i else shards, range(start, stop))
                for i, part in enumerate(parts)
            ]


def _job(
    number: int,
    pixels: Pixels,
    rows: NDArray[np.int64],
    open_shards: Sequence[OpenShards],
    lacks: Sequence[NDArray[np.int64]],
    shards: tuple[tuple[int, int], ...],
    video: range,
) -> DecodingJob:
    """Make a job of rows, and of the rows before them that streams of pairs need."""
    lacks = [np.intersect1d(rows, lack) for lack in lacks]
    paired = [lack for lack, out in zip(lacks, open_shards, strict=True) if out.pairs]
    compared = np.unique(np.concatenate([rows[:0], *paired]))
    rows = np.union1d(rows, compared - 1)  # they have a row before: see OpenShards
    frame = column(open_shards[0].rows, "frame_index", rows)
    order = np.lexsort((rows, frame))
    rows, frame = rows[order], frame[order]
    previous = frame.copy()
    is_compared = np.isin(rows, compared)
    previous[is_compared] = column(open_shards[0].rows, "frame_index", rows[is_compared] - 1)
    requests = []
    for output, (out, lack) in enumerate(zip(open_shards, lacks, strict=True)):
        at = np.flatnonzero(np.isin(rows, lack))
        parts = zip(at.tolist(), out.cuts(rows[at]), previous[at].tolist(), out.labels(rows[at]), strict=True)
        requests.append({i: CropRequest(output, -1, *of_row) for i, *of_row in parts})
    frames = np.unique(frame)
    n_kept = int((np.searchsorted(frames, frame) - np.searchsorted(frames, previous)).max(initial=0))
    return DecodingJob(number, pixels, rows, frame, tuple(requests), shards, video, n_kept)


def _videos(split: Split, target: NDArray[np.int64], size: int) -> Iterator[tuple[int, int, int]]:
    """(video, first row, last row + 1) of every range of tracks of one video with rows in a target shard."""
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


def _todo(open_shards: OpenShards, shards: Sequence[int], start: int, stop: int) -> NDArray[np.int64]:
    rows = [np.zeros(0, np.int64)]
    for number in shards:
        shard = open_shards.open(number)
        within = slice(max(start, shard.start) - shard.start, min(stop, shard.stop) - shard.start)
        rows.append(np.flatnonzero(shard.todo[within]) + within.start + shard.start)
    return np.concatenate(rows)


def _parts(frame: NDArray[np.int64], in_order: bool, most_rows: int) -> Iterator[slice]:
    """Slices of rows, one for each job. `frame` is ascending; a frame is divided only if it has too many persons.

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
    """Slots [first, first + size) of the memory, and the split's rows in them."""

    first: int
    rows: NDArray[np.int64]  # (size,); -1: empty
    taken: int = 0  # slots assigned to tasks
    waits_for: int = 0  # running tasks with slots in it

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.rows))


class Batches:
    """One stream's slots as batches, which are assigned to tasks, filled, computed, and freed."""

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        self._free = deque(Batch(first, np.full(size, -1)) for first in range(0, n_slots - size + 1, size))
        self._filling: Batch | None = None
        self.full: deque[Batch] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        partly = 0 if self._filling is None else self._size - self._filling.taken
        return partly + len(self._free) * self._size

    def take(self, n: int) -> tuple[NDArray[np.int64], list[Batch]]:
        """Assign (n,) slots, at most the capacity. Returns them and their batches."""
        slots, batches = [np.zeros(0, np.int64)], []
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

    def fill(self, slots: NDArray[np.int64], batches: Sequence[Batch], rows: NDArray[np.int64]) -> None:
        """Record slots of one task as filled with these rows; -1: not filled."""
        for batch in batches:
            here = (slots >= batch.first) & (slots < batch.span.stop)
            batch.rows[slots[here] - batch.first] = rows[here]
            batch.waits_for -= 1
            self._ready(batch)

    def close_batch(self) -> None:
        """Let the incomplete batch be computed."""
        batch, self._filling = self._filling, None
        if batch is not None:
            batch.taken = self._size
            self._ready(batch)

    def free(self, batch: Batch) -> None:
        batch.rows[:] = -1
        batch.taken = 0
        self._free.append(batch)

    def _ready(self, batch: Batch) -> None:
        if not batch.waits_for and batch.taken == self._size:
            self.full.append(batch)


class _Running(NamedTuple):
    """A running task, and for each output its rows, their slots and the slots' batches."""

    job: DecodingJob
    places: list[tuple[NDArray[np.int64], NDArray[np.int64], list[Batch]]]


class Tasks:
    """Tasks of jobs, with slots in every stream's batches."""

    def __init__(self, batches: Sequence[Batches]) -> None:
        self._batches = batches
        self._running: dict[int, _Running] = {}
        self._next = 0

    def split_job(self, job: DecodingJob) -> Iterator[Task | None]:
        """Yield the tasks of a job; None while no slots are free."""
        start, kept = 0, deque[int](maxlen=job.n_kept)  # the last frames so far
        while start < len(job.rows):
            stop = min(start + MOST_ROWS, len(job.frame))
            stop = int(np.searchsorted(job.frame, job.frame[stop - 1], side="right"))  # whole frames
            wanted = [[i for i in range(start, stop) if i in requests] for requests in job.requests]
            while any(len(at) > batches.capacity for at, batches in zip(wanted, self._batches, strict=True)):
                yield None
            frames = job.frame[start:stop].tolist()
            requests: dict[int, list[CropRequest]] = {frame: [] for frame in frames}
            places = []
            for output, (at, batches) in enumerate(zip(wanted, self._batches, strict=True)):
                slots, within = batches.take(len(at))
                places.append((job.rows[at], slots, within))
                for i, slot in zip(at, slots.tolist(), strict=True):
                    requests[frames[i - start]].append(job.requests[output][i]._replace(slot=slot))
            first = start == 0 and bool(job.shards)
            task = Task(self._next, job.number, job.pixels, requests, job.n_kept, tuple(kept), first)
            kept.extend(requests)
            self._running[task.number] = _Running(job, places)
            self._next += 1
            start = stop
            yield task

    def fill(
        self, task: int, problems: Problems
    ) -> tuple[DecodingJob, list[tuple[int, NDArray[np.int64], tuple[str, str]]]]:
        """Record a decoded task. Returns its job, and (output, rows, problem) of rows with a problem."""
        running, lost = self._running.pop(task), []
        for output, (rows, slots, batches) in enumerate(running.places):
            of_rows = [problems.get((output, slot)) for slot in slots.tolist()]
            failed = np.array([problem is not None for problem in of_rows], bool)
            self._batches[output].fill(slots, batches, np.where(failed, -1, rows))
            different = dict.fromkeys(filter(None, of_rows))
            lost += [(output, rows[[of_row == problem for of_row in of_rows]], problem) for problem in different]
        return running.job, lost
