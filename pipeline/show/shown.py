"""The records that the page of `show` is made from.  raw, cache -> [tracks] -> page

`raw_tracks.py` fills them from raw files, `tracks.py` from a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline import grades
from pipeline.errors import PipelineError
from pipeline.estimates import BodyFit
from pipeline.files.formats import smpl_files
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.raw import refuse_mixture
from pipeline.skeletons import Array
from pipeline.track import FLAGS, Track

MOST_LISTED: Final = 20  # rejected videos to list; the others are counted
PAGE_FRAMES: Final = 5
NO_SUCH_VIDEO: Final = "there is no such video"


@dataclass(frozen=True, slots=True)
class Choice:
    """Tracks to show: all of `video`, or if it is empty, `n_tracks` spread over the split."""

    n_tracks: int = 6
    video: str = ""
    n_frames: int = PAGE_FRAMES  # per track, evenly spaced


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class ShownTrack:
    """A track with facts about all its frames, and the columns of the frames to draw."""

    record: Track | cache.TrackRecord
    n_frames: int
    source: FrameSource | None  # None without images
    gaps: tuple[tuple[int, int], ...]  # (last frame before, first frame after)
    flags: Mapping[str, int]  # has_3d, has_smpl, valid -> number of frames that set it
    notes: tuple[str, ...]
    grade: grades.Grade
    fits: tuple[BodyFit, ...]  # of estimated bodies
    rows: Mapping[str, Array]  # column -> (n, ...) at the n frames to draw


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
    left_out: tuple[str, ...]  # names of tracks that the user left out
    n_tracks: int | None  # in the split; None if it was not read as a whole
    warnings: tuple[str, ...]
    tracks: tuple[ShownTrack, ...]
    digest: str = ""  # of the committed split, for `shows`


def refuse_other_body(raw: Path, stand_in: bool, body: Path | None) -> None:
    """Raise StandInMixed if body and tracks are not both real or both demo data."""
    if body is not None:
        refuse_mixture(raw, stand_in, body, smpl_files.body_files(body).stand_in)


def evenly_spaced(n: int, k: int) -> list[int]:
    """At most k of the numbers 0 .. n - 1, evenly spaced from the first to the last.

    >>> evenly_spaced(10, 4), evenly_spaced(2, 4), evenly_spaced(7, 1)
    ([0, 3, 6, 9], [0, 1], [0])
    """
    return [round(position) for position in np.linspace(0, n - 1, min(n, k))]


def shown_track(
    track: Track | cache.TrackRecord,
    columns: Mapping[str, Array],
    *,
    source: FrameSource | None,
    notes: Sequence[str],
    n_frames: int,
    grade: grades.Grade,
    fits: tuple[BodyFit, ...] = (),
) -> ShownTrack:
    """Make the record of a track to show.

    columns: of all its frames (n, ...), with `frame_index`, and those of FLAGS that it has.
    n_frames: how many of them to draw.
    """
    frame_index = columns["frame_index"]
    before = np.flatnonzero(np.diff(frame_index) != track.step)
    gaps = np.column_stack([frame_index[before], frame_index[before + 1]])
    chosen = evenly_spaced(len(frame_index), n_frames)
    return ShownTrack(
        record=track,
        n_frames=len(frame_index),
        source=source,
        gaps=tuple((start, stop) for start, stop in gaps.tolist()),
        flags={name: int((columns[name] == 1).sum()) for name in FLAGS if name in columns},
        notes=tuple(notes),
        grade=grade,
        fits=fits,
        rows={name: column[chosen] for name, column in columns.items()},
    )


def no_video(
    name: str, video: str, reason: str, others: Sequence[str], suggestion: str = ""
) -> PipelineError:
    """The error for a chosen video of split `name` without tracks.

    others: Names of videos with tracks. suggestion: End of the message (default: some of `others`).
    """
    if not suggestion:
        suggestion = f"; others have tracks: {', '.join(others[:3]) or 'none'}"
    return PipelineError(f"{name}, video {video!r}: {reason}{suggestion}")
