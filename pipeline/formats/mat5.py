"""Arrays of numbers out of MATLAB v5 files of strangers.  [raw] -> tracks -> features -> windows

Read here and not by SciPy, whose compiled reader ends the whole process on some damaged files: it takes a type code
from the file for an index. A file of a few kilobytes can also inflate to gigabytes, claim a cell of 2^31 entries, or
nest cells until the stack ends. Whatever is announced is checked against a bound before it is believed.
The format: MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.raw.files import open_regular

MAX_BYTES: Final = 1 << 30  # a file's, and its wanted variables' inflated. The largest of ours have 0.3 * 10^9
MAX_CELLS: Final = 1 << 16  # of one array of cells
MAX_DEPTH: Final = 8  # of arrays in cells in cells
MAX_DIMS: Final = 32

HEADER: Final = 128  # bytes
PIECE: Final = 1 << 16  # bytes inflated at once
LONGEST: Final = 1 << 12  # bytes of a name, or of dimensions
MATRIX, COMPRESSED = 14, 15  # types of data elements
STORED: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CELL: Final = 1  # classes of arrays
NUMERIC: Final = range(6, 16)
OTHERS: Final = {2: "a struct", 3: "an object", 4: "text", 5: "a sparse array"}
COMPLEX: Final = 0x800
AGAIN: Final = "Unpack the download again."


class _Damaged(ValueError):
    """The bytes contradict the format, or end before what they announce."""


class _Tag(NamedTuple):
    """What stands before a data element."""

    kind: int
    size: int  # bytes
    data: bytes | None  # of an element of up to 4 bytes, which its tag holds


def read_mat5(file: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Those of the named variables that the file has, in their stored types and MATLAB's shapes.

    Cells are arrays of objects; what is neither numbers nor a cell comes as the text that says what it is. Raises
    RawDataError for a file that is no MATLAB v5 file, is damaged, or would fill the memory or the stack.
    """
    variables: dict[str, NDArray[Any]] = {}
    try:
        with open_regular(file) as stream:
            for reader in _elements(file, stream):
                name, value = _Walk(file, reader).variable(names)
                if value is not None:
                    variables[name] = value
    except (_Damaged, zlib.error, OSError) as error:
        found = str(error) if isinstance(error, _Damaged) else f"{type(error).__name__}: {error}"
        raise RawDataError(file, "file", expected="a whole MATLAB v5 file", found=found, do=AGAIN) from error
    return variables


def _elements(file: Path, stream: BinaryIO) -> Iterator[_Reader]:
    """A reader that stands before each variable."""
    n_bytes = file.stat().st_size
    if n_bytes > MAX_BYTES:
        raise _excess(file, f"{n_bytes} bytes")
    header = stream.read(HEADER)
    if 0 < len(header) < HEADER:
        raise _Damaged(f"it ends after {n_bytes} bytes, within its header")
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(header[124:HEADER])
    if order is None:
        raise _Damaged(f"it begins with {header[:20]!r}, and has no header of this version")
    while stream.tell() + 8 <= n_bytes:
        tag = _Reader(stream, order, n_bytes).tag()
        stop = stream.tell() + tag.size
        if tag.kind not in (MATRIX, COMPRESSED) or stop > n_bytes:
            raise _Damaged(f"no variable that ends within the file at byte {stream.tell() - 8}")
        if tag.kind == COMPRESSED:
            yield _Reader(_Inflated(stream, tag.size), order, MAX_BYTES)
        else:
            stream.seek(-8, 1)
            yield _Reader(stream, order, n_bytes)
        stream.seek(stop)


class _Inflated:
    """A compressed stretch of a file, inflated piece by piece."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size
        self._inflater = zlib.decompressobj()
        self._ready, self._at = b"", 0  # inflated ahead: most of what is read has a few bytes

    def read(self, n: int) -> bytes:
        """The next `n` bytes, fewer at the end."""
        if n > len(self._ready) - self._at:
            rest = self._ready[self._at :]
            self._ready, self._at = rest + self._inflate(max(n - len(rest), PIECE)), 0
        data = self._ready[self._at : self._at + n]
        self._at += len(data)
        return data

    def _inflate(self, n: int) -> bytes:
        pieces: list[bytes] = []
        while n > 0 and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._stream.read(min(PIECE, self._left))
            if not self._inflater.unconsumed_tail:
                self._left -= len(packed)
            pieces.append(self._inflater.decompress(packed, n))
            n -= len(pieces[-1])
            if not packed and not pieces[-1]:
                break
        return b"".join(pieces)

    def finish(self) -> None:
        """Behind the last byte: only here the checksum of all is compared."""
        if self.read(1) or not self._inflater.eof:
            raise _Damaged("a compressed variable is longer or shorter than it says")


class _Reader:
    """Data elements, one after the other."""

    def __init__(self, stream: BinaryIO | _Inflated, order: str, at_most: int) -> None:
        self._stream, self.order, self._at_most = stream, order, at_most
        self.n_read = 0

    def read(self, n: int) -> bytes:
        data = self._stream.read(n) if n <= self._at_most else b""
        if len(data) < n:
            raise _Damaged(f"it ends before {n} bytes that it announces")
        self.n_read += n
        return data

    def tag(self) -> _Tag:
        data = self.read(8)
        kind, size = struct.unpack(f"{self.order}2I", data)
        if small := kind >> 16:
            return _Tag(kind & 0xFFFF, small, data[4 : 4 + small])
        return _Tag(kind, size, None)

    def content(self, tag: _Tag) -> bytes:
        """The element's bytes, without its padding to 8."""
        return tag.data if tag.data is not None else self.read(tag.size + (-tag.size) % 8)[: tag.size]

    def finish(self) -> None:
        """After the last element: is the whole stretch sound?"""
        if isinstance(self._stream, _Inflated):
            self._stream.finish()

    def skip(self, n: int) -> None:
        """Over `n` bytes; nothing when it is negative: an array that ends before it said."""
        while n > 0:
            n -= len(self.read(min(n, PIECE)))


@dataclass(slots=True)
class _Walk:
    """Through one variable."""

    file: Path
    reader: _Reader
    n_bytes: int = field(default=0)

    def variable(self, wanted: Collection[str]) -> tuple[str, NDArray[Any] | None]:
        """Its name and, when that is wanted, its value."""
        tag = self.reader.tag()
        if tag.kind != MATRIX:
            raise _Damaged(f"an element of type {tag.kind} in the place of a variable")
        if not tag.size:
            return "", None
        stop = self.reader.n_read + tag.size
        flags, shape, name = self._head()
        if name not in wanted:
            return name, None
        if tag.size > MAX_BYTES:
            raise _excess(self.file, f"a variable of {tag.size} bytes")
        value = self._value(flags, shape, depth=0)
        self.reader.skip(stop - self.reader.n_read)
        self.reader.finish()
        return name, value

    def _head(self) -> tuple[int, tuple[int, ...], str]:
        """Flags, dimensions and name of an array."""
        flags, dims, name = (self._short() for _ in range(3))
        if len(flags) < 4 or len(dims) % 4 or not 8 <= len(dims) <= 4 * MAX_DIMS:
            raise _Damaged(f"an array with flags of {len(flags)} bytes and dimensions of {len(dims)}")
        shape = struct.unpack(f"{self.reader.order}{len(dims) // 4}i", dims)
        if min(shape) < 0:
            raise _Damaged(f"an array of shape {shape}")
        return struct.unpack(f"{self.reader.order}I", flags[:4])[0], shape, name.decode("latin1")

    def _value(self, flags: int, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
        """An array from behind its name. Of one that is neither numbers nor a cell, the rest is left unread."""
        kind = flags & 0xFF
        if kind == CELL:
            return self._cells(shape, depth)
        if kind in NUMERIC:
            values = self._numbers(shape)
            return values + 1j * self._numbers(shape) if flags & COMPLEX else values
        if kind in OTHERS:
            return np.array(OTHERS[kind])
        raise _excess(self.file, f"an array of class {kind}, neither numbers nor text nor a cell")

    def _cells(self, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
        n_cells = math.prod(shape)
        if n_cells > MAX_CELLS:
            raise _excess(self.file, f"an array of {n_cells} cells")
        if depth == MAX_DEPTH:
            raise _excess(self.file, f"arrays nested over {MAX_DEPTH} deep")
        cells = np.empty(n_cells, object)
        for i in range(n_cells):
            cells[i] = self._cell(depth)
        return cells.reshape(shape, order="F")

    def _cell(self, depth: int) -> NDArray[Any]:
        tag = self.reader.tag()
        if tag.kind != MATRIX:
            raise _Damaged(f"an element of type {tag.kind} in the place of a cell")
        if not tag.size:
            return np.empty((0, 0))
        stop = self.reader.n_read + tag.size
        flags, shape, _ = self._head()
        value = self._value(flags, shape, depth + 1)
        self.reader.skip(stop - self.reader.n_read)
        return value

    def _numbers(self, shape: tuple[int, ...]) -> NDArray[Any]:
        tag = self.reader.tag()
        self.n_bytes += tag.size
        if self.n_bytes > MAX_BYTES:
            raise _excess(self.file, f"over {MAX_BYTES} bytes of numbers")
        stored = STORED.get(tag.kind)
        if stored is None:
            raise _Damaged(f"numbers of the unknown type {tag.kind}")
        dtype = np.dtype(self.reader.order + stored)
        if math.prod(shape) * dtype.itemsize != tag.size:
            raise _Damaged(f"{tag.size} bytes of {dtype} for an array of shape {shape}")
        values = np.frombuffer(self.reader.content(tag), dtype)
        return values.astype(dtype.newbyteorder("=")).reshape(shape, order="F")

    def _short(self) -> bytes:
        """An element of the kind that says something about others."""
        tag = self.reader.tag()
        if tag.data is None and tag.size > LONGEST:
            raise _excess(self.file, f"a name or dimensions of {tag.size} bytes")
        return self.reader.content(tag)


def _excess(file: Path, found: str) -> RawDataError:
    expected = "a MATLAB v5 file of arrays that fit into memory"
    return RawDataError(file, "file", expected=expected, found=found, do=AGAIN)
