"""A loaded network, and the slots for its crops.  [crops -> features]

The memory that a network shares with the decoding processes is divided into *slots*, each for one
crop, and these into *batches* of neighbouring slots. Tasks take free slots in order, batch after
batch. A batch whose slots are all filled is computed, and then its slots are free again.

`Slots` is the ledger: which slots are free, and which row is in each. `LoadedNetwork` computes the
batches.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Ints
from pipeline.features.engine.shards import Checked, StreamRun
from pipeline.features.engine.worker import AHEAD
from pipeline.features.streams import compute_batch
from pipeline.features.streams.base import Computer, Labels
from pipeline.processes.meter import Meter

FEWEST_ROWS: Final = 16  # in a task, so that small batches are soon full
MOST_ROWS: Final = 64  # in a task; sending more at once saves nothing
MOST_PERSONS: Final = 256  # of one frame in a job; the others are in another job

NO_ROW: Final = -1  # the "row" of an empty slot


class _FullBatch(NamedTuple):
    """A batch whose slots are all filled."""

    number: int
    rows: NDArray[np.int64]  # (size,) the row of the split in each slot; NO_ROW if it is empty


class Slots:
    """The slots of a network: which of them are free, and which row each has.

    Args:
        crop_size: px.
        batch_size: number of slots in a batch.
        lanes: number of threads that may compute batches.
        workers: number of decoding processes.
    """

    def __init__(self, crop_size: int, batch_size: int, lanes: int, workers: int) -> None:
        self.task_rows = min(max(FEWEST_ROWS, batch_size // 4), MOST_ROWS)
        """Number of rows in a task."""
        self._size = batch_size
        # Each process has AHEAD tasks. A task may have a few rows more than `task_rows`, as frames
        # are not divided.
        rows_ahead = workers * AHEAD * (self.task_rows + FEWEST_ROWS)
        n_batches = _count_batches(rows_ahead, batch_size, lanes)
        # the rows in all slots, by batch; NO_ROW: an empty slot
        self._rows: NDArray[np.int64] = np.full((n_batches, batch_size), NO_ROW, np.int64)
        self._n_unfilled = np.full(n_batches, batch_size)  # slots that are not filled, by batch
        self._free = deque(range(self._rows.size))  # whole batches, but for the first one
        self._full = deque[int]()  # numbers of the batches that are ready to be computed
        self.n_bytes = self._rows.size * crop_size * crop_size * 3
        """Size of the memory."""

    @property
    def has_full_batch(self) -> bool:
        """Whether a batch is ready to be computed."""
        return bool(self._full)

    def has_room(self, n: int) -> bool:
        """Whether n slots can be taken now."""
        return n <= len(self._free)

    def take(self, n: int) -> Ints:
        """Take n slots, for which there is room, and return them."""
        return np.array([self._free.popleft() for _ in range(n)], np.int64)

    def fill(self, slots: Ints, rows: Ints) -> None:
        """Record that slots (n,) are filled with the crops of rows (n,); NO_ROW: it is empty."""
        self._rows.flat[slots] = rows
        batches, n_filled = np.unique(slots // self._size, return_counts=True)
        self._n_unfilled[batches] -= n_filled
        for number in batches[self._n_unfilled[batches] == 0].tolist():
            if (self._rows[number] == NO_ROW).all():  # lost, or undecodable
                self.free(number)
            else:
                self._full.append(number)

    def close_batch(self) -> None:
        """Let the batch whose slots are being taken be computed, though it is not full."""
        slots = self.take(len(self._free) % self._size)
        self.fill(slots, np.full(len(slots), NO_ROW))

    def take_full(self) -> _FullBatch:
        """Take the batch that has been full for the longest time. Its slots stay in use until
        `free`.
        """
        number = self._full.popleft()
        return _FullBatch(number, self._rows[number])

    def free(self, number: int) -> None:
        """Make the slots of a batch available again."""
        self._n_unfilled[number] = self._size
        self._free.extend(self.indices(number))

    def indices(self, number: int) -> range:
        """The slots of a batch."""
        first = number * self._size
        return range(first, first + self._size)


def _count_batches(rows_ahead: int, batch_size: int, lanes: int) -> int:
    """Number of batches with which decoding processes, which have taken slots for `rows_ahead`
    rows, and network threads need not wait for each other.
    """
    # For each thread: a batch that it computes, one that is submitted, and one that is full. Two
    # more may be partly filled.
    n_batches = 3 * lanes + 2 + math.ceil(rows_ahead / batch_size)
    # at least the largest task, which ends with a frame of MOST_PERSONS
    return max(n_batches, math.ceil(2 * MOST_PERSONS / batch_size) + 1)


class LoadedNetwork:
    """The network of one stream.

    Args:
        computer: what `Stream.load` returned.
        crops: the memory of the slots (n, size, size, 3).
    """

    def __init__(
        self, stream: StreamRun, computer: Computer, slots: Slots, crops: NDArray[np.uint8]
    ) -> None:
        self.slots = slots
        self._run = stream
        self._stream = stream.stream
        self._computer = computer
        self._crops = crops
        self._computing: dict[Future[Checked], _FullBatch] = {}

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        """Within the `with` block, the computer reads the memory of the slots."""
        self._computer.adopt(self._crops)
        try:
            yield
        finally:
            self._computer.release()

    @property
    def is_computing(self) -> bool:
        """Whether a batch is being computed, so that its slots will be free again."""
        return bool(self._computing)

    def compute_full(self, threads: ThreadPoolExecutor, meter: Meter) -> None:
        """Begin to compute full batches, up to two for each thread that may compute them."""
        while self.slots.has_full_batch and len(self._computing) < 2 * self._computer.lanes:
            batch = self.slots.take_full()
            # empty slots get the labels of another row
            rows = np.where(batch.rows == NO_ROW, batch.rows.max(), batch.rows)
            future = threads.submit(self._compute, batch, self._run.labels(rows), meter)
            self._computing[future] = batch

    def _compute(self, batch: _FullBatch, labels: Labels, meter: Meter) -> Checked:
        """Compute a batch, in another thread. labels: columns of its rows, if the network reads
        some.
        """
        slots = self.slots.indices(batch.number)
        crops = self._crops[slots.start : slots.stop, *self._stream.policy.slices]
        with meter.measure("model"):
            computed = compute_batch(self._stream, self._computer, crops, labels)
        return self._run.check(computed, np.ones(len(computed), bool))

    def store_computed(self) -> int:
        """Store the rows of the batches that have been computed, and free their slots. Returns the
        number of stored rows.
        """
        n_stored = 0
        for future in [future for future in self._computing if future.done()]:
            batch = self._computing.pop(future)
            n_stored += self._run.store(batch.rows, future.result())
            self.slots.free(batch.number)
        return n_stored
