"""One stream while it is extracted: its slots, batches, open shards and network.  crops -> [features]"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache import Split, StreamShards
from pipeline.features.computing import load, numbers_of, region_slices
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import OpenShards, PendingShard
from pipeline.features.engine.tasks import MOST_ROWS, Batch, Batches
from pipeline.features.engine.worker import AHEAD, Filling, SharedSlots
from pipeline.features.streams.base import BYTES, Computer, Copies, Machine, Stream

MOST_PERSONS: Final = 256  # of a frame that are cropped at once
OPEN_OF_BYTES: Final = 3  # shards of a stream of bytes, which take some 200 MB each
AT_ONCE: Final = 16  # rows in a batch that goes through no network

T = TypeVar("T")
Computed = tuple[NDArray[Any], NDArray[np.bool_]]  # (n, dim) numbers or (n,) bytes; (n,) whether they are known


class Output(Generic[T]):
    """A stream while a run computes it.

    Args:
        target: shards to be computed, ascending.
        write: called for one shard at a time, mostly in a thread of its own, when all its rows are computed.
        recorded: the provenance of the rows that the stream has already.
    """

    def __init__(
        self,
        split: Split,
        stream: Stream,
        shards: StreamShards,
        target: Sequence[int],
        write: Callable[[PendingShard], T],
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        self.stream, self.target, self.write, self.recorded = stream, target, write, recorded
        self.open = OpenShards(split, shards, stream, target)
        self.provenance: Mapping[str, Any] | None = None  # of what computed rows; None: nothing had to be loaded
        self.threads = 1  # of the network
        self.computing = 0  # batches
        self.writing = 0  # shards that are being written
        self.batches: Batches
        self._computer: Computer | None = None  # none: decoding processes compute it
        self._most_open = OPEN_OF_BYTES
        self._memory: SharedSlots
        self._crops: NDArray[np.uint8]

    def load(self, machine: Machine, workers: int) -> Filling:
        """Load the network, if there is one. Returns what the decoding processes, `workers` of them, fill."""
        stream, size = self.stream, AT_ONCE
        self._computer, self.provenance = load(stream, machine, self.recorded)
        if self._computer is not None:
            size, self.threads = self._computer.batch_size, self._computer.lanes
        if stream.dtype != BYTES:
            self._most_open = workers + 2
        n_batches = 3 * self.threads + 2 + -(-2 * workers * AHEAD * MOST_ROWS // size)
        n_slots = max(n_batches * size, 2 * MOST_PERSONS)
        self.batches = Batches(n_slots, size)
        by_worker = stream if self._computer is None else None
        slot_bytes = 4 * stream.dim if by_worker and stream.dtype != BYTES else self.stream.policy.size**2 * 3
        return Filling(self.stream.policy.size, by_worker, n_slots, slot_bytes)

    @contextlib.contextmanager
    def using(self, memory: SharedSlots) -> Iterator[None]:
        """The slots that decoding processes fill."""
        self._memory = memory
        if self._computer is None:
            yield
            return
        self._crops = memory.slots.reshape(-1, self.stream.policy.size, self.stream.policy.size, 3)
        self._computer.adopt(self._crops)
        try:
            yield
        finally:
            self._computer.release()

    @property
    def has_room(self) -> bool:
        """Whether other shards may be opened."""
        return len(self.open) + self.writing < self._most_open

    def compute(self, batch: Batch, meter: Meter) -> Computed:
        """A full batch: the network's numbers, or what decoding processes have made."""
        slots, sizes = self._memory.slots[batch.span], self._memory.sizes[batch.span]
        if self._computer is None and self.stream.dtype == BYTES:
            data = [slot[:size].tobytes() for slot, size in zip(slots, sizes.tolist(), strict=True)]
            return np.array(data, object), sizes != 0
        if self._computer is None:
            return slots.copy().view(np.float32), sizes != 0
        began = time.perf_counter()
        computed = numbers_of(
            self.stream, self._computer, self._crops[batch.span][:, *region_slices(self.stream.policy)]
        )
        spent = time.perf_counter() - began
        copied = min(spent, self._computer.copied()) if isinstance(self._computer, Copies) else 0.0
        meter.add(model=spent - copied, **({"copy": copied} if copied else {}))
        return computed, np.ones(len(slots), bool)
