"""Plan the decoding: videos -> jobs -> tasks -> slots of batches.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So jobs go by
videos, each frame is decoded once for all persons and outputs, and shards are open from their first
video to the last.
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
from pipeline.features.engine.worker import CROP, Crops, Problems, Task
from pipeline.features.inputs import Pixels, VideoLost, column

MOST_SHARDS: Final = 4  # open shards of one video; a video with more rows is decoded several times
# rows of a job with images in any order, so that several processes share a long video
RUN_ROWS: Final = 256
FEWEST_ROWS: Final = 16  # of a task: small batches are full soon
MOST_ROWS: Final = 64  # of a task: sending it costs little
MOST_PERSONS: Final = 256  # of a frame that are cropped at once

_JOB_NUMBERS: Final = itertools.count()  # decoding processes may stay for the next tasks

Rows = NDArray[np.int64]


class Job(NamedTuple):
    """n rows of one video in the order of frames, one for each person.

    They include rows that are not missing, if another row needs their frame as its previous one.
    """

    number: int
    pixels: Pixels
    rows: Rows  # (n,) of the split
    frame: NDArray[np.int64]  # (n,) ascending
    crops: list[Crops]  # by output: of the rows to be computed, without slots
    # by output: those that wait for this job to compare the pixels; (): none
    shards: Sequence[Sequence[int]]
    video: range  # all rows of the video
    n_kept: int  # number of decoded frames to keep, which later rows need as previous ones


class Tasks:
    """Jobs for the target shards of all outputs, and their tasks, with slots in every output's
    batches.

    open_shards: by output. pixels_of: number of a video -> its pixels.
    """

    def __init__(
        self, split: Split, open_shards: Sequence[OpenShards], pixels_of: Callable[[int], Pixels]
    ) -> None:
        self._split = split
        self._open = open_shards
        self._pixels_of = pixels_of
        self.batches: list[Batches] = []  # by output; needed by the first task
        self.task_rows = FEWEST_ROWS
        # by number: their shards wait until the pixels have been compared
        self._comparing: dict[int, Job] = {}
        # by the task's number, and by output
        self._running: dict[int, tuple[Job, list[tuple[Rows, Places]]]] = {}
        self._task_numbers = itertools.count()

    def videos(self) -> Iterator[list[Job]]:
        """Jobs for the next few shards of a video, which are opened."""
        size = int(self._split.manifest["geometry"]["rows_per_shard"])
        missing = np.unique(
            np.concatenate([np.asarray(shards.target, np.int64) for shards in self._open])
        )
        for video, start, stop in _videos(self._split, missing, size):
            of_video = missing[
                slice(*np.searchsorted(missing, [start // size, -(-stop // size)]))
            ].tolist()
            touched = [
                number
                for number in of_video
                if any(shards.is_missing(number) for shards in self._open)
            ]
            for at in range(0, len(touched), MOST_SHARDS):
                yield self._jobs(video, range(start, stop), touched[at : at + MOST_SHARDS])

    def _jobs(self, video: int, of_video: range, touched: Sequence[int]) -> list[Job]:
        """Jobs for these shards of a video. The first one compares the pixels."""
        waiting = [
            [number for number in touched if shards.is_missing(number)] for shards in self._open
        ]
        todo = [
            shards.todo(numbers, of_video)
            for shards, numbers in zip(self._open, waiting, strict=True)
        ]
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
        parts = list(_parts(frame, pixels.in_order))
        first = self._job(pixels, rows[parts[0]], todo, waiting, of_video)
        return [first, *(self._job(pixels, rows[part], todo, [], of_video) for part in parts[1:])]

    def _job(
        self,
        pixels: Pixels,
        rows: Rows,
        todo: Sequence[Rows],
        shards: Sequence[Sequence[int]],
        of_video: range,
    ) -> Job:
        """Make a job of rows to be computed, and of the rows before them that streams of pairs
        need.
        """
        todo = [np.intersect1d(rows, of_output) for of_output in todo]
        pairs = self._rows_of_pairs(rows, todo)
        rows, frame = self._by_frame(np.union1d(rows, pairs - 1))
        previous = frame.copy()
        is_pair = np.isin(rows, pairs)
        previous[is_pair] = self._frames(rows[is_pair] - 1)
        by_output = zip(self._open, todo, strict=True)
        crops = [
            self._crops(shards, of_output, rows, frame, previous) for shards, of_output in by_output
        ]
        frames = np.unique(frame)
        n_kept = int(
            (np.searchsorted(frames, frame) - np.searchsorted(frames, previous)).max(initial=0)
        )
        return Job(next(_JOB_NUMBERS), pixels, rows, frame, crops, shards, of_video, n_kept)

    def _rows_of_pairs(self, rows: Rows, todo: Sequence[Rows]) -> Rows:
        """Those of a job's rows that any stream of pairs computes. All of them have a row before:
        see State.FIRST.
        """
        is_pair = np.zeros(len(rows), bool)
        for shards, of_output in zip(self._open, todo, strict=True):
            if shards.pairs:
                is_pair |= np.isin(rows, of_output)
        return rows[is_pair]

    def _frames(self, rows: Rows) -> NDArray[np.int64]:
        return column(self._open[0].rows, "frame_index", rows)

    def _by_frame(self, rows: Rows) -> tuple[Rows, NDArray[np.int64]]:
        """Rows in the order of their frames, and the frames."""
        frame = self._frames(rows)
        order = np.lexsort((rows, frame))
        return rows[order], frame[order]

    def _crops(
        self, shards: OpenShards, todo: Rows, rows: Rows, *frames: NDArray[np.int64]
    ) -> Crops:
        """Crops, without slots, of those of a job's rows that an output computes. frames: of all
        rows, and previous.
        """
        at = np.isin(rows, todo)
        crops = np.zeros(np.count_nonzero(at), CROP)
        crops["row"], crops["frame"], crops["previous"] = (
            rows[at],
            *(numbers[at] for numbers in frames),
        )
        crops["cut"] = shards.cuts(rows[at])
        return Crops(crops, shards.labels(rows[at]))

    def split_job(self, job: Job) -> Iterator[Task | None]:
        """The tasks of a job; None while no slots are free. No task if its video has been lost
        meanwhile.
        """
        if not self._has_todo(job):
            return
        if job.shards:
            self._comparing[job.number] = job
        n = self.task_rows
        frames = np.unique(job.frame)
        # of every n-th row, and of the last
        last = job.frame[np.append(np.arange(n - 1, len(job.frame) - 1, n), -1)]
        # of tasks: of whole frames
        ends = np.unique(np.searchsorted(frames, last, side="right")).tolist()
        numbers = frames[np.array(ends) - 1]
        stops = [
            np.searchsorted(of.rows["frame"], numbers, side="right").tolist() for of in job.crops
        ]
        starts = [0] * len(stops)
        for start, end, *to in zip([0, *ends[:-1]], ends, *stops, strict=True):
            crops = [of.part(*span) for of, *span in zip(job.crops, starts, to, strict=True)]
            while any(
                len(of.rows) > batches.capacity
                for of, batches in zip(crops, self.batches, strict=True)
            ):
                yield None
            places = [
                batches.take(of.rows["slot"])
                for of, batches in zip(crops, self.batches, strict=True)
            ]
            number = next(self._task_numbers)
            before = frames[max(0, start - job.n_kept) : start]
            self._running[number] = (
                job,
                [(of.rows["row"], where) for of, where in zip(crops, places, strict=True)],
            )
            here = frames[start:end].tolist()
            first = start == 0 and bool(job.shards)
            # images: folders of thousands would be listed often
            last = end == len(frames) and job.pixels.in_order
            yield Task(
                number,
                job.number,
                job.pixels,
                here,
                crops,
                job.n_kept,
                before.tolist(),
                first,
                last,
            )
            starts = to

    def fill(self, task: int, problems: Problems) -> Iterator[tuple[int, Rows, tuple[str, str]]]:
        """Record a decoded task. Yields (output, rows, problem) of rows with a problem."""
        job, by_output = self._running.pop(task)
        self._comparing.pop(job.number, None)
        for output, (rows, places) in enumerate(by_output):
            rows[~self._open[output].is_todo(rows)] = -1  # of a video that has been lost meanwhile
            of_this = sorted(
                (i, problem) for (of_output, i), problem in problems.items() if of_output == output
            )
            failed = {i: problem for i, problem in of_this if rows[i] >= 0}
            for problem in dict.fromkeys(failed.values()):
                yield (
                    output,
                    rows[[i for i, of_row in failed.items() if of_row == problem]],
                    problem,
                )
            rows[list(failed)] = -1
            self.batches[output].fill(places, rows)

    def lose(self, task: int, why: str) -> None:
        """Record that the video of a task cannot be read.

        Rows computed before its pixels were compared are lost. A video file is compared again at
        its end.
        """
        job, by_output = self._running.pop(task)
        is_uncompared = self._comparing.pop(job.number, None) is not None
        for batches, (rows, places) in zip(self.batches, by_output, strict=True):
            batches.fill(places, np.full(len(rows), -1))
        self._lose(job.video, job.pixels, why, computed=is_uncompared or job.pixels.in_order)

    def _lose(self, of_video: range, pixels: Pixels, why: str, *, computed: bool = False) -> None:
        for shards in self._open:
            shards.lose(of_video, pixels.name, why, computed=computed)

    def _has_todo(self, job: Job) -> bool:
        by_output = zip(self._open, job.crops, strict=True)
        return any(shards.is_todo(crops.rows["row"]).any() for shards, crops in by_output)

    def uncompared_shards(self, output: int) -> set[int]:
        """An output's open shards with videos whose pixels have not been compared yet."""
        return {shard for job in self._comparing.values() for shard in job.shards[output]}

    def uncompared_rows(self) -> list[range]:
        """All rows of those videos."""
        return [job.video for job in self._comparing.values()]


def _videos(split: Split, target: NDArray[np.int64], size: int) -> Iterator[tuple[int, int, int]]:
    """(video, first row, last row + 1) of every range of tracks of one video with rows in a target
    shard.
    """
    tracks = split.tracks
    if not len(tracks) or not len(target):
        return
    video = tracks.video
    starts = tracks.start
    stops = tracks.stop
    first = np.concatenate([[0], np.flatnonzero(np.diff(video)) + 1])
    last = np.concatenate([first[1:], [len(video)]]) - 1
    # the first target shard at or after its first row
    reached = np.searchsorted(target, starts[first] // size)
    after = np.append(target, np.iinfo(np.int64).max)[reached]
    for i in np.flatnonzero(after <= (stops[last] - 1) // size).tolist():
        yield int(video[first[i]]), int(starts[first[i]]), int(stops[last[i]])


def _parts(
    frame: NDArray[np.int64], in_order: bool, most_rows: int = MOST_PERSONS
) -> Iterator[slice]:
    """Slices of rows, one for each job. `frame` is ascending; a frame is divided only if it has too
    many persons.

    >>> [(part.start, part.stop) for part in _parts(np.array([3, 3, 3, 5]), True, 2)]
    [(0, 2), (2, 4)]
    """
    start = 0
    while start < len(frame):
        stop = len(frame) if in_order else min(start + RUN_ROWS, len(frame))
        if stop < len(frame):
            stop = int(np.searchsorted(frame, frame[stop - 1], side="right"))
        counts = np.unique(frame[start:stop], return_counts=True)[1]
        # the other persons are another job, which decodes the frame again
        if counts.max() > most_rows:
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


Places = list[tuple[Batch, slice]]  # slots of a task in batches


class Batches:
    """One stream's slots as batches, which are assigned to tasks, filled, computed, and freed."""

    def __init__(self, n_slots: int, size: int) -> None:
        self._size = size
        self._free = deque(
            Batch(first, np.full(size, -1)) for first in range(0, n_slots - size + 1, size)
        )
        self._filling: Batch | None = None
        self.full: deque[Batch] = deque()  # ready to be computed

    @property
    def capacity(self) -> int:
        partly = 0 if self._filling is None else self._size - self._filling.taken
        return partly + len(self._free) * self._size

    def take(self, slots: NDArray[np.int64]) -> Places:
        """Assign (n,) slots, at most the capacity. Writes their numbers, and returns where they
        are.
        """
        places: Places = []
        at = 0
        while at < len(slots):
            batch = self._filling = self._filling or self._free.popleft()
            place = slice(batch.taken, min(batch.taken + len(slots) - at, self._size))
            numbers = np.arange(batch.first + place.start, batch.first + place.stop)
            slots[at : at + len(numbers)] = numbers
            at += len(numbers)
            places.append((batch, place))
            batch.taken = place.stop
            batch.waits_for += 1
            if batch.taken == self._size:
                self._filling = None
        return places

    def fill(self, places: Places, rows: NDArray[np.int64]) -> None:
        """Record slots of one task as filled with (n,) rows; -1: not filled."""
        for batch, place in places:
            n = place.stop - place.start
            batch.rows[place] = rows[:n]
            rows = rows[n:]
            batch.waits_for -= 1
            self._ready(batch)

    def close_batch(self) -> None:
        """Let the incomplete batch be computed."""
        batch = self._filling
        self._filling = None
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
