"""Human3.6M's metadata.xml: cameras, and what the files of each action are called.  [raw] -> tracks -> features

<mapping><tr>   a first row of two cells and the subjects S1 .. S11; then action id, subaction id, 11 file names
<dbcameras><index2id>   the cameras' ids in the order that the numbers below have
<w0>[...]</w0>   300 numbers: for every camera and subject 3 angles and 3 coordinates, for every camera fx fy cx cy
                 and 5 coefficients of distortion
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, ParseError, fromstring

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.raw.files import read_regular

CAMERAS: Final = ("54138969", "55011271", "58860488", "60457274")  # "1" to "4" in other files
N_SUBJECTS: Final = 11
N_EXTRINSIC, N_INTRINSIC = 6, 9
N_NUMBERS: Final = len(CAMERAS) * (N_SUBJECTS * N_EXTRINSIC + N_INTRINSIC)
AGAIN: Final = "Take metadata.xml from the release's software again."


class Metadata(NamedTuple):
    """What of metadata.xml is used."""

    intrinsics: Mapping[str, NDArray[np.float32]]  # camera -> (3, 3) px, without distortion; the same for all subjects
    action: Mapping[tuple[str, str], tuple[int, int]]  # (subject, file name before the camera) -> (action, subaction)


def load_metadata(file: Path) -> Metadata:
    """metadata.xml, read once for as long as it stays the same. Raises RawDataError for a file that is no such."""
    return _cached(file, state_of(file))


def state_of(file: Path) -> tuple[int, int]:
    """Size and time (ns), which tell versions of a file apart. Raises RawDataError when they cannot be read."""
    try:
        status = file.stat()
    except OSError as error:
        raise RawDataError(file, "file", expected="a file", found=str(error), do="Put it back.") from error
    return status.st_size, status.st_mtime_ns


def is_number(text: str) -> bool:
    """Whether a text is a whole number as JSON keys and cells hold it: plain digits, and few."""
    return text.isascii() and text.isdecimal() and len(text) <= 9


@functools.lru_cache(maxsize=1)
def _cached(file: Path, state: tuple[int, int]) -> Metadata:  # noqa: ARG001
    try:
        root = fromstring(read_regular(file))  # noqa: S314 - expat bounds what entities grow to, and opens no file
    except (ParseError, OSError, ValueError, LookupError) as error:  # also of unknown encodings
        found = f"{type(error).__name__}: {error}"
        raise RawDataError(file, "file", expected="an XML file", found=found, do=AGAIN) from error

    def section(key: str) -> Element:
        if (found := root.find(key)) is None:
            there = sorted({child.tag for child in root})[:20]
            raise RawDataError(file, key, expected="this element", found=f"only {there}", do=AGAIN)
        return found

    cameras = [_text(cell) for cell in section("dbcameras/index2id")]
    if tuple(cameras) != CAMERAS:
        raise RawDataError(file, "index2id", expected=", ".join(CAMERAS), found=", ".join(cameras), do=AGAIN)
    words = _text(section("w0")).removeprefix("[").removesuffix("]").split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise RawDataError(file, "w0", expected="numbers", found=str(error), do=AGAIN) from error
    if len(numbers) != N_NUMBERS or not np.isfinite(numbers).all():
        raise RawDataError(file, "w0", expected=f"{N_NUMBERS} finite numbers", found=f"{len(numbers)}", do=AGAIN)
    intrinsics = {}
    by_camera = numbers[len(CAMERAS) * N_SUBJECTS * N_EXTRINSIC :].reshape(len(CAMERAS), N_INTRINSIC)
    for camera, (fx, fy, cx, cy, *_distortion) in zip(CAMERAS, by_camera, strict=True):
        intrinsics[camera] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)

    header, *rows = [[_text(cell) for cell in row] for row in section("mapping")] or [[]]
    subjects = header[2:]
    if "S1" not in subjects:
        raise RawDataError(file, "mapping", expected="a first row with S1, S2, ...", found=str(header), do=AGAIN)
    actions: dict[tuple[str, str], tuple[int, int]] = {}
    for action, subaction, *names in (row for row in rows if len(row) == len(header)):
        if is_number(action) and is_number(subaction):
            actions |= dict.fromkeys(zip(subjects, names, strict=True), (int(action), int(subaction)))
    return Metadata(intrinsics, actions)


def _text(cell: Element) -> str:
    return (cell.text or "").strip()
