"""Rows -> a feature stream, on GPU or CPU.  tracks -> [features] -> windows

`plan_extraction` says what a stream lacks, and why; `extract` computes it, by `pipeline.features.engine`. Planning
needs no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import cache
from cache import Split
from pipeline.cli.progress import Progress, silent
from pipeline.cluster.extraction import ClusterRun, made_by_worker
from pipeline.conversion.identity import Difference, accepted, accepted_entry, describe, differing
from pipeline.conversion.plan import UNFINISHED
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import streams
from pipeline.features.engine import Run
from pipeline.features.engine.assembly import OpenShard
from pipeline.features.engine.counts import Counts
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.pieces import Pixels
from pipeline.features.missing_rows import Pending, pending
from pipeline.features.pixel_sources import pixels
from pipeline.features.spec import StreamSpec
from pipeline.features.weights import FORMS
from pipeline.raw.stand_in import is_stand_in

CHANGED: Final = "the split has changed"  # why a stream that is there is extended


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """What an extraction would do, and why; `why` is "" when there is nothing to do."""

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]
    replace: bool
    why: str
    lacks: Pending | None = None  # None: motion alone, without pixels
    differs: tuple[
        Difference, ...
    ] = ()  # what the stream was made with, and is not asked for now: an extraction refuses
    otherwise: str = ""  # the same as text

    @property
    def up_to_date(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did, in rows."""

    plan: ExtractionPlan
    computed: int
    carried: int  # rows whose pixels, frame and box the stream already had
    problems: Mapping[str, int]  # why rows have no feature -> how many
    examples: tuple[str, ...]  # the first few problems, in words
    meter: Meter  # where the time went

    @property
    def seconds(self) -> float:
        return self.meter.elapsed


def plan_extraction(root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """Compare the committed rows with what the stream has.

    Raises cache.CacheError when the split is not there, PipelineError when the stream holds features of other weights
    or another precision: those go into a stream of another name. With `replace`, a stream that is there is made again
    from nothing, whatever it holds: that repairs lost shards, and tries undecodable frames once more.
    """
    plan = compare_stream(cache.open(root)[split], spec, replace=replace)
    if plan.differs:
        raise PipelineError(
            f"{split}: the stream {spec.name!r} was extracted differently: {plan.otherwise}. "
            "A stream stays what it is: name another one (--stream NAME, [features] stream), or discard it "
            "(--replace). If the numbers are the same nevertheless, say so: `python -m pipeline accept`."
        )
    return plan


def compare_stream(committed: Split, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """The same for a split that is open, and with what the stream was extracted with otherwise told in `differs`."""
    if "bbox" not in committed.columns:  # motion only: there are no pixels
        return ExtractionPlan(committed.root, committed.name, spec, spec.identity(), replace=False, why="")
    wanted = spec.identity(committed)
    make = functools.partial(ExtractionPlan, committed.root, committed.name, spec, wanted, replace=False)
    if spec.name not in committed.streams:
        return make(why="not extracted before", lacks=pending(committed, None))
    if replace:
        return make(why="asked for anew", lacks=pending(committed, None), replace=True)
    lacks = pending(committed, spec.name)
    why = CHANGED if lacks.shards else UNFINISHED if committed.unsettled(spec.name) else ""
    before = recorded_identity(committed, spec.name)
    return make(why=why, lacks=lacks, differs=tuple(differing(before, wanted)), otherwise=describe(before, wanted))


def recorded_identity(committed: Split, stream: str) -> Mapping[str, Any]:
    """What a stream was made with. Raises PipelineError for one that other code has written, which does not say it."""
    identity: Mapping[str, Any] | None = committed.stream_manifest(stream).get("identity")
    if identity is None:
        raise PipelineError(
            f"{committed.name}: stream {stream!r} does not say what it was made with: another program wrote it. Name "
            "another stream (--stream, or [features] stream in luigi.cfg), or --replace this one."
        )
    return identity


def refuse_untrained(spec: StreamSpec, raw: Path, said: str) -> None:
    """Raise ConfigError for an untrained network that would see real data. `said`: where its weights were named."""
    if spec.stream.stand_in and not is_stand_in(raw):
        weights = getattr(spec.stream, "weights", spec.stream)
        raise ConfigError(
            f"{said} = {weights}: an untrained network is for embedded data, and {raw} is real. Name its weights: "
            f"{FORMS}."
        )


def is_current(split: Split, stream: str) -> bool:
    """Does the stream have every row of the split's tracks? If not, it lags behind them."""
    return not pending(split, stream).shards


def extract(plan: ExtractionPlan, *, scheduler: str | None = None, progress: Progress = silent) -> Extraction:
    """Compute the rows that the stream lacks, and commit. Killed at any point, it goes on at the shard.

    `scheduler`: of a Dask cluster, whose workers compute; None: this machine does.

    A frame that cannot be decoded costs its rows: they are marked (`ok` 0), counted, and kept out of windows.
    Raises PipelineError when the raw folder is not where it was at conversion, lacks a committed video's pictures, or
    has others than those that were converted.
    """
    spec, split = plan.spec, cache.open(plan.root)[plan.split]
    held = spec.name in split.streams and not plan.replace
    lacking = pending(split, spec.name if held else None).shards
    pixels_of = pixels(split, spec.crops, spec.raw, require=lacking)
    recorded = split.stream_manifest(spec.name)["backbone"] if held else None
    if plan.replace:
        _made_by(spec, split, scheduler)  # what cannot be loaded must not cost the stream that is there
        cache.discard(plan.root, plan.split, spec.name)
    form: dict[str, Any] = {"dim": spec.stream.dim, "dtype": spec.stream.dtype}
    plan_key = cache.fingerprint(dict(plan.identity))
    with cache.StreamWriter(plan.root, plan.split, spec.name, **form, plan=plan_key) as writer:
        if writer.split_digest != split.manifest["digest"]:
            raise cache.CacheChanged(f"{plan.split}: there has been a commit since it was looked at: run it again")
        todo = writer.pending
        total = int(split.rows_by_shard()[todo].sum())

        def tell(rows: int, meter: Meter) -> None:
            progress(rows, total, meter.words())

        run: Run[Counts] | ClusterRun
        if scheduler is None:
            run = _run_here(spec, split, writer, pixels_of, recorded, tell)
        else:
            run = ClusterRun(scheduler, split, writer, spec, recorded=recorded, tell=tell)
        done = Counts()
        for counts in run.over(todo):
            done.add(counts)
        assert not writer.pending, f"{plan.split}: shards {writer.pending} were not computed"
        made_by = run.provenance or recorded or _made_by(spec, split, scheduler)
        stand_in = bool(made_by.get("stand_in")) or split.manifest["stand_in"]
        remembered = accepted_entry(accepted(writer.entries))
        entries = {**remembered, "identity": dict(plan.identity), "backbone": dict(made_by), "stand_in": stand_in}
        # How it went is no part of the manifest, which is the same however long it took.
        writer.commit(entries, note={"measured": run.meter.as_dict(), "computed_with": _software()})
    return Extraction(plan, done.computed, done.carried, done.problems, tuple(done.examples), run.meter)


def _run_here(
    spec: StreamSpec,
    split: Split,
    writer: cache.StreamWriter,
    pixels_of: Callable[[int], Pixels],
    recorded: Mapping[str, Any] | None,
    tell: Callable[[int, Meter], None],
) -> Run[Counts]:
    def write(shard: OpenShard) -> Counts:
        writer.write(shard.number, shard.data, shard.ok, shard.keys)
        return Counts.of(shard)

    return Run(
        split,
        writer,
        spec.stream,
        pixels_of=pixels_of,
        write=write,
        resources=spec.resources,
        recorded=recorded,
        tell=tell,
    )


def _software() -> dict[str, str]:
    """Versions of what pixels go through."""
    return {name: version(name) for name in ("opencv-python", "torch", "torchvision")}


def _made_by(spec: StreamSpec, split: Split, scheduler: str | None) -> Mapping[str, Any]:
    """Where the stream's numbers come from. Loads what computes them, and raises where that cannot be."""
    if scheduler is not None:
        return made_by_worker(scheduler, split, spec)
    stream = spec.stream
    if isinstance(stream, streams.NumberStream):
        return stream.load(spec.resources.machine, None).provenance
    return stream.provenance if isinstance(stream, streams.ByteStream) else {}
