"""Extraction by several processes: those of a Dask cluster, or one per device.  tracks -> [features]

A task is a few neighbouring shards, so that a video in two of them is decoded once. A worker computes it as
`pipeline.features.engine.Run`, with its own network and decoding processes, puts the shards into the cache, and returns
a small record for each.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import cache
from cache import Split
from pipeline.conversion.identity import differing
from pipeline.errors import PipelineError
from pipeline.features.computing import device_of, load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Output, Run
from pipeline.features.engine.shards import Counts, PendingShard
from pipeline.features.pixel_sources import Pixels, pixels, raw_folder
from pipeline.features.spec import Resources, StreamSpec
from pipeline.processes import cluster
from pipeline.processes.devices import Devices

MOST_SHARDS: Final = 4  # in a task of a cluster: a lost worker costs 32,768 rows
MOST_OF_DEVICE: Final = 16  # in a task of a device: a GPU computes four in a few seconds, and starts with empty buffers

Extracted = tuple[cache.Staged, Counts]  # a shard that a worker has staged


class ParallelRun:
    """Extraction of a split's shards by the Dask cluster at `scheduler`, or by one process per device of `resources`.

    As `engine.run.Run` in one process.

    Args:
        specs: by output.
        outputs: only their target shards and the provenance of existing rows are used.
        writers: by output; opened before workers start, they accept staged shards.
        progress: called with rows done after each task.
    """

    def __init__(
        self,
        scheduler: str | None,
        split: Split,
        specs: Sequence[StreamSpec],
        outputs: Sequence[Output[Any]],
        writers: Sequence[cache.StreamWriter],
        *,
        resources: Resources,
        progress: Callable[[int, Meter], None],
    ) -> None:
        self._scheduler, self._split, self._writers, self._progress = scheduler, split, writers, progress
        self._targets = [frozenset(output.target) for output in outputs]
        recorded = tuple(output.recorded for output in outputs)
        digest = str(split.manifest["digest"])
        marks = tuple(writer.plan for writer in writers)
        self._share = Share(split.root, split.name, digest, tuple(specs), resources, marks, recorded)
        self.meter = Meter()
        self.provenance: list[Mapping[str, Any] | None] = [None] * len(specs)

    def results(self) -> Iterator[tuple[int, Counts]]:
        """(output, counts of rows) of each target shard, once it is in the cache.

        Raises what the workers' `as_completed` and `Run` raise.
        """
        target = sorted(frozenset().union(*self._targets))
        if not target:
            return
        rows, n_done = self._split.rows_by_shard(), 0
        with _workers(self._scheduler, self._split, self._share.specs[0], self._share.resources) as workers:
            agreed = workers.run_one(self._share.provenance)
            n = workers.number()
            most = MOST_OF_DEVICE if self._scheduler is None else MOST_SHARDS
            size = max(1, min(most, len(target) // (4 * n)))
            groups = [target[at : at + size] for at in range(0, len(target), size)]
            tasks = [[sorted(shards.intersection(group)) for shards in self._targets] for group in groups]
            device = device_of(agreed)
            self.meter = Meter(decoders=0, lanes=0, device=f"{n} x {device}" if device and n > 1 else device)
            for extracted, meter in workers.as_completed(functools.partial(self._share.extract, agreed), tasks):
                for output, (staged, counts) in extracted:
                    self._writers[output].accept(staged)
                    n_done += int(rows[staged.shard])
                    yield output, counts
                if meter is not None:
                    self.provenance = list(agreed)
                    self.meter.decoders, self.meter.lanes = n * meter.decoders, n * meter.lanes
                    self.meter.include(meter)
                self._progress(n_done, self.meter)
        self.meter.stop()


def provenance_of(scheduler: str | None, split: Split, spec: StreamSpec, resources: Resources) -> Mapping[str, Any]:
    """A stream's provenance, from a worker if there are any: this machine may have no GPU."""
    if scheduler is None and not resources.processes:
        return _provenance(spec, resources, None)
    with _workers(scheduler, split, spec, resources) as workers:
        return workers.run_one(functools.partial(_provenance, spec, resources, None))


def _workers(
    scheduler: str | None, split: Split, spec: StreamSpec, resources: Resources
) -> AbstractContextManager[cluster.Workers | Devices]:
    if scheduler is None:
        return Devices(resources.processes)
    return cluster.connect_workers(scheduler, raw_folder(split, spec.raw) if spec.stream.reads.crops else None)


def _provenance(
    spec: StreamSpec, resources: Resources, recorded: Mapping[str, Any] | None, device: str = ""
) -> Mapping[str, Any]:
    return load(spec.stream, resources.machine(device), recorded)[1]


@dataclass(frozen=True, slots=True)
class Share:
    """Inputs of every worker. `device`: the worker's, if `resources` names devices."""

    root: cache.Root
    split: str
    digest: str  # of the split's manifest
    specs: tuple[StreamSpec, ...]  # streams that share their pixels, or one of labels
    resources: Resources
    plans: tuple[str, ...]  # of the streams' writers
    recorded: tuple[Mapping[str, Any] | None, ...]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # of this extraction

    def provenance(self, device: str = "") -> list[Mapping[str, Any]]:
        """Provenance by stream, with the standardisation of random weights: equal for all workers."""
        streams = zip(self.specs, self.recorded, strict=True)
        return [_provenance(spec, self.resources, recorded, device) for spec, recorded in streams]

    def extract(
        self,
        agreed: Sequence[Mapping[str, Any]],
        shards: Sequence[Sequence[int]],
        alive: Callable[[], None],
        device: str = "",
    ) -> tuple[list[tuple[int, Extracted]], Meter | None]:
        """Put shards, by output, into the cache. None instead of the meter: all rows were carried over.

        agreed: the provenance of all workers. Raises PipelineError if this one would compute differently.
        """
        for spec, expected in zip(self.specs, agreed, strict=True):
            found = _provenance(spec, self.resources, expected, device)
            if others := [one for one in differing(expected, found) if one.part != "device"]:
                raise PipelineError(
                    f"{self.split}: this worker would compute differently from the others: "
                    f"{'; '.join(map(str, others))}. Use workers of one kind."
                )
        split, stagings, pixels_of = _open_once(self)

        def output(i: int) -> Output[Extracted]:
            def write(shard: PendingShard) -> Extracted:
                return stagings[i].stage(shard.number, shard.values, shard.ok, shard.keys), shard.counts

            return Output(split, self.specs[i].stream, stagings[i], shards[i], write, agreed[i])

        run = Run(
            split,
            [output(i) for i in range(len(self.specs))],
            pixels_of=pixels_of,
            resources=self.resources,
            process=device,
            progress=lambda rows, meter: alive(),  # noqa: ARG005
        )
        extracted = list(run.results())
        return extracted, None if all(found is None for found in run.provenance) else run.meter


_Opened = tuple[Split, list[cache.StreamShards], Callable[[int], Pixels] | None]
_opened: dict[str, _Opened] = {}  # at most one, by the extraction's mark


def _open_once(share: Share) -> _Opened:
    if share.mark not in _opened:
        _opened.clear()
        name, first = share.split, share.specs[0]
        split = cache.open(share.root)[name]
        stagings = [
            cache.StreamShards(share.root, name, spec.name, dim=spec.stream.dim, dtype=spec.stream.dtype, plan=plan)
            for spec, plan in zip(share.specs, share.plans, strict=True)
        ]
        if {str(split.manifest["digest"]), *(staging.split_digest for staging in stagings)} != {share.digest}:
            raise cache.CacheChanged(f"{name}: another process has committed meanwhile. Run it again.")
        pixels_of = pixels(split, first.raw) if first.stream.reads.crops else None
        _opened[share.mark] = split, stagings, pixels_of
    return _opened[share.mark]
