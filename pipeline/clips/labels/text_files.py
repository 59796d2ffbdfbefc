"""Text files of people in frames: MOT, YOLO and TRC.  [raw] -> tracks

In a line of MOT and YOLO is one person in one frame. MOT is one file for a clip, YOLO is a file for
each frame, and TRC (Sports2D, in pixels) a file for each person. `tables` reads CSV.

MOT    frame,id,x,y,w,h,conf,... without a header; frames and pixels from 1
       (motchallenge.net/instructions):     1,7,101,41,60,150,0.9
YOLO   class cx cy w h [x y conf per joint] [conf] [id], in shares of the image (Ultralytics'
       save_txt):           0 0.2 0.24 0.09 0.31 0.9 7

TRC files have five lines of header: line 3 has the rate, and line 4 each joint's name, followed by
two empty fields. Then come rows with a number, a time in s, and x, y, z of each joint. Sports2D
counts the number from the first frame that it was told to read, but the time from the clip's first
frame at the stated rate, so the time gives the frame. The header always gives m as the unit, even
if the file is in px. With tabs shown as blanks:

    PathFileType 4 (X/Y/Z) clip_px_person00.trc
    DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame OrigNumFrames
    30 30 90 22 m 30 0 90
    Frame# Time Hip   RHip   ...
      X1 Y1 Z1 X2 Y2 Z2 ...
    0 0.0 412.5 310.1 0.0 398.7 311.9 0.0 ...

`people_formats` calls `mot_content` for a file, `yolo_content` for a folder of YOLO's files, and
`trc_content` for files of TRC.
"""

from __future__ import annotations

import itertools
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from pipeline.clips.labels.column_names import COLUMNS, HEADER
from pipeline.clips.labels.label_content import (
    BY_CLASS,
    BY_MARK,
    BY_MOT16,
    CENTRE_BOX,
    LabelContent,
    LabelFormat,
)
from pipeline.clips.labels.label_files import CLASSES
from pipeline.clips.labels.label_values import (
    DAMAGED,
    MOST_NAMES,
    all_in_one,
    finite_score,
    floats,
    label_error,
    whole_number,
)
from pipeline.clips.labels.people_classes import PEOPLE, StatedClasses
from pipeline.clips.labels.people_table import FoundPeople, FoundPerson
from pipeline.files.formats.arrays import reading, refuse
from pipeline.files.formats.names import LARGEST_WHOLE
from pipeline.files.formats.other_formats import other_than_text
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import Doubles, are_usable_numbers
from pipeline.processes import show_done

TEXT: Final = "text in UTF-8"
HEAD: Final = 1 << 17  # bytes, which tell another file from text
NO_CLASS: Final = -1
MOT_PEOPLE: Final = ("1", "2", "7")  # of MOT16's truth: pedestrian, on a vehicle, standing
JOINTS: Final = 17  # COCO's, of YOLO's pose models
KEYPOINT_NUMBERS: Final = (0, 2 * JOINTS, 3 * JOINTS)  # none, without and with confidence
N_BEFORE: Final = 5  # numbers of a YOLO line before its keypoints: class and box

MOT: Final = LabelFormat("MOT", first_frame=1, box_form="x y w h", first_pixel=1)
YOLO: Final = LabelFormat("YOLO", first_frame=1, box_form="cx cy w h", in_shares=True)

# TRC
TRC_HEADER: Final = 5  # lines
# The largest coordinate tells px from m: people in m do not reach that far, and in px all do.
LEAST_PX: Final = 20.0
TAKE_PX: Final = "Take Sports2D's files with _px in their names."


def are_mot_lines(first: str | None) -> bool:
    """Whether the first line begins with a number and a comma."""
    return first is not None and is_number(first.split(",")[0])


def is_number(word: str) -> bool:
    """Whether a text is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def lines_of(file: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each line that is not blank, such as ("line 3", "1,7,101,41,60,150")."""
    for number, text in enumerate(text_lines(file, TEXT), 1):
        if text.strip():
            yield f"line {number}", text


def text_lines(file: Path, expected: str) -> Iterator[str]:
    """Read the lines of a file of text, also blank ones. Raises RawDataError for another file."""
    with reading(file, expected, do=DAMAGED), open_regular(file) as stream:
        head = stream.read(HEAD)
        problem = other_than_text(head)
        if head.strip() and problem:
            refuse(problem)
        n_bytes = stream.seek(0, 2)
        stream.seek(0)
        encoding = "utf-8-sig"
        for line in stream:
            show_done(stream.tell(), n_bytes, "bytes read")
            yield from line.decode(encoding).splitlines()
            encoding = "utf-8"


def mot_content(file: Path, classes: StatedClasses) -> LabelContent:
    """Read MOT's lines. Lines with confidence 0 are skipped. With 9 columns, the eighth is a
    class: its number in a list (`_ClassList`), or without one in MOT16's ground truth. Raises
    RawDataError.
    """
    content = LabelContent()
    class_list = _ClassList.read_list(file, classes)
    eighth = Counter[float]()  # numbers in files that should have no class there
    for key, line in lines_of(file):
        values = floats(file, key, line.split(","))
        if file.suffix.lower() == ".csv" and len(values) == len(COLUMNS):
            # track and frame would be taken for each other
            expected = f"{','.join(COLUMNS)} first, or MOT's columns with the confidence"
            raise label_error(file, key, expected, "6 numbers without a header", HEADER)
        if not 6 <= len(values) <= 10:
            actual = f"{len(values)} numbers"
            do = "Write MOT's columns, or a first line that names yours."
            raise label_error(file, key, "frame,id,x,y,w,h,conf,x,y,z", actual, do)

        frame = MOT.frame(file, key, values[0])
        identity = whole_number(file, key, values[1])
        score = 1.0
        if len(values) > 6:
            score = finite_score(file, key, values[6])
        box_score = score if score > 0 else 1.0  # some trackers write -1
        if len(values) in (8, 10) and len(eighth) <= MOST_NAMES:
            eighth[values[7]] += 1
        if score == 0:
            content.unread[BY_MARK]["confidence 0"] += 1
            continue
        if len(values) == 9 and not class_list.is_person(values[7], content):
            continue
        corners = MOT.parse_box(file, key, values[2:6], content, box_score)
        if corners is not None:
            track = None if identity < 0 else identity
            content.people.add(FoundPerson(frame, corners, track))
    if len(eighth) > 1 and all(value >= 0 and value % 1 == 0 for value in eighth):
        numbers = {f"{value:.0f}": n for value, n in eighth.items()}
        content.unread["column 8 not read, a class in files of 9 columns,"].update(numbers)
    if not content.people:
        class_list.require_people(file)
    return content


def find_class_list(file: Path) -> Path | None:
    """The list of classes beside MOT's file, or beside its folder `gt`."""
    folders = [file.parent]
    if file.parent.name == "gt":
        folders.append(file.parent.parent)
    for folder in folders:
        if (folder / CLASSES).is_file():
            return folder / CLASSES
    return None


class _ClassList(NamedTuple):
    """Which classes of MOT's lines are people."""

    names: Mapping[str, str]  # by number; {} without a list
    stated: StatedClasses

    @classmethod
    def read_list(cls, file: Path, stated: StatedClasses) -> Self:
        """Read the list of MOT's file, if there is one."""
        listed = find_class_list(file)
        if listed is None:
            return cls({}, stated)
        lines = enumerate(text_lines(listed, TEXT), 1)
        names = {str(number): name.strip() for number, name in lines if name.strip()}
        return cls(names, stated)

    def is_person(self, number: float, content: LabelContent) -> bool:
        """Whether a line's class is a person; `content` counts those that are not, and, without a
        list or a statement, all.
        """
        if number == NO_CLASS:
            return True
        name = f"{number:g}"
        name = self.names.get(name, name)
        is_person = self._are_people(name)
        if not (self.names or self.stated.numbers):
            state = "taken" if is_person else "skipped"
            content.unread[BY_MOT16][f"{name} {state}"] += 1
        elif not is_person:
            content.unread[BY_CLASS][name] += 1
        return is_person

    def require_people(self, file: Path) -> None:
        """Raise RawDataError if there is a list, and none of its classes is people."""
        if self.names and not any(map(self._are_people, self.names.values())):
            raise self.stated.no_people(file, CLASSES, self.names.values())

    def _are_people(self, name: str) -> bool:
        return self.stated.are_people(name, PEOPLE if self.names else MOT_PEOPLE)


def yolo_content(
    files: Sequence[tuple[int, Path]], size: tuple[int, int], classes: StatedClasses
) -> LabelContent:
    """Read YOLO's files, (number, file) each: of classes that are stated, or of 0, COCO's person.

    The numbers after box and joints are used last (`_use_endings`), because all lines together tell
    what they are. Raises RawDataError.
    """
    content = LabelContent(box_form=CENTRE_BOX)
    endings = array("d")  # two for each person: the numbers after box and joints, NaN without
    line_formats = set[int]()  # the KEYPOINT_NUMBERS that lines have
    if [number for number, _ in files] == [0]:  # Ultralytics' image0.txt, of images without names
        raise all_in_one(files[0][1])
    for number, file in files:
        frame = YOLO.frame(file, "name", number)
        for key, line in lines_of(file):
            values = floats(file, key, line.split())
            n_keypoints = _count_keypoint_numbers(file, key, len(values))
            number_of_class = whole_number(file, f"{key}, class", values[0])
            if not classes.are_people(str(number_of_class), usual=["0"]):
                content.unread[BY_CLASS][str(number_of_class)] += 1
                continue

            line_formats.add(n_keypoints)
            if len(line_formats) > 1:
                actual = "lines with them and lines without"
                raise label_error(file, key, "keypoints in all lines", actual)
            keypoints = values[N_BEFORE : N_BEFORE + n_keypoints]
            ending = values[N_BEFORE + n_keypoints :]
            if len(ending) == 2:
                whole_number(file, key, ending[1])
            if ending:
                finite_score(file, key, ending[0])
            points = YOLO.parse_box(file, key, values[1:N_BEFORE], content)
            if points is None:
                continue
            points[:, :2] *= size
            box = None
            if keypoints:
                box = points[:, :2]
                points = _joints(keypoints, size)
            content.people.add(FoundPerson(frame, points, box=box))
            endings.extend((*ending, math.nan, math.nan)[:2])
    _use_endings(content.people, np.asarray(endings).reshape(-1, 2))
    return content


def _count_keypoint_numbers(file: Path, key: str, n_values: int) -> int:
    """How many of a line's numbers are keypoints: one of KEYPOINT_NUMBERS. Up to two numbers may
    follow them. Raises RawDataError.
    """
    for n in KEYPOINT_NUMBERS:
        if N_BEFORE + n <= n_values <= N_BEFORE + n + 2:
            return n
    lengths = ", ".join(str(N_BEFORE + n) for n in KEYPOINT_NUMBERS)
    expected = f"{lengths} numbers, then conf and id"
    raise label_error(file, key, expected, f"{n_values} numbers")


def _joints(values: Sequence[float], size: tuple[int, int]) -> Doubles:
    """Convert a line's keypoints to (17, 3): x, y in px, score. The score is 1 if the line has
    none, and 0 for a joint at (0, 0), which means: not found.
    """
    x, y, *scores = np.array(values).reshape(JOINTS, -1).T
    is_joint = (x != 0) | (y != 0)
    score = np.where(is_joint, scores[0] if scores else 1, 0)
    return np.column_stack([x * size[0], y * size[1], score])


def _use_endings(people: FoundPeople, endings: Doubles) -> None:
    """Give people the confidence and identity at the end of their lines (N, 2), NaN without.

    Two numbers are confidence and identity. One number is an identity if it is a whole number above
    0 in all lines, else a confidence. A negative identity is none, as in MOT.
    """
    score, identity = endings.T
    is_single = np.isnan(identity) & ~np.isnan(score)
    single = score[is_single]
    if ((single >= 1) & (single <= LARGEST_WHOLE) & (single % 1 == 0)).all():
        identity[is_single] = single
        score[is_single] = 1
    people.identify(int(number) if number >= 0 else None for number in identity)
    if people.n_points != JOINTS:  # boxes, which have no score of their own
        people.points()[..., 2] *= np.where(np.isnan(score), 1, score)[:, None]


def trc_content(files: Sequence[Path]) -> LabelContent:
    """Read the people of a clip, one from each file. A person's identity is the number at the end
    of the file's name, or else the name. Raises RawDataError.
    """
    content = LabelContent()
    for file in files:
        joints, frames, points = _read_trc(file)
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
                content.people.add(FoundPerson(frame, person, identity))
    content.remarks.append("joints of TRC files have no confidence: 1 where there is a joint")
    return content


def _read_trc(file: Path) -> tuple[list[str], list[int], Doubles]:
    """Read a file: the joints' names, the frames from 0, and points (T, J, 3): x, y in px, score 1
    or 0 (missing).
    """
    expected = "a TRC file: text, with five lines of header"
    lines = text_lines(file, expected)
    header = [*itertools.islice(lines, TRC_HEADER)]
    if len(header) < TRC_HEADER:
        raise label_error(file, "file", expected, f"{len(header)} lines", DAMAGED)
    names = [name.strip() for name in header[3].split("\t")]
    joints = [name for name in names[2:] if name]
    if not joints or not header[0].startswith("PathFileType"):
        actual = f"other text, and {len(joints)} names of joints"
        raise label_error(file, "line 1", "the header of a TRC file", actual)

    (rate,) = floats(file, "line 3", header[2].split("\t")[:1])
    if not rate > 0:
        raise label_error(file, "line 3", "frames per second", str(rate))
    n_numbers = 2 + 3 * len(joints)
    stored = array("d")
    for number, line in enumerate(lines, TRC_HEADER + 1):
        fields = line.split("\t")
        key = f"line {number}"
        if not line.strip():
            continue
        if len(fields) < n_numbers:
            actual = f"{len(fields)} fields"
            raise label_error(file, key, f"{n_numbers} fields", actual, DAMAGED)
        # blank fields are numbers that are not known
        texts = [field.strip() or "nan" for field in fields[:n_numbers]]
        stored.extend(floats(file, key, texts))
    rows = np.asarray(stored).reshape(-1, n_numbers)

    frames = np.rint(rows[:, 1] * rate)
    if not are_usable_numbers(frames).all():
        raise label_error(file, "Time", "a time in s in each row", "a row without one", DAMAGED)
    ordered = np.sort(frames)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        actual = f"two of frame {repeated[0]:.0f} at {rate:g} frames a second"
        do = "Write times with more digits, and the clip's rate."
        raise label_error(file, "Time", "one row a frame", actual, do)
    points = rows[:, 2:].reshape(len(rows), len(joints), 3)
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
