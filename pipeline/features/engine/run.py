"""One extraction on this machine: decoding, computing and writing in parallel.  tracks -> [crops ->
features]

`extract.py` calls `compute` with a `StreamRun` for each stream: one stream of labels, or streams of
crops from the same images. For crops, one loop (`_Loop.run`) sends tasks to decoding processes,
full batches to the networks' threads, and finished shards to the writing thread. Memory is a fixed
number of slots and a few open shards.

Row 101 of `resnet50` on its way: `Planner.jobs` opens its shard and puts it into a job, and
`Planner.tasks` into a task, for which `_take_slots` takes slots. The process cuts its crop into its
slot, and answers (`_Loop._receive_tasks`). Once all slots of the batch are filled, a thread
computes it, `StreamRun.store` puts the numbers into the row's shard, and the slots are free again.
Once no row of the shard is left to compute, the writing thread writes it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np

from cache import Split
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.features.engine.network import FEWEST_ROWS, NO_ROW, LoadedNetwork, Slots
from pipeline.features.engine.shards import StreamRun
from pipeline.features.engine.tasks import Job, Planner
from pipeline.features.engine.worker import AHEAD, CropDecoding, Decoded, Output, Task
from pipeline.features.pixels import Pixels
from pipeline.features.streams import compute_labels
from pipeline.features.streams.base import Machine
from pipeline.people.boxes import require_opencv
from pipeline.processes import Failed
from pipeline.processes.meter import Meter
from pipeline.processes.pool import TRIALS, Pool
from pipeline.processes.settings import Resources

LOOK_EVERY: Final = 0.02  # s between two looks at processes and threads: a batch takes longer
CHECKPOINT_EVERY: Final = 30.0  # s between checkpoints of shards that are not complete
REPORT_EVERY: Final = 0.25  # s between progress reports
AT_ONCE: Final = 1024  # rows of labels that a stream of labels gets in one call


def compute(
    split: Split,
    streams: Sequence[StreamRun],
    pixels_of: Callable[[int], Pixels] | None,
    resources: Resources,
    process: str,
    progress: Progress,
) -> Meter:
    """Compute the target shards of streams: of one stream of labels, or of several streams of crops
    from the same images. Returns where the time went.

    Before the first row is to be computed, no network is loaded, and no process started.

    Args:
        pixels_of: video number -> its pixels; None for labels.
        process: as for `Resources.machine`.
        progress: called a few times a second, with numbers of rows of all streams.

    Raises what writing a shard and the streams raise.
    """
    report = _ProgressReport(split, streams, progress)
    machine = resources.machine(process)
    if pixels_of is None:
        (stream,) = streams
        meter = _compute_labels(stream, machine, report)
    else:
        require_opencv()
        planner = Planner(split, streams, pixels_of, resources.decoders(process))
        meter = _compute_crops(planner, machine, resources.timeout, report)
    meter.stop()
    report(meter)
    return meter


class _ProgressReport:
    """Reports the progress of streams."""

    def __init__(self, split: Split, streams: Sequence[StreamRun], progress: Progress) -> None:
        self._streams = streams
        self._progress = progress
        rows = split.rows_by_shard()
        self._n_rows = sum(int(rows[stream.target].sum()) for stream in streams)
        self._reported = 0.0  # when progress was reported last

    def __call__(self, meter: Meter, every: float = 0.0) -> None:
        """Report the progress, unless it was reported less than `every` s ago."""
        now = time.monotonic()
        if now - self._reported >= every:
            self._reported = now
            n_done = sum(stream.n_done for stream in self._streams)
            self._progress(n_done, self._n_rows, meter.load)


def _write_finished(streams: Sequence[StreamRun], meter: Meter, report: _ProgressReport) -> None:
    """Write finished shards in this thread."""
    for stream in streams:
        for shard in stream.take_finished():
            stream.write(shard, meter)
            stream.count(shard)
            report(meter)


def _compute_labels(stream: StreamRun, machine: Machine, report: _ProgressReport) -> Meter:
    """Compute the shards of a stream of labels, without decoding. A shard takes seconds, so there
    are no checkpoints.
    """
    meter = Meter(decoders=0)
    computer: Any = None
    at_once = max(1, AT_ONCE // stream.stream.reads.window)
    for number in stream.target:
        shard = stream.open(number)
        assert shard is not None, "it is missing"
        missing = shard.missing
        if len(missing) and computer is None:
            computer = stream.load(machine)
            meter.device = stream.device
        for first in range(0, len(missing), at_once):
            rows = missing[first : first + at_once]
            labels = stream.labels(rows)
            with meter.measure("model"):
                computed, is_known = compute_labels(stream.stream, computer, labels, len(rows))
            meter.rows += stream.store(rows, stream.check(computed, is_known))
            report(meter, REPORT_EVERY)
        _write_finished([stream], meter, report)
    return meter


def _compute_crops(
    planner: Planner, machine: Machine, timeout: float, report: _ProgressReport
) -> Meter:
    """Compute the shards of streams of crops."""
    meter = Meter()
    jobs = planner.jobs()
    for job in jobs:
        if job is not None:
            return _compute_jobs(planner, itertools.chain([job], jobs), machine, timeout, report)
        _write_finished(planner.streams, meter, report)
    _write_finished(planner.streams, meter, report)
    return meter


def _compute_jobs(
    planner: Planner,
    jobs: Iterator[Job | None],
    machine: Machine,
    timeout: float,
    report: _ProgressReport,
) -> Meter:
    """Load the networks, and compute shards with them and with decoding processes."""
    workers = planner.workers
    computers = [stream.load(machine) for stream in planner.streams]
    outputs: list[Output] = []
    slots_of: list[Slots | None] = []
    for stream, computer in zip(planner.streams, computers, strict=True):
        size = stream.stream.policy.size
        if computer is None:
            outputs.append(Output(size, stream.stream))
            slots_of.append(None)
        else:
            outputs.append(Output(size, None))
            slots_of.append(Slots(size, computer.batch_size, computer.lanes, workers))
    pool = Pool[Task, Decoded](
        [CropDecoding(outputs)] * workers,
        _tasks_of_jobs(planner, jobs, slots_of),
        ahead=AHEAD,
        timeout=timeout,
        skips=True,
        shared=[slots.n_bytes for slots in slots_of if slots is not None],
    )
    devices = [stream.device for stream in planner.streams if stream.device]
    meter = Meter(
        decoders=workers,
        lanes=max((computer.lanes for computer in computers if computer is not None), default=1),
        device=devices[0] if devices else "",
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(pool)
        memories = iter(pool.shared)
        networks: list[LoadedNetwork | None] = []
        for stream, computer, slots, output in zip(
            planner.streams, computers, slots_of, outputs, strict=True
        ):
            network = None
            if slots is not None:
                crops = output.view_slots(next(memories))
                network = LoadedNetwork(stream, computer, slots, crops)
                stack.enter_context(network.adopting())
            networks.append(network)
        report(meter)
        _Loop(networks, planner, pool, meter, report).run()
    return meter


def _tasks_of_jobs(
    planner: Planner,
    jobs: Iterator[Job | None],
    slots_of: Sequence[Slots | None],
) -> Iterator[Iterator[Task | None] | None]:
    """Yield the tasks of each job; None if there is no job now. slots_of: by stream, as for
    `_take_slots`.
    """
    most_rows = [slots.task_rows for slots in slots_of if slots is not None]
    n_rows = min(most_rows, default=FEWEST_ROWS)
    for job in jobs:
        yield None if job is None else _take_slots(planner.tasks(job, n_rows), slots_of)


def _take_slots(tasks: Iterator[Task], slots_of: Sequence[Slots | None]) -> Iterator[Task | None]:
    """Yield tasks with slots for their crops; None while there is no room. slots_of: by stream;
    None if decoding processes compute its rows.
    """
    for task in tasks:
        with_slots = []
        for slots, crops in zip(slots_of, task.crops, strict=True):
            if slots is not None:
                with_slots.append((slots, crops.rows))
        while not all(slots.has_room(len(rows)) for slots, rows in with_slots):
            yield None
        for slots, rows in with_slots:
            rows["slot"] = slots.take(len(rows))
        yield task


class _Writing(NamedTuple):
    """A finished shard that the writing thread writes."""

    future: Future[None]
    count_rows: Callable[[], None]  # to be called when it is written


class _Loop:
    """The main loop of a run of crops.

    Args:
        networks: by stream; None if decoding processes compute its rows.
        pool: processes that decode the planner's tasks.
    """

    def __init__(
        self,
        networks: Sequence[LoadedNetwork | None],
        planner: Planner,
        pool: Pool[Task, Decoded],
        meter: Meter,
        report: _ProgressReport,
    ) -> None:
        self._streams = planner.streams
        self._networks = networks
        self._loaded = [network for network in networks if network is not None]
        self._planner = planner
        self._pool = pool
        self._meter = meter
        self._report = report
        self._saved = time.monotonic()  # when checkpoints were last begun
        # what the writing thread has to do, in order
        self._writing = deque[_Writing]()  # shards
        self._saving = deque[Future[None]]()  # checkpoints

    def run(self) -> None:
        """Send tasks, compute full batches, write finished shards, until all is done.

        It always goes on. A task waits for slots, which are free again when their batch has been
        computed; if nothing else can fill a batch, `_submit` closes it. The next job waits until
        fewer shards are open (`Planner.jobs`).
        """
        with (
            ThreadPoolExecutor(self._meter.lanes, thread_name_prefix="network") as threads,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            try:
                while self._has_work:
                    self._submit()
                    self._compute_batches(threads)
                    self._begin_to_write(writer)
                    self._receive_tasks()
                    self._receive_written()
                    self._report(self._meter, REPORT_EVERY)
            finally:  # also after an error: start no other batch, and save the computed rows
                threads.shutdown(wait=False, cancel_futures=True)
                self._begin_to_save(writer)

    @property
    def _has_work(self) -> bool:
        """Whether a row is to be computed, or a shard or checkpoint to be written."""
        has_open = any(stream.has_open for stream in self._streams)
        return bool(self._pool.has_more or has_open or self._writing or self._saving)

    def _submit(self) -> None:
        """Send tasks to processes that have room. Close batches if no task can fill them: none is
        running, and none will come before slots are free.
        """
        self._pool.submit()
        # More tasks may come once running batches have freed their slots.
        is_computing = any(network.is_computing for network in self._loaded)
        may_get_tasks = self._pool.has_more and is_computing
        has_full_batch = any(network.slots.has_full_batch for network in self._loaded)
        if self._pool.is_idle and not has_full_batch and not may_get_tasks:
            for network in self._loaded:
                network.slots.close_batch()
            self._pool.submit()  # what waited for slots of a batch without any crop

    def _compute_batches(self, threads: ThreadPoolExecutor) -> None:
        """Store the batches that have been computed, and let the threads compute full ones."""
        for network in self._loaded:
            self._meter.rows += network.store_computed()
            network.compute_full(threads, self._meter)

    def _begin_to_write(self, writer: ThreadPoolExecutor) -> None:
        """Let the writing thread write finished shards, and checkpoints of the others when they are
        due. It does so in order: a shard's checkpoint never comes after the shard.
        """
        for stream in self._streams:
            for shard in stream.take_finished():
                future = writer.submit(stream.write, shard, self._meter)
                self._writing.append(_Writing(future, functools.partial(stream.count, shard)))
        if time.monotonic() - self._saved > CHECKPOINT_EVERY and not self._saving:
            self._begin_to_save(writer)

    def _begin_to_save(self, writer: ThreadPoolExecutor) -> None:
        self._saved = time.monotonic()
        for stream in self._streams:
            for save in stream.save():
                self._saving.append(writer.submit(save))

    def _receive_written(self) -> None:
        while self._saving and self._saving[0].done():
            self._saving.popleft().result()
        while self._writing and self._writing[0].future.done():
            writing = self._writing.popleft()
            writing.future.result()
            writing.count_rows()

    def _receive_tasks(self) -> None:
        """Take finished tasks from the processes."""
        for result in self._pool.poll(LOOK_EVERY):
            task = result.task
            decoded = result.get()
            if isinstance(decoded, Failed):
                raise PipelineError(
                    f"{TRIALS} decoding processes, one after the other, {decoded.message} while "
                    f"they compared the pixels of {task.pixels.name}. See their output above, and "
                    "check the storage of the videos. Finished shards are kept: run it again."
                )
            self._meter.include(decoded.meter)
            if decoded.lost:
                self._planner.lose(task.video, decoded.lost)
            self._receive(task, decoded)

    def _receive(self, task: Task, decoded: Decoded) -> None:
        by_stream = zip(self._streams, self._networks, task.crops, decoded.filled, strict=True)
        for stream, network, crops, filled in by_stream:
            rows = crops.rows["row"]
            for (kind, message), indices in filled.problems.items():
                stream.give_up(rows[indices], kind, message)
            if network is None:
                checked = stream.check(filled.values, filled.known)
                self._meter.rows += stream.store(rows, checked)
            else:
                filled_rows = np.where(stream.is_missing(rows), rows, NO_ROW)
                network.slots.fill(crops.rows["slot"], filled_rows)
