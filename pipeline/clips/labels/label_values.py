"""Checked values of detectors' files, and errors about them, with advice.  [raw] -> tracks"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipeline.cli import pages
from pipeline.clips.labels.people_table import Identity
from pipeline.errors import RawDataError
from pipeline.files.formats import arrays
from pipeline.files.formats.large_json import StreamedList
from pipeline.files.formats.names import kind, quote_name
from pipeline.files.formats.other_formats import FORMATS, OtherProgram

# what to do about an invalid file
DAMAGED: Final = "Have the detector write it again, or unpack or copy it again."
EXPORT: Final = (
    f"Export one of the joint orders in {pages.JOINTS_BY_NUMBER}: x, y and score of each "
    "joint in pixels."
)
LONGEST_NAME: Final = 200  # characters of a person's name
MOST_NAMES: Final = 100  # of joints, keys or classes that are not read; others are counted together
ONE_VIDEO: Final = "Have the files of one video, and of one run of the detector, in a folder."
OTHER_TOOL: Final = (
    f"{pages.KEYPOINT_FILES} has the formats that are read (AlphaPose's without --format). "
    f"Ten lines in {pages.ADDING_A_DETECTOR} write those of another tool. Of a CSV file, or of a "
    "list of flat records, table_columns states the columns."
)
# the functions of `arrays`, with advice for these files
whole_number: Final = partial(arrays.whole_number, do=FORMATS)
numbers: Final = partial(arrays.numbers, do=FORMATS)
floats: Final = partial(arrays.floats, do=FORMATS)


def countable_names(n_by_name: Counter[str]) -> dict[str, int]:
    """Names in a file -> how often each is there, of the commonest MOST_NAMES ones: each as
    messages show it, without quotes. All others are one, "others".
    """
    names = Counter[str]()
    # in an order that does not change from run to run
    listed = sorted(n_by_name.items(), key=lambda item: (-item[1], item[0]))
    for name, n in listed[:MOST_NAMES]:
        names[quote_name(name).strip("'")] += n
    n_others = n_by_name.total() - names.total()
    if n_others:
        names["others"] += n_others
    return dict(names)


def records(file: Path, key: str, value: object) -> list[dict[str, Any]] | StreamedList:
    """Check that a JSON value is a list of objects, and return it. Raises RawDataError if not."""
    if isinstance(value, StreamedList):
        if value.other is not None:
            place, found = value.other
            raise label_error(file, f"{key}[{place}]", "an object", found)
        return value
    return arrays.records(file, key, value, do=FORMATS)


def label_error(file: Path, key: str, expected: str, found: str, do: str = FORMATS) -> RawDataError:
    """The error for a label file with other content."""
    return RawDataError(file, key, expected, found, do)


def other_tool_error(
    file: Path, key: str, expected: str, found: str, do: str = OTHER_TOOL
) -> RawDataError:
    """The error for a file in no format that is read; it names the tool, if that is known."""
    with arrays.reading(file, expected):
        program = OtherProgram.from_file(file)
    if program is not None:
        found = f"{program.owner}, which is not read"
        do = program.advice
    return label_error(file, key, expected, found, do)


def all_in_one(file: Path) -> RawDataError:
    """The error for a file with the people of all frames, without the frame of each."""
    actual = "all frames in one file: the frame of a person cannot be known"
    do = "Run the tool on the video, so that it writes each person's frame, or a file for each."
    return label_error(file, "frames", "the frame of each person", actual, do)


def joint_names(file: Path, key: str, names: Any) -> list[str]:
    """Check the names of the joints in a file, and return them. Raises RawDataError unless they are
    a list of different texts.

    In MMPose's Halpe-136, the first joint of a hand has the wrist's name, too. It gets that of
    COCO-WholeBody, `left_hand_root`.
    """
    are_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    expected = "the names of the joints, each once"
    if not are_texts:
        raise label_error(file, key, expected, kind(names))
    different: dict[str, None] = {}
    for name, following in itertools.zip_longest(names, names[1:]):
        side = name.removesuffix("wrist")
        if name in different and following == f"{side}thumb1":
            name = f"{side}hand_root"
        if name in different:
            raise label_error(file, key, expected, f"{quote_name(name)} twice")
        different[name] = None
    return list(different)


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


def identities_of(
    file: Path, key: str, entry: Mapping[str, Any], names: Sequence[str]
) -> tuple[Identity, ...]:
    """The person's identity by each of these keys, of which a dot leads into an object. None where
    it is missing, null, or negative, as some tools write it without a tracker. Raises RawDataError
    for anything but a whole number or a name.
    """
    identities = []
    for name in names:
        stored: Any = entry
        for part in name.split("."):
            stored = stored.get(part) if isinstance(stored, dict) else None
        identities.append(_identity(file, f"{key}.{name}", stored))
    return tuple(identities)


def _identity(file: Path, key: str, stored: Any) -> Identity:
    """A person's identity: 3, 3.0, "anna", [3] or, of merged detections, [[3.0], [3.0]]."""
    for _ in range(2):
        if isinstance(stored, list) and stored:
            stored = stored[0]
    if stored is None or (isinstance(stored, str) and is_person_name(stored)):
        return stored
    do = f"Number people by whole numbers, or leave {key.rpartition('.')[2]} out."
    number = whole_number(file, key, stored, do=do)
    return None if number < 0 else number


def is_person_name(text: str) -> bool:
    """Whether a text can be the name of a person."""
    return text.isprintable() and 0 < len(text) <= LONGEST_NAME
