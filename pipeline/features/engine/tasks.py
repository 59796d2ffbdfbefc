"""Plan the decoding: videos -> jobs -> tasks -> slots of batches.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So decoding is
planned by video and not by shard: each frame is decoded once for all persons and outputs, and a
shard stays open from its first video to its last. The words:

    job      rows of one video, sorted by frame, for all outputs; one process decodes them
    task     some whole frames of a job, about 16 to 64 rows, that are sent to a process at once
    slot     memory for the pixels of one crop, or for the row's numbers if the decoding process
             computes them. It is shared with the decoding processes
    batch    neighbouring slots of one output, whose rows are computed together
    lost     of a video: it cannot be read now, or has changed; a later extraction computes its rows

Example: `resnet50` and `homography` miss rows 100 to 139, two persons in frames 0 to 19 of one
video. Output 0 is `resnet50`, 1 is `homography`; both open the shard of these rows. One job has all
40 rows, sorted by frame: 100, 120, 101, 121, ... Its tasks are frames 0 to 7, 8 to 15 and 16 to 19,
with a slot for each crop; frame 1 has four crops. A process decodes frame 1 once, fills its four
slots, keeps the last `n_kept` frames for later rows, and answers each task with the problems of its
slots.

`run.py` calls, in this order: `Tasks.jobs_by_video`, `Tasks.split_job` for the tasks of a job, and
`Tasks.fill` or `Tasks.lose` when a process has answered a task. `Batches` has the slots of one
output.

Features of changed pixels must not be stored. So the first job of a video's shards compares its
pixels with those of the conversion, in its first task. Until that task is answered, the video is
*uncompared*: `run` neither writes the job's shards (`Tasks.uncompared_shards`) nor saves the
video's rows in checkpoints (`Tasks.uncompared_rows`). A video file is compared again after the
job's last frame. If that fails, `Tasks.lose` also discards its computed rows of shards that are
open.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from cache import Split
from cache.arrays import Bools, Ints
from pipeline.features.engine.shards import OpenShards
from pipeline.features.engine.worker import CROP, Crops, Problems, Task
from pipeline.features.inputs import Pixels, VideoLost, column

MOST_SHARDS: Final = 4  # open shards of one video; a video with more rows is decoded several times
# rows of a job with images in any order, so that several processes share a long video
RUN_ROWS: Final = 256
FEWEST_ROWS: Final = 16  # in a task, so that small batches are soon full
MOST_ROWS: Final = 64  # in a task; sending more at once saves nothing
MOST_PERSONS: Final = 256  # of one frame in a job; the others are in another job

NO_ROW: Final = -1  # the "row" of an empty slot
Rows = Ints  # rows, by their numbers in the split


class Job(NamedTuple):
    """n rows of one video, sorted by frame, which one process decodes. A row is one person in one
    frame.

    They include rows that need not be computed, if another row needs their frame as its previous
    one.
    """

    number: int
    pixels: Pixels
    rows: Rows  # (n,)
    frame: Ints  # (n,) ascending
    # by output: the crops of the rows to compute. `Tasks.split_job` sets their slots
    crops: list[Crops]
    # If this job compares the video's pixels: by output, the shards that must not be written
    # before. Empty: an earlier job compares them.
    uncompared_shards: Sequence[Sequence[int]]
    video: range  # all rows of the video
    n_kept: int  # number of decoded frames to keep, as later rows need them as previous frames


class _TaskRows(NamedTuple):
    """The n rows of a task that one output computes, and the slots that they got."""

    rows: Rows  # (n,)
    places: TaskSlots


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
        self._job_numbers = itertools.count()
        self._task_numbers = itertools.count()

    def jobs_by_video(self) -> Iterator[list[Job]]:
        """Yield the jobs for each video, or for a few of its shards at a time if it has many. Opens
        these shards.
        """
        targets = [np.asarray(shards.target, np.int64) for shards in self._open_shards]
        target = np.unique(np.concatenate(targets))
        for video, video_rows, numbers in _videos(self._split, target):
            missing = [number for number in numbers if self._is_missing(number)]
            for i in range(0, len(missing), MOST_SHARDS):
                yield self._make_jobs(video, video_rows, missing[i : i + MOST_SHARDS])

    def _is_missing(self, number: int) -> bool:
        return any(shards.is_missing(number) for shards in self._open_shards)

    def _make_jobs(self, video: int, video_rows: range, numbers: Sequence[int]) -> list[Job]:
        """Make the jobs for these shards of a video; [] if nothing is to be decoded, or if the
        video is lost. The first job compares the pixels.

        video_rows: all rows of the video.
        """
        missing = []  # by output: numbers of the shards to compute
        todo = []  # by output: rows to compute
        for shards in self._open_shards:
            missing.append([number for number in numbers if shards.is_missing(number)])
            todo.append(shards.todo(missing[-1], video_rows))
        rows = np.unique(np.concatenate(todo))
        if not len(rows):
            return []
        pixels = self._pixels_of(video)
        try:
            pixels.require_place()
        except VideoLost as error:
            self._lose(video_rows, pixels, str(error))
            return []
        rows, frame = self._by_frame(rows)
        jobs = []
        uncompared_shards = missing
        for part in _parts(frame, pixels.in_order):
            jobs.append(self._make_job(pixels, rows[part], todo, uncompared_shards, video_rows))
            uncompared_shards = []  # the first job compares the pixels
        return jobs

    def _make_job(
        self,
        pixels: Pixels,
        rows: Rows,
        video_todo: Sequence[Rows],
        uncompared_shards: Sequence[Sequence[int]],
        video_rows: range,
    ) -> Job:
        """Make a job that computes some rows of a video. It also decodes the frames of the rows
        before them, if a stream of pairs needs these.

        Args:
            rows: the rows that the job computes, for at least one output.
            video_todo: by output, the rows to compute in all jobs of the video.
            uncompared_shards: see `Job`.
        """
        todo = [np.intersect1d(rows, of_output) for of_output in video_todo]
        pairs = self._rows_of_pairs(todo)
        job_rows, frame = self._by_frame(np.union1d(rows, pairs - 1))
        # the frame of each row's previous row; of rows that are no pair, their own frame
        previous_frame = frame.copy()
        is_pair = np.isin(job_rows, pairs)
        previous_frame[is_pair] = self._frames(job_rows[is_pair] - 1)
        crops = [
            self._make_crops(shards, np.isin(job_rows, of_output), job_rows, frame, previous_frame)
            for shards, of_output in zip(self._open_shards, todo, strict=True)
        ]
        n_kept = _frames_to_keep(frame, previous_frame)
        return Job(
            next(self._job_numbers),
            pixels,
            job_rows,
            frame,
            crops,
            uncompared_shards,
            video_rows,
            n_kept,
        )

    def _rows_of_pairs(self, todo: Sequence[Rows]) -> Rows:
        """The rows to compute of all streams of pairs. Each has a previous row, because first rows
        are not computed (State.FIRST).
        """
        by_output = zip(self._open_shards, todo, strict=True)
        of_pairs = [rows for shards, rows in by_output if shards.has_pairs]
        return np.concatenate([np.zeros(0, np.int64), *of_pairs])

    def _frames(self, rows: Rows) -> Ints:
        return column(self._open_shards[0].rows, "frame_index", rows)

    def _by_frame(self, rows: Rows) -> tuple[Rows, Ints]:
        """Sort rows by their frames. Returns the rows, and their frame numbers."""
        frame = self._frames(rows)
        order = np.lexsort((rows, frame))
        return rows[order], frame[order]

    def _make_crops(
        self, shards: OpenShards, is_todo: Bools, rows: Rows, frame: Ints, previous_frame: Ints
    ) -> Crops:
        """The crops of a job's rows (n,) that an output computes (`is_todo`), without slots."""
        rows = rows[is_todo]
        crops = np.zeros(len(rows), CROP)
        crops["row"] = rows
        crops["frame"] = frame[is_todo]
        crops["previous"] = previous_frame[is_todo]
        crops["cut"] = shards.cuts(rows)
        return Crops(crops, shards.labels(rows))

    def split_job(self, job: Job) -> Iterator[Task | None]:
        """Yield the tasks of a job; None while no slots are free. If its video has been lost in the
        meantime, there is no task.
        """
        if not self._has_todo(job):
            return
        if job.uncompared_shards:
            self._comparing[job.number] = job
        frames = np.unique(job.frame)
        start = 0
        for end in self._task_ends(job, frames):
            task_crops = [crops.within(frames[start], frames[end - 1]) for crops in job.crops]
            while not self._have_room(task_crops):
                yield None
            by_output = self._assign_slots(task_crops)
            number = next(self._task_numbers)
            self._running[number] = job, by_output
            yield Task(
                number=number,
                job=job.number,
                pixels=job.pixels,
                frames=frames[start:end].tolist(),
                crops=task_crops,
                n_kept=job.n_kept,
                earlier_frames=frames[max(0, start - job.n_kept) : start].tolist(),
                compare_before=start == 0 and bool(job.uncompared_shards),
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

    def _have_room(self, task_crops: Sequence[Crops]) -> bool:
        """Whether every output has free slots for its crops of a task."""
        by_output = zip(task_crops, self.batches, strict=True)
        return all(len(crops.rows) <= batches.capacity for crops, batches in by_output)

    def _assign_slots(self, task_crops: Sequence[Crops]) -> list[_TaskRows]:
        """Assign slots to a task's crops, by output, and set their field "slot"."""
        by_output = []
        for crops, batches in zip(task_crops, self.batches, strict=True):
            places = batches.take(len(crops.rows))
            for batch, slots, rows in places:
                slot_numbers = np.arange(batch.first + slots.start, batch.first + slots.stop)
                crops.rows["slot"][rows] = slot_numbers
            by_output.append(_TaskRows(crops.rows["row"], places))
        return by_output

    def fill(self, task: int, problems: Problems) -> None:
        """Record that a task has been decoded and its slots are filled. Gives up the rows that have
        a problem.
        """
        job, by_output = self._running.pop(task)
        self._comparing.pop(job.number, None)
        for output, (rows, places) in enumerate(by_output):
            shards = self._open_shards[output]
            is_todo = shards.is_todo(rows)  # False: the video has been lost in the meantime
            failed: dict[tuple[str, str], list[int]] = {}  # problem -> indices of rows
            for (problem_output, i), problem in sorted(problems.items()):
                if problem_output == output and is_todo[i]:
                    failed.setdefault(problem, []).append(i)
            for problem, indices in failed.items():
                shards.give_up(rows[indices], *problem)
                is_todo[indices] = False
            self.batches[output].fill(places, np.where(is_todo, rows, NO_ROW))

    def lose(self, task: int, why: str) -> None:
        """Record that the video of a task cannot be read, or has changed.

        Its rows to compute are left to a later extraction. So are rows that have been computed, if
        the pixels had not been compared before, or if it is a video file, which is compared again
        at its end.
        """
        job, by_output = self._running.pop(task)
        is_uncompared = self._comparing.pop(job.number, None) is not None
        for batches, (rows, places) in zip(self.batches, by_output, strict=True):
            batches.fill(places, np.full(len(rows), NO_ROW))
        self._lose(job.video, job.pixels, why, computed=is_uncompared or job.pixels.in_order)

    def _lose(self, video_rows: range, pixels: Pixels, why: str, *, computed: bool = False) -> None:
        for shards in self._open_shards:
            shards.lose(video_rows, pixels.name, why, computed=computed)

    def _has_todo(self, job: Job) -> bool:
        by_output = zip(self._open_shards, job.crops, strict=True)
        return any(shards.is_todo(crops.rows["row"]).any() for shards, crops in by_output)

    def uncompared_shards(self, output: int) -> set[int]:
        """An output's open shards with videos whose pixels have not been compared yet."""
        by_job = [job.uncompared_shards[output] for job in self._comparing.values()]
        return set[int]().union(*by_job)

    def uncompared_rows(self) -> list[range]:
        """All rows of videos whose pixels have not been compared yet."""
        return [job.video for job in self._comparing.values()]


def _videos(split: Split, target: Ints) -> Iterator[tuple[int, range, list[int]]]:
    """Yield every sequence of tracks of one video that has rows in a target shard, as (number of
    the video, its rows, target shards with some of these).
    """
    tracks = split.tracks
    if not len(tracks):
        return
    is_next_video = np.diff(tracks.video) != 0
    first_track = np.flatnonzero(np.append(True, is_next_video))
    last_track = np.flatnonzero(np.append(is_next_video, True))
    start = tracks.start[first_track]
    stop = tracks.stop[last_track]
    # target[first[i] : end[i]]: from the shard of the video's first row to that of its last one
    first = np.searchsorted(target, start // split.rows_per_shard)
    end = np.searchsorted(target, (stop - 1) // split.rows_per_shard, side="right")
    for i in np.flatnonzero(first < end).tolist():
        video = int(tracks.video[first_track[i]])
        yield video, range(start[i], stop[i]), target[first[i] : end[i]].tolist()


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


def _frames_to_keep(frame: Ints, previous_frame: Ints) -> int:
    """How many of the frames decoded last a process must keep, to have the previous frame of every
    row. frame, previous_frame: (n,) of a job's rows.

    >>> _frames_to_keep(np.array([3, 5, 9]), np.array([3, 5, 3]))
    2
    """
    frames = np.unique(frame)
    n_back = np.searchsorted(frames, frame) - np.searchsorted(frames, previous_frame)
    return int(n_back.max(initial=0))


@dataclass(slots=True, eq=False)
class Batch:
    """Slots [first, first + size) of the memory, and which row of the split each slot has."""

    first: int
    rows: Rows  # (size,); NO_ROW: the slot is empty
    taken: int = 0  # number of slots that are assigned to tasks
    waits_for: int = 0  # number of running tasks that have slots in this batch

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.rows))


class TakenSlots(NamedTuple):
    """Slots in one batch, for some of the rows that an output computes of a task."""

    batch: Batch
    slots: slice  # within the batch
    rows: slice  # within the task's rows of the output


TaskSlots = list[TakenSlots]  # of all rows that an output computes of a task


class Batches:
    """The slots of one output, in batches. Slots are assigned to tasks (`take`) and filled; a full
    batch is computed, then freed.
    """

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        self._free = deque(
            Batch(first, np.full(size, NO_ROW)) for first in range(0, n_slots - size + 1, size)
        )
        self._filling: Batch | None = None  # the batch whose slots are being assigned
        self.full: deque[Batch] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        """How many slots can be taken now."""
        n_free = len(self._free) * self._size
        if self._filling is not None:
            n_free += self._size - self._filling.taken
        return n_free

    def take(self, n: int) -> TaskSlots:
        """Assign n slots, at most `capacity`, to the rows of a task."""
        places: TaskSlots = []
        row = 0
        while row < n:
            if self._filling is None:
                self._filling = self._free.popleft()
            batch = self._filling
            start = batch.taken
            stop = min(start + n - row, self._size)
            next_row = row + stop - start
            places.append(TakenSlots(batch, slice(start, stop), slice(row, next_row)))
            row = next_row
            batch.taken = stop
            batch.waits_for += 1
            if batch.taken == self._size:
                self._filling = None
        return places

    def fill(self, places: TaskSlots, rows: Rows) -> None:
        """Record that a task has filled its slots with rows (n,); NO_ROW: the slot is empty."""
        for place in places:
            batch = place.batch
            batch.rows[place.slots] = rows[place.rows]
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
        batch.rows[:] = NO_ROW
        batch.taken = 0
        self._free.append(batch)

    def _queue_if_full(self, batch: Batch) -> None:
        """Queue a batch for computation, if all its slots are taken and filled."""
        if not batch.waits_for and batch.taken == self._size:
            self.full.append(batch)
