"""Tracks to show of a split, from the cache or from raw files.  raw, cache -> [tracks] -> page"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
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
from pipeline.errors import PipelineError, RawDataError, did_you_mean, reading_refused
from pipeline.estimates import BodyFit, estimates_of, fits_of
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
    fits: tuple[BodyFit, ...]  # of estimated bodies
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
    digest: str = ""  # of the committed split, for `shows`
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
        return _rejected_from_raw(split, choice, raw, body)
    stand_in = bool(split.manifest.get("stand_in", False))
    folder = _raw_folder(split, raw)
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
    untracked = None
    if choice.names:
        numbers = _track_numbers(split, choice.names)
    elif choice.video:
        numbers, untracked = _video_tracks(split, choice.video, raw, warnings)
    else:
        numbers = spread(len(split.tracks), choice.tracks)
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


def _rejected_from_raw(split: Split, choice: Choice, raw: Path | None, body: Path | None) -> Shown:
    reader, raw_folder, model = recorded_reader(split, raw, body)
    videos = set()
    for video in split.videos:
        if video.account.get("set_aside", "") in REFUSED:
            videos.add(video.name)
    split_name = split.name.partition("/")[2]
    return from_raw(reader, split_name, raw_folder, choice, body=model, videos=videos)


def _raw_folder(split: Split, raw: Path | None) -> Path | None:
    """`raw`, else the recorded folder; None for labels without images."""
    if raw is not None:
        return raw
    recorded = split.provenance.get("raw")
    if recorded is not None:
        return Path(str(recorded))
    if "bbox" in split.columns:
        raise PipelineError(
            f"{split.name}: its raw folder is not recorded, since provenance.json is missing. Name "
            "the dataset's raw folder: --raw DIR"
        )
    return None


def _track_numbers(split: Split, names: Iterable[str]) -> list[int]:
    """Numbers of these tracks. Raises PipelineError if one is missing."""
    number_by_name = {track: number for number, track in enumerate(split.tracks.names)}
    numbers = []
    for name in names:
        if name not in number_by_name:
            examples = ", ".join(islice(number_by_name, 3)) or "none"
            raise PipelineError(
                f"{split.name} has no track {name!r}; it has {len(number_by_name)}: {examples}, ..."
            )
        numbers.append(number_by_name[name])
    return numbers


def from_raw(
    dataset: Dataset,
    split: str,
    raw: Path,
    choice: Choice,
    *,
    body: Path | None = None,
    videos: Container[str] | None = None,
) -> Shown:
    """The chosen tracks of a raw folder; reads only their videos.

    A video on which the reader fails is rejected, with a warning unless the error is a
    RawDataError.

    Args:
        videos: Names of the videos to choose from; None: all.

    Raises:
        RawDataError: the folder is not the dataset's.
        PipelineError: the split or a track is missing.
        StandInMixed, MissingAssets: as `from_cache`.
    """
    dataset.check_split(split)
    parts = reader_parts(dataset, split, raw, body)
    _refuse_other_body(raw, parts["stand_in"], body)
    model = load_body(body) if dataset.uses_body and body else None
    read = _RawTracks(dataset, split, raw, choice, model, videos)
    if choice.names:
        tracks = [read.find_track(name) for name in choice.names]
    elif choice.video:
        tracks = read.read_video(choice.video)
    elif choice.rejected:
        tracks = read.rejected()
    else:
        tracks = read.spread_out()

    failed = [account for account in read.accounts.values() if is_failure(dataset, account)]
    defects = [account for account in failed if account.set_aside == UNEXPECTED]
    warnings = []
    if defects:
        further = f", and {len(defects) - 1:,} more" if len(defects) > 1 else ""
        warnings.append(
            f"The reader failed on video {defects[0].name}{further}: {defects[0].message}"
        )
    counted = f"{len(read.accounts):,} of {len(read.videos):,}"
    return Shown(
        name=f"{dataset.name}/{split}",
        origin=f"the raw folder {raw}, not from a cache",
        raw=raw,
        body=body,
        stand_in=parts["stand_in"],
        reader=parts,
        totals=Accounting(read.accounts.values()).totals(),
        totals_of=f"the videos that were read for this page: {counted}",
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
        videos: Container[str] | None,
    ) -> None:
        self._dataset = dataset.detect_layout(raw, split)
        self._split = split
        self._raw = raw
        self._choice = choice
        self._body = body
        self.videos: Sequence[RawVideo] = self._dataset.videos(raw, split)
        if videos is not None:
            self.videos = [video for video in self.videos if video.name in videos]
        self.accounts: dict[str, VideoAccount] = {}
        self.untracked: Untracked | None = None  # detections of the chosen video

    def _read(self, video: RawVideo) -> list[ShownTrack]:
        tracks: Sequence[Track] = ()
        refusals: list[RawDataError] = []
        with ExitStack() as stack, caching():
            if self._choice.rejected:
                refusals = stack.enter_context(reading_refused())
            account = VideoAccount(video.name)
            if self._choice.video:
                account = DrawnAccount(video.name)
            try:
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
        return [self._shown(track, account) for track in tracks]

    def _shown(self, track: Track, account: VideoAccount) -> ShownTrack:
        columns = track.columns
        for column in self._dataset.extra_columns(self._split, body=self._body is not None):
            if column.per == "row" and column.name in track.extra:
                columns[column.name] = track.extra[column.name]
        graded = track.columns | dict(track.extra)
        return shown_track(
            track,
            columns,
            source=track.frames,
            notes=account.notes,
            frames=self._choice.frames,
            grade=grades.grade(graded, track.fps, track.frames, account.clip),
        )

    def find_track(self, name: str) -> ShownTrack:
        """The track with this name, <video>/<person>. Raises PipelineError if it is missing."""
        failed = []
        tracks: dict[str, ShownTrack] = {}
        reason = "there is no such video"
        for video in self.videos:
            if name.startswith(f"{video.name}/"):
                tracks |= {track.record.name: track for track in self._read(video)}
                account = self.accounts[video.name]
                if account.set_aside:
                    failed.append(account.rejection)
                reason = f"its video has {', '.join(tracks) or '; '.join(failed) or 'none'}"
        if name not in tracks:
            raise PipelineError(
                f"{self._dataset.name}/{self._split} has no track {name!r}: {reason}"
            )
        return tracks[name]

    def read_video(self, name: str) -> list[ShownTrack]:
        """All tracks of the video with this name. Raises PipelineError if there is none."""
        tracks: list[ShownTrack] = []
        for video in self.videos:
            if video.name == name:
                tracks += self._read(video)
        if not tracks and self.untracked is None:
            reason = "there is no such video"
            if name in self.accounts:
                reason = self.accounts[name].rejection
            names = [video.name for video in self.videos]
            raise _no_video(f"{self._dataset.name}/{self._split}", name, reason, names)
        return tracks

    def rejected(self) -> list[ShownTrack]:
        """First tracks of rejected videos, spread evenly over the split."""
        n_tracks = self._choice.tracks
        chosen: list[ShownTrack] = []
        for i in spread(len(self.videos), MOST_READ * n_tracks):
            if len(chosen) == n_tracks:
                break
            chosen += self._read(self.videos[i])[:1]
        return chosen

    def spread_out(self) -> list[ShownTrack]:
        """Tracks of videos spread evenly over the split (the first video with tracks of each
        part).
        """
        n_videos = len(self.videos)
        n_tracks = self._choice.tracks
        n_parts = min(n_tracks, n_videos)
        starts = [i * n_videos // n_parts for i in range(n_parts)]
        chosen: list[ShownTrack] = []
        for start, stop in pairwise([*starts, n_videos]):
            tracks = self._first_tracks(self.videos[start : min(stop, start + MOST_READ)])
            chosen += [tracks[i] for i in spread(len(tracks), math.ceil(n_tracks / n_parts))]
        return [chosen[i] for i in spread(len(chosen), n_tracks)]

    def _first_tracks(self, videos: Iterable[RawVideo]) -> list[ShownTrack]:
        """All tracks of the first of these videos that has any."""
        for video in videos:
            tracks = self._read(video)
            if tracks:
                return tracks
        return []


def _video_tracks(
    split: Split, video: str, raw: Path | None, warnings: list[str]
) -> tuple[list[int], Untracked | None]:
    """Numbers of a video's tracks, and its other detections. Raises PipelineError if it is missing
    or has neither.
    """
    names = split.videos.names
    with_tracks = [names[i] for i in np.unique(split.tracks.video).tolist()]
    if video not in names:
        raise _no_video(split.name, video, "there is no such video", with_tracks)
    number = names.index(video)
    numbers = np.flatnonzero(split.tracks.video == number).tolist()
    untracked = None
    try:
        untracked = read_untracked(split, split.videos[number], raw)
    except (PipelineError, OSError) as error:
        warnings.append(str(error))
    if not numbers and untracked is None:
        state = video_state(split.videos[number].account, ())
        raise _no_video(split.name, video, ": ".join(filter(None, state)), with_tracks)
    return numbers, untracked


def _no_video(name: str, video: str, reason: str, videos: Sequence[str]) -> PipelineError:
    end = ";"
    if "no such video" in reason:
        end = did_you_mean(video, videos)
    if end == ";":
        end = f"; others have tracks: {', '.join(videos[:3]) or 'none'}"
    return PipelineError(f"{name}, video {video!r}: {reason}{end}")


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
    fits: tuple[BodyFit, ...] = (),
) -> ShownTrack:
    """A track to show, from the cache's columns for all its frames. `grade`: None: by these
    columns.
    """
    frame_index = columns["frame_index"]
    is_visible = np.zeros((len(frame_index), 0), np.bool_)
    if "kp_2d" in columns:
        is_visible = columns["kp_2d"][..., 2] > 0
    n_visible = is_visible.sum(axis=1)
    if grade is None:
        grade = grades.grade(columns, track.fps, source)
    before = np.flatnonzero(np.diff(frame_index) != track.step)
    gaps = np.column_stack([frame_index[before], frame_index[before + 1]])
    chosen = spread(len(frame_index), frames)
    return ShownTrack(
        record=track,
        n_frames=len(frame_index),
        source=source,
        gaps=tuple((start, stop) for start, stop in gaps.tolist()),
        joints=tuple(JOINTS["spin49"][j] for j in np.flatnonzero(is_visible.any(axis=0))),
        visible=(int(n_visible.min()), int(n_visible.max())),
        flags={name: int((columns[name] == 1).sum()) for name in FLAGS if name in columns},
        notes=tuple(notes),
        grade=grade,
        fits=fits,
        rows={name: column[chosen] for name, column in columns.items()},
    )


def _cached_track(split: Split, number: int, raw: Path | None, frames: int) -> ShownTrack:
    record = split.tracks[number]
    entry = split.videos[int(split.tracks.video[number])]
    columns = {name: split.rows(name, record.start, record.stop) for name in split.columns}
    notes = [str(note) for note in entry.account.get("notes", ())]
    source = None
    if raw is not None and entry.source:
        source = sources.parse(raw, entry.source)
        if entry.pixels and source.place.exists():
            if source.digest() != sources.file_part(entry.pixels):
                notes.append("the images in the raw folder have changed since conversion")
    grade = grades.track_grade(split, record, source, entry.account.get("clip", {}))
    fits = fits_of(entry.account, record.name)
    return shown_track(
        record, columns, source=source, notes=notes, frames=frames, grade=grade, fits=fits
    )
