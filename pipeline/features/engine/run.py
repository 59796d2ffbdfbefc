"""One extraction on this machine: decoding, computing and writing at the same time.  tracks -> [crops -> features]

One loop hands tasks to the decoding processes, full batches to the network's threads, and finished shards to the thread
that writes. The slowest of them makes it wait; memory is a fixed number of slots and the few open shards.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.engine.decoders import AHEAD, Decoders, cores
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import OpenShard, OpenShards, Shards
from pipeline.features.engine.tasks import MOST_ROWS, Batch, Batches, Job, jobs
from pipeline.features.engine.worker import SharedCrops
from pipeline.features.pixel_sources import Pixels
from pipeline.features.spec import Resources
from pipeline.features.streams.base import ByteStream, Computer, Copies, NumberStream, Stream

MOST_PERSONS: Final = 256  # of a frame that are cropped at once
MOST_WORKERS: Final = 16  # decoding processes for each core: more would only slow each other down
OPEN_OF_BYTES: Final = 3  # shards of a stream of bytes, which take some 200 MB each
BYTES_AT_ONCE: Final = 16  # crops in a batch that goes through no network
LOOK_EVERY: Final = 0.02  # s between looks at what the threads have done: a batch takes longer
REPORT_EVERY: Final = 0.25  # s between progress reports

T = TypeVar("T")


class Run(Generic[T]):
    """An extraction of some of a split's shards, done once.

    Args:
        pixels_of: number of a video -> where its crops come from.
        write: called for one shard at a time, mostly in a thread of its own, when all its rows are computed.
        recorded: the provenance of the rows that the stream has already.
        progress: called with rows done a few times a second.
    """

    def __init__(
        self,
        split: Split,
        shards: Shards,
        stream: Stream,
        *,
        pixels_of: Callable[[int], Pixels],
        write: Callable[[OpenShard], T],
        resources: Resources,
        recorded: Mapping[str, Any] | None = None,
        progress: Callable[[int, Meter], None] = lambda rows, meter: None,  # noqa: ARG005
    ) -> None:
        self._split, self._stream, self._pixels_of = split, stream, pixels_of
        self._write, self._resources, self._recorded, self._progress = write, resources, recorded, progress
        self._open = OpenShards(split, shards, stream)
        self.meter = Meter()
        self.provenance: Mapping[str, Any] | None = None  # of what computed rows; None: nothing had to be loaded
        self._computer: Computer | None
        self._memory: SharedCrops
        self._batches: Batches
        self._decoders: Decoders
        self._most_open: (
            int  # shards; while as many are open or being written, no jobs are begun that could open others
        )
        self._coming: Iterator[list[Job]]
        self._more = True  # they may come
        self._jobs: deque[Job] = deque()  # that have come, of shards that are open
        self._busy: dict[int, tuple[Job, int]] = {}  # process -> its job, and the row that it goes on with
        self._comparing: dict[int, tuple[int, ...]] = {}  # job -> shards that wait until its pixels have been compared
        self._computing: dict[Future[NDArray[Any]], Batch] = {}
        self._writing: deque[Future[T]] = deque()
        self._reported = 0.0

    def over(self, target: Sequence[int]) -> Iterator[T]:
        """What `write` returned of each target shard, as soon as it has been written. `target` is ascending.

        Raises what `write` and the stream raise, and PipelineError for pixels that are not those that were converted.
        """
        self._coming = jobs(self._split, target, self._open, self._pixels_of, MOST_PERSONS)
        for first in self._coming:  # where all rows are carried over, no process is started, and no network loaded
            if first:
                self._jobs += first
                yield from self._computed()
                break
            yield from self._carried()
        yield from self._carried()
        self.meter.stop()
        self._report()

    def _carried(self) -> Iterator[T]:
        for shard in self._open.finished():
            yield self._write(shard)
            self._report()

    def _computed(self) -> Iterator[T]:
        self._computer, self.provenance = load(self._stream, self._resources, self._recorded)
        encoder = self._stream if isinstance(self._stream, ByteStream) else None
        lanes, size = 1, BYTES_AT_ONCE
        if self._computer is not None:
            lanes, size = self._computer.lanes, self._computer.batch_size
        workers = self._resources.workers or cores()
        if workers > MOST_WORKERS * cores():
            raise ConfigError(
                f"workers {workers}: this machine has {cores()} cores; at most {MOST_WORKERS} for each are allowed"
            )
        self.meter = Meter(decoders=workers, lanes=lanes)
        self._most_open = workers + 2 if encoder is None else OPEN_OF_BYTES
        # What the threads compute and have next, and what processes have been given.
        n_batches = 3 * lanes + 2 + -(-2 * workers * AHEAD * MOST_ROWS // size)
        n_slots = max(n_batches * size, 2 * MOST_PERSONS)
        self._batches = Batches(n_slots, size)
        self._report()
        with (
            SharedCrops.new(n_slots) as self._memory,
            Decoders(workers, self._memory, timeout=self._resources.timeout, encoder=encoder) as self._decoders,
        ):
            if self._computer is not None:
                self._computer.adopt(self._memory.slots)
            try:
                yield from self._loop()
            finally:
                if self._computer is not None:
                    self._computer.release()

    def _report(self) -> None:
        self._reported = time.monotonic()
        self._progress(self.meter.rows + self._open.not_computed, self.meter)

    def _loop(self) -> Iterator[T]:
        with (
            ThreadPoolExecutor(self.meter.lanes, thread_name_prefix="network") as network,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._more or len(self._open) or self._writing:
                    self._hand_out()
                    while self._batches.full and len(self._computing) < 2 * self.meter.lanes:
                        batch = self._batches.full.popleft()
                        self._computing[network.submit(self._compute, batch)] = batch
                    self._writing += [writer.submit(self._written, shard) for shard in self._finished()]
                    waits = self._decoders.outstanding or self._computing or self._writing or self._batches.full
                    assert waits or not len(self._open), "shards are open, and nothing is done about them"
                    self._listen()
                    while self._writing and self._writing[0].done():
                        yield self._writing.popleft().result()
            finally:  # the pools wait for what they have begun, and begin nothing else
                network.shutdown(wait=False, cancel_futures=True)
                writer.shutdown(wait=False, cancel_futures=True)

    def _finished(self) -> Iterator[OpenShard]:
        return self._open.finished({shard for shards in self._comparing.values() for shard in shards})

    def _compute(self, batch: Batch) -> NDArray[Any]:
        """A full batch: the network's numbers, or what decoding processes have encoded."""
        crops = self._memory.slots[batch.span]
        if self._computer is None:
            slots, sizes = crops.reshape(len(crops), -1), self._memory.sizes[batch.span].tolist()
            return np.array([slot[:size].tobytes() for slot, size in zip(slots, sizes, strict=True)], object)
        began = time.perf_counter()
        computed = self._computer(crops)
        spent = time.perf_counter() - began
        copied = min(spent, self._computer.copied()) if isinstance(self._computer, Copies) else 0.0
        self.meter.add(network=spent - copied, **({"copy": copied} if copied else {}))
        expected = (len(crops), self._stream.dim)
        if computed.shape != expected:  # what can be broadcast would go into the stream unseen
            raise PipelineError(
                f"the stream {self._stream.kind!r} does not compute what it declares: expected {expected} numbers of a "
                f"batch, found {computed.shape}"
            )
        return computed

    def _written(self, shard: OpenShard) -> T:
        began = time.perf_counter()
        written = self._write(shard)
        self.meter.add(write=time.perf_counter() - began)
        return written

    def _hand_out(self) -> None:
        """Give tasks to every process that has room for one; close a batch that cannot be filled."""
        while sum(self._give(number) for number in range(self.meter.decoders)):
            pass
        comes_more = self._busy or self._more  # once the batches that are being computed have made room
        if not self._decoders.outstanding and not self._batches.full and not (comes_more and self._computing):
            self._batches.close_batch()

    def _give(self, number: int) -> bool:
        if not self._decoders.has_room(number):
            return False
        job, start = self._busy.pop(number) if number in self._busy else (self._next_job(), 0)
        if job is None:
            return False
        if job.number in self._decoders.lost:
            self._open.give_up(job.rows[start:], *self._decoders.lost[job.number])
            return True
        asked = self._batches.ask(job, start)
        if asked is None:
            self._busy[number] = (job, start)
            return False
        task, stop = asked
        if stop < len(job.rows):
            self._busy[number] = (job, stop)
        self._decoders.give(number, task)
        return True

    def _next_job(self) -> Job | None:
        """None while the next one would open more shards than may be, or when there are no more jobs."""
        while self._more and not self._jobs and len(self._open) + len(self._writing) < self._most_open:
            coming = next(self._coming, None)
            self._more = coming is not None
            self._jobs += coming or []
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        if job.shards:
            self._comparing[job.number] = job.shards
        return job

    def _listen(self) -> None:
        """Wait for any of the parts, and take what it has."""
        for done in self._decoders.answers(wait(self._decoders.connections, LOOK_EVERY)):
            self.meter.add(decode=done.decoding, crop=done.cropping)
            self.meter.frames += done.frames
            job, lost = self._batches.fill(done)
            self._comparing.pop(job.number, None)
            for frame, rows in lost.items():
                self._open.give_up(rows, *done.problems[frame])
        for future in [future for future in self._computing if future.done()]:
            batch, computed = self._computing.pop(future), future.result()
            filled = np.flatnonzero(batch.rows >= 0)
            self._open.put(batch.rows[filled], computed[filled])
            self.meter.rows += len(filled)
            self._batches.free(batch)
        if time.monotonic() - self._reported > REPORT_EVERY:
            self._report()


def load(
    stream: Stream, resources: Resources, recorded: Mapping[str, Any] | None
) -> tuple[Computer | None, Mapping[str, Any]]:
    """What computes a stream, None for a stream of bytes, and where its numbers come from. Raises what loading does."""
    if isinstance(stream, NumberStream):
        computer = stream.load(resources.machine, recorded)
        return computer, computer.provenance
    if isinstance(stream, ByteStream):
        return None, stream.provenance
    raise TypeError(f"{type(stream).__name__} is neither a NumberStream nor a ByteStream")
