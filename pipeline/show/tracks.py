"""What a page shows of a split, whether it comes from the cache or straight from the raw files.  [tracks] -> page"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.conversion.convert import FLAGS
from pipeline.pixels.frames import FrameSource
from pipeline.skeletons import JOINTS
from pipeline.track import Track

Array = NDArray[Any]

MOST_TOLD: Final = 20  # set-aside videos told in words; the rest are counted


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tracks and frames: those called `names`, or else `tracks` of them spread over the split."""

    tracks: int = 6
    names: tuple[str, ...] = ()
    frames: int = 5  # of each track, spread over it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class ShownTrack:
    """One track: what is said of all its frames, and the columns of the few frames that are drawn."""

    name: str
    video: str
    n_frames: int
    fps: float  # nan where not known
    step: int
    gender: str
    crop_scale: float
    source: FrameSource | None  # None without pictures
    gaps: tuple[tuple[int, int], ...]  # (last frame before, first frame after) where frames are not one step apart
    joints: tuple[str, ...]  # of spin49: visible in some frame
    visible: tuple[int, int]  # fewest and most visible joints in a frame
    flags: Mapping[str, int]  # has_3d, has_smpl, valid: in how many frames; only those that the track says
    notes: tuple[str, ...]  # the account's, and about the pixels
    rows: Mapping[str, Array]  # column -> (n, ...) at the n frames that are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page's content but for the pixels: the split, what became of it, and the tracks to draw."""

    name: str  # <dataset>/<split>
    origin: str  # where the tracks come from, in words
    raw: Path | None  # the raw folder; None where nobody knows it, and nothing is needed from it
    stand_in: bool
    reader: Mapping[str, Any]  # dataset, version, parameters, body: what decided the tracks; empty when not recorded
    totals: Mapping[str, Any]  # as Accounting.totals(); empty when not recorded
    totals_of: str  # whose, in words
    set_aside: tuple[str, ...]  # the first of them, in words
    more_set_aside: int
    n_tracks: int | None  # in the split; None when it was not read as a whole
    warnings: tuple[str, ...]
    tracks: tuple[ShownTrack, ...]


def spread(n: int, k: int) -> list[int]:
    """At most k of the numbers 0 .. n - 1, evenly from the first to the last.

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
) -> ShownTrack:
    """What is shown of a track whose columns, by their names in the cache, are given for all its frames."""
    frame_index = columns["frame_index"]
    seen = columns["kp_2d"][..., 2] > 0 if "kp_2d" in columns else np.zeros((len(frame_index), 0), np.bool_)
    visible = seen.sum(axis=1)
    after = np.flatnonzero(np.diff(frame_index) != track.step) + 1
    chosen = spread(len(frame_index), frames)
    return ShownTrack(
        name=track.name,
        video=track.video,
        n_frames=len(frame_index),
        fps=track.fps,
        step=track.step,
        gender=track.gender,
        crop_scale=track.crop_scale,
        source=source,
        gaps=tuple((int(frame_index[i - 1]), int(frame_index[i])) for i in after),
        joints=tuple(JOINTS["spin49"][j] for j in np.flatnonzero(seen.any(axis=0))),
        visible=(int(visible.min()), int(visible.max())),
        flags={name: int((columns[name] == 1).sum()) for name in FLAGS if name in columns},
        notes=tuple(notes),
        rows={name: column[chosen] for name, column in columns.items()},
    )
