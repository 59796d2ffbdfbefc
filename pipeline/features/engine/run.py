"""One extraction on this machine: decoding, computing and writing at the same time.  tracks -> [crops -> features]

One loop hands tasks to the decoding processes, full batches to the network's threads, and finished shards to the thread
that writes. It waits where the slowest of them makes it wait; memory is a fixed number of slots and the few open
shards.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Pipe, wait
from typing import Any, Final, Generic, TypeVar

import numpy as np

from cache import Split
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.engine.batches import MOST_ROWS, Batch, Batches
from pipeline.features.engine.decoders import AHEAD, Decoders, cores
from pipeline.features.engine.jobs import Job, jobs
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import Data, OpenShard, OpenShards, Shards
from pipeline.features.engine.worker import Done, SharedCrops
from pipeline.features.pixel_sources import Pixels
from pipeline.features.spec import Resources
from pipeline.features.streams.base import ByteStream, Computer, Copies, NumberStream, Stream

MOST_PERSONS: Final = 256  # of a frame that are cropped at once
MOST_WORKERS: Final = 16  # decoding processes for each core: more would only slow each other down
OPEN_OF_BYTES: Final = 3  # shards of a stream of bytes, which take some 200 MB each
BYTES_AT_ONCE: Final = 16  # crops in a batch that goes through no network
LOOK_EVERY: Final = 0.25  # s between checks for processes that hang, and between progress reports

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
        self._coming: Iterator[Job | None]
        self._computer: Computer | None
        self._memory: SharedCrops
        self._batches: Batches
        self._decoders: Decoders
        self._most_open: int  # shards; while as many are open or being written, no job is begun that could open others
        self._busy: dict[int, tuple[Job, int]] = {}  # process -> its job, and the row that it goes on with
        self._comparing: dict[int, Job] = {}  # task -> its job, whose pixels are compared before it is decoded
        self._more = True  # jobs may come
        self._goes_on = True  # the next one is of shards that are open, or is the first
        self._computing: dict[Future[Data], Batch] = {}
        self._writing: deque[Future[T]] = deque()
        self._looked = 0.0

    def over(self, target: Sequence[int]) -> Iterator[T]:
        """What `write` returned of each target shard, as soon as it has been written. `target` is ascending.

        Raises what `write` and the stream raise, and PipelineError for pixels that are not those that were converted.
        """
        coming = jobs(self._split, target, self._open, self._pixels_of, MOST_PERSONS)
        for first in coming:  # where all rows are carried over, no process is started, and no network loaded
            if first is not None:
                self._coming = itertools.chain([first], coming)
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
        lanes, size = (
            (1, BYTES_AT_ONCE) if self._computer is None else (self._computer.lanes, self._computer.batch_size)
        )
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
        self._progress(self.meter.rows + self._open.carried + self._open.given_up, self.meter)

    def _loop(self) -> Iterator[T]:
        self._woken, self._wake = Pipe(duplex=False)
        with (
            self._woken,
            self._wake,
            ThreadPoolExecutor(self.meter.lanes, thread_name_prefix="network") as network,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._more or len(self._open) or self._writing:
                    self._hand_out()
                    while self._batches.full and len(self._computing) < 2 * self.meter.lanes:
                        batch = self._batches.full.popleft()
                        self._computing[self._submit(network, self._compute, batch)] = batch
                    for shard in self._open.finished():
                        self._writing.append(self._submit(writer, self._written, shard))
                        self._notify(self._writing[-1])  # there may be room for another one now
                    waits = self._decoders.outstanding or self._computing or self._writing or self._batches.full
                    assert waits or not len(self._open), "shards are open, and nothing is done about them"
                    self._listen()
                    while self._writing and self._writing[0].done():
                        yield self._writing.popleft().result()
            finally:  # the pools wait for what they have begun, and begin nothing else
                network.shutdown(wait=False, cancel_futures=True)
                writer.shutdown(wait=False, cancel_futures=True)

    def _compute(self, batch: Batch) -> Data:
        """A full batch: the network's numbers, or what decoding processes have encoded."""
        crops = self._memory.slots[batch.span]
        if self._computer is None:
            slots = crops.reshape(batch.size, -1)
            return [slot[:size].tobytes() for slot, size in zip(slots, batch.sizes.tolist(), strict=True)]
        began = time.perf_counter()
        computed = self._computer(crops)
        spent = time.perf_counter() - began
        copied = min(spent, self._computer.copied()) if isinstance(self._computer, Copies) else 0.0
        self.meter.add(network=spent - copied, **({"copy": copied} if copied else {}))
        expected = (batch.size, self._stream.dim)
        if computed.shape != expected:  # what can be broadcast would go into the stream unseen
            raise PipelineError(
                f"the stream {self._stream.kind!r} does not compute what it declares: expected {expected} numbers of a "
                f"batch, found {computed.shape}"
            )
        return computed

    def _submit(self, pool: ThreadPoolExecutor, job: Callable[[Any], Any], item: object) -> Future[Any]:
        future = pool.submit(job, item)
        future.add_done_callback(self._notify)
        return future

    def _notify(self, _: Future[Any]) -> None:
        """Called in other threads: the loop does not wait any longer."""
        self._wake.send_bytes(b".")

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
        if self._decoders.is_lost(job.number):
            self._open.give_up(job.rows[start:], *self._decoders.lost(job.number))
            return True
        asked = self._batches.ask(job, start)
        if asked is None:
            self._busy[number] = (job, start)
            return False
        task, stop = asked
        if stop < len(job.rows):
            self._busy[number] = (job, stop)
        if task.first:
            self._comparing[task.number] = job
        self._decoders.give(number, task)
        return True

    def _next_job(self) -> Job | None:
        """None while the next one would open more shards than may be, or when there are no more jobs."""
        while self._more and (self._goes_on or len(self._open) + len(self._writing) < self._most_open):
            try:
                job = next(self._coming)
            except StopIteration:
                self._more = False
            else:
                self._goes_on = job is not None and job.goes_on
                if job is not None:
                    return job
        return None

    def _listen(self) -> None:
        """Wait for any of the parts, and take what it has."""
        ready = wait([*self._decoders.connections, self._woken], LOOK_EVERY)
        if self._woken in ready:
            while self._woken.poll():
                self._woken.recv_bytes()
        for done in self._decoders.answers(ready):
            self._take(done)
        now = time.monotonic()
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            for done in self._decoders.hung():
                self._take(done)
            self._report()
        for future in [future for future in self._computing if future.done()]:
            self._collect(self._computing.pop(future), future.result())

    def _take(self, done: Done) -> None:
        """A task that has been decoded."""
        self.meter.add(decode=done.decoding, crop=done.cropping)
        self.meter.frames += done.frames
        if done.task in self._comparing:
            self._open.release(self._comparing.pop(done.task).shards)
        for frame, rows in self._batches.fill(done).items():
            self._open.give_up(rows, *done.problems[frame])

    def _collect(self, batch: Batch, computed: Data) -> None:
        """A batch that has been computed."""
        filled = np.flatnonzero(batch.rows >= 0)
        rows = batch.rows[filled]
        self._open.put(rows, [computed[i] for i in filled.tolist()] if isinstance(computed, list) else computed[filled])
        self.meter.rows += len(rows)
        self._batches.free(batch)


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
