"""The tracks that `show` draws: read from a cache, or as conversion would read them from raw files.
raw, cache -> [tracks] -> page

`from_cache` and `from_raw` choose tracks, and read each with its grade and its source of images.
`from_raw` reads as many videos as the choice needs, and accounts for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cache
from cache import Split
from pipeline import grades
from pipeline.accounting import Accounting, VideoAccount, VideoOutcome, is_error
from pipeline.datasets.base import Dataset
from pipeline.datasets.releases.misplaced import videos_of
from pipeline.errors import PipelineError, did_you_mean
from pipeline.files.pixels import sources
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import Frame, FrameSource
from pipeline.files.raw import RawVideo, refuse_mixture
from pipeline.files.raw.files import caching
from pipeline.grades.stored import StoredGrades, worst_first
from pipeline.grades.words import Grade
from pipeline.people import smpl_files
from pipeline.people.estimates import BodyFit, estimates_of, fits_of
from pipeline.people.skeletons import Array, Ints
from pipeline.people.track import FLAGS, Track
from pipeline.steps.conversion.identity import reader_parts
from pipeline.steps.conversion.reading import DEFECTS, reject_unexpected
from pipeline.steps.conversion_record import CORRECTIONS, ConversionRecord

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smplx_body import SmplxBody

MOST_LISTED: Final = 20  # rejected videos to list; the others are counted
# videos to read for one with tracks, since most videos of some splits have none
MOST_READ: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class ShownTrack:
    """A track with facts about all its frames, and their columns."""

    record: Track | cache.TrackRecord
    source: FrameSource | None  # None without images
    gaps: tuple[tuple[int, int], ...]  # (last frame before, first frame after)
    flags: Mapping[str, int]  # has_3d, has_smpl, valid -> number of frames that set it
    notes: tuple[str, ...]
    grade: Grade
    fits: tuple[BodyFit, ...]  # of estimated bodies
    rows: Mapping[str, Array]  # column -> (n, ...)
    clip: ClipRecord | None  # of its video, if known
    account: Mapping[str, Any]  # of its video

    @classmethod
    def from_columns(
        cls,
        track: Track | cache.TrackRecord,
        columns: Mapping[str, Array],
        *,
        source: FrameSource | None,
        notes: Sequence[str],
        grade: Grade,
        fits: tuple[BodyFit, ...] = (),
        account: Mapping[str, Any] = MappingProxyType({}),
    ) -> ShownTrack:
        """Make the record of a track to show.

        columns: of its frames (n, ...), with `frame_index`, and those of FLAGS that it has.
        """
        frame_index = columns["frame_index"]
        before = np.flatnonzero(np.diff(frame_index) != track.step)
        gaps = np.column_stack([frame_index[before], frame_index[before + 1]])
        return cls(
            record=track,
            source=source,
            gaps=tuple((start, stop) for start, stop in gaps.tolist()),
            flags={name: int((columns[name] == 1).sum()) for name in FLAGS if name in columns},
            notes=tuple(notes),
            grade=grade,
            fits=fits,
            rows=columns,
            clip=ClipRecord.from_dict(account.get("clip")),
            account=account,
        )

    @property
    def n_frames(self) -> int:
        return len(self.rows["frame_index"])

    @property
    def has_images(self) -> bool:
        """Whether it is in images; else it is a motion in a world."""
        return "bbox" in self.rows

    def intrinsics_of(self, row: int) -> Array | None:
        """Intrinsics (3, 3) px of a row (if the camera zooms), else of the track; None: unknown."""
        cameras = [self.record.intrinsics]
        if "intrinsics" in self.rows:
            cameras.insert(0, self.rows["intrinsics"][row])
        for camera in cameras:
            if camera is not None and np.isfinite(camera).all():
                return camera
        return None


Present = list[tuple[ShownTrack, int]]  # tracks in a frame, each with its row


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """A page's content except the pixels."""

    name: str  # <dataset>/<split>
    origin: str  # where the tracks are from, as the page says it: "the cache data/cache"
    raw: Path | None  # the raw folder; None if not recorded
    # folder of a body model, for tracks with SMPL parameters but without 3D joints
    body: Path | None
    stand_in: bool  # demo data
    reader: Mapping[str, Any]  # dataset, version, parameters, body; empty if not recorded
    totals: Mapping[str, Any]  # as Accounting.totals(); empty if not recorded
    totals_of: str  # what the totals count, as the page says it: "the whole split"
    n_rejected: int  # videos rejected because of errors
    rejected: tuple[str, ...]  # the first of them: video, reason and message
    warnings: tuple[str, ...]
    tracks: tuple[ShownTrack, ...]
    corrections: tuple[str, ...] = ()  # lines of the user
    digest: str = ""  # of the committed split, for `shows`


def from_cache(
    root: cache.Root,
    name: str,
    video: str = "",
    *,
    n_tracks: int | None = None,
    raw: Path | None = None,
    body: Path | None = None,
) -> PageContent:
    """Read tracks of <dataset>/<split>.

    Args:
        video: The tracks' video; default: that of the worst track.
        n_tracks: Read these worst tracks, in place of a video's.
        raw: The raw folder; None: as recorded at conversion.
        body: Folder of a body model, for tracks without 3D joints.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: the video has no track, or the raw folder is not recorded.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: the body's files are missing.
    """
    split = cache.open(root)[name]
    record = ConversionRecord(split)
    folder = raw or record.raw
    if folder is None and "bbox" in split.columns:
        raise record.unknown_raw()
    _refuse_other_body(folder or Path(name), record.is_stand_in, body)
    worst = worst_first(StoredGrades(split).numbers)
    if n_tracks is None:
        numbers = _video_tracks(split, video, worst)
    else:
        numbers = sorted(worst[:n_tracks].tolist())  # a video's one after the other
    return PageContent(
        name=name,
        origin=f"the cache {root}",
        raw=folder,
        body=body,
        stand_in=record.is_stand_in,
        reader=record.reader,
        totals=record.totals,
        totals_of="the whole split",
        n_rejected=record.n_rejected,
        rejected=tuple(islice(record.rejections(), min(record.n_rejected, MOST_LISTED))),
        corrections=tuple(_corrections(split)),
        warnings=tuple(_warnings(split, folder)),
        tracks=tuple(_cached_tracks(split, numbers, folder)),
        digest=str(split.manifest["digest"]),
    )


def from_raw(
    dataset: Dataset,
    split: str,
    raw: Path,
    video: str = "",
    *,
    body: Path | None = None,
) -> PageContent:
    """Read a video's tracks from a raw folder; by default, those of the first one that has any.

    A video on which the reader fails is rejected, with a warning unless the error is a
    RawDataError.

    Raises:
        RawDataError: the folder is not the dataset's.
        PipelineError: the split is missing, its files are elsewhere, or the video has no track.
        StandInMixed, MissingAssets: as `from_cache`.
    """
    dataset.check_split(split)
    parts = reader_parts(dataset, split, raw, body)
    if dataset.labels.body_model == "smpl":
        _refuse_other_body(raw, parts["stand_in"], body)
    model = None
    if dataset.labels.uses_body and body:
        model = dataset.load_body(body)
    reader = _RawTracks(dataset, split, raw, model)
    tracks = reader.read_video(video) if video else reader.read_first()
    accounts = list(reader.accounts.values())
    failures = [account for account in accounts if is_error(account.set_aside)]
    n_read = f"{len(accounts):,} of {len(reader.videos):,}"
    warnings = []
    defects = [account for account in failures if account.set_aside in DEFECTS]
    if defects:  # the reader itself has failed
        suffix = f", and {len(defects) - 1:,} more" if len(defects) > 1 else ""
        failed = f"{defects[0].name}{suffix}"
        problem = defects[0].message.removeprefix(f"{defects[0].name}: ")
        warnings.append(f"The dataset's code failed on video {failed}: {problem}")
    return PageContent(
        name=f"{dataset.name}/{split}",
        origin=f"the raw folder {raw}, not from a cache",
        raw=raw,
        body=body,
        stand_in=parts["stand_in"],
        reader=parts,
        totals=Accounting(accounts).totals(),
        totals_of=f"the videos that were read for this page: {n_read}",
        n_rejected=len(failures),
        rejected=tuple(account.rejection for account in failures[:MOST_LISTED]),
        warnings=tuple(warnings),
        tracks=tuple(tracks),
    )


def _warnings(split: Split, raw: Path | None) -> list[str]:
    warnings = []
    estimates = estimates_of(split)
    if estimates:
        warnings.append(f"Bodies are {estimates}, no ground truth.")
    if raw is not None and not raw.is_dir():
        warnings.append(
            f"The raw folder {raw} does not exist, so no frame can be shown. Name it: --raw DIR"
        )
    return warnings


def _video_tracks(split: Split, video: str, worst: Ints) -> list[int]:
    """Numbers of a video's tracks; "": of that of the first of `worst`. Raises PipelineError if
    the video is missing or has none.
    """
    if not video:
        return grades.tracks_of(split, int(split.tracks.video[worst[0]])) if len(worst) else []
    names = split.videos.names
    names_with_tracks = [names[i] for i in np.unique(split.tracks.video).tolist()]
    if video not in names:
        raise _no_video(split.name, video, None, names_with_tracks)
    number = names.index(video)
    numbers = grades.tracks_of(split, number)
    if not numbers:
        outcome = VideoOutcome.from_account(split.videos[number].account)
        reason = ": ".join(filter(None, outcome))
        raise _no_video(split.name, video, reason, names_with_tracks)
    return numbers


def _cached_tracks(split: Split, numbers: Sequence[int], raw: Path | None) -> Iterator[ShownTrack]:
    """Read the tracks with these numbers, each with its rows, images and notes, and how well its
    imported bodies fit. A video's tracks are graded together.
    """
    for video, numbers_of_video in groupby(numbers, lambda n: int(split.tracks.video[n])):
        entry = split.videos[video]
        source = None
        if raw is not None and entry.source:
            source = sources.parse(raw, entry.source)
        notes = [str(note) for note in entry.account.get("notes", ())]
        for person, first, last in entry.account.get("too_short", ()):
            notes.append(f"too few frames for a track: {person} in {first} to {last}")
        if source is not None and entry.pixels and source.place.exists():
            if source.digest() != sources.file_part(entry.pixels):
                notes.append("the images in the raw folder have changed since conversion")
        graded = grades.video_grades(split, grades.tracks_of(split, video), source)
        for number in numbers_of_video:
            record = split.tracks[number]
            columns = {name: split.rows(name, record.start, record.stop) for name in split.columns}
            yield ShownTrack.from_columns(
                record,
                columns,
                source=source,
                notes=notes,
                grade=graded[record.name],
                fits=fits_of(entry.account, record.name),
                account=entry.account,
            )


class _RawTracks:
    """Tracks of a raw folder, read video by video.

    Attributes:
        videos: All of the split.
        accounts: Name -> account of the videos that were read so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        raw: Path,
        body: Body | SmplxBody | None,
    ) -> None:
        self._dataset = dataset.detect_layout(raw, split)
        self._split = split
        self._raw = raw
        self._body = body
        self.videos = videos_of(self._dataset, raw, split)
        self.accounts: dict[str, VideoAccount] = {}

    def read_first(self) -> list[ShownTrack]:
        """Read the tracks of the first video that has any."""
        videos = self.videos[:MOST_READ]
        return next(filter(None, map(self._read, videos)), [])

    def _read(self, video: RawVideo) -> list[ShownTrack]:
        """Read and grade a video's tracks, and account for it."""
        tracks: Sequence[Track] = ()
        with caching():
            try:
                tracks, account = self._dataset.read_accounted(
                    self._raw, self._split, video, self._body
                )
            except Exception as error:  # keep the other videos
                account = VideoAccount(video.name)
                reject_unexpected(account, error)
        self.accounts[video.name] = account
        if not tracks:
            return []
        people = [track.columns | dict(track.extra) for track in tracks]
        graded = grades.grades_of(tracks, people, account.as_dict(), tracks[0].frames)
        extra = self._dataset.extra_columns(self._split, body=self._body is not None)
        of_rows = {column.name for column in extra if column.per == "row"}
        shown = []
        for track, grade in zip(tracks, graded, strict=True):
            columns = {name: track.extra[name] for name in of_rows & track.extra.keys()}
            shown.append(
                ShownTrack.from_columns(
                    track,
                    track.columns | columns,
                    source=track.frames,
                    notes=account.notes,
                    grade=grade,
                    account=account.as_dict(),
                )
            )
        return shown

    def read_video(self, name: str) -> list[ShownTrack]:
        """All tracks of the video with this name. Raises PipelineError if there is none."""
        tracks: list[ShownTrack] = []
        for video in self.videos:
            if video.name == name:
                tracks += self._read(video)
        if not tracks:
            split = f"{self._dataset.name}/{self._split}"
            names = [video.name for video in self.videos if video.name != name]
            reason = None
            if name in self.accounts:
                outcome = VideoOutcome.from_account(self.accounts[name].as_dict())
                reason = ": ".join(filter(None, outcome))
            raise _no_video(split, name, reason, names)
        return tracks


def read_frames(tracks: Sequence[ShownTrack]) -> Iterator[tuple[Frame, Present]]:
    """Decode a video once for all of its tracks. Yields the frames in which one of them has a row;
    without images or problems if there is no source.
    """
    present_in: dict[int, Present] = {}
    for track in tracks:
        for row, index in enumerate(track.rows["frame_index"].tolist()):
            present_in.setdefault(index, []).append((track, row))
    indices = sorted(present_in)
    source = tracks[0].source
    frames: Iterable[Frame] = (Frame(index, None, None) for index in indices)
    if source is not None:
        frames = source.read(indices)
    for frame in frames:
        yield frame, present_in[frame.index]


def _refuse_other_body(raw: Path, stand_in: bool, body: Path | None) -> None:
    """Raise StandInMixed if body and tracks are not both real or both demo data, MissingAssets if
    files of the body are missing.
    """
    if body is not None:
        smpl_files.body_files(body)  # raises MissingAssets
        refuse_mixture(raw, body, is_demo=stand_in)


def _no_video(name: str, video: str, reason: str | None, others: Sequence[str]) -> PipelineError:
    """The error for a chosen video of split `name` without tracks.

    reason: why it has none; None: there is no such video. others: names of videos with tracks.
    """
    suggestion = ""
    if reason is None:
        reason = "there is no such video"
        suggestion = did_you_mean(video, others)
    if not suggestion:
        suggestion = f"; others have tracks: {', '.join(others[:3]) or 'none'}"
    return PipelineError(f"{name}, video {video!r}: {reason}{suggestion}")


def _corrections(split: cache.Split) -> list[str]:
    """The lines by which the user has corrected tracks."""
    if not split.provenance.get(CORRECTIONS):  # no look at all videos, which may be 400,000
        return []
    return [*chain(*(video.account.get("corrections", ()) for video in split.videos))]
