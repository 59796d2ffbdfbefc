"""joblib files: written block by block, and read without unpickling them.  tracks, features <-> [database files]

joblib's format is a pickle in which each array is a small object (its type, shape and order) with the array's bytes
directly behind it. An untrusted one is read as `pipeline.files.formats.pickles` reads pickles: nothing that it names is
imported or called. Arrays are mapped, so opening a file of 80 GB reads some hundred bytes of it, and rows are read when
they are needed.

The format written is that of joblib before 1.2, which later versions read too; what those write, the 0.14 that TCMR
asks for cannot read. Instructions without effect fill up to a multiple of 16 bytes before each array, so that it can be
mapped.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import pickle
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib.numpy_pickle as joblib_format
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import reading, refuse
from pipeline.files.formats.pickles import ARRAYS, NDARRAY, ArrayUnpickler, Object
from pipeline.files.raw.files import open_unbuffered

EXPECTED: Final = "a joblib file: a dict of NumPy arrays, not compressed"
AGAIN: Final = "Copy the file again, all of it."
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 16
MAX_TEXT: Final = 4096  # characters
NUMBERS_AND_TEXT: Final = "biufUS"
PROTOCOL: Final = 3  # Python 3.7 reads it, and it has no frames, which arrays would interrupt
ALIGNED: Final = 16  # bytes
FROM_NUMPY: Final = pickle.GLOBAL + b"torch\nfrom_numpy\n"

# How compressed files begin, and what makes a plain one of them without unpickling.
COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gunzip -c FILE > PLAIN"),
    b"BZh": ("bz2", "bunzip2 -c FILE > PLAIN"),
    b"\xfd7zXZ": ("xz", "xz -dc FILE > PLAIN"),
    b"\x5d\x00": ("lzma", "xz --format=lzma -dc FILE > PLAIN"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc FILE > PLAIN"),
    **{b"x" + level: ("zlib", "zlib-flate -uncompress < FILE > PLAIN") for level in (b"\x01", b"^", b"\x9c", b"\xda")},
}


def stored_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """(the arrays of a joblib file by name, mapped; the names of what else it holds); no code of its choosing runs.

    Raises UnsafePickle when it names anything but NumPy's arrays and joblib's wrapper of them, RawDataError when it
    cannot be read, is compressed, or is no dict of arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):  # of a damaged pickle anything; an empty file cannot be mapped
        with open_unbuffered(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _refuse_compressed(file, content[:8])
            loaded = _Unpickler(file, content).load()
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            refuse(f"{type(loaded).__name__} at the top")
    arrays = {name: value for name, value in loaded.items() if isinstance(value, np.ndarray)}
    return arrays, tuple(sorted(loaded.keys() - arrays.keys()))


def _refuse_compressed(file: Path, start: bytes) -> None:
    if start.startswith(b"PK"):
        do = "Write it with joblib.dump, from where it was made."
        raise RawDataError(file, "file", expected=EXPECTED, found="a zip archive, as torch.save writes", do=do)
    for magic, (kind, command) in COMPRESSED.items():
        if start.startswith(magic):
            do = f"Decompress it, then import that: {command.replace('FILE', str(file))}"
            raise RawDataError(file, "file", expected=EXPECTED, found=f"one compressed with {kind}", do=do)


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
            refuse(f"an array of shape {str(shape)[:80]}")
        if state.get("subclass") is not NDARRAY or not isinstance(dtype, np.dtype) or order not in ("C", "F"):
            refuse("an array of no known class, type or order")
        if dtype.kind == "O":
            return self.texts(sizes)
        if dtype.kind not in NUMBERS_AND_TEXT:
            refuse(f"an array of {dtype}")
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
        texts = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in objects]
        if (longest := max(map(len, texts), default=0)) > MAX_TEXT:  # each takes the room of the longest
            refuse(f"a text of {longest:,} characters")
        return np.array(texts, str)


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is computed in parts: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


Entry = Blocks | Sequence[Blocks | str]


def write_joblib(file: Path, entries: Mapping[str, Entry], *, tensors: bool = False) -> str:
    """Write a file of `joblib_parts`, and return its sha256."""
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for part in joblib_parts(entries, tensors=tensors):
            stream.write(part)
            digest.update(part)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def joblib_parts(entries: Mapping[str, Entry], *, tensors: bool = False) -> Iterator[bytes | memoryview]:
    """The bytes, in parts, of a file that `joblib.load` gives back as {name: array}, or {name: [array or text, ...]}.

    tensors: arrays come back as PyTorch's tensors, by `torch.from_numpy`. Raises ValueError when the blocks of an array
    have another number of bytes than its shape and type.
    """
    position = 3
    yield pickle.PROTO + bytes([PROTOCOL]) + pickle.EMPTY_DICT
    for name, entry in entries.items():
        several, items = (False, [entry]) if isinstance(entry, Blocks) else (True, entry)
        key = _instructions(name) + (pickle.EMPTY_LIST + pickle.MARK if several else b"")
        yield key
        position += len(key)
        for item in items:
            parts = [_instructions(item)] if isinstance(item, str) else _array(name, item, position, tensors)
            for part in parts:
                yield part
                position += len(part)
        end = (pickle.APPENDS if several else b"") + pickle.SETITEM
        yield end
        position += len(end)
    yield pickle.STOP


def _array(name: str, array: Blocks, position: int, tensors: bool) -> Iterator[bytes | memoryview]:
    """The instructions that put an array on the stack, with its bytes; they begin at `position` in the file."""
    wrapper = joblib_format.NumpyArrayWrapper(np.ndarray, array.shape, "C", array.dtype, allow_mmap=True)
    # Without it, no version looks for the padding that versions before 1.2 do not know.
    wrapper.__dict__.pop("numpy_array_alignment_bytes", None)
    function, described = FROM_NUMPY if tensors else b"", _instructions(wrapper)
    yield function + _fill(-(position + len(function) + len(described)) % ALIGNED) + described
    missing = n_bytes = math.prod(array.shape) * array.dtype.itemsize
    for block in array.blocks():
        missing -= block.nbytes
        yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
    if missing:
        raise ValueError(f"{name}: {n_bytes - missing:,} bytes in blocks, {n_bytes:,} announced")
    if tensors:
        yield pickle.TUPLE1 + pickle.REDUCE


def _instructions(value: Any) -> bytes:
    """The instructions that put a value on the stack: its pickle without the first and the last, and without memos."""
    return pickletools.optimize(pickle.dumps(value, protocol=PROTOCOL))[2:-1]


def _fill(n_bytes: int) -> bytes:
    """Instructions of `n_bytes` together, or 16 more, that push something small and take it off again.

    >>> [len(_fill(n)) for n in (0, 1, 2, 3, 15)]
    [0, 17, 2, 3, 15]
    """
    if n_bytes == 1:
        n_bytes += ALIGNED
    odd = n_bytes % 2
    return b"K\x000" * odd + b"N0" * ((n_bytes - 3 * odd) // 2)
