"""Decoding, computing and writing at the same time.  tracks -> [crops -> features]

One loop hands pieces of videos to decoding processes, full batches to the network's threads, and finished shards to the
thread that writes. It waits where the slowest of them makes it wait; memory is a fixed number of slots and the few
shards that are open.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Pipe
from typing import Any, Final, Generic, TypeVar

from pipeline.features.engine.assembly import Assembly, Data, OpenShard
from pipeline.features.engine.computation import Compute
from pipeline.features.engine.decoders import Decoders, ready
from pipeline.features.engine.jobs import Job
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.pieces import Done
from pipeline.features.engine.slabs import Slab, Slabs

LOOK_EVERY: Final = 0.25  # s between looks for processes that hang, and between words on how far it is

T = TypeVar("T")


class Engine(Generic[T]):
    """One extraction, run once.

    Args:
        jobs: what is to be decoded; taking the next one may open shards of `assembly`.
        compute: called in up to `lanes` threads at a time.
        write: called in a thread of its own, one shard at a time.
        tell: called a few times a second.
        most_open: shards; while as many are open or being written, no job is begun that could open others.
    """

    def __init__(
        self,
        jobs: Iterator[Job | None],
        assembly: Assembly,
        *,
        slabs: Slabs,
        decoders: Decoders,
        compute: Compute,
        lanes: int,
        write: Callable[[OpenShard], T],
        meter: Meter,
        tell: Callable[[], None],
        most_open: int,
    ) -> None:
        self._jobs, self._assembly, self._slabs, self._decoders = jobs, assembly, slabs, decoders
        self._compute, self._write, self._lanes = compute, write, lanes
        self._meter, self._tell = meter, tell
        self._most_open = most_open
        self._busy: dict[int, tuple[Job, int]] = {}  # process -> its job, and the row that it goes on with
        self._comparing: dict[int, Job] = {}  # piece -> its job, whose pixels are compared before it is decoded
        self._more = True  # jobs may come
        self._goes_on = True  # the next one is of shards that are open, or is the first
        self._computing: dict[Future[Data], Slab] = {}
        self._writing: deque[Future[T]] = deque()
        self._woken, self._wake = Pipe(duplex=False)
        self._looked = time.monotonic()

    def run(self) -> Iterator[T]:
        """What `write` gave of each shard, until every row has come in or been given up. Raises what a part raised."""
        with (
            self._woken,
            self._wake,
            ThreadPoolExecutor(self._lanes, thread_name_prefix="network") as network,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._more or len(self._assembly) or self._writing:
                    self._hand_out()
                    self._submit(network)
                    self._write_finished(writer)
                    assert self._at_work, "shards are open, and nobody is at work on them"
                    self._listen()
                    while self._writing and self._writing[0].done():
                        yield self._writing.popleft().result()
            finally:  # the pools wait for what they have begun, and begin nothing else
                network.shutdown(wait=False, cancel_futures=True)
                writer.shutdown(wait=False, cancel_futures=True)

    @property
    def _at_work(self) -> bool:
        """Whether something will come of waiting."""
        at_work = self._decoders.outstanding or self._computing or self._writing
        return bool(at_work or self._slabs.full or not len(self._assembly))

    def _write_finished(self, writer: ThreadPoolExecutor) -> None:
        for shard in self._assembly.finished():
            self._writing.append(writer.submit(self._written, shard))
            self._writing[-1].add_done_callback(self._say)
            self._say(self._writing[-1])  # there may be room for another one now

    def _hand_out(self) -> None:
        """Pieces to every process that has room for one; of batches that cannot be filled, what there is."""
        while True:
            gave = [number for number in range(self._meter.decoders) if self._give(number)]
            if not gave:
                break
        comes_more = self._busy or self._more  # once what is being computed has made room for it
        if not self._decoders.outstanding and not self._slabs.full and not (comes_more and self._computing):
            self._slabs.close_batch()

    def _give(self, number: int) -> bool:
        if self._decoders.room(number) < 1:
            return False
        if number not in self._busy:
            job = self._next_job()
            if job is None:
                return False
            self._busy[number] = (job, 0)
        job, start = self._busy[number]
        if self._decoders.is_lost(job.number):
            del self._busy[number]
            self._lose(job, start)
            return True
        asked = self._slabs.ask(job, start)
        if asked is None:
            return False
        piece, stop = asked
        if stop < len(job.rows):
            self._busy[number] = (job, stop)
        else:
            del self._busy[number]
        if piece.first:
            self._comparing[piece.number] = job
        self._decoders.give(number, piece)
        return True

    def _next_job(self) -> Job | None:
        """None while the next one would open more shards than may be, or when there are no more jobs."""
        while self._more and (self._goes_on or len(self._assembly) + len(self._writing) < self._most_open):
            try:
                job = next(self._jobs)
            except StopIteration:
                self._more = False
            else:
                self._goes_on = job is not None and job.goes_on
                if job is not None:
                    return job
        return None

    def _lose(self, job: Job, start: int) -> None:
        """The rest of a job behind a frame at which its decoder cannot be got past."""
        self._assembly.give_up(job.rows[start:], *self._decoders.lost(job.number))

    def _submit(self, network: ThreadPoolExecutor) -> None:
        while self._slabs.full and len(self._computing) < 2 * self._lanes:
            slab = self._slabs.full.popleft()
            future = network.submit(self._compute, slab)
            self._computing[future] = slab
            future.add_done_callback(self._say)

    def _say(self, _: Future[Any]) -> None:
        """Called in other threads: the loop has something to look at."""
        self._wake.send_bytes(b".")

    def _listen(self) -> None:
        """Wait for any of the parts, and take what it has."""
        said = ready([*self._decoders.connections, self._woken], LOOK_EVERY)
        if self._woken in said:
            while self._woken.poll():
                self._woken.recv_bytes()
        for _, done in self._decoders.answers(said):
            self._take(done)
        now = time.monotonic()
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            for _, done in self._decoders.hung():
                self._take(done)
            self._tell()
        for future in [future for future in self._computing if future.done()]:
            self._collect(self._computing.pop(future), future.result())

    def _take(self, done: Done) -> None:
        """A piece that has been decoded."""
        self._meter.add(decode=done.decoding, crop=done.cropping)
        self._meter.frames += done.frames
        if done.piece in self._comparing:
            self._assembly.release(self._comparing.pop(done.piece).shards)
        for frame, rows in self._slabs.fill(done).items():
            self._assembly.give_up(rows, *done.problems[frame])

    def _collect(self, slab: Slab, computed: Data) -> None:
        """A batch that has been computed."""
        held = slab.rows >= 0
        rows = slab.rows[held]
        if isinstance(computed, list):
            self._assembly.put(rows, [one for one, there in zip(computed, held.tolist(), strict=True) if there])
        else:
            self._assembly.put(rows, computed[held])
        self._meter.rows += len(rows)
        self._slabs.free(slab)

    def _written(self, shard: OpenShard) -> T:
        began = time.perf_counter()
        written = self._write(shard)
        self._meter.add(write=time.perf_counter() - began)
        return written
