"""joblib files, written block by block and read without running code.  tracks, features <->
[database files]

A joblib file is a pickle in which each array is a small object (type, shape, order) followed by the
array's bytes. Untrusted files are read as by `pipeline.files.formats.pickles`: nothing that they
name is imported or called. Arrays are memory-mapped.

Files are written in the format of joblib before 1.2, which all versions read; TCMR requires 0.14.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import pickletools
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import joblib.numpy_pickle as joblib_format
import numpy as np

from pipeline.files.formats.arrays import reading, refuse, refuse_other
from pipeline.files.formats.pickles import ARRAYS, NDARRAY, ArrayUnpickler, Object
from pipeline.files.raw.opening import open_unbuffered
from pipeline.skeletons import Array

EXPECTED: Final = "a joblib file: a dict of NumPy arrays, not compressed"
OTHER_FORMATS: Final = (
    "Name results of body estimators with --format bodies, and arrays with --format arrays."
)
AGAIN: Final = (
    f"{OTHER_FORMATS} Copy a database again, or write it again: joblib.dump(arrays, FILE), without "
    "compress."
)
_MAX_DIMENSIONS: Final = 4
_MAX_ALIGNMENT: Final = 16
KINDS: Final = "biufUS"  # numbers and texts
_PROTOCOL: Final = 3  # readable by Python 3.7, and without frames, which arrays would interrupt
_ALIGNED: Final = 16  # bytes: arrays begin at a multiple of it


def stored_arrays(file: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The memory-mapped arrays of a joblib file by name, and the names of its other content.

    Raises:
        UnsafePickle: the file names anything but NumPy arrays and joblib's wrapper.
        RawDataError: the file is unreadable, compressed, or no dict of arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):
        loaded = load_joblib(file)
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            refuse(f"{type(loaded).__name__} at the top")
        arrays = {name: value for name, value in loaded.items() if isinstance(value, np.ndarray)}
    return arrays, tuple(sorted(loaded.keys() - arrays.keys()))


class _Wrapper(Object):
    """joblib.numpy_pickle.NumpyArrayWrapper; the array's bytes follow it."""


NAMES: Final = ARRAYS | {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("numpy", "memmap"): NDARRAY,
    ("numpy.core.memmap", "memmap"): NDARRAY,
}


class _JoblibUnpickler(ArrayUnpickler):
    """Unpickler that maps joblib's arrays.

    When the pickle has built a `_Wrapper`, the bytes of its array follow in the file: the wrapper
    is replaced by the mapped array, and reading continues after these bytes.
    """

    dispatch = ArrayUnpickler.dispatch.copy()

    def __init__(
        self,
        file: Path,
        content: mmap.mmap,
        allowed: Mapping[tuple[str, str], Any],
        holds: str,
        *,
        unpacked: Path,
    ) -> None:
        """`content`: of the file `unpacked`. `file`, `allowed`, `holds`: as of ArrayUnpickler."""
        super().__init__(file, content, allowed, holds)
        self.content = content
        self.mapped_file = unpacked

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.map_array(vars(self.stack[-1]))

    dispatch[pickle.BUILD[0]] = load_build

    def map_array(self, state: Mapping[str, Any]) -> Array:
        """Map the array that a wrapper describes, whose bytes begin at the current position."""
        shape: Any = state.get("shape")
        is_short = isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS
        if not is_short or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
            refuse(f"an array of shape {reprlib.repr(shape)[:80]}")
        dtype = state.get("dtype")
        if not isinstance(dtype, np.dtype):
            refuse(f"an array of {reprlib.repr(dtype)[:80]}")
        order = state.get("order")
        is_array = state.get("subclass") is NDARRAY and order in ("C", "F")
        if dtype.kind == "O":  # no numbers: what follows is a pickle
            refuse("an array of Python objects; store texts by astype(str), and numbers as numbers")
        if not is_array or dtype.kind not in KINDS:
            refuse(f"an array of {dtype}")

        alignment = state.get("numpy_array_alignment_bytes")
        if alignment is not None:  # padding of joblib >= 1.2
            padding = self.content.read_byte()
            if not isinstance(alignment, int) or padding > _MAX_ALIGNMENT:
                refuse(f"padding of {padding} bytes")
            self.content.seek(padding, os.SEEK_CUR)
        offset = self.content.tell()
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > len(self.content) - offset:
            refuse(f"it ends inside an array of {n_bytes:,} bytes at byte {offset:,}")
        self.content.seek(n_bytes, os.SEEK_CUR)
        return np.memmap(self.mapped_file, dtype, "r", offset, shape, order)


def load_joblib(
    file: Path,
    allowed: Mapping[tuple[str, str], Any] = NAMES,
    holds: str = EXPECTED,
    *,
    unpacked: Path | None = None,
) -> Any:
    """The content of a joblib file: a pickle with the bytes of arrays between its instructions.

    Args:
        file: the one to name in errors.
        allowed, holds: as of ArrayUnpickler.
        unpacked: the one to read, if `file` is compressed.
    """
    unpacked = unpacked or file
    with (
        open_unbuffered(unpacked) as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[:1] != pickle.PROTO:
            refuse_other(content[:12])
        return _JoblibUnpickler(file, content, allowed, holds, unpacked=unpacked).load()


def text_of(value: str | bytes) -> str:
    """Decode a text that may be stored as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is computed in parts: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[Array]]


Entry = Blocks | Sequence[Blocks | str]  # content of a file by one name: an array, or a list


def write_joblib(file: Path, entries: Mapping[str, Entry], *, tensors: bool = False) -> None:
    """Write a file that `joblib.load` reads as {name: array} or {name: [array or text, ...]}.

    tensors: arrays are loaded as PyTorch tensors, by `torch.from_numpy`. Raises ValueError if the
    blocks of an array have a different size than its shape and type.
    """
    with file.open("wb") as stream:
        _BlockPickler(stream, tensors=tensors).dump(dict(entries))


class _BlockPickler(joblib_format.NumpyPickler):  # type: ignore[misc]  # joblib has no types
    """Pickles `Blocks` as joblib pickles arrays."""

    def __init__(self, stream: BinaryIO, *, tensors: bool) -> None:
        super().__init__(stream, protocol=_PROTOCOL)
        self._stream = stream
        self._tensors = tensors

    def save(self, value: Any) -> None:
        if not isinstance(value, Blocks):
            super().save(value)
            return
        wrapper = joblib_format.NumpyArrayWrapper(
            np.ndarray, value.shape, "C", value.dtype, allow_mmap=True
        )
        # Without this entry, no version expects padding, which versions before 1.2 cannot read.
        wrapper.__dict__.pop("numpy_array_alignment_bytes", None)
        # without memos, the two bytes of the protocol, and the stop
        described = pickletools.optimize(pickle.dumps(wrapper, _PROTOCOL))[2:-1]
        if self._tensors:
            described = pickle.GLOBAL + b"torch\nfrom_numpy\n" + described
        self.write(_padding(self._stream.tell() + len(described)) + described)

        missing = math.prod(value.shape) * value.dtype.itemsize
        for block in value.blocks():
            missing -= block.nbytes
            self.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        if missing:
            raise ValueError(f"blocks of an array {value.shape}: {missing:,} bytes missing")
        if self._tensors:
            self.write(pickle.TUPLE1 + pickle.REDUCE)


def _padding(position: int) -> bytes:
    """Pickled bytes, which are pushed and popped: after them, `position` is a multiple of _ALIGNED,
    so that the array there can be mapped.
    """
    n_others = 3  # bytes: two operations, and the length
    length = -(position + n_others) % _ALIGNED
    return pickle.SHORT_BINBYTES + bytes([length]) + bytes(length) + pickle.POP
