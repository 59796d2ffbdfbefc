"""One extraction on this machine: decoding, computing and writing in parallel.  tracks -> [crops ->
features]

`extract.py` calls `compute_shards` with a `StreamRun` for each stream: with one stream of labels,
or with streams of crops from the same images. For crops, one loop (`_CropRun.loop`) sends tasks to
decoding processes, full batches to the networks' threads, and finished shards to the writing
thread. Memory is a fixed number of slots and a few open shards.

Row 101 of `resnet50` on its way: `Planner.jobs` opens its shard and puts it into a job, and
`Planner.tasks` into a task, for which `_CropRun.tasks` takes slots. The process cuts its crop into
its slot, and answers (`_CropRun.receive_tasks`). Once all slots of the batch are filled, a thread
computes it, `StreamRun.store` puts the numbers into the row's shard, and the slots are free again.
Once no row of the shard is left to compute, the writing thread writes it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from cache import Split
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.computing import compute_labels, load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.network import FEWEST_ROWS, NO_ROW, LoadedNetwork
from pipeline.features.engine.shards import Checked, OpenShard, StreamRun
from pipeline.features.engine.tasks import Job, Planner
from pipeline.features.engine.worker import AHEAD, CropDecoding, Decoded, Output, Task
from pipeline.features.inputs import Pixels, label_batch
from pipeline.features.spec import Resources
from pipeline.features.streams.base import Labels, Machine
from pipeline.processes import Failed, cores
from pipeline.processes.pool import TRIALS, VIDEO_THREADS, Pool

MOST_WORKERS: Final = 16  # decoding processes for each core: more would only slow each other down
LOOK_EVERY: Final = 0.02  # s between two looks at processes and threads: a batch takes longer
CHECKPOINT_EVERY: Final = 30.0  # s between checkpoints of shards that are not complete
REPORT_EVERY: Final = 0.25  # s between progress reports
AT_ONCE: Final = 1024  # rows of labels that a stream of labels gets in one call

Progress = Callable[[int, Meter], None]  # number of finished rows of all streams


def compute_shards(
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
        progress: called a few times a second.

    Raises what writing a shard and the streams raise.
    """
    machine = resources.machine(process)
    if pixels_of is None:
        (stream,) = streams
        report = _Report(streams, progress, Meter(decoders=0))
        _compute_labels(split, stream, machine, report)
    else:
        report = _compute_crops(split, streams, pixels_of, resources, process, progress)
    report.meter.stop()
    report()
    return report.meter


class _Report:
    """Reports the progress of a run."""

    def __init__(self, streams: Sequence[StreamRun], progress: Progress, meter: Meter) -> None:
        self.meter = meter
        self._streams = streams
        self._progress = progress
        self._reported = 0.0  # when the last report was
        meter.note_device([stream.provenance for stream in streams])

    def __call__(self) -> None:
        self._reported = time.monotonic()
        self._progress(sum(stream.n_done for stream in self._streams), self.meter)

    def if_due(self) -> None:
        if time.monotonic() - self._reported > REPORT_EVERY:
            self()


def _load(stream: StreamRun, machine: Machine) -> Any:
    """Load a stream's computer; None if decoding processes compute its rows."""
    computer, stream.provenance = load(stream.stream, machine, stream.recorded)
    return computer


def _compute_labels(split: Split, stream: StreamRun, machine: Machine, report: _Report) -> None:
    """Compute the shards of a stream of labels, without decoding."""
    meter = report.meter
    computer: Any = None
    at_once = max(1, AT_ONCE // stream.stream.reads.window)
    saved = time.monotonic()
    try:
        for number in stream.target:
            shard = stream.open(number)
            assert shard is not None, "each shard once"
            todo = shard.todo
            if len(todo) and computer is None:
                computer = _load(stream, machine)
                meter.note_device([stream.provenance])
            for first in range(0, len(todo), at_once):
                rows = todo[first : first + at_once]
                labels = label_batch(split, rows, stream.stream.reads)
                with meter.measure("model"):
                    computed, known = compute_labels(stream.stream, computer, labels, len(rows))
                meter.rows += stream.store(rows, stream.check(computed, known))
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    saved = time.monotonic()
                    _save([stream])
                report.if_due()
            _write_finished([stream], report)
    finally:
        _save([stream])


def _save(streams: Sequence[StreamRun]) -> None:
    for stream in streams:
        for save in stream.save():
            save()


def _write_finished(streams: Sequence[StreamRun], report: _Report) -> None:
    for stream in streams:
        for shard in stream.take_finished():
            with report.meter.measure("write"):
                stream.write(shard)
            stream.count(shard)
            report()


def _compute_crops(
    split: Split,
    streams: Sequence[StreamRun],
    pixels_of: Callable[[int], Pixels],
    resources: Resources,
    process: str,
    progress: Progress,
) -> _Report:
    """Compute the shards of streams of crops."""
    planner = Planner(split, streams, pixels_of, resources.decoders(process))
    report = _Report(streams, progress, Meter())
    jobs = planner.jobs()
    for job in jobs:
        if job is not None:
            jobs = itertools.chain([job], jobs)
            return _compute_jobs(split, streams, planner, jobs, resources, process, progress)
        _write_finished(streams, report)
    _write_finished(streams, report)
    return report


def _compute_jobs(
    split: Split,
    streams: Sequence[StreamRun],
    planner: Planner,
    jobs: Iterator[Job | None],
    resources: Resources,
    process: str,
    progress: Progress,
) -> _Report:
    """Load the networks, and compute shards with them and with decoding processes."""
    workers = resources.decoders(process)
    most = MOST_WORKERS * cores(0)
    if workers > most:
        raise ConfigError(
            f"workers {workers}: expected at most {most}, {MOST_WORKERS} for each core here"
        )
    outputs: list[Output] = []
    networks: list[LoadedNetwork | None] = []
    for stream in streams:
        computer = _load(stream, resources.machine(process))
        if computer is None:
            networks.append(None)
            outputs.append(Output(stream.stream.policy.size, stream.stream))
        else:
            networks.append(LoadedNetwork(stream.stream, computer, workers))
            outputs.append(Output(stream.stream.policy.size, None))
    loaded = [network for network in networks if network is not None]
    n_rows = min((network.task_rows for network in loaded), default=FEWEST_ROWS)
    pool = Pool[Task, Decoded](
        [CropDecoding(outputs)] * workers,
        _tasks_of_jobs(jobs, planner, n_rows, networks),
        ahead=AHEAD,
        timeout=resources.timeout,
        skips=True,
        shared=[network.n_bytes for network in loaded],
        # with fewer processes than cores, each may use several threads to decode
        env={VIDEO_THREADS: str(max(1, cores(0) // workers))},
    )
    meter = Meter(decoders=workers, lanes=max((network.lanes for network in loaded), default=1))
    with contextlib.ExitStack() as stack:
        stack.enter_context(pool)
        for network, memory in zip(loaded, pool.shared, strict=True):
            stack.enter_context(network.use(memory))
        report = _Report(streams, progress, meter)
        report()
        _CropRun(split, streams, networks, planner, pool, report).loop()
    return report


def _tasks_of_jobs(
    jobs: Iterator[Job | None],
    planner: Planner,
    n_rows: int,
    networks: Sequence[LoadedNetwork | None],
) -> Iterator[Iterator[Task | None] | None]:
    """Yield the tasks of each job, of about `n_rows` rows; None if there is no job now."""
    for job in jobs:
        if job is None:
            yield None
        else:
            yield _take_slots(planner.tasks(job, n_rows), networks)


def _take_slots(
    tasks: Iterator[Task], networks: Sequence[LoadedNetwork | None]
) -> Iterator[Task | None]:
    """Yield tasks with slots for the crops of networks; None while there is no room."""
    for task in tasks:
        crops_of = []
        for network, crops in zip(networks, task.crops, strict=True):
            if network is not None:
                crops_of.append((network, crops.rows))
        while not all(network.has_room(len(rows)) for network, rows in crops_of):
            yield None
        for network, rows in crops_of:
            rows["slot"] = network.take(len(rows))
        yield task


class _CropRun:
    """The main loop of a run of crops.

    Args:
        networks: by stream; None if decoding processes compute its rows.
        pool: processes that decode the planner's tasks.
    """

    def __init__(
        self,
        split: Split,
        streams: Sequence[StreamRun],
        networks: Sequence[LoadedNetwork | None],
        planner: Planner,
        pool: Pool[Task, Decoded],
        report: _Report,
    ) -> None:
        self._split = split
        self._streams = streams
        self._networks = networks
        # those with networks
        self._loaded = [
            (stream, network)
            for stream, network in zip(streams, networks, strict=True)
            if network is not None
        ]
        self._planner = planner
        self._pool = pool
        self._report = report
        self._meter = report.meter
        self._saved = time.monotonic()  # when checkpoints were last begun
        # batches that are being computed
        self._computing: dict[Future[Checked], tuple[StreamRun, LoadedNetwork, int]] = {}
        # what the writing thread has to do, in order: shards, and checkpoints
        self._writing = deque[tuple[Future[None], StreamRun | None, OpenShard | None]]()

    def loop(self) -> None:
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
                while self._pool.has_more or self._has_open or self._writing:
                    self._submit()
                    self._begin_to_compute(threads)
                    self._begin_to_write(writer)
                    # otherwise the loop would never end
                    assert self._is_working or not self._has_open, "open shards without work"
                    self._receive_tasks()
                    self._receive_batches()
                    self._receive_written()
                    self._report.if_due()
            finally:  # also after an error: start no other batch, and save the computed rows
                threads.shutdown(wait=False, cancel_futures=True)
                self._begin_to_save(writer)

    @property
    def _has_open(self) -> bool:
        return any(stream.has_open for stream in self._streams)

    @property
    def _has_full_batch(self) -> bool:
        return any(network.full for _, network in self._loaded)

    @property
    def _is_working(self) -> bool:
        """Whether a process, a thread or a full batch will change something."""
        is_busy = bool(self._computing or self._writing)
        return is_busy or not self._pool.is_idle or self._has_full_batch

    def _submit(self) -> None:
        """Send tasks to processes that have room. Close batches if no task can fill them: none is
        running, and none will come before slots are free.
        """
        self._pool.submit()
        # More tasks may come once running batches have freed their slots.
        may_get_tasks = self._pool.has_more and self._computing
        if self._pool.is_idle and not self._has_full_batch and not may_get_tasks:
            for _, network in self._loaded:
                network.close_batch()

    def _begin_to_compute(self, threads: ThreadPoolExecutor) -> None:
        for stream, network in self._loaded:
            while network.full and network.n_computing < 2 * network.lanes:
                batch = network.full.popleft()
                if (network.rows(batch) == NO_ROW).all():  # their video is lost
                    network.free(batch)
                    continue
                network.n_computing += 1
                labels = network.labels(self._split, batch)
                future = threads.submit(self._compute, stream, network, batch, labels)
                self._computing[future] = stream, network, batch

    def _compute(
        self, stream: StreamRun, network: LoadedNetwork, batch: int, labels: Labels
    ) -> Checked:
        with self._meter.measure("model"):
            computed = network.compute(batch, labels)
        return stream.check(computed, np.ones(len(computed), bool))

    def _begin_to_write(self, writer: ThreadPoolExecutor) -> None:
        """Let the writing thread write finished shards, and checkpoints of the others when they are
        due. It does so in order: a shard's checkpoint never comes after the shard.
        """
        for stream in self._streams:
            for shard in stream.take_finished():
                self._writing.append((writer.submit(self._write, stream, shard), stream, shard))
        if time.monotonic() - self._saved > CHECKPOINT_EVERY:
            self._begin_to_save(writer)

    def _write(self, stream: StreamRun, shard: OpenShard) -> None:
        with self._meter.measure("write"):
            stream.write(shard)

    def _begin_to_save(self, writer: ThreadPoolExecutor) -> None:
        self._saved = time.monotonic()
        for stream in self._streams:
            for save in stream.save():
                self._writing.append((writer.submit(save), None, None))

    def _receive_written(self) -> None:
        while self._writing and self._writing[0][0].done():
            written, stream, shard = self._writing.popleft()
            written.result()
            if stream is not None and shard is not None:
                stream.count(shard)

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
                filled_rows = np.where(stream.is_todo(rows), rows, NO_ROW)
                network.fill(crops.rows["slot"], filled_rows)

    def _receive_batches(self) -> None:
        """Take finished batches from the networks' threads."""
        for future in [future for future in self._computing if future.done()]:
            stream, network, batch = self._computing.pop(future)
            network.n_computing -= 1
            self._meter.rows += stream.store(network.rows(batch), future.result())
            network.free(batch)
