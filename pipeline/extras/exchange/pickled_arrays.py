"""Files of pickled arrays: joblib's, NumPy's and PyTorch's. No code in them runs.  tracks, features
<-> [files of other programs]

Such a file is a pickle, which names classes and functions to call. Here the only names are those of
`pipeline.files.formats.pickles`, of joblib's wrapper of arrays, and in results of body estimators
also of dict classes, and of PyTorch's functions that make tensors; each stands for one of our own
functions, and any other name is refused. Tensors become arrays. No array is larger than the bytes
that the file has for it, so that a small file cannot fill the memory; of a compressed file, the
bytes of its content, which may have _MOST_TIMES its size.

A joblib file is a pickle in which each array is a small object (type, shape, order) followed by the
array's bytes, which are memory-mapped. joblib files are written block by block, in the format of
joblib before 1.2, which all versions read; TCMR requires 0.14.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import os
import pickle
import pickletools
import reprlib
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final
from zipfile import ZipFile

import joblib.numpy_pickle as joblib_format
import numpy as np
from numpy.lib import format as npy_format
from numpy.lib.stride_tricks import as_strided

from pipeline.cli import pages
from pipeline.files.formats.arrays import read_npy_header, reading, refuse, refuse_other
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.other_formats import ZIP, OtherProgram, owner_of
from pipeline.files.formats.pickles import ARRAYS, NDARRAY, ArrayUnpickler, Object
from pipeline.files.raw.files import open_regular, open_unbuffered, read_regular
from pipeline.people.skeletons import Array

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
RESULTS: Final = "a body estimator's results: joblib's, NumPy's or PyTorch's file of arrays"
RESULTS_AGAIN: Final = (
    f"{pages.RESULTS} has those that are read: copy such a file again, or run its tool again."
)
# Largest size of a compressed file's content, in times of the file's own. Numbers of results give
# far less; zeros alone, as in a file made to fill the disk, give 1,000.
_MOST_TIMES: Final = 100
# PyTorch's storages (a tensor is a view of one, an array of numbers in a row) -> NumPy's types
STORAGES: Final = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
COUNT: Final = 8  # bytes of the integer before a storage's numbers, which says how many they are


def load_results(file: Path) -> Any:
    """The content of a result file; its first bytes tell which kind of file it is.

    Raises RawDataError if it is unreadable or another program's, and UnsafePickle if it names
    anything but arrays and dicts.
    """
    with reading(file, RESULTS, do=RESULTS_AGAIN):
        with open_unbuffered(file) as stream:
            start = stream.read(100)
        if start.startswith(ZIP):
            return _load_zip(file)
        if start.startswith(npy_format.MAGIC_PREFIX):
            return _load_npy(file)
        if start[:1] == pickle.PROTO:
            return _load_joblib(file, _ALLOWED, RESULTS)
        program = OtherProgram.from_file(file)
        if program is not None:
            refuse(program.owner)
        is_zlib = start.startswith(b"\x78")
        if not is_zlib:
            refuse_other(start)
        return _load_compressed(file)


def stored_arrays(file: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The memory-mapped arrays of a joblib file by name, and the names of its other content.

    Raises:
        UnsafePickle: the file names anything but NumPy arrays and joblib's wrapper.
        RawDataError: the file is unreadable, compressed, or no dict of arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):
        loaded = _load_joblib(file, _NAMES, EXPECTED)
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            refuse(f"{type(loaded).__name__} at the top")
        arrays = {name: value for name, value in loaded.items() if isinstance(value, np.ndarray)}
    return arrays, tuple(sorted(loaded.keys() - arrays.keys()))


def _load_zip(file: Path) -> Any:
    """PyTorch's file, a zip archive: a pickle, and for each storage a member with its bytes, whose
    name is the storage's key.
    """
    with open_regular(file) as stream, ZipFile(stream) as archive:
        members = {PurePath(name).name.removesuffix(".npy"): name for name in archive.namelist()}
        if "data.pkl" not in members:
            refuse(owner_of({file.suffix, *members}) or f"an archive with {shown_names(members)}")
        if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
            refuse("a compressed archive")
        folder = PurePath(members["data.pkl"]).parent
        content = io.BytesIO(archive.read(members["data.pkl"]))
        unpickler = _TensorUnpickler(file, content, _ALLOWED, RESULTS)
        unpickler.storage = functools.cache(lambda key: archive.read(f"{folder}/data/{key}"))
        return unpickler.load()


def _load_npy(file: Path) -> Any:
    """NumPy's file with one object in place of numbers: a pickled dict, as numpy.save writes it."""
    stream = io.BytesIO(read_regular(file))
    header = read_npy_header(stream)
    if not header.dtype.hasobject:
        owner = owner_of({".npy", *map(str, header.shape[1:])})
        refuse(owner or f"an array of shape {header.shape}")
    return _TensorUnpickler(file, stream, _ALLOWED, RESULTS).load().item()


def _load_compressed(file: Path) -> Any:
    """A joblib file that was compressed by zlib, as PHALP writes them. The content goes to a
    temporary file, from which arrays are mapped.
    """
    packed = read_regular(file)
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, _MOST_TIMES * len(packed))
    if not unpacking.eof:
        refuse(f"it is cut off, or has over {_MOST_TIMES} times its size")
    with tempfile.NamedTemporaryFile(prefix="results-") as unpacked:
        unpacked.write(content)
        unpacked.flush()
        return _load_joblib(file, _ALLOWED, RESULTS, unpacked=Path(unpacked.name))


def _load_joblib(
    file: Path,
    allowed: Mapping[tuple[str, str], Any],
    holds: str,
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


class _Wrapper(Object):
    """joblib.numpy_pickle.NumpyArrayWrapper; the array's bytes follow it."""


_NAMES: Final = ARRAYS | {
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


def _empty_dict(*_: object) -> dict[Any, Any]:
    """In place of a class of dicts: an empty dict, which the pickle then fills. The arguments are
    ignored: a defaultdict's would be called for missing keys.
    """
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, steps: Any, *_: object) -> Array:
    """In place of torch._utils._rebuild_tensor_v2: the array of numbers from `offset` on in a
    storage, where the next one along each axis is so many `steps` further.

    Refuses a tensor that reaches beyond its storage, or has more numbers than it, as steps of 0
    make possible.
    """
    is_storage = storage.strides == (storage.itemsize,)
    if not is_storage:  # another tensor, whose steps may be 0
        refuse("a tensor of something else than a storage")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *steps)):
        refuse(f"a tensor of shape {shape} with steps {steps}")
    last = offset
    for length, step in zip(shape, steps, strict=True):
        last += (length - 1) * step
    is_larger = math.prod(shape) > len(storage)
    reaches_beyond = max(offset, last) >= max(len(storage), 1)
    if is_larger or reaches_beyond:
        refuse(f"a tensor of shape {shape} from {len(storage)} numbers")
    strides = [step * storage.itemsize for step in steps]
    return as_strided(storage[offset:], shape, strides, writeable=False)


def _load_storage(content: Any) -> Array:
    """In place of torch.storage._load_from_bytes: the numbers of a storage inside of a pickle.

    content: PyTorch's older format: five pickles, the count of the numbers, then the numbers.
    """
    stream = io.BytesIO(content)
    loaded = []
    for _ in range(5):
        unpickler = _TensorUnpickler(Path("tensor"), stream, _STORAGES, RESULTS)
        unpickler.storage = lambda _: b""
        loaded.append(unpickler.load())
    storage = loaded[3]  # without numbers yet; before it three about the machine, after it its key
    return np.frombuffer(content[stream.tell() + COUNT :], storage.dtype)


_STORAGES: Final = {
    ("torch", f"{name}Storage"): np.dtype(number) for name, number in STORAGES.items()
}


# (module, name) in a pickle -> what stands for it
_ALLOWED: Final = _NAMES | {
    ("collections", "defaultdict"): _empty_dict,
    ("collections", "OrderedDict"): _empty_dict,
    ("__builtin__", "dict"): "dict",  # named by a defaultdict, and never called
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    **_STORAGES,
}


class _TensorUnpickler(ArrayUnpickler):
    """Unpickler of files with tensors, whose storages are kept outside of the pickle."""

    storage: Callable[[str], bytes]  # a storage's key -> its bytes

    def persistent_load(self, identity: Any) -> Array:
        """The numbers of a storage that the pickle refers to. identity: the word storage, its type,
        its key, and more.
        """
        kind, dtype, key, *_ = identity
        if kind != "storage" or not isinstance(dtype, np.dtype):
            refuse(f"a tensor of {reprlib.repr(identity)}")
        return np.frombuffer(self.storage(key), dtype)


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is computed in parts: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[Array]]


Entry = Blocks | Sequence[Blocks | str]  # content of a file by one name: an array, or a list


def write_joblib(file: Path, entries: Mapping[str, Entry], *, tensors: bool = False) -> None:
    """Write a file that `joblib.load` reads as {name: array} or {name: [array or text, ...]}.

    tensors: arrays are loaded as PyTorch tensors, by `torch.from_numpy`.
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

        for block in value.blocks():
            self.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        if self._tensors:
            self.write(pickle.TUPLE1 + pickle.REDUCE)


def _padding(position: int) -> bytes:
    """Pickled bytes, which are pushed and popped: after them, `position` is a multiple of _ALIGNED,
    so that the array there can be mapped.
    """
    n_others = 3  # bytes: two operations, and the length
    length = -(position + n_others) % _ALIGNED
    return pickle.SHORT_BINBYTES + bytes([length]) + bytes(length) + pickle.POP


def text_of(value: str | bytes) -> str:
    """Decode a text that may be stored as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)
