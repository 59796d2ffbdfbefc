"""A loaded network, and the shared memory for its crops.  [crops -> features]

The memory is divided into *slots*, each for one crop, and these into *batches* of neighbouring
slots. Tasks take free slots in order, batch after batch. A batch whose slots are all filled is
computed, and then its slots are free again.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Ints
from pipeline.features.computing import compute_batch
from pipeline.features.engine.shards import Checked, StreamRun
from pipeline.features.engine.worker import AHEAD, view_slots
from pipeline.features.streams.base import Labels
from pipeline.processes.meter import Meter

FEWEST_ROWS: Final = 16  # in a task, so that small batches are soon full
MOST_ROWS: Final = 64  # in a task; sending more at once saves nothing
MOST_PERSONS: Final = 256  # of one frame in a job; the others are in another job

NO_ROW: Final = -1  # the "row" of an empty slot


class LoadedNetwork:
    """The network of one stream. Batches are known by their numbers.

    Args:
        computer: what `Stream.load` returned, a `Computer`.
        workers: number of decoding processes.
    """

    def __init__(self, stream: StreamRun, computer: Any, workers: int) -> None:
        self.lanes: int = computer.lanes  # number of threads that may compute batches
        self.full = deque[int]()  # batches that are ready to be computed
        self._n_computing = 0  # number of batches that are being computed
        self._run = stream
        self._stream = stream.stream
        self._computer = computer
        self._size: int = computer.batch_size
        self.task_rows: int = min(max(FEWEST_ROWS, self._size // 4), MOST_ROWS)
        n_batches = self._count_batches(workers)
        # (batches, size) the row of the split in each slot
        self._rows: NDArray[np.int64] = np.full((n_batches, self._size), NO_ROW, np.int64)
        self._n_empty = np.full(n_batches, self._size)  # slots that are not filled, by batch
        self._free_slots = deque(range(self._rows.size))  # whole batches, but for the first one
        self._slots: NDArray[np.uint8]  # (n, crop size, crop size, 3); within `use`

    def _count_batches(self, workers: int) -> int:
        """Number of batches with which processes and network threads need not wait for each
        other.
        """
        # Each process has AHEAD tasks. A task may have a few rows more than `task_rows`, as frames
        # are not divided.
        rows_ahead = workers * AHEAD * (self.task_rows + FEWEST_ROWS)
        # For each thread: a batch that it computes, one that is submitted, and one that is full.
        # Two more may be partly filled.
        n_batches = 3 * self.lanes + 2 + math.ceil(rows_ahead / self._size)
        # at least the largest task, which ends with a frame of MOST_PERSONS
        return max(n_batches, math.ceil(2 * MOST_PERSONS / self._size) + 1)

    @property
    def n_bytes(self) -> int:
        """Size of the memory."""
        size = self._stream.policy.size
        return self._rows.size * size * size * 3

    @contextlib.contextmanager
    def use(self, memory: mmap.mmap) -> Iterator[None]:
        """Within the `with` block, compute batches from this memory."""
        self._slots = view_slots(memory, self._stream.policy.size)
        self._computer.adopt(self._slots)
        try:
            yield
        finally:
            self._computer.release()
            del self._slots

    def has_room(self, n: int) -> bool:
        """Whether n slots can be taken now."""
        return n <= len(self._free_slots)

    def take(self, n: int) -> Ints:
        """Take n slots, for which there is room, and return them."""
        return np.array([self._free_slots.popleft() for _ in range(n)], np.int64)

    def fill(self, slots: Ints, rows: Ints) -> None:
        """Record that slots (n,) are filled with the crops of rows (n,); NO_ROW: it is empty."""
        self._rows.flat[slots] = rows
        batches, n_filled = np.unique(slots // self._size, return_counts=True)
        self._n_empty[batches] -= n_filled
        for batch in batches[self._n_empty[batches] == 0].tolist():
            if (self._rows[batch] == NO_ROW).all():  # lost, or undecodable
                self._free(batch)
            else:
                self.full.append(batch)

    def close_batch(self) -> None:
        """Let the batch whose slots are being taken be computed, though it is not full."""
        slots = self.take(len(self._free_slots) % self._size)
        self.fill(slots, np.full(len(slots), NO_ROW))

    def take_full(self) -> Iterator[tuple[int, Labels]]:
        """Yield the batches to compute now, each with columns of its rows, if the network reads
        some. Empty slots get those of another row.
        """
        while self.full and self._n_computing < 2 * self.lanes:
            batch = self.full.popleft()
            rows = self._rows[batch]
            self._n_computing += 1
            yield batch, self._run.labels(np.where(rows == NO_ROW, rows.max(), rows))

    def compute(self, batch: int, labels: Labels, meter: Meter) -> Checked:
        """Compute a full batch. Any thread may call this."""
        slots = self._slots[batch * self._size : (batch + 1) * self._size]
        crops = slots[:, *self._stream.policy.slices]
        with meter.measure("model"):
            computed = compute_batch(self._stream, self._computer, crops, labels)
        return self._run.check(computed, np.ones(len(computed), bool))

    def store(self, batch: int, checked: Checked) -> int:
        """Store the rows of a computed batch. Returns the number of stored rows."""
        self._n_computing -= 1
        n = self._run.store(self._rows[batch], checked)
        self._free(batch)
        return n

    def _free(self, batch: int) -> None:
        """Make the slots of a batch available again."""
        self._n_empty[batch] = self._size
        first = batch * self._size
        self._free_slots.extend(range(first, first + self._size))
