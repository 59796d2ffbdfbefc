"""Human3.6M's files, and SMPL bodies that others fitted to it.  [raw] -> tracks -> features

metadata.xml: cameras, and the file names of each action

    <mapping><tr>   a header of two cells and the subjects S1 .. S11; then action id, subaction id, 11 file names
    <dbcameras><index2id>   the cameras' ids in the order of the numbers below
    <w0>[...]</w0>   300 numbers: for every camera and subject 3 angles and 3 coordinates, for every camera fx fy cx
                     cy and 5 coefficients of distortion

    Human36M_subject<k>_smpl_param.json     action id -> subaction id -> frame -> pose 72, shape 10, trans 3
    Human36M_subject<k>_camera.json         camera "1" to "4" -> R (3, 3)

    S<k>/MyPoseFeatures/*/<sequence>.cdf    one variable, "Pose"

cdflib trusts the file: a flipped bit can make it loop for hours or ask for all memory, which costs one video, since
conversion reads in the processes of `pipeline.processes`. Files of fits have hundreds of MB; they are streamed into
float32 arrays (20 MB per subject), and each process keeps those of the last subject.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, NamedTuple
from xml.etree.ElementTree import Element, fromstring

import ijson
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import AGAIN, load_json, numbers, reading, refuse, state_of
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.skeletons import Doubles, Floats, Ints

CAMERAS: Final = ("54138969", "55011271", "58860488", "60457274")  # "1" to "4" in other files
N_SUBJECTS: Final = 11
N_EXTRINSIC, N_INTRINSIC = 6, 9
N_NUMBERS: Final = len(CAMERAS) * (N_SUBJECTS * N_EXTRINSIC + N_INTRINSIC)
MAGIC: Final = (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")  # of CDF, versions 3 and 2.6
XML_AGAIN: Final = "Take metadata.xml from the release's software again."

LENGTHS: Final = {"pose": 72, "shape": 10}
MAX_DEPTH: Final = 16  # maps and lists in each other; the format of fits has five
FITS_AGAIN: Final = "Download the fits again."


class Metadata(NamedTuple):
    """The used part of metadata.xml."""

    intrinsics: Mapping[str, NDArray[np.float32]]  # camera -> (3, 3) px, without distortion; the same for all subjects
    extrinsics: Mapping[tuple[str, str], NDArray[np.float32]]  # (subject, camera) -> (4, 4) world to camera, m
    action: Mapping[tuple[str, str], tuple[int, int]]  # (subject, file name before the camera) -> (action, subaction)


def load_metadata(file: Path) -> Metadata:
    """metadata.xml, read once until it changes. Raises RawDataError for another file."""
    return _load_metadata(file, state_of(file))


def _is_number(text: str) -> bool:
    """Whether a text is a whole number of a few plain digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 9


@functools.lru_cache(maxsize=1)
def _load_metadata(file: Path, state: tuple[int, int]) -> Metadata:  # noqa: ARG001
    with reading(file, "an XML file", do=XML_AGAIN):
        root = fromstring(read_regular(file))  # noqa: S314 - expat bounds what entities grow to, and opens no file

    def section(key: str) -> Element:
        if (element := root.find(key)) is None:
            tags = sorted({child.tag for child in root})[:20]
            raise RawDataError(file, key, "this element", f"only {tags}", XML_AGAIN)
        return element

    cameras = [_text(cell) for cell in section("dbcameras/index2id")]
    if tuple(cameras) != CAMERAS:
        raise RawDataError(file, "index2id", ", ".join(CAMERAS), ", ".join(cameras), XML_AGAIN)
    words = _text(section("w0")).removeprefix("[").removesuffix("]").split()
    with reading(file, "numbers", key="w0", do=XML_AGAIN):
        numbers = np.array([float(word) for word in words])
    if len(numbers) != N_NUMBERS or not np.isfinite(numbers).all():
        raise RawDataError(file, "w0", f"{N_NUMBERS} finite numbers", f"{len(numbers)}", XML_AGAIN)
    intrinsics = {}
    by_camera = numbers[len(CAMERAS) * N_SUBJECTS * N_EXTRINSIC :].reshape(len(CAMERAS), N_INTRINSIC)
    for camera, (fx, fy, cx, cy, *_distortion) in zip(CAMERAS, by_camera, strict=True):
        intrinsics[camera] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)

    header, *rows = [[_text(cell) for cell in row] for row in section("mapping")] or [[]]
    subjects = header[2:]
    if "S1" not in subjects:
        raise RawDataError(file, "mapping", "a first row with S1, S2, ...", str(header), XML_AGAIN)
    actions: dict[tuple[str, str], tuple[int, int]] = {}
    for action, subaction, *names in (row for row in rows if len(row) == len(header)):
        if _is_number(action) and _is_number(subaction):
            actions |= dict.fromkeys(zip(subjects, names, strict=True), (int(action), int(subaction)))
    return Metadata(intrinsics, _extrinsics(numbers), actions)


def _extrinsics(numbers: Doubles) -> dict[tuple[str, str], NDArray[np.float32]]:
    """World to camera from w0's numbers: three angles in rad, R = Rx Ry Rz, and the place p0 in mm: R (p - p0)."""
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    extrinsics = {}
    of_cameras = numbers[: len(CAMERAS) * N_SUBJECTS * N_EXTRINSIC].reshape(len(CAMERAS), N_SUBJECTS, N_EXTRINSIC)
    for camera, of_subjects in zip(CAMERAS, of_cameras, strict=True):
        for subject, values in enumerate(of_subjects, start=1):
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("XYZ", values[:3]).as_matrix()
            matrix[:3, 3] = -matrix[:3, :3] @ values[3:] / 1000
            extrinsics[f"S{subject}", camera] = matrix.astype(np.float32)
    return extrinsics


def _text(cell: Element) -> str:
    return (cell.text or "").strip()


class SmplFit(NamedTuple):
    """The N fitted frames of one sequence."""

    frame_index: Ints  # (N,) strictly increasing
    pose: NDArray[np.float32]  # (N, 72) rad, global orientation in the world
    betas: NDArray[np.float32]  # (N, 10)


def load_fits(file: Path) -> Mapping[tuple[int, int], SmplFit]:
    """(action, subaction) -> fit, of one subject. Raises RawDataError for a file with other content."""
    fits = _cached_fits(file, state_of(file))
    if isinstance(fits, RawDataError):
        raise fits
    return fits


@functools.lru_cache(maxsize=1)
def _cached_fits(file: Path, state: tuple[int, int]) -> Mapping[tuple[int, int], SmplFit] | RawDataError:  # noqa: ARG001
    """The fits, or the error, which is cached, too: a subject has 120 videos."""
    rows: dict[tuple[int, int], tuple[array[int], array[float], array[float]]] = {}
    try:
        with reading(file, "a JSON file of fits", do=FITS_AGAIN), open_regular(file) as stream:
            for action, subaction, frame, values in _frames(file, stream):
                frames, poses, betas = rows.setdefault((action, subaction), (array("q"), array("f"), array("f")))
                frames.append(frame)
                poses.extend(values["pose"])
                betas.extend(values["shape"])
    except RawDataError as error:
        return error
    return {action: _fit(*arrays) for action, arrays in rows.items()}


def _fit(frames: array[int], *values: array[float]) -> SmplFit:
    """Fit in frame order; of a repeated frame, the last."""
    stored = np.frombuffer(frames, np.int64)
    index, last = np.unique(stored[::-1], return_index=True)
    row = len(stored) - 1 - last
    return SmplFit(index, *(np.frombuffer(v, np.float32).reshape(len(stored), -1)[row] for v in values))


def _frames(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, int, int, dict[str, list[float]]]]:
    """Action, subaction, frame, and the lists of LENGTHS, of every fitted frame, in file order."""
    path: list[str] = []  # the key that each of the open maps is at
    n_lists = 0  # open ones
    values: dict[str, list[float]] = {name: [] for name in LENGTHS}
    for event, value in ijson.basic_parse(stream, use_float=True):
        if event == "number":
            if len(path) == 4 and path[3] in values:
                values[path[3]].append(value)
                if len(values[path[3]]) > LENGTHS[path[3]]:
                    _require_whole(file, path, values)
        elif event == "map_key":
            path[-1] = value
        elif event == "start_map":
            path.append("")
        elif event == "end_map":
            path.pop()
            if len(path) == 3 and any(values.values()):
                if not all(map(_is_number, path)):
                    expected = "action, subaction and frame as numbers"
                    raise RawDataError(file, "/".join(path), expected, "other keys", FITS_AGAIN)
                _require_whole(file, path, values)
                action, subaction, frame = map(int, path)
                yield action, subaction, frame, values
                values = {name: [] for name in LENGTHS}
        elif event in ("start_array", "end_array"):
            n_lists += 1 if event == "start_array" else -1
        if len(path) + n_lists > MAX_DEPTH or (n_lists and not path):
            raise RawDataError(file, "/".join(path[:3]), "maps, and lists of numbers", "other lists", FITS_AGAIN)


def _require_whole(file: Path, path: list[str], values: Mapping[str, list[float]]) -> None:
    for name, n in LENGTHS.items():
        if len(values[name]) != n:
            raise RawDataError(file, "/".join([*path[:3], name]), f"{n} numbers", f"{len(values[name])}", FITS_AGAIN)


def load_rotations(file: Path) -> Mapping[str, Doubles]:
    """Camera id -> (3, 3), world to camera, not checked to be a rotation. Raises RawDataError for another file."""
    stored = load_json(file, do=FITS_AGAIN)
    rotations = {}
    for number, camera in enumerate(CAMERAS, start=1):
        entry = stored.get(str(number)) if isinstance(stored, dict) else None
        if not isinstance(entry, dict) or "R" not in entry:
            raise RawDataError(file, f"{number}/R", "a rotation", "none", FITS_AGAIN)
        rotations[camera] = numbers(file, f"{number}/R", entry["R"], (3, 3))
    return rotations


def load_cdf(file: Path, key: str) -> Floats:
    """The variable `key` of a CDF file: (records, *dimensions) float32 or float64, in native byte order.

    Raises RawDataError for another or a damaged file, a missing variable, and one without floating-point numbers.
    """
    import cdflib  # takes a quarter of a second, and only Human3.6M needs it

    with reading(file, "a whole CDF file", key=key):
        with open_regular(file) as stream:
            magic = stream.read(4)
        if magic not in MAGIC:
            refuse(f"a file that begins with {magic!r}")
        cdf = cdflib.CDF(file)
        info = cdf.cdf_info()
        names = [*info.zVariables, *info.rVariables]
        values = np.asarray(cdf.varget(key)) if key in names else None
    if values is None:
        raise RawDataError(file, key, "a variable of this name", f"only {names}", AGAIN)
    if values.dtype.kind != "f":
        raise RawDataError(file, key, "floating-point numbers", str(values.dtype), AGAIN)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
