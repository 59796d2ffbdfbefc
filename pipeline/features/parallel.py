"""Streams' missing shards, computed by several processes: a Dask cluster's, or one a device.  tracks -> [features]

A task is a few neighbouring shards, so that a video that spans two of them is decoded once. A worker computes it as
`pipeline.features.engine.Run` does on one machine, with a network and decoding processes of its own, and puts the
shards into the cache itself: what it returns is a record of a few hundred bytes for each.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import cache
from cache import Split
from pipeline import cluster
from pipeline.conversion.identity import differing
from pipeline.errors import PipelineError
from pipeline.features.computing import device_of, load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Output, run_of
from pipeline.features.engine.shards import Counts, PendingShard
from pipeline.features.pixel_sources import Pixels, pixels, raw_folder
from pipeline.features.spec import Resources, StreamSpec
from pipeline.processes.devices import Devices

MOST_SHARDS: Final = 4  # in a task of a cluster's, 32,768 rows: all that a lost worker costs
MOST_OF_DEVICE: Final = 16  # in one of a device's: a GPU has done four in a few seconds, and begins with empty buffers

Workers = cluster.Workers | Devices


class ParallelRun:
    """An extraction of some of a split's shards by the Dask cluster at `scheduler`, or else by a process for each of
    the devices of `resources`; as `engine.run.Run` in one process.

    Args:
        writers: by output; they accept what workers have staged. They are opened before these begin.
        specs: by output, with its shards to be computed and the provenance of the rows that it has.
        progress: called with rows done, whenever a task is.
    """

    def __init__(
        self,
        scheduler: str | None,
        split: Split,
        writers: Sequence[cache.StreamWriter],
        specs: Sequence[tuple[StreamSpec, Output[Any]]],
        *,
        resources: Resources,
        progress: Callable[[int, Meter], None],
    ) -> None:
        self._scheduler, self._split, self._writers, self._progress = scheduler, split, writers, progress
        self._targets = [output.target for _, output in specs]
        recorded = tuple(output.recorded for _, output in specs)
        digest = str(split.manifest["digest"])
        marks = tuple(writer.plan for writer in writers)
        streams = tuple(spec for spec, _ in specs)
        self._share = Share(split.root, split.name, digest, streams, resources, marks, recorded)
        self.meter = Meter()
        self.provenance: list[Mapping[str, Any] | None] = [None] * len(specs)

    def results(self) -> Iterator[tuple[int, Counts]]:
        """(output, what became of its rows) of each target shard, as soon as it is in the cache.

        Raises what the workers' `as_completed` and `Run` raise.
        """
        target = sorted({shard for shards in self._targets for shard in shards})
        if not target:
            return
        rows, n_done = self._split.rows_by_shard(), 0
        with _workers(self._scheduler, self._split, self._share.specs[0], self._share.resources) as workers:
            agreed = workers.run_one(self._share.provenance)
            n = workers.number()
            most = MOST_OF_DEVICE if self._scheduler is None else MOST_SHARDS
            size = max(1, min(most, len(target) // (4 * n)))
            groups = [target[at : at + size] for at in range(0, len(target), size)]
            tasks = [tuple(tuple(s for s in group if s in set(shards)) for shards in self._targets) for group in groups]
            device = device_of(agreed)
            self.meter = Meter(decoders=0, lanes=0, device=f"{n} x {device}" if device and n > 1 else device)
            for extracted, meter in workers.as_completed(functools.partial(self._share.extract, agreed), tasks):
                for output, staged, counts in extracted:
                    self._writers[output].accept(staged)
                    n_done += int(rows[staged.shard])
                    yield output, counts
                if meter is not None:
                    self.provenance = list(agreed)
                    self.meter.decoders, self.meter.lanes = n * meter.decoders, n * meter.lanes
                    self.meter.include(meter)
                self._progress(n_done, self.meter)
        self.meter.stop()


def provenance_of_worker(
    scheduler: str | None, split: Split, spec: StreamSpec, resources: Resources
) -> Mapping[str, Any]:
    """Where a stream's numbers come from, of a worker that can compute them: this machine may have no GPU."""
    with _workers(scheduler, split, spec, resources) as workers:
        return workers.run_one(functools.partial(_provenance, spec, resources, None))


def _workers(
    scheduler: str | None, split: Split, spec: StreamSpec, resources: Resources
) -> AbstractContextManager[Workers]:
    if scheduler is None:
        return Devices(resources.processes)
    return cluster.connected(scheduler, raw_folder(split, spec.raw) if spec.stream.reads.crops else None)


def _provenance(
    spec: StreamSpec, resources: Resources, recorded: Mapping[str, Any] | None, device: str = ""
) -> Mapping[str, Any]:
    return load(spec.stream, resources.machine(device), recorded)[1]


class Extracted(NamedTuple):
    """A shard that a worker has staged, and what became of its rows."""

    output: int
    staged: cache.Staged
    counts: Counts


@dataclass(frozen=True, slots=True)
class Share:
    """What every worker needs to do its share. `device`: the worker's, where it is one of those of `resources`."""

    root: cache.Root
    split: str
    digest: str  # of the split's manifest
    specs: tuple[StreamSpec, ...]  # that share their pixels, or one of labels
    resources: Resources
    plans: tuple[str, ...]  # of the streams' writers
    recorded: tuple[Mapping[str, Any] | None, ...]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # of this extraction: the next one opens all again

    def provenance(self, device: str = "") -> list[Mapping[str, Any]]:
        """Where the numbers come from, an untrained network's standardisation included: the same for all workers."""
        streams = zip(self.specs, self.recorded, strict=True)
        return [_provenance(spec, self.resources, recorded, device) for spec, recorded in streams]

    def extract(
        self,
        agreed: Sequence[Mapping[str, Any]],
        shards: Sequence[Sequence[int]],
        alive: Callable[[], None],
        device: str = "",
    ) -> tuple[list[Extracted], Meter | None]:
        """Put shards, by output, into the cache. None: nothing had to be computed, all rows were carried over.

        `agreed`: the provenance of all workers. Raises PipelineError where this one would compute differently.
        """
        for spec, expected in zip(self.specs, agreed, strict=True):
            found = _provenance(spec, self.resources, expected, device)
            if others := [one for one in differing(expected, found) if one.part != "device"]:
                raise PipelineError(
                    f"{self.split}: this worker would compute differently from the others: "
                    f"{'; '.join(map(str, others))}. Extract with workers of one kind."
                )
        split, stagings, pixels_of = _opened(self)

        def output(i: int) -> Output[Extracted]:
            def write(shard: PendingShard) -> Extracted:
                return Extracted(i, stagings[i].stage(shard.number, shard.values, shard.ok, shard.keys), shard.counts)

            return Output(split, self.specs[i].stream, stagings[i], shards[i], write, agreed[i])

        run = run_of(
            split,
            [output(i) for i in range(len(self.specs))],
            pixels_of=pixels_of,
            resources=self.resources,
            process=device,
            progress=lambda rows, meter: alive(),  # noqa: ARG005
        )
        extracted = [found for _, found in run.results()]
        return extracted, None if all(found is None for found in run.provenance) else run.meter


_Opened = tuple[Split, list[cache.StreamShards], Callable[[int], Pixels] | None]
_opened_once: dict[str, _Opened] = {}  # one at most, by the extraction's mark


def _opened(share: Share) -> _Opened:
    """What a worker opens once for all tasks of an extraction."""
    if share.mark not in _opened_once:
        _opened_once.clear()
        name, first = share.split, share.specs[0]
        split = cache.open(share.root)[name]
        stagings = [
            cache.StreamShards(share.root, name, spec.name, dim=spec.stream.dim, dtype=spec.stream.dtype, plan=plan)
            for spec, plan in zip(share.specs, share.plans, strict=True)
        ]
        if {str(split.manifest["digest"]), *(staging.split_digest for staging in stagings)} != {share.digest}:
            raise cache.CacheChanged(f"{name}: there has been a commit since it was opened: run it again")
        pixels_of = pixels(split, first.raw) if first.stream.reads.crops else None
        _opened_once[share.mark] = split, stagings, pixels_of
    return _opened_once[share.mark]
