"""Plan the decoding: videos -> jobs -> tasks -> slots of batches.  tracks -> [crops] -> features

`run.py` explains the words, and calls in this order: `Tasks.jobs_by_video`, `Tasks.split_job` for
the tasks of a job, `Tasks.fill` or `Tasks.lose` when a process has answered a task. `Batches` has
the slots of one output.

A video's tracks are stored one after the other, often across the end of a shard. So a job is for a
video and not for a shard: each frame is decoded once for all persons and outputs, and a shard stays
open from its first video to its last.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from cache import Split
from cache.arrays import Ints
from pipeline.features.engine.shards import OpenShards
from pipeline.features.engine.worker import CROP, Crops, Problems, Task
from pipeline.features.inputs import Pixels, VideoLost, column

MOST_SHARDS: Final = 4  # open shards of one video; a video with more rows is decoded several times
# rows of a job with images in any order, so that several processes share a long video
RUN_ROWS: Final = 256
FEWEST_ROWS: Final = 16  # in a task, so that small batches are soon full
MOST_ROWS: Final = 64  # in a task; sending more at once saves nothing
MOST_PERSONS: Final = 256  # of one frame in a job; the others are in another job

# Job numbers are unique in this process, as decoding processes may stay for a later `Tasks`.
_JOB_NUMBERS: Final = itertools.count()

Rows = Ints


class Job(NamedTuple):
    """n rows of one video, sorted by frame, which one process decodes. A row is one person in one
    frame.

    They include rows that need not be computed, if another row needs their frame as its previous
    one.
    """

    number: int
    pixels: Pixels
    rows: Rows  # (n,) of the split
    frame: Ints  # (n,) ascending
    crops: list[Crops]  # by output: the crops of the rows to compute, without slots yet
    # If this job compares the video's pixels with those of the conversion: by output, the shards
    # that must not be written before. Empty: an earlier job compares them.
    uncompared: Sequence[Sequence[int]]
    video: range  # all rows of the video
    n_kept: int  # number of decoded frames to keep, as later rows need them as previous frames


class _TaskRows(NamedTuple):
    """The rows of a task that one output computes, and the slots that they got."""

    rows: Rows  # (n,)
    places: Places


class Tasks:
    """Makes jobs for the target shards of all outputs, and splits them into tasks, with slots in
    every output's batches.

    Args:
        open_shards: by output.
        pixels_of: video number -> its pixels.
    """

    def __init__(
        self, split: Split, open_shards: Sequence[OpenShards], pixels_of: Callable[[int], Pixels]
    ) -> None:
        self._split = split
        self._open_shards = open_shards
        self._pixels_of = pixels_of
        self.batches: list[Batches] = []  # by output; set before the first task is made
        self.task_rows = FEWEST_ROWS
        # job number -> a job that has not yet compared its video's pixels
        self._comparing: dict[int, Job] = {}
        # task number -> its job, and by output, its rows and their slots
        self._running: dict[int, tuple[Job, list[_TaskRows]]] = {}
        self._task_numbers = itertools.count()

    def jobs_by_video(self) -> Iterator[list[Job]]:
        """Yield the jobs for each video, or for a few of its shards at a time if it has many. Opens
        these shards.
        """
        size = self._split.rows_per_shard
        targets = [np.asarray(shards.target, np.int64) for shards in self._open_shards]
        target = np.unique(np.concatenate(targets))
        for video, start, stop in _videos(self._split, target):
            # the shards with rows of the video: from that of the first row to that of the last
            first, last = np.searchsorted(target, [start // size, -(-stop // size)])
            numbers = [n for n in target[first:last].tolist() if self._is_missing(n)]
            for i in range(0, len(numbers), MOST_SHARDS):
                yield self._make_jobs(video, range(start, stop), numbers[i : i + MOST_SHARDS])

    def _is_missing(self, number: int) -> bool:
        return any(shards.is_missing(number) for shards in self._open_shards)

    def _make_jobs(self, video: int, of_video: range, numbers: Sequence[int]) -> list[Job]:
        """Make the jobs for these shards of a video; [] if nothing is to be decoded, or if the
        video is lost. The first job compares the pixels.

        of_video: all rows of the video.
        """
        missing = []  # by output: numbers of the shards to compute
        todo = []  # by output: rows to compute
        for shards in self._open_shards:
            missing.append([number for number in numbers if shards.is_missing(number)])
            todo.append(shards.todo(missing[-1], of_video))
        rows = np.unique(np.concatenate(todo))
        if not len(rows):
            return []
        pixels = self._pixels_of(video)
        try:
            pixels.require_place()
        except VideoLost as error:
            self._lose(of_video, pixels, str(error))
            return []
        rows, frame = self._by_frame(rows)
        jobs = []
        uncompared = missing
        for part in _parts(frame, pixels.in_order):
            jobs.append(self._make_job(pixels, rows[part], todo, uncompared, of_video))
            uncompared = []  # the first job compares the pixels
        return jobs

    def _make_job(
        self,
        pixels: Pixels,
        rows: Rows,
        todo: Sequence[Rows],
        uncompared: Sequence[Sequence[int]],
        of_video: range,
    ) -> Job:
        """Make a job of rows to compute, and of the previous rows that streams of pairs need.

        todo: by output, the video's rows to compute. uncompared: see `Job`.
        """
        todo = [np.intersect1d(rows, of_output) for of_output in todo]
        pairs = self._rows_of_pairs(rows, todo)
        rows, frame = self._by_frame(np.union1d(rows, pairs - 1))
        previous = frame.copy()
        is_pair = np.isin(rows, pairs)
        previous[is_pair] = self._frames(rows[is_pair] - 1)
        crops = [
            self._make_crops(shards, of_output, rows, frame, previous)
            for shards, of_output in zip(self._open_shards, todo, strict=True)
        ]
        frames = np.unique(frame)
        # how many of the job's frames a row's previous frame lies before the row's own
        n_back = np.searchsorted(frames, frame) - np.searchsorted(frames, previous)
        n_kept = int(n_back.max(initial=0))
        return Job(next(_JOB_NUMBERS), pixels, rows, frame, crops, uncompared, of_video, n_kept)

    def _rows_of_pairs(self, rows: Rows, todo: Sequence[Rows]) -> Rows:
        """Which of a job's rows a stream of pairs computes. They all have a previous row, because
        first rows are not computed (State.FIRST).
        """
        is_pair = np.zeros(len(rows), bool)
        for shards, of_output in zip(self._open_shards, todo, strict=True):
            if shards.has_pairs:
                is_pair |= np.isin(rows, of_output)
        return rows[is_pair]

    def _frames(self, rows: Rows) -> Ints:
        return column(self._open_shards[0].rows, "frame_index", rows)

    def _by_frame(self, rows: Rows) -> tuple[Rows, Ints]:
        """Sort rows by their frames. Returns the rows, and their frame numbers."""
        frame = self._frames(rows)
        order = np.lexsort((rows, frame))
        return rows[order], frame[order]

    def _make_crops(
        self, shards: OpenShards, todo: Rows, rows: Rows, frame: Rows, previous: Rows
    ) -> Crops:
        """The crops of those of a job's rows that an output computes (`todo`), without slots."""
        is_todo = np.isin(rows, todo)
        rows = rows[is_todo]
        crops = np.zeros(len(rows), CROP)
        crops["row"] = rows
        crops["frame"] = frame[is_todo]
        crops["previous"] = previous[is_todo]
        crops["cut"] = shards.cuts(rows)
        return Crops(crops, shards.labels(rows))

    def split_job(self, job: Job) -> Iterator[Task | None]:
        """Yield the tasks of a job; None while no slots are free. If its video has been lost in the
        meantime, there is no task.
        """
        if not self._has_todo(job):
            return
        if job.uncompared:
            self._comparing[job.number] = job
        frames = np.unique(job.frame)
        start = 0
        for end in self._task_ends(job, frames):
            crops = [of_output.within(frames[start], frames[end - 1]) for of_output in job.crops]
            while not self._have_room(crops):
                yield None
            by_output = []
            for of_output, batches in zip(crops, self.batches, strict=True):
                places = batches.take(of_output.rows["slot"])
                by_output.append(_TaskRows(of_output.rows["row"], places))
            number = next(self._task_numbers)
            self._running[number] = job, by_output
            yield Task(
                number=number,
                job=job.number,
                pixels=job.pixels,
                frames=frames[start:end].tolist(),
                crops=crops,
                n_kept=job.n_kept,
                earlier_frames=frames[max(0, start - job.n_kept) : start].tolist(),
                compare_before=start == 0 and bool(job.uncompared),
                # Not for folders of images: listing thousands of files often would be slow.
                compare_after=end == len(frames) and job.pixels.in_order,
            )
            start = end

    def _task_ends(self, job: Job, frames: Ints) -> list[int]:
        """Divide a job into tasks of about `task_rows` rows, without dividing a frame.

        frames: the job's frame numbers, each once. Task i has frames[ends[i - 1] : ends[i]].
        """
        n = self.task_rows
        # the frames of every n-th row, and of the last row
        last = job.frame[np.append(np.arange(n - 1, len(job.frame) - 1, n), -1)]
        ends: list[int] = np.unique(np.searchsorted(frames, last, side="right")).tolist()
        return ends

    def _have_room(self, crops: Sequence[Crops]) -> bool:
        """Whether every output has slots for its crops."""
        by_output = zip(crops, self.batches, strict=True)
        return all(len(of_output.rows) <= batches.capacity for of_output, batches in by_output)

    def fill(self, task: int, problems: Problems) -> Iterator[tuple[int, Rows, tuple[str, str]]]:
        """Record that a task has been decoded and its slots are filled. Yields (output, rows,
        problem) for rows that have a problem.
        """
        job, by_output = self._running.pop(task)
        self._comparing.pop(job.number, None)
        for output, (rows, places) in enumerate(by_output):
            # -1: the slot gets no row. So it is for rows of a video lost in the meantime.
            rows[~self._open_shards[output].is_todo(rows)] = -1
            failed: dict[tuple[str, str], list[int]] = {}  # problem -> indices of rows
            for (of_output, i), problem in sorted(problems.items()):
                if of_output == output and rows[i] >= 0:
                    failed.setdefault(problem, []).append(i)
            for problem, indices in failed.items():
                yield output, rows[indices], problem
                rows[indices] = -1
            self.batches[output].fill(places, rows)

    def lose(self, task: int, why: str) -> None:
        """Record that the video of a task cannot be read, or has changed.

        Its rows to compute are left to a later extraction. So are rows that have been computed, if
        the pixels had not been compared before, or if it is a video file, which is compared again
        at its end.
        """
        job, by_output = self._running.pop(task)
        is_uncompared = self._comparing.pop(job.number, None) is not None
        for batches, (rows, places) in zip(self.batches, by_output, strict=True):
            batches.fill(places, np.full(len(rows), -1))
        self._lose(job.video, job.pixels, why, computed=is_uncompared or job.pixels.in_order)

    def _lose(self, of_video: range, pixels: Pixels, why: str, *, computed: bool = False) -> None:
        for shards in self._open_shards:
            shards.lose(of_video, pixels.name, why, computed=computed)

    def _has_todo(self, job: Job) -> bool:
        by_output = zip(self._open_shards, job.crops, strict=True)
        return any(shards.is_todo(crops.rows["row"]).any() for shards, crops in by_output)

    def uncompared_shards(self, output: int) -> set[int]:
        """An output's open shards with videos whose pixels have not been compared yet."""
        by_job = [job.uncompared[output] for job in self._comparing.values()]
        return set[int]().union(*by_job)

    def uncompared_rows(self) -> list[range]:
        """All rows of videos whose pixels have not been compared yet."""
        return [job.video for job in self._comparing.values()]


def _videos(split: Split, target: Ints) -> Iterator[tuple[int, int, int]]:
    """Yield every sequence of tracks of one video that has rows in a target shard, as (number of
    the video, first row, last row + 1).
    """
    tracks = split.tracks
    if not len(tracks) or not len(target):
        return
    video = tracks.video
    size = split.rows_per_shard
    starts = tracks.start
    stops = tracks.stop
    first = np.concatenate([[0], np.flatnonzero(np.diff(video)) + 1])
    last = np.concatenate([first[1:], [len(video)]]) - 1
    # for each video: the first target shard from that of its first row on. The video has rows in it
    # if it is not after the shard of its last row.
    reached = np.searchsorted(target, starts[first] // size)
    shard = np.append(target, np.iinfo(np.int64).max)[reached]
    for i in np.flatnonzero(shard <= (stops[last] - 1) // size).tolist():
        yield int(video[first[i]]), int(starts[first[i]]), int(stops[last[i]])


def _parts(frame: Ints, in_order: bool, most_rows: int = MOST_PERSONS) -> Iterator[slice]:
    """Cut a video's rows into slices, one for each job. `frame`: the rows' frames, ascending.

    A video that must be decoded in order (`in_order`) is one job, others get jobs of about RUN_ROWS
    rows. A frame is cut only if it has too many persons.

    >>> [(part.start, part.stop) for part in _parts(np.array([3, 3, 3, 5]), True, 2)]
    [(0, 2), (2, 4)]
    """
    start = 0
    while start < len(frame):
        stop = len(frame)
        if not in_order and start + RUN_ROWS < stop:
            stop = int(np.searchsorted(frame, frame[start + RUN_ROWS - 1], side="right"))
        counts = np.unique(frame[start:stop], return_counts=True)[1]
        # The other persons of such a frame are another job, which decodes the frame again.
        if counts.max() > most_rows:
            crowded = int(np.argmax(counts > most_rows))
            stop = start + int(counts[:crowded].sum()) + most_rows
        yield slice(start, stop)
        start = stop


@dataclass(slots=True, eq=False)
class Batch:
    """Slots [first, first + size) of the memory, and which row of the split each slot has."""

    first: int
    rows: Ints  # (size,) rows; -1: the slot is empty
    taken: int = 0  # number of slots that are assigned to tasks
    waits_for: int = 0  # number of running tasks that have slots in this batch

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.rows))


Places = list[tuple[Batch, slice]]  # where the slots of a task are: batches, and slots in them


class Batches:
    """The slots of one output, in batches. Slots are assigned to tasks (`take`) and filled; a full
    batch is computed, then freed.
    """

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        self._free = deque(
            Batch(first, np.full(size, -1)) for first in range(0, n_slots - size + 1, size)
        )
        self._filling: Batch | None = None
        self.full: deque[Batch] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        """How many slots can be taken now."""
        n_free = len(self._free) * self._size
        if self._filling is not None:
            n_free += self._size - self._filling.taken
        return n_free

    def take(self, slots: Ints) -> Places:
        """Assign n slots, at most `capacity`. Writes their numbers into the array `slots` (n,), and
        returns where they are.
        """
        places: Places = []
        while len(slots):
            if self._filling is None:
                self._filling = self._free.popleft()
            batch = self._filling
            start = batch.taken
            stop = min(start + len(slots), self._size)
            n = stop - start
            slots[:n] = np.arange(batch.first + start, batch.first + stop)
            slots = slots[n:]
            places.append((batch, slice(start, stop)))
            batch.taken = stop
            batch.waits_for += 1
            if batch.taken == self._size:
                self._filling = None
        return places

    def fill(self, places: Places, rows: Ints) -> None:
        """Record that a task has filled its slots with rows (n,); -1: the slot is not filled."""
        for batch, place in places:
            n = place.stop - place.start
            batch.rows[place] = rows[:n]
            rows = rows[n:]
            batch.waits_for -= 1
            self._queue_if_full(batch)

    def close_batch(self) -> None:
        """Let the batch that is being filled be computed, though it is not full."""
        batch = self._filling
        self._filling = None
        if batch is not None:
            batch.taken = self._size
            self._queue_if_full(batch)

    def free(self, batch: Batch) -> None:
        """Make a computed batch available again."""
        batch.rows[:] = -1
        batch.taken = 0
        self._free.append(batch)

    def _queue_if_full(self, batch: Batch) -> None:
        """Queue a batch for computation, if all its slots are taken and filled."""
        if not batch.waits_for and batch.taken == self._size:
            self.full.append(batch)
