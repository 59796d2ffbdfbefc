"""Tracks to show of a split, from the cache or from raw files.  raw, cache -> [tracks] -> page"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from pipeline import grades
from pipeline.accounting import Accounting, VideoAccount
from pipeline.cli.text import command
from pipeline.conversion.committed import recorded_reader, rejected_videos, video_state
from pipeline.conversion.convert import is_failure
from pipeline.conversion.identity import reader_parts
from pipeline.conversion.reading import UNEXPECTED
from pipeline.datasets.base import Dataset, describe_error
from pipeline.errors import PipelineError, did_you_mean, reading_refused
from pipeline.estimates import estimates_of
from pipeline.files.formats import smpl_files
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.raw import RawVideo, refuse_mixture
from pipeline.files.raw.files import caching
from pipeline.show.drawing import load_body
from pipeline.show.untracked import DrawnAccount, Untracked, read_untracked
from pipeline.skeletons import JOINTS
from pipeline.track import FLAGS, Track

if TYPE_CHECKING:
    from pipeline.body import Body

Array = NDArray[Any]

MOST_LISTED: Final = 20  # rejected videos to list; the others are counted
# reasons of drawable videos
REFUSED: Final = ("frame_count_mismatch", "keypoints_outside", "unknown_joint_order")
PAGE_FRAMES: Final = 5
MOST_READ: Final = 50  # videos to read for one track, since most videos of some splits have none


@dataclass(frozen=True, slots=True)
class Choice:
    """Tracks to show: those with `names`, or all of `video`, or else `tracks` spread over the
    split.
    """

    tracks: int = 6
    names: tuple[str, ...] = ()
    video: str = ""
    frames: int = PAGE_FRAMES  # per track, evenly spaced
    rejected: bool = False  # show rejected videos


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class ShownTrack:
    """A track with facts about all its frames, and the columns of the frames to draw."""

    record: Track | cache.TrackRecord
    n_frames: int
    source: FrameSource | None  # None without images
    gaps: tuple[tuple[int, int], ...]  # (last frame before, first frame after)
    joints: tuple[str, ...]  # of spin49, visible in some frame
    visible: tuple[int, int]  # fewest and most visible joints in a frame
    flags: Mapping[str, int]  # has_3d, has_smpl, valid -> number of frames that set it
    notes: tuple[str, ...]
    grade: grades.Grade
    rows: Mapping[str, Array]  # column -> (n, ...) at the n frames to draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page's content except the pixels."""

    name: str  # <dataset>/<split>
    origin: str  # source of the tracks, for the page
    raw: Path | None  # the raw folder; None if not recorded
    # folder of a body model, for tracks with SMPL parameters but without 3D joints
    body: Path | None
    stand_in: bool
    reader: Mapping[str, Any]  # dataset, version, parameters, body; empty if not recorded
    totals: Mapping[str, Any]  # as Accounting.totals(); empty if not recorded
    totals_of: str  # what the totals count, for the page
    n_rejected: int  # videos rejected because of errors
    rejected: tuple[str, ...]  # the first of them: video, reason and message
    n_tracks: int | None  # in the split; None if it was not read as a whole
    warnings: tuple[str, ...]
    tracks: tuple[ShownTrack, ...]
    more: str = ""  # the command that shows other tracks of a cache
    digest: str = ""  # of the committed split, for `split_of`
    untracked: Untracked | None = None  # detections of the chosen video that became no track


def from_cache(
    root: cache.Root,
    name: str,
    choice: Choice,
    *,
    raw: Path | None = None,
    body: Path | None = None,
) -> Shown:
    """The chosen tracks of <dataset>/<split>. `raw`: the raw folder; None: as recorded at
    conversion.

    Rejected videos are read by the conversion's reader with its options.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: a track is missing; the raw folder is not recorded, or missing for rejected
            videos.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: the body's files are missing.
    """
    split = cache.open(root)[name]
    if choice.rejected:
        reader, raw_folder, model = recorded_reader(split, raw, body)
        names = {
            video.name for video in split.videos if video.account.get("set_aside", "") in REFUSED
        }
        return from_raw(reader, name.partition("/")[2], raw_folder, choice, body=model, of=names)
    recorded = split.provenance.get("raw")
    stand_in = bool(split.manifest.get("stand_in", False))
    if raw is None and recorded is None and "bbox" in split.columns:
        raise PipelineError(
            f"{name}: its raw folder is not recorded, since provenance.json is missing. Name "
            "the dataset's raw folder: --raw DIR"
        )
    folder = raw or (None if recorded is None else Path(str(recorded)))
    _refuse_other_body(folder or Path(name), stand_in, body)
    n_rejected, messages = rejected_videos(split)
    warnings = []
    estimates = estimates_of(split)
    if estimates:
        warnings.append(f"Bodies are {estimates}, no ground truth.")
    if folder is not None and not folder.is_dir():
        warnings.append(
            f"The raw folder {folder} does not exist, so no frame can be shown. Name it: --raw DIR"
        )
    numbers = spread(len(split.tracks), choice.tracks)
    untracked = None
    if choice.names:
        number = {track: i for i, track in enumerate(split.tracks.names)}
        if unknown := [track for track in choice.names if track not in number]:
            examples = ", ".join(islice(number, 3)) or "none"
            raise PipelineError(
                f"{name} has no track {unknown[0]!r}; it has {len(number)}: {examples}, ..."
            )
        numbers = [number[track] for track in choice.names]
    elif choice.video:
        numbers, untracked = _video_tracks(split, choice.video, raw, warnings)
    return Shown(
        name=name,
        origin=f"the cache {root}",
        raw=folder,
        body=body,
        stand_in=stand_in,
        reader=split.manifest.get("reader", {}),
        totals=split.manifest.get("accounting", {}),
        totals_of="the whole split",
        n_rejected=n_rejected,
        rejected=tuple(islice(messages, min(n_rejected, MOST_LISTED))),
        n_tracks=len(split.tracks),
        warnings=tuple(warnings),
        tracks=tuple(_cached_track(split, number, folder, choice.frames) for number in numbers),
        more=command("show", *name.split("/"), "--cache", str(root), "--out", "tracks.html"),
        digest=str(split.manifest["digest"]),
        untracked=untracked,
    )


def from_raw(
    dataset: Dataset,
    split: str,
    raw: Path,
    choice: Choice,
    *,
    body: Path | None = None,
    of: Container[str] | None = None,
) -> Shown:
    """The chosen tracks of a raw folder; reads only their videos.

    A video on which the reader fails is rejected, with a warning unless the error is a
    RawDataError.

    Args:
        of: Names of the videos to choose from; None: all.

    Raises:
        RawDataError: the folder is not the dataset's.
        PipelineError: the split or a track is missing.
        StandInMixed, MissingAssets: as `from_cache`.
    """
    dataset.check_split(split)
    parts = reader_parts(dataset, split, raw, body)
    _refuse_other_body(raw, parts["stand_in"], body)
    read = _RawTracks(
        dataset, split, raw, choice, load_body(body) if dataset.uses_body and body else None, of
    )
    if choice.names:
        tracks = [read.find_track(name) for name in choice.names]
    else:
        tracks = read.read_video(choice.video) if choice.video else read.spread_out()
    failed = [account for account in read.accounts.values() if is_failure(dataset, account)]
    defects = [account for account in failed if account.set_aside == UNEXPECTED]
    warnings = []
    if defects:
        further = f", and {len(defects) - 1:,} more" if len(defects) > 1 else ""
        warnings.append(
            f"The reader failed on video {defects[0].name}{further}: {defects[0].message}"
        )
    return Shown(
        name=f"{dataset.name}/{split}",
        origin=f"the raw folder {raw}, not from a cache",
        raw=raw,
        body=body,
        stand_in=parts["stand_in"],
        reader=parts,
        totals=Accounting(read.accounts.values()).totals(),
        totals_of=f"the videos that were read for this page: {len(read.accounts):,} of "
        f"{len(read.videos):,}",
        n_rejected=len(failed),
        rejected=tuple(account.rejection for account in failed[:MOST_LISTED]),
        n_tracks=None,
        warnings=tuple(warnings),
        tracks=tuple(tracks),
        untracked=read.untracked,
    )


class _RawTracks:
    """Tracks of a raw folder, read video by video; `accounts`: of the videos read so far."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        raw: Path,
        choice: Choice,
        body: Body | None,
        of: Container[str] | None,
    ) -> None:
        self._dataset = dataset.detect_layout(raw, split)
        self._split = split
        self._raw = raw
        self._choice = choice
        self._body = body
        self.videos = [
            video for video in self._dataset.videos(raw, split) if of is None or video.name in of
        ]
        self.accounts: dict[str, VideoAccount] = {}
        self.untracked: Untracked | None = None  # detections of the chosen video

    def _read(self, video: RawVideo) -> list[ShownTrack]:
        tracks: Sequence[Track] = ()
        with ExitStack() as stack, caching():
            refusals = stack.enter_context(reading_refused()) if self._choice.rejected else []
            try:
                account = (
                    DrawnAccount(video.name) if self._choice.video else VideoAccount(video.name)
                )
                tracks, _ = self._dataset.read_accounted(
                    self._raw, self._split, video, self._body, account
                )
            except Exception as error:  # keep the other videos
                account = VideoAccount(video.name)
                account.reject(UNEXPECTED, describe_error(error))
        self.accounts[video.name] = account
        if refusals:
            account.reject(refusals[0].reason, str(refusals[0]))
            account.notes[:0] = list(dict.fromkeys(f"rejected: {error}" for error in refusals))
        elif self._choice.rejected:
            return []  # the video is valid, or cannot be drawn
        self.untracked = Untracked.from_account(account, self._raw, video, "")
        declared = self._dataset.extra_columns(self._split, body=self._body is not None)
        extra = [column.name for column in declared if column.per == "row"]
        columns = [
            t.columns | {name: t.extra[name] for name in extra if name in t.extra} for t in tracks
        ]
        return [
            shown_track(
                t,
                track_columns,
                source=t.frames,
                notes=account.notes,
                frames=self._choice.frames,
                grade=grades.grade(t.columns | dict(t.extra), t.fps, t.frames, account.clip),
            )
            for t, track_columns in zip(tracks, columns, strict=True)
        ]

    def find_track(self, name: str) -> ShownTrack:
        """The track with this name, <video>/<person>. Raises PipelineError if it is missing."""
        candidates = [video for video in self.videos if name.startswith(f"{video.name}/")]
        tracks = {track.record.name: track for video in candidates for track in self._read(video)}
        if name not in tracks:
            failed = [
                a.rejection for video in candidates if (a := self.accounts[video.name]).set_aside
            ]
            has = f"its video has {', '.join(tracks) or '; '.join(failed) or 'none'}"
            raise PipelineError(
                f"{self._dataset.name}/{self._split} has no track {name!r}: "
                f"{has if candidates else 'there is no such video'}"
            )
        return tracks[name]

    def read_video(self, name: str) -> list[ShownTrack]:
        """All tracks of the video with this name. Raises PipelineError if there is none."""
        tracks = [
            track for video in self.videos if video.name == name for track in self._read(video)
        ]
        if not tracks and self.untracked is None:
            has = (
                self.accounts[name].rejection if name in self.accounts else "there is no such video"
            )
            raise _no_video(
                f"{self._dataset.name}/{self._split}",
                name,
                has,
                (video.name for video in self.videos),
            )
        return tracks

    def spread_out(self) -> list[ShownTrack]:
        """Tracks of videos spread evenly over the split (the first video with tracks of each
        part).
        """
        videos = self.videos
        if self._choice.rejected:
            some = (videos[i] for i in spread(len(videos), MOST_READ * self._choice.tracks))
            return [
                *islice(
                    chain.from_iterable(self._read(video)[:1] for video in some),
                    self._choice.tracks,
                )
            ]
        parts = min(self._choice.tracks, len(videos))
        starts = [i * len(videos) // parts for i in range(parts)]
        chosen: list[ShownTrack] = []
        for start, stop in pairwise([*starts, len(videos)]):
            tracks = next(
                filter(None, map(self._read, videos[start : min(stop, start + MOST_READ)])), []
            )
            chosen += [tracks[i] for i in spread(len(tracks), -(-self._choice.tracks // parts))]
        return [chosen[i] for i in spread(len(chosen), self._choice.tracks)]


def _video_tracks(
    split: Split, video: str, raw: Path | None, warnings: list[str]
) -> tuple[list[int], Untracked | None]:
    """Numbers of a video's tracks, and its other detections. Raises PipelineError if it is missing
    or has neither.
    """
    names = split.videos.names
    untracked = None
    number = names.index(video) if video in names else -1
    numbers = np.flatnonzero(split.tracks.video == number).tolist()
    try:
        untracked = read_untracked(split, split.videos[number], raw) if number >= 0 else None
    except (PipelineError, OSError) as error:
        warnings.append(str(error))
    if not numbers and untracked is None:
        known = (
            video_state(split.videos[number].account, ())
            if number >= 0
            else ("there is no such video",)
        )
        reason = ": ".join(filter(None, known))
        raise _no_video(
            split.name, video, reason, (names[i] for i in np.unique(split.tracks.video).tolist())
        )
    return numbers, untracked


def _no_video(name: str, video: str, reason: str, videos: Iterable[str]) -> PipelineError:
    names = list(videos)
    close = did_you_mean(video, names) if "no such video" in reason else ";"
    examples = "" if close != ";" else f" others have tracks: {', '.join(names[:3]) or 'none'}"
    return PipelineError(f"{name}, video {video!r}: {reason}{close}{examples}")


def _refuse_other_body(raw: Path, stand_in: bool, body: Path | None) -> None:
    if body is not None:
        refuse_mixture(raw, stand_in, body, smpl_files.digest(body)[1])


def spread(n: int, k: int) -> list[int]:
    """At most k of the numbers 0 .. n - 1, evenly spaced from the first to the last.

    >>> spread(10, 4), spread(2, 4), spread(7, 1)
    ([0, 3, 6, 9], [0, 1], [0])
    """
    return [round(position) for position in np.linspace(0, n - 1, min(n, k))]


def shown_track(
    track: Track | cache.TrackRecord,
    columns: Mapping[str, Array],
    *,
    source: FrameSource | None,
    notes: Sequence[str],
    frames: int,
    grade: grades.Grade | None = None,
) -> ShownTrack:
    """A track to show, from the cache's columns for all its frames. `grade`: None: by these
    columns.
    """
    frame_index = columns["frame_index"]
    marked = (
        columns["kp_2d"][..., 2] > 0
        if "kp_2d" in columns
        else np.zeros((len(frame_index), 0), np.bool_)
    )
    visible = marked.sum(axis=1)
    after = np.flatnonzero(np.diff(frame_index) != track.step) + 1
    chosen = spread(len(frame_index), frames)
    return ShownTrack(
        record=track,
        n_frames=len(frame_index),
        source=source,
        gaps=tuple((int(frame_index[i - 1]), int(frame_index[i])) for i in after),
        joints=tuple(JOINTS["spin49"][j] for j in np.flatnonzero(marked.any(axis=0))),
        visible=(int(visible.min()), int(visible.max())),
        flags={name: int((columns[name] == 1).sum()) for name in FLAGS if name in columns},
        notes=tuple(notes),
        grade=grades.grade(columns, track.fps, source) if grade is None else grade,
        rows={name: column[chosen] for name, column in columns.items()},
    )


def _cached_track(split: Split, number: int, raw: Path | None, frames: int) -> ShownTrack:
    record = split.tracks[number]
    entry = split.videos[int(split.tracks.video[number])]
    columns = {name: split.rows(name, record.start, record.stop) for name in split.columns}
    source = sources.parse(raw, entry.source) if raw is not None and entry.source else None
    notes = [str(note) for note in entry.account.get("notes", ())]
    if (
        source is not None
        and entry.pixels
        and source.place.exists()
        and source.digest() != sources.file_part(entry.pixels)
    ):
        notes.append("the images in the raw folder have changed since conversion")
    found = grades.track_grade(split, record, source, entry.account.get("clip", {}))
    return shown_track(record, columns, source=source, notes=notes, frames=frames, grade=found)
