"""What an extraction would do, and why: the rows that a stream lacks.  tracks -> [features] -> windows

A shard never changes, and no track is added to one that is committed. So a stream lacks rows where, and only where, it
lacks a shard that holds a track. Nothing here imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from pipeline.conversion.identity import Difference, describe, differing
from pipeline.conversion.plan import UNFINISHED
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.weights import FILES, FORMS, WeightsSpec
from pipeline.files.raw.stand_in import is_stand_in

CHANGED: Final = "the split has changed"  # why a stream that exists is extended


@dataclass(frozen=True, slots=True)
class MissingRows:
    """What a stream lacks. `shards` are numbers of the split's shards, ascending."""

    shards: tuple[int, ...]
    rows: int  # of tracks, in those shards
    replaced: int  # rows that the stream has of videos that were removed or replaced: what may be carried over

    @property
    def carried_at_most(self) -> int:
        """Rows that need not be computed, if all replaced videos kept their pictures and boxes."""
        return min(self.rows, self.replaced)


def missing_rows(split: Split, stream: str | None) -> MissingRows:
    """What a committed stream lacks; None: what one lacks that does not exist yet."""
    rows_per_shard = int(split.manifest["geometry"]["rows_per_shard"])
    live = split.rows_by_shard()
    has = np.zeros(len(live), bool)
    if stream is not None:
        shards = np.array(split.stream_shards(stream), np.int64)
        has[shards[shards < len(has)]] = True
    lacking = np.flatnonzero((live > 0) & ~has)
    replaced = int((rows_of_commits(split.manifest, rows_per_shard, len(live)) - live)[has].sum())
    return MissingRows(tuple(lacking.tolist()), int(live[lacking].sum()), replaced)


def rows_of_commits(manifest: Mapping[str, Any], rows_per_shard: int, n_shards: int) -> NDArray[np.int64]:
    """(shards,) how many rows each shard was written with, those of replaced tracks included, padding left out."""
    rows = np.zeros(n_shards, np.int64)
    for first, end in manifest["commits"]:
        shards = np.arange(first // rows_per_shard, -(-end // rows_per_shard))
        rows[shards] = np.minimum(end - shards * rows_per_shard, rows_per_shard)
    return rows


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """What an extraction would do, and why; `why` is "" when it is up to date."""

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]
    replace: bool
    why: str
    lacks: MissingRows | None = None  # None: motion alone, without pixels
    differs: tuple[Difference, ...] = ()  # what the stream was made with, but would not be now: it is refused
    otherwise: str = ""  # the same as a sentence

    @property
    def up_to_date(self) -> bool:
        return not self.why


def plan_extraction(root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """Compare the committed rows with what the stream has.

    Raises cache.CacheError when the split does not exist, PipelineError when the stream holds features of other weights
    or another precision: those go into a stream of another name. With `replace`, an existing stream is recomputed
    whatever it holds: that repairs lost shards, and tries undecodable frames once more.
    """
    plan = compare_stream(cache.open(root)[split], spec, replace=replace)
    if plan.differs:
        raise PipelineError(
            f"{split}: the stream {spec.name!r} was extracted differently: {plan.otherwise}. "
            "Use another stream name (--stream NAME, [features] streams), or recompute it with --replace."
        )
    return plan


def compare_stream(committed: Split, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """The same for a split that is open; what it was extracted with instead is in `differs`, not raised."""
    if not set(spec.stream.needs) <= set(committed.columns):  # motion only: there are no pixels
        return ExtractionPlan(committed.root, committed.name, spec, spec.identity(), replace=False, why="")
    target = spec.identity()
    make = functools.partial(ExtractionPlan, committed.root, committed.name, spec, target)
    if spec.name not in committed.streams:
        lost = replace and committed.has_lost_manifest(spec.name)
        why = "to be replaced, since its manifest is lost" if lost else "not extracted before"
        return make(why=why, lacks=missing_rows(committed, None), replace=lost)
    if replace:
        return make(why="to be replaced", lacks=missing_rows(committed, None), replace=True)
    lacks = missing_rows(committed, spec.name)
    why = CHANGED if lacks.shards else UNFINISHED if committed.has_unfinished_commit(spec.name) else ""
    before = recorded_identity(committed, spec.name)
    differs = tuple(differing(before, target))
    return make(replace=False, why=why, lacks=lacks, differs=differs, otherwise=describe(before, target))


def recorded_identity(committed: Split, stream: str) -> Mapping[str, Any]:
    """What a stream was made with. Raises PipelineError where that is not recorded: another program wrote it."""
    identity: Mapping[str, Any] | None = committed.stream_manifest(stream).get("identity")
    if identity is None:
        raise PipelineError(
            f"{committed.name}: stream {stream!r} does not record what it was made with: another program wrote it. "
            "Name another stream (--stream, or [features] stream in luigi.cfg), or --replace this one."
        )
    return identity


def is_untrained(committed: Split, stream: str) -> bool:
    """Are the stream's features those of an untrained network? Another program's stream need have no entry for it."""
    return bool((committed.stream_manifest(stream).get("backbone") or {}).get("stand_in"))


def marked(committed: Split, stream: str, missing: str) -> str:
    """A stream's name with warnings: "resnet50 (untrained, lacks rows)". `missing`: of its rows, "" for none."""
    marks = ["untrained"] * is_untrained(committed, stream) + [missing] * bool(missing)
    kind = (committed.stream_manifest(stream).get("identity") or {}).get("kind")
    if kind not in (None, "imported") and streams.not_installed(str(kind)):
        marks.append("package not installed")
    return f"{stream} ({', '.join(marks)})" if marks else stream


def recorded_spec(
    committed: Split, stream: str, *, raw: Path | None = None, weights: WeightsSpec | None = None
) -> StreamSpec | None:
    """A stream as its manifest describes it; None where the weights that it was computed with are not at hand.

    Of a file of weights the manifest has the digest alone: `weights` are tried, or the file that provenance.json names,
    where that is still the same.
    """
    own = dict(committed.stream_manifest(stream).get("identity", {}))
    if "crops" in own:  # computed from stored crops by an earlier version
        return None
    if own.get("kind") not in streams.names():
        return None
    found = streams.of_identity(own)
    weights = weights or weights_file(committed, stream)
    if found is None and weights is not None and "weights" in own:
        found = streams.of_identity({**own, "weights": asdict(weights)})
    if found is None:
        return None
    return StreamSpec(stream, found, raw=raw)


def weights_file(committed: Split, stream: str) -> WeightsSpec | None:
    """The file of weights that a stream was computed with; None where it is not recorded, or not the same any more."""
    recorded = committed.stream_provenance(stream).get("weights_file")
    own = committed.stream_manifest(stream).get("identity", {}).get("weights")
    if not isinstance(recorded, str) or not isinstance(own, Mapping) or not Path(recorded).is_file():
        return None
    weights = WeightsSpec(str(own.get("kind")), recorded)
    return weights if weights.kind in FILES and weights.identity() == own else None


def refuse_untrained(spec: StreamSpec, raw: Path, setting: str) -> None:
    """Raise ConfigError for an untrained network that would see real data. `setting`: where its weights are named."""
    if spec.stream.stand_in and not is_stand_in(raw):
        weights = getattr(spec.stream, "weights", spec.stream)
        raise ConfigError(
            f"{setting} = {weights}: an untrained network is for demo data, and {raw} holds real data. Name its "
            f"weights: {getattr(weights, 'forms', FORMS)}."
        )


def is_current(split: Split, stream: str) -> bool:
    """Whether the stream has every row of the split's tracks."""
    return not missing_rows(split, stream).shards
