"""Compute single rows of a stream, independently of the engine, to compare stored rows with.

This module has its own code to find the frames and crops of a row, and decodes each video again. So
a comparison shows if the engine has stored a row in the wrong place. Only loading a stream, its
computation, and reading labels are shared with the engine.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from cache.arrays import Array, Ints
from pipeline.features.computing import compute_labels, load, numbers_of, row_of
from pipeline.features.inputs import (
    Pixels,
    VideoLost,
    column,
    crop_labels,
    cuts,
    label_batch,
    pixels,
)
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Labels, Machine, Stream
from pipeline.files.pixels.frames import Frame
from pipeline.processes import Failed
from pipeline.processes.pool import ordered_map

MOST_ROWS: Final = 256  # per process and chunk (39 MB of 224 px crops)

Rows = Ints
Numbers = Array


class Requests(NamedTuple):
    """n computations. Each may use the frame of one row with the box and the labels of other rows
    of the same track.
    """

    row: Rows  # (n,) rows to compare the results with
    source: Rows  # (n,) rows whose frame (for pairs, also the previous one) is used
    box: Rows  # (n,) rows whose box is cropped
    labels: Rows  # (n,) rows whose labels are used


class _RowResult(NamedTuple):
    """The result of one request."""

    number: int  # which request, from 0
    numbers: Numbers | None  # None: the value is unknown, or see `problem`
    problem: str = ""  # why the row could not be computed


class _Chunk(NamedTuple):
    """n requests of one video for one process, sorted by frame."""

    numbers: Rows  # (n,) numbers of the requests
    pixels: Pixels  # of the video
    frames: Rows  # (n, crops) frame numbers of each row's crops; its own frame is the last
    cuts: NDArray[np.void]  # (n,) how each crop is cut from its frame
    labels: Labels  # (n, ...) by column


class SingleRows:
    """Recomputes single rows of a committed stream.

    Raises what loading the stream raises, and PipelineError if the raw folder is missing.
    """

    def __init__(self, split: Split, spec: StreamSpec, workers: int) -> None:
        self._split = split
        self._spec = spec
        self._stream = spec.stream
        self._workers = workers
        recorded = split.stream_manifest(spec.name)["backbone"]
        self._computer, _ = load(spec.stream, Machine(), recorded)
        if spec.stream.reads.crops:
            self._pixels = pixels(split, spec.raw)

    def numbers(self, requests: Requests) -> Iterator[_RowResult]:
        """Yield the result of each request, in any order: `number` tells which one it is."""
        if not self._stream.reads.crops:
            yield from self._compute_from_labels(requests)
        elif self._computer is None:
            yield from self._read_crops(requests)
        else:
            yield from self._run_network(self._read_crops(requests), requests.labels)

    def _compute_from_labels(self, requests: Requests) -> Iterator[_RowResult]:
        for start in range(0, len(requests.row), MOST_ROWS):
            rows = requests.labels[start : start + MOST_ROWS]
            labels = self._labels(rows)
            computed, known = compute_labels(self._stream, self._computer, labels, len(rows))
            for i in range(len(rows)):
                yield _RowResult(start + i, computed[i] if known[i] else None)

    def _run_network(self, crops: Iterator[_RowResult], labels_of: Rows) -> Iterator[_RowResult]:
        """Compute features of crops, in batches of the network's size.

        Args:
            crops: results whose `numbers` are crops.
            labels_of: the row of each request's labels.
        """
        size = self._computer.batch_size
        lanes = self._computer.lanes
        policy = self._stream.policy
        memory = np.zeros((size * lanes, policy.size, policy.size, 3), np.uint8)
        region = policy.slices
        compute = functools.partial(numbers_of, self._stream, self._computer)
        self._computer.adopt(memory)
        try:
            with ThreadPoolExecutor(lanes) as threads:
                while results := list(itertools.islice(crops, len(memory))):
                    yield from (result for result in results if result.numbers is None)
                    cropped = [result for result in results if result.numbers is not None]
                    for slot, result in zip(memory, cropped, strict=False):
                        slot[:] = result.numbers
                    rows = labels_of[[result.number for result in cropped]]
                    batches = []
                    labels = []
                    for first in range(0, len(cropped), size):
                        batches.append(memory[first : first + size][:, *region])
                        labels.append(self._labels(np.resize(rows[first : first + size], size)))
                    computed = itertools.chain.from_iterable(threads.map(compute, batches, labels))
                    for result, numbers in zip(cropped, computed, strict=False):
                        yield result._replace(numbers=numbers)
        finally:
            self._computer.release()

    def _read_crops(self, requests: Requests) -> Iterator[_RowResult]:
        """Decode frames in other processes. Yields a result for each request, whose `numbers` are
        its crop; or the row, if the stream has no computer.
        """
        chunks = list(self._chunks(requests))
        by_worker = self._stream if self._computer is None else None
        job = functools.partial(_rows_of, by_worker, self._stream.policy.size)
        for chunk, rows in zip(chunks, ordered_map(job, chunks, self._workers), strict=True):
            if isinstance(rows, Failed):
                rows = [f"a process that decoded it {rows.message}"] * len(chunk.numbers)
            for number, row in zip(chunk.numbers.tolist(), rows, strict=True):
                if isinstance(row, str):
                    yield _RowResult(number, None, row)
                else:
                    yield _RowResult(number, row)

    def _chunks(self, requests: Requests) -> Iterator[_Chunk]:
        video = self._split.tracks.video[self._split.track_of(requests.row)]
        frame = self._frames(requests.source)
        order = np.lexsort((requests.source, frame, video))
        ends = np.flatnonzero(np.diff(video[order])) + 1
        before = np.arange(self._stream.reads.crops)[::-1]
        for of_video in np.split(order, ends):
            for first in range(0, len(of_video), MOST_ROWS):
                numbers = of_video[first : first + MOST_ROWS]
                rows = requests.source[numbers, None] - before
                pixels_of = self._pixels(int(video[numbers[0]]))
                shown = cuts(self._split, self._stream.policy, requests.box[numbers])
                labels = self._labels(requests.labels[numbers])
                yield _Chunk(numbers, pixels_of, self._frames(rows), shown, labels)

    def _labels(self, rows: Rows) -> Labels:
        return label_batch(self._split, rows, self._stream.reads)

    def _frames(self, rows: Rows) -> Rows:
        """The frame numbers of rows, in the same shape."""
        return column(self._split.rows, "frame_index", rows.ravel()).reshape(rows.shape)


def _rows_of(stream: Stream | None, size: int, chunk: _Chunk) -> list[Numbers | str | None]:
    """The result for each row of a chunk: the row that `stream` computes, or the crop if `stream`
    is None; None if the value is unknown; or the text of a problem.
    """
    rows: list[Numbers | str | None] = []
    try:
        chunk.pixels.check()
        rows.extend(_decoded_rows(stream, size, chunk))
    except VideoLost as error:
        lost = f"{chunk.pixels.split}: {chunk.pixels.name}: {error}"
        rows += [lost] * (len(chunk.numbers) - len(rows))
    return rows


def _decoded_rows(
    stream: Stream | None, size: int, chunk: _Chunk
) -> Iterator[Numbers | str | None]:
    own = chunk.frames[:, -1]
    first = np.minimum.accumulate(chunk.frames[::-1, 0])[::-1].tolist()
    frames = np.unique(chunk.frames).tolist()
    n_rows = 0
    kept: dict[int, Frame] = {}  # frames for the remaining rows
    for frame, decoded in zip(frames, chunk.pixels.decode(iter(frames)), strict=True):
        kept[frame] = decoded
        while n_rows < len(own) and own[n_rows] == frame:
            yield _row_of(stream, size, chunk, n_rows, kept)
            n_rows += 1
        oldest = first[min(n_rows, len(own) - 1)]
        kept = {number: kept[number] for number in kept if number >= oldest}


def _row_of(
    stream: Stream | None, size: int, chunk: _Chunk, i: int, kept: Mapping[int, Frame]
) -> Numbers | str | None:
    crops = []
    cut = chunk.cuts[i]
    is_whole = stream is not None and stream.reads.is_whole
    for frame in chunk.frames[i].tolist():
        if kept[frame].image is None:
            return str(kept[frame].problem)
        crops.append(chunk.pixels.crop(kept[frame], cut, size, is_whole=is_whole))
    if stream is None:
        return crops[0]
    labels = {name: values[i] for name, values in chunk.labels.items()}
    return row_of(stream, crops, crop_labels(labels, cut), f"frame {frame}")
