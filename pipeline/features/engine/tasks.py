"""Plan the decoding: shards -> jobs -> tasks.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So the rows of a
video in a few neighbouring shards are decoded together: each frame is decoded once for all persons
and streams. The words:

    job      rows of one video, sorted by frame, for all streams; one process decodes them
    task     some whole frames of a job, about 16 to 64 rows, that are sent to a process at once
    lost     of a video: it cannot be read now, or has changed; a later extraction computes its rows

Example: `resnet50` and `homography` miss rows 100 to 139, two persons in frames 0 to 19 of one
video. One job has all 40 rows, sorted by frame: 100, 120, 101, 121, ... Its tasks are frames 0 to
7, 8 to 15 and 16 to 19; frame 1 has four crops. A process decodes frame 1 once, cuts its four
crops, and keeps the last `n_kept` frames for later rows.

`run.py` calls, in this order: `Planner.jobs`, `Planner.tasks` for the tasks of a job, and
`Planner.lose` when a process cannot read a video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from cache.arrays import Ints
from pipeline.features.engine.network import MOST_PERSONS
from pipeline.features.engine.shards import StreamRun
from pipeline.features.engine.worker import Crops, Task
from pipeline.features.pixels import Pixels, videos_of

MOST_SHARDS: Final = 4  # open shards of one video; a video with more rows is decoded several times
# rows of a job with images in any order, so that several processes share a long video
RUN_ROWS: Final = 256


class Job(NamedTuple):
    """Rows of one video, which one process decodes."""

    video: int  # number in the split
    pixels: Pixels
    frame: Ints  # (n,) of each row that a stream computes, ascending
    crops: list[NDArray[np.void]]  # by stream, of `CROP`, ascending by frame


class Planner:
    """Plans the decoding of the target shards of all streams.

    Args:
        pixels_of: video number -> its pixels.
        workers: number of decoding processes.
    """

    def __init__(
        self,
        split: Split,
        streams: Sequence[StreamRun],
        pixels_of: Callable[[int], Pixels],
        workers: int,
    ) -> None:
        self.streams = streams
        self.workers = workers
        self._split = split
        self._pixels_of = pixels_of
        # Shards of a stream that may be open, or wait to be written, before another job: one for
        # each process, and two more. The last MOST_SHARDS may have rows of jobs to come.
        self._most_open = max(workers + 2, MOST_SHARDS + 1)
        self._lost: dict[int, str] = {}  # video -> why it cannot be read

    def jobs(self) -> Iterator[Job | None]:
        """Yield the jobs; None while another one would open too many shards. Opens the shards."""
        target = sorted(set[int]().union(*(stream.target for stream in self.streams)))
        videos_of_shard: dict[int, set[int]] = {}  # shard -> its videos without jobs so far
        for i, number in enumerate(target):
            for later in target[i : i + MOST_SHARDS]:
                if later not in videos_of_shard:
                    videos_of_shard[later] = {*videos_of(self._split, [later])}
            for stream in self.streams:  # also if all rows are there
                stream.open(number)
            for video in sorted(videos_of_shard.pop(number)):
                shared = [later for later, videos in videos_of_shard.items() if video in videos]
                for later in shared:
                    videos_of_shard[later].remove(video)
                yield from self._video_jobs(video, [number, *shared])
                while any(stream.n_unwritten >= self._most_open for stream in self.streams):
                    yield None

    def _video_jobs(self, video: int, numbers: Sequence[int]) -> Iterator[Job]:
        """Yield the jobs for these shards of a video; none if nothing is to be decoded, or if the
        video is lost.
        """
        crops = [stream.crops(video, numbers) for stream in self.streams]
        if not any(map(len, crops)):
            return
        if video in self._lost:
            self.lose(video, self._lost[video])
            return
        pixels = self._pixels_of(video)
        every_row = np.concatenate(crops)
        rows = _sort(every_row[np.unique(every_row["row"], return_index=True)[1]])
        for part in _parts(rows["frame"], pixels.in_order):
            chosen = rows["row"][part]
            of_part = [_sort(of_stream[np.isin(of_stream["row"], chosen)]) for of_stream in crops]
            yield Job(video, pixels, rows["frame"][part], of_part)

    def tasks(self, job: Job, n: int) -> Iterator[Task]:
        """Yield the tasks of a job, of about n rows each, until its video is lost. The crops have
        no slots.
        """
        crops = []
        for stream, rows in zip(self.streams, job.crops, strict=True):
            crops.append(Crops(rows, stream.labels(rows["row"])))
        previous = [rows["previous"] for rows in job.crops]
        frames = np.unique(np.concatenate([job.frame, *previous]))
        n_kept = _frames_to_keep(frames, np.concatenate(job.crops))
        # the frames of every n-th row, and of the last row
        last_frames = job.frame[np.append(np.arange(n - 1, len(job.frame) - 1, n), -1)]
        start = 0
        for last in np.unique(last_frames).tolist():
            end = int(np.searchsorted(frames, last, side="right"))
            if job.video in self._lost:
                return
            yield Task(
                video=job.video,
                pixels=job.pixels,
                frames=frames[start:end].tolist(),
                # the last one tells a process whether it has decoded the frames before
                earlier_frames=frames[max(0, start - max(1, n_kept)) : start].tolist(),
                crops=[of_stream.within(frames[start], last) for of_stream in crops],
                n_kept=n_kept,
                # Not for folders of images: listing thousands of files often would be slow.
                compare_after=end == len(frames) and job.pixels.in_order,
            )
            start = end

    def lose(self, video: int, why: str) -> None:
        """Leave the rows of a video that cannot be read, or has changed, to a later extraction."""
        self._lost[video] = why
        for stream in self.streams:
            stream.lose(video, why)


def _sort(crops: NDArray[np.void]) -> NDArray[np.void]:
    """Sort crops by frame, and those of a frame by row."""
    return crops[np.lexsort((crops["row"], crops["frame"]))]


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


def _frames_to_keep(frames: Ints, crops: NDArray[np.void]) -> int:
    """How many of the frames decoded last a process must keep, to have the previous frame of every
    crop. frames: those of a job, ascending.

    >>> crops = np.array([(3, 3), (5, 5), (9, 3)], [("frame", int), ("previous", int)])
    >>> _frames_to_keep(np.array([3, 5, 9]), crops)
    2
    """
    n_back = np.searchsorted(frames, crops["frame"]) - np.searchsorted(frames, crops["previous"])
    return int(n_back.max(initial=0))
