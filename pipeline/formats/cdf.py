"""One variable of floating-point numbers out of a CDF file of a stranger.  [raw] -> tracks -> features -> windows

Common Data Format, versions 2.6 to 3.9, as NASA's "CDF Internal Format Description" has it. A reader of our own, since
cdflib believes what a file says of itself: a flipped bit in a count makes it loop for hours or ask for all memory, and
a compressed file is unpacked into a temporary one. Here every record is looked for in memory, within the bytes that
are there, and every loop ends with them. The tests hold it to what cdflib reads of whole files.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import AGAIN
from pipeline.raw.files import open_regular

MAX_BYTES: Final = 1 << 26  # of a file and of what is unpacked from it; the largest of Human3.6M's are 5 MB
MAX_DIMS: Final = 10  # of the format
MAX_RECORDS: Final = 10_000  # variables, and index records with their entries; the usual number is 1 or 2

_V3, _V2 = b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02"
_PLAIN, _COMPRESSED = b"\x00\x00\xff\xff", b"\xcc\xcc\x00\x01"
_CDR, _GDR, _RVDR, _VXR, _VVR, _ZVDR, _CCR, _CPR, _CVVR = 1, 2, 3, 6, 7, 8, 10, 11, 13  # kinds of records
_LITTLE: Final = frozenset({4, 6, 13, 16, 17})  # encodings by byte order; VAX's own floats (3, 14, 15) are refused
_BIG: Final = frozenset({1, 2, 5, 7, 9, 11, 12, 18})
_FLOATS: Final = {21: "f4", 44: "f4", 22: "f8", 45: "f8"}  # REAL4, FLOAT, REAL8, DOUBLE
_ROW_MAJOR, _SINGLE_FILE = 1, 2  # flags of a CDR
_GZIP: Final = 5


def load_cdf(file: Path, key: str) -> NDArray[np.floating[Any]]:
    """The variable `key`: (records, *dimensions) float32 or float64, as stored but for the byte order.

    Raises RawDataError for a file that is no CDF, is damaged, consists of several files or is larger than 64 MiB, for a
    missing variable, and for one that does not hold floating-point numbers.
    """
    try:
        cdf = _Cdf.of(_content(file))
        names = {name: variable for variable, name in cdf.variables()}
        values = cdf.values(names[key]) if key in names else None
    except (_Damaged, struct.error, zlib.error, OSError) as error:
        found = str(error) if isinstance(error, _Damaged) else f"{type(error).__name__}: {error}"
        raise RawDataError(file, key, expected="a whole CDF file", found=found, do=AGAIN) from error
    if values is None:
        raise RawDataError(file, key, expected="a variable of this name", found=f"only {sorted(names)}", do=AGAIN)
    return values


def _content(file: Path) -> bytes:
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise _Damaged(f"{size} bytes; accepted are up to {MAX_BYTES}")
        return stream.read(size)


class _Damaged(ValueError):
    """The bytes contradict the format."""


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable's descriptor."""

    data_type: int
    last_record: int  # -1: there is none
    index: int  # where the first index record (VXR) begins
    shape: tuple[int, ...]  # of one record, in the order in which the file names the dimensions


@dataclass(frozen=True, slots=True)
class _Cdf:
    """The bytes of an unpacked file, offsets as in the file, and what its first record says."""

    data: bytes
    wide: bool  # version 3: offsets have 8 bytes and names 256, otherwise 4 and 64
    order: str  # of the bytes of values
    row_major: bool
    gdr: int  # where the global descriptor begins

    @classmethod
    def of(cls, data: bytes) -> _Cdf:
        magic, compression = data[:4], data[4:8]
        if magic not in (_V3, _V2) or compression not in (_PLAIN, _COMPRESSED):
            raise _Damaged(f"it begins with {data[:8]!r}")
        packed = cls(data, magic == _V3, "", row_major=True, gdr=0)
        if compression == _COMPRESSED:
            packed = cls(packed.unpacked(), packed.wide, "", row_major=True, gdr=0)
        gdr, _version, _release, encoding, flags = packed.record(8, _CDR, "oiiii")
        if encoding not in _LITTLE | _BIG:
            raise _Damaged(f"encoding {encoding}, whose numbers are not IEEE's")
        if not flags & _SINGLE_FILE:
            raise _Damaged("it is one of several files that make up a CDF: not followed")
        order = "<" if encoding in _LITTLE else ">"
        return cls(packed.data, packed.wide, order, row_major=bool(flags & _ROW_MAJOR), gdr=gdr)

    def unpacked(self) -> bytes:
        """The whole file as it was before it was compressed."""
        compression, _size, _rfu = self.record(8, _CCR, "ooi")
        (method,) = self.record(compression, _CPR, "i")
        if method != _GZIP:
            raise _Damaged(f"it is compressed by method {method}, known is only {_GZIP} (gzip)")
        begin = 8 + self._length("oiooi")
        return self.data[:4] + _PLAIN + _inflate(self.data[begin:], MAX_BYTES)

    def variables(self) -> Iterator[tuple[_Variable, str]]:
        """Every variable and its name."""
        r_head, z_head, _adr, _eof, _nr, _na, _max, n_dims, _nz = self.record(self.gdr, _GDR, "ooooiiiii")
        sizes = self.numbers(self.gdr + self._length("oiooooiiiiioiii"), n_dims, at_most=MAX_DIMS)
        for kind, head in ((_RVDR, r_head), (_ZVDR, z_head)):
            at, n_seen = head, 0
            while at:
                if n_seen == MAX_RECORDS:
                    raise _Damaged(f"over {MAX_RECORDS} variables, or a chain of them that leads back")
                n_seen += 1
                at, variable, name = self._variable(at, kind, sizes)
                yield variable, name

    def _variable(self, at: int, kind: int, sizes: tuple[int, ...]) -> tuple[int, _Variable, str]:
        """Where the next variable is, this one, and its name. `sizes` are the dimensions of all of the older kind."""
        form = f"oiiooiiiiiiioi{256 if self.wide else 64}s"
        following, data_type, last, index, *_, name = self.record(at, kind, form)
        end = at + self._length(f"oi{form}")
        if kind == _ZVDR:
            (n_dims,) = self.numbers(end, 1)
            sizes = self.numbers(end + 4, n_dims, at_most=MAX_DIMS)
            end += 4 + 4 * n_dims
        varies = self.numbers(end, len(sizes))
        shape = tuple(size for size, vary in zip(sizes, varies, strict=True) if vary)
        text = name.split(b"\0")[0].decode("ascii", errors="replace").strip()
        return following, _Variable(data_type, last, index, shape), text

    def values(self, variable: _Variable) -> NDArray[np.floating[Any]]:
        """(records, *shape) of a variable."""
        if variable.data_type not in _FLOATS:
            raise _Damaged(f"values of type {variable.data_type}, expected one of {sorted(_FLOATS)} (floating point)")
        dtype = np.dtype(self.order + _FLOATS[variable.data_type])
        n_records = variable.last_record + 1
        if min(variable.shape, default=1) < 1 or n_records < 1:
            raise _Damaged(f"{n_records} records of shape {variable.shape}")
        per_record = math.prod(variable.shape) * dtype.itemsize
        if n_records * per_record > MAX_BYTES:
            raise _Damaged(f"{n_records} records of shape {variable.shape}: over {MAX_BYTES} bytes")
        out, filled = bytearray(n_records * per_record), 0
        for first, block in self._blocks(variable.index, per_record):
            start = first * per_record
            if first != filled or start + len(block) > len(out):
                raise _Damaged(f"a block of {len(block)} bytes at record {first} of {n_records}, after {filled}")
            out[start : start + len(block)] = block
            filled += len(block) // per_record
        if filled != n_records:
            raise _Damaged(f"{filled} of {n_records} records are there")
        stored = np.frombuffer(out, dtype)
        if self.row_major:
            values = stored.reshape(n_records, *variable.shape)
        else:
            inner = stored.reshape(n_records, *variable.shape[::-1])
            values = inner.transpose(0, *range(inner.ndim - 1, 0, -1))
        return np.ascontiguousarray(values, dtype.newbyteorder("="))

    def _blocks(self, index: int, per_record: int) -> Iterator[tuple[int, bytes]]:
        """(first record, bytes of whole records) of every block that the index names, ascending where it is whole."""
        todo, seen, n_entries_seen = [index], set[int](), 0
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            following, n_entries, n_used = self.record(at, _VXR, "oii")
            n_entries_seen += 1 + max(n_used, 0)
            if n_entries_seen > MAX_RECORDS:
                raise _Damaged(f"over {MAX_RECORDS} index records and entries in them")
            begin = at + self._length("oioii")
            firsts = self.numbers(begin, n_used)
            lasts = self.numbers(begin + 4 * n_entries, n_used)
            offsets = self.numbers(begin + 8 * n_entries, n_used, "o")
            deeper = [offset for offset in offsets if self._kind(offset) == _VXR]
            if deeper and len(deeper) != n_used:
                raise _Damaged("an index of both indices and blocks")
            todo += [offset for offset in (*deeper, following) if offset][::-1]  # the last is looked at first
            if not deeper:
                for first, last, offset in zip(firsts, lasts, offsets, strict=True):
                    yield first, self._block(offset, (last - first + 1) * per_record)

    def _block(self, at: int, n_bytes: int) -> bytes:
        """The first `n_bytes` of a block of records (a block may have room for more)."""
        if not 0 < n_bytes <= MAX_BYTES:
            raise _Damaged(f"a block of {n_bytes} bytes")
        if self._kind(at) == _CVVR:
            _, size = self.record(at, _CVVR, "io")
            begin = at + self._length("oiio")
            if not 0 <= size <= len(self.data) - begin:
                raise _Damaged(f"a compressed block of {size} bytes at byte {begin}")
            block = _inflate(self.data[begin : begin + size], n_bytes)
        else:
            self.record(at, _VVR, "")
            begin = at + self._length("oi")
            block = self.data[begin : begin + n_bytes]
        if len(block) != n_bytes:
            raise _Damaged(f"{len(block)} of a block's {n_bytes} bytes are there")
        return block

    def _kind(self, at: int) -> int:
        return int(self._unpack(at, "oi")[1])

    def record(self, at: int, kind: int, form: str) -> tuple[Any, ...]:
        """The fields behind size and kind of a record; its kind must be `kind`."""
        _size, found, *values = self._unpack(at, f"oi{form}")
        if found != kind:
            raise _Damaged(f"a record of kind {found} at byte {at}, expected kind {kind}")
        return tuple(values)

    def numbers(self, at: int, n: int, form: str = "i", at_most: int = MAX_RECORDS) -> tuple[int, ...]:
        """`n` numbers, one after the other."""
        if not 0 <= n <= at_most:
            raise _Damaged(f"{n} numbers at byte {at}; accepted are up to {at_most}")
        return self._unpack(at, form * n)

    def _unpack(self, at: int, form: str) -> tuple[Any, ...]:
        if at < 8:  # before the first record; struct would count negative ones from the end
            raise _Damaged(f"it points to byte {at}")
        return struct.unpack_from(self._form(form), self.data, at)

    def _form(self, form: str) -> str:
        """`o` stands for an offset."""
        return ">" + form.replace("o", "q" if self.wide else "i")

    def _length(self, form: str) -> int:
        return struct.calcsize(self._form(form))


def _inflate(data: bytes, at_most: int) -> bytes:
    """What is gzipped in `data`, whole and by its checksum right, without unpacking more than `at_most` bytes."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    unpacked = stream.decompress(data, at_most + 1)
    if not stream.eof or len(unpacked) > at_most:
        raise _Damaged(f"compressed bytes that are cut short, or more than {at_most} when they are unpacked")
    return unpacked
