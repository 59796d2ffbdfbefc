"""Read TRC files of Sports2D in pixels; each file has one person.  [raw] -> tracks

A file is tab-separated text. It has five lines of header: line 3 has the rate, and line 4 each
joint's name, followed by two empty fields. Then come rows with a number, a time in s, and x, y, z
of each joint. Sports2D counts the number from the first frame that it was told to read, but the
time from the clip's first frame at the stated rate, so the time gives the frame. The header always
gives m as the unit, even if the file is in px. With tabs shown as blanks:

    PathFileType 4 (X/Y/Z) clip_px_person00.trc
    DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame OrigNumFrames
    30 30 90 22 m 30 0 90
    Frame# Time Hip   RHip   ...
      X1 Y1 Z1 X2 Y2 Z2 ...
    0 0.0 412.5 310.1 0.0 398.7 311.9 0.0 ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.files.formats.people.found import FoundPerson, LabelContent, floats, text_lines
from pipeline.files.formats.people.label_errors import DAMAGED, label_error
from pipeline.skeletons import LARGEST, Doubles

N_HEADER: Final = 5  # lines
# The largest coordinate tells px from m: people in m do not reach that far, and in px all do.
LEAST_PX: Final = 20.0
IN_PX: Final = "_px"  # part of the name of a file in px; Sports2D also writes files in m
TAKE_PX: Final = "Take Sports2D's files with _px in their names."


def person_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The TRC files among the names in a folder. If the names of some say that they are in px, only
    those.
    """
    files = sorted(name for name in names if name.lower().endswith(".trc"))
    in_px = [name for name in files if IN_PX in name]
    return [folder / name for name in in_px or files]


def content_of(files: Sequence[Path]) -> LabelContent:
    """Read the people of a clip, one from each file. A person's identity is the number at the end
    of the file's name, or else the name. Raises RawDataError.
    """
    content = LabelContent()
    for file in files:
        joints, frames, points = _read_person(file)
        if content.joints is not None and joints != content.joints:
            expected = f"the joints of {files[0].name}"
            raise label_error(file, "line 4", expected, f"{len(joints)} joints, other names")
        content.joints = joints
        number = re.search(r"[0-9]+$", file.stem)
        identity: str | int = file.stem
        if number is not None:
            identity = int(number[0])
        for frame, person in zip(frames, points, strict=True):
            if person[:, 2].any():
                content.people.append(FoundPerson(frame, person, identity))
    content.notes.append("joints of TRC files have no confidence: 1 where there is a joint")
    return content


def _read_person(file: Path) -> tuple[list[str], list[int], Doubles]:
    """Read a file: the joints' names, the frames from 0, and points (T, J, 3): x, y in px, score 1
    or 0 (missing).
    """
    expected = "a TRC file: text, with five lines of header"
    lines = text_lines(file, expected)
    if len(lines) < N_HEADER:
        raise label_error(file, "file", expected, f"{len(lines)} lines", DAMAGED)
    fields = lines[3].split("\t")
    names = [name.strip() for name in fields]
    joints = [name for name in names[2:] if name]
    if not joints or not lines[0].startswith("PathFileType"):
        actual = f"other text, and {len(joints)} names of joints"
        raise label_error(file, "line 1", "the header of a TRC file", actual)

    first = lines[2].split("\t")[:1]
    rate = floats(file, "line 3", first)[0]
    if not rate > 0:
        raise label_error(file, "line 3", "frames per second", str(rate))
    n_numbers = 2 + 3 * len(joints)
    numbered = [*enumerate(lines, start=1)][N_HEADER:]
    data = [(number, line) for number, line in numbered if line.strip()]
    rows = np.empty((len(data), n_numbers))
    for i, (number, line) in enumerate(data):
        fields = line.split("\t")
        key = f"line {number}"
        if len(fields) < n_numbers:
            actual = f"{len(fields)} fields"
            raise label_error(file, key, f"{n_numbers} fields", actual, DAMAGED)
        # blank fields are numbers that are not known
        rows[i] = floats(file, key, [field.strip() or "nan" for field in fields[:n_numbers]])

    frames = np.rint(rows[:, 1] * rate)
    if not (np.abs(frames) < LARGEST).all():
        raise label_error(file, "Time", "a time in s in each row", "a row without one", DAMAGED)
    points = rows[:, 2:].reshape(len(rows), len(joints), 3).copy()
    is_missing = ~np.isfinite(points).all(axis=-1)
    points[is_missing] = 0
    _require_px(file, points)
    points[..., 2] = points[..., :2].any(axis=-1)
    return joints, frames.astype(int).tolist(), points


def _require_px(file: Path, points: Doubles) -> None:
    """Raise RawDataError if the points (T, J, 3) are not x, y in px with z = 0, but positions in
    space or in m. Missing points are 0.
    """
    if not points.any():
        return
    largest = np.abs(points).max()
    if points[..., 2].any() or largest < LEAST_PX:
        actual = "positions in space, or in m"
        raise label_error(file, "rows", "x and y in px, z 0", actual, TAKE_PX)
