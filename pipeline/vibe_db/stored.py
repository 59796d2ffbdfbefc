"""A database file of somebody else, opened with distrust.  [database files] -> tracks, features

Names, types and shapes are checked here; what the numbers mean is for `pipeline.vibe_db.rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.raw.files import open_unbuffered
from pipeline.vibe_db.joblib_reader import NUMBERS_AND_TEXT, Stored, stored_arrays
from pipeline.vibe_db.layouts import REQUIRED, Layout

HDF5: Final = b"\x89HDF\r\n\x1a\n"
AT_ONCE: Final = 65536  # names
MAX_NAME: Final = 4000  # bytes: the cache's tables hold 4096, with the person
AGAIN: Final = "Write the file again."
TEXT: Final = "US"
NUMBERS: Final = "biuf"

_TRAILING: Final[Mapping[str, tuple[tuple[int, ...], ...]]] = {  # field -> what may follow the rows
    "vid_name": ((),),
    "frame_id": ((),),
    "img_name": ((),),
    "joints3D": ((49, 3), (14, 3)),
    "shape": ((10,),),
    "pose": ((72,),),
    "bbox": ((4,),),
    "valid": ((), (1,)),
    "valid_i": ((), (1,)),
    "theta": ((82,),),
}
_KINDS: Final = {"vid_name": TEXT, "img_name": TEXT, "frame_id": NUMBERS_AND_TEXT.replace("f", "")}


class Segment(NamedTuple):
    """Rows [start, stop) under one name."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Database:
    """The fields of an open file that its dataset's layout knows; all have `rows` rows."""

    file: Path
    fields: Mapping[str, Stored]
    rows: int
    ignored: tuple[str, ...]  # what else lies in the file

    def read(self, field: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of a field."""
        return self.fields[field].read(start, stop)

    def texts(self, field: str, start: int, stop: int) -> list[str]:
        """The same of texts, whichever way they are stored."""
        return [_text(value) for value in self.read(field, start, stop).tolist()]

    def segments(self) -> Iterator[Segment]:
        """Stretches of rows with equal `vid_name`, in order. Raises RawDataError for a name that cannot be one."""
        name, start = "", 0
        for at in range(0, self.rows, AT_ONCE):
            values = self.read("vid_name", at, min(at + AT_ONCE, self.rows))
            changes = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
            for change in changes.tolist():
                told = self._name(values[change], at + change)
                if told == name:
                    continue
                if name:
                    yield Segment(name, start, at + change)
                name, start = told, at + change
        if name:
            yield Segment(name, start, self.rows)

    def _name(self, value: Any, row: int) -> str:
        told = _text(value)
        if not told or len(told.encode("utf-8", "replace")) > MAX_NAME or "\0" in told or not _is_utf8(told):
            raise self.error("vid_name", f"a name of 1 to {MAX_NAME} bytes in row {row}", repr(told[:80]))
        return told

    def error(self, field: str, expected: str, found: str, do: str = AGAIN) -> RawDataError:
        return RawDataError(self.file, field, expected=expected, found=found, do=do)


@contextmanager
def open_database(file: Path, layout: Layout) -> Iterator[Database]:
    """Open a joblib or HDF5 file whose fields are those of `layout`.

    Raises RawDataError when the file cannot be read, a field that it needs is missing, or types, shapes or lengths are
    not what they must be; UnsafePickle when it would run code.
    """
    try:
        with open_unbuffered(file) as stream:
            start = stream.read(len(HDF5))
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror or error}"
        raise RawDataError(file, "file", expected="a file", found=found, do="Check the path.") from error
    if start == HDF5:
        with _hdf5_arrays(file) as (arrays, others):
            yield _checked(file, layout, arrays, others)
    else:
        yield _checked(file, layout, *stored_arrays(file))


def _checked(file: Path, layout: Layout, arrays: Mapping[str, Stored], others: tuple[str, ...]) -> Database:
    fields = {name: array for name, array in arrays.items() if name in layout.fields}
    ignored = tuple(sorted({*arrays, *others} - fields.keys()))
    there = ", ".join(sorted(arrays)) or "no arrays"
    database = Database(file, fields, len(_rows(fields.get("vid_name"))), ignored)
    for name in REQUIRED:
        if name in layout.fields and name not in fields:
            raise database.error(name, "an array of that name", f"only {there}", "Is this the dataset's file?")
    for name, array in fields.items():
        _check_field(database, name, array)
    if not database.rows:
        raise database.error("vid_name", "rows", "none")
    return database


def _rows(array: Stored | None) -> range:
    return range(array.shape[0] if array is not None and array.shape else 0)


def _check_field(database: Database, name: str, array: Stored) -> None:
    found = f"{array.dtype} {array.shape}"
    if not array.shape or array.shape[0] != database.rows:
        raise database.error(name, f"{database.rows} rows, as vid_name has", found)
    trailing, kinds = array.shape[1:], _KINDS.get(name, NUMBERS)
    if array.dtype.kind not in kinds or not _fits(name, trailing):
        wanted = " or ".join(f"(rows, {', '.join(map(str, shape))})" for shape in _TRAILING.get(name, ())) or "numbers"
        raise database.error(name, f"{'texts' if kinds == TEXT else 'numbers'} of shape {wanted}", found)


def _fits(name: str, trailing: tuple[int, ...]) -> bool:
    if name == "joints2D":
        return len(trailing) == 2 and trailing[1] == 3
    if name == "features":
        return len(trailing) == 1 and trailing[0] > 0
    return trailing in _TRAILING[name]


@dataclass(frozen=True, slots=True)
class _Hdf5Array:
    """A dataset of an open HDF5 file."""

    dataset: Any

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.dataset.shape or ()
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.dataset.dtype
        return dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(self.dataset[start:stop])


@contextmanager
def _hdf5_arrays(file: Path) -> Iterator[tuple[dict[str, Stored], tuple[str, ...]]]:
    """The arrays of an HDF5 file that lie in the file itself, unfiltered, as VIBE writes them; names of what else."""
    try:
        stored = h5py.File(file, "r", locking=False)
    except Exception as error:  # the library raises a dozen types on damaged files, none of them documented
        found = f"{type(error).__name__}: {error}"
        raise RawDataError(file, "file", expected="an HDF5 file", found=found, do="Copy it again.") from error
    with stored:
        try:
            arrays = {name: _Hdf5Array(stored[name]) for name in stored if _is_plain(file, stored, name)}
            others = tuple(sorted(set(stored) - arrays.keys()))
        except RawDataError:
            raise
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise RawDataError(file, "file", expected="an HDF5 file", found=found, do="Copy it again.") from error
        yield dict(arrays), others


def _is_plain(file: Path, stored: h5py.File, name: str) -> bool:
    """Is it an array? Raises RawDataError for one that lies elsewhere, or that a filter would have to unpack."""
    link = stored.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        found = f"a link to elsewhere ({type(link).__name__})"
        raise RawDataError(file, name, expected="an array", found=found, do=AGAIN)
    dataset: Any = stored[name]
    if not isinstance(dataset, h5py.Dataset):
        return False
    if dataset.is_virtual or dataset.external:
        raise RawDataError(file, name, expected="an array", found="one that lies in another file", do=AGAIN)
    if dataset.id.get_storage_size() < dataset.nbytes:
        found = f"{dataset.nbytes:,} bytes of which {dataset.id.get_storage_size():,} are there"
        raise RawDataError(file, name, expected="an array that lies in the file", found=found, do=AGAIN)
    if dataset.id.get_create_plist().get_nfilters():
        do = f"Write it without them: h5repack -f NONE {file} PLAIN"
        raise RawDataError(file, name, expected="an array without filters", found="filters (compression)", do=do)
    return True


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
