"""What is to be decoded, video by video: each frame once, for all its persons.  tracks -> [crops] -> features

A video's tracks are stored one after the other, often across the end of a shard. So work goes by videos, and shards are
open from the first video that reaches into them to the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.features.engine.shards import OpenShards
from pipeline.features.pixel_sources import Pixels

MOST_SHARDS: Final = 4  # that one video has open at a time. One with more rows is decoded again for each so many
RUN_ROWS: Final = 256  # rows of a job where pictures can be decoded in any order: several processes share a long video

_NUMBERS = itertools.count()  # of jobs


class Job(NamedTuple):
    """Rows of one video, in the order of its frames. n rows; a frame with several persons has several."""

    number: int
    pixels: Pixels
    rows: NDArray[np.int64]  # (n,) of the split
    frame: NDArray[np.int64]  # (n,) ascending; the rows themselves where targets are rows
    bbox: NDArray[np.float32]  # (n, 4)
    scale: NDArray[np.float64]  # (n,)
    first: bool  # of its video: the pixels are compared with those that were converted
    goes_on: bool  # the next job is of the same shards, and opens none
    shards: tuple[int, ...]  # that its video reaches into. None is written before the pixels have been compared


def jobs(
    split: Split, target: Sequence[int], open_shards: OpenShards, pixels_of: Callable[[int], Pixels], most_rows: int
) -> Iterator[Job | None]:
    """The rows to compute of the target shards, which are opened on the way. None: a video had none.

    Shards of a video are held, by `OpenShards.hold`, until the pixels of its first job have been compared.
    `pixels_of`: number of a video -> its pixels. No frame of a job has more than `most_rows` persons.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    missing = np.asarray(target, np.int64)  # once: there may be as many shards as videos
    for video, start, stop in _videos(split, missing, size):
        here = np.searchsorted(missing, [start // size, -(-stop // size)])
        touched = [shard for shard in missing[slice(*here)].tolist() if not open_shards.is_finished(shard)]
        for at in range(0, len(touched), MOST_SHARDS):
            shards = tuple(touched[at : at + MOST_SHARDS])
            rows, frame, bbox = _todo(open_shards, shards, start, stop)
            if not len(rows):
                yield None
                continue
            pixels = pixels_of(video)
            scale = np.asarray(split.tracks.crop_scale[split.track_of(rows)], np.float64)
            if pixels.by_row:
                frame = rows
            order = np.lexsort((rows, frame))
            parts = [order[part] for part in _parts(frame[order], pixels.in_order, most_rows)]
            open_shards.hold(shards)
            for i, part in enumerate(parts):
                yield Job(
                    next(_NUMBERS),
                    pixels,
                    rows[part],
                    frame[part],
                    bbox[part],
                    scale[part],
                    first=i == 0,
                    goes_on=i + 1 < len(parts),
                    shards=shards,
                )


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
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows to compute of [start, stop) in these shards, with their frames and boxes."""
    rows, frame, bbox = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
    for number in shards:
        shard = open_shards.open(number)
        within = slice(max(start, shard.start) - shard.start, min(stop, shard.stop) - shard.start)
        at = np.flatnonzero(shard.todo[within]) + within.start
        rows.append(at + shard.start)
        frame.append(shard.frame[at])
        bbox.append(shard.bbox[at])
    return np.concatenate(rows), np.concatenate(frame), np.concatenate(bbox)


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
