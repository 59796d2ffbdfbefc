"""Convert: read the videos of a raw folder and commit their rows.  [raw -> tracks -> rows] ->
features -> windows

A `ConversionPlan` says which videos of a split are read and which are dropped
(`pipeline.conversion.plan`). `convert` carries it out: worker processes read videos, and this one
writes their rows in the order of the videos, so any number of workers gives the same bytes. All of
it is one atomic commit; a killed run is continued. The result is a `Conversion`, from which the
commands print what happened. `record_moves` updates what is recorded about a split that has nothing
to convert.

Words:
    account     what became of one video: frames kept, dropped and why (`pipeline.accounting`)
    rejected    the whole video is left out, and its account says why: `account.set_aside`
    failed      rejected because of an error, not for a reason that the dataset calls harmless
    stayed      a committed video that was read again, and keeps what the cache has of it: it was
                rejected now, or would lose rows (`staying.stays`)
    unusable    a video that stayed with rows, now or in an earlier run, which are of an earlier
                state of its files: not if it only could not be read at the moment
    unsettled   rejected, now or earlier, for a reason of UNSETTLED: the next plan reads its content
                again
    missing     a committed video that keeps rows which no file has now: its files are gone, or were
                renamed to a video without rows (`_keep_renamed`)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cache
from cache.format.layout import WRITING
from cache.write.parts import wait_for_parts
from pipeline.accounting import NOT_NOW, Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent, tell
from pipeline.cli.text import command, count
from pipeline.conversion.committed import (
    EARLIER_READER,
    earlier_reader,
    empty_lines,
    refuse_other_columns,
)
from pipeline.conversion.doubts import Doubts
from pipeline.conversion.other_work import report_other_work
from pipeline.conversion.plan import ConversionPlan, plan_conversion
from pipeline.conversion.reading import LATER, UNEXPECTED, UNSETTLED, ReadVideo, read_videos
from pipeline.conversion.spool import Spool
from pipeline.conversion.staying import loses_rows, stays, why_kept
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.pixels.clip_record import restore_record
from pipeline.files.raw import RawVideo, changes
from pipeline.processes import MEMORY, TIMEOUT
from pipeline.processes.settings import NO_CLUSTER, Dask

__all__ = [
    "Conversion",
    "ConversionPlan",
    "convert",
    "plan_conversion",
    "refuse_committed_failures",
]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a conversion. `totals` cover all videos of the split, also those that were not
    read.
    """

    plan: ConversionPlan
    totals: Mapping[str, Any]
    rejected: tuple[VideoAccount, ...]  # failed videos of this run, unexpected errors first
    notes: tuple[str, ...] = ()  # on videos of this run: "<video>: <note>"
    doubts: tuple[str, ...] = ()  # the same on labels that may not belong to their images
    problems: tuple[str, ...] = ()  # why the command fails after the commit
    damaged: tuple[str, ...] = ()  # videos of this run with lost frames: "<video>: <remark>"
    n_read: int = 0  # videos that were read, without those of other splits
    n_unchanged: int = 0  # videos that were not read again, without those of other splits
    n_uncounted: int = 0  # failed videos whose frames are unknown: not in `totals`

    @property
    def video_counts(self) -> str:
        """How many videos were read and how many not, `1 video read, 3 unchanged`; "" if all were
        read.
        """
        if not self.plan.kept:
            return ""
        parts = [f"{count(self.n_read, 'video')} read"]
        n_removed = len(self.plan.removed)
        if n_removed:
            parts.append(f"{n_removed:,} removed")
        parts.append(f"{self.n_unchanged:,} unchanged")
        return ", ".join(parts)

    @property
    def uncounted_note(self) -> str:
        """Note for the sum of frames: `; frames of 2 unreadable videos are not counted`, or ""."""
        if not self.n_uncounted:
            return ""
        return f"; frames of {count(self.n_uncounted, 'unreadable video')} are not counted"


def convert(
    plan: ConversionPlan,
    *,
    workers: int = 1,
    strict: bool = False,
    dask: Dask = NO_CLUSTER,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    progress: Progress = silent,
) -> Conversion:
    """Read the plan's videos and commit their rows.

    Called again after a kill, it continues, reads videos whose files have changed since then again,
    and ends with the same bytes. A video that cannot be used is rejected with its reason. A
    committed video that cannot be read or used any more, or would lose rows, keeps its rows.

    Args:
        workers: Number of local processes; not used with the cluster `dask`.
        strict: Raise PipelineError for a video that was rejected because of an error, now or
            earlier, and commit nothing.
        timeout: Seconds without progress after which a process is ended and its video rejected.
        memory: Bytes that a process may use before it is ended and its video rejected.

    Raises cache.CacheError if another process writes the split, PipelineError if a video should
    keep its rows and the columns change.
    """
    if strict:
        refuse_committed_failures(plan)
    has_body = plan.reader["body"] is not None
    columns = plan.dataset.columns(plan.split, body=has_body)
    extra = plan.dataset.extra_columns(plan.split, body=has_body)
    doubts = Doubts(plan, strict=strict)

    read_raw = functools.partial(
        read_videos, plan, workers=workers, dask=dask, timeout=timeout, memory=memory
    )

    def read(videos: Sequence[RawVideo]) -> Iterator[ReadVideo]:
        return doubts.watch(Spool(plan).read(videos, read_raw))

    wait_for_parts(plan.root, f"{plan.name}/{WRITING}", tell)
    report_other_work(plan.root, plan.name, None, plan.staging)
    with _open_writer(plan, columns, extra) as writer:
        if writer.state.has_other_columns:
            refuse_other_columns(plan.name, plan.why, plan.missing)
        following = _begin(plan, writer)
        digests, stayed = _append_videos(plan, following, read, strict=strict, progress=progress)
        without_rows = _keep_renamed(plan, following)
        accounts = _accounts(following)

        outcomes = [*accounts, *stayed.values()]
        unsettled = {account.name for account in outcomes if account.set_aside in UNSETTLED}
        unusable = _find_unusable(following, stayed)
        _record_stamps(plan, digests, unsettled, unusable)
        totals = _commit(plan, following, accounts, {*stayed, *without_rows})
    plan_after = replace(
        plan, unusable={**plan.unusable, **unusable}, missing={**plan.missing, **without_rows}
    )
    return _summarize(plan_after, totals, accounts, stayed, doubts)


def _open_writer(
    plan: ConversionPlan, columns: Collection[str], extra: Iterable[cache.ExtraColumn]
) -> cache.SplitWriter:
    return cache.SplitWriter(
        plan.root,
        plan.name,
        columns=columns,
        extra=extra,
        plan=plan.staging,
        provenance=plan.provenance,
    )


def _begin(plan: ConversionPlan, writer: cache.SplitWriter) -> cache.NextCommit:
    """Begin the next commit. Raises CacheChanged if the plan is older than the newest commit."""
    planned_digest = "" if plan.committed is None else plan.committed.manifest["digest"]
    if writer.state.digest != planned_digest:
        raise cache.CacheChanged(
            f"{plan.name}: another run has committed since the plan was made. Run it again."
        )
    keys = {video.name: plan.stamps[video.name] for video in plan.append}
    return writer.begin(drop=plan.drop, invalidate=plan.invalidate, keys=keys)


def _append_videos(
    plan: ConversionPlan,
    following: cache.NextCommit,
    read: Callable[[Sequence[RawVideo]], Iterator[ReadVideo]],
    *,
    strict: bool,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, VideoAccount]]:
    """Read and write the videos that a killed run has not written already.

    Returns two mappings by video name: the digest of every video of the split, and, of the
    committed videos that stayed, the account of their rejection now.
    """
    stayed: dict[str, VideoAccount] = {}
    finished = following.journalled
    digests = plan.digests() | finished
    if strict:
        earlier = [account for account in _accounts(following) if account.name in finished]
        _refuse_rejected(plan, earlier)
    n_done = len(finished)
    progress(n_done, len(plan.append), "")
    todo = [video for video in plan.append if video.name not in finished]
    for raw_video, video in zip(todo, read(todo), strict=True):
        account = video.account
        name = account.name
        failed = is_failure(plan.dataset, account)
        # A file that is being copied is no damaged one: it is read again, not judged.
        if failed and changes.stamp(plan.raw, raw_video) != plan.stamps[name]:
            message = f"{plan.raw}: files of {name} changed while they were read. {LATER}"
            account.reject(NOT_NOW, message)
            video = ReadVideo(video.fingerprint, account)
        if strict:
            _refuse_rejected(plan, [account])
        committed = following.state.videos.get(name)
        if committed is not None and stays(plan, raw_video, video, committed):
            account = video.account_with_images
            if following.state.has_other_columns:
                refuse_other_columns(plan.name, plan.why, [why_kept(account, committed)])
            if strict and loses_rows(account, committed):
                _refuse_strict(plan, why_kept(account, committed))
            following.keep(name)
            stayed[name] = account
        else:
            following.append(video.entry, video.tracks)
        digests[name] = video.fingerprint
        n_done += 1
        progress(n_done, len(plan.append), name)
    return digests, stayed


def _find_unusable(
    following: cache.NextCommit, stayed: Mapping[str, VideoAccount]
) -> dict[str, str]:
    """Unusable video -> why its rows are kept. stayed: name -> account of the reading now."""
    unusable = {}
    for name, account in stayed.items():
        committed = following.state.videos[name]
        if loses_rows(account, committed) and account.set_aside != NOT_NOW:
            unusable[name] = why_kept(account, committed)
    return unusable


def _keep_renamed(plan: ConversionPlan, following: cache.NextCommit) -> dict[str, str]:
    """Keep the rows of renamed videos that have none under their new names, such as clips that
    were renamed without their keypoint file.

    Returns their old names -> their new names and why, as `ConversionPlan.missing`.
    """
    without_rows: dict[str, str] = {}
    if plan.drop_removed or not plan.renamed:
        return without_rows
    now = {account.name: account for account in _accounts(following)}
    for name, old_name in plan.renamed.items():
        had_rows = following.state.videos[old_name].account["tracks_kept"]
        if had_rows and not now[name].tracks_kept:
            why = f": {now[name].set_aside}" if now[name].set_aside else ""
            without_rows[old_name] = f"rows under its new name {name}{why}"
            following.keep(old_name)
    return without_rows


def _accounts(following: cache.NextCommit) -> list[VideoAccount]:
    """The accounts of all videos that the next commit has so far."""
    return [*map(VideoAccount.from_dict, following.accounts())]


def _commit(
    plan: ConversionPlan,
    following: cache.NextCommit,
    accounts: list[VideoAccount],
    kept: Collection[str],
) -> dict[str, Any]:
    """Commit the rows. Returns the totals of the accounts. kept: videos of `plan.drop` that keep
    their rows.
    """
    stand_in = plan.reader["stand_in"]
    published = None if stand_in else plan.dataset.totals.get(plan.split)
    totals = Accounting(accounts).totals(published)
    entries = {
        "reader": dict(plan.reader),
        "stand_in": stand_in,
        "accounting": totals,
        "keypoints": plan.dataset.keypoints_from,
    }
    stay = {*following.state.videos.keys() - {*plan.drop}, *kept}
    earlier = stay if plan.differs else stay & earlier_reader(plan.committed)
    if earlier:
        entries[EARLIER_READER] = sorted(earlier)
    following.commit(entries)
    return totals


def _summarize(
    plan: ConversionPlan,
    totals: Mapping[str, Any],
    accounts: Sequence[VideoAccount],
    stayed: Mapping[str, VideoAccount],
    doubts: Doubts,
) -> Conversion:
    """The result of a commit.

    plan: with the unusable and missing videos of this run, too. accounts: of all videos of the
    commit. stayed: name -> account of the rejection now, of committed videos that stayed.
    """
    names = {video.name for video in plan.append}
    appended = [account for account in accounts if account.name in names]
    n_read = sum(not account.other_split for account in appended)
    n_of_split = sum(not account.other_split for account in accounts)

    failed = [account for account in accounts if is_failure(plan.dataset, account)]
    written = names - stayed.keys()
    rejected = [account for account in failed if account.name in written]
    # unusable videos are in `kept_lines`
    rejected += [account for name, account in stayed.items() if name not in plan.unusable]
    rejected.sort(key=lambda account: account.set_aside != UNEXPECTED)

    problems = [*plan.kept_lines]
    n_unreadable = sum(account.set_aside == NOT_NOW for account in rejected)
    if n_unreadable:
        n_videos = count(n_unreadable, "video")
        problems.append(f"{plan.name}: {n_videos} could not be read now. {LATER}")
    problems += empty_lines(plan.name, totals, accounts)

    doubtful, notes = doubts.notes(appended)
    return Conversion(
        plan,
        totals,
        rejected=tuple(rejected),
        notes=notes,
        doubts=doubtful,
        damaged=tuple(_list_damage(appended)),
        problems=tuple(problems),
        n_read=n_read,
        n_unchanged=n_of_split - n_read,
        n_uncounted=sum(not account.found for account in failed),
    )


def _list_damage(accounts: Iterable[VideoAccount]) -> Iterator[str]:
    """A line about each video whose file has lost frames."""
    for account in accounts:
        record = restore_record(account.clip)
        if record is not None and record.lost:
            yield f"{account.name}: {record.remarks()[0]}"


def record_moves(plan: ConversionPlan) -> list[str]:
    """Record the new places of the raw and body folders, and new file times of videos with
    unchanged content, for a split that is up to date.

    Returns messages; none if there is nothing new, or if the cache is read-only.
    """
    assert plan.committed is not None, "nothing is committed yet"
    lines = []
    columns = plan.committed.columns
    try:
        if plan.moved:
            with _open_writer(plan, columns, plan.committed.extra.values()) as writer:
                writer.note_again()
            lines.append(f"recorded the new raw folder {plan.raw}")
        if plan.touched:
            _record_stamps(plan, plan.digests(), (), {})
    except (OSError, cache.CacheError):
        return lines
    if plan.touched:
        n_videos = count(len(plan.touched), "video")
        lines.append(f"new file times of {n_videos} recorded: the content has not changed")
    return lines


def _record_stamps(
    plan: ConversionPlan,
    digests: Mapping[str, str],
    unsettled: Collection[str],
    unusable: Mapping[str, str],
) -> None:
    """Record which files each video was read from, so that the next plan can tell whether they have
    changed.

    digests: name -> digest. unsettled: videos of which nothing is recorded, so that the next plan
    reads their content. unusable: committed videos that stayed and have rows -> their rejection.
    """
    seen = {
        name: changes.Seen(stamp, digests[name], unusable="")
        for name, stamp in plan.stamps.items()
        if name not in unsettled
    }
    # those that were unusable before this run, and were not read again
    seen |= {name: plan.seen[name] for name in plan.unusable}
    for name, why in unusable.items():
        stamp = seen[name].stamp if name in seen else ""
        seen[name] = changes.Seen(stamp, digests[name], why)
    changes.write_stamps(plan.root, plan.name, seen)


def is_failure(dataset: Dataset, account: VideoAccount) -> bool:
    """Whether the video was rejected because of an error, and not for a reason that is normal for
    the dataset, such as images without labels.
    """
    return bool(account.set_aside) and account.set_aside not in dataset.harmless


def refuse_committed_failures(plan: ConversionPlan) -> None:
    """What `strict` asks of the videos that a plan does not read: raise PipelineError if one was
    rejected because of an error.
    """
    if plan.committed is None:
        return
    for why in plan.unusable.values():
        raise PipelineError(f"{plan.name}: {why} (--strict: its rows are of an earlier state)")
    if plan.committed.manifest["accounting"]["videos"]["set_aside"].keys() <= plan.dataset.harmless:
        return
    drop = set(plan.drop)
    videos = (video for video in plan.committed.videos if video.name not in drop)
    accounts = (VideoAccount.from_dict(video.account) for video in videos)
    failed = [account for account in accounts if is_failure(plan.dataset, account)]
    if failed:
        n_more = len(failed) - 1
        more = f", and {n_more:,} more" if n_more else ""
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        raise PipelineError(
            f"{plan.name}: {failed[0].message} (--strict: an earlier conversion rejected this "
            f"video{more}) Correct it, then: {again}"
        )


def _refuse_rejected(plan: ConversionPlan, accounts: Iterable[VideoAccount]) -> None:
    for account in accounts:
        if is_failure(plan.dataset, account):
            _refuse_strict(plan, account.message)


def _refuse_strict(plan: ConversionPlan, why: str) -> None:
    raise PipelineError(f"{plan.name}: {why} (--strict: nothing was committed)")
