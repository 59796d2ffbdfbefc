"""Convert: read the videos of a raw folder and commit their rows.  [raw -> tracks -> rows] ->
features -> windows

A `ConversionWork` says which videos of a split are read and which are dropped
(`pipeline.steps.conversion.plan`). `convert` does it: worker processes read videos, and this one
writes their rows in the order of the videos, so any number of workers gives the same bytes. All of
it is one atomic commit; a killed run is continued. `record_moves` updates what is recorded about a
split that has nothing to convert, and `run_conversion` does what a work asks for.

Words:
    account     what became of one video: frames kept, dropped and why (`pipeline.accounting`)
    rejected    the whole video is left out, and its account says why: `account.set_aside`
    failed      rejected because of an error, not for lack of labels
    loss        what a committed video would lose, which keeps its rows
                (`pipeline.steps.conversion.keep`)
    unsettled   rejected, now or earlier, for a reason of UNSETTLED: the next plan reads its content
                again
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import cache
from cache.write.parts import Part
from pipeline.accounting import (
    PASSING,
    UNSETTLED,
    Accounting,
    VideoAccount,
    assumption_lines,
    is_error,
    unread_lines,
)
from pipeline.cli.console import IDLE, out, plain
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import FEW, command, count, few, from_here
from pipeline.clips.files import read_detection
from pipeline.clips.labels.label_files import labels_of
from pipeline.datasets.shared.contradictions import contradiction_lines
from pipeline.errors import PipelineError
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import changes
from pipeline.processes.settings import NO_CLUSTER, Dask
from pipeline.settings.arguments import MEANWHILE
from pipeline.settings.new_cache import check_new_cache, forbid_new_cache
from pipeline.settings.options import DROP
from pipeline.settings.sections import Settings
from pipeline.steps import sentences
from pipeline.steps.conversion.doubts import Doubts
from pipeline.steps.conversion.identity import report_other_work
from pipeline.steps.conversion.keep import Loss, as_json, count_undecodable, unusable
from pipeline.steps.conversion.parts import read_on_cluster, read_part, read_spooled
from pipeline.steps.conversion.plan import ConversionWork, Item
from pipeline.steps.conversion.reading import DEFECTS, ReadVideo, attach_clips
from pipeline.steps.conversion_record import (
    CORRECTIONS,
    EARLIER_READER,
    LET_GO,
    ConversionRecord,
    committed_split,
)
from pipeline.steps.grading import announce_grades, store_grades
from pipeline.steps.report import StepReport


def run_conversion(
    work: ConversionWork, settings: Settings, progress: Progress, part: Part | None = None
) -> StepReport:
    """Convert one split, and tell the user if that makes a new cache. If it is up to date, only
    record new folders and file times. A `part` stages its share, and commits nothing.

    Raises as `check_new_cache` and `convert` do.
    """
    workers = settings.workers
    root = work.recipe.root
    if part is not None:
        unreadable = read_part(work, part, workers=workers, dask=settings.dask, progress=progress)
        return _report_part(work, part, unreadable)
    if work.up_to_date and work.committed is not None:
        if settings.convert.strict:
            refuse_committed_failures(work)
        totals = work.committed.manifest["accounting"]
        up_to_date = f"up to date, {count(totals['videos']['found'], 'video')}"
        return StepReport(
            details=[up_to_date, *record_moves(work)],
            mark=IDLE,
            notes=[*sentences.notes_on_videos(work, totals)],
            problems=sentences.problems_of(work),
        )
    is_new = check_new_cache(settings, root)
    report = convert(
        work,
        workers=workers,
        strict=settings.convert.strict,
        dask=settings.dask,
        progress=progress,
    )
    if is_new:
        out.print(f"{IDLE} new cache {plain(from_here(root))}")
    forbid_new_cache(settings, root)
    return report


def _report_part(
    work: ConversionWork, part: Part, unreadable: Sequence[VideoAccount]
) -> StepReport:
    """What a part has read. Its problems are the videos that cannot be read."""
    share = part.share(work.items)
    staged = f"{count(len(share) - len(unreadable), 'video')} finished, not yet in the cache"
    if not share:
        staged = "nothing to do: this share has no video to read"
    current = committed_split(work.recipe.root, work.name)
    digests = [split and split.manifest["digest"] for split in (work.committed, current)]
    return StepReport(
        details=[f"{staged} (why: {work.why or 'up to date'})"],
        warnings=[MEANWHILE] if digests[0] != digests[1] else [],
        problems=[account.rejection for account in unreadable],
    )


def convert(
    work: ConversionWork,
    *,
    workers: int = 1,
    strict: bool = False,
    dask: Dask = NO_CLUSTER,
    progress: Progress = silent,
) -> StepReport:
    """Read the videos and commit their rows.

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
        refuse_committed_failures(work)
    doubts = Doubts(work, strict=strict)
    report_other_work(work.recipe.root, work.name, None, work.staging)
    dataset = work.recipe.dataset
    has_body = work.reader["body"] is not None
    columns = dataset.columns(work.recipe.split, body=has_body)
    extra = dataset.extra_columns(work.recipe.split, body=has_body)
    with _open_writer(work, columns, extra) as writer:
        following = _begin(work, writer)
        if strict:
            _refuse_rejected(work, _accounts(following))
        todo = [item for item in work.items if item.video.name not in following.journalled]
        progress(len(work.items) - len(todo), len(work.items), "")
        todo = attach_clips(todo, work.committed)
        if dask.scheduler is not None:
            read_on_cluster(work, todo, workers, dask, progress)
        run = _Run(work, following, strict)

        def on_wait(text: str) -> None:
            progress(len(run.digests), len(work.items), text)

        # the processes that read end before the split is unlocked
        with closing(doubts.watch(read_spooled(work, todo, workers, on_wait))) as videos:
            for item, video in zip(todo, videos, strict=True):
                run.take(item, video)
                progress(len(run.digests), len(work.items), item.video.name)
        run.keep_renamed()
        accounts = _accounts(following)
        run.record_stamps(accounts)
        published = dataset.release.totals.get(work.recipe.split)
        totals = Accounting(accounts).totals(None if work.reader["stand_in"] else published)
        announce_grades(work.recipe.root, work.name)
        following.commit({**run.manifest_entries(), "accounting": totals})
    store_grades(work.recipe.root, work.name, packed=following.measures(), progress=progress)
    return _report(work, totals, accounts, run, doubts)


def _open_writer(
    work: ConversionWork, columns: Collection[str], extra: Iterable[cache.ExtraColumn]
) -> cache.SplitWriter:
    """Open the split for writing. Its provenance has the absolute raw folder, the file of
    corrections, "" for none, and, if tracks depend on it, the body folder.
    """
    recipe = work.recipe
    corrections = recipe.selection.corrections
    folders = {
        "raw": str(recipe.raw.resolve()),
        CORRECTIONS: "" if corrections is None else str(corrections.resolve()),
    }
    if work.reader["body"] and recipe.body is not None:
        folders["body"] = str(recipe.body.resolve())
    return cache.SplitWriter(
        recipe.root,
        work.name,
        columns=columns,
        extra=extra,
        plan=work.staging,
        provenance=folders,
    )


def _begin(work: ConversionWork, writer: cache.SplitWriter) -> cache.NextCommit:
    """Begin the next commit. Raises CacheChanged if the work was planned before the newest commit,
    PipelineError if a video should keep its rows and the columns change.
    """
    if writer.state.has_other_columns:
        _refuse_other_columns(work, work.losses)
    planned_digest = "" if work.committed is None else work.committed.manifest["digest"]
    if writer.state.commit.digest != planned_digest:
        raise cache.CacheChanged(
            f"{work.name}: another run has saved its work since the plan was made. Run it again."
        )
    keys = {item.video.name: item.stamp for item in work.items}
    if work.recipe.drop_removed:  # what it has dropped is not taken over by a run that may not
        keys = {name: f"{stamp} {DROP}" for name, stamp in keys.items()}
    return writer.begin(work.drop, invalidate=work.damaged_shards, keys=keys)


def _accounts(following: cache.NextCommit) -> list[VideoAccount]:
    """The accounts of all videos that the next commit has so far."""
    return [*map(VideoAccount.from_dict, following.accounts())]


@dataclass(slots=True)
class _Run:
    """Takes the videos of a work, as they are read, into the next commit."""

    work: ConversionWork
    following: cache.NextCommit
    strict: bool
    digests: dict[str, str] = field(init=False)  # of the videos that were read, by name
    losses: dict[str, Loss] = field(default_factory=dict)  # of videos that keep their rows
    kept: list[VideoAccount] = field(default_factory=list)  # what was read of them

    def __post_init__(self) -> None:
        self.digests = {**self.following.journalled}  # a killed run has read these

    def take(self, item: Item, video: ReadVideo) -> None:
        """Take the rows of a video, or keep what the cache has of it."""
        account = video.account
        name = account.name
        committed = self.following.state.videos.get(name)
        loss = None
        if committed is not None and self.work.committed is not None:
            loss = self._find_loss(item, video, committed, self.work.committed)
        if self.strict:
            _refuse_rejected(self.work, [account])
        self.digests[name] = video.fingerprint
        if loss is not None:
            if self.strict:
                _refuse_strict(self.work, f"{name}: {loss}")
            self._keep(name, loss)
            self.kept.append(account)
        elif account.set_aside and committed == video.entry and not self.work.differs:
            self.following.keep(name)  # the same reader rejects the same content
        else:
            self.following.append(video.entry, video.tracks)

    def _find_loss(
        self, item: Item, video: ReadVideo, committed: cache.VideoEntry, split: cache.Split
    ) -> Loss | None:
        """What a committed video would lose that keeps its rows; None: its new rows are taken."""
        account = video.account
        before = VideoAccount.from_dict(committed.account)
        n_lost_before = count_undecodable(split, account.name) if video.lost else math.inf
        loss = Loss.from_reading(before, account, video.lost, n_lost_before)
        if loss is None or account.set_aside in PASSING:
            return loss
        if self.work.recipe.drop_removed:
            return None
        others = self.work.recipe.others
        images = file_part(video.pixels.pixels)
        has_same_images = images == file_part(committed.pixels)
        n_moved = 0
        if account.other_split:
            n_moved = others.rows.get(video.fingerprint, 0)
            loss = loss._replace(now=n_moved)
        if images and not has_same_images:  # others may have taken the place of its files
            n_moved = max(n_moved, others.count_rows(committed, is_listed=True))
        if n_moved >= before.read:
            return None
        is_same_content = video.fingerprint == committed.fingerprint
        if not account.set_aside:
            is_corrected = account.corrections.keys() != before.corrections.keys()
            labels = labels_of(self.work.recipe.raw, item.video)
            by_detect = has_same_images and labels is not None and read_detection(labels)
            if by_detect or (is_same_content and is_corrected):
                return None
        is_settled = is_same_content and account.set_aside not in UNSETTLED
        return None if item.by_other_reader and is_settled else loss

    def _keep(self, name: str, loss: Loss) -> None:
        """Keep the rows of a committed video."""
        if self.following.state.has_other_columns:
            _refuse_other_columns(self.work, [f"{name}: {loss}"])
        self.following.keep(name)
        self.losses[name] = loss

    def count_gone(self, accounts: Iterable[VideoAccount]) -> Counter[str]:
        """The rows of unchanged files that another reader drops, by video, also in a run that was
        killed. accounts: of the commit.
        """
        n_gone = Counter[str]()
        for account in accounts:
            if account.name not in self.digests or self.work.recipe.drop_removed:
                continue
            committed = self.following.state.videos.get(account.name)
            if committed is None or committed.fingerprint != self.digests[account.name]:
                continue
            before = VideoAccount.from_dict(committed.account)
            if account.corrections.keys() == before.corrections.keys():
                n_gone[account.name] = max(0, before.read - account.read)
        return +n_gone

    def keep_renamed(self) -> None:
        """Keep the rows of renamed videos that have fewer under their new names, such as a clip
        that was renamed without its keypoint file.
        """
        renamed = self.work.renamed
        if not renamed or self.work.recipe.drop_removed:
            return  # no look at every account, of which there may be 400,000
        for account in _accounts(self.following):
            old_name = renamed.get(account.name)
            if old_name is None:
                continue
            before = VideoAccount.from_dict(self.following.state.videos[old_name].account)
            n_fewer = before.read - account.read * (account.name not in self.losses)
            if before.kept and n_fewer > 0:
                why = f": {account.set_aside}" if account.set_aside else ""
                file = f"{count(n_fewer, 'row')} under its new name {account.name}{why}"
                self._keep(old_name, Loss.from_missing(before, file)._replace(now=account.kept))

    def record_stamps(self, accounts: Iterable[VideoAccount]) -> None:
        """Record which files each video was read from, so that the next plan can tell whether they
        have changed: none of an unsettled video, so that the next plan reads its content.

        accounts: of the commit.
        """
        seen = {**self.work.unread}
        for item in self.work.items:
            name = item.video.name
            loss = self.losses.get(name)
            seen[name] = changes.LastReading(item.stamp, self.digests[name], loss and loss[:3])
        for account in (*accounts, *self.kept):
            if account.set_aside in UNSETTLED:
                seen.pop(account.name, None)
        changes.write_stamps(self.work.recipe.root, self.work.name, seen)

    def manifest_entries(self) -> dict[str, Any]:
        """What the split's manifest says of its reader."""
        work = self.work
        entries: dict[str, Any] = {
            "reader": dict(work.reader),
            "stand_in": work.reader["stand_in"],
            "keypoints": work.recipe.dataset.labels.keypoints_from,
        }
        earlier = {*self.following.state.videos} - {*work.drop} | {*self.losses}
        if not work.differs and work.committed is not None:
            earlier &= ConversionRecord(work.committed).earlier_reader
        if earlier:
            entries[EARLIER_READER] = sorted(earlier)
        return entries


def _report(
    work: ConversionWork,
    totals: Mapping[str, Any],
    accounts: Sequence[VideoAccount],
    run: _Run,
    doubts: Doubts,
) -> StepReport:
    """The report of a commit. accounts: of all videos of the commit."""
    names = {item.video.name for item in work.items}
    appended = [account for account in accounts if account.name in names]
    n_read = sum(not account.other_split for account in appended)
    n_of_split = sum(not account.other_split for account in accounts)
    losses = {**work.losses, **run.losses}
    read = {account.name: account for account in appended}
    for account in run.kept:
        if account.set_aside in PASSING:
            read[account.name] = account
            del losses[account.name]
    rejected = [account for account in read.values() if is_error(account.set_aside)]
    rejected.sort(key=lambda account: account.set_aside not in DEFECTS)  # these first
    split = cache.open(work.recipe.root)[work.name]
    problems = [
        *sentences.kept_lines(work, losses),
        *sentences.rejection_problems(work, rejected),
        *([] if totals["videos"]["kept"] else ConversionRecord(split).why_empty()),
    ]
    notes = [*sentences.gone_notes(run.count_gone(accounts)), *doubts.notes(appended)]
    if work.recipe.selection.max_fps is None and n_read:
        notes += sentences.mixed_rates_notes(split)
    document = {
        "why": work.why,
        "accounting": totals,
        "read": n_read,
        "unchanged": n_of_split - n_read,
        "removed": list(work.removed),
        "renamed": work.renamed,
        "kept": as_json(losses),
        "rejected": {account.name: account.rejection for account in rejected},
        "assumed": assumption_lines(accounts),
        "contradictions": contradiction_lines(accounts),
        "unread": unread_lines(accounts),
        "damaged": [*sentences.damage_lines(appended)],
        "notes": notes,
    }
    return sentences.conversion_report(work, document, problems)


def record_moves(work: ConversionWork) -> list[str]:
    """Record the new places of the raw and body folders and of the corrections, and new file
    times of videos with unchanged content, for a split that is up to date.

    Returns messages; none if there is nothing new, or if the cache is read-only.
    """
    assert work.committed is not None, "nothing is saved yet"
    lines = []
    corrections = work.recipe.selection.corrections
    file_now = "" if corrections is None else str(corrections.resolve())
    with suppress(OSError, cache.CacheError):
        if work.has_moved or work.committed.provenance.get(CORRECTIONS, "") != file_now:
            extra = work.committed.extra.values()
            with _open_writer(work, work.committed.columns, extra) as writer:
                writer.note_again()
        if work.has_moved:
            lines.append(f"recorded the new raw folder {work.recipe.raw}")
        if work.touched:
            changes.write_stamps(work.recipe.root, work.name, work.unread)
            n_videos = count(len(work.touched), "video")
            lines.append(f"new file times of {n_videos} recorded: the content has not changed")
    return lines


def refuse_committed_failures(work: ConversionWork) -> None:
    """What `strict` asks of the videos that are not read: raise PipelineError if one was rejected
    because of an error.
    """
    if work.committed is None:
        return
    for why in unusable(work.losses).values():
        raise PipelineError(f"{work.name}: {why} (--strict: its rows are of an earlier state)")
    failed = ConversionRecord(work.committed).names_to_retry(retry=True) - {*work.drop}
    if failed:
        again = command("convert", work.name, "--retry", "--cache", str(work.recipe.root))
        n_videos = count(len(failed), "video")
        raise PipelineError(
            f"{work.name}: an earlier conversion rejected {n_videos}, first {min(failed)} "
            f"(--strict). Correct them, then: {again}"
        )


def _refuse_rejected(work: ConversionWork, accounts: Iterable[VideoAccount]) -> None:
    """Raise PipelineError for `strict` if one was rejected because of an error."""
    for account in accounts:
        if is_error(account.set_aside):
            _refuse_strict(work, account.message)


def _refuse_strict(work: ConversionWork, why: str) -> None:
    raise PipelineError(f"{work.name}: {why} (--strict: nothing was saved in the cache)")


def _refuse_other_columns(work: ConversionWork, kept: Collection[str]) -> None:
    """Raise PipelineError if videos should be `kept`, whose rows do not have the new columns."""
    if kept:
        first = "; ".join(few(sorted(kept), FEW, "plan --all"))
        raise PipelineError(
            f"{work.name}: the columns change ({work.why}), so all videos must be converted "
            f"again, but files of {count(len(kept), 'video')} are missing or damaged: {first} "
            f"Nothing was saved in the cache. Restore them, or delete their rows: {LET_GO}"
        )
