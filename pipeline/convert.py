"""Raw dataset -> committed rows, in parallel, resumable.  [raw -> tracks -> rows] -> features -> windows

`plan_conversion` looks at names, sizes and times and says what would be done; `convert` does it. Worker processes read
videos, one process writes rows, in the order of the videos: one worker and eight give the same bytes.
"""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cache
from cache import fingerprint
from pipeline import assets, inputs
from pipeline.accounting import Accounting, VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.errors import PipelineError, RawDataError
from pipeline.progress import Progress, silent
from pipeline.stand_in import is_stand_in, refuse_mixture
from pipeline.track import Track
from pipeline.workers import in_processes

if TYPE_CHECKING:
    from pipeline.body import Body

IN_PROCESS: Final = 24  # up to this many videos, starting worker processes costs more than it saves
PER_FRAME: Final = ("frame_index", "bbox", "kp_2d", "kp_3d", "kp_3d_eval", "trans", "pose", "betas")
FLAGS: Final = ("has_3d", "has_smpl", "valid")
UNEXPECTED: Final = "unexpected_error"  # the reason of a video whose reader failed in a way that it did not foresee


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What a conversion would do, and why. Cheap to make: it reads no label that has not changed."""

    dataset: Dataset
    split: str
    raw: Path
    root: Path
    body: Path | None
    reader: Mapping[str, Any]  # all that decides the tracks besides the raw files
    append: tuple[RawVideo, ...]  # new or changed
    drop: tuple[str, ...]  # committed videos that changed or are gone
    kept: int  # committed videos that stay as they are
    stamps: Mapping[str, inputs.Stamp]
    why: str  # in words; "" when there is nothing to do

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def identity(self) -> str:
        """What a killed run must have been doing for this one to go on from it."""
        videos = {video.name: self.stamps[video.name] for video in self.append}
        return fingerprint({"reader": dict(self.reader), "append": videos, "drop": sorted(self.drop)})


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did. `totals` are over all videos of the split, the untouched ones included."""

    plan: ConversionPlan
    totals: Mapping[str, Any]
    set_aside: tuple[VideoAccount, ...]  # of the videos read now, those with which something is wrong


def reader_parts(dataset: Dataset, split: str, raw: Path, body: Path | None) -> dict[str, Any]:
    """All that can change a split's tracks besides its raw files.

    Raises StandInMixed when a stand-in and the real thing would meet, MissingAssets without the body's files.
    """
    parts: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "version": dataset.version,
        "parameters": dataset.parameters(),
        "stand_in": is_stand_in(raw),
        "body": None,
    }
    if dataset.uses_body and body is not None:
        digest, body_stands_in = assets.digest(body)
        refuse_mixture(raw, parts["stand_in"], body, body_stands_in)
        parts["body"] = digest
    plain: dict[str, Any] = json.loads(json.dumps(parts))  # as the manifest gives it back: a tuple becomes a list
    return plain


def plan_conversion(dataset: Dataset, split: str, *, raw: Path, root: Path, body: Path | None = None) -> ConversionPlan:
    """Compare what lies in the raw folder with what the cache has of it.

    Raises RawDataError when the raw folder is missing or not the dataset's, PipelineError for an unknown split and
    where the columns would be others than the committed ones.
    """
    dataset.check_split(split)
    videos = [replace(video, name=inputs.utf8(video.name)) for video in dataset.videos(raw, split)]
    reader = reader_parts(dataset, split, raw, body)
    stamps = {video.name: inputs.stamp(raw, video) for video in videos}
    name = f"{dataset.name}/{split}"
    committed = _committed(root, name)
    make = functools.partial(ConversionPlan, dataset, split, raw, root, body, reader, stamps=stamps)
    if committed is None:
        return make(append=tuple(videos), drop=(), kept=0, why="not converted yet")
    _refuse_other_columns(root / name, committed, dataset.columns(split, body=reader["body"] is not None), reader)
    known = _digests(committed)
    if changed := differences(committed.manifest["reader"], reader):
        return make(append=tuple(videos), drop=tuple(known), kept=0, why="; ".join(changed))

    seen = inputs.read_stamps(root / name)
    new = [v for v in videos if v.name not in known]
    altered = [
        v
        for v in videos
        if v.name in known and not _is_unchanged(raw, v, stamps[v.name], seen.get(v.name), known[v.name])
    ]
    gone = sorted(known.keys() - stamps.keys())
    told = [(len(new), "new"), (len(altered), "changed"), (len(gone), "removed")]
    why = ", ".join(f"{n} {word} video{'s' if n > 1 else ''}" for n, word in told if n)
    append = tuple(sorted(new + altered, key=lambda v: v.name))
    drop = tuple(sorted([v.name for v in altered] + gone))
    return make(append=append, drop=drop, kept=len(known) - len(drop), why=why)


def _refuse_other_columns(
    folder: Path, committed: cache.Split, columns: Sequence[str], reader: Mapping[str, Any]
) -> None:
    """Raise PipelineError where this conversion would fill other columns than the committed ones: they never change."""
    held = set(committed.columns)
    if held == set(columns):
        return
    kinds = [
        f"{'without' if parts['body'] is None else 'with'} a body model"
        for parts in (committed.manifest["reader"], reader)
    ]
    was, now = kinds if kinds[0] != kinds[1] else ("by another version of the reader", "by this one")
    told = {"lack": sorted(set(columns) - held), "have besides": sorted(held - set(columns))}
    lacks = " and ".join(f"{verb} {', '.join(names)}" for verb, names in told.items() if names)
    raise PipelineError(
        f"{folder}: was converted {was}, and would now be converted {now}: its rows {lacks}. A split's columns stay "
        "the same over all commits. Remove that folder, its features included, and convert the split anew, or convert "
        f"it {was}, as before."
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which parts of a fingerprint differ, in words.

    >>> differences({"version": 1, "body": None}, {"version": 2, "body": None})
    ['version was 1, is 2']
    """
    keys = sorted(before.keys() | now.keys())
    return [f"{k} was {before.get(k)}, is {now.get(k)}" for k in keys if before.get(k) != now.get(k)]


def convert(plan: ConversionPlan, *, workers: int = 1, strict: bool = False, progress: Progress = silent) -> Conversion:
    """Read the plan's videos and commit their rows. Killed at any point and started again, it ends with the same bytes.

    A video that cannot be used is set aside with its reason; with `strict` it raises PipelineError instead and nothing
    is committed, unless the reason is one of the dataset's harmless ones. Raises cache.CacheError when another process
    writes the split.
    """
    columns = plan.dataset.columns(plan.split, body=plan.reader["body"] is not None)
    provenance = {"raw": str(plan.raw.resolve())}
    with cache.SplitWriter(plan.root, plan.name, columns=columns, plan=plan.identity, provenance=provenance) as writer:
        writer.begin(drop=plan.drop)
        journalled = set(writer.journalled)
        taken_over = [video for video in plan.append if video.name in journalled]
        todo = [video for video in plan.append if video.name not in journalled]
        digests = _digests(_committed(plan.root, plan.name))
        digests |= {video.name: inputs.video_digest(plan.raw, video) for video in taken_over}
        done = len(taken_over)
        if strict:
            _refuse_set_aside(
                plan, (VideoAccount.from_dict(dict(a)) for a in writer.accounts() if a["name"] in journalled)
            )
        progress(done, len(plan.append), "")
        for read in _read_all(plan, todo, workers):
            if strict:
                _refuse_set_aside(plan, [read.account])
            writer.append(read.entry, read.rows)
            digests[read.entry.name] = read.entry.fingerprint
            done += 1
            progress(done, len(plan.append), read.entry.name)
        accounts = [VideoAccount.from_dict(dict(account)) for account in writer.accounts()]
        totals = Accounting(accounts).totals()
        inputs.write_stamps(plan.root / plan.name, _seen(plan, digests, accounts))
        writer.commit({"reader": dict(plan.reader), "stand_in": plan.reader["stand_in"], "accounting": totals})
    appended = {video.name for video in plan.append}
    return Conversion(plan, totals, tuple(a for a in accounts if a.name in appended and _is_failure(plan.dataset, a)))


@dataclass(frozen=True, slots=True)
class _Read:
    entry: cache.VideoEntry
    rows: Sequence[cache.TrackRows]
    account: VideoAccount


def _is_failure(dataset: Dataset, account: VideoAccount) -> bool:
    """Was the video set aside because something is wrong with it?"""
    return bool(account.set_aside) and account.set_aside not in dataset.harmless


def _refuse_set_aside(plan: ConversionPlan, accounts: Iterable[VideoAccount]) -> None:
    for account in accounts:
        if _is_failure(plan.dataset, account):
            raise PipelineError(f"{plan.name}: {account.message} (--strict: nothing was committed)")


def _read_all(plan: ConversionPlan, videos: Sequence[RawVideo], workers: int) -> Iterator[_Read]:
    """Every video read, in order, a bounded number ahead of the writer."""
    job = functools.partial(_read_one, plan.dataset, plan.split, plan.raw, plan.body if plan.reader["body"] else None)
    if workers == 1 or len(videos) <= IN_PROCESS:
        yield from map(job, videos)
        return
    yield from in_processes(job, videos, workers)


def _read_one(dataset: Dataset, split: str, raw: Path, body: Path | None, video: RawVideo) -> _Read:
    model = _body(body)  # not below: a body that cannot be loaded is no video's fault
    digest = inputs.video_digest(raw, video)
    tracks: Sequence[Track] = ()
    pixels: dict[str, Any] = {}
    account = VideoAccount(video.name)
    try:
        _refuse_other_encodings(raw, video)
        with _one_thread(model):
            tracks, account = dataset.read_accounted(raw, split, video, model)
        pixels = _pixels(tracks)
    except RawDataError as error:  # of the pixels: those of the labels are in the account already
        tracks = ()
        account.put_aside(error.reason, str(error))
    except Exception as error:  # a defect of the reader must not cost the other videos
        tracks = ()
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        account.put_aside(UNEXPECTED, f"{video.name}: {type(error).__name__}: {error} (at {place})")
    entry = cache.VideoEntry(name=video.name, fingerprint=digest, account=account.as_dict(), **pixels)
    return _Read(entry, [_rows(track) for track in tracks], account)


def _refuse_other_encodings(raw: Path, video: RawVideo) -> None:
    """Raise RawDataError for a path that is no UTF-8: neither JSON nor the tables could lead back to it."""
    for path in (*video.files, *video.folders, *video.label_folders):
        if inputs.utf8(str(path)) != str(path):
            do = "Rename it, for example with convmv."
            shown = Path(inputs.utf8(str(raw / path)))
            raise RawDataError(shown, "name", expected="UTF-8", found="other bytes", do=do, reason="name_not_utf8")


def _pixels(tracks: Sequence[Track]) -> dict[str, Any]:
    """What the cache keeps of where the pixels are. Raises RawDataError when none of the pictures can be read."""
    source = next((track.frames for track in tracks if track.frames is not None), None)
    if source is None:
        return {}
    width, height = source.size()
    return {"source": source.spec, "pixels": source.digest(), "width": width, "height": height}


@contextmanager
def _one_thread(body: Body | None) -> Iterator[None]:
    """Sums over the body's vertices in one thread: in more, their last bits depend on how many there are."""
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
def _body(folder: Path | None) -> Body | None:
    """The body model, loaded once in each process, and only where a reader needs it."""
    if folder is None:
        return None
    from pipeline.body import Body  # imports torch

    return Body.load(folder)


def _rows(track: Track) -> cache.TrackRows:
    columns = {name: getattr(track, name) for name in PER_FRAME}
    columns |= {name: None if (flag := getattr(track, name)) is None else flag.astype(np.uint8) for name in FLAGS}
    return cache.TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns={name: array for name, array in columns.items() if array is not None},
    )


def _committed(root: Path, name: str) -> cache.Split | None:
    """The split as it is in the cache; None when there is no such split, or no cache yet."""
    return cache.open(root)[name] if (root / name / "manifest.json").is_file() else None


def _digests(committed: cache.Split | None) -> dict[str, str]:
    """Name -> digest of every committed video."""
    if committed is None:
        return {}
    return dict(zip(committed.videos.names, committed.videos.fingerprints, strict=True))


def _is_unchanged(raw: Path, video: RawVideo, stamp: inputs.Stamp, seen: inputs.Seen | None, digest: str) -> bool:
    """Is a committed video's raw content what it was? A look tells, unless a size or time differs: then the content."""
    return seen == {"stamp": stamp, "digest": digest} or inputs.video_digest(raw, video) == digest


def _seen(plan: ConversionPlan, digests: Mapping[str, str], accounts: Sequence[VideoAccount]) -> dict[str, inputs.Seen]:
    """What to remember of every video. Not where something unexpected happened: it may have been the disk."""
    aside = {account.name for account in accounts if account.set_aside == UNEXPECTED}
    return {name: {"stamp": stamp, "digest": digests[name]} for name, stamp in plan.stamps.items() if name not in aside}
