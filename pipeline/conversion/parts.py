"""Read videos into the spool in parts, and take them from there.  [raw -> tracks]

Each part, of an array job (`read_part`) or of a worker of a cluster (`_read_on_worker`), reads its
share of a split's videos into the `Spool`. The command that commits takes them from there
(`read_spooled`).
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from cache.format.folders import create_groups
from cache.format.layout import WRITING
from cache.write.parts import Part
from pipeline.accounting import NOT_NOW, VideoAccount
from pipeline.cli.console import err
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.conversion.identity import find_differences, reader_parts, report_other_work
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import Read, ReadVideo, attach_clips, read_videos
from pipeline.conversion.spool import Spool
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.cluster import SAME_FILES, run_parts
from pipeline.processes.settings import Dask

MOST_VIDEOS: Final = 1000  # in a part of a worker: progress is reported after each part


def read_part(
    plan: ConversionPlan, part: Part, *, workers: int, dask: Dask, progress: Progress
) -> list[VideoAccount]:
    """Read an array job's share of the plan's videos into the spool, by processes of this machine
    or on a cluster. Returns the accounts of videos that cannot be read now.
    """
    share = part.share(plan.append)
    if not share:
        return []
    report_other_work(plan.root, plan.name, None, plan.staging)
    with part.running(plan.root, f"{plan.name}/{WRITING}"):
        read = functools.partial(read_videos, plan, workers=workers)
        videos = attach_clips(share, plan.committed)
        if dask.scheduler is not None:
            read_on_cluster(plan, videos, dask, progress)
        return read_here(plan, videos, read, progress)


def read_spooled(
    plan: ConversionPlan, videos: Sequence[RawVideo], read: Read
) -> Generator[ReadVideo]:
    """Yield every video, in order: from the spool if its raw files are the same, else as `read`
    reads it.
    """
    spool = Spool(plan)
    pieces, todo = spool.find(videos)
    with closing(read(todo)) as read_now:
        for video in videos:
            if video.name in pieces:
                yield spool.load(pieces[video.name])
            else:
                yield next(read_now)


def read_here(
    plan: ConversionPlan, videos: Sequence[RawVideo], read: Read, progress: Progress
) -> list[VideoAccount]:
    """Read those of the videos that are not in the spool into it, by `read`. Returns the accounts
    of videos that cannot be read now.
    """
    spool = Spool(plan)
    _, todo = spool.find(videos)
    if not todo:
        return []
    create_groups(spool.place)
    unreadable = []
    n_done = len(videos) - len(todo)
    for video, result in zip(todo, read(todo), strict=True):
        account = result.account
        if account.set_aside == NOT_NOW:
            unreadable.append(account)
        else:
            spool.put(video, result)
        n_done += 1
        progress(n_done, len(videos), video.name)
    return unreadable


def read_on_cluster(
    plan: ConversionPlan, videos: Sequence[RawVideo], dask: Dask, progress: Progress
) -> None:
    """Read those of the videos that are not in the spool into it, on the workers of a cluster.
    Prints a line about those that they could not read, or of which they have other files.
    """
    spool = Spool(plan)
    _, todo = spool.find(videos)
    if not todo:
        return
    create_groups(spool.place)
    folders = plan.raw, plan.root, plan.body
    without_videos = ConversionPlan(
        plan.dataset,
        plan.split,
        *folders,
        plan.reader,
        committed=None,
        selection=plan.selection,
        listed=tuple(video for video in plan.listed if video.left_out),  # for `plan.staging`
    )
    read = functools.partial(_read_on_worker, without_videos)
    plug_ins = [plan.dataset]
    parts = run_parts(
        read, todo, dask, most=MOST_VIDEOS, shared=plan.raw, plug_ins=plug_ins, on_gpus=False
    )
    n_done = 0
    with closing(parts):
        for part, _ in parts:
            n_done += len(part)
            progress(n_done, len(todo), "read by Dask workers")
    _, missing = spool.find(todo)
    if missing:
        why = "Dask workers cannot read them now, or have other files"
        text = f"{count(len(missing), 'video')} read here, first {missing[0].name}: {why}"
        err.warn(f"{plan.name}: {text}")


def _read_on_worker(
    plan: ConversionPlan,
    part: Sequence[RawVideo],
    progress: Progress,
    device: str,  # noqa: ARG001
) -> None:
    """Read the videos of a part into the spool, in a worker. Those that it cannot read now stay
    missing there, and the command that sent the part reads them.

    plan: without videos and their stamps.

    Raises PipelineError if this worker would read otherwise than the command that commits, for
    example because it has other files of the body model.
    """
    others = find_differences(
        plan.reader, reader_parts(plan.dataset, plan.split, plan.raw, plan.body, plan.selection)
    )
    if others:
        differences = "; ".join(map(str, others))
        raise PipelineError(f"this worker would read otherwise ({differences}). {SAME_FILES}")
    plan = replace(plan, stamps={video.name: changes.stamp(plan.raw, video) for video in part})
    read_here(plan, part, functools.partial(read_videos, plan, workers=1), progress)
