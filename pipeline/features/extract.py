"""Rows -> a feature stream, on GPU or CPU, on this machine or a cluster.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.identity import accepted, accepted_entry
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Run, load
from pipeline.features.engine.shards import Counts, OpenShard
from pipeline.features.on_cluster import ClusterRun, provenance_on_cluster
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import ExtractionPlan, missing_rows


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did, in rows."""

    plan: ExtractionPlan
    computed: int
    carried: int  # rows whose pixels, frame and box the stream already had
    problems: Mapping[str, int]  # why rows have no feature -> how many
    examples: tuple[str, ...]  # messages of the first few problems
    meter: Meter  # where the time went

    @property
    def seconds(self) -> float:
        return self.meter.elapsed


def extract(plan: ExtractionPlan, *, scheduler: str | None = None, progress: Progress = silent) -> Extraction:
    """Compute the rows that the stream lacks, and commit. Killed at any point, it goes on at the shard.

    `scheduler`: of a Dask cluster, whose workers compute; None: this machine does.

    A frame that cannot be decoded costs its rows: they are marked (`ok` 0), counted, and kept out of windows.
    Raises PipelineError when the raw folder is not where it was at conversion, lacks a committed video's pictures, or
    has others than those that were converted.
    """
    spec, split = plan.spec, cache.open(plan.root)[plan.split]
    extends = spec.name in split.streams and not plan.replace
    lacking = missing_rows(split, spec.name if extends else None).shards
    pixels_of = pixels(split, spec.crops, spec.raw, require=lacking)
    recorded = split.stream_manifest(spec.name)["backbone"] if extends else None

    def provenance() -> Mapping[str, Any]:
        if scheduler is not None:
            return provenance_on_cluster(scheduler, split, spec)
        return load(spec.stream, spec.resources, None)[1]

    if plan.replace:
        provenance()  # what cannot be loaded must not cost the existing stream
        cache.delete_stream(plan.root, plan.split, spec.name)
    form: dict[str, Any] = {"dim": spec.stream.dim, "dtype": spec.stream.dtype}
    identity = dict(plan.identity)
    with cache.StreamWriter(plan.root, plan.split, spec.name, **form, plan=cache.fingerprint(identity)) as writer:
        if writer.split_digest != split.manifest["digest"]:
            raise cache.CacheChanged(f"{plan.split}: there has been a commit since it was opened: run it again")
        target = writer.pending
        total = int(split.rows_by_shard()[target].sum())

        def report(rows: int, meter: Meter) -> None:
            progress(rows, total, str(meter))

        def write(shard: OpenShard) -> Counts:
            writer.write(shard.number, shard.data, shard.ok, shard.keys)
            return shard.counts

        run: Run[Counts] | ClusterRun
        if scheduler is None:
            run = Run(
                split,
                writer,
                spec.stream,
                pixels_of=pixels_of,
                write=write,
                resources=spec.resources,
                recorded=recorded,
                progress=report,
            )
        else:
            run = ClusterRun(scheduler, split, writer, spec, recorded=recorded, progress=report)
        done = Counts()
        for counts in run.over(target):
            done.add(counts)
        assert not writer.pending, f"{plan.split}: shards {writer.pending} were not computed"
        backbone = dict(run.provenance or recorded or provenance())
        stand_in = bool(backbone.get("stand_in")) or split.manifest["stand_in"]
        kept = accepted_entry(accepted(writer.entries))
        software = {name: version(name) for name in ("opencv-python", "torch", "torchvision")}
        # How long it took is no part of the manifest, which is the same however long it took.
        writer.commit(
            {**kept, "identity": identity, "backbone": backbone, "stand_in": stand_in},
            note={"measured": run.meter.as_dict(), "computed_with": software},
        )
    return Extraction(plan, done.computed, done.carried, done.problems, tuple(done.examples), run.meter)
