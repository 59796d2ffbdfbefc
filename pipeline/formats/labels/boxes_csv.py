"""A CSV file of boxes of people over time, by any tracker.  [raw] -> tracks -> features -> windows

A first line `track,frame,x,y,w,h`; then a line for each person in each frame: frames from 0 on, x and y of the upper
left corner, px.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.raw.files import read_regular

Ints = NDArray[np.int64]
Float32s = NDArray[np.float32]

BOX_COLUMNS: Final = ("track", "frame", "x", "y", "w", "h")
MAX_BYTES: Final = 1 << 28


def read_boxes(file: Path) -> dict[str, tuple[Ints, Float32s]]:
    """Track -> frames (T,) and boxes (T, 4) cxcywh px, square by the larger side; tracks in order of their names.

    Lines may come in any order, and columns besides BOX_COLUMNS are ignored. Raises RawDataError.
    """
    do = f"Write a first line {','.join(BOX_COLUMNS)} and one line for each person in each frame."
    try:
        text = read_regular(file, MAX_BYTES).decode("utf-8-sig")
        lines = csv.DictReader(io.StringIO(text), strict=True)
        if missing := [name for name in BOX_COLUMNS if name not in (lines.fieldnames or ())]:
            found = f"{lines.fieldnames}, without {', '.join(missing)}"
            raise RawDataError(file, "line 1", expected=",".join(BOX_COLUMNS), found=found, do=do)
        by_track: dict[str, dict[int, list[float]]] = {}
        for line in lines:
            track, frame, box = _box(file, f"line {lines.line_num}", line)
            if by_track.setdefault(track, {}).setdefault(frame, box) is not box:
                found = f"track {track!r} a second time in frame {frame}"
                raise RawDataError(file, f"line {lines.line_num}", expected="one box a frame", found=found, do=do)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RawDataError(file, "file", expected="CSV, in UTF-8", found=str(error), do=do) from error
    return {
        track: (np.array(sorted(boxes), np.int64), np.array([boxes[frame] for frame in sorted(boxes)], np.float32))
        for track, boxes in sorted(by_track.items())
    }


def _box(file: Path, key: str, line: dict[str, str | None]) -> tuple[str, int, list[float]]:
    """A line's track, frame and box (cxcywh px, square)."""
    track, frame, *numbers = ((line[name] or "").strip() for name in BOX_COLUMNS)
    try:
        x, y, w, h = map(float, numbers)
    except ValueError:
        x = y = w = h = math.nan
    if not (track.isprintable() and 0 < len(track) <= 200 and frame.isdecimal() and len(frame) <= 12):
        found = f"track {track!r}, frame {frame!r}"
        do = "Count frames from 0 on, and give every person a name or a number."
        raise RawDataError(file, key, expected="a track and a whole number", found=found, do=do)
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
        found, do = ",".join(numbers), "Leave out frames in which the person is not seen."
        raise RawDataError(file, key, expected="numbers x, y, w, h in px, w and h above 0", found=found, do=do)
    side = max(w, h)
    return track, int(frame), [x + w / 2, y + h / 2, side, side]
