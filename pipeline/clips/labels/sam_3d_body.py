"""Files that people save of SAM 3D Body: what its `process_one_image` returns.  [raw] -> tracks

The tool itself writes no file. It returns a list with a dict for each person in an image, of which
these keys are read, whatever the container (npz, pickle or JSON):

    bbox (4) x y x y px    pred_keypoints_2d (70, 2) px    pred_keypoints_3d (70, 3) m, camera axes
    pred_cam_t (3) m, which is added to them               focal_length px, in newer files

A file has the people of one image, or of all: then each has its image's number, under `frame`
or in the name above it: {"000012.jpg": [person, person]}. The body itself (MHR's)
is not read here; its parameters are handed on.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli import pages
from pipeline.clips.labels.label_content import NOT_READ, TWO_CORNERS, LabelContent
from pipeline.clips.labels.label_values import DAMAGED
from pipeline.clips.labels.people_table import FoundPerson
from pipeline.errors import RawDataError, UnsafePickle
from pipeline.files.formats.arrays import (
    StoredArrays,
    load_json,
    read_npy_header,
    reading,
    whole_number,
)
from pipeline.files.formats.other_formats import ZIP
from pipeline.files.formats.pickles import ARRAYS, ArrayUnpickler
from pipeline.files.raw.files import open_unbuffered, read_regular
from pipeline.people.joint_spellings import JOINT_OF_SPELLING
from pipeline.people.skeletons import JOINTS, Doubles, correspondence

TOOL: Final = "SAM 3D Body"
KEY: Final = "pred_keypoints_2d"
FRAME: Final = "frame"  # key of a person
# keys of a person that are read, and those of its body and hands
KEYS: Final = re.compile("pred_.*|.*_params|.*bbox|global_rot|focal_length|frame|mask")
WRITE: Final = f"{pages.SAM_3D_BODY} has ten lines that write such files."
TENSORS: Final = f"Save arrays by pickle or np.savez: .cpu().numpy() of each tensor. {WRITE}"
NPY: Final = b"\x93NUMPY"  # first bytes of an array
OBJECTS: Final = b"'|O'"  # in its header, which ends within so many bytes
_HEADER: Final = 128
_HOLDS: Final = f"{TOOL}'s results: NumPy arrays in dicts and lists"
_NUMBER: Final = re.compile(r"(\d{1,18})(?:_data)?(?:\.\w+)?$")  # at the end of a file's name
# keys of parameters of the body (MHR's), which a person's dict may have -> their number
MHR: Final = {"mhr_model_params": 204, "shape_params": 45, "expr_params": 72}
_SIDES: Final = ("left", "right")
_LIMBS: Final = ("shoulder", "elbow", "hip", "knee", "ankle")
_FEET: Final = ("big_toe", "small_toe", "heel")
# the order of its 70 joints; fingers by number
NAMES: Final = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *(f"{side}_{joint}" for joint in _LIMBS for side in _SIDES),
    *(f"{side}_{joint}" for side in _SIDES for joint in _FEET),
    *(f"right_finger_{number}" for number in range(20)),
    "right_wrist",
    *(f"left_finger_{number}" for number in range(20)),
    "left_wrist",
    *("left_olecranon", "right_olecranon", "left_cubital_fossa", "right_cubital_fossa"),
    *("left_acromion", "right_acromion", "op_neck"),
)


_KNOWN: Final = [column for column, name in enumerate(NAMES) if name in JOINT_OF_SPELLING]
# of the left hand, then of the right one: the wrist is its last joint, and each finger begins with
# its tip
_HANDS: Final = [
    first + place
    for first in (42, 21)
    for place in (20, *np.arange(20).reshape(5, 4)[:, ::-1].ravel().tolist())
]


class _SamPerson(NamedTuple):
    """One person in one image."""

    frame: int  # from 0
    points: Doubles  # (70, 2) px
    box: Doubles  # (2, 2) px, upper left and lower right corner
    joints: Doubles  # (70, 3) m in camera axes
    place: Doubles  # (3,) m, which is added to the joints
    focal: float  # px; nan: not stored
    mhr: StoredArrays  # not checked: keypoints do not need the body
    keys: Iterable[str]  # of its dict


def is_of_tool(file: Path) -> bool:
    """Whether a file has the tool's keys; False for a folder. Raises RawDataError for a file that
    cannot be read.
    """
    if file.is_dir():
        return False
    with reading(file, "a file", do=DAMAGED), open_unbuffered(file) as stream:
        start = stream.read(len(ZIP))
        if not start:
            return False
        if start == ZIP:
            with zipfile.ZipFile(stream) as archive:
                return any(_has_key(archive, name) for name in archive.namelist())
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(KEY.encode()) >= 0


def _has_key(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether a member of an archive has the tool's key in its name, or, of objects, in its
    content, which may be compressed.
    """
    with archive.open(name) as member:
        start = member.read(_HEADER)
        return KEY in name or (OBJECTS in start and KEY.encode() in member.read())


def load(file: Path) -> Any:
    """The content of a file: dicts and lists of arrays. Raises RawDataError, with the reason
    `unsafe_pickle` for one that names more than arrays.
    """
    with reading(file, _HOLDS, do=WRITE):
        data = read_regular(file)
        try:
            if data.startswith(ZIP):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    return {
                        name.removesuffix(".npy"): _load_npy(file, archive.read(name))
                        for name in archive.namelist()
                    }
            if data.startswith(NPY):
                return _load_npy(file, data)
            if data[:1] == pickle.PROTO:
                return ArrayUnpickler(file, io.BytesIO(data), ARRAYS, _HOLDS).load()
        except UnsafePickle as error:
            found = f"that it asks for {error.asks_for}: not read"
            do = TENSORS if error.asks_for.startswith("torch.") else WRITE
            raise RawDataError(file, "pickle", _HOLDS, found, do, reason="unsafe_pickle") from error
    return load_json(file, do=WRITE)


def _load_npy(file: Path, data: bytes) -> Any:
    """An array; or the content of one of objects, whose pickle may name arrays alone."""
    stream = io.BytesIO(data)
    if not read_npy_header(stream).dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    return ArrayUnpickler(file, stream, ARRAYS, _HOLDS).load()


def number_of(name: str) -> int | None:
    """The number at the end of a file's name, without its ending; None without one.

    >>> number_of("a/img_000012.jpg"), number_of("000003_data"), number_of("walk.npz")
    (12, 3, None)
    """
    match = _NUMBER.search(name)
    return int(match[1]) if match else None


def read_people(file: Path, content: object, frame: int | None = None) -> list[_SamPerson]:
    """The people in a file's content. frame: of a file of one image.

    Raises RawDataError for other shapes, numbers that are not finite, and a person without a frame.
    """
    with reading(file, _HOLDS, do=WRITE):  # a list may be in itself
        return [*_people(file, content, frame)]


def _people(file: Path, content: Any, frame: int | None) -> Iterator[_SamPerson]:
    """Yield the people in lists and dicts of persons."""
    if isinstance(content, np.ndarray) and content.dtype.hasobject:
        content = [*content.ravel()]
    if isinstance(content, list):
        for entry in content:
            yield from _people(file, entry, frame)
    elif isinstance(content, dict) and KEY not in content:
        for name, entry in content.items():
            yield from _people(file, entry, number_of(str(name)) if frame is None else frame)
    else:
        yield _person(StoredArrays(file, content, WRITE), frame)


def _person(stored: StoredArrays, frame: int | None) -> _SamPerson:
    """Check a person's dict."""
    points = stored.take(KEY, len(NAMES), 2, finite=True)
    if FRAME in stored.content:
        value = stored.scalar(FRAME)
        frame = whole_number(stored.file, FRAME, value, do=WRITE)
    if frame is None or frame < 0:
        expected = "the image's number from 0, or at the end of the file's name"
        raise stored.error(FRAME, expected, str(frame or "none"))
    focal = math.nan
    if stored.content.get("focal_length") is not None:
        focal = stored.scalar("focal_length")
    return _SamPerson(
        frame,
        points,
        stored.take("bbox", 4, finite=True).reshape(2, 2),
        stored.take("pred_keypoints_3d", len(NAMES), 3, finite=True),
        stored.take("pred_cam_t", 3, finite=True),
        focal,
        replace(stored, content={key: stored.content[key] for key in MHR.keys() & stored.content}),
        stored.content.keys(),
    )


def sam_content(place: Path, files: Sequence[tuple[int, Path]]) -> LabelContent:
    """The people of a clip, of a file of all images, or of the (frame, file) of each. Raises
    RawDataError.
    """
    pages: Sequence[tuple[int | None, Path]] = files or [(None, place)]
    content = LabelContent(box_form=TWO_CORNERS, has_hands=True)
    for frame, file in pages:
        for person in read_people(file, load(file), frame):
            points = np.column_stack([person.points, np.ones(len(NAMES))])[_KNOWN + _HANDS]
            content.people.add(FoundPerson(person.frame, points, box=person.box))
            for key in map(str, person.keys):
                if not KEYS.fullmatch(key):
                    content.unread[NOT_READ][key] += 1
    content.frames = [frame for frame, _ in files] or None
    content.joints = [NAMES[column] for column in _KNOWN]
    return content


def spin49_joints(joints: Doubles) -> Doubles:
    """(N, 70, 3) m -> (N, 49, 3) m, NaN for those that it does not have."""
    names = tuple(JOINT_OF_SPELLING.get(name, name) for name in NAMES)
    from_columns, to_columns = correspondence(names, "spin49")
    converted = np.full((len(joints), len(JOINTS["spin49"]), 3), np.nan)
    converted[:, to_columns] = joints[:, from_columns]
    return converted
