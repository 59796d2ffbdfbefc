"""One extraction on this machine: decoding, computing and writing in parallel.  tracks -> [crops ->
features]

`extract.py` makes a `Run` with an `Output` for each stream, and calls `Run.compute`. One loop
(`Run._loop`) sends tasks to decoding processes, full batches to the networks' threads, and finished
shards to the writing thread. Memory is a fixed number of slots and a few open shards.

An *output* is a stream while it is computed, with its own open shards, slots, batches and network.
Outputs that are computed together share the decoded frames. `tasks.py` explains jobs, tasks, slots
and batches with an example.

Row 101 of `resnet50` on its way: `Tasks.jobs_by_video` puts it into a job, and `Tasks.split_job`
into a task, for which `Batches.take` assigns slots: row 101 gets one in the batch that is being
filled. When the process has answered, `Tasks.fill` records in the batch that the slot has row 101.
Once all slots of the batch have been recorded, a thread computes it (`Output.compute`),
`OpenShards.store` puts the numbers into the row's shard, and the batch's slots are free again. Once
no row of the shard is left to compute, the writing thread writes it (`Output.write`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import Split, StreamShards
from cache.arrays import Ints
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.computing import compute_batch, compute_labels, load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import Checked, Counts, OpenShards, PendingShard
from pipeline.features.engine.tasks import (
    FEWEST_ROWS,
    MOST_PERSONS,
    MOST_ROWS,
    Batch,
    Batches,
    Job,
    Tasks,
)
from pipeline.features.engine.worker import AHEAD, CropDecoding, Decoded, Slots, Task
from pipeline.features.inputs import Pixels, label_batch
from pipeline.features.spec import Resources
from pipeline.features.streams.base import Computer, Labels, Machine, Provenance, Stream
from pipeline.processes import Failed, cores
from pipeline.processes.pool import TRIALS, VIDEO_THREADS, Pool

MOST_WORKERS: Final = 16  # decoding processes for each core: more would only slow each other down
LOOK_EVERY: Final = 0.02  # s between two looks at processes and threads: a batch takes longer
CHECKPOINT_EVERY: Final = 30.0  # s between checkpoints of shards that are not complete
REPORT_EVERY: Final = 0.25  # s between progress reports
AT_ONCE: Final = 1024  # rows of labels that a stream of labels gets in one call
WITHOUT_NETWORK: Final = 16  # rows in a batch that goes through no network


class Output:
    """A stream while a run computes it.

    Before the first batch, `load` loads the network, and `use_slots` gives the memory of the slots.
    Both are only called when a row is to be decoded.

    Args:
        target: numbers of the shards to compute, ascending.
        stream_shards: the stream in the cache.
        write_shard: `StreamShards.stage` or `StreamWriter.write`; called in the writing thread.
        recorded: provenance of the rows that the stream already has.
    """

    def __init__(
        self,
        split: Split,
        stream: Stream,
        stream_shards: StreamShards,
        target: Sequence[int],
        write_shard: Callable[..., object],
        recorded: Provenance | None,
    ) -> None:
        self.stream = stream
        self.target = target
        self.shards = OpenShards(split, stream_shards, stream, target)
        self._split = split
        self._stream_shards = stream_shards
        self._write_shard = write_shard
        self._recorded = recorded
        self.provenance: Provenance | None = None  # None: no network has been loaded
        self.counts = Counts()  # of the rows of written shards
        self.computing = 0  # number of batches that are being computed
        self.writing = 0  # number of shards that are being written
        # set by `load`
        self.threads = 1  # number of the network's threads
        self.task_rows: int  # number of rows per task
        self.batches: Batches  # the slots
        self._computer: Computer | None = None  # None: decoding processes compute rows
        self._most_open = 0  # number of shards that may be open or being written
        # set by `use_slots`
        self._slots: NDArray[np.uint8]  # (slots, bytes) contents of the slots
        self._sizes: Ints  # (slots,) see `worker.Slots`

    def write(self, shard: PendingShard) -> None:
        """Write a complete shard to the cache, and count its rows."""
        self._stream_shards.made = self._stream_shards.made or self.provenance or {}
        self._write_shard(shard.number, shard.values, shard.ok, shard.keys)
        self.counts.add(shard.counts)

    def load_computer(self, machine: Machine) -> Any:
        """Load the stream's computer; None if decoding processes compute its rows."""
        computer, self.provenance = load(self.stream, machine, self._recorded)
        return computer

    def load(self, machine: Machine, workers: int) -> Slots:
        """Load the network, if any. Returns the slots that the decoding processes will fill.

        Args:
            workers: number of decoding processes.
        """
        crop_size = self.stream.policy.size
        self._computer = self.load_computer(machine)
        row_stream: Stream | None = None  # the stream whose rows decoding processes compute
        if self._computer is None:
            row_stream = self.stream
            batch_size = WITHOUT_NETWORK
            slot_bytes = 4 * self.stream.dim  # a row of float32
        else:
            batch_size = self._computer.batch_size
            slot_bytes = crop_size**2 * 3  # a crop
            self.threads = self._computer.lanes
        # one for each process, and two more, which may be waiting for the writing thread
        self._most_open = workers + 2
        self.task_rows = min(max(FEWEST_ROWS, batch_size // 4), MOST_ROWS)
        n_slots = self._count_slots(workers, batch_size)
        self.batches = Batches(n_slots, batch_size)
        return Slots(crop_size, row_stream, n_slots, slot_bytes)

    def _count_slots(self, workers: int, batch_size: int) -> int:
        """Number of slots with which processes and network threads need not wait for each other."""
        # Each process has AHEAD tasks. A task may have a few rows more than `task_rows`, as frames
        # are not divided.
        rows_ahead = workers * AHEAD * (self.task_rows + FEWEST_ROWS)
        # For each thread: a batch that it computes, one that is submitted, and one that is full.
        # Two more may be partly filled.
        n_batches = 3 * self.threads + 2 + math.ceil(rows_ahead / batch_size)
        # at least the largest task, which ends with a frame of MOST_PERSONS
        return max(n_batches * batch_size, 2 * MOST_PERSONS)

    @contextlib.contextmanager
    def use_slots(self, slots: NDArray[np.uint8], sizes: Ints) -> Iterator[None]:
        """Within the `with` block, compute batches from this shared memory."""
        self._slots = slots
        self._sizes = sizes
        if self._computer is not None:
            self._computer.adopt(self._images(slots))
        try:
            yield
        finally:
            if self._computer is not None:
                self._computer.release()
            del self._slots, self._sizes

    def _images(self, slots: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.stream.policy.size
        return slots.reshape(-1, size, size, 3)

    @property
    def has_room(self) -> bool:
        """Whether another shard may be opened."""
        return len(self.shards) + self.writing < self._most_open

    def labels(self, batch: Batch) -> Labels:
        """Columns of a batch's rows for the network; {} if it reads none. Empty slots get those of
        another row.
        """
        if self._computer is None or not self.stream.reads.labels:
            return {}
        rows = np.where(batch.rows >= 0, batch.rows, batch.rows.max())
        if rows[0] < 0:  # no row could be decoded
            rows = np.full(len(rows), self._split.tracks.start[0])
        return label_batch(self._split, rows, self.stream.reads)

    def compute(self, batch: Batch, labels: Labels, meter: Meter) -> Checked:
        """The numbers of a full batch: the network computes them, or decoding processes have."""
        slots = self._slots[batch.span]
        sizes = self._sizes[batch.span]
        if self._computer is None:
            return self.shards.check(slots.copy().view(np.float32), sizes != 0)
        with meter.measure("model"):
            crops = self._images(slots)[:, *self.stream.policy.slices]
            computed = compute_batch(self.stream, self._computer, crops, labels)
        return self.shards.check(computed, np.ones(len(slots), bool))


@dataclass(kw_only=True)
class Run:
    """One extraction of a split's shards in this process, by `compute`.

    Before the first row is decoded, the networks are loaded, and there is a pool of decoding
    processes, with slots. The pool and the slots end with `compute`.
    """

    split: Split
    outputs: Sequence[Output]  # one stream of labels, or streams of crops from the same images
    pixels_of: Callable[[int], Pixels] | None  # video number -> its pixels; None for labels
    resources: Resources
    # the device if this is the process of a device, as for `Resources.machine`; else ""
    process: str = ""

    def __post_init__(self) -> None:
        self.meter = Meter()
        self._progress: Callable[[int, Meter], None]  # set by `compute`
        self._tasks: Tasks  # set by `compute`
        self._pool: Pool[Task, Decoded]  # set by `_compute_jobs`
        # running computation -> output and batch
        self._computing: dict[Future[Checked], tuple[Output, Batch]] = {}
        # output of a shard that is being written
        self._writing: deque[tuple[Output, Future[None]]] = deque()
        self._saving: deque[Future[None]] = deque()  # checkpoints
        self._saved = time.monotonic()  # when the last checkpoints were begun
        self._reported = 0.0  # when progress was reported last

    def compute(self, progress: Callable[[int, Meter], None]) -> None:
        """Compute and write all target shards.

        Args:
            progress: called a few times a second with the number of finished rows of all streams.

        Raises what `write` and the streams raise.
        """
        self.meter = Meter()
        self._progress = progress
        if self.pixels_of is None:
            (out,) = self.outputs
            self._compute_labels(out)
        else:
            self._compute_crops(self.pixels_of)
        self.meter.stop()
        self._report()

    def _compute_labels(self, out: Output) -> None:
        """Compute the shards of a stream of labels, without decoding."""
        self.meter.decoders = 0
        computer: Any = None
        at_once = max(1, AT_ONCE // out.stream.reads.window)

        def save() -> None:
            self._saved = time.monotonic()
            for write_checkpoint in out.shards.save():
                write_checkpoint()

        try:
            for number in out.target:
                shard = out.shards.open(number)
                todo = shard.todo(shard.start, shard.stop)
                if len(todo) and computer is None:
                    computer = out.load_computer(self.resources.machine(self.process))
                    self._note_device()
                for first in range(0, len(todo), at_once):
                    rows = todo[first : first + at_once]
                    labels = label_batch(self.split, rows, out.stream.reads)
                    with self.meter.measure("model"):
                        computed, known = compute_labels(out.stream, computer, labels, len(rows))
                    self.meter.rows += out.shards.store(rows, out.shards.check(computed, known))
                    if time.monotonic() - self._saved > CHECKPOINT_EVERY:
                        save()
                    self._report()
                for finished in out.shards.take_finished():
                    self._write(out, finished)
        finally:
            save()

    def _compute_crops(self, pixels_of: Callable[[int], Pixels]) -> None:
        """Compute the shards of streams of crops."""
        self._tasks = Tasks(self.split, [out.shards for out in self.outputs], pixels_of)
        # the jobs of each video; [] if its rows are carried over
        videos = self._tasks.jobs_by_video()
        # Before the first job, no process is started and no network loaded.
        for jobs in videos:
            if jobs:
                self._compute_jobs(itertools.chain([jobs], videos))
                break
            self._write_carried()
        self._write_carried()

    def _write_carried(self) -> None:
        """Write open shards that have no rows left to compute."""
        for out in self.outputs:
            for shard in out.shards.take_finished():
                out.write(shard)
                self._report()

    def _compute_jobs(self, videos: Iterator[list[Job]]) -> None:
        """Load the networks, and compute shards with them and with decoding processes, which share
        the slots with this process. videos: the jobs of each video.
        """
        workers = self.resources.decoders(self.process)
        most = MOST_WORKERS * cores(0)
        if workers > most:
            raise ConfigError(
                f"workers {workers}: expected at most {most}, {MOST_WORKERS} for each core here"
            )
        slots = [out.load(self.resources.machine(self.process), workers) for out in self.outputs]
        self._tasks.batches = [out.batches for out in self.outputs]
        self._tasks.task_rows = min(out.task_rows for out in self.outputs)
        self._pool = Pool(
            [CropDecoding(slots)] * workers,
            self._tasks_of_jobs(videos),
            ahead=AHEAD,
            timeout=self.resources.timeout,
            skips=True,
            shared=[of_output.n_bytes for of_output in slots],
            # with fewer processes than cores, each may use several threads to decode
            env={VIDEO_THREADS: str(max(1, cores(0) // workers))},
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._pool)
            for out, memory, of_output in zip(self.outputs, self._pool.shared, slots, strict=True):
                stack.enter_context(out.use_slots(*of_output.map(memory)))
            self.meter = Meter(decoders=workers, lanes=max(out.threads for out in self.outputs))
            self._note_device()
            self._report()
            self._loop()

    def _tasks_of_jobs(self, videos: Iterator[list[Job]]) -> Iterator[Iterator[Task | None] | None]:
        """Yield the tasks of each job; None while another job would open too many shards."""
        for jobs in videos:
            yield from map(self._tasks.split_job, jobs)
            while not all(out.has_room for out in self.outputs):
                yield None

    def _note_device(self) -> None:
        self.meter.note_device([out.provenance for out in self.outputs])

    def _report(self) -> None:
        self._reported = time.monotonic()
        n_not_computed = sum(out.shards.not_computed for out in self.outputs)
        self._progress(self.meter.rows + n_not_computed, self.meter)

    def _loop(self) -> None:
        """The main loop: send tasks, compute full batches, write finished shards, until all is
        done.

        It always goes on. A task waits for slots, which are free again when their batch has been
        computed; if nothing else can fill a batch, `_submit` closes it. The next job waits until
        fewer shards are open: only the last open shard of an output can have rows of later videos,
        so the others are finished by the jobs that have begun.
        """
        with (
            ThreadPoolExecutor(self.meter.lanes, thread_name_prefix="network") as network,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._pool.has_more or self._has_open or self._writing:
                    self._submit()
                    self._begin_to_compute(network)
                    self._begin_to_write(writer)
                    self._begin_to_save(writer)
                    # otherwise the loop would never end
                    assert self._is_working or not self._has_open, "open shards without work"
                    self._receive_tasks()
                    self._receive_batches()
                    if time.monotonic() - self._reported > REPORT_EVERY:
                        self._report()
                    while self._writing and self._writing[0][1].done():
                        out, written = self._writing.popleft()
                        out.writing -= 1
                        written.result()
            finally:  # also after an error: start no other batch, and save the computed rows
                network.shutdown(wait=False, cancel_futures=True)
                self._begin_to_save(writer, now=True)

    @property
    def _is_working(self) -> bool:
        """Whether a process, a thread or a full batch will change something."""
        is_busy = bool(self._computing or self._writing)
        return is_busy or not self._pool.is_idle or self._has_full_batch

    @property
    def _has_open(self) -> bool:
        return any(len(out.shards) for out in self.outputs)

    @property
    def _has_full_batch(self) -> bool:
        return any(out.batches.full for out in self.outputs)

    def _begin_to_compute(self, network: ThreadPoolExecutor) -> None:
        for out in self.outputs:
            while out.batches.full and out.computing < 2 * out.threads:
                batch = out.batches.full.popleft()
                out.computing += 1
                future = network.submit(out.compute, batch, out.labels(batch), self.meter)
                self._computing[future] = out, batch

    def _begin_to_write(self, writer: ThreadPoolExecutor) -> None:
        for i, out in enumerate(self.outputs):
            for shard in out.shards.take_finished(self._tasks.uncompared_shards(i)):
                self._writing.append((out, writer.submit(self._write, out, shard)))
                out.writing += 1

    def _begin_to_save(self, writer: ThreadPoolExecutor, *, now: bool = False) -> None:
        """Let the writing thread write checkpoints when they are due, or `now`. It also writes
        complete shards, so a shard's checkpoint never comes after the shard.
        """
        if not now:
            while self._saving and self._saving[0].done():
                self._saving.popleft().result()
            if self._saving or time.monotonic() - self._saved <= CHECKPOINT_EVERY:
                return
        self._saved = time.monotonic()
        for out in self.outputs:
            for save in out.shards.save(self._tasks.uncompared_rows()):
                self._saving.append(writer.submit(save))

    def _write(self, out: Output, shard: PendingShard) -> None:
        with self.meter.measure("write"):
            out.write(shard)

    def _submit(self) -> None:
        """Send tasks to processes that have room. Close batches if no task can fill them: none is
        running, and none will come before slots are free.
        """
        self._pool.submit()
        # More tasks may come once running batches have freed their slots.
        may_get_tasks = self._pool.has_more and self._computing
        if self._pool.is_idle and not self._has_full_batch and not may_get_tasks:
            for out in self.outputs:
                out.batches.close_batch()

    def _receive_tasks(self) -> None:
        """Take finished tasks from the processes."""
        for result in self._pool.poll(LOOK_EVERY):
            done = result.get()
            if isinstance(done, Failed):
                raise PipelineError(
                    f"{TRIALS} decoding processes, one after the other, {done.message} while "
                    f"they compared the pixels of {result.task.pixels.name}. See their output "
                    "above, and check the storage of the videos. Finished shards are kept: run "
                    "it again."
                )
            self.meter.include(done.meter)
            if done.lost:
                self._tasks.lose(result.task.number, done.lost)
            else:
                self._tasks.fill(result.task.number, done.problems)

    def _receive_batches(self) -> None:
        """Take finished batches from the networks' threads."""
        for future in [future for future in self._computing if future.done()]:
            out, batch = self._computing.pop(future)
            out.computing -= 1
            self.meter.rows += out.shards.store(batch.rows, future.result())
            out.batches.free(batch)
