"""Raw dataset -> committed rows, in parallel, resumable.  [raw -> tracks -> rows] -> features -> windows

Worker processes read videos; one process writes the rows in the order of the videos, so any number of workers gives the
same bytes. `pipeline.conversion.plan` makes the plan.
"""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from pipeline.accounting import NOT_NOW, Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import command, count
from pipeline.conversion.committed import empty_lines, speed_of
from pipeline.conversion.doubts import Doubts
from pipeline.conversion.plan import ConversionPlan, plan_conversion
from pipeline.datasets.base import Dataset, describe_error
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.raw import RawVideo, changes
from pipeline.files.raw.files import caching, faults, note_fault
from pipeline.processes import MEMORY, TIMEOUT, Failed, cluster
from pipeline.processes.pool import ordered_map
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

__all__ = ["Conversion", "ConversionPlan", "convert", "plan_conversion", "refuse_committed_failures"]

WHAT_TO_DO: Final = {
    "reader_crashed": "Download its files again; if it crashes all the same, please report it.",
    "reader_timeout": "Check its files and the storage that they are on.",
    "reader_memory": "Check its files.",
    "machine_memory": "Use fewer processes (--workers), or free memory; the next run reads it again.",
}
LATER: Final = "The next run reads it again."
UNEXPECTED: Final = "unexpected_error"  # reason for a video at which the reader has a bug


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

    Workers are `workers` local processes, or those of the Dask cluster at `scheduler`. A video that cannot be used is
    rejected with its reason, as is one at which a process crashes, makes no progress for `timeout` s, or needs more
    than `memory` bytes. `strict` raises PipelineError instead and commits nothing, also for an earlier rejection that
    stays; harmless reasons are allowed. A committed video that temporarily cannot be read keeps its rows.

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
        writer.begin(drop=plan.drop, invalidate=plan.invalidate)
        digests, measured, stay = _append_videos(
            plan, writer, lambda videos: read_videos(plan, doubts, videos, *where), strict=strict, progress=progress
        )
        accounts = _accounts(writer)
        totals = Accounting(accounts).totals(None if plan.reader["stand_in"] else plan.dataset.totals.get(plan.split))
        # Videos with unexpected errors, perhaps of the disk, get no stamp, so that the next plan reads their content.
        unexpected_in = {a.name for a in accounts if a.set_aside in {UNEXPECTED, NOT_NOW, *WHAT_TO_DO}}
        unexpected_in |= {name for name, account in stay.items() if account.set_aside == NOT_NOW}
        read_as = {name: (stamp, digests[name]) for name, stamp in plan.stamps.items() if name not in unexpected_in}
        changes.write_stamps(plan.root, plan.name, read_as)
        entries = {"reader": dict(plan.reader), "stand_in": plan.reader["stand_in"], "accounting": totals}
        entries["keypoints"] = plan.dataset.keypoints_from
        before = plan.committed.provenance if plan.committed is not None else {}
        writer.commit(entries, note={"measured": measured or speed_of(before)})
    appended = {video.name for video in plan.append}
    failed = [account for account in accounts if is_failure(plan.dataset, account)]
    rejected = [account for account in failed if account.name in appended - stay.keys()] + [*stay.values()]
    n_unreadable = sum(account.set_aside == NOT_NOW for account in rejected)
    unreadable = [f"{plan.name}: {count(n_unreadable, 'video')} could not be read now. {LATER}"] if n_unreadable else []
    return Conversion(
        plan,
        totals,
        rejected=tuple(sorted(rejected, key=lambda account: account.set_aside != UNEXPECTED)),
        **doubts.notes(a for a in accounts if a.name in appended),
        problems=(*plan.missing_lines, *unreadable, *empty_lines(plan.name, totals, accounts)),
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
    times = {name: (plan.stamps[name], digests[name]) for name in plan.touched}
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
    began, rows, journalled = time.monotonic(), 0, set(writer.journalled)
    stay: dict[str, VideoAccount] = {}
    taken_over = [video for video in plan.append if video.name in journalled]
    digests = plan.digests() | {video.name: changes.video_digest(plan.raw, video) for video in taken_over}
    if strict:
        _refuse_rejected(plan, (account for account in _accounts(writer) if account.name in journalled))
    progress(len(taken_over), len(plan.append), "")
    todo = [video for video in plan.append if video.name not in journalled]
    for n_done, (raw_video, video) in enumerate(zip(todo, read(todo), strict=True), len(taken_over) + 1):
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
    """Whether a committed video stays as it is, because it cannot be read now or fails as before.

    Raises PipelineError if it has rows that would be lost.
    """
    account = video.account
    if committed is None or account.name not in plan.drop:
        return False
    as_before = VideoAccount.from_dict(dict(committed.account)) == account
    if account.set_aside and as_before and committed.fingerprint == video.fingerprint:
        return not plan.differs
    if (account.set_aside == NOT_NOW and plan.differs) or (plan.invalidate and not video.tracks):
        message = account.message or f"{account.name}: none of its rows is left."
        raise PipelineError(f"{plan.name}: {message} Nothing was committed: its rows would be lost ({plan.why}).")
    return account.set_aside == NOT_NOW


def _accounts(writer: cache.SplitWriter) -> list[VideoAccount]:
    return [VideoAccount.from_dict(dict(account)) for account in writer.accounts()]


def is_failure(dataset: Dataset, account: VideoAccount) -> bool:
    """Whether the video was rejected because of an error."""
    return bool(account.set_aside) and account.set_aside not in dataset.harmless


def refuse_committed_failures(plan: ConversionPlan) -> None:
    """Raise PipelineError for a committed video that was rejected because of an error and stays: `strict`."""
    if plan.committed is None:
        return
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


@dataclass(frozen=True, slots=True)
class ReadVideo:
    """One video as it is written to the cache."""

    fingerprint: str
    account: VideoAccount
    tracks: Sequence[Track] = ()
    pixels: Mapping[str, Any] = field(default_factory=dict)  # source, digest and size

    @property
    def entry(self) -> cache.VideoEntry:
        account = self.account.as_dict()
        return cache.VideoEntry(name=self.account.name, fingerprint=self.fingerprint, account=account, **self.pixels)


def read_videos(
    plan: ConversionPlan,
    doubts: Doubts,
    videos: Sequence[RawVideo],
    workers: int,
    scheduler: str | None,
    timeout: float,
    memory: int,
) -> Iterator[ReadVideo]:
    """Read every video, in order, a bounded number ahead of the writer, by local processes or on a Dask cluster.

    Raises PipelineError if the cluster's workers do not see the raw folder.
    """
    body = plan.body if plan.reader["body"] else None
    job = functools.partial(_read_one, plan.dataset, plan.split, plan.raw, body)
    results: Iterator[ReadVideo | Failed]
    if scheduler is not None:
        bounded: Callable[[RawVideo], ReadVideo | Failed] = functools.partial(_catch_memory_error, job)
        results = cluster.map_on_workers(scheduler, bounded, videos, plan.raw, same_group=_share_label_file)
    else:
        load = functools.partial(_body, body, plan.dataset.genders[0])
        results = ordered_map(
            job, videos, workers, timeout=timeout, memory=memory, same_group=_share_label_file, preload=load
        )
    for video, read in zip(videos, results, strict=True):
        done = _reject_video(plan.raw, video, read) if isinstance(read, Failed) else read
        doubts.look(done.account, done.tracks, done.pixels)
        yield done


def _catch_memory_error(job: Callable[[RawVideo], ReadVideo], video: RawVideo) -> ReadVideo | Failed:
    try:
        return job(video)
    except MemoryError:
        return Failed("machine_memory", "needed more memory than there is")


def _reject_video(raw: Path, video: RawVideo, failed: Failed) -> ReadVideo:
    """A video whose reading process ended."""
    account = VideoAccount(video.name)
    message = f"{_place(raw, video)}: the process that read it {failed.message}. {WHAT_TO_DO[failed.reason]}"
    account.reject(NOT_NOW if failed.reason == "machine_memory" else failed.reason, message)
    return ReadVideo(changes.video_digest(raw, video), account)


def _share_label_file(one: RawVideo, other: RawVideo) -> bool:
    """Whether two videos share their label file, which readers keep: eight of MPI-INF-3DHP's share 100 MB."""
    return one.span is None and one.files[:1] == other.files[:1] != ()


@caching()
def _read_one(dataset: Dataset, split: str, raw: Path, body: Path | None, video: RawVideo) -> ReadVideo:
    model = _body(body, dataset.genders[0])  # not in the try: a body that cannot be loaded is no video's fault
    digest = changes.video_digest(raw, video)
    tracks: Sequence[Track] = ()
    pixels: dict[str, Any] = {}
    account = VideoAccount(video.name)
    with faults() as passing:
        try:
            _refuse_other_encodings(raw, video)
            with _one_thread(model):
                tracks, account = dataset.read_accounted(raw, split, video, model)
            pixels = _pixels(tracks)
        except MemoryError:
            raise
        except Exception as error:  # a bug of the reader must not cost the other videos
            tracks = ()
            note_fault(error)
            if isinstance(error, RawDataError):  # of the pixels; the account has errors of the labels already
                account.reject(error.reason, str(error))
            else:
                account.reject(UNEXPECTED, f"{video.name}: {describe_error(error)}")
    if passing:
        tracks, pixels = (), {}
        account.reject(NOT_NOW, _not_now(raw, video, passing[0]))
    return ReadVideo(digest, account, tracks, pixels)


def _not_now(raw: Path, video: RawVideo, error: OSError) -> str:
    """Message about an error that may pass, with what to do."""
    named = error.filename is not None and not isinstance(error.filename, int)
    where = os.fsdecode(error.filename) if named else _place(raw, video)
    problem = error.strerror or type(error).__name__
    do = "Change its permissions" if error.errno in (errno.EACCES, errno.EPERM) else "Check its disk or mount"
    return f"{where}: {problem[:1].lower()}{problem[1:]}. {do}. {LATER}"


def _place(raw: Path, video: RawVideo) -> Path:
    return raw / next(iter(video.paths), video.name)


def _refuse_other_encodings(raw: Path, video: RawVideo) -> None:
    """Raise RawDataError for a path that is not UTF-8: JSON and tables cannot hold it."""
    for path in video.paths:
        if changes.utf8(str(path)) != str(path):
            do = "Rename it, for example with convmv."
            shown = Path(changes.utf8(str(raw / path)))
            raise RawDataError(shown, "name", expected="UTF-8", found="other bytes", do=do, reason="name_not_utf8")


def _pixels(tracks: Sequence[Track]) -> dict[str, Any]:
    """The cache's description of the pixels. Raises RawDataError if no image can be read."""
    source = next((track.frames for track in tracks if track.frames is not None), None)
    if source is None:
        return {}
    width, height = source.size()
    return {"source": source.spec, "pixels": source.digest(), "width": width, "height": height}


@contextmanager
def _one_thread(body: Body | None) -> Iterator[None]:
    """One torch thread: the last bits of sums over vertices depend on the number of threads."""
    if body is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _body(folder: Path | None, gender: str) -> Body | None:
    """The body model, loaded once in each process; None without a folder."""
    if folder is None:
        return None
    from pipeline.body import Body  # imports torch

    return Body.load(folder, gender)
