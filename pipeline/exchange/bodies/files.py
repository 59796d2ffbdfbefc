"""Result files of body estimators as plain dicts, lists and arrays; no code in them runs.

Pickles, joblib's, NumPy's and PyTorch's files are read by the list of names of
`pipeline.files.formats.pickles`, with dicts of other classes, and with PyTorch's tensors, which
become arrays. Every array is part of the file, or of its content where that is compressed.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import pickle
import reprlib
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Final
from zipfile import ZipFile

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pipeline.exchange.vibe_db.joblib_files import NAMES, JoblibUnpickler
from pipeline.files.formats.arrays import ZIP, other_format, reading, refuse
from pipeline.files.formats.known_files import owner_of, owner_of_file
from pipeline.files.formats.pickles import ArrayUnpickler
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.files.raw.opening import open_unbuffered

EXPECTED: Final = "a body estimator's results: joblib's, NumPy's or PyTorch's file of arrays"
AGAIN: Final = (
    "Copy the file again, or run the tool again (docs/results.md has those that are read)."
)
NPY: Final = b"\x93NUMPY"
MOST_TIMES: Final = 100  # bytes of a compressed file's content, of its own: zeros give 1,000
# PyTorch's storages, and their numbers as NumPy names them
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
COUNT: Final = 8  # bytes of a storage's number of numbers


def load_results(file: Path) -> Any:
    """The content of a result file.

    Raises RawDataError if it is unreadable or another program's, and UnsafePickle if it names
    anything but arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):
        with open_unbuffered(file) as stream:
            start = stream.read(100)
        if start.startswith(ZIP):
            return _load_zip(file)
        if start.startswith(NPY):
            return _load_npy(file)
        if start[:1] == pickle.PROTO:
            return _load_joblib(file, file)
        owner = owner_of_file(file)
        if owner or not start.startswith(b"\x78"):  # zlib's
            refuse(owner or other_format(start) or f"a file that begins with {start[:12]!r}")
        return _load_compressed(file)


def _load_zip(file: Path) -> Any:
    """PyTorch's file: a pickle, and the bytes of each storage under its key."""
    with open_regular(file) as stream, ZipFile(stream) as archive:
        members = {PurePath(name).name.removesuffix(".npy"): name for name in archive.namelist()}
        if "data.pkl" not in members:
            refuse(owner_of(members) or f"an archive with {', '.join(sorted(members)[:12])}")
        if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
            refuse("a compressed archive")
        folder = PurePath(members["data.pkl"]).parent
        content = io.BytesIO(archive.read(members["data.pkl"]))
        unpickler = _TensorUnpickler(file, content, _ALLOWED, EXPECTED)
        unpickler.storage = functools.cache(lambda key: archive.read(f"{folder}/data/{key}"))
        return unpickler.load()


def _load_npy(file: Path) -> Any:
    """A pickled dict, as numpy.save leaves it."""
    stream = io.BytesIO(read_regular(file))
    np.lib.format.read_magic(stream)  # of the first version, unless the description is very long
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        owner = owner_of({".npy", *map(str, shape[1:])})
        refuse(owner or f"an array of shape {shape}")
    return _TensorUnpickler(file, stream, _ALLOWED, EXPECTED).load().item()


def _load_compressed(file: Path) -> Any:
    """As PHALP writes them. The content goes to a temporary file, from which arrays are mapped."""
    packed = read_regular(file)
    most = MOST_TIMES * len(packed)
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, most)
    if not unpacking.eof:
        refuse(f"it is cut off, or has over {MOST_TIMES} times its size")
    with tempfile.NamedTemporaryFile(prefix="results-") as unpacked:
        unpacked.write(content)
        unpacked.flush()
        return _load_joblib(file, Path(unpacked.name))


def _load_joblib(file: Path, unpacked: Path) -> Any:
    """unpacked: the file, or its content if it is compressed."""
    with (
        open_unbuffered(unpacked) as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return JoblibUnpickler(file, content, _ALLOWED, EXPECTED, unpacked=unpacked).load()


def _empty_dict(*_: object) -> dict[Any, Any]:
    """A dict, whose items follow. What a defaultdict would call is not."""
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, steps: Any, *_: object) -> NDArray[Any]:
    """torch._utils._rebuild_tensor_v2, within the storage and not larger."""
    if storage.strides != (storage.itemsize,):  # as of another tensor, whose steps may be 0
        refuse("a tensor of something else than a storage")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *steps)):
        refuse(f"a tensor of shape {shape} with steps {steps}")
    last = offset
    for length, step in zip(shape, steps, strict=True):
        last += (length - 1) * step
    if math.prod(shape) > len(storage) or max(offset, last) >= max(len(storage), 1):
        refuse(f"a tensor of shape {shape} from {len(storage)} numbers")
    strides = [step * storage.itemsize for step in steps]
    return as_strided(storage[offset:], shape, strides, writeable=False)


def _load_storage(content: Any) -> NDArray[Any]:
    """torch.storage._load_from_bytes: five pickles, then the count of the numbers, and they."""
    stream = io.BytesIO(content)
    loaded = []
    for _ in range(5):
        unpickler = _TensorUnpickler(Path("tensor"), stream, _STORAGES, EXPECTED)
        unpickler.storage = lambda _: b""
        loaded.append(unpickler.load())
    _, _, _, storage, _ = loaded  # three about the machine; the storage, empty yet; its key
    return np.frombuffer(content[stream.tell() + COUNT :], storage.dtype)


_STORAGES: Final = {
    ("torch", f"{name}Storage"): np.dtype(number) for name, number in STORAGES.items()
}
_ALLOWED: Final = NAMES | {
    ("collections", "defaultdict"): _empty_dict,
    ("collections", "OrderedDict"): _empty_dict,
    ("__builtin__", "dict"): "dict",  # named by a defaultdict, and never called
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    **_STORAGES,
}


class _TensorUnpickler(ArrayUnpickler):
    """Unpickler that knows storages of tensors. `storage`: key -> its bytes."""

    storage: Callable[[str], bytes]

    def persistent_load(self, identity: Any) -> NDArray[Any]:
        kind, dtype, key, *_ = identity
        if kind != "storage" or not isinstance(dtype, np.dtype):
            refuse(f"a tensor of {reprlib.repr(identity)}")
        return np.frombuffer(self.storage(key), dtype)
