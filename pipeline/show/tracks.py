"""Read tracks to show from a split of a cache.  cache -> [tracks] -> page

`from_cache` chooses tracks, and reads each with its grade and its source of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

import cache
from cache import Split
from pipeline import grades
from pipeline.conversion.committed import left_out_tracks, rejected_videos, video_state
from pipeline.errors import PipelineError, did_you_mean
from pipeline.estimates import estimates_of, fits_of
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource
from pipeline.show.shown import (
    MOST_LISTED,
    NO_SUCH_VIDEO,
    Choice,
    PageContent,
    ShownTrack,
    evenly_spaced,
    no_video,
    refuse_other_body,
    shown_track,
)


def from_cache(
    root: cache.Root,
    name: str,
    choice: Choice,
    *,
    raw: Path | None = None,
    body: Path | None = None,
) -> PageContent:
    """Read the chosen tracks of <dataset>/<split>.

    Args:
        raw: The raw folder; None: as recorded at conversion.
        body: Folder of a body model, for tracks without 3D joints.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: the video has no track, or the raw folder is not recorded.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: the body's files are missing.
    """
    split = cache.open(root)[name]
    stand_in = bool(split.manifest.get("stand_in", False))
    folder = _raw_folder(split, raw)
    refuse_other_body(folder or Path(name), stand_in, body)
    n_rejected, rejections = rejected_videos(split)
    numbers = _choose_tracks(split, choice)
    return PageContent(
        name=name,
        origin=f"the cache {root}",
        raw=folder,
        body=body,
        stand_in=stand_in,
        reader=split.manifest.get("reader", {}),
        totals=split.manifest.get("accounting", {}),
        totals_of="the whole split",
        n_rejected=n_rejected,
        rejected=tuple(islice(rejections, min(n_rejected, MOST_LISTED))),
        left_out=tuple(left_out_tracks(split)),
        n_tracks=len(split.tracks),
        warnings=tuple(_warnings(split, folder)),
        tracks=tuple(_cached_tracks(split, numbers, folder, choice.n_frames)),
        digest=str(split.manifest["digest"]),
    )


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


def _choose_tracks(split: Split, choice: Choice) -> list[int]:
    """Numbers of the chosen tracks. Raises PipelineError if the video has none."""
    if choice.video:
        return _video_tracks(split, choice.video)
    return evenly_spaced(len(split.tracks), choice.n_tracks)


def _video_tracks(split: Split, video: str) -> list[int]:
    """Numbers of a video's tracks. Raises PipelineError if the video is missing or has none."""
    names = split.videos.names
    names_with_tracks = [names[i] for i in np.unique(split.tracks.video).tolist()]
    if video not in names:
        similar = did_you_mean(video, names_with_tracks)
        raise no_video(split.name, video, NO_SUCH_VIDEO, names_with_tracks, similar)
    number = names.index(video)
    numbers = grades.tracks_of(split, number)
    if not numbers:
        state = video_state(split.videos[number].account)
        reason = ": ".join(filter(None, state))
        raise no_video(split.name, video, reason, names_with_tracks)
    return numbers


def _cached_tracks(
    split: Split, numbers: Sequence[int], raw: Path | None, n_frames: int
) -> Iterator[ShownTrack]:
    """The tracks with these numbers; a video's tracks are graded together."""
    grade_by_name: dict[str, grades.Grade] = {}  # of the last video's tracks
    for number in numbers:
        record = split.tracks[number]
        if record.name not in grade_by_name:
            video = int(split.tracks.video[number])
            video_numbers = grades.tracks_of(split, video)
            source = _source_of(split, video, raw)
            grade_by_name = grades.video_grades(split, video_numbers, source)
        yield _cached_track(split, number, raw, n_frames, grade_by_name[record.name])


def _source_of(split: Split, video: int, raw: Path | None) -> FrameSource | None:
    """Where a video's images are; None without a raw folder or images."""
    entry = split.videos[video]
    if raw is None or not entry.source:
        return None
    return sources.parse(raw, entry.source)


def _cached_track(
    split: Split, number: int, raw: Path | None, n_frames: int, grade: grades.Grade
) -> ShownTrack:
    """Read one track with its rows, images and notes, and how well its imported bodies fit."""
    record = split.tracks[number]
    video = int(split.tracks.video[number])
    entry = split.videos[video]
    columns = {name: split.rows(name, record.start, record.stop) for name in split.columns}
    notes = [str(note) for note in entry.account.get("notes", ())]
    source = _source_of(split, video, raw)
    if source is not None and entry.pixels and source.place.exists():
        if source.digest() != sources.file_part(entry.pixels):
            notes.append("the images in the raw folder have changed since conversion")
    fits = fits_of(entry.account, record.name)
    return shown_track(
        record, columns, source=source, notes=notes, n_frames=n_frames, grade=grade, fits=fits
    )
