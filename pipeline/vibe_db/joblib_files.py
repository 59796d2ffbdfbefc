"""joblib files: written block by block, and read without unpickling them.  tracks, features <-> [database files]

joblib's format is a pickle in which each array is a small object (its type, shape and order) with the array's bytes
directly behind it. A pickle is a program, so nothing that an untrusted one names is imported or called: names, by an
exact list, stay text, and calls become records of text and numbers. Arrays are stepped over, so opening a file of 80 GB
reads some hundred bytes of it, and rows are read when they are needed.

The format written is that of joblib before 1.2, which later versions read too; what those write, the 0.14 that TCMR
asks for cannot read. Instructions without effect fill up to a multiple of 16 bytes before each array, so that it can be
mapped.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import joblib.numpy_pickle as joblib_format
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, RawDataError, UnsafePickle
from pipeline.raw.files import open_unbuffered

EXPECTED: Final = "a joblib file: a dict of NumPy arrays, not compressed"
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 16
MAX_TEXT: Final = 4096  # characters
NUMBERS_AND_TEXT: Final = "biufUS"
PROTOCOL: Final = 3  # Python 3.7 reads it, and it has no frames, which arrays would interrupt
ALIGNED: Final = 16  # bytes
_NO_EFFECT: Final = {2: b"N0", 3: b"K\x000"}  # push something small, take it off again: by length

# How compressed files begin, and what makes a plain one of them without unpickling.
COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gunzip -c FILE > PLAIN"),
    b"BZh": ("bz2", "bunzip2 -c FILE > PLAIN"),
    b"\xfd7zXZ": ("xz", "xz -dc FILE > PLAIN"),
    b"\x5d\x00": ("lzma", "xz --format=lzma -dc FILE > PLAIN"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc FILE > PLAIN"),
    **{b"x" + level: ("zlib", "zlib-flate -uncompress < FILE > PLAIN") for level in (b"\x01", b"^", b"\x9c", b"\xda")},
}
_WRAPPER: Final = "joblib.numpy_pickle.NumpyArrayWrapper"  # the array's bytes are behind it
_CORE: Final = tuple(f"numpy.{core}.{name}" for core in ("core", "_core") for name in (
    "multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer"))  # fmt: skip
_NAMES: Final = frozenset(
    (_WRAPPER, "numpy.dtype", "numpy.ndarray", "numpy.memmap", "numpy.core.memmap.memmap", "_codecs.encode",
     "__builtin__.bytes", "builtins.bytes", *_CORE)
)  # fmt: skip
_REFUSED: Final = (  # instructions that hash deep values, allocate what a file claims, or build other objects
    pickle.INST + pickle.OBJ + pickle.PERSID + pickle.BINPERSID + pickle.EXT1 + pickle.EXT2 + pickle.EXT4
    + pickle.FROZENSET + pickle.EMPTY_SET + pickle.ADDITEMS + pickle.NEWOBJ_EX
    + pickle.BYTEARRAY8 + pickle.NEXT_BUFFER + pickle.READONLY_BUFFER
)  # fmt: skip


class Stored(Protocol):
    """An array in a file: rows are read when they are needed."""

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
            expected = f"{count} numbers at byte {at}"
            raise RawDataError(self.file, "file", expected=expected, found=f"{len(flat)}", do="Copy it again.")
        return flat.reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True, slots=True)
class StoredTexts:
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
            found = _ArrayReader(file, content).load()
    except PipelineError:
        raise
    except Exception as error:  # of a damaged pickle anything; an empty file cannot be mapped
        raise _unreadable(
            file, str(error) if isinstance(error, _Malformed) else f"{type(error).__name__}: {error}"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise _unreadable(file, f"{type(found).__name__} at the top")
    arrays = {name: value for name, value in found.items() if isinstance(value, StoredArray | StoredTexts)}
    return dict(arrays), tuple(sorted(found.keys() - arrays.keys()))


def _unreadable(file: Path, found: str) -> RawDataError:
    return RawDataError(file, "file", expected=EXPECTED, found=found[:300], do="Copy the file again, all of it.")


def _refuse_compressed(file: Path, start: bytes) -> None:
    if start.startswith(b"PK"):
        do = "Write it with joblib.dump, from where it was made."
        raise RawDataError(file, "file", expected=EXPECTED, found="a zip archive, as torch.save writes", do=do)
    for magic, (kind, command) in COMPRESSED.items():
        if start.startswith(magic):
            do = f"Decompress it, then import that: {command.replace('FILE', str(file))}"
            raise RawDataError(file, "file", expected=EXPECTED, found=f"one compressed with {kind}", do=do)


class _Malformed(ValueError):
    """A pickle that is not what joblib writes."""


class _Name(str):
    """A name from the list, instead of what it names."""


@dataclass(slots=True, eq=False)
class _Record:
    """What a pickle would call with what, and the state that it would then set."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


# Written in Python, so that a reader of a format may change what an instruction does: joblib itself relies on it.
_Unpickler: Any = pickle._Unpickler


class _ArrayReader(_Unpickler):  # type: ignore[misc]
    """Python's own unpickler without calls, and with joblib's arrays stepped over. Raises _Malformed and others."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: step for code, step in _Unpickler.dispatch.items() if code not in _REFUSED
    }

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        super().__init__(content)
        self.file, self.content = file, content

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _NAMES:
            return _Name(f"{module}.{name}")
        raise UnsafePickle(
            f"{self.file}: not read, because it asks for {f'{module}.{name}'[:200]!r}, which no database file does. "
            "Do not unpickle it by other means: reading it may run code of its author's choice."
        )

    def call(self) -> None:
        """REDUCE and NEWOBJ."""
        arguments, name = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, _Name) and isinstance(arguments, tuple)):
            raise _Malformed("a call of a value")
        self.stack.append(_Record(name, arguments))

    def build(self) -> None:
        state, record = self.stack.pop(), self.stack[-1]
        if not isinstance(record, _Record) or record.state is not None:
            raise _Malformed("a state of a value")
        record.state = state
        if record.name == _WRAPPER:
            self.stack[-1] = self.array(record)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value])

    def set_items(self) -> None:
        self.fill(self.pop_mark())

    def make_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.fill(items)

    def fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or not all(isinstance(key, str | int | float | bytes) for key in items[::2]):
            raise _Malformed("a dict with other keys than text and numbers")  # hashing deep ones exhausts the C stack
        target.update(zip(items[::2], items[1::2], strict=True))

    dispatch |= {pickle.REDUCE[0]: call, pickle.NEWOBJ[0]: call, pickle.BUILD[0]: build, pickle.DICT[0]: make_dict}
    dispatch |= {pickle.SETITEM[0]: set_item, pickle.SETITEMS[0]: set_items}

    def array(self, record: _Record) -> Stored:
        """The array that a wrapper describes, whose bytes begin here."""
        state = record.state
        if record.arguments or not isinstance(state, dict) or not isinstance(state.get("subclass"), _Name):
            raise _Malformed("an array without its description")
        shape, dtype, order = state.get("shape"), _dtype(state.get("dtype")), state.get("order")
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or not all(_is_size(n) for n in shape):
            raise _Malformed(f"an array of shape {str(shape)[:80]}")
        if dtype.kind == "O":
            return self.texts(shape)
        if dtype.kind not in NUMBERS_AND_TEXT or order not in ("C", "F"):
            raise _Malformed(f"an array of {dtype} in order {str(order)[:80]}")
        if (alignment := state.get("numpy_array_alignment_bytes")) is not None:  # from joblib 1.2 on: padding follows
            padding = self.content.read_byte()
            if not isinstance(alignment, int) or padding > MAX_ALIGNMENT:
                raise _Malformed(f"padding of {padding} bytes")
            self.content.seek(padding, 1)
        at = self.content.tell()
        array = StoredArray(self.file, at, shape, dtype, order == "F")
        if array.nbytes > len(self.content) - at:
            raise _Malformed(f"it ends inside an array of {array.nbytes:,} bytes at byte {at:,}")
        self.content.seek(array.nbytes, 1)
        return array

    def texts(self, shape: tuple[int, ...]) -> StoredTexts:
        """An array of objects is a pickle of its own. Only one of texts is of use."""
        record = _ArrayReader(self.file, self.content).load()
        state = record.state if isinstance(record, _Record) else None
        if not isinstance(state, tuple) or len(state) != 5 or state[1] != shape or len(shape) != 1:
            raise _Malformed("an array of objects without its values")
        values = state[4]
        if not isinstance(values, list) or len(values) != shape[0]:
            raise _Malformed("an array of objects without its values")
        texts = [_text(value) for value in values]
        if (longest := max(map(len, texts), default=0)) > MAX_TEXT:  # each takes the room of the longest
            raise _Malformed(f"a text of {longest:,} characters")
        return StoredTexts(np.array(texts, str))


def _dtype(record: Any) -> np.dtype[Any]:
    """dtype("f4", False, True) with the state (3, "<", ...), where the second item is the order of bytes."""
    if not isinstance(record, _Record) or record.name != "numpy.dtype" or not record.arguments:
        raise _Malformed("an array of no known type")
    code, state = record.arguments[0], record.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(code, str) or not re.fullmatch("[A-Za-z][0-9]{0,9}", code) or order not in ("<", ">", "|", "="):
        raise _Malformed("an array of no known type")
    return np.dtype(code).newbyteorder(order)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    if isinstance(value, _Record) and value.name == "_codecs.encode" and isinstance(value.arguments[0], str):
        value = value.arguments[0].encode("latin1")  # how protocol 2 holds bytes
    if not isinstance(value, str | bytes):
        raise _Malformed("an array of Python objects that are no texts; store numbers as an array of numbers")
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is computed in parts: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


def write_joblib(
    write: Callable[[Any], object], arrays: Mapping[str, Blocks], written: Callable[[str, int], None]
) -> None:
    """Write what `joblib.load` gives back as {name: array}. `written` gets the name and the rows of every block.

    Raises ValueError when blocks do not have their array's shape and type.
    """
    position = 0

    def put(data: Any) -> None:
        nonlocal position
        write(data)
        position += memoryview(data).nbytes

    put(pickle.PROTO + bytes([PROTOCOL]) + pickle.EMPTY_DICT)
    for name, array in arrays.items():
        wrapper = joblib_format.NumpyArrayWrapper(np.ndarray, array.shape, "C", array.dtype, allow_mmap=True)
        # Without it, no version looks for the padding that versions before 1.2 do not know.
        wrapper.__dict__.pop("numpy_array_alignment_bytes", None)
        key, described = _instructions(name), _instructions(wrapper)
        put(key + _fill(-(position + len(key) + len(described)) % ALIGNED) + described)
        for block in checked_blocks(name, array):
            put(block.reshape(-1).view(np.uint8))
            written(name, len(block))
        put(pickle.SETITEM)
    put(pickle.STOP)


def checked_blocks(name: str, array: Blocks) -> Iterable[NDArray[Any]]:
    """The blocks, contiguous; ValueError at the first that does not fit."""
    rows = 0
    for block in array.blocks():
        rows += len(block)
        if block.dtype != array.dtype or block.shape[1:] != array.shape[1:] or rows > array.shape[0]:
            raise ValueError(f"{name}: a block of {block.dtype}{block.shape} in an array of {array.dtype}{array.shape}")
        if len(block):
            yield np.ascontiguousarray(block)
    if rows != array.shape[0]:
        raise ValueError(f"{name}: {rows} rows in blocks, {array.shape[0]} announced")


def _instructions(value: Any) -> bytes:
    """The instructions that put a value on the stack: its pickle without the first and the last, and without memos."""
    return pickletools.optimize(pickle.dumps(value, protocol=PROTOCOL))[2:-1]


def _fill(n_bytes: int) -> bytes:
    """Instructions of `n_bytes` together, or 16 more, that change nothing.

    >>> [len(_fill(n)) for n in (0, 1, 2, 3, 15)]
    [0, 17, 2, 3, 15]
    """
    if n_bytes == 1:
        n_bytes += ALIGNED
    threes = n_bytes % 2
    return _NO_EFFECT[3] * threes + _NO_EFFECT[2] * ((n_bytes - 3 * threes) // 2)
