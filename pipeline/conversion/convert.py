"""Raw dataset -> committed rows, in parallel, resumable.  [raw -> tracks -> rows] -> features ->
windows

Worker processes read videos; one process writes the rows in the order of the videos, so any number
of workers gives the same bytes. `pipeline.conversion.plan` makes the plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

import cache
from cache.format.layout import WRITING
from cache.write.parts import wait_for_parts
from pipeline.accounting import NOT_NOW, Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent, tell
from pipeline.cli.text import command, count
from pipeline.clips.files import labels_of
from pipeline.conversion.committed import LET_GO, empty_lines
from pipeline.conversion.other_work import report_other_work
from pipeline.conversion.plan import ConversionPlan, plan_conversion
from pipeline.conversion.reading import LATER, UNEXPECTED, UNSETTLED, ReadVideo, Spool, read_videos
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.pixels.clip_record import record_from
from pipeline.files.raw import RawVideo, changes
from pipeline.processes import MEMORY, NO_CLUSTER, TIMEOUT, Dask

__all__ = [
    "Conversion",
    "ConversionPlan",
    "convert",
    "plan_conversion",
    "refuse_committed_failures",
]

FEWEST: Final = 5  # videos; fewer prove nothing about the size of all images
SAMPLED: Final = 64  # about so many frames of a track
REACH: Final = 0.98  # share of a video's joints that count
LEAST_REACH: Final = 0.7  # of an image's width or height: joints of some video reach further
MOST_REACH: Final = 1.1
BEYOND: Final = 0.1  # of the videos


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
    read: int = 0  # number of videos that were read, without those of other splits
    unchanged: int = 0  # number of videos that were not read again, without those of other splits
    uncounted: int = 0  # number of unreadable videos, whose frames are not in `totals`

    @property
    def did(self) -> str:
        """Summary if some videos were unchanged: `1 video read, 3 unchanged`; else ""."""
        if not self.plan.kept:
            return ""
        parts = [f"{count(self.read, 'video')} read"]
        n_removed = len(self.plan.removed)
        if n_removed:
            parts.append(f"{n_removed:,} removed")
        parts.append(f"{self.unchanged:,} unchanged")
        return ", ".join(parts)

    @property
    def not_counted(self) -> str:
        """Note for the sum of frames: `; frames of 2 unreadable videos are not counted`, or ""."""
        if not self.uncounted:
            return ""
        return f"; frames of {count(self.uncounted, 'unreadable video')} are not counted"


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
    """Read the plan's videos and commit their rows. Killed and started again, it ends with the same
    bytes.

    If raw files have changed since a kill, only new and changed videos are read.

    Workers are `workers` local processes, or those of a Dask cluster. A video that cannot be used
    is rejected with its reason, as is one at which a process crashes, makes no progress for
    `timeout` s, or needs more than `memory` bytes. `strict` raises PipelineError instead and
    commits nothing, also for an earlier rejection that stays; harmless reasons are allowed. A
    committed video that cannot be read or used any more keeps its rows.

    Raises cache.CacheError if another process writes the split, PipelineError if such a video needs
    another reader.
    """
    if strict:
        refuse_committed_failures(plan)
    has_body = plan.reader["body"] is not None
    columns = plan.dataset.columns(plan.split, body=has_body)
    extra = plan.dataset.extra_columns(plan.split, body=has_body)
    doubts = _Doubts(plan, strict=strict)

    read_raw = functools.partial(
        read_videos, plan, workers=workers, dask=dask, timeout=timeout, memory=memory
    )

    def read(videos: Sequence[RawVideo]) -> Iterator[ReadVideo]:
        return doubts.watch(Spool(plan).read(videos, read_raw))

    wait_for_parts(plan.root, f"{plan.name}/{WRITING}", tell)
    report_other_work(plan.root, plan.name, None, plan.staging)
    with _open_writer(plan, columns, extra) as writer:
        planned_digest = "" if plan.committed is None else plan.committed.manifest["digest"]
        if writer.digest != planned_digest:
            raise cache.CacheChanged(
                f"{plan.name}: another run has committed since the plan was made. Run it again."
            )
        keys = {video.name: plan.stamps[video.name] for video in plan.append}
        writer.begin(drop=plan.drop, invalidate=plan.invalidate, keys=keys)
        digests, stay = _append_videos(plan, writer, read, strict=strict, progress=progress)
        bare = _keep_renamed(plan, writer)
        accounts = _accounts(writer)
        unusable = {}
        for name, account in stay.items():
            if _loses_rows(writer.committed_videos[name], account):
                unusable[name] = account.rejection
        unsettled = {a.name for a in [*accounts, *stay.values()] if a.set_aside in UNSETTLED}
        _record_stamps(plan, digests, unsettled, unusable)
        totals = _commit(plan, writer, accounts)
    plan = replace(plan, unusable={**plan.unusable, **unusable}, missing={**plan.missing, **bare})
    return _summarize(plan, totals, accounts, stay, doubts)


def _commit(
    plan: ConversionPlan, writer: cache.SplitWriter, accounts: list[VideoAccount]
) -> dict[str, Any]:
    """Commit the rows. Returns the totals of the accounts."""
    stand_in = plan.reader["stand_in"]
    published = None if stand_in else plan.dataset.totals.get(plan.split)
    totals = Accounting(accounts).totals(published)
    entries = {
        "reader": dict(plan.reader),
        "stand_in": stand_in,
        "accounting": totals,
        "keypoints": plan.dataset.keypoints_from,
    }
    writer.commit(entries)
    return totals


def _summarize(
    plan: ConversionPlan,
    totals: Mapping[str, Any],
    accounts: Sequence[VideoAccount],
    stay: Mapping[str, VideoAccount],
    doubts: _Doubts,
) -> Conversion:
    """Result of a commit with these accounts. `stay`: accounts of committed videos that stay as
    they were.
    """
    names = {video.name for video in plan.append}
    appended = [account for account in accounts if account.name in names]
    n_read = sum(not account.other_split for account in appended)
    n_of_split = sum(not account.other_split for account in accounts)

    failed = [account for account in accounts if is_failure(plan.dataset, account)]
    rejected = [account for account in failed if account.name in names - stay.keys()]
    rejected += [account for name, account in stay.items() if name not in plan.unusable]
    rejected.sort(key=lambda account: account.set_aside != UNEXPECTED)

    problems = plan.kept_lines
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
        damaged=tuple(_damaged(appended)),
        problems=tuple(problems),
        read=n_read,
        unchanged=n_of_split - n_read,
        uncounted=sum(not account.found for account in failed),
    )


def _damaged(accounts: Iterable[VideoAccount]) -> Iterator[str]:
    for account in accounts:
        record = record_from(account.clip)
        if record is not None and record.lost:
            yield f"{account.name}: {record.remarks()[0]}"


def record_folders(plan: ConversionPlan) -> None:
    """Update the recorded raw and body folders of a split that is up to date."""
    assert plan.committed is not None, "nothing is committed yet"
    with _open_writer(plan, plan.committed.columns, plan.committed.extra.values()) as writer:
        writer.note_again()


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


def record_times(plan: ConversionPlan) -> str:
    """Record new file times of videos with unchanged content, for a split that is up to date.

    Returns a message; "" without any, or if the cache is read-only.
    """
    if not plan.touched and plan.kept_lines:
        return ""
    try:
        _record_stamps(plan, plan.digests(), (), {})
    except (OSError, cache.CacheError):
        return ""
    if not plan.touched:  # the commit of an earlier version has no seal
        return ""
    n_videos = count(len(plan.touched), "video")
    return f"new file times of {n_videos} recorded: the content has not changed"


def _record_stamps(
    plan: ConversionPlan,
    digests: Mapping[str, str],
    unsettled: Collection[str],
    unusable: Mapping[str, str],
) -> None:
    """Record the files that were read for each video, except `unsettled` ones; `unusable`: name ->
    rejection.
    """
    if plan.sealed:
        return
    seen = {
        name: changes.Seen(stamp, digests[name], unusable="")
        for name, stamp in plan.stamps.items()
        if name not in unsettled
    }
    seen |= {name: plan.seen[name] for name in plan.unusable}
    for name, why in unusable.items():
        stamp = seen[name].stamp if name in seen else ""
        seen[name] = changes.Seen(stamp, digests[name], why)
    changes.write_stamps(plan.root, plan.name, plan.raw, plan.listed, seen)


def _append_videos(
    plan: ConversionPlan,
    writer: cache.SplitWriter,
    read: Callable[[Sequence[RawVideo]], Iterator[ReadVideo]],
    *,
    strict: bool,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, VideoAccount]]:
    """Read and write the videos that a killed run has not written already.

    Returns the digest of every video of the split, and the accounts of committed videos that
    temporarily cannot be read and stay as they were.
    """
    stay: dict[str, VideoAccount] = {}
    journalled = writer.journalled
    digests = plan.digests() | journalled
    if strict:
        _refuse_rejected(plan, (a for a in _accounts(writer) if a.name in journalled))
    n_done = len(journalled)
    progress(n_done, len(plan.append), "")
    todo = [video for video in plan.append if video.name not in journalled]
    for raw_video, video in zip(todo, read(todo), strict=True):
        account = video.account
        name = account.name
        failed = is_failure(plan.dataset, account)
        if failed and changes.stamp(plan.raw, raw_video) != plan.stamps[name]:
            message = f"{plan.raw}: files of {name} changed while they were read. {LATER}"
            account.reject(NOT_NOW, message)
            video = ReadVideo(video.fingerprint, account)
        if strict:
            _refuse_rejected(plan, [account])
        if _stays(plan, video, writer.committed_videos.get(name)):
            writer.keep(name)
            stay[name] = account
        else:
            writer.append(video.entry, video.tracks)
        digests[name] = video.fingerprint
        n_done += 1
        progress(n_done, len(plan.append), name)
    return digests, stay


def _stays(plan: ConversionPlan, video: ReadVideo, committed: cache.VideoEntry | None) -> bool:
    """Whether a committed video stays as it is: it cannot be read now, fails as before, or would
    lose its rows.

    Raises PipelineError if it cannot stay, since all videos are read again.
    """
    account = video.account
    if committed is None or account.name not in plan.drop:
        return False
    same = committed.fingerprint == video.fingerprint
    if account.set_aside and same:
        if VideoAccount.from_dict(committed.account) == account:
            return not plan.differs
    stays = account.set_aside == NOT_NOW
    fails_now = is_failure(plan.dataset, account) and _loses_rows(committed, account)
    if fails_now and not plan.drop_removed:
        refused_by_new_reader = plan.differs and same
        if account.set_aside in UNSETTLED or not refused_by_new_reader:
            stays = True
    would_change = stays and plan.differs
    leaves_no_row = plan.invalidate and not video.tracks
    if would_change or leaves_no_row:
        message = account.message or f"{account.name}: none of its rows is left."
        do = f" Restore it, or delete its rows: {LET_GO}" if plan.differs else ""
        raise PipelineError(
            f"{plan.name}: {message} Nothing was committed: its rows would be lost "
            f"({plan.why}).{do}"
        )
    return stays


def _loses_rows(committed: cache.VideoEntry, account: VideoAccount) -> bool:
    """Whether a video has rows, and its content is rejected now."""
    return bool(committed.account.get("tracks_kept")) and account.set_aside != NOT_NOW


def _keep_renamed(plan: ConversionPlan, writer: cache.SplitWriter) -> dict[str, str]:
    """Keep renamed videos with rows that have none under their new names, such as clips without
    their keypoint file.

    Returns their names -> their new names and why, as `ConversionPlan.missing`.
    """
    bare: dict[str, str] = {}
    if plan.drop_removed or not plan.renamed:
        return bare
    now = {account.name: account for account in _accounts(writer)}
    for name, old in plan.renamed.items():
        had_rows = writer.committed_videos[old].account["tracks_kept"]
        if had_rows and not now[name].tracks_kept:
            why = f": {now[name].set_aside}" if now[name].set_aside else ""
            bare[old] = f"rows under its new name {name}{why}"
            writer.keep(old)
    return bare


def _accounts(writer: cache.SplitWriter) -> list[VideoAccount]:
    return [*map(VideoAccount.from_dict, writer.accounts())]


def is_failure(dataset: Dataset, account: VideoAccount) -> bool:
    """Whether the video was rejected because of an error."""
    return bool(account.set_aside) and account.set_aside not in dataset.harmless


def refuse_committed_failures(plan: ConversionPlan) -> None:
    """Raise PipelineError for a committed video that was rejected because of an error and stays:
    `strict`.
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
            raise PipelineError(f"{plan.name}: {account.message} (--strict: nothing was committed)")


class _Doubts:
    """Labels that may not belong to their images: keypoints of an earlier clip, images of another
    size.
    """

    def __init__(self, plan: ConversionPlan, *, strict: bool) -> None:
        """Raise PipelineError for `strict` if a clip has changed and its keypoints have not."""
        self._stale = dict[str, str]()
        self._reaches = list[float]()
        recorded = plan.recorded_stamps()
        changed = recorded.keys() & {*plan.changed}
        for video in plan.append:
            if video.name not in changed:
                continue
            labels = labels_of(plan.raw, video)
            if labels is None:
                continue
            same = changes.same_inputs(recorded[video.name], plan.stamps[video.name])
            path = changes.utf8(str(labels.relative_to(plan.raw)))
            clip = changes.utf8(str(video.files[0]))
            if path in same and clip not in same:
                self._stale[video.name] = (
                    f"the clip has changed, and {path} has not: are these its keypoints?"
                )
        if strict and self._stale:
            name, text = next(iter(self._stale.items()))
            do = "Replace them, or, if they belong to this clip, touch the file."
            raise PipelineError(
                f"{plan.name}: {name}: {text} {do} (--strict: nothing was committed)"
            )

    def watch(self, videos: Iterable[ReadVideo]) -> Iterator[ReadVideo]:
        """The videos, with doubts about each in its account."""
        for video in videos:
            account = video.account
            if account.name in self._stale and not account.set_aside:
                account.notes.insert(0, self._stale[account.name])
            if video.pixels.source:
                self._measure_reach(video)
            yield video

    def _measure_reach(self, video: ReadVideo) -> None:
        """Note how far the joints of a video reach, as a share of its image's width or height."""
        points = []
        for track in video.tracks:
            kp_2d = track.columns.get("kp_2d")
            if kp_2d is not None:
                joints = kp_2d[:: len(kp_2d) // SAMPLED + 1]
                points.append(joints[joints[..., 2] > 0][:, :2])
        n_points = sum(map(len, points))
        if n_points:
            reach = np.sort(np.concatenate(points), axis=0)[int(REACH * n_points)]
            size = video.pixels.width, video.pixels.height
            self._reaches.append(float((reach / size).max()))

    def notes(self, accounts: Iterable[VideoAccount]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Notes of these videos, `<video>: <note>`: doubts, which every command shows, and other
        notes.
        """
        doubts = self._size_note()
        others = list[str]()
        for account in accounts:
            lines = doubts if account.name in self._stale else others
            lines += [f"{account.name}: {note}" for note in account.notes]
        return tuple(doubts), tuple(others)

    def _size_note(self) -> list[str]:
        if len(self._reaches) < FEWEST:
            return []
        reaches = np.array(self._reaches)
        beyond = reaches > MOST_REACH
        n_videos = f"of {len(reaches)} videos"
        side = "of an image's width or height"
        if reaches.max() < LEAST_REACH:
            reach = f"reach at most {reaches.max():.0%} {side}"
            question = f"joints {n_videos} {reach}: were the images enlarged?"
        elif beyond.mean() > BEYOND:
            reach = f"reach {np.median(reaches[beyond]):.0%} {side}"
            question = f"joints of {beyond.sum()} {n_videos} {reach}: were the images made smaller?"
        else:
            return []
        return [f"all videos: {question} Compare them with `python -m pipeline show`."]
