"""An untrusted database file of VIBE or TCMR, opened and checked.  [database files] -> tracks

In comes a joblib or HDF5 file with named arrays, each with a row for each frame of a person; out
goes a `Database` with those arrays that the dataset's layout names. Rows with the same `vid_name`
are a segment:

    row   vid_name   frame_id   joints2D (rows, J, 3)   features (rows, 2048) ...
    0     a          7
    1     a          8          segment "a", rows [0, 2)
    2     b          0          segment "b", rows [2, 3)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.errors import RawDataError
from pipeline.exchange import pickled_arrays
from pipeline.exchange.array_files import ArrayFile, open_arrays
from pipeline.exchange.pickled_arrays import OTHER_FORMATS, text_of
from pipeline.exchange.vibe_db.layouts import FIELDS, REQUIRED, Layout
from pipeline.files.formats.arrays import matches_shape
from pipeline.files.formats.messages import shown_names
from pipeline.skeletons import Array

_NAMES_AT_ONCE: Final = 65536
MAX_NAME: Final = 4000  # bytes: the cache's tables hold 4096, with the person
AGAIN: Final = "Write the file again."
FORMATS: Final = ("joblib", "hdf5")
# dtype in the layout -> dtype kinds that a file may have; for other dtypes, any numbers
KINDS: Final = {"U": "US", "<i8": "biuUS"}


class Segment(NamedTuple):
    """Neighbouring rows with the same name."""

    name: str
    rows: range


@dataclass(frozen=True, slots=True)
class Database:
    """The fields of an open file that its layout defines; all have `rows` rows."""

    arrays: ArrayFile
    fields: Mapping[str, Array]  # memory-mapped, or of h5py
    rows: int
    ignored: tuple[str, ...]  # names of other content

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


def open_database(file: Path, layout: Layout) -> Database:
    """Open a joblib or HDF5 file with the fields of `layout`.

    Raises RawDataError if the file is unreadable, a required field is missing, or a type, shape or
    length is wrong; UnsafePickle if it would run code.
    """
    arrays = open_arrays(file, do=pickled_arrays.AGAIN)
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
    database = Database(arrays, fields, n_rows, tuple(sorted(named - fields.keys())))
    for name in REQUIRED:
        if name in layout.fields and name not in fields:
            actual = shown_names(arrays.names) if arrays.names else "none"
            if name in arrays.others:
                actual = "another Python object of this name"
            raise database.error(name, "an array of this name", actual, OTHER_FORMATS)

    for name, array in fields.items():
        actual = f"{array.dtype} {array.shape}"
        field = FIELDS[name]
        if array.shape[:1] != (n_rows,):
            raise database.error(name, f"{n_rows} rows, as in vid_name", actual)
        has_shape = any(matches_shape(array.shape[1:], shape) for shape in field.shapes)
        has_kind = array.dtype.kind in KINDS.get(field.dtype, "biuf")
        if not (has_shape and has_kind):
            shapes = " or ".join(f"(rows, {', '.join(map(str, shape))})" for shape in field.shapes)
            content = "texts" if field.dtype == "U" else "numbers"
            expected = f"{content} of shape {shapes.replace('None', 'any')}"
            raise database.error(name, expected, actual)
    return database
