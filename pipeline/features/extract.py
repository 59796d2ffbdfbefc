"""Extract feature streams on GPU or CPU, on this machine or a cluster.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import cache
from cache import Split
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.committed import speed_of
from pipeline.errors import ConfigError
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Output, Run
from pipeline.features.engine.shards import Counts, PendingShard
from pipeline.features.parallel import ParallelRun, provenance_of
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import ExtractionPlan, missing_rows
from pipeline.features.spec import Resources

HERE: Final = Resources()  # the whole machine


@dataclass(slots=True, kw_only=True)
class Extraction(Counts):
    """The result of an extraction, in rows."""

    plan: ExtractionPlan
    meter: Meter  # where the time went


def extract_together(
    plans: Sequence[ExtractionPlan],
    resources: Resources = HERE,
    *,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> list[Extraction]:
    """Compute the missing rows of streams of one split, and commit. After a kill, at most half a minute is repeated.

    Streams of the same pixels are computed in one pass: every frame is decoded once.

    scheduler: the address of a Dask cluster; None: compute on this machine, in one process for each of the `devices` of
    `resources`, or in this process.

    Rows of undecodable frames are marked (`ok` 0), counted, and kept out of windows. Raises PipelineError if the raw
    folder has moved, or a committed video's images are missing or changed; ConfigError for both a scheduler and
    devices.
    """
    if (devices := resources.processes) and scheduler is not None:
        raise ConfigError(f"devices {','.join(devices)}: workers of a cluster have their own. Delete one of both.")
    together: dict[Hashable, list[int]] = {}
    for i, plan in enumerate(plans):
        spec = plan.spec
        together.setdefault(str(spec.raw) if spec.stream.reads.crops else i, []).append(i)
    by_plan: dict[int, Extraction] = {}
    for numbers in together.values():
        extractions = _extract([plans[i] for i in numbers], resources, scheduler, progress)
        by_plan |= dict(zip(numbers, extractions, strict=True))
    return [by_plan[i] for i in range(len(plans))]


def _extract(
    plans: Sequence[ExtractionPlan], resources: Resources, scheduler: str | None, progress: Progress
) -> list[Extraction]:
    """Extract streams that share their pixels, or one stream of labels."""
    first = plans[0]
    split = cache.open(first.root)[first.split]
    with ExitStack() as stack:
        parts = [_StreamExtraction(plan, split, resources, scheduler) for plan in plans]
        missing = sorted({shard for part in parts for shard in part.missing})
        pixels_of = None
        if first.spec.stream.reads.crops:
            pixels_of = pixels(split, first.spec.raw, require=missing)
        outputs = [part.open(stack) for part in parts]
        rows = split.rows_by_shard()
        total = sum(int(rows[output.target].sum()) for output in outputs)

        def report(done: int, meter: Meter) -> None:
            progress(done, total, str(meter))

        run: Run[Counts] | ParallelRun
        if scheduler is None and not resources.processes:
            run = Run(split, outputs, pixels_of=pixels_of, resources=resources, progress=report)
        else:
            specs, writers = [plan.spec for plan in plans], [part.writer for part in parts]
            run = ParallelRun(scheduler, split, specs, outputs, writers, resources=resources, progress=report)
        for output, counts in run.results():
            parts[output].counts.add(counts)
        return [part.commit(provenance, run.meter) for part, provenance in zip(parts, run.provenance, strict=True)]


class _StreamExtraction:
    writer: cache.StreamWriter

    def __init__(self, plan: ExtractionPlan, split: Split, resources: Resources, scheduler: str | None) -> None:
        self.plan, self._split, self._resources, self._scheduler = plan, split, resources, scheduler
        extends = plan.spec.name in split.streams and not plan.replace
        self.missing = missing_rows(split, plan.spec.name if extends else None).shards
        self.recorded = split.stream_manifest(plan.spec.name)["backbone"] if extends else None
        self._noted = split.stream_provenance(plan.spec.name) if extends else {}
        self.counts = Counts()

    def _provenance(self) -> Mapping[str, Any]:
        return provenance_of(self._scheduler, self._split, self.plan.spec, self._resources)

    def open(self, stack: ExitStack) -> Output[Counts]:
        """Raises cache.CacheChanged after a commit since the split was opened."""
        plan, stream = self.plan, self.plan.spec.stream
        if plan.replace:
            self._provenance()  # before the delete: a stream whose weights cannot be loaded stays
            cache.delete_stream(plan.root, plan.split, plan.spec.name)
        form: dict[str, Any] = {"dim": stream.dim, "dtype": stream.dtype}
        mark = cache.fingerprint(dict(plan.identity))
        writer = cache.StreamWriter(plan.root, plan.split, plan.spec.name, **form, plan=mark)
        self.writer = stack.enter_context(writer)
        if writer.split_digest != self._split.manifest["digest"]:
            raise cache.CacheChanged(f"{plan.split}: another process has committed meanwhile. Run it again.")

        finished = sorted(set(self.missing) - set(writer.pending))
        self.counts.kept += int(self._split.rows_by_shard()[finished].sum())

        def write(shard: PendingShard) -> Counts:
            writer.write(shard.number, shard.values, shard.ok, shard.keys)
            return shard.counts

        return Output(self._split, stream, writer, writer.pending, write, self.recorded)

    def commit(self, provenance: Mapping[str, Any] | None, meter: Meter) -> Extraction:
        """Commit. provenance: of the network; None: no network was loaded."""
        pending = self.writer.pending
        assert not pending, f"{self.plan.split}: shards {pending} were not computed"
        backbone = dict(provenance or self.recorded or self._provenance())
        stand_in = bool(backbone.get("stand_in") or self._split.manifest.get("stand_in"))
        software = {name: version(name) for name in ("opencv-python", "torch", "torchvision")}
        file = self.plan.spec.stream.weights_file
        named: dict[str, Any] = {} if file is None else {"weights_file": str(file.resolve())}
        measured = meter.as_dict() if meter.rows else speed_of(self._noted)  # carried rows have no speed
        named["without_features"] = self.counts.problems + Counter(self._noted.get("without_features"))
        # Times go into the note, since the manifest is equal for every run.
        self.writer.commit(
            {"identity": dict(self.plan.identity), "backbone": backbone, "stand_in": stand_in},
            note={"measured": measured, "computed_with": software, **named},
        )
        done = Extraction(plan=self.plan, meter=meter)
        done.add(self.counts)
        return done
