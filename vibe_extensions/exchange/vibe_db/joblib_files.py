"""joblib files: written block by block, and read without unpickling them.  tracks, features <-> [database files]

joblib's format is a pickle in which each array is a small object (its type, shape and order) with the array's bytes
directly behind it. An untrusted one is read as `pipeline.files.formats.pickles` reads pickles: nothing that it names is
imported or called. Arrays are mapped, so opening a file of 80 GB reads some hundred bytes of it, and rows are read when
they are needed.

The format written is that of joblib before 1.2, which later versions read too; what those write, the 0.14 that TCMR
asks for cannot read.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import pickle
import pickletools
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib.numpy_pickle as joblib_format
import numpy as np
from numpy.typing import NDArray

from pipeline.files.formats.arrays import reading, refuse
from pipeline.files.formats.pickles import ARRAYS, NDARRAY, ArrayUnpickler, Object
from pipeline.files.raw.files import open_unbuffered

EXPECTED: Final = "a joblib file: a dict of NumPy arrays, not compressed"
AGAIN: Final = "Copy all of it again, or write it again where it was made: joblib.dump(arrays, FILE), without compress."
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 16
MAX_TEXT: Final = 4096  # characters
KINDS: Final = "biufUSO"  # numbers and texts
PROTOCOL: Final = 3  # Python 3.7 reads it, and it has no frames, which arrays would interrupt
ALIGNED: Final = 16  # bytes
NOT_PLAIN: Final = {  # how other files begin
    b"PK": "a zip archive, as torch.save writes",
    b"\x1f\x8b": "one compressed with gzip",
    b"BZh": "one compressed with bz2",
    b"\xfd7zXZ": "one compressed with xz",
    b"\x5d\x00": "one compressed with lzma",
    b"\x04\x22\x4d\x18": "one compressed with lz4",
    b"x": "one compressed with zlib",
}


def stored_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """(the arrays of a joblib file by name, mapped; the names of what else it holds); no code of its choosing runs.

    Raises UnsafePickle when it names anything but NumPy's arrays and joblib's wrapper of them, RawDataError when it
    cannot be read, is compressed, or is no dict of arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):  # of a damaged pickle anything; an empty file cannot be mapped
        with open_unbuffered(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if kind := next((kind for start, kind in NOT_PLAIN.items() if content[:8].startswith(start)), ""):
                refuse(kind)
            loaded = _Unpickler(file, content).load()
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            refuse(f"{type(loaded).__name__} at the top")
    arrays = {name: value for name, value in loaded.items() if isinstance(value, np.ndarray)}
    return arrays, tuple(sorted(loaded.keys() - arrays.keys()))


class _Wrapper(Object):
    """joblib.numpy_pickle.NumpyArrayWrapper: the array's bytes are behind it."""


_NAMES: Final = ARRAYS | {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("numpy", "memmap"): NDARRAY,  # what a mapped array was
    ("numpy.core.memmap", "memmap"): NDARRAY,
}


class _Unpickler(ArrayUnpickler):
    """Maps joblib's arrays."""

    dispatch = ArrayUnpickler.dispatch.copy()

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        super().__init__(file, content, _NAMES, EXPECTED)
        self.content = content

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.array(vars(self.stack[-1]))

    dispatch[pickle.BUILD[0]] = load_build

    def array(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """The array that a wrapper describes, whose bytes begin here."""
        shape, dtype, order = (state.get(key) for key in ("shape", "dtype", "order"))
        sizes = shape if isinstance(shape, tuple) else (None,)
        if len(sizes) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**48 for n in sizes):
            refuse(f"an array of shape {reprlib.repr(shape)[:80]}")
        is_array = state.get("subclass") is NDARRAY and order in ("C", "F")
        if not (is_array and isinstance(dtype, np.dtype) and dtype.kind in KINDS):
            refuse(f"an array of {dtype if isinstance(dtype, np.dtype) else reprlib.repr(dtype)[:80]}")
        if dtype.kind == "O":
            return self.texts(sizes)
        if (alignment := state.get("numpy_array_alignment_bytes")) is not None:  # from joblib 1.2 on: padding follows
            padding = self.content.read_byte()
            if not isinstance(alignment, int) or padding > MAX_ALIGNMENT:
                refuse(f"padding of {padding} bytes")
            self.content.seek(padding, 1)
        offset, n_bytes = self.content.tell(), math.prod(sizes) * dtype.itemsize
        if n_bytes > len(self.content) - offset:
            refuse(f"it ends inside an array of {n_bytes:,} bytes at byte {offset:,}")
        self.content.seek(n_bytes, 1)
        return np.memmap(self.path, dtype, "r", offset, sizes, order)

    def texts(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of objects is a pickle of its own. Only one of texts is of use."""
        objects = _Unpickler(self.path, self.content).load()
        if not isinstance(objects, np.ndarray) or objects.shape != shape or len(shape) != 1:
            refuse("an array of objects without its values")
        if not all(isinstance(value, str | bytes) for value in objects):
            refuse("an array of Python objects that are no texts; store numbers as an array of numbers")
        texts = [text_of(value) for value in objects]
        if (longest := max(map(len, texts), default=0)) > MAX_TEXT:  # each takes the room of the longest
            refuse(f"a text of {longest:,} characters")
        return np.array(texts, str)


def text_of(value: str | bytes) -> str:
    """A text that may be stored as bytes."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is computed in parts: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


Entry = Blocks | Sequence[Blocks | str]


def write_joblib(file: Path, entries: Mapping[str, Entry], *, tensors: bool = False) -> str:
    """Write a file that `joblib.load` gives back as {name: array} or {name: [array or text, ...]}; return its sha256.

    tensors: arrays come back as PyTorch's tensors, by `torch.from_numpy`. Raises ValueError when the blocks of an array
    have another number of bytes than its shape and type.
    """
    with _HashedFile(file.open("wb", buffering=0)) as stream:
        _BlockPickler(stream, tensors=tensors).dump(dict(entries))
        stream.flush()
        os.fsync(stream.fileno())
        return stream.digest.hexdigest()


class _HashedFile(io.BufferedWriter):
    """A file that is written from its start to its end, and its sha256."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.digest, self.position = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.position += len(data)
        return super().write(data)


class _BlockPickler(joblib_format.NumpyPickler):  # type: ignore[misc]  # joblib has no types
    """Pickles `Blocks` as joblib pickles arrays."""

    def __init__(self, stream: _HashedFile, *, tensors: bool) -> None:
        super().__init__(stream, protocol=PROTOCOL)
        self._stream, self._tensors = stream, tensors

    def save(self, value: Any) -> None:
        if not isinstance(value, Blocks):
            super().save(value)
            return
        wrapper = joblib_format.NumpyArrayWrapper(np.ndarray, value.shape, "C", value.dtype, allow_mmap=True)
        # Without it, no version looks for the padding that versions before 1.2 do not know.
        wrapper.__dict__.pop("numpy_array_alignment_bytes", None)
        described = pickletools.optimize(pickle.dumps(wrapper, PROTOCOL))[2:-1]  # without start, end and memos
        function = pickle.GLOBAL + b"torch\nfrom_numpy\n" if self._tensors else b""
        # Bytes that are pushed and taken off again, so that the array begins where it can be mapped.
        fill = -(self._stream.position + len(function) + len(described) + 3) % ALIGNED
        self.write(pickle.SHORT_BINBYTES + bytes([fill, *bytes(fill)]) + pickle.POP + function + described)
        missing = math.prod(value.shape) * value.dtype.itemsize
        for block in value.blocks():
            missing -= block.nbytes
            self.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        if missing:
            raise ValueError(f"blocks of an array {value.shape}: {missing:,} bytes missing")
        if self._tensors:
            self.write(pickle.TUPLE1 + pickle.REDUCE)
