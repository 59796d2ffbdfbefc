"""Convert: read the videos of a raw folder and commit their rows.  [raw -> tracks -> rows] ->
features -> windows

A `ConversionPlan` says which videos of a split are read and which are dropped
(`pipeline.steps.conversion.plan`). `convert` carries it out: worker processes read videos, and this
one writes their rows in the order of the videos, so any number of workers gives the same bytes. All
of it is one atomic commit; a killed run is continued. The result is a `Conversion`, from which the
commands print what happened. `record_moves` updates what is recorded about a split that has nothing
to convert.

Words:
    account     what became of one video: frames kept, dropped and why (`pipeline.accounting`)
    rejected    the whole video is left out, and its account says why: `account.set_aside`
    failed      rejected because of an error, not for lack of labels
    kept        why a committed video keeps rows that its files do not give now
                (`pipeline.steps.conversion.kept`)
    unsettled   rejected, now or earlier, for a reason of UNSETTLED: the next plan reads its content
                again
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

import cache
from pipeline.accounting import (
    NOT_NOW,
    OTHER_TRACK,
    UNSETTLED,
    Accounting,
    VideoAccount,
    assumption_lines,
    is_error,
)
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import FEW, command, count, few
from pipeline.clips.labels.label_files import labels_of
from pipeline.datasets.conversion_record import EARLIER_READER, LEAVE_OUT, LET_GO, ConversionRecord
from pipeline.errors import PipelineError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.settings import NO_CLUSTER, Dask
from pipeline.steps.conversion.doubts import Doubts
from pipeline.steps.conversion.identity import report_other_work
from pipeline.steps.conversion.kept import (
    UNUSABLE,
    Kept,
    n_undecodable,
    reasons_of_kind,
    refuse_other_tracks,
    why_kept,
    why_renamed_kept,
)
from pipeline.steps.conversion.parts import read_on_cluster, read_spooled
from pipeline.steps.conversion.plan import ConversionPlan, plan_conversion
from pipeline.steps.conversion.reading import LATER, UNEXPECTED, ReadVideo, attach_clips

__all__ = [
    "Conversion",
    "ConversionPlan",
    "convert",
    "plan_conversion",
    "refuse_committed_failures",
]
MIXED: Final = 1.5  # a window is this many times as long in one track as in another


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a conversion. `totals` cover all videos of the split, also those that were not
    read.
    """

    plan: ConversionPlan
    totals: Mapping[str, Any]
    rejected: tuple[VideoAccount, ...]  # failed videos of this run, unexpected errors first
    # on videos of this run: "<video>: <note>"; first on labels that may not belong to their images
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()  # `assumption_lines` of all videos of the split
    problems: tuple[str, ...] = ()  # why the command fails after the commit
    damaged: tuple[str, ...] = ()  # videos of this run with lost frames: "<video>: <remark>"
    n_read: int = 0  # videos that were read, without those of other splits
    n_unchanged: int = 0  # videos that were not read again, without those of other splits

    @property
    def video_counts(self) -> str:
        """How many videos were read and how many not, `1 video read, 3 unchanged`; "" if all were
        read.
        """
        if not self.plan.n_left_alone:
            return ""
        parts = [f"{count(self.n_read, 'video')} read"]
        n_removed = len(self.plan.removed)
        if n_removed:
            parts.append(f"{n_removed:,} removed")
        parts.append(f"{self.n_unchanged:,} unchanged")
        return ", ".join(parts)


def convert(
    plan: ConversionPlan,
    *,
    workers: int = 1,
    strict: bool = False,
    dask: Dask = NO_CLUSTER,
    progress: Progress = silent,
) -> Conversion:
    """Read the plan's videos and commit their rows.

    Called again after a kill, it continues, reads videos whose files have changed since then again,
    and ends with the same bytes. A video that cannot be used is rejected with its reason. A
    committed video that cannot be read or used any more, or would lose rows, keeps its rows.

    Args:
        workers: Number of processes of this machine. With the cluster `dask`, they only read videos
            that its workers cannot read.
        strict: Raise PipelineError for a video that was rejected because of an error, now or
            earlier, and commit nothing.

    Raises cache.CacheError if another process writes the split, PipelineError if a video should
    keep its rows and the columns change.
    """
    if strict:
        refuse_committed_failures(plan)
    has_body = plan.reader["body"] is not None
    columns = plan.dataset.columns(plan.split, body=has_body)
    extra = plan.dataset.extra_columns(plan.split, body=has_body)
    doubts = Doubts(plan, strict=strict)

    report_other_work(plan.root, plan.name, None, plan.staging)
    with _open_writer(plan, columns, extra) as writer:
        if writer.state.has_other_columns:
            _refuse_other_columns(plan.name, plan.why, plan.missing)
        following = _begin(plan, writer)
        finished = following.journalled
        if strict:
            done = [account for account in _accounts(following) if account.name in finished]
            _refuse_rejected(plan, done)
        progress(len(finished), len(plan.append), "")
        unfinished = (video for video in plan.append if video.name not in finished)
        todo = attach_clips(unfinished, plan.committed)
        if dask.scheduler is not None:
            read_on_cluster(plan, todo, workers, dask, progress)
        # the processes that read end before the split is unlocked
        with closing(doubts.watch(read_spooled(plan, todo, workers))) as videos:
            pairs = zip(todo, videos, strict=True)
            digests, kept = _append_videos(plan, following, pairs, strict=strict, progress=progress)
        kept |= _keep_renamed(plan, following)
        accounts = _accounts(following)
        _record_stamps(plan, digests, accounts, kept)
        published = plan.dataset.release.totals.get(plan.split)
        totals = Accounting(accounts).totals(None if plan.reader["stand_in"] else published)
        entries = _manifest_entries(plan, {*following.state.videos}, kept)
        following.commit({**entries, "accounting": totals})
    plan_after = replace(plan, kept={**plan.kept, **kept})
    return _summarize(plan_after, totals, accounts, doubts)


def _manifest_entries(
    plan: ConversionPlan, videos: Collection[str], kept: Collection[str]
) -> dict[str, Any]:
    """What the split's manifest says of its reader. videos: those of the earlier commit."""
    entries: dict[str, Any] = {
        "reader": dict(plan.reader),
        "stand_in": plan.reader["stand_in"],
        "keypoints": plan.dataset.labels.keypoints_from,
    }
    stay = {*videos} - {*plan.drop} | {*kept}
    earlier = stay
    if not plan.differs and plan.committed is not None:
        earlier = stay & ConversionRecord(plan.committed).earlier_reader
    if earlier:
        entries[EARLIER_READER] = sorted(earlier)
    return entries


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
    if writer.state.commit.digest != planned_digest:
        raise cache.CacheChanged(
            f"{plan.name}: another run has committed since the plan was made. Run it again."
        )
    keys = {video.name: plan.stamps[video.name] for video in plan.append}
    return writer.begin(drop=plan.drop, invalidate=plan.invalidate, keys=keys)


def _append_videos(
    plan: ConversionPlan,
    following: cache.NextCommit,
    videos: Iterable[tuple[RawVideo, ReadVideo]],
    *,
    strict: bool,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, Kept]]:
    """Write the videos that a killed run has not written already, as they are read.

    Returns two mappings by video name: the digest of every video of the split, and the committed
    videos that were read, and are kept.
    """
    kept: dict[str, Kept] = {}
    others = plan.others
    digests = plan.digests() | following.journalled
    for n_done, (raw_video, video) in enumerate(videos, len(following.journalled) + 1):
        account = video.account
        name = account.name
        committed = following.state.videos.get(name)
        if committed is not None and plan.committed is not None:
            refuse_other_tracks(plan.committed, committed, account)
        if strict:
            _refuse_rejected(plan, [account])
        stays = None
        if committed is not None and plan.committed is not None:
            lost = sum(video.lost.values())
            if lost and lost > n_undecodable(plan.committed, name):
                account = video.account_with_images
            stays = why_kept(
                committed,
                video.entry,
                account,
                labels_of(plan.raw, raw_video),
                others,
                drop_removed=plan.drop_removed,
                is_other_reader=bool(plan.differs),
            )
        if stays is None:
            following.append(video.entry, video.tracks)
        else:
            if following.state.has_other_columns:
                _refuse_other_columns(plan.name, plan.why, [stays.why])
            if strict and stays.kind == UNUSABLE:
                _refuse_strict(plan, stays.why)
            following.keep(name)
            kept[name] = stays
        digests[name] = video.fingerprint
        progress(n_done, len(plan.append), name)
    return digests, kept


def _keep_renamed(plan: ConversionPlan, following: cache.NextCommit) -> dict[str, Kept]:
    """Keep the rows of renamed videos that have none under their new names. Returns their old
    names.
    """
    kept: dict[str, Kept] = {}
    if plan.drop_removed or not plan.renamed:
        return kept
    account_of = {account.name: account for account in _accounts(following)}
    for name, old_name in plan.renamed.items():
        before = VideoAccount.from_dict(following.state.videos[old_name].account)
        stays = why_renamed_kept(name, account_of[name], before)
        if stays is not None:
            following.keep(old_name)
            kept[old_name] = stays
    return kept


def _accounts(following: cache.NextCommit) -> list[VideoAccount]:
    """The accounts of all videos that the next commit has so far."""
    return [*map(VideoAccount.from_dict, following.accounts())]


def _summarize(
    plan: ConversionPlan,
    totals: Mapping[str, Any],
    accounts: Sequence[VideoAccount],
    doubts: Doubts,
) -> Conversion:
    """The result of a commit.

    plan: with the videos that this run kept, too. accounts: of all videos of the commit.
    """
    names = {video.name for video in plan.append}
    appended = [account for account in accounts if account.name in names]
    n_read = sum(not account.other_split for account in appended)
    n_of_split = sum(not account.other_split for account in accounts)

    read = {account.name: account for account in appended}
    for name, video in plan.kept.items():
        if video.kind == NOT_NOW and video.account is not None:
            read[name] = video.account
    rejected = [account for account in read.values() if is_error(account.set_aside)]
    rejected.sort(key=lambda account: account.set_aside != UNEXPECTED)

    problems = [*plan.kept_lines]
    n_unreadable = sum(account.set_aside == NOT_NOW for account in rejected)
    if n_unreadable:
        n_videos = count(n_unreadable, "video")
        problems.append(f"{plan.name}: {n_videos} could not be read now. {LATER}")
    n_others = sum(account.set_aside == OTHER_TRACK for account in rejected)
    if n_others:
        n_videos = count(n_others, "video")
        problems.append(
            f"{plan.name}: {plan.selection.leave_out} has lines that fit no track of {n_videos}: "
            "what the cache has of them stays. Correct these lines."
        )
    split = cache.open(plan.root)[plan.name]
    notes = [*doubts.notes(appended)]
    if plan.selection.max_fps is None and n_read:
        notes += filter(None, [_mixed_rates_note(split)])
    if not totals["videos"]["kept"]:
        problems += ConversionRecord(split).why_empty()

    return Conversion(
        plan,
        totals,
        rejected=tuple(rejected),
        notes=tuple(notes),
        assumptions=tuple(assumption_lines(accounts)),
        damaged=tuple(_list_damage(appended)),
        problems=tuple(problems),
        n_read=n_read,
        n_unchanged=n_of_split - n_read,
    )


def _list_damage(accounts: Iterable[VideoAccount]) -> Iterator[str]:
    """A line about each video whose file has lost frames."""
    for account in accounts:
        record = ClipRecord.from_dict(account.clip)
        if record is not None and record.lost:
            yield f"{account.name}: {record.remarks()[0]}"


def record_moves(plan: ConversionPlan) -> list[str]:
    """Record the new places of the raw and body folders and of the list of tracks, and new file
    times of videos with unchanged content, for a split that is up to date.

    Returns messages; none if there is nothing new, or if the cache is read-only.
    """
    assert plan.committed is not None, "nothing is committed yet"
    lines = []
    columns = plan.committed.columns
    list_before = plan.committed.provenance.get(LEAVE_OUT, "")
    try:
        if plan.moved or list_before != plan.provenance[LEAVE_OUT]:
            with _open_writer(plan, columns, plan.committed.extra.values()) as writer:
                writer.note_again()
        if plan.moved:
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
    accounts: Iterable[VideoAccount],
    kept: Mapping[str, Kept],
) -> None:
    """Record which files each video was read from, so that the next plan can tell whether they have
    changed: none of an unsettled video, so that the next plan reads its content.

    digests: name -> digest. accounts: of the commit. kept: by this run.
    """
    outcomes = [*accounts, *(video.account for video in kept.values() if video.account)]
    unsettled = {account.name for account in outcomes if account.set_aside in UNSETTLED}
    unusable = reasons_of_kind(kept, UNUSABLE)
    seen = {name: plan.seen[name] for name in plan.unusable}  # not read by this run
    for name, stamp in plan.stamps.items():
        if name not in unsettled and name not in seen:
            seen[name] = changes.Seen(stamp, digests[name], unusable.get(name, ""))
    changes.write_stamps(plan.root, plan.name, seen)


def refuse_committed_failures(plan: ConversionPlan) -> None:
    """What `strict` asks of the videos that a plan does not read: raise PipelineError if one was
    rejected because of an error.
    """
    if plan.committed is None:
        return
    for why in plan.unusable.values():
        raise PipelineError(f"{plan.name}: {why} (--strict: its rows are of an earlier state)")
    failed = ConversionRecord(plan.committed).names_to_retry(retry=True) - {*plan.drop}
    if failed:
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        n_videos = count(len(failed), "video")
        raise PipelineError(
            f"{plan.name}: an earlier conversion rejected {n_videos}, first {min(failed)} "
            f"(--strict). Correct them, then: {again}"
        )


def _refuse_rejected(plan: ConversionPlan, accounts: Iterable[VideoAccount]) -> None:
    for account in accounts:
        if is_error(account.set_aside):
            _refuse_strict(plan, account.message)


def _refuse_strict(plan: ConversionPlan, why: str) -> None:
    raise PipelineError(f"{plan.name}: {why} (--strict: nothing was committed)")


def _refuse_other_columns(name: str, why: str, kept: Collection[str]) -> None:
    """Raise PipelineError if the columns of a split change because of `why`, and videos should be
    `kept`: their rows do not have the new columns.
    """
    if kept:
        first = "; ".join(few(sorted(kept), FEW, "plan --all"))
        raise PipelineError(
            f"{name}: the columns change ({why}), so all videos must be converted again, but files "
            f"of {count(len(kept), 'video')} are missing or damaged: {first} Nothing was "
            f"committed. Restore them, or delete their rows: {LET_GO}"
        )


def _mixed_rates_note(split: cache.Split) -> str:
    """A note that windows of the split last longer in some tracks than in others; "" if not."""
    fps = np.asarray(split.tracks.fps, np.float64) / np.asarray(split.tracks.step)
    rates = fps[np.isfinite(fps)]
    if not len(rates) or rates.max() <= MIXED * rates.min():
        return ""
    slowest = rates.min()
    fastest = rates.max()
    n_fast = count(int((rates > MIXED * slowest).sum()), "track")
    return (
        f"all videos: tracks have {slowest:.4g} to {fastest:.4g} rows a second, so windows of "
        f"equal length differ in time. [convert] max_fps = {math.ceil(slowest)} takes fewer rows "
        f"of the {n_fast} above {MIXED * slowest:.4g}"
    )
