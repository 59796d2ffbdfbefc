"""Videos and tracks to write, and their records in JSON.  raw -> [tracks] -> features -> windows

A caller of `NextCommit.append` gives a `VideoEntry` and its `TrackRows`. `video_record` turns them
into the record that is stored in uncommitted work, and from which `Tables.from_records` makes the
split's tables: all about a video and its tracks, except the rows themselves.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cache.arrays import Array
from cache.format.extra import ExtraColumn
from cache.format.layout import canonical


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class TrackRows:
    """One track to write: a person in T frames of one video. Leave out columns without labels."""

    name: str  # <video>/<person>, unique within the split
    video: str
    step: int  # frames of the video from one row to the next, except at gaps
    fps: float  # of the video's own frames; nan where not known
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


def _find_runs(frame_index: Array, step: int, first_row: int) -> list[tuple[int, int]]:
    """Rows [start, stop) of every segment whose frame indices are exactly `step` apart.

    >>> _find_runs(np.array([0, 2, 4, 7, 9]), step=2, first_row=100)
    [(100, 103), (103, 105)]
    """
    breaks = np.flatnonzero(np.diff(frame_index) != step) + 1
    starts = np.concatenate([[0], breaks]) + first_row
    stops = np.concatenate([breaks, [len(frame_index)]]) + first_row
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def video_record(
    entry: VideoEntry, tracks: Sequence[TrackRows], start: int, extra: Collection[ExtraColumn] = ()
) -> dict[str, Any]:
    """The record of a video and its tracks, whose rows are numbered from `start` on:

        {"name": "0001", "source": "frames/0001", "pixels": "8c1d...", "fingerprint": "1f2e...",
         "width": 640, "height": 480, "account": {"found": 151, ...}, "stop": 8342,
         "tracks": [{"name": "0001/0", "start": 8192, "stop": 8342, "step": 1, "fps": 25.0,
                     "crop_scale": 1.3, "gender": "neutral", "intrinsics": None,
                     "runs": [(8192, 8300), (8300, 8342)], "track_height": 1.8}]}

    `runs` are the segments without a gap in the frame numbers, and `track_<name>` are values of
    extra track columns. The video's `stop` is that of its last track.
    """
    records = []
    stop = start
    for track in tracks:
        record = _track_record(track, stop, extra)
        records.append(record)
        stop = record["stop"]
    account = json.loads(canonical(dict(entry.account)))
    return {**asdict(entry), "account": account, "tracks": records, "stop": stop}


def _track_record(track: TrackRows, start: int, extra: Collection[ExtraColumn]) -> dict[str, Any]:
    frame_index = np.asarray(track.columns["frame_index"])
    intrinsics = None
    if track.intrinsics is not None:
        intrinsics = np.asarray(track.intrinsics, np.float64).tolist()
    record = {
        "name": track.name,
        "start": start,
        "stop": start + len(frame_index),
        "step": int(track.step),
        "fps": float(track.fps),
        "crop_scale": float(track.crop_scale),
        "gender": track.gender,
        "intrinsics": intrinsics,
        "runs": _find_runs(frame_index, track.step, start),
    }
    for column in extra:
        if column.per == "track" and column.name in track.extra:
            record[column.array] = track.extra[column.name].tolist()
    return record
