"""A stream's pending shards, extracted by a Dask cluster.  tracks -> [features] -> windows

The counterpart of `pipeline.features.engine.Run`, which every worker has for its share, with a network and decoding
processes of its own. Pictures and features stay there: shards go into the cache from where they are computed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cache
from cache import Split
from pipeline.cluster.at_work import OfShard
from pipeline.cluster.needs import Needs, SplitSeen
from pipeline.cluster.shards import agreed_by_one, extract_shards
from pipeline.conversion.identity import differing
from pipeline.errors import PipelineError
from pipeline.features.engine import Run
from pipeline.features.engine.assembly import OpenShard
from pipeline.features.engine.computation import computation
from pipeline.features.engine.counts import Counts
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.pieces import Pixels
from pipeline.features.pixel_sources import pixels, raw_folder

if TYPE_CHECKING:
    from pipeline.features.spec import StreamSpec


class ClusterRun:
    """An extraction of some of a split's shards, by the workers of the Dask cluster at `scheduler`.

    Args:
        writer: accepts what workers have staged. It is opened before they begin.
        recorded: the provenance of the rows that the stream has already.
        tell: called with rows done about once a second.
    """

    def __init__(
        self,
        scheduler: str,
        split: Split,
        writer: cache.StreamWriter,
        spec: StreamSpec,
        *,
        recorded: Mapping[str, Any] | None,
        tell: Callable[[int, Meter], None],
    ) -> None:
        self._scheduler, self._split, self._writer, self._spec = scheduler, split, writer, spec
        self._recorded, self._tell = recorded, tell
        self._did: dict[tuple[str, int], Did] = {}  # the last that was said, by worker and run
        self._crew: dict[str, Did] = {}  # the same, by worker
        self.meter = Meter()
        self.provenance: Mapping[str, Any] | None = None  # of what computed rows; None: nothing had to be loaded

    def over(self, pending: Sequence[int]) -> Iterator[Counts]:
        """What became of the rows of each pending shard, as soon as it is in the cache.

        Raises what `pipeline.cluster.extract_shards` and `pipeline.features.engine.Run` raise.
        """
        of_shards = self._split.rows_by_shard()
        rows = {shard: int(of_shards[shard]) for shard in pending}
        share, needs = _share(self._split, self._spec, self._recorded)
        agreed: Mapping[str, Any] | None = None
        said = extract_shards(
            self._scheduler, share, rows, needs, progress=lambda done, *_: self._tell(done, self.meter)
        )
        with closing(said):  # type: ignore[type-var]  # it is a generator
            for told in said:
                if told.staged is not None:
                    self._writer.accept(told.staged.staged)
                    yield told.staged.counts
                if told.agreed is not None:
                    agreed, self.meter = told.agreed, Meter()  # loading the first network is not of the work itself
                if told.did is not None:
                    self._add(told.worker, told.run, told.did)
                    if told.did.loaded:
                        self.provenance = agreed
        self.meter.stop()

    def _add(self, worker: str, run: int, did: Did) -> None:
        """Let the meter show what all of them did. It costs the same however many runs there have been."""
        before, self._did[worker, run] = self._did.get((worker, run), NOTHING), did
        self._crew[worker] = did
        self.meter.decoders = sum(one.decoders for one in self._crew.values())
        self.meter.lanes = sum(one.lanes for one in self._crew.values())
        self.meter.frames += did.frames - before.frames
        self.meter.rows += did.rows - before.rows
        self.meter.add(**{stage: spent - before.seconds.get(stage, 0.0) for stage, spent in did.seconds.items()})


def made_by_worker(scheduler: str, split: Split, spec: StreamSpec) -> Mapping[str, Any]:
    """Where the stream's numbers come from, as a worker says that can compute them: this machine may have no GPU."""
    found: Mapping[str, Any] = agreed_by_one(scheduler, *_share(split, spec, None))
    return found


def _share(split: Split, spec: StreamSpec, recorded: Mapping[str, Any] | None) -> tuple[Share, Needs]:
    """What goes to every worker, and what it must have."""
    seen = SplitSeen(split.root, split.name, str(split.manifest["digest"]))
    raw = [] if spec.crops else [raw_folder(split, spec.raw)]
    home = type(spec.stream).__module__.partition(".")[0]
    return Share(seen, spec, recorded), Needs.here(raw, plug_ins=[home], split=seen)


class Extracted(NamedTuple):
    """A shard that a worker has staged, and what became of its rows."""

    staged: cache.Staged
    counts: Counts

    @property
    def shard(self) -> int:
        return self.staged.shard


@dataclass(frozen=True, slots=True)
class Did:
    """What a worker did of a run so far: its meter, and whether it had to load what computes."""

    decoders: int
    lanes: int
    frames: int
    rows: int
    seconds: Mapping[str, float]
    loaded: bool

    @classmethod
    def by(cls, run: Run[Extracted]) -> Did:
        meter = run.meter
        seconds = dict(tuple(meter.seconds.items()))
        return cls(meter.decoders, meter.lanes, meter.frames, meter.rows, seconds, run.provenance is not None)


NOTHING: Final = Did(decoders=0, lanes=0, frames=0, rows=0, seconds={}, loaded=False)


@dataclass(frozen=True, slots=True)
class Share:
    """What every worker needs to do its share."""

    split: SplitSeen
    spec: StreamSpec
    recorded: Mapping[str, Any] | None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # of this extraction: the next one opens all anew

    def agree(self) -> Mapping[str, Any]:
        """Where the numbers come from: also by what an untrained network's are standardised, the same for all."""
        return computation(self.spec.stream, self.spec.resources.machine, self.recorded).provenance

    def __call__(
        self,
        agreed: Mapping[str, Any],
        shards: Sequence[int],
        *,
        staged: Callable[[OfShard], None],
        tell: Callable[[int, Any], None],
    ) -> Did:
        split, staging, pixels_of = _opened(self)
        self._require_the_same(agreed)

        def write(shard: OpenShard) -> Extracted:
            return Extracted(staging.stage(shard.number, shard.data, shard.ok, shard.keys), Counts.of(shard))

        run: Run[Extracted] = Run(
            split,
            staging,
            self.spec.stream,
            pixels_of=pixels_of,
            write=write,
            resources=self.spec.resources,
            recorded=agreed,
            tell=lambda rows, meter: tell(rows, Did.by(run)),  # noqa: ARG005 - the run knows its meter
        )
        with closing(run.over(sorted(shards))) as extracted:  # type: ignore[type-var]  # it is a generator
            for one in extracted:
                staged(one)
        return Did.by(run)

    def _require_the_same(self, agreed: Mapping[str, Any]) -> None:
        """Raise PipelineError where this worker would compute otherwise than the one that was asked first."""
        found = computation(self.spec.stream, self.spec.resources.machine, agreed).provenance
        if others := [one for one in differing(agreed, found) if one.part != "device"]:
            raise PipelineError(
                f"{self.split.name}: this Dask worker would compute otherwise than the others: "
                f"{'; '.join(map(str, others))}. Extract with workers of one kind."
            )


class _Opened(NamedTuple):
    """What a worker opens once for all runs of an extraction."""

    split: Split
    staging: cache.StreamShards
    pixels_of: Callable[[int], Pixels]


_held: dict[str, _Opened] = {}  # one at most, by the extraction's mark


def _opened(share: Share) -> _Opened:
    if share.mark not in _held:
        _held.clear()
        seen, spec = share.split, share.spec
        split = cache.open(seen.root)[seen.name]
        staging = cache.StreamShards(seen.root, seen.name, spec.name, dim=spec.stream.dim, dtype=spec.stream.dtype)
        if {str(split.manifest["digest"]), staging.split_digest} != {seen.digest}:
            raise cache.CacheChanged(f"{seen.name}: there has been a commit since it was looked at: run it again")
        _held[share.mark] = _Opened(split, staging, pixels(split, spec.crops, spec.raw))
    return _held[share.mark]
