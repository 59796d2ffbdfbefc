"""Read Human3.6M's files, and SMPL bodies that others fitted to it.  [raw] -> tracks -> features

metadata.xml has the cameras, and the file names of each action:

    <mapping><tr>   a header of two cells and the subjects S1 .. S11; then action id, subaction id,
                    11 file names
    <dbcameras><index2id>   the cameras' ids in the order of the numbers below
    <w0>[...]</w0>   300 numbers: for every camera and subject 3 angles and 3 coordinates, for every
                     camera fx fy cx cy and 5 coefficients of distortion

    Human36M_subject<k>_smpl_param.json     action id -> subaction id -> frame -> pose 72, shape 10,
                                            trans 3

    S<k>/MyPoseFeatures/*/<sequence>.cdf    one variable, "Pose"

cdflib trusts the file: a flipped bit can make it loop for hours or ask for all memory. This costs
one video, since conversion reads in the processes of `pipeline.processes`. A subject's JSON files
have up to hundreds of MB, for 120 videos. So each process finds the bytes of every sequence once,
in one pass over the file's braces, and for a video only its own bytes are parsed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, fromstring

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import (
    UNPACK_AGAIN,
    FileState,
    reading,
    refuse,
    refuse_other,
)
from pipeline.files.formats.names import quote_name, shown_names
from pipeline.files.formats.sequences import SequenceKeys, is_number, load_sequence
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.people.cameras import rigid
from pipeline.people.skeletons import Doubles, Float32s, Floats, Ints

# ids of the cameras, which other files call "1" to "4"
CAMERAS: Final = ("54138969", "55011271", "58860488", "60457274")
N_SUBJECTS: Final = 11
N_EXTRINSIC = 6
N_INTRINSIC = 9
N_NUMBERS: Final = len(CAMERAS) * (N_SUBJECTS * N_EXTRINSIC + N_INTRINSIC)
MAGIC: Final = (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")  # of CDF, versions 3 and 2.6
XML_AGAIN: Final = "Take metadata.xml from the release's software again."

LENGTHS: Final = {"pose": 72, "shape": 10}
LEVELS: Final = "action, subaction and frame"  # the keys in the files of joints and fits
JSON_AGAIN: Final = "Download the file again."


# world to camera (4, 4), translation in m; intrinsics (3, 3) in px, without distortion
Camera = tuple[Float32s, Float32s]


# (subject, file name before the camera) -> action and subaction
_Actions = dict[tuple[str, str], SequenceKeys]


class _Metadata(NamedTuple):
    """The part of metadata.xml that is used."""

    # (subject, camera) -> the camera
    cameras: Mapping[tuple[str, str], Camera]
    action: _Actions


def load_metadata(file: Path) -> _Metadata:
    """Read metadata.xml; its content is cached until the file changes. Raises RawDataError for
    another file.
    """
    return _load_metadata(file, FileState.read(file))


@functools.lru_cache(maxsize=1)
def _load_metadata(file: Path, _state: FileState) -> _Metadata:
    with reading(file, "an XML file", do=XML_AGAIN):
        root = fromstring(read_regular(file))  # noqa: S314 - expat bounds what entities grow to, and opens no file
    cameras = _texts(_section(file, root, "dbcameras/index2id"))
    if tuple(cameras) != CAMERAS:
        expected = ", ".join(CAMERAS)
        actual = ", ".join(map(quote_name, cameras[: len(CAMERAS)])) or "none"
        raise RawDataError(file, "index2id", expected, actual, XML_AGAIN)
    values = _read_w0(file, root)
    actions = _read_actions(file, root)
    return _Metadata(_cameras(values), actions)


def _section(file: Path, root: Element, key: str) -> Element:
    """The element of this name. Raises RawDataError if there is none."""
    element = root.find(key)
    if element is None:
        tags = {child.tag for child in root}
        raise RawDataError(file, key, "this element", f"only {shown_names(tags)}", XML_AGAIN)
    return element


def _read_w0(file: Path, root: Element) -> Doubles:
    """Read the numbers (300,) of <w0>. Raises RawDataError."""
    text = _text(_section(file, root, "w0"))
    words = text.removeprefix("[").removesuffix("]").split()
    with reading(file, "numbers", key="w0", do=XML_AGAIN):
        values = np.array(words, np.float64)
    if len(values) != N_NUMBERS or not np.isfinite(values).all():
        expected = f"{N_NUMBERS} finite numbers"
        raise RawDataError(file, "w0", expected, f"{len(values)}", XML_AGAIN)
    return values


def _read_actions(file: Path, root: Element) -> _Actions:
    """Read <mapping>. Raises RawDataError."""
    header, *rows = [_texts(row) for row in _section(file, root, "mapping")] or [[]]
    subjects = header[2:]
    if "S1" not in subjects:
        raise RawDataError(file, "mapping", "a first row with S1, S2, ...", str(header), XML_AGAIN)
    actions: _Actions = {}
    for row in rows:
        if len(row) != len(header):
            continue
        action, subaction, *names = row
        if is_number(action) and is_number(subaction):
            sequences = zip(subjects, names, strict=True)
            actions |= dict.fromkeys(sequences, SequenceKeys(int(action), int(subaction)))
    return actions


def _cameras(values: Doubles) -> dict[tuple[str, str], Camera]:
    """Make the cameras, by (subject, camera), from the numbers of <w0>.

    A camera has three angles in rad, which give the rotation R = Rx Ry Rz, and its position p0 in
    mm: a point p has the coordinates R (p - p0).
    """
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    cameras = {}
    n = len(CAMERAS)
    extrinsics, intrinsics = np.split(values, [n * N_SUBJECTS * N_EXTRINSIC])
    poses = extrinsics.reshape(n, N_SUBJECTS, 2, 3)  # angles, then position
    lenses = intrinsics.reshape(n, N_INTRINSIC)
    for number, camera in enumerate(CAMERAS):
        fx, fy, cx, cy = lenses[number, :4]  # distortion follows
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
        for subject, (angles, position) in enumerate(poses[number], start=1):
            rotation = Rotation.from_euler("XYZ", angles).as_matrix()
            world_to_camera = rigid(rotation, -rotation @ position / 1000)
            key = f"S{subject}", camera
            cameras[key] = world_to_camera.astype(np.float32), matrix
    return cameras


def _text(cell: Element) -> str:
    return (cell.text or "").strip()


def _texts(cells: Element) -> list[str]:
    return [_text(cell) for cell in cells]


def load_fits(file: Path, action: SequenceKeys, frames: Ints) -> Float32s:
    """Read the fits of N frames of a sequence: (N, 82), pose in rad with the global orientation in
    the world, then betas. Frames without a fit are NaN.

    `action`: the action's and subaction's id. Raises RawDataError for other content, and if the
    file does not have the sequence.
    """
    key = str(action)
    rows = np.full((len(frames), sum(LENGTHS.values())), np.nan, np.float32)
    stored = load_sequence(file, action, LEVELS, do=JSON_AGAIN)
    if not stored:
        raise RawDataError(file, "action/subaction", key, "none", "Nothing, if it has no fits.")
    for row, frame in enumerate(frames.tolist()):
        fit = stored.get(frame)
        if not fit:
            continue
        parts = []
        for name, n in LENGTHS.items():
            with reading(file, f"{n} numbers", key=f"{key}/{frame}/{name}", do=JSON_AGAIN):
                values = np.asarray(fit.get(name, ()), np.float64).ravel()
                if len(values) != n:
                    refuse(f"{len(values)}")
            parts.append(values)
        with np.errstate(over="ignore"):
            rows[row] = np.concatenate(parts)
    return rows


def load_cdf(file: Path, key: str) -> Floats:
    """Read the variable `key` of a CDF file: (records, *dimensions) float32 or float64, in native
    byte order.

    Raises RawDataError for another or a damaged file, if the variable is missing, and if it does
    not have floating-point numbers.
    """
    import cdflib  # takes a quarter of a second, and only Human3.6M needs it

    with reading(file, "a whole CDF file", key=key):
        with open_regular(file) as stream:
            head = stream.read(16)
        if not head.startswith(MAGIC):
            refuse_other(head)
        cdf = cdflib.CDF(file)
        info = cdf.cdf_info()
        names = [*info.zVariables, *info.rVariables]
        if key not in names:
            raise RawDataError(file, key, "a variable of this name", f"only {names}", UNPACK_AGAIN)
        values = np.asarray(cdf.varget(key))
    if values.dtype.kind != "f":
        raise RawDataError(file, key, "floating-point numbers", str(values.dtype), UNPACK_AGAIN)
    native = values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, native)
