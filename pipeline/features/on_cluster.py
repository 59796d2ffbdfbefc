"""A stream's missing shards, computed by the workers of a Dask cluster.  tracks -> [features] -> windows

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
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Run, load
from pipeline.features.engine.shards import Counts, OpenShard
from pipeline.features.pixel_sources import Pixels, pixels, raw_folder
from pipeline.features.spec import StreamSpec

MOST_SHARDS: Final = 4  # in a task, 32,768 rows: all that a lost worker costs


class ClusterRun:
    """An extraction of some of a split's shards by the Dask cluster at `scheduler`.

    Args:
        writer: accepts what workers have staged. It is opened before they begin.
        recorded: the provenance of the rows that the stream has already.
        progress: called with rows done, whenever a task is.
    """

    def __init__(
        self,
        scheduler: str,
        split: Split,
        writer: cache.StreamWriter,
        spec: StreamSpec,
        *,
        recorded: Mapping[str, Any] | None,
        progress: Callable[[int, Meter], None],
    ) -> None:
        self._scheduler, self._split, self._writer, self._progress = scheduler, split, writer, progress
        self._share = Share(split.root, split.name, str(split.manifest["digest"]), spec, recorded)
        self.meter = Meter()
        self.provenance: Mapping[str, Any] | None = None  # of what computed rows; None: nothing had to be loaded

    def over(self, target: Sequence[int]) -> Iterator[Counts]:
        """What became of the rows of each target shard, as soon as it is in the cache.

        Raises what the cluster's `as_completed` and `Run` raise.
        """
        if not target:
            return
        rows, done = self._split.rows_by_shard(), 0
        with _workers(self._scheduler, self._split, self._share.spec) as workers:
            agreed = workers.run_one(self._share.provenance)
            n = workers.number()
            together = max(1, min(MOST_SHARDS, len(target) // (4 * n)))
            tasks = [tuple(target[at : at + together]) for at in range(0, len(target), together)]
            self.meter = Meter(decoders=0, lanes=0)
            for extracted, meter in workers.as_completed(functools.partial(self._share.extract, agreed), tasks):
                for staged, counts in extracted:
                    self._writer.accept(staged)
                    done += int(rows[staged.shard])
                    yield counts
                if meter is not None:
                    self.provenance = agreed
                    self.meter.frames, self.meter.rows = self.meter.frames + meter.frames, self.meter.rows + meter.rows
                    self.meter.decoders, self.meter.lanes = n * meter.decoders, n * meter.lanes
                    self.meter.add(**meter.seconds)
                self._progress(done, self.meter)
        self.meter.stop()


def provenance_on_cluster(scheduler: str, split: Split, spec: StreamSpec) -> Mapping[str, Any]:
    """Where a stream's numbers come from, of a worker that can compute them: this machine may have no GPU."""
    with _workers(scheduler, split, spec) as workers:
        return workers.run_one(functools.partial(_provenance, spec, None))


def _workers(scheduler: str, split: Split, spec: StreamSpec) -> AbstractContextManager[cluster.Workers]:
    return cluster.connected(scheduler, [] if spec.crops else [raw_folder(split, spec.raw)])


def _provenance(spec: StreamSpec, recorded: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return load(spec.stream, spec.resources, recorded)[1]


class Extracted(NamedTuple):
    """A shard that a worker has staged, and what became of its rows."""

    staged: cache.Staged
    counts: Counts


@dataclass(frozen=True, slots=True)
class Share:
    """What every worker needs to do its share."""

    root: cache.Root
    split: str
    digest: str  # of the split's manifest
    spec: StreamSpec
    recorded: Mapping[str, Any] | None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # of this extraction: the next one opens all again

    def provenance(self) -> Mapping[str, Any]:
        """Where the numbers come from, an untrained network's standardisation included: the same for all workers."""
        return _provenance(self.spec, self.recorded)

    def extract(
        self, agreed: Mapping[str, Any], shards: Sequence[int], alive: Callable[[], None]
    ) -> tuple[list[Extracted], Meter | None]:
        """Put shards into the cache. None: nothing had to be computed, all rows were carried over.

        `agreed`: the provenance of all workers. Raises PipelineError where this one would compute otherwise.
        """
        found = _provenance(self.spec, agreed)
        if others := [one for one in differing(agreed, found) if one.part != "device"]:
            raise PipelineError(
                f"{self.split}: this Dask worker would compute otherwise than the others: "
                f"{'; '.join(map(str, others))}. Extract with workers of one kind."
            )
        split, staging, pixels_of = _opened(self)

        def write(shard: OpenShard) -> Extracted:
            return Extracted(staging.stage(shard.number, shard.data, shard.ok, shard.keys), shard.counts)

        run: Run[Extracted] = Run(
            split,
            staging,
            self.spec.stream,
            pixels_of=pixels_of,
            write=write,
            resources=self.spec.resources,
            recorded=agreed,
            progress=lambda rows, meter: alive(),  # noqa: ARG005
        )
        extracted = list(run.over(shards))
        return extracted, None if run.provenance is None else run.meter


_Opened = tuple[Split, cache.StreamShards, Callable[[int], Pixels]]
_opened_once: dict[str, _Opened] = {}  # one at most, by the extraction's mark


def _opened(share: Share) -> _Opened:
    """What a worker opens once for all tasks of an extraction."""
    if share.mark not in _opened_once:
        _opened_once.clear()
        name, spec = share.split, share.spec
        split = cache.open(share.root)[name]
        staging = cache.StreamShards(share.root, name, spec.name, dim=spec.stream.dim, dtype=spec.stream.dtype)
        if {str(split.manifest["digest"]), staging.split_digest} != {share.digest}:
            raise cache.CacheChanged(f"{name}: there has been a commit since it was opened: run it again")
        _opened_once[share.mark] = split, staging, pixels(split, spec.crops, spec.raw)
    return _opened_once[share.mark]
