"""Result files of body estimators as plain dicts, lists and arrays; no code in them runs.

In comes a file that joblib, NumPy or PyTorch wrote; out goes its content. All three kinds of files
hold pickles, which name classes and functions to call. Here the only names are those of
`pipeline.files.formats.pickles`, of dict classes, and of PyTorch's functions that make tensors;
each stands for one of our own functions, and any other name is refused. Tensors become arrays. No
array is larger than the bytes that the file has for it, so that a small file cannot fill the
memory; of a compressed file, the bytes of its content, which may have _MOST_TIMES its size.
"""

from __future__ import annotations

import functools
import io
import math
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

from pipeline.exchange.vibe_db.joblib_files import NAMES, load_joblib
from pipeline.files.formats.arrays import read_npy_header, reading, refuse, refuse_other
from pipeline.files.formats.messages import ZIP, owner_of, owner_of_file, shown_names
from pipeline.files.formats.pickles import ArrayUnpickler
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.files.raw.opening import open_unbuffered
from pipeline.skeletons import Array

EXPECTED: Final = "a body estimator's results: joblib's, NumPy's or PyTorch's file of arrays"
AGAIN: Final = (
    "Copy the file again, or run the tool again (docs/results.md has those that are read)."
)
NPY: Final = b"\x93NUMPY"
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
    with reading(file, EXPECTED, do=AGAIN):
        with open_unbuffered(file) as stream:
            start = stream.read(100)
        if start.startswith(ZIP):
            return _load_zip(file)
        if start.startswith(NPY):
            return _load_npy(file)
        if start[:1] == pickle.PROTO:
            return load_joblib(file, _ALLOWED, EXPECTED)
        owner = owner_of_file(file)
        if owner:
            refuse(owner)
        is_zlib = start.startswith(b"\x78")
        if not is_zlib:
            refuse_other(start)
        return _load_compressed(file)


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
        unpickler = _TensorUnpickler(file, content, _ALLOWED, EXPECTED)
        unpickler.storage = functools.cache(lambda key: archive.read(f"{folder}/data/{key}"))
        return unpickler.load()


def _load_npy(file: Path) -> Any:
    """NumPy's file with one object in place of numbers: a pickled dict, as numpy.save writes it."""
    stream = io.BytesIO(read_regular(file))
    header = read_npy_header(stream)
    if not header.dtype.hasobject:
        owner = owner_of({".npy", *map(str, header.shape[1:])})
        refuse(owner or f"an array of shape {header.shape}")
    return _TensorUnpickler(file, stream, _ALLOWED, EXPECTED).load().item()


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
        return load_joblib(file, _ALLOWED, EXPECTED, unpacked=Path(unpacked.name))


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
        unpickler = _TensorUnpickler(Path("tensor"), stream, _STORAGES, EXPECTED)
        unpickler.storage = lambda _: b""
        loaded.append(unpickler.load())
    storage = loaded[3]  # without numbers yet; before it three about the machine, after it its key
    return np.frombuffer(content[stream.tell() + COUNT :], storage.dtype)


_STORAGES: Final = {
    ("torch", f"{name}Storage"): np.dtype(number) for name, number in STORAGES.items()
}
# (module, name) in a pickle -> what stands for it
_ALLOWED: Final = NAMES | {
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
