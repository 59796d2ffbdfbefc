"""Extract feature streams on GPU or CPU, on this machine or a cluster.  tracks -> [features] ->
windows

Commands and Luigi tasks call `run_extraction` with a work for each stream
(`pipeline.steps.extraction.plan`). For streams of the same images, `extract_together`

1. finds their missing shards, except those of videos that are lost, which means that they are
   missing, changed or unreadable;
2. opens the streams in the cache (`CommittedStream`);
3. computes the shards in parts, each of which `_extract_part` computes and stages: in the process
   of a device or of a cluster's worker; without these, all shards are one part, computed here;
4. commits each stream; but a part of an array job only stages its shards.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from contextlib import ExitStack, closing
from typing import Final

import cache
from cache import Split
from cache.write.parts import Part
from pipeline.cli.console import IDLE
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import ConfigError
from pipeline.features.engine import run
from pipeline.features.engine.shards import Counts
from pipeline.features.pixels import Pixels, find_lost, videos_of
from pipeline.features.streams.base import Machine
from pipeline.processes.cluster import run_parts
from pipeline.processes.meter import Meter
from pipeline.processes.settings import NO_CLUSTER, Dask, Resources
from pipeline.settings.arguments import MEANWHILE
from pipeline.settings.sections import Settings
from pipeline.steps import sentences
from pipeline.steps.extraction.plan import ExtractionWork
from pipeline.steps.extraction.stream_extraction import CommittedStream, StreamState, StreamTask
from pipeline.steps.extraction.stream_extraction import Extraction as Extraction
from pipeline.steps.grading import store_grades
from pipeline.steps.raw_images import pixels, raw_folder, require_videos
from pipeline.steps.report import StepReport

HERE: Final = Resources()  # the whole machine
MOST_SHARDS: Final = 16  # in a part of a worker: progress is reported after each part


def extract_together(
    works: Sequence[ExtractionWork],
    resources: Resources = HERE,
    *,
    dask: Dask = NO_CLUSTER,
    part: Part | None = None,
    progress: Progress = silent,
) -> list[Extraction]:
    """Compute the missing rows of several streams of one split, and commit each stream. Returns
    their results, those of streams of the same images beside each other.

    Streams of the same images are computed in one pass, so that every frame is decoded once. After
    a kill, at most half a minute of work is repeated.

    dask: a cluster. Without one, compute on this machine, in one process for each device in
    `resources`, or else in this process. part: stage this share of the missing shards, and commit
    nothing.

    Rows of undecodable frames get the flag `ok` 0, and windows leave them out. Rows of videos that
    are missing, changed or unreadable wait for the next extraction (`Extraction.problem`). Raises
    PipelineError if the raw folder, or a video whose features would be replaced, is missing;
    ConfigError for both a scheduler and devices.
    """
    devices = resources.processes
    if devices and dask.scheduler is not None:
        raise ConfigError(
            f"devices {','.join(devices)}: workers of a cluster have their own. Delete one of both."
        )
    extractions: list[Extraction] = []
    for group in _group_by_images(works):
        extractions += _extract(group, resources, dask, part, _name_streams(group, progress))
    return extractions


def _name_streams(works: Sequence[ExtractionWork], progress: Progress) -> Progress:
    """`progress` with the names of the streams in its messages."""
    names = ", ".join(work.spec.name for work in works)

    def report(done: int, total: int, message: str = "", *, unit: str = "") -> None:  # noqa: ARG001
        progress(done, total, f"{names}{message}")

    return report


def run_extraction(
    works: Sequence[ExtractionWork],
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
) -> StepReport:
    """Extract streams of one split; a `part` stages its share. Raises as `extract_together` does.

    Flaws name rows without features.
    """
    details = []
    for work in works:
        if work.missing is None:
            details.append("motion only, without images")
        elif work.up_to_date:
            details.append(f"{work.spec.name} is up to date (verify checks its shards)")
    upcoming = [work for work in works if not work.up_to_date]
    if not upcoming:
        return StepReport(details=details, mark=IDLE)
    extractions = extract_together(
        upcoming, settings.features, dask=settings.dask, part=part, progress=progress
    )
    warnings = []
    flaws = []
    for extraction in extractions:
        if extraction.shards or not extraction.problem:
            details.append(sentences.describe_extraction(extraction, is_part=part is not None))
        for kind, n in extraction.problems.items():
            flaws.append(f"{count(n, 'row')} without features: {kind}")
        flaws += extraction.examples
        if part is not None:
            for video, why in extraction.lost.items():
                warnings.append(f"{video} is left to a later run: {why}")
            if _is_committed_meanwhile(extraction.work):
                warnings.append(MEANWHILE)
    problems = [extraction.problem for extraction in extractions if extraction.problem]
    return StepReport(details=details, warnings=warnings, problems=problems, flaws=flaws)


def _is_committed_meanwhile(work: ExtractionWork) -> bool:
    """Whether another process has committed shards of a work."""
    split = cache.open(work.root)[work.split]
    if work.spec.name not in split.streams or work.missing is None:
        return False
    return not set(work.missing.shards).isdisjoint(split.open_stream(work.spec.name).shards)


def _group_by_images(works: Sequence[ExtractionWork]) -> list[list[ExtractionWork]]:
    """The works in groups whose streams read the same images. Each stream of labels is a group of
    its own.
    """
    groups: dict[Hashable, list[ExtractionWork]] = {}
    for work in works:
        key: Hashable = work.spec.name
        if work.spec.stream.reads.crops:
            key = work.spec.raw
        groups.setdefault(key, []).append(work)
    return [*groups.values()]


def _extract(
    works: Sequence[ExtractionWork],
    resources: Resources,
    dask: Dask,
    part: Part | None,
    progress: Progress,
) -> list[Extraction]:
    """Extract streams that read the same images, or one stream of labels."""
    first = works[0]
    split = cache.open(first.root)[first.split]
    has_workers = bool(resources.processes) or dask.scheduler is not None
    # where there are workers, this machine may have no GPU
    machine = Machine("cpu") if has_workers else resources.machine()
    states = [StreamState.find(work, split) for work in works]
    missing = [state.missing for state in states]
    shards = sorted(set[int]().union(*(of_stream.shards for of_stream in missing)))
    lost: dict[int, str] = {}
    if first.spec.stream.reads.crops:
        if any(work.replace for work in works):
            require_videos(split, first.spec.raw, shards)
        pixels_of = pixels(split, first.spec.raw)
        # only missing videos: the run finds other lost ones when it decodes them
        lost = find_lost(pixels_of, videos_of(split, shards))
        # Videos with pending rows have been lost before. Their files are read, because committed
        # shards are only reopened for a video that is back.
        pending = set[int]().union(*(of_stream.videos(split) for of_stream in missing))
        lost |= find_lost(pixels_of, pending - lost.keys(), Pixels.check)
        # those that have rows of videos that are not lost
        shards = [shard for shard in shards if not set(videos_of(split, [shard])).issubset(lost)]
    with ExitStack() as stack:
        if part is not None:
            share = frozenset(part.share(shards))
            tasks = [state.open_part(stack, split, part, share) for state in states]
            counts, meter = _compute(split, tasks, resources, dask, progress)
            return [
                task.result(of_stream, meter) for task, of_stream in zip(tasks, counts, strict=True)
            ]
        share = frozenset(shards)
        streams = [CommittedStream(stack, state, split, share, lost, machine) for state in states]
        tasks = [stream.task for stream in streams]
        counts, meter = _compute(split, tasks, resources, dask, progress)
        extractions = [
            stream.finish(of_stream, meter)
            for stream, of_stream in zip(streams, counts, strict=True)
        ]
    for work in works:
        store_grades(first.root, first.split, work.spec.name, progress=progress)
    return extractions


def _compute(
    split: Split,
    tasks: Sequence[StreamTask],
    resources: Resources,
    dask: Dask,
    progress: Progress,
) -> tuple[list[Counts], Meter]:
    """Compute the streams' target shards in parts: on devices, on a cluster, or all of them here.
    Returns the counts of each stream. Progress is counted in rows: of others, in staged ones.
    """
    spec = tasks[0].work.spec
    rows_by_shard = split.rows_by_shard()
    n_rows = int(sum(rows_by_shard[sorted(task.target)].sum() for task in tasks))
    totals = [Counts() for _ in tasks]
    meter = Meter()
    open_staged = functools.cache(lambda: [task.work.open(cache.StreamShards) for task in tasks])

    def report_staged() -> None:
        n_staged = 0
        try:
            for task, files in zip(tasks, open_staged(), strict=True):
                staged = task.target.intersection(files.work.shards())
                n_staged += int(rows_by_shard[sorted(staged)].sum())
        except (OSError, cache.CacheError):
            return  # the next look may succeed
        progress(n_staged, n_rows, f" staged{meter.load}")

    parts = run_parts(
        functools.partial(_extract_part, tasks, resources),
        sorted(frozenset().union(*(task.target for task in tasks))),
        dask,
        resources.processes,
        most=MOST_SHARDS,
        shared=raw_folder(split, spec.raw) if spec.stream.reads.crops else None,
        plug_ins=[task.work.spec.stream for task in tasks],
        progress=progress,
        meanwhile=report_staged,
    )
    with closing(parts):
        for _, (counts, meter_of_part) in parts:
            meter.include_part(meter_of_part)
            for total, of_part in zip(totals, counts, strict=True):
                total.add(of_part)
            report_staged()
    meter.stop()
    return totals, meter


def _extract_part(
    tasks: Sequence[StreamTask],
    resources: Resources,
    part: Sequence[int],
    progress: Progress,
    device: str,
) -> tuple[list[Counts], Meter]:
    """Compute and stage the shards of a part. Returns the counts of each stream.

    Args:
        tasks: of streams that read the same images, or of one stream of labels.
        part: numbers of shards.
        device: as for `Resources.machine`.

    Raises PipelineError if this process would compute differently than the command.
    """
    work = tasks[0].work
    split = cache.open(work.root)[work.split]
    runs = []
    counts = []
    for task in tasks:
        run_of_stream, finished = task.open(split, part)
        runs.append(run_of_stream)
        counts.append(finished)
    pixels_of = None
    if work.spec.stream.reads.crops:
        pixels_of = pixels(split, work.spec.raw)
    meter = run.compute(split, runs, pixels_of, resources, device, progress)
    for of_stream, run_of_stream in zip(counts, runs, strict=True):
        of_stream.add(run_of_stream.counts)
    return counts, meter
