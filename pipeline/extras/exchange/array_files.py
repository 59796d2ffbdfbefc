"""Arrays in untrusted files: npy, npz, safetensors, Parquet, joblib, HDF5.  [files] -> tracks,
features

`StampedFile.open_arrays` tells the format by the first bytes, and returns an `ArrayFile`, whose
arrays have a name each (that of an npy file is "array"). Arrays of npz, Parquet and HDF5 files are
read a block of rows at a time, others are memory-mapped. No pickle runs code.
"""

from __future__ import annotations

import json
import math
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

import h5py
import numpy as np
from numpy.lib import format as npy_format

from pipeline.errors import RawDataError
from pipeline.extras.exchange.formats import PARQUET
from pipeline.extras.exchange.pickled_arrays import Blocks, stored_arrays, text_of
from pipeline.files.formats.arrays import (
    FileState,
    read_npy_header,
    reading,
    refuse,
    refuse_other,
)
from pipeline.files.formats.hdf5 import filters_of, own_object
from pipeline.files.formats.other_formats import ZIP
from pipeline.files.raw.files import open_regular, whole_file_digest
from pipeline.people.skeletons import Array

EXPECTED: Final = "a whole file of arrays: npy, npz, safetensors, Parquet, joblib or HDF5"
HDF5: Final = b"\x89HDF\r\n\x1a\n"  # first bytes of such a file
AGAIN: Final = "Copy the file again, or write it again, as plain numbers without Python objects."
WHOLE: Final = f"{AGAIN} With joblib: joblib.dump(arrays, FILE), without compress."
ROWS: Final = 4096  # per block at most
BLOCK: Final = 64 << 20  # bytes of a block at most
_LARGEST_HEADER: Final = 100_000_000  # bytes, as in the library safetensors
DTYPES: Final = {  # type in a safetensors file -> NumPy's
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
}


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """The arrays of a file, read on use. An HDF5 file is closed when its last reader is gone."""

    file: Path
    format: str  # npy, npz, safetensors, parquet, joblib or hdf5
    names: tuple[str, ...]  # of its arrays
    _open: Callable[[str], Array | Blocks]  # by name
    stand_in: bool = False  # the file records that it comes from random weights or demo data
    others: tuple[str, ...] = ()  # names of its other content

    def open(self, name: str) -> Array | Blocks:
        """Open an array of any type; memory-mapped if possible.

        Raises RawDataError for a missing array, and for one without rows.
        """
        with reading(self.file, "an array with rows", key=name, do=AGAIN):
            array = self._open(name)
            if not array.shape or 0 in array.shape:
                refuse(f"shape {array.shape}")
            return array

    def blocks(self, name: str) -> Iterator[Array]:
        """Yield blocks of at most ROWS rows and BLOCK bytes. Raises RawDataError."""
        with reading(self.file, "an array of plain values", key=name, do=AGAIN):
            array = self.open(name)
            if isinstance(array, Blocks):
                yield from array.blocks()
                return
            rows = _rows_per_block(array.shape, array.dtype)
            for start in range(0, len(array), rows):
                block = array[start : start + rows]
                if block.dtype.hasobject:  # texts of any length, as h5py writes them
                    block = np.array([text_of(text) for text in block.tolist()])
                yield block

    def memory_map(self, name: str, folder: Path | None) -> Array:
        """Open an array memory-mapped.

        Arrays that are not in one piece in the file are copied to an unnamed temporary one in
        `folder`.
        """
        array = self.open(name)
        if isinstance(array, np.ndarray):
            return array
        with tempfile.TemporaryFile(dir=folder) as copy:
            for block in self.blocks(name):
                np.ascontiguousarray(block, array.dtype).tofile(copy)
            copy.flush()
            return np.memmap(copy, array.dtype, "r", shape=array.shape)


class StampedFile(NamedTuple):
    """A file to import, as it was before anything was read from it."""

    path: Path
    state: FileState
    sha256: str

    @classmethod
    def stamp(cls, file: Path) -> Self:
        """Take the state and the SHA-256 of a file. Raises RawDataError for an unreadable one."""
        do = "Check the path."
        state = FileState.read(file, do=do)
        with reading(file, "a file", do=do):
            return cls(file, state, whole_file_digest(file))

    def open_arrays(self, do: str = WHOLE) -> ArrayFile:
        """Open the file, whose content tells its format. do: the advice of an error.

        Raises RawDataError for another format, UnsafePickle if it would run code, PipelineError if
        the library for Parquet is missing.
        """
        file = self.path
        with reading(file, EXPECTED, do=do):
            with open_regular(file) as stream:
                head = stream.read(len(HDF5))
            if head.startswith(npy_format.MAGIC_PREFIX):
                return ArrayFile(
                    file,
                    "npy",
                    ("array",),
                    lambda _: np.load(file, mmap_mode="r", allow_pickle=False),
                )
            if head.startswith(ZIP):
                return _npz(file)
            if head == HDF5:
                return _hdf5(file)
            if file.suffix == ".safetensors":  # it begins with a length, which may be any byte
                return _safetensors(file)
            if head.startswith(pickle.PROTO):
                arrays, others = stored_arrays(file)
                return ArrayFile(file, "joblib", tuple(arrays), arrays.__getitem__, others=others)
            if head.startswith(b"PAR1"):
                PARQUET.function()  # raises PipelineError without pyarrow
                return _parquet(file)
            return refuse_other(head)

    def require_unchanged(self) -> None:
        """Raise RawDataError if the file has changed since."""
        if FileState.read(self.path) == self.state:
            return
        expected = "the same file until its last row"
        actual = "another one, or other content, at the end: it was replaced while it was read"
        raise RawDataError(self.path, "content", expected, actual, "Run the same command again.")


def _npz(file: Path) -> ArrayFile:
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
    names = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]

    def open_array(name: str) -> Blocks:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
            shape, dtype = _header(member)
            rows = _rows_per_block(shape, dtype)

        def blocks() -> Iterator[Array]:
            with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
                _header(member)
                for start in range(0, shape[0], rows):
                    block = (min(rows, shape[0] - start), *shape[1:])
                    content = member.read(math.prod(block) * dtype.itemsize)
                    yield np.frombuffer(content, dtype).reshape(block)
                if member.read(1):  # at the end, the archive's checksum is compared
                    refuse("more bytes than its shape")

        return Blocks(shape, dtype, blocks)

    return ArrayFile(file, "npz", tuple(names), open_array)


def _rows_per_block(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The number of rows of a block. Refuses an array of which no row fits into a block."""
    row = math.prod(shape[1:]) * dtype.itemsize
    return min(ROWS, BLOCK // max(row, 1)) or refuse(f"rows of {row:,} bytes")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read an npy file's shape and dtype, up to the numbers. Refuses objects and Fortran order."""
    header = read_npy_header(member)
    if header.dtype.hasobject:
        refuse("Python objects, whose pickles can run code")
    if header.is_fortran and len(header.shape) > 1:
        refuse("Fortran order: write it with numpy.ascontiguousarray")
    return header.shape, header.dtype


def _safetensors(file: Path) -> ArrayFile:
    with open_regular(file) as stream:
        n_header = int.from_bytes(stream.read(8), "little")
        if n_header > min(_LARGEST_HEADER, file.stat().st_size):
            refuse(f"a header of {n_header:,} bytes")
        tensors = json.loads(stream.read(n_header))
    tensors.pop("__metadata__", None)

    def open_array(name: str) -> Array:
        tensor = tensors[name]
        kind = tensor["dtype"]
        shape = tuple(tensor["shape"])
        start, stop = tensor["data_offsets"]
        if kind not in DTYPES:
            refuse(f"numbers of {kind}: convert them, for example to float32")
        dtype = np.dtype(DTYPES[kind])
        if stop - start != math.prod(shape) * dtype.itemsize or start < 0:
            refuse(f"{stop - start:,} bytes for shape {shape} of {kind}")
        return np.memmap(file, dtype, "r", 8 + n_header + start, shape)

    return ArrayFile(file, "safetensors", tuple(tensors), open_array)


def _hdf5(file: Path) -> ArrayFile:
    stored = h5py.File(file, "r", locking=False)
    arrays = []
    for name in stored:
        with reading(file, "an array in this file", key=name, do=AGAIN):
            dataset = own_object(stored, name)
            if isinstance(dataset, h5py.Dataset) and dataset.shape is not None:
                arrays.append(name)
    others = tuple(stored.keys() - set(arrays))
    return ArrayFile(
        file, "hdf5", tuple(arrays), lambda name: _plain_array(file, stored, name), others=others
    )


def _plain_array(file: Path, stored: h5py.File, name: str) -> h5py.Dataset:
    """The dataset. Raises RawDataError for one with filters."""
    with reading(file, "an array in this file", key=name, do=AGAIN):
        dataset = own_object(stored, name)
        if filters_of(dataset):
            expected = "an array without filters"
            do = f"Write it without them: h5repack -f NONE {file} PLAIN"
            raise RawDataError(file, name, expected, "filters (compression)", do)
        n_stored = dataset.id.get_storage_size()
        if n_stored < dataset.nbytes:
            refuse(f"{n_stored:,} of its {dataset.nbytes:,} bytes")
        return dataset


def _parquet(file: Path) -> ArrayFile:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        n_rows = parquet.metadata.num_rows

    def open_array(name: str) -> Blocks:
        def blocks(rows: int) -> Iterator[Array]:
            start = 0
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(rows, columns=[name]):
                    yield _values(batch.column(0), start)
                    start += len(batch)

        first = next(blocks(1), np.empty(0))
        rows = _rows_per_block(first.shape, first.dtype)
        return Blocks((n_rows, *first.shape[1:]), first.dtype, lambda: blocks(rows))

    stand_in = (schema.metadata or {}).get(b"stand_in") == b"true"  # of our own exports
    return ArrayFile(file, "parquet", tuple(schema.names), open_array, stand_in)


def _values(column: Any, first_row: int) -> Array:
    """An Arrow array of numbers, texts, or lists of equal length as NumPy's; null is allowed in
    floats only.
    """
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    shape = [len(column)]
    while True:
        row_size = math.prod(shape[1:])
        if column.null_count and not kinds.is_floating(column.type):
            first = column.is_null().to_pylist().index(True)
            refuse(f"null in row {first_row + first // row_size}")
        if kinds.is_fixed_size_list(column.type):
            lengths = np.array([column.type.list_size])
        elif kinds.is_list(column.type) or kinds.is_large_list(column.type):
            lengths = np.diff(column.offsets.to_numpy())
        else:
            break
        usual = int(lengths[0])
        mismatches = np.flatnonzero(lengths != usual)
        if mismatches.size:
            first = mismatches[0]
            row = first_row + first // row_size
            refuse(f"a list of {lengths[first]} values in row {row}, after lists of {usual}")
        shape.append(usual)
        column = column.flatten()
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == object:
        values = values.astype(str)
    return np.asarray(values).reshape(shape)
