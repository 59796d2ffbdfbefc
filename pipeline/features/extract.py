"""Extract feature streams on GPU or CPU, on this machine or a cluster.  tracks -> [features] ->
windows

The commands, recipes and Luigi tasks call `extract_together` with a plan for each stream
(`pipeline.features.plan`). For streams of the same images, it

1. finds their missing shards, except those of videos that are lost, which means that they are
   missing, changed or unreadable;
2. opens the streams in the cache (`CommittedStream`);
3. computes the shards by `engine.run.compute`: in this process, or in parts, each of which a
   worker (a device's process, or one of a cluster) computes and stages by `_extract_part`;
4. commits each stream; but a part of an array job stages its shards, as workers do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Final

import cache
from cache import Split
from cache.write.parts import Part
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.identity import find_differences
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.engine import run
from pipeline.features.inputs import Pixels, pixels, raw_folder
from pipeline.features.plan import ExtractionPlan, MissingRows
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.stream_extraction import (
    CommittedStream,
    StagedStream,
    StreamState,
    open_part,
)
from pipeline.features.stream_extraction import Extraction as Extraction
from pipeline.features.streams.base import Machine
from pipeline.features.videos import (
    computable_shards,
    find_lost,
    require_videos,
    videos_of,
)
from pipeline.processes.cluster import SAME_FILES, run_parts
from pipeline.processes.meter import Meter
from pipeline.processes.settings import NO_CLUSTER, Dask

HERE: Final = Resources()  # the whole machine
MOST_SHARDS: Final = 16  # in a part of a worker: progress, in shards, is reported after each part


def extract_together(
    plans: Sequence[ExtractionPlan],
    resources: Resources = HERE,
    *,
    dask: Dask = NO_CLUSTER,
    part: Part | None = None,
    progress: Progress = silent,
) -> list[Extraction]:
    """Compute the missing rows of several streams of one split, and commit each stream.

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
    by_index: dict[int, Extraction] = {}
    for indices in _group_by_images(plans):
        extractions = _extract([plans[i] for i in indices], resources, dask, part, progress)
        by_index |= dict(zip(indices, extractions, strict=True))
    return [by_index[i] for i in range(len(plans))]


def _group_by_images(plans: Sequence[ExtractionPlan]) -> list[list[int]]:
    """Indices of the plans, in groups whose streams read the same images. Each stream of labels is
    a group of its own.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, plan in enumerate(plans):
        key: Hashable = i
        if plan.spec.stream.reads.crops:
            key = plan.spec.raw
        groups.setdefault(key, []).append(i)
    return [*groups.values()]


def _extract(
    plans: Sequence[ExtractionPlan],
    resources: Resources,
    dask: Dask,
    part: Part | None,
    progress: Progress,
) -> list[Extraction]:
    """Extract streams that read the same images, or one stream of labels."""
    first = plans[0]
    split = cache.open(first.root)[first.split]
    has_workers = bool(resources.processes) or dask.scheduler is not None
    # where there are workers, this machine may have no GPU
    machine = Machine("cpu") if has_workers else resources.machine()
    states = [StreamState.find(plan, split) for plan in plans]
    missing = [state.missing for state in states]
    shards = sorted(set[int]().union(*(of_stream.shards for of_stream in missing)))
    lost: dict[int, str] = {}
    if first.spec.stream.reads.crops:
        if any(plan.replace for plan in plans):
            require_videos(split, first.spec.raw, shards)
        lost = _find_lost_videos(split, pixels(split, first.spec.raw), missing, shards)
        shards = computable_shards(split, lost, shards)
    with ExitStack() as stack:
        streams: Sequence[CommittedStream | StagedStream]
        if part is not None:
            share = frozenset(part.share(shards))
            streams = [open_part(stack, state, split, part, share) for state in states]
        else:
            share = frozenset(shards)
            streams = [
                CommittedStream(stack, state, split, share, lost, machine) for state in states
            ]
        if has_workers and any(stream.run.target for stream in streams):
            return _compute_on_workers(split, streams, resources, dask, progress)
        return _compute(split, streams, first.spec, resources, progress)


def _compute(
    split: Split,
    streams: Sequence[CommittedStream | StagedStream],
    spec: StreamSpec,
    resources: Resources,
    progress: Progress,
    device: str = "",
) -> list[Extraction]:
    """Compute the target shards of streams in this process. device: as for `Resources.machine`.
    spec: that of the first stream.
    """
    pixels_of = None
    if spec.stream.reads.crops:
        pixels_of = pixels(split, spec.raw)
    runs = [stream.run for stream in streams]
    meter = run.compute(split, runs, pixels_of, resources, device, progress)
    return [stream.finish(meter) for stream in streams]


def _compute_on_workers(
    split: Split,
    streams: Sequence[CommittedStream | StagedStream],
    resources: Resources,
    dask: Dask,
    progress: Progress,
) -> list[Extraction]:
    """Compute the streams' target shards in parts, on devices or a cluster."""
    spec = streams[0].plan.spec
    shared = raw_folder(split, spec.raw) if spec.stream.reads.crops else None
    targets = [frozenset(stream.run.target) for stream in streams]
    shards = sorted(frozenset().union(*targets))
    plans = [replace(stream.plan, replace=False) for stream in streams]
    plug_ins = [plan.spec.stream for plan in plans]
    extract = functools.partial(_extract_part, plans, targets, resources)
    devices = resources.processes
    parts = run_parts(
        extract, shards, dask, devices, most=MOST_SHARDS, shared=shared, plug_ins=plug_ins
    )
    meter = Meter()
    n_done = 0
    with closing(parts):
        for part, extractions in parts:
            for stream, extraction in zip(streams, extractions, strict=True):
                stream.take(extraction)
            meter.include_part(extractions[0].meter)
            n_done += len(part)
            progress(n_done, len(shards), str(meter))
    meter.stop()
    return [stream.finish(meter) for stream in streams]


def _extract_part(
    plans: Sequence[ExtractionPlan],
    targets: Sequence[frozenset[int]],
    resources: Resources,
    part: Sequence[int],
    progress: Progress,
    device: str,
) -> list[Extraction]:
    """Compute and stage a part, in a worker.

    Args:
        plans: of streams that read the same images, or of one stream of labels.
        targets: by stream, the shards to compute in all parts.
        part: numbers of shards.

    Raises PipelineError if this worker would compute differently.
    """
    split = cache.open(plans[0].root)[plans[0].split]
    for plan in plans:
        differences = find_differences(plan.identity, plan.spec.stream.identity())
        if differences:
            text = "; ".join(map(str, differences))
            raise PipelineError(
                f"this worker would compute {plan.spec.name} otherwise ({text}). {SAME_FILES}"
            )
    streams = []
    for plan, target in zip(plans, targets, strict=True):
        state = StreamState.find(plan, split)
        streams.append(StagedStream(state, split, target.intersection(part)))
    return _compute(split, streams, plans[0].spec, resources, progress, device)


def _find_lost_videos(
    split: Split,
    pixels_of: Callable[[int], Pixels],
    missing: Sequence[MissingRows],
    shards: Sequence[int],
) -> dict[int, str]:
    """The numbers of lost videos, with the reason, among those of missing shards and of pending
    rows.

    For the missing shards, this only finds missing videos; the run finds the others when it decodes
    them. Videos with pending rows have been lost before. Their files are read (`Pixels.check`),
    because committed shards are only reopened for a video that is back.
    """
    lost = find_lost(pixels_of, videos_of(split, shards))
    pending = set[int]().union(*(of_stream.videos(split) for of_stream in missing))
    return lost | find_lost(pixels_of, pending - lost.keys(), Pixels.check)
