"""Layouts of database files by dataset, and their image names.  tracks <-> [database
files]

A database file contains the full name of every image; the cache stores a pattern with one number. A
frame of a video file is written as `<path of the video>#<frame>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import PipelineError
from pipeline.exchange.rows import (
    NO_FEATURES,
    NO_JOINTS_3D,
    NO_JOINTS_3D_EVAL,
    NO_SMPL,
    RowCheck,
)
from pipeline.files.formats.arrays import Shape
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Pictures, Video
from pipeline.skeletons import Ints, Skeleton

PICTURE: Final = 224  # px, side of the images in which InstaVariety's joints are given
CROP_SCALE: Final = 1.3

_NUMBER: Final = ((), (1,))  # shapes of one number per row: (n,) or (n, 1)


@dataclass(frozen=True)
class DatabaseField:
    """One array of a database file."""

    shapes: tuple[Shape, ...]  # allowed shapes of a row
    checks: tuple[RowCheck, ...] = ()  # that exported rows must pass
    columns: tuple[str, ...] = ()  # required columns of the cache, besides those of the checks
    dtype: str = "<f4"  # as written; "U": texts


_TEXT: Final = DatabaseField(((),), dtype="U")  # one per row
FIELDS: Final[Mapping[str, DatabaseField]] = {
    "vid_name": _TEXT,
    "img_name": _TEXT,
    "frame_id": DatabaseField(((),), dtype="<i8"),
    "joints2D": DatabaseField(((None, 3),), columns=("kp_2d",)),
    # of `kp_3d`; `Layout.fields_to_write` has the check of the other column
    "joints3D": DatabaseField(((49, 3), (14, 3)), (NO_JOINTS_3D,)),
    "bbox": DatabaseField(((4,),), columns=("bbox",)),
    "pose": DatabaseField(((72,),), (NO_SMPL,)),
    "shape": DatabaseField(((10,),), (NO_SMPL,)),
    "theta": DatabaseField(((82,),), (NO_SMPL,)),
    "valid": DatabaseField(_NUMBER, dtype="|u1"),
    "valid_i": DatabaseField(_NUMBER),
    "features": DatabaseField(((None,),), (NO_FEATURES,)),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of database file. Fields are arrays with one row per frame."""

    file: str  # start of the usual name, such as "3dpw" of 3dpw_train_db.pt
    fields: tuple[str, ...]  # keys of FIELDS
    joints_2d: Skeleton = "spin49"  # of joints2D
    joints_3d: str = "spin49"  # of joints3D
    known_3d: str = "spin49"  # joints that the dataset annotates; values of others are ignored
    is_hdf5: bool = False  # else a joblib file
    crop_scale: float = CROP_SCALE  # crop side / box side of the features
    first_picture: int = 0  # the image number of frame 0, if only images are numbered

    @property
    def in_crops(self) -> bool:
        """Whether the images are crops: joints are in pixels of 224 x 224, and there are no
        boxes.
        """
        return "joints2D" in self.fields and "bbox" not in self.fields

    @property
    def column_3d(self) -> str:
        """The cache's column for joints3D."""
        return "kp_3d_eval" if self.joints_3d == "common14" else "kp_3d"

    def fields_to_write(self) -> dict[str, DatabaseField]:
        """The file's fields, with the cache's column for joints3D."""
        fields = {name: FIELDS[name] for name in self.fields}
        if "joints3D" in fields and self.column_3d == "kp_3d_eval":
            fields["joints3D"] = replace(fields["joints3D"], checks=(NO_JOINTS_3D_EVAL,))
        return fields


# Fields of files with 2D labels, with 3D joints, with SMPL bodies, and of motions
_2D: Final = ("vid_name", "img_name", "joints2D", "bbox", "features")
_3D: Final = ("vid_name", "frame_id", "img_name", "joints2D", "joints3D", "bbox", "features")
_SMPL: Final = (*_3D[:5], "shape", "pose", "bbox", "features", "valid")
_MOTION: Final = ("theta", "vid_name")

_LAYOUTS: Final[Mapping[str, Layout]] = {
    "penn_action": Layout("pennaction", _2D, joints_2d="penn_action", first_picture=1),
    "posetrack": Layout("posetrack", _2D),
    "mpi_inf_3dhp": Layout("mpii3d", _3D, known_3d="mpi_inf_3dhp"),
    "3dpw": Layout("3dpw", _SMPL, joints_2d="common14", crop_scale=1.2),
    "h36m": Layout("h36m", _SMPL, known_3d="h36m"),
    "insta_variety": Layout(
        "insta",
        ("vid_name", "frame_id", "joints2D", "features"),
        joints_2d="insta_variety",
        is_hdf5=True,
        crop_scale=1.0,
    ),
    "amass": Layout("amass", _MOTION),
}
_VALIDATION: Final = {("3dpw", "validation"): "val", ("mpi_inf_3dhp", "test"): "val"}
# A file must have those of these fields that its layout has.
REQUIRED: Final = ("vid_name", "joints2D", "bbox", "theta")


def layout_of(dataset: str, split: str, columns: Collection[str]) -> Layout:
    """The layout of a split's file; for datasets that VIBE's code does not know, a general one with
    49 joints.

    columns: The cache's columns of the split, or those that its dataset's reader would fill.
    """
    if dataset not in _LAYOUTS:
        return _general(dataset, columns)
    layout = _LAYOUTS[dataset]
    if dataset == "3dpw" and split != "train":
        return replace(layout, joints_3d="common14")
    if (dataset, split) == ("mpi_inf_3dhp", "test"):
        return replace(layout, fields=(*layout.fields, "valid_i"), known_3d="mpi_inf_3dhp_test")
    return layout


def usual_name(layout: Layout, dataset: str, split: str) -> str:
    """The file name that VIBE's code expects.

    >>> usual_name(layout_of("mpi_inf_3dhp", "test", ()), "mpi_inf_3dhp", "test")
    'mpii3d_val_db.pt'
    """
    if dataset == "amass":
        return "amass_db.pt"
    part = _VALIDATION.get((dataset, split), split)
    suffix = "h5" if layout.is_hdf5 else "pt"
    return f"{layout.file}_{part}_db.{suffix}"


def _general(dataset: str, columns: Collection[str]) -> Layout:
    """The layout for a dataset that VIBE's code does not know: 3DPW's, without absent fields."""
    if "kp_2d" not in columns:
        return Layout(dataset, _MOTION)
    needs = {"joints3D": "kp_3d", "shape": "betas", "pose": "pose", "valid": "valid"}
    absent = [name for name, column in needs.items() if column not in columns]
    return Layout(dataset, tuple(name for name in _SMPL if name not in absent))


NAMED: Final = ("pictures", "video")  # kinds of source whose frames have names
_LAST_NUMBER: Final = re.compile(r"([0-9]{1,18})([^0-9/]*)\Z")


def names_of(source: str) -> Callable[[int], str] | None:
    """Function from a frame of a pixel source to its image name; None if the frames have no names.

    >>> names_of("pictures:frames/0001/{:06d}.jpg+1")(0), names_of("video:train/x.mp4")(12)
    ('frames/0001/000001.jpg', 'train/x.mp4#000012')
    """
    if source.partition(":")[0] not in NAMED:
        return None
    match sources.parse(Path(), source):
        case Pictures(_, pattern, first):
            return lambda frame: pattern.format(frame + first)
        case Video(_, path):
            return lambda frame: f"{path}#{frame:06d}"
    return None


def parse_numbers(texts: Sequence[str]) -> Ints | None:
    """The last number in each text, such as 12 in "frames/0001/000012.jpg"; None if a text has no
    number.
    """
    numbers = []
    for text in texts:
        match = _LAST_NUMBER.search(text)
        if match is None:
            return None
        numbers.append(int(match[1]))
    return np.array(numbers, np.int64)


def source_of(names: Sequence[str], frame_index: Ints) -> str:
    """The pixel source whose frames have these names; "" if there is none in a raw folder.

    >>> source_of(["a/000007.jpg", "a/000009.jpg"], np.array([6, 8]))
    'pictures:a/{:06d}.jpg+1'
    >>> source_of(["/elsewhere/000007.jpg"], np.array([6]))
    ''
    """
    numbers = parse_numbers(names)
    if numbers is None or not len(numbers):
        return ""
    first, *other_numbers = set((numbers - frame_index).tolist())  # numbers of the image of frame 0
    if other_numbers:
        return ""
    # guess the source from the first name, then compare the names of all its frames
    match = _LAST_NUMBER.search(names[0])
    assert match is not None
    before = names[0][: match.start()]
    after = match[2]
    if before.endswith("#") and not after and first == 0:
        candidate = f"video:{before.removesuffix('#')}"
    else:
        texts = [name[len(before) : len(name) - len(after)] for name in names]
        padded = [len(text) for text in texts if text.startswith("0")]
        digits = padded[0] if padded else 1
        candidate = f"pictures:{before}{{:0{digits}d}}{after}+{first}"
    try:
        name_of = names_of(candidate)
    except (PipelineError, ValueError):  # an absolute path, or one with '..'
        return ""
    assert name_of is not None
    for frame, name in zip(frame_index.tolist(), names, strict=True):
        if name_of(frame) != name:
            return ""
    return candidate
