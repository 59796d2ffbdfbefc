"""Database files of VIBE and TCMR: the fields of each dataset's, and an untrusted one, opened and
checked.  tracks <-> [database files]

In comes a joblib or HDF5 file with named arrays, each with a row for each frame of a person; out
goes a `Database` with those arrays that the dataset's `DatabaseLayout` names, and with what our
export recorded beside the file. Rows with the same `vid_name` are a segment:

    row   vid_name   frame_id   joints2D (rows, J, 3)   features (rows, 2048) ...
    0     a          7
    1     a          8          segment "a", rows [0, 2)
    2     b          0          segment "b", rows [2, 3)

A file contains the full name of every image; the cache stores a pattern with one number. A frame of
a video file is written as `<path of the video>#<frame>`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from pipeline.errors import PipelineError, RawDataError
from pipeline.extras.exchange import pickled_arrays
from pipeline.extras.exchange.array_files import ArrayFile, StampedFile
from pipeline.extras.exchange.formats import provenance_path
from pipeline.extras.exchange.pickled_arrays import OTHER_FORMATS, text_of
from pipeline.extras.exchange.rows import (
    NO_FEATURES,
    NO_JOINTS_3D,
    NO_JOINTS_3D_EVAL,
    NO_SMPL,
    ExportField,
)
from pipeline.files.formats.arrays import Shape, load_json, matches_shape
from pipeline.files.formats.names import shown_names
from pipeline.people.skeletons import JOINTS, Array, Skeleton

_NAMES_AT_ONCE: Final = 65536
MAX_NAME: Final = 4000  # bytes: the cache's tables hold 4096, with the person
AGAIN: Final = "Write the file again."
FORMATS: Final = ("joblib", "hdf5")
# dtype in the layout -> dtype kinds that a file may have; for other dtypes, any numbers
KINDS: Final = {"U": "US", "<i8": "biuUS"}
PICTURE: Final = 224  # px, side of the images in which InstaVariety's joints are given
CROP_SCALE: Final = 1.3

# names written by our export: <video>/<person>, perhaps with a segment
_EXPORTED_NAME: Final = re.compile(r"(.+)/(\d+(?:_(?:seg|part)\d+)*)")
_NUMBER: Final = ((), (1,))  # shapes of one number per row: (n,) or (n, 1)


@dataclass(frozen=True)
class DatabaseField(ExportField):
    """One array of a database file."""

    shapes: tuple[Shape, ...]  # allowed shapes of a row
    dtype: str = "<f4"  # as written; "U": texts


_TEXT: Final = DatabaseField(((),), dtype="U")  # one per row


FIELDS: Final[Mapping[str, DatabaseField]] = {
    "vid_name": _TEXT,
    "img_name": _TEXT,
    "frame_id": DatabaseField(((),), dtype="<i8"),
    "joints2D": DatabaseField(((None, 3),), columns=("kp_2d",)),
    # of `kp_3d`; `DatabaseLayout.fields_to_write` has the check of the other column
    "joints3D": DatabaseField(((49, 3), (14, 3)), checks=(NO_JOINTS_3D,)),
    "bbox": DatabaseField(((4,),), columns=("bbox",)),
    "pose": DatabaseField(((72,),), checks=(NO_SMPL,)),
    "shape": DatabaseField(((10,),), checks=(NO_SMPL,)),
    "theta": DatabaseField(((82,),), checks=(NO_SMPL,)),
    "valid": DatabaseField(_NUMBER, dtype="|u1"),
    "valid_i": DatabaseField(_NUMBER),
    "features": DatabaseField(((None,),), checks=(NO_FEATURES,)),
}


@dataclass(frozen=True, slots=True)
class DatabaseLayout:
    """One kind of database file. Fields are arrays with one row per frame."""

    file: str  # start of the usual name, such as "3dpw" of 3dpw_train_db.pt
    fields: tuple[str, ...]  # keys of FIELDS
    joints_2d: Skeleton = "spin49"  # of joints2D
    joints_3d: str = "spin49"  # of joints3D
    known_3d: str = "spin49"  # joints that the dataset annotates; values of others are ignored
    is_hdf5: bool = False  # else a joblib file
    crop_scale: float = CROP_SCALE  # crop side / box side of the features
    first_picture: int = 0  # the image number of frame 0, if only images are numbered

    @classmethod
    def find(cls, dataset: str, split: str, columns: Collection[str]) -> DatabaseLayout:
        """The layout of a split's file; for datasets that VIBE's code does not know, a general one
        with 49 joints.

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

    def usual_name(self, dataset: str, split: str) -> str:
        """The file name that VIBE's code expects.

        >>> DatabaseLayout.find("mpi_inf_3dhp", "test", ()).usual_name("mpi_inf_3dhp", "test")
        'mpii3d_val_db.pt'
        """
        if dataset == "amass":
            return "amass_db.pt"
        part = _VALIDATION.get((dataset, split), split)
        suffix = "h5" if self.is_hdf5 else "pt"
        return f"{self.file}_{part}_db.{suffix}"

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


_LAYOUTS: Final[Mapping[str, DatabaseLayout]] = {
    "penn_action": DatabaseLayout("pennaction", _2D, joints_2d="penn_action", first_picture=1),
    "posetrack": DatabaseLayout("posetrack", _2D),
    "mpi_inf_3dhp": DatabaseLayout("mpii3d", _3D, known_3d="mpi_inf_3dhp"),
    "3dpw": DatabaseLayout("3dpw", _SMPL, joints_2d="common14", crop_scale=1.2),
    "h36m": DatabaseLayout("h36m", _SMPL, known_3d="h36m"),
    "insta_variety": DatabaseLayout(
        "insta",
        ("vid_name", "frame_id", "joints2D", "features"),
        joints_2d="insta_variety",
        is_hdf5=True,
        crop_scale=1.0,
    ),
    "amass": DatabaseLayout("amass", _MOTION),
}


_VALIDATION: Final = {("3dpw", "validation"): "val", ("mpi_inf_3dhp", "test"): "val"}


# A file has those of these fields that its layout has.
REQUIRED: Final = ("vid_name", "joints2D", "bbox", "theta")


def _general(dataset: str, columns: Collection[str]) -> DatabaseLayout:
    """The layout for a dataset that VIBE's code does not know: 3DPW's, without absent fields."""
    if "kp_2d" not in columns:
        return DatabaseLayout(dataset, _MOTION)
    needs = {"joints3D": "kp_3d", "shape": "betas", "pose": "pose", "valid": "valid"}
    absent = [name for name, column in needs.items() if column not in columns]
    return DatabaseLayout(dataset, tuple(name for name in _SMPL if name not in absent))


class Segment(NamedTuple):
    """Neighbouring rows with the same name. One that our export has written is video and person.

    >>> Segment("0001/0_seg1", range(9)).video, Segment("0001/0_seg1", range(9)).person
    ('0001', '0_seg1')
    >>> Segment("2.mat", range(9)).video, Segment("2.mat", range(9)).person
    ('2.mat', '0')
    """

    name: str
    rows: range

    @property
    def video(self) -> str:
        match = _EXPORTED_NAME.fullmatch(self.name)
        return self.name if match is None else match[1]

    @property
    def person(self) -> str:
        match = _EXPORTED_NAME.fullmatch(self.name)
        return "0" if match is None else match[2]


@dataclass(frozen=True, slots=True)
class Database:
    """The fields of an open file that its layout defines; all have `rows` rows."""

    arrays: ArrayFile
    fields: Mapping[str, Array]  # memory-mapped, or of h5py
    rows: int
    ignored: tuple[str, ...]  # names of other content
    provenance: _Provenance

    @classmethod
    def open(cls, stamped: StampedFile, layout: DatabaseLayout, name: str) -> Self:
        """Open a joblib or HDF5 file with the fields of `layout`, to be read as the split `name`.

        Raises RawDataError if the file is unreadable, a required field is missing, or a type, shape
        or length is wrong; PipelineError if it was exported from another dataset; UnsafePickle if
        it would run code.
        """
        file = stamped.path
        provenance = _read_provenance(file, stamped.sha256)
        _require_own_dataset(file, name, provenance)
        arrays = stamped.open_arrays(pickled_arrays.AGAIN)
        if arrays.format not in FORMATS:
            expected = "a joblib or HDF5 file, as VIBE's and TCMR's scripts write them"
            raise RawDataError(file, "file", expected, f"{arrays.format} arrays", OTHER_FORMATS)
        named = {*arrays.names, *arrays.others}
        fields: dict[str, Any] = {
            name: arrays.open(name) for name in arrays.names if name in layout.fields
        }
        n_rows = 0
        if "vid_name" in fields:
            n_rows = fields["vid_name"].shape[0]
        database = cls(arrays, fields, n_rows, tuple(sorted(named - fields.keys())), provenance)
        for required in REQUIRED:
            if required in layout.fields and required not in fields:
                actual = shown_names(arrays.names) if arrays.names else "none"
                if required in arrays.others:
                    actual = "another Python object of this name"
                raise database.error(required, "an array of this name", actual, OTHER_FORMATS)

        for field_name, array in fields.items():
            actual = f"{array.dtype} {array.shape}"
            field = FIELDS[field_name]
            if array.shape[:1] != (n_rows,):
                raise database.error(field_name, f"{n_rows} rows, as in vid_name", actual)
            has_shape = any(matches_shape(array.shape[1:], shape) for shape in field.shapes)
            has_kind = array.dtype.kind in KINDS.get(field.dtype, "biuf")
            if not (has_shape and has_kind):
                shapes = " or ".join(
                    f"(rows, {', '.join(map(str, shape))})" for shape in field.shapes
                )
                content = "texts" if field.dtype == "U" else "numbers"
                expected = f"{content} of shape {shapes.replace('None', 'any')}"
                raise database.error(field_name, expected, actual)
        return database

    def read(self, field: str, rows: range) -> Array:
        """These rows of a field."""
        return np.array(self.fields[field][rows.start : rows.stop])

    def texts(self, field: str, rows: range) -> list[str]:
        """These rows of a text field, which may be stored as bytes."""
        return [text_of(value) for value in self.read(field, rows).tolist()]

    def segments(self) -> Iterator[Segment]:
        """Yield runs of rows with equal `vid_name`, in order. Raises RawDataError for an invalid
        name.
        """
        name = ""
        start = 0
        for first_row in range(0, self.rows, _NAMES_AT_ONCE):
            last_row = min(first_row + _NAMES_AT_ONCE, self.rows)
            values = self.read("vid_name", range(first_row, last_row))
            is_change = np.r_[True, values[1:] != values[:-1]]
            for change in np.flatnonzero(is_change).tolist():
                row = first_row + change
                text = text_of(values[change])
                encoded = text.encode("utf-8", "surrogatepass")
                is_utf8 = encoded.decode("utf-8", "replace") == text
                is_short = 0 < len(encoded) <= MAX_NAME
                if "\0" in text or not (is_utf8 and is_short):
                    expected = f"UTF-8 of 1 to {MAX_NAME} bytes in row {row}"
                    raise self.error("vid_name", expected, repr(text[:80]))
                if text != name:
                    if name:
                        yield Segment(name, range(start, row))
                    name = text
                    start = row
        if name:
            yield Segment(name, range(start, self.rows))

    def error(self, field: str, expected: str, found: str, do: str = AGAIN) -> RawDataError:
        return RawDataError(self.arrays.file, field, expected, found, do)


def _require_own_dataset(file: Path, name: str, provenance: _Provenance) -> None:
    """Raise PipelineError if the file was exported from a split of another dataset."""
    source = provenance.split
    if source is not None and source.partition("/")[0] != name.partition("/")[0]:
        raise PipelineError(
            f"{file}: was exported from {source} ({provenance_path(file).name}), "
            f"so it cannot become {name}. Import it as a split of its own dataset."
        )


@dataclass(frozen=True, slots=True)
class _Provenance:
    """The recorded origin of a database file. None: it is unknown."""

    split: str | None = None
    split_digest: str | None = None
    joints_2d: Skeleton | None = None  # order of joints2D
    crop_scale: Any = None  # as recorded, perhaps no number
    estimates: Any = None  # the recorded origin of estimated bodies
    weights: Any = None  # identity of the stream of the features
    backbone: Mapping[str, Any] | None = None  # weights of that stream's network
    is_demo: bool = False
    is_stand_in: bool = False  # demo data, or features of random weights


def _read_provenance(file: Path, sha256: str) -> _Provenance:
    """Read the provenance of a file with this SHA-256; an unknown one without a provenance file.

    Raises RawDataError for an invalid provenance file, or one that belongs to other content.
    """
    source = provenance_path(file)
    if not source.exists():
        return _Provenance()
    do = f"Restore it, or delete it: then the origin of {file.name} is unknown."
    content = load_json(source, do=do)
    if not isinstance(content, dict):
        raise _foreign_provenance(file, sha256, type(content).__name__)
    if content.get("sha256") != sha256 or not isinstance(content.get("stand_in"), bool):
        raise _foreign_provenance(file, sha256, str(content.get("sha256", "dict")))

    stream = content.get("stream")
    if not isinstance(stream, dict):
        stream = {}
    return _Provenance(
        split=content.get("split"),
        split_digest=content.get("split_digest"),
        joints_2d=_joint_order(content.get("joints", {}).get("joints2D")),
        crop_scale=content.get("crop_scale"),
        estimates=content.get("estimates"),
        weights=stream.get("identity"),
        backbone=stream.get("backbone") or None,
        is_demo=bool(content.get("demo")),
        is_stand_in=content["stand_in"],
    )


def _joint_order(recorded: object) -> Skeleton | None:
    """The joint order of these names, under its own name if it has one; None for other content."""
    if not isinstance(recorded, list) or not all(isinstance(joint, str) for joint in recorded):
        return None
    order = tuple(recorded)
    name_of = {joints: name for name, joints in JOINTS.items()}
    return name_of.get(order, order)


def _foreign_provenance(file: Path, sha256: str, found: str) -> RawDataError:
    """The error for a provenance file that belongs to another database file."""
    do = (
        f"It belongs to another file: copy the one that was written with {file.name}, or delete it."
    )
    expected = f"{sha256}, that of {file.name}"
    return RawDataError(provenance_path(file), "sha256", expected, found, do)
