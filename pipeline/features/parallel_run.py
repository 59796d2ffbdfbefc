"""Compute shards of streams on a cluster, or in one process per device.  tracks -> [features] ->
windows

A worker's task is a few neighbouring shards, so that a video in two of them is decoded once. The
worker computes them by `engine.run.Run`, with its own network and decoding processes, stages the
shards, and returns a small record for each. The calling process accepts the staged shards; it
computes and writes nothing.

`ParallelRun.results` sends `_WorkerInputs` to the workers, where first one worker calls
`provenance`, and then all call `extract` with this provenance, once for each task. A worker that
would compute differently raises an error.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cache
from cache import Split
from pipeline.conversion.identity import find_differences
from pipeline.errors import PipelineError
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Output, Run, Written
from pipeline.features.inputs import pixels
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.stream_extraction import (
    StreamExtraction,
    committed_meanwhile,
    load_provenance,
    shared_folder,
)
from pipeline.features.streams.base import Provenance
from pipeline.processes.cluster import connect_workers
from pipeline.processes.settings import Dask

MOST_SHARDS: Final = 4  # in a task of a cluster: a lost worker costs at most 32,768 rows
# in a task of a device: a GPU computes four in seconds, and each task starts with empty buffers
MOST_OF_DEVICE: Final = 16
TASKS_OF_WORKER: Final = 4  # least number per worker, so that none waits long for the last task


@dataclass
class ParallelRun:
    """Computes a split's shards on a Dask cluster, or in one process per device in `resources`.

    It has the same interface as `engine.run.Run`, which computes them in this process.
    """

    dask: Dask
    split: Split
    # opened before workers start; their writers accept the workers' shards
    streams: Sequence[StreamExtraction]
    resources: Resources

    def __post_init__(self) -> None:
        self.meter = Meter()
        self.provenance: list[Provenance | None] = [None] * len(self.streams)

    def results(self, progress: Callable[[int, Meter], None]) -> Iterator[tuple[int, Written]]:
        """As `Run.results`, but progress is called after each task. Raises what workers raise."""
        targets = [frozenset(stream.target) for stream in self.streams]
        if not any(targets):
            return
        inputs = self._worker_inputs()
        rows = self.split.rows_by_shard()
        n_done = 0
        shared = shared_folder(self.split, inputs.specs[0])
        streams = [spec.stream for spec in inputs.specs]
        with connect_workers(self.dask, self.resources.processes, shared, streams) as workers:
            agreed = workers.run_one(inputs.provenance)
            n_workers = workers.number()
            tasks = self._tasks(targets, n_workers)
            self.meter = Meter(decoders=0, lanes=0)
            self.meter.note_device(agreed, n_workers)
            # called as extract(task, alive), in a device's process also with device=NAME
            extract = functools.partial(inputs.extract, agreed=agreed)
            for extracted, meter in workers.as_completed(extract, tasks):
                for i, (counts, staged) in extracted:
                    assert staged is not None, "a worker commits nothing"
                    self.streams[i].accept(staged)
                    n_done += int(rows[staged.shard])
                    yield i, (counts, staged)
                if meter.seconds:  # something was computed
                    self.provenance = list(agreed)
                    self.meter.decoders = n_workers * meter.decoders
                    self.meter.lanes = n_workers * meter.lanes
                    self.meter.include(meter)
                progress(n_done, self.meter)
        self.meter.stop()

    def _tasks(self, targets: Sequence[frozenset[int]], n_workers: int) -> list[list[list[int]]]:
        """The shards to compute in each task: for each stream (output), a list of neighbours.

        With the targets {0, 1, 2, 3} and {2, 3} of two streams, two tasks are
        [[0, 1], []] and [[2, 3], [2, 3]].
        """
        most = MOST_OF_DEVICE if self.dask.scheduler is None else MOST_SHARDS
        target = sorted(frozenset().union(*targets))
        size = max(1, min(most, len(target) // (TASKS_OF_WORKER * n_workers)))
        tasks = []
        for start in range(0, len(target), size):
            group = target[start : start + size]
            tasks.append([sorted(shards.intersection(group)) for shards in targets])
        return tasks

    def _worker_inputs(self) -> _WorkerInputs:
        return _WorkerInputs(
            root=self.split.root,
            split=self.split.name,
            digest=str(self.split.manifest["digest"]),
            specs=tuple(stream.plan.spec for stream in self.streams),
            resources=self.resources,
            plans=tuple(stream.staging for stream in self.streams),
            recorded=tuple(stream.recorded for stream in self.streams),
        )


# In a worker: the `mark` of an extraction -> the run of its last task, which the next task uses
# again. So on a device, the network and the decoding processes stay. There is at most one run.
_runs: dict[str, Run] = {}


@dataclass(frozen=True, slots=True)
class _WorkerInputs:
    """The inputs of every worker; its methods run in the workers.

    The argument `device` of the methods: the worker's own device, if `resources` names devices.
    """

    root: cache.Root
    split: str
    digest: str  # of the split's manifest
    specs: tuple[StreamSpec, ...]  # streams that share their images, or one stream of labels
    resources: Resources
    plans: tuple[Mapping[str, Any], ...]  # by stream: the plan under which shards are staged
    recorded: tuple[Provenance | None, ...]  # by stream: provenance of existing rows
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # identifies this extraction

    def provenance(self, device: str = "") -> list[Provenance]:
        """Each stream's provenance, to be agreed on by all workers: it has the statistics that
        standardise features of random weights.
        """
        streams = zip(self.specs, self.recorded, strict=True)
        return [
            load_provenance(spec, self.resources, recorded, device) for spec, recorded in streams
        ]

    def extract(
        self,
        shards: Sequence[Sequence[int]],
        alive: Callable[[], None],
        device: str = "",
        *,
        agreed: Sequence[Provenance],
    ) -> tuple[list[tuple[int, Written]], Meter]:
        """Compute and stage one task.

        Args:
            shards: the shards to compute, by stream.
            alive: called while it computes, to report progress.
            agreed: the provenance of all workers, by stream.

        Returns the staged shards with their output's number, as `Run.results` yields them, and the
        run's meter. Raises PipelineError if this worker would compute differently from the others.
        """
        self._require_same(agreed, device)
        run = _runs.pop(self.mark, None)
        _runs.clear()  # drops the run of another extraction
        if run is None:
            run = self._open(agreed, device)
        for output, target in zip(run.outputs, shards, strict=True):
            output.begin(target)
        extracted = list(run.results(lambda *_: alive()))
        _runs[self.mark] = run  # only now: after an error, the next task opens another run
        return extracted, run.meter

    def _require_same(self, agreed: Sequence[Provenance], device: str) -> None:
        for spec, provenance in zip(self.specs, agreed, strict=True):
            here = load_provenance(spec, self.resources, provenance, device)
            differences = [
                entry for entry in find_differences(provenance, here) if entry.part != "device"
            ]
            if differences:
                raise PipelineError(
                    f"{self.split}: this worker would compute differently from the others: "
                    f"{'; '.join(map(str, differences))}. Use workers of one kind."
                )

    def _open(self, agreed: Sequence[Provenance], device: str) -> Run:
        """Make a run whose outputs have no targets yet."""
        split = cache.open(self.root)[self.split]
        outputs = list[Output]()
        for spec, plan, provenance in zip(self.specs, self.plans, agreed, strict=True):
            stream = spec.stream
            shards = cache.StreamShards(
                self.root, self.split, spec.name, dim=stream.dim, dtype=stream.dtype, plan=plan
            )
            outputs.append(
                Output(
                    split,
                    stream,
                    shards,
                    target=(),
                    write_shard=shards.stage,
                    recorded=provenance,
                    agreed=provenance,
                )
            )
            if {str(split.manifest["digest"]), shards.split_digest} != {self.digest}:
                raise committed_meanwhile(self.split)
        first = self.specs[0]
        pixels_of = None
        if first.stream.reads.crops:
            pixels_of = pixels(split, first.raw)
        return Run(
            split=split,
            outputs=outputs,
            pixels_of=pixels_of,
            resources=self.resources,
            process=device,
        )
