"""One extraction on this machine: decoding, computing and writing at the same time.  tracks -> [crops -> features]

One loop hands tasks to the decoding processes, full batches to the networks' threads, and finished shards to the thread
that writes. The slowest of them makes it wait; memory is a fixed number of slots and the few open shards. Streams that
are extracted together share the decoded frames; each has slots, batches, open shards and a network of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any, Final, Generic, TypeVar

import numpy as np

from cache import Split
from pipeline.cli.options import cores
from pipeline.errors import ConfigError
from pipeline.features.computing import device_of, labelled, load
from pipeline.features.engine.decoders import Decoders
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.outputs import MOST_PERSONS, Computed, Output
from pipeline.features.engine.shards import OpenShard
from pipeline.features.engine.tasks import Batch, Job, Tasks, jobs
from pipeline.features.engine.worker import SharedSlots
from pipeline.features.pixel_sources import Pixels
from pipeline.features.spec import Resources
from pipeline.features.streams.base import LabelComputer, Stream

MOST_WORKERS: Final = 16  # decoding processes for each core: more would only slow each other down
LOOK_EVERY: Final = 0.02  # s between looks at what the threads have done: a batch takes longer
CHECKPOINT_EVERY: Final = 30.0  # s between checkpoints of shards that are not complete
REPORT_EVERY: Final = 0.25  # s between progress reports
AT_ONCE: Final = 1024  # rows of a stream of labels

T = TypeVar("T")


class Run(Generic[T]):
    """An extraction of some of a split's shards, done once: of one stream, or of several that share the pixels.

    Args:
        pixels_of: number of a video -> where its crops come from.
        progress: called with rows done, of all streams, a few times a second.
    """

    def __init__(
        self,
        split: Split,
        outputs: Sequence[Output[T]],
        *,
        pixels_of: Callable[[int], Pixels],
        resources: Resources,
        progress: Callable[[int, Meter], None],
    ) -> None:
        self._split, self._pixels_of, self._resources, self._progress = split, pixels_of, resources, progress
        self._outputs = outputs
        self.meter = Meter()
        self._tasks: Tasks
        self._decoders: Decoders
        self._coming: Iterator[list[Job]]
        self._more = True  # they may come
        self._jobs: deque[Job] = deque()  # that have come, of shards that are open
        self._busy: dict[int, tuple[Job, int]] = {}  # process -> its job, and the row that it goes on with
        self._comparing: dict[int, Job] = {}  # by number: shards wait until its pixels have been compared
        self._computing: dict[Future[Computed], tuple[Output[T], Batch]] = {}
        self._writing: deque[tuple[int, Future[T]]] = deque()
        self._saving: deque[Future[None]] = deque()
        self._saved = time.monotonic()
        self._reported = 0.0

    @property
    def provenance(self) -> list[Mapping[str, Any] | None]:
        """By output: of what computed rows; None: nothing had to be loaded."""
        return [out.provenance for out in self._outputs]

    def results(self) -> Iterator[tuple[int, T]]:
        """(output, what `write` returned) of each target shard, as soon as it has been written.

        Raises what `write` and the streams raise, and PipelineError for pixels that are not those that were converted.
        """
        self._coming = jobs(self._split, [out.open for out in self._outputs], self._pixels_of, MOST_PERSONS)
        for first in self._coming:  # where all rows are carried over, no process is started, and no network loaded
            if first:
                self._jobs += first
                yield from self._computed()
                break
            yield from self._carried()
        yield from self._carried()
        self.meter.stop()
        self._report()

    def _carried(self) -> Iterator[tuple[int, T]]:
        for output, out in enumerate(self._outputs):
            for shard in out.open.finished():
                yield output, out.write(shard)
                self._report()

    def _computed(self) -> Iterator[tuple[int, T]]:
        workers = cores(self._resources.workers)
        if workers > MOST_WORKERS * cores(0):
            raise ConfigError(
                f"workers {workers}: this machine has {cores(0)} cores; at most {MOST_WORKERS} for each are allowed"
            )
        fillings = [out.load(self._resources, workers) for out in self._outputs]
        lanes = max(out.threads for out in self._outputs)
        self.meter = Meter(decoders=workers, lanes=lanes, device=device_of(self.provenance))
        self._tasks = Tasks([out.batches for out in self._outputs])
        self._report()
        with contextlib.ExitStack() as stack:
            memories = [stack.enter_context(SharedSlots.new(one.n_slots, one.slot_bytes)) for one in fillings]
            for out, memory in zip(self._outputs, memories, strict=True):
                stack.enter_context(out.using(memory))
            timeout = self._resources.timeout
            self._decoders = stack.enter_context(Decoders(workers, memories, fillings, timeout=timeout))
            yield from self._loop()

    def _report(self) -> None:
        self._reported = time.monotonic()
        self._progress(self.meter.rows + sum(out.open.not_computed for out in self._outputs), self.meter)

    def _loop(self) -> Iterator[tuple[int, T]]:
        with (
            ThreadPoolExecutor(self.meter.lanes, thread_name_prefix="network") as network,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._more or any(len(out.open) for out in self._outputs) or self._writing:
                    self._hand_out()
                    for out in self._outputs:
                        while out.batches.full and out.computing < 2 * out.threads:
                            batch = out.batches.full.popleft()
                            out.computing += 1
                            self._computing[network.submit(out.compute, batch, self.meter)] = out, batch
                    self._begin_to_write(writer)
                    self._begin_to_save(writer)
                    waits = self._decoders.outstanding or self._computing or self._writing or self._full
                    assert waits or not any(len(out.open) for out in self._outputs), "nothing is done about open shards"
                    self._listen()
                    while self._writing and self._writing[0][1].done():
                        output, written = self._writing.popleft()
                        self._outputs[output].writing -= 1
                        yield output, written.result()
            finally:  # computed rows are kept; what has not begun to be computed is not begun
                network.shutdown(wait=False, cancel_futures=True)
                self._begin_to_save(writer, now=True)

    @property
    def _full(self) -> bool:
        return any(out.batches.full for out in self._outputs)

    def _begin_to_write(self, writer: ThreadPoolExecutor) -> None:
        comparing = {place for job in self._comparing.values() for place in job.shards}
        for output, out in enumerate(self._outputs):
            for shard in out.open.finished({number for of, number in comparing if of == output}):
                self._writing.append((output, writer.submit(self._written, out, shard)))
                out.writing += 1

    def _begin_to_save(self, writer: ThreadPoolExecutor, *, now: bool = False) -> None:
        """Write checkpoints when it is time, or now: in the thread that writes, so that complete shards come after."""
        while self._saving and self._saving[0].done() and not now:
            self._saving.popleft().result()
        if now or (not self._saving and time.monotonic() - self._saved > CHECKPOINT_EVERY):
            self._saved = time.monotonic()
            comparing = [job.video for job in self._comparing.values()]
            for out in self._outputs:
                self._saving += [writer.submit(save) for save in out.open.save(comparing)]

    def _written(self, out: Output[T], shard: OpenShard) -> T:
        with self.meter.measured("write"):
            return out.write(shard)

    def _hand_out(self) -> None:
        """Give tasks to every process that has room for one; close a batch that cannot be filled."""
        while sum(self._give(number) for number in range(self.meter.decoders)):
            pass
        comes_more = self._busy or self._more  # once the batches that are being computed have made room
        if not self._decoders.outstanding and not self._full and not (comes_more and self._computing):
            for out in self._outputs:
                out.batches.close_batch()

    def _give(self, number: int) -> bool:
        if not self._decoders.has_room(number):
            return False
        job, start = self._busy.pop(number) if number in self._busy else (self._next_job(), 0)
        if job is None:
            return False
        if job.number in self._decoders.lost:
            for out, todo in zip(self._outputs, job.todo[:, start:], strict=True):
                out.open.give_up(job.rows[start:][todo], *self._decoders.lost[job.number])
            return True
        asked = self._tasks.ask(job, start)
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
        while self._more and not self._jobs and all(out.has_room for out in self._outputs):
            coming = next(self._coming, None)
            self._more = coming is not None
            self._jobs += coming or []
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        if job.shards:
            self._comparing[job.number] = job
        return job

    def _listen(self) -> None:
        """Wait for any of the parts, and take what it has."""
        for done in self._decoders.answers(wait(self._decoders.connections, LOOK_EVERY)):
            self.meter.add(decode=done.decoding, crop=done.cropping, **({"pair": done.pairing} if done.pairing else {}))
            self.meter.frames += done.frames
            job, lost = self._tasks.fill(done)
            self._comparing.pop(job.number, None)
            for output, rows, problem in lost:
                self._outputs[output].open.give_up(rows, *problem)
        for future in [future for future in self._computing if future.done()]:
            (out, batch), (computed, known) = self._computing.pop(future), future.result()
            out.computing -= 1
            filled = np.flatnonzero(batch.rows >= 0)
            out.open.put(batch.rows[filled], computed[filled], known[filled])
            self.meter.rows += len(filled)
            out.batches.free(batch)
        if time.monotonic() - self._reported > REPORT_EVERY:
            self._report()


def run_of(
    split: Split,
    outputs: Sequence[Output[T]],
    *,
    pixels_of: Callable[[int], Pixels] | None,
    resources: Resources,
    progress: Callable[[int, Meter], None],
) -> Run[T] | LabelRun[T]:
    """The extraction of streams of crops together, or, without `pixels_of`, of one stream of labels."""
    if pixels_of is None:
        (output,) = outputs
        return LabelRun(split, output, resources=resources, progress=progress)
    return Run(split, outputs, pixels_of=pixels_of, resources=resources, progress=progress)


class LabelRun(Generic[T]):
    """As `Run`, of one stream of labels: no pixels are read."""

    def __init__(
        self, split: Split, output: Output[T], *, resources: Resources, progress: Callable[[int, Meter], None]
    ) -> None:
        self._split, self._output, self._resources, self._progress = split, output, resources, progress
        self.meter = Meter(decoders=0)
        self.provenance: list[Mapping[str, Any] | None] = [None]

    def results(self) -> Iterator[tuple[int, T]]:
        """(0, what `write` returned) of each target shard. Raises what `write` and the stream raise."""
        try:
            yield from self._computed(self._output.stream)
        finally:
            self._save()
        self.meter.stop()
        self._progress(self.meter.rows + self._output.open.not_computed, self.meter)

    def _computed(self, stream: Stream) -> Iterator[tuple[int, T]]:
        shards = self._output.open
        computer: LabelComputer | None = None
        saved = time.monotonic()
        for number in self._output.target:
            shard = shards.open(number)
            todo = np.flatnonzero(shard.todo)
            if len(todo) and computer is None:
                computer, self.provenance[0] = load(stream, self._resources.machine, self._output.recorded)
                self.meter.device = device_of(self.provenance)
            for rows in np.split(todo + shard.start, range(AT_ONCE, len(todo), AT_ONCE)):
                if computer is None or not len(rows):
                    continue
                first, stop = int(rows[0]), int(rows[-1]) + 1
                labels = {name: self._split.rows(name, first, stop)[rows - first] for name in stream.reads.labels}
                with self.meter.measured("model"):
                    computed, known = labelled(stream, computer, labels, len(rows))
                shards.put(rows, computed, known)
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    saved = time.monotonic()
                    self._save()
                self.meter.rows += len(rows)
                self._progress(self.meter.rows + shards.not_computed, self.meter)
            for finished in shards.finished():
                with self.meter.measured("write"):
                    written = self._output.write(finished)
                yield 0, written

    def _save(self) -> None:
        for save in self._output.open.save():
            save()
