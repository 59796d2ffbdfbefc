"""The common form of the persons in all detectors' files.  [raw] -> tracks -> features -> windows

The reader of each format returns `LabelContent`, with a `FoundPerson` for each person in each
frame. A `LabelFormat` says how a format counts frames and pixels, and how it writes boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.files.formats import arrays
from pipeline.files.formats.names import kind, shown
from pipeline.files.formats.other_formats import FORMATS, other_than_text
from pipeline.files.formats.people.label_errors import DAMAGED, label_error
from pipeline.files.raw.files import read_regular
from pipeline.skeletons import LARGEST, Doubles

# Function that returns the (width, height) px of images for which a tool may have written a clip's
# keypoints. Keypoints for another of these sizes, or a multiple, are scaled to the first. Formats
# that need no sizes do not call it.
Sizes = Callable[[], Sequence[tuple[int, int]]]

# number of joints -> the known orders, the usual one first
ORDERS: Final = {
    17: ("coco", "h36m_lifters", "h36m", "posetrack"),
    18: ("openpose_coco", "coco_neck"),
    25: ("body_25", "body_25b"),
    23: ("coco_feet",),
    26: ("halpe_26",),
}
# number of joints of Halpe-136 and COCO-WholeBody -> how many come before face and hands
BODY_JOINTS: Final = {136: 26, 133: 23}
# how many joints a person may have if the file does not name them
JOINT_COUNTS: Final = (*ORDERS, *sorted(BODY_JOINTS))
# Largest number of a box in shares of the image. Boxes of people at the border may exceed 1 a
# little; boxes in pixels are far larger.
LARGEST_SHARE: Final = 1.5
CENTRE_BOX: Final = "cx cy w h"  # other boxes are "x y w h", of the upper left corner

# the functions of `arrays`, with advice for these files
whole_number: Final = partial(arrays.whole_number, do=FORMATS)
numbers: Final = partial(arrays.numbers, do=FORMATS)
floats: Final = partial(arrays.floats, do=FORMATS)
records: Final = partial(arrays.records, do=FORMATS)


def text_lines(file: Path, expected: str) -> list[str]:
    """The lines of a file of text, which may be blank. Raises RawDataError for another file."""
    with arrays.reading(file, expected, do=DAMAGED):
        content = read_regular(file)
        problem = other_than_text(content)
        if content.strip() and problem:
            arrays.refuse(problem)
        return content.decode("utf-8-sig").splitlines()


class FoundPerson(NamedTuple):
    """One person in one image."""

    frame: int  # counted from 0; or the number of an image, which may begin anywhere
    # (J, 3): x, y in px, score. If only a box is known, (2, 3): upper left and lower right corner
    points: Doubles
    identity: int | str | None = None
    # (2, 2) px, upper left and lower right corner: where the file has a box beside joints
    box: Doubles | None = None


@dataclass(slots=True)
class LabelContent:
    """The content of one file, or a folder of files, for one video."""

    people: list[FoundPerson] = field(default_factory=list)
    frames: list[int] | None = None  # the frames that were processed, if the format lists them
    joints: Sequence[str] | None = None  # the joints' names, if the file has them
    passed_over: int = 0  # number of detections that are no people, or are marked as not to be used
    notes: list[str] = field(default_factory=list)  # messages about what was changed
    # frame -> (3, 3) homography from the previous frame to it
    camera: dict[int, Doubles] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """How a format counts frames and writes boxes."""

    name: str
    first_frame: int  # its number
    box_form: str = ""  # "x y w h" or CENTRE_BOX; "": the format has no boxes
    in_shares: bool = False  # positions are shares of the image's width and height, not px
    first_pixel: int = 0  # its coordinate: 1 in formats that count pixels from 1

    def frame(self, file: Path, key: str, value: object) -> int:
        """Convert a frame's number in the file to the number from 0. Raises RawDataError for a
        number before the first, and for anything else.
        """
        number = whole_number(file, key, value)
        if number < self.first_frame:
            expected = f"frames from {self.first_frame} on, as in {self.name}"
            raise label_error(
                file, key, expected, str(number), f"Count frames from {self.first_frame}."
            )
        return number - self.first_frame

    def parse_box(self, file: Path, key: str, stored: object, score: float = 1.0) -> Doubles:
        """Convert a stored box to its corners (2, 3): x, y in px or shares of the image as in the
        file, and the score.

        Raises RawDataError unless the box has 4 finite numbers in range, and a width and height
        above 0.
        """
        values = numbers(file, key, stored, (4,))
        actual = str(values.tolist())
        largest = LARGEST
        unit = "px"
        if self.in_shares:
            largest = LARGEST_SHARE
            unit = "shares of the image, 0 to 1"
        if not (np.abs(values) <= largest).all():  # NaN, too
            raise label_error(file, key, f"{self.box_form} in {unit}", actual)

        point = values[:2]
        extent = values[2:]
        if self.box_form == CENTRE_BOX:
            corners = np.array([point - extent / 2, point + extent / 2])
        else:
            corners = np.array([point, point + extent])
        corners -= self.first_pixel
        if (corners[1] <= corners[0]).any():
            expected = f"a box {self.box_form} with a width and a height above 0"
            raise label_error(file, key, expected, actual)
        return np.column_stack([corners, (score, score)])


def tolerant_box(
    stored: object, scale: Doubles | None = None, *, as_corners: bool = False
) -> Doubles | None:
    """The corners (2, 2) px of a box beside joints; None for anything but four numbers.

    stored: x y w h, or with `as_corners` x y x y; it may be in a list of its own. scale: (3,) px in
    the clip for x, y and score.
    """
    if isinstance(stored, list) and len(stored) == 1:
        stored = stored[0]
    if not isinstance(stored, list) or len(stored) != 4:
        return None
    if not all(isinstance(value, int | float) and abs(value) <= LARGEST for value in stored):
        return None
    box = np.array(stored, np.float64).reshape(2, 2)
    if not as_corners:
        box[1] += box[0]
    return box if scale is None else box * scale[:2]


def joint_names(file: Path, key: str, names: Any) -> list[str]:
    """Check the names of the joints in a file, and return them. Raises RawDataError unless they are
    a list of different texts.
    """
    are_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    expected = "the names of the joints, each once"
    if not are_texts:
        raise label_error(file, key, expected, kind(names))
    earlier = set[str]()
    for name in names:
        if name in earlier:
            raise label_error(file, key, expected, f"{shown(name)} twice")
        earlier.add(name)
    return list(names)


def finite_score(file: Path, key: str, score: float) -> float:
    """Check a detection's confidence, and return it. Raises RawDataError for NaN and infinity."""
    try:
        number = float(score)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise label_error(file, key, "a finite confidence", kind(score))
    return number


def attributes(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `attributes` that CVAT gives an annotation; {} if there are none."""
    stored = entry.get("attributes")
    return stored if isinstance(stored, dict) else {}


def track_id(file: Path, key: str, entry: Mapping[str, Any]) -> int | None:
    """The person's `track_id`, which CVAT puts into `attributes`; None if there is none, or it is
    negative, as some tools write it without a tracker. Raises RawDataError for other values.
    """
    if "track_id" not in entry:
        entry = attributes(entry)
    if "track_id" not in entry:
        return None
    do = "Number people by whole numbers, or leave track_id out."
    identity = whole_number(file, f"{key}.track_id", entry["track_id"], do=do)
    return None if identity < 0 else identity
