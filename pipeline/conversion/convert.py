"""Raw dataset -> committed rows, in parallel, resumable.  [raw -> tracks -> rows] -> features -> windows

Worker processes read videos; one process writes the rows in the order of the videos, so any number of workers gives the
same bytes. `pipeline.conversion.plan` makes the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cache
from pipeline.accounting import NOT_NOW, Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import command, count
from pipeline.conversion.committed import LET_GO, empty_lines, speed_of
from pipeline.conversion.doubts import Doubts
from pipeline.conversion.plan import ConversionPlan, plan_conversion
from pipeline.conversion.reading import LATER, UNEXPECTED, UNSETTLED, ReadVideo, read_videos
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.processes import MEMORY, TIMEOUT

__all__ = ["Conversion", "ConversionPlan", "convert", "plan_conversion", "refuse_committed_failures"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a conversion. `totals` cover all videos of the split, also those that were not read."""

    plan: ConversionPlan
    totals: Mapping[str, Any]
    rejected: tuple[VideoAccount, ...]  # failed videos of this run, unexpected errors first
    notes: tuple[str, ...] = ()  # on videos of this run: "<video>: <note>"
    doubts: tuple[str, ...] = ()  # the same on labels that may not belong to their images
    problems: tuple[str, ...] = ()  # why the command fails after the commit
    read: int = 0  # number of videos that were read, without those of other splits
    unchanged: int = 0  # number of videos that were not read again, without those of other splits
    uncounted: int = 0  # number of unreadable videos, whose frames are not in `totals`

    @property
    def did(self) -> str:
        """Summary if some videos were unchanged: `1 video read, 3 unchanged`; else ""."""
        if not self.plan.kept:
            return ""
        removed = [f"{len(self.plan.removed):,} removed"] if self.plan.removed else []
        return ", ".join([f"{count(self.read, 'video')} read", *removed, f"{self.unchanged:,} unchanged"])


def convert(
    plan: ConversionPlan,
    *,
    workers: int = 1,
    strict: bool = False,
    scheduler: str | None = None,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    progress: Progress = silent,
) -> Conversion:
    """Read the plan's videos and commit their rows. Killed and started again, it ends with the same bytes.

    If raw files have changed since a kill, only new and changed videos are read.

    Workers are `workers` local processes, or those of the Dask cluster at `scheduler`. A video that cannot be used is
    rejected with its reason, as is one at which a process crashes, makes no progress for `timeout` s, or needs more
    than `memory` bytes. `strict` raises PipelineError instead and commits nothing, also for an earlier rejection that
    stays; harmless reasons are allowed. A committed video that cannot be read or used any more keeps its rows.

    Raises cache.CacheError if another process writes the split, PipelineError if such a video needs another reader.
    """
    if strict:
        refuse_committed_failures(plan)
    has_body = plan.reader["body"] is not None
    target: dict[str, Any] = {"plan": plan.identity, "provenance": plan.provenance}
    target["columns"] = plan.dataset.columns(plan.split, body=has_body)
    target["extra"] = plan.dataset.extra_columns(plan.split, body=has_body)
    doubts, where = Doubts(plan, strict=strict), (workers, scheduler, timeout, memory)
    with cache.SplitWriter(plan.root, plan.name, **target) as writer:
        if writer.digest != ("" if plan.committed is None else plan.committed.manifest["digest"]):
            raise cache.CacheChanged(f"{plan.name}: another run has committed since the plan was made. Run it again.")
        keys = {video.name: plan.stamps[video.name] for video in plan.append}
        writer.begin(drop=plan.drop, invalidate=plan.invalidate, keys=keys)
        digests, measured, stay = _append_videos(
            plan, writer, lambda videos: read_videos(plan, doubts, videos, *where), strict=strict, progress=progress
        )
        accounts = _accounts(writer)
        totals = Accounting(accounts).totals(None if plan.reader["stand_in"] else plan.dataset.totals.get(plan.split))
        unusable = {name: a.rejection for name, a in stay.items() if _loses_rows(writer.committed_videos[name], a)}
        unsettled = {a.name for a in (*accounts, *stay.values()) if a.set_aside in UNSETTLED}
        seen = {name: (stamp, digests[name], "") for name, stamp in plan.stamps.items() if name not in unsettled}
        seen |= {name: plan.seen[name] for name in plan.unusable}
        seen |= {name: (seen.get(name, ("",))[0], digests[name], why) for name, why in unusable.items()}
        changes.write_stamps(plan.root, plan.name, seen)
        entries = {"reader": dict(plan.reader), "stand_in": plan.reader["stand_in"], "accounting": totals}
        entries["keypoints"] = plan.dataset.keypoints_from
        before = plan.committed.provenance if plan.committed is not None else {}
        writer.commit(entries, note={"measured": measured or speed_of(before)})
    plan = replace(plan, unusable={**plan.unusable, **unusable})
    appended = {video.name for video in plan.append}
    failed = [account for account in accounts if is_failure(plan.dataset, account)]
    rejected = [account for account in failed if account.name in appended - stay.keys()]
    rejected += [account for name, account in stay.items() if name not in unusable]
    n_unreadable = sum(account.set_aside == NOT_NOW for account in rejected)
    unreadable = [f"{plan.name}: {count(n_unreadable, 'video')} could not be read now. {LATER}"] if n_unreadable else []
    return Conversion(
        plan,
        totals,
        rejected=tuple(sorted(rejected, key=lambda account: account.set_aside != UNEXPECTED)),
        **doubts.notes(a for a in accounts if a.name in appended),
        problems=(*plan.kept_lines, *unreadable, *empty_lines(plan.name, totals, accounts)),
        read=sum(account.name in appended and not account.other_split for account in accounts),
        unchanged=sum(account.name not in appended and not account.other_split for account in accounts),
        uncounted=sum(not account.found for account in failed),
    )


def record_folders(plan: ConversionPlan) -> None:
    """Update the recorded raw and body folders of a split that is up to date."""
    assert plan.committed is not None, "nothing is committed yet"
    held: dict[str, Any] = {"columns": plan.committed.columns, "extra": plan.committed.extra.values()}
    with cache.SplitWriter(plan.root, plan.name, **held, plan=plan.identity, provenance=plan.provenance) as writer:
        writer.note_again()


def record_times(plan: ConversionPlan) -> str:
    """Record new file times of videos with unchanged content, for a split that is up to date.

    Returns a message; "" without any, or if the cache is read-only.
    """
    if not plan.touched:
        return ""
    digests = plan.digests()
    times = {name: (plan.stamps[name], digests[name], "") for name in plan.touched}
    try:
        changes.write_stamps(plan.root, plan.name, {**plan.seen, **times})
    except (OSError, cache.CacheError):
        return ""
    return f"new file times of {count(len(times), 'video')} recorded: the content has not changed"


def _append_videos(
    plan: ConversionPlan,
    writer: cache.SplitWriter,
    read: Callable[[Sequence[RawVideo]], Iterator[ReadVideo]],
    *,
    strict: bool,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, float], dict[str, VideoAccount]]:
    """Read and write the videos that a killed run has not written already.

    Returns the digest of every video of the split, the measured speed ({} without rows), and the accounts of committed
    videos that temporarily cannot be read and stay as they were.
    """
    began, rows, stay = time.monotonic(), 0, dict[str, VideoAccount]()
    digests = plan.digests() | writer.journalled
    if strict:
        _refuse_rejected(plan, (account for account in _accounts(writer) if account.name in writer.journalled))
    progress(len(writer.journalled), len(plan.append), "")
    todo = [video for video in plan.append if video.name not in writer.journalled]
    for n_done, (raw_video, video) in enumerate(zip(todo, read(todo), strict=True), len(writer.journalled) + 1):
        name = video.account.name
        if is_failure(plan.dataset, video.account) and changes.stamp(plan.raw, raw_video) != plan.stamps[name]:
            video.account.reject(NOT_NOW, f"{plan.raw}: files of {name} changed while they were read. {LATER}")
            video = ReadVideo(video.fingerprint, video.account)
        if strict:
            _refuse_rejected(plan, [video.account])
        committed = writer.committed_videos.get(name)
        if _stays(plan, video, committed):
            writer.keep(name)
            stay[name] = video.account
        else:
            writer.append(video.entry, video.tracks)
        digests[name] = video.fingerprint
        rows += sum(len(track.frame_index) for track in video.tracks)
        progress(n_done, len(plan.append), name)
    seconds = max(time.monotonic() - began, 1e-3)
    measured = {"seconds": round(seconds, 3), "rows": rows, "rows_a_second": round(rows / seconds, 2)} if rows else {}
    return digests, measured, stay


def _stays(plan: ConversionPlan, video: ReadVideo, committed: cache.VideoEntry | None) -> bool:
    """Whether a committed video stays as it is: it cannot be read now, fails as before, or would lose its rows.

    Raises PipelineError if it cannot stay, since all videos are read again.
    """
    account = video.account
    if committed is None or account.name not in plan.drop:
        return False
    same = committed.fingerprint == video.fingerprint
    if account.set_aside and same and VideoAccount.from_dict(dict(committed.account)) == account:
        return not plan.differs
    stays = account.set_aside == NOT_NOW
    if is_failure(plan.dataset, account) and not plan.drop_removed and _loses_rows(committed, account):
        stays |= (
            not (plan.differs and same) or account.set_aside in UNSETTLED
        )  # else the new reader refuses its content
    if (stays and plan.differs) or (plan.invalidate and not video.tracks):
        message = account.message or f"{account.name}: none of its rows is left."
        do = f" Restore it, or delete its rows: {LET_GO}" if plan.differs else ""
        raise PipelineError(f"{plan.name}: {message} Nothing was committed: its rows would be lost ({plan.why}).{do}")
    return stays


def _loses_rows(committed: cache.VideoEntry, account: VideoAccount) -> bool:
    """Whether a video has rows, and its content is rejected now."""
    return bool(committed.account.get("tracks_kept")) and account.set_aside != NOT_NOW


def _accounts(writer: cache.SplitWriter) -> list[VideoAccount]:
    return [VideoAccount.from_dict(dict(account)) for account in writer.accounts()]


def is_failure(dataset: Dataset, account: VideoAccount) -> bool:
    """Whether the video was rejected because of an error."""
    return bool(account.set_aside) and account.set_aside not in dataset.harmless


def refuse_committed_failures(plan: ConversionPlan) -> None:
    """Raise PipelineError for a committed video that was rejected because of an error and stays: `strict`."""
    if plan.committed is None:
        return
    for why in plan.unusable.values():
        raise PipelineError(f"{plan.name}: {why} (--strict: its rows are of an earlier state)")
    if plan.committed.manifest["accounting"]["videos"]["set_aside"].keys() <= plan.dataset.harmless:
        return
    drop = set(plan.drop)
    videos = (video for video in plan.committed.videos if video.name not in drop)
    accounts = (VideoAccount.from_dict(dict(video.account)) for video in videos)
    if failed := [account for account in accounts if is_failure(plan.dataset, account)]:
        more_text = f", and {len(failed) - 1:,} more" if len(failed) > 1 else ""
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        raise PipelineError(
            f"{plan.name}: {failed[0].message} (--strict: an earlier conversion rejected this video{more_text}) "
            f"Correct it, then: {again}"
        )


def _refuse_rejected(plan: ConversionPlan, accounts: Iterable[VideoAccount]) -> None:
    for account in accounts:
        if is_failure(plan.dataset, account):
            raise PipelineError(f"{plan.name}: {account.message} (--strict: nothing was committed)")
