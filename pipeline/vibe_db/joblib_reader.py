"""The arrays of a joblib file, without unpickling it.  [database files] -> tracks, features

A joblib file is a pickle, and a pickle is a program. Here it is read by the machine of `pipeline.formats.pickles`,
which calls nothing; where an array's bytes lie between the instructions, their place is noted and they are stepped
over. So opening a file of 80 GB reads some hundred bytes of it, and rows are read when they are asked for.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.formats.pickle_values import Malformed, Name, Record, Unlisted, resolve
from pipeline.formats.pickles import ALLOWED, Machine
from pipeline.raw.files import open_unbuffered

EXPECTED: Final = "a joblib file: a dict of NumPy arrays, not compressed"
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 16
MAX_TEXT: Final = 4096  # characters
NUMBERS_AND_TEXT: Final = "biufUS"

# How compressed files begin, and what makes a plain one of them without unpickling.
COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gunzip -c FILE > PLAIN"),
    b"BZh": ("bz2", "bunzip2 -c FILE > PLAIN"),
    b"\xfd7zXZ": ("xz", "xz -dc FILE > PLAIN"),
    b"\x5d\x00": ("lzma", "xz --format=lzma -dc FILE > PLAIN"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc FILE > PLAIN"),
    b"x\x01": ("zlib", "zlib-flate -uncompress < FILE > PLAIN"),
    b"x^": ("zlib", "zlib-flate -uncompress < FILE > PLAIN"),
    b"x\x9c": ("zlib", "zlib-flate -uncompress < FILE > PLAIN"),
    b"x\xda": ("zlib", "zlib-flate -uncompress < FILE > PLAIN"),
}


class Stored(Protocol):
    """An array in a file: rows are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop), in memory."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Bytes [offset, ...) of a file that are an array. Read, not mapped: mapped pages would count as our memory."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, start: int, stop: int) -> NDArray[Any]:
        if self.fortran and len(self.shape) > 1:
            mapped = np.memmap(self.file, self.dtype, "r", self.offset, self.shape, "F")
            return np.array(mapped[start:stop])
        row = math.prod(self.shape[1:])
        count, at = (stop - start) * row, self.offset + start * row * self.dtype.itemsize
        flat: NDArray[Any] = np.fromfile(self.file, self.dtype, count, offset=at)
        if len(flat) != count:
            raise RawDataError(
                self.file, "file", expected=f"{count} numbers at byte {at}", found=f"{len(flat)}", do="Copy it again."
            )
        return flat.reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True, slots=True)
class HeldArray:
    """Texts that were stored one by one, as Python objects: those are in memory."""

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.values[start:stop]


def stored_arrays(file: Path) -> tuple[dict[str, Stored], tuple[str, ...]]:
    """(the arrays of a joblib file by name, the names of what else it holds); no code of its choosing runs.

    Raises UnsafePickle when it names anything but NumPy's arrays and joblib's wrapper of them, RawDataError when it
    cannot be read, is compressed, or is no dict of arrays.
    """
    try:
        with open_unbuffered(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _refuse_compressed(file, content[:8])
            held = _ArrayMachine(file, content).run()
    except Unlisted as error:
        raise UnsafePickle(
            f"{file}: not read, because it asks for {error}, which no database file does. Do not unpickle it by other "
            "means: reading it may run whatever its author chose."
        ) from None
    except Malformed as error:
        raise _unreadable(file, str(error)) from None
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise _unreadable(file, f"{type(error).__name__}: {error}") from None
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise _unreadable(file, f"{type(held).__name__} at the top")
    arrays: dict[str, Stored] = {
        str(name): value for name, value in held.items() if isinstance(value, StoredArray | HeldArray)
    }
    return arrays, tuple(sorted(str(name) for name in held if str(name) not in arrays))


def _unreadable(file: Path, found: str) -> RawDataError:
    return RawDataError(file, "file", expected=EXPECTED, found=found, do="Copy the file again, whole.")


def _refuse_compressed(file: Path, start: bytes) -> None:
    if start.startswith(b"PK"):
        do = "Write it with joblib.dump, from where it was made."
        raise RawDataError(file, "file", expected=EXPECTED, found="a zip archive, as torch.save writes", do=do)
    for magic, (kind, command) in COMPRESSED.items():
        if start.startswith(magic):
            do = f"Decompress it, then import that: {command.replace('FILE', str(file))}"
            raise RawDataError(file, "file", expected=EXPECTED, found=f"one compressed with {kind}", do=do)


class _ArrayMachine(Machine):
    """A machine that steps over the arrays between a joblib file's instructions."""

    def __init__(self, file: Path, data: Any) -> None:
        super().__init__(data, ALLOWED["joblib"])
        self.file = file

    def build(self) -> None:
        super().build()
        record = self.stack[-1]
        if record.name is Name.ARRAY_WRAPPER:
            self.stack[-1] = self._array(record)

    def _array(self, record: Record) -> Stored:
        """What a wrapper describes, whose bytes begin here."""
        state = record.state
        if record.arguments or not isinstance(state, dict):
            raise Malformed("an array without its description")
        if state.get("subclass") not in (Name.NDARRAY, Name.MEMMAP):
            raise Malformed("an array of no known class")
        described = resolve({key: state.get(key) for key in ("shape", "order", "dtype")}, room=0)
        shape, dtype = described["shape"], described["dtype"]
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or not all(_is_size(n) for n in shape):
            raise Malformed(f"an array of shape {str(shape)[:80]}")
        if not isinstance(dtype, np.dtype) or described["order"] not in ("C", "F"):
            raise Malformed("an array of no known type or order")
        if dtype.kind == "O":
            return self._texts(shape)
        if dtype.kind not in NUMBERS_AND_TEXT:
            raise Malformed(f"an array of {dtype}")
        self._step_over_padding(state.get("numpy_array_alignment_bytes"))
        array = StoredArray(self.file, self.position, shape, dtype, described["order"] == "F")
        if array.nbytes > len(self.data) - self.position:
            raise Malformed(f"it ends inside an array of {array.nbytes:,} bytes at byte {self.position:,}")
        self.position += array.nbytes
        return array

    def _step_over_padding(self, alignment: Any) -> None:
        """joblib from 1.2 on writes how many bytes of padding follow, and those."""
        if alignment is None:
            return
        padding = self.take(1)[0]
        if not isinstance(alignment, int) or not 0 <= padding <= MAX_ALIGNMENT:
            raise Malformed(f"padding of {padding} bytes before byte {self.position}")
        self.take(padding)

    def _texts(self, shape: tuple[int, ...]) -> HeldArray:
        """An array of objects is a pickle of its own. Only one of texts is of use."""
        inner = Machine(self.data, ALLOWED["sequence"])
        inner.position = self.position
        values = resolve(inner.run(), room=len(self.data))
        self.position = inner.position
        if not isinstance(values, np.ndarray) or values.shape != shape or values.ndim != 1:
            raise Malformed("an array of objects that is none")
        if not all(isinstance(value, str | bytes) for value in values):
            raise Malformed("an array of Python objects that are no texts; store numbers as an array of numbers")
        texts = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in values]
        if (longest := max(map(len, texts), default=0)) > MAX_TEXT:  # each takes the room of the longest
            raise Malformed(f"a text of {longest:,} characters")
        return HeldArray(np.array(texts, str))


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48


__all__ = ["HeldArray", "Stored", "StoredArray", "stored_arrays"]
