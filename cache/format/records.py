"""Videos and tracks to write: their checks, and their records in JSON.  raw -> [tracks] -> features
-> windows

A caller of `NextCommit.append` gives a `VideoEntry` and its `TrackRows`. `check_track` refuses what
a split cannot hold. They become a `VideoRecord`, which is stored in uncommitted work, and from
which `Tables.from_records` makes the split's tables: all about a video and its tracks, except the
rows themselves.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NoReturn, Self

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format.extra import ExtraColumn
from cache.format.layout import COLUMNS, GENDERS, canonical

# Label -> the flag column that marks its known rows. Without that column, readers would take the
# label as unknown in all rows.
_NEEDS_FLAG: Final = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class TrackRows:
    """One track to write: a person in T frames of one video. Leave out columns without labels."""

    name: str  # <video>/<person>, unique within the split
    video: str
    step: int  # frames of the video from one row to the next, except at gaps
    fps: float  # of the video's own frames during the track; nan where not known
    crop_scale: float  # crop side / box side
    gender: str = "neutral"
    intrinsics: Array | None = None  # (3, 3) px
    # name in COLUMNS -> (T, *trailing)
    columns: Mapping[str, Array] = field(default_factory=dict)
    # name of an extra column -> (T, *shape), or (*shape) for a column per track
    extra: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One raw video: its pixel source, fingerprints and frame accounting."""

    name: str  # unique within the split
    source: str = ""  # the pixel source below the raw folder, in one line; "" without pixels
    # hex; changes when the pixels do, and not when only labels do; "" without pixels
    pixels: str = ""
    width: int = 0  # px; 0 without pixels
    height: int = 0
    fingerprint: str = ""  # hex; of the raw files
    # what became of its frames: how many were found, kept, dropped and why; any JSON object
    account: Mapping[str, Any] = field(default_factory=dict)
    # Numbers of its tracks by name, which each commit adds up over all videos: finite, or NaN if
    # unknown
    sums: Mapping[str, float] = field(default_factory=dict)
    # A text about its tracks that uncommitted work has for the caller (`NextCommit.measures`); it
    # is in no table
    measures: str = field(default="", compare=False)


def check_track(
    track: TrackRows, video: str, columns: Collection[str], extra: Iterable[ExtraColumn] = ()
) -> None:
    """Raise CacheError unless a track can be written to a split with these columns.

    Names, shapes, dtypes and values are checked. Floats may be rounded to a column's dtype;
    integers must fit exactly. Values of `extra` columns may not equal the fill value.

    Args:
        video: name of the video that the track must belong to.
        columns: names of the split's columns.
        extra: the split's extra columns.
    """
    extras = columns_by_name(extra)

    def refuse(problem: str) -> NoReturn:
        raise CacheError(f"track {track.name!r} of video {video!r}: {problem}")

    if track.video != video:
        refuse(f"belongs to video {track.video!r}")
    if track.gender not in GENDERS:
        refuse(f"gender is {track.gender!r}, expected one of {', '.join(GENDERS)}")
    strange = sorted(track.columns.keys() - (set(columns) & COLUMNS.keys()))
    if strange:
        refuse(f"columns {strange} are not among this split's: {sorted(columns)}")
    strange = sorted(track.extra.keys() - extras.keys())
    if strange:
        refuse(f"extra columns {strange} are not declared; those that are: {sorted(extras)}")
    if "frame_index" not in track.columns:
        refuse("has no frame_index")
    for label, flag in _NEEDS_FLAG.items():
        if label in track.columns and flag not in track.columns:
            refuse(f"{label} comes without {flag}, which marks its known rows")
    n_rows = len(track.columns["frame_index"])
    specs = {**COLUMNS, **extras}
    for name, array in {**track.columns, **track.extra}.items():
        problem = specs[name].problem(array, n_rows)
        if problem:
            refuse(f"{name} {problem}")
    frames = track.columns["frame_index"].astype(np.int64)
    is_increasing = n_rows > 0 and frames[0] >= 0 and (np.diff(frames) > 0).all()
    if not is_increasing or track.step < 1:
        refuse("frame_index must be non-empty, from 0 on and strictly increasing, and step >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord(VideoEntry):
    """A video and its tracks, whose rows have their numbers in the split. In uncommitted work, it
    is a JSON object with these fields.

    A track is a JSON object. `runs` are the segments without a gap in the frame numbers, and
    `track_<name>` are values of extra track columns:

        {"name": "0001/0", "start": 8192, "stop": 8342, "step": 1, "fps": 25.0, "crop_scale": 1.3,
         "gender": "neutral", "intrinsics": None, "runs": [(8192, 8300), (8300, 8342)],
         "track_height": 1.8}
    """

    tracks: Sequence[Mapping[str, Any]]
    stop: int  # the row after its last one
    key: str  # what decides its rows besides the writer's plan; "" if nothing does

    @classmethod
    def make(
        cls,
        entry: VideoEntry,
        tracks: Sequence[TrackRows],
        start: int,
        *,
        extra: Collection[ExtraColumn],
        key: str,
    ) -> Self:
        """Make the record of a video whose rows are numbered from `start` on."""
        records = []
        stop = start
        for track in tracks:
            frame_index = np.asarray(track.columns["frame_index"])
            intrinsics = None
            if track.intrinsics is not None:
                intrinsics = np.asarray(track.intrinsics, np.float64).tolist()
            record = {
                "name": track.name,
                "start": stop,
                "stop": stop + len(frame_index),
                "step": int(track.step),
                "fps": float(track.fps),
                "crop_scale": float(track.crop_scale),
                "gender": track.gender,
                "intrinsics": intrinsics,
                "runs": _find_runs(frame_index, track.step, stop),
            }
            for column in extra:
                if column.per == "track" and column.name in track.extra:
                    record[column.array] = track.extra[column.name].tolist()
            records.append(record)
            stop += len(frame_index)
        fields = asdict(entry) | {"account": json.loads(canonical(dict(entry.account)))}
        return cls(**fields, tracks=records, stop=stop, key=key)

    @property
    def track_names(self) -> list[str]:
        return [track["name"] for track in self.tracks]


def columns_by_name(columns: Iterable[ExtraColumn]) -> dict[str, ExtraColumn]:
    """Extra columns by name. Raises ValueError for duplicate names."""
    declared = list(columns)
    by_name = {column.name: column for column in declared}
    if len(by_name) < len(declared):
        names = [column.name for column in declared]
        raise ValueError(f"extra columns {names}: expected each name once")
    return by_name


def _find_runs(frame_index: Array, step: int, first_row: int) -> list[tuple[int, int]]:
    """Rows [start, stop) of every segment whose frame indices are exactly `step` apart.

    >>> _find_runs(np.array([0, 2, 4, 7, 9]), step=2, first_row=100)
    [(100, 103), (103, 105)]
    """
    breaks = np.flatnonzero(np.diff(frame_index) != step) + 1
    starts = np.concatenate([[0], breaks]) + first_row
    stops = np.concatenate([breaks, [len(frame_index)]]) + first_row
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
