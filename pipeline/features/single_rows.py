"""Compute single rows of a stream, independently of the engine, to compare stored rows with.
tracks -> [crops -> features]

`recompute.py` asks for rows by `Requests`, and gets a `_RowResult` for each, in any order. This
module has its own code to find the frames and crops of a row, and decodes each video again. So a
comparison shows if the engine has stored a row in the wrong place. Only loading a stream, its
computation, and reading labels are shared with the engine.

`SingleRows.compute` has three ways:

- a stream of labels: its computer runs in this process;
- a stream of crops without a computer: requests are divided into chunks, by video; other processes
  decode the frames of a chunk and compute its rows (`_compute_chunk`);
- a stream of crops with a computer, a network: the other processes only return the crops, and the
  network computes the rows in this process (`_run_network`).
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
from pipeline.features.computing import compute_batch, compute_labels, compute_row, load
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
from pipeline.processes.ordered import ordered_map

MOST_ROWS: Final = 256  # per process and chunk (39 MB of 224 px crops)

Rows = Ints  # rows, by their numbers in the split
# The numbers of one row (dim,). In results on the way to `_run_network`, a crop (size, size, 3).
Values = Array


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

    request: int  # index of the request
    values: Values | None  # None: the row's value is unknown, or there is a problem
    problem: str = ""  # why the row could not be computed


class _Chunk(NamedTuple):
    """n requests of one video for one process, sorted by frame."""

    requests: Ints  # (n,) indices of the requests
    pixels: Pixels  # of the video
    frames: Ints  # (n, crops) frame numbers of each row's crops; its own frame is the last
    cuts: NDArray[np.void]  # (n,) how each crop is cut from its frame
    labels: Labels  # (n, ...) by column


class SingleRows:
    """Recomputes single rows of a committed stream.

    Raises what loading the stream raises, and PipelineError if the raw folder is missing.
    """

    def __init__(self, split: Split, spec: StreamSpec, workers: int) -> None:
        self._split = split
        self._stream = spec.stream
        self._workers = workers  # number of decoding processes
        recorded = split.stream_manifest(spec.name)["backbone"]
        self._computer, _ = load(spec.stream, Machine(), recorded)
        # the stream whose rows decoding processes compute; None: they return crops
        self._row_stream = spec.stream if self._computer is None else None
        if spec.stream.reads.crops:
            self._pixels = pixels(split, spec.raw)

    def compute(self, requests: Requests) -> Iterator[_RowResult]:
        """Yield the result of each request, in any order."""
        if not self._stream.reads.crops:
            yield from self._compute_from_labels(requests)
        elif self._row_stream is not None:
            yield from self._decode(requests)
        else:
            yield from self._run_network(self._decode(requests), requests.labels)

    def _compute_from_labels(self, requests: Requests) -> Iterator[_RowResult]:
        for start in range(0, len(requests.row), MOST_ROWS):
            rows = requests.labels[start : start + MOST_ROWS]
            labels = self._labels(rows)
            computed, known = compute_labels(self._stream, self._computer, labels, len(rows))
            for i in range(len(rows)):
                values = computed[i] if known[i] else None
                yield _RowResult(start + i, values)

    def _decode(self, requests: Requests) -> Iterator[_RowResult]:
        """Decode frames in other processes. Yields a result for each request: its row, or its crop
        for the network.
        """
        chunks = list(self._chunks(requests))
        job = functools.partial(_compute_chunk, self._row_stream, self._stream.policy.size)
        for chunk, results in zip(chunks, ordered_map(job, chunks, self._workers), strict=True):
            if isinstance(results, Failed):
                yield from _fail(chunk.requests, f"a process that decoded it {results.message}")
            else:
                yield from results

    def _chunks(self, requests: Requests) -> Iterator[_Chunk]:
        """Sort requests by video and frame, and divide them."""
        video = self._split.tracks.video[self._split.track_of(requests.row)]
        frame = self._frames(requests.source)
        order = np.lexsort((requests.source, frame, video))
        starts = np.flatnonzero(np.diff(video[order])) + 1
        # [0], or [1, 0] for a pair: the row before, and the row itself
        steps_back = np.arange(self._stream.reads.crops)[::-1]
        for of_video in np.split(order, starts):
            for first in range(0, len(of_video), MOST_ROWS):
                chosen = of_video[first : first + MOST_ROWS]
                rows = requests.source[chosen, None] - steps_back
                yield _Chunk(
                    requests=chosen,
                    pixels=self._pixels(int(video[chosen[0]])),
                    frames=self._frames(rows),
                    cuts=cuts(self._split, self._stream.policy, requests.box[chosen]),
                    labels=self._labels(requests.labels[chosen]),
                )

    def _run_network(self, crops: Iterator[_RowResult], labels_of: Rows) -> Iterator[_RowResult]:
        """Compute features of crops, in batches of the network's size.

        Args:
            crops: results whose `values` are crops.
            labels_of: the row of each request's labels.
        """
        size = self._stream.policy.size
        n_slots = self._computer.batch_size * self._computer.lanes
        memory = np.zeros((n_slots, size, size, 3), np.uint8)
        self._computer.adopt(memory)
        try:
            with ThreadPoolExecutor(self._computer.lanes) as threads:
                while results := list(itertools.islice(crops, n_slots)):
                    yield from (result for result in results if result.values is None)
                    cropped = [result for result in results if result.values is not None]
                    for slot, result in enumerate(cropped):
                        memory[slot] = result.values
                    rows = labels_of[[result.request for result in cropped]]
                    # All batches are finished after this loop: then the memory is used again.
                    computed = self._compute_batches(threads, memory, rows)
                    for result, values in zip(cropped, computed, strict=True):
                        yield result._replace(values=values)
        finally:
            self._computer.release()

    def _compute_batches(
        self, threads: ThreadPoolExecutor, memory: NDArray[np.uint8], labels_of: Rows
    ) -> Iterator[Values]:
        """Compute the first n crops in `memory`, in threads. Yields n rows.

        labels_of: (n,) the row of each crop's labels.
        """
        size = self._computer.batch_size
        region = self._stream.policy.slices
        batches = []
        labels = []
        for first in range(0, len(labels_of), size):
            rows = labels_of[first : first + size]
            batches.append(memory[first : first + size][:, *region])
            labels.append(self._labels(np.resize(rows, size)))  # an incomplete batch repeats rows
        compute = functools.partial(compute_batch, self._stream, self._computer)
        computed = itertools.chain.from_iterable(threads.map(compute, batches, labels))
        # the last batch may be incomplete: its other slots have earlier crops
        return itertools.islice(computed, len(labels_of))

    def _labels(self, rows: Rows) -> Labels:
        return label_batch(self._split, rows, self._stream.reads)

    def _frames(self, rows: Rows) -> Ints:
        """The frame numbers of rows, in the same shape."""
        return column(self._split.rows, "frame_index", rows.ravel()).reshape(rows.shape)


def _fail(requests: Ints, problem: str) -> list[_RowResult]:
    return [_RowResult(request, None, problem) for request in requests.tolist()]


def _compute_chunk(row_stream: Stream | None, size: int, chunk: _Chunk) -> list[_RowResult]:
    """Decode the frames of a chunk, in a process of its own.

    Args:
        row_stream: the stream that computes the rows; None: the results have the crops.
        size: px of the crops.
    """
    results: list[_RowResult] = []
    try:
        chunk.pixels.check()
        for result in _compute_in_order(row_stream, size, chunk):
            results.append(result)  # noqa: PERF402 - those before a VideoLost are used
    except VideoLost as error:
        lost = f"{chunk.pixels.split}: {chunk.pixels.name}: {error}"
        results += _fail(chunk.requests[len(results) :], lost)
    return results


def _compute_in_order(row_stream: Stream | None, size: int, chunk: _Chunk) -> Iterator[_RowResult]:
    """Yield a chunk's results while its frames are decoded, each once. Only the frames that later
    requests use are in memory.
    """
    own = chunk.frames[:, -1]  # (n,) ascending
    # (n,) the first frame that a request or a later one uses
    first_used = np.minimum.accumulate(chunk.frames[::-1, 0])[::-1].tolist()
    numbers = np.unique(chunk.frames).tolist()
    i = 0  # the next request
    frames: dict[int, Frame] = {}  # by number
    for number, frame in zip(numbers, chunk.pixels.decode(iter(numbers)), strict=True):
        frames[number] = frame
        while i < len(own) and own[i] == number:
            yield _compute_request(row_stream, size, chunk, i, frames)
            i += 1
        if i < len(own):
            frames = {used: frames[used] for used in frames if used >= first_used[i]}


def _compute_request(
    row_stream: Stream | None, size: int, chunk: _Chunk, i: int, frames: Mapping[int, Frame]
) -> _RowResult:
    """Compute the i-th request of a chunk from decoded frames, by number."""
    request = int(chunk.requests[i])
    cut = chunk.cuts[i]
    is_whole = row_stream is not None and row_stream.reads.is_whole
    numbers = chunk.frames[i].tolist()
    crops = []
    for number in numbers:
        frame = frames[number]
        if frame.image is None:
            return _RowResult(request, None, str(frame.problem))
        crops.append(chunk.pixels.crop(frame, cut, size, is_whole=is_whole))
    if row_stream is None:
        return _RowResult(request, crops[0])
    labels = {name: values[i] for name, values in chunk.labels.items()}
    values = compute_row(row_stream, crops, crop_labels(labels, cut), f"frame {numbers[-1]}")
    return _RowResult(request, values)
