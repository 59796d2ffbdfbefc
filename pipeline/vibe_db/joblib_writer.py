"""A dict of arrays as a joblib file, written block by block.  tracks, features -> [database files]

joblib's format is a pickle in which each array is a small object (its type, shape and order) with the array's bytes
directly behind it. The one written here is that of joblib before 1.2, which later versions read too; what those write,
the 0.14 that TCMR asks for cannot read. Instructions that do nothing fill up to a multiple of 16 bytes before each
array, so that it can be mapped as it lies.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import joblib.numpy_pickle as joblib_format
import numpy as np
from numpy.typing import NDArray

PROTOCOL: Final = 3  # Python 3.7 reads it, and it has no frames, which arrays would interrupt
ALIGNED: Final = 16  # bytes
_NOTHING: Final = {2: b"N0", 3: b"K\x000"}  # push something small, take it off again: by length


class Bytes(Protocol):
    """Where bytes go."""

    def write(self, data: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is made piece by piece: `blocks()` yields its rows in order, all of `dtype`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


def write_joblib(stream: Bytes, arrays: Mapping[str, Blocks], written: Callable[[str, int], None]) -> None:
    """Write what `joblib.load` gives back as {name: array}. `written` is told the name and rows of every block.

    Raises ValueError when blocks are not what their array's shape and type say.
    """
    position = 0

    def put(data: Any) -> None:
        nonlocal position
        stream.write(data)
        position += memoryview(data).nbytes

    put(pickle.PROTO + bytes([PROTOCOL]) + pickle.EMPTY_DICT)
    for name, array in arrays.items():
        key, described = _opcodes(name), _opcodes(_wrapper(array))
        put(key + _nothing(-(position + len(key) + len(described)) % ALIGNED) + described)
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


def _wrapper(array: Blocks) -> Any:
    wrapper = joblib_format.NumpyArrayWrapper(np.ndarray, array.shape, "C", array.dtype, allow_mmap=True)
    # Without it, no version looks for the padding that versions before 1.2 do not know.
    wrapper.__dict__.pop("numpy_array_alignment_bytes", None)
    return wrapper


def _opcodes(value: Any) -> bytes:
    """The instructions that put a value on the stack: its pickle without the first and the last, and without notes."""
    return pickletools.optimize(pickle.dumps(value, protocol=PROTOCOL))[2:-1]


def _nothing(n_bytes: int) -> bytes:
    """Instructions of `n_bytes` together, or 16 more, that change nothing.

    >>> [len(_nothing(n)) for n in (0, 1, 2, 3, 15)]
    [0, 17, 2, 3, 15]
    """
    if n_bytes == 1:
        n_bytes += ALIGNED
    threes = n_bytes % 2
    return _NOTHING[3] * threes + _NOTHING[2] * ((n_bytes - 3 * threes) // 2)
