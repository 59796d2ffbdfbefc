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
    kept        committed videos that keep their rows, whatever their files give now
                (`pipeline.steps.conversion.keep`)
    unsettled   rejected, now or earlier, for a reason of UNSETTLED: the next plan reads its content
                again
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
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
from pipeline.cli.text import FEW, command, count, few, first_few
from pipeline.clips.labels.label_files import labels_of
from pipeline.datasets.conversion_record import EARLIER_READER, LEAVE_OUT, LET_GO, ConversionRecord
from pipeline.errors import PipelineError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.settings import NO_CLUSTER, Dask
from pipeline.steps.conversion.doubts import Doubts
from pipeline.steps.conversion.identity import report_other_work
from pipeline.steps.conversion.keep import (
    Kind,
    NotThere,
    RowsBefore,
    RowsNow,
    keep,
)
from pipeline.steps.conversion.parts import read_on_cluster, read_spooled
from pipeline.steps.conversion.plan import ConversionPlan, plan_conversion
from pipeline.steps.conversion.reading import LATER, UNEXPECTED, ReadVideo, attach_clips
from pipeline.steps.conversion.rereading import describe_now, refuse_other_tracks

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
        if self.plan.removed:
            parts.append(f"{len(self.plan.removed):,} removed")
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
    n_gone = Counter[str]()

    report_other_work(plan.root, plan.name, None, plan.staging)
    with _open_writer(plan, columns, extra) as writer:
        if writer.state.has_other_columns:
            _refuse_other_columns(plan, plan.missing)
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
            digests, kept = _append_videos(
                plan, following, pairs, n_gone, strict=strict, progress=progress
            )
        _count_gone_before(plan, following, n_gone)
        kept |= _keep_renamed(plan, following, kept)
        accounts = _accounts(following)
        _record_stamps(plan, digests, accounts, kept)
        published = plan.dataset.release.totals.get(plan.split)
        totals = Accounting(accounts).totals(None if plan.reader["stand_in"] else published)
        entries = _manifest_entries(plan, {*following.state.videos}, kept)
        following.commit({**entries, "accounting": totals})
    plan = replace(plan, kept={**plan.kept, **kept})
    return _summarize(plan, totals, accounts, n_gone, doubts)


def _manifest_entries(
    plan: ConversionPlan, videos: Collection[str], kept: Collection[str]
) -> dict[str, Any]:
    """What the split's manifest says of its reader. videos: those of the earlier commit."""
    entries: dict[str, Any] = {
        "reader": dict(plan.reader),
        "stand_in": plan.reader["stand_in"],
        "keypoints": plan.dataset.labels.keypoints_from,
    }
    earlier = {*videos} - {*plan.drop} | {*kept}
    if not plan.differs and plan.committed is not None:
        earlier &= ConversionRecord(plan.committed).earlier_reader
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
    stamps = {video.name: plan.stamps[video.name] for video in plan.append}
    return writer.begin(plan.drop, invalidate=plan.invalidate, keys=stamps)


def _append_videos(
    plan: ConversionPlan,
    following: cache.NextCommit,
    videos: Iterable[tuple[RawVideo, ReadVideo]],
    n_gone: Counter[str],
    *,
    strict: bool,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, RowsBefore]]:
    """Write the videos that a killed run has not written already, as they are read.

    Returns two mappings by video name: the digest of every video of the split, and the committed
    videos that were read, and keep their rows. n_gone: gets `RowsNow.n_gone` of the others.
    """
    others = plan.others
    by_earlier_reader = frozenset[str]()
    if plan.committed is not None:
        by_earlier_reader = ConversionRecord(plan.committed).earlier_reader
    digests = plan.digests() | following.journalled
    kept = {}
    for n_done, (raw_video, video) in enumerate(videos, len(following.journalled) + 1):
        name = video.account.name
        committed = following.state.videos.get(name)
        answer: RowsNow | RowsBefore = RowsNow()
        if committed is not None and plan.committed is not None:
            refuse_other_tracks(plan.committed, committed, video.account)
            before = VideoAccount.from_dict(committed.account)
            labels = labels_of(plan.raw, raw_video)
            now = describe_now(video, plan.committed, committed, before, labels, others)
            may_go = plan.may_go
            if name in by_earlier_reader:
                may_go = may_go._replace(other_reader=True)
            answer = keep(before, now, may_go)
        if strict:
            _refuse_rejected(plan, [video.account])
        if isinstance(answer, RowsBefore):
            if following.state.has_other_columns:
                _refuse_other_columns(plan, [answer.why])
            if strict and answer.kind == Kind.UNUSABLE:
                _refuse_strict(plan, answer.why)
            following.keep(name)
            kept[name] = answer
        elif video.account.set_aside and committed == video.entry and not plan.differs:
            following.keep(name)  # the same reader rejects the same content
        else:
            following.append(video.entry, video.tracks)
            if answer.n_gone:
                n_gone[name] = answer.n_gone
        digests[name] = video.fingerprint
        progress(n_done, len(plan.append), name)
    return digests, kept


def _count_gone_before(
    plan: ConversionPlan, following: cache.NextCommit, n_gone: Counter[str]
) -> None:
    """Count rows of unchanged files that another reader has dropped in a run that was killed."""
    if not plan.differs or plan.may_go.drop:
        return
    for account in _accounts(following):
        committed = following.state.videos.get(account.name)
        digest = following.journalled.get(account.name)
        if committed is not None and committed.fingerprint == digest:
            n_less = VideoAccount.from_dict(committed.account).read - account.read
            if n_less > 0:
                n_gone[account.name] = n_less


def _keep_renamed(
    plan: ConversionPlan, following: cache.NextCommit, not_taken: Collection[str]
) -> dict[str, RowsBefore]:
    """Keep the rows of renamed videos that have none under their new names, such as a clip that was
    renamed without its keypoint file. Returns their old names.

    not_taken: videos that keep their earlier rows, so that nothing is taken from their files.
    """
    kept: dict[str, RowsBefore] = {}
    if not plan.renamed:  # no look at every account, of which there may be 400,000
        return kept
    for account in _accounts(following):
        old_name = plan.renamed.get(account.name)
        if old_name is None or (account.tracks_kept and account.name not in not_taken):
            continue
        why = f": {account.set_aside}" if account.set_aside else ""
        now = NotThere(f"rows under its new name {account.name}{why}")
        before = VideoAccount.from_dict(following.state.videos[old_name].account)
        answer = keep(before, now, plan.may_go)
        if isinstance(answer, RowsBefore):
            if following.state.has_other_columns:
                _refuse_other_columns(plan, [answer.why])
            following.keep(old_name)
            kept[old_name] = answer
    return kept


def _accounts(following: cache.NextCommit) -> list[VideoAccount]:
    """The accounts of all videos that the next commit has so far."""
    return [*map(VideoAccount.from_dict, following.accounts())]


def _summarize(
    plan: ConversionPlan,
    totals: Mapping[str, Any],
    accounts: Sequence[VideoAccount],
    n_gone: Counter[str],
    doubts: Doubts,
) -> Conversion:
    """The result of a commit.

    plan: with the videos that this run kept, too. accounts: of all videos of the commit.
    n_gone: as in `_append_videos`.
    """
    names = {video.name for video in plan.append}
    appended = [account for account in accounts if account.name in names]
    n_read = sum(not account.other_split for account in appended)
    n_of_split = sum(not account.other_split for account in accounts)

    read = {account.name: account for account in appended}
    for name, stays in plan.kept.items():
        if stays.kind == Kind.NOT_NOW and stays.account is not None:
            read[name] = stays.account
    rejected = [account for account in read.values() if is_error(account.set_aside)]
    rejected.sort(key=lambda account: account.set_aside != UNEXPECTED)

    problems = [*plan.kept_lines]
    reasons = Counter(account.set_aside for account in rejected)
    if reasons[NOT_NOW]:
        n_videos = count(reasons[NOT_NOW], "video")
        problems.append(f"{plan.name}: {n_videos} could not be read now. {LATER}")
    if reasons[OTHER_TRACK]:
        n_videos = count(reasons[OTHER_TRACK], "video")
        problems.append(
            f"{plan.name}: {plan.selection.leave_out} has lines that fit no track of {n_videos}: "
            "what the cache has of them stays. Correct these lines."
        )
    split = cache.open(plan.root)[plan.name]
    notes = [*_note_gone(n_gone), *doubts.notes(appended)]
    if plan.selection.max_fps is None and n_read:
        notes += _note_mixed_rates(split)
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
    with suppress(OSError, cache.CacheError):
        if plan.moved or list_before != plan.provenance[LEAVE_OUT]:
            with _open_writer(plan, columns, plan.committed.extra.values()) as writer:
                writer.note_again()
        if plan.moved:
            lines.append(f"recorded the new raw folder {plan.raw}")
        if plan.touched:
            _record_stamps(plan, plan.digests(), (), {})
            n_videos = count(len(plan.touched), "video")
            lines.append(f"new file times of {n_videos} recorded: the content has not changed")
    return lines


def _record_stamps(
    plan: ConversionPlan,
    digests: Mapping[str, str],
    accounts: Iterable[VideoAccount],
    kept: Mapping[str, RowsBefore],
) -> None:
    """Record which files each video was read from, so that the next plan can tell whether they have
    changed: none of an unsettled video, so that the next plan reads its content.

    digests: name -> digest. accounts: of the commit. kept: by this run.
    """
    outcomes = [*accounts, *(stays.account for stays in kept.values() if stays.account)]
    unsettled = {account.name for account in outcomes if account.set_aside in UNSETTLED}
    seen = {name: plan.seen[name] for name in plan.unusable}  # not read by this run
    for name, stamp in plan.stamps.items():
        if name not in unsettled and name not in seen:
            stays = kept.get(name)
            unusable = ("", False) if stays is None else (stays.why, stays.may_have_moved)
            seen[name] = changes.Seen(stamp, digests[name], *unusable)
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


def _refuse_other_columns(plan: ConversionPlan, kept: Collection[str]) -> None:
    """Raise PipelineError if videos should be `kept`, whose rows do not have the new columns."""
    if kept:
        first = "; ".join(few(sorted(kept), FEW, "plan --all"))
        raise PipelineError(
            f"{plan.name}: the columns change ({plan.why}), so all videos must be converted "
            f"again, but files of {count(len(kept), 'video')} are missing or damaged: {first} "
            f"Nothing was committed. Restore them, or delete their rows: {LET_GO}"
        )


def _note_gone(n_gone: Counter[str]) -> Iterator[str]:
    """Yield a note on rows that another reader drops, of files that have not changed."""
    if n_gone:
        rows = count(n_gone.total(), "row")
        yield f"all videos: this reader drops {rows} of unchanged files: {first_few([*n_gone])}"


def _note_mixed_rates(split: cache.Split) -> Iterator[str]:
    """Yield a note if windows of the split last longer in some tracks than in others."""
    fps = np.asarray(split.tracks.fps, np.float64) / np.asarray(split.tracks.step)
    rates = fps[np.isfinite(fps)]
    if not len(rates) or rates.max() <= MIXED * rates.min():
        return
    slowest = rates.min()
    fastest = rates.max()
    n_fast = count(int((rates > MIXED * slowest).sum()), "track")
    yield (
        f"all videos: tracks have {slowest:.4g} to {fastest:.4g} rows a second, so windows of "
        f"equal length differ in time. [convert] max_fps = {math.ceil(slowest)} takes fewer rows "
        f"of the {n_fast} above {MIXED * slowest:.4g}"
    )
