"""An untrusted database file, opened and checked: names, types, shapes.  [database files] -> tracks, features"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import fits, reading, refuse
from pipeline.files.formats.hdf5 import filters_of, own_object
from pipeline.files.raw.files import open_unbuffered
from vibe_extensions.exchange.vibe_db.joblib_files import stored_arrays, text_of
from vibe_extensions.exchange.vibe_db.layouts import FIELDS, REQUIRED, Layout

HDF5: Final = b"\x89HDF\r\n\x1a\n"
NAMES_AT_ONCE: Final = 65536
MAX_NAME: Final = 4000  # bytes: the cache's tables hold 4096, with the person
AGAIN: Final = "Write the file again."
KINDS: Final = {"U": "US", "<i8": "biuUS"}  # allowed dtype kinds by the dtype of the layout; else numbers


class Segment(NamedTuple):
    """Rows [start, stop) with the same name."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Database:
    """The fields of an open file that its layout defines; all have `rows` rows."""

    file: Path
    fields: Mapping[str, NDArray[Any]]  # memory-mapped, or of h5py
    rows: int
    ignored: tuple[str, ...]  # names of other content

    def read(self, field: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of a field."""
        return np.array(self.fields[field][start:stop])

    def texts(self, field: str, start: int, stop: int) -> list[str]:
        """Rows [start, stop) of a text field, which may be stored as bytes."""
        return [text_of(value) for value in self.read(field, start, stop).tolist()]

    def segments(self) -> Iterator[Segment]:
        """Yield runs of rows with equal `vid_name`, in order. Raises RawDataError for an invalid name."""
        name, start = "", 0
        for first_row in range(0, self.rows, NAMES_AT_ONCE):
            values = self.read("vid_name", first_row, min(first_row + NAMES_AT_ONCE, self.rows))
            for change in np.flatnonzero(np.r_[True, values[1:] != values[:-1]]).tolist():
                text = text_of(values[change])
                encoded = text.encode("utf-8", "surrogatepass")
                if not 0 < len(encoded) <= MAX_NAME or "\0" in text or encoded.decode("utf-8", "replace") != text:
                    row = first_row + change
                    raise self.error("vid_name", f"UTF-8 of 1 to {MAX_NAME} bytes in row {row}", repr(text[:80]))
                if text != name:
                    if name:
                        yield Segment(name, start, first_row + change)
                    name, start = text, first_row + change
        if name:
            yield Segment(name, start, self.rows)

    def error(self, field: str, expected: str, found: str, do: str = AGAIN) -> RawDataError:
        return RawDataError(self.file, field, expected=expected, found=found, do=do)


@contextmanager
def open_database(file: Path, layout: Layout) -> Iterator[Database]:
    """Open a joblib or HDF5 file with the fields of `layout`.

    Raises RawDataError if the file is unreadable, a required field is missing, or a type, shape or length is wrong;
    UnsafePickle if it would run code; OSError.
    """
    with open_unbuffered(file) as stream:
        start = stream.read(len(HDF5))
    if start != HDF5:
        yield _check_fields(file, layout, *stored_arrays(file))
        return
    with ExitStack() as opened:
        with reading(file, "an HDF5 file", do="Copy it again."):
            stored = opened.enter_context(h5py.File(file, "r", locking=False))
            objects = {name: _plain_array(file, stored, name) for name in stored}
        arrays = {name: array for name, array in objects.items() if array is not None}
        yield _check_fields(file, layout, arrays, tuple(objects.keys() - arrays.keys()))


def _check_fields(file: Path, layout: Layout, arrays: Mapping[str, NDArray[Any]], others: tuple[str, ...]) -> Database:
    fields = {name: array for name, array in arrays.items() if name in layout.fields}
    ignored = tuple(sorted({*arrays, *others} - fields.keys()))
    names = fields.get("vid_name")
    database = Database(file, fields, names.shape[0] if names is not None and names.shape else 0, ignored)
    for name in REQUIRED:
        if name in layout.fields and name not in fields:
            description = f"only {', '.join(sorted(arrays)) or 'no arrays'}"
            raise database.error(name, "an array of this name", description, "Check that this is the dataset's file.")
    if not database.rows:
        raise database.error("vid_name", "rows", "none")
    for name, array in fields.items():
        description, dtype, shapes = f"{array.dtype} {array.shape}", FIELDS[name].dtype, FIELDS[name].shapes
        if array.shape[:1] != (database.rows,):
            raise database.error(name, f"{database.rows} rows, as in vid_name", description)
        fitting = 0 not in array.shape and any(fits(array.shape[1:], shape) for shape in shapes)
        if array.dtype.kind not in KINDS.get(dtype, "biuf") or not fitting:
            expected = " or ".join(f"(rows, {', '.join(map(str, shape))})" for shape in shapes).replace("None", "any")
            raise database.error(name, f"{'texts' if dtype == 'U' else 'numbers'} of shape {expected}", description)
    return database


def _plain_array(file: Path, stored: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset; None for another object. Raises RawDataError for a dataset in another file, or with filters."""
    with reading(file, "an array in this file", key=name, do=AGAIN):
        dataset = own_object(stored, name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            return None
        if filters_of(dataset):
            do = f"Write it without them: h5repack -f NONE {file} PLAIN"
            raise RawDataError(file, name, expected="an array without filters", found="filters (compression)", do=do)
        if dataset.id.get_storage_size() < dataset.nbytes:
            refuse(f"{dataset.id.get_storage_size():,} of its {dataset.nbytes:,} bytes")
    return dataset
