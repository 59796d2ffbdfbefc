"""Errors about files of detectors, with advice.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.errors import RawDataError
from pipeline.files.formats import arrays
from pipeline.files.formats.other_formats import FORMATS, export_of, owner_of_file

# what to do about an invalid file
DAMAGED: Final = "Have the detector write it again, or unpack or copy it again."
EXPORT: Final = (
    "Export one of the joint orders in docs/datasets/kinetics.md: x, y and score of each "
    "joint in pixels."
)
ONE_VIDEO: Final = "Have the files of one video, and of one run of the detector, in a folder."
OTHER_TOOL: Final = (
    "docs/datasets/videos.md has the formats that are read (AlphaPose's without --format). "
    "Ten lines in docs/adding-a-detector.md write those of another tool."
)


def label_error(file: Path, key: str, expected: str, found: str, do: str = FORMATS) -> RawDataError:
    """The error for a label file with other content."""
    return RawDataError(file, key, expected, found, do)


def other_tool_error(
    file: Path, key: str, expected: str, found: str, do: str = OTHER_TOOL
) -> RawDataError:
    """The error for a file in no format that is read; it names the tool, if that is known."""
    with arrays.reading(file, expected):
        owner = owner_of_file(file)
    if owner:
        found = f"{owner}, which is not read"
        do = export_of(owner)
    return label_error(file, key, expected, found, do)
