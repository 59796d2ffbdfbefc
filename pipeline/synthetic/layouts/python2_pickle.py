"""Pickles as Python 2 and NumPy 1 wrote them: the form of 3DPW's files.  labels -> [raw]

Python's own pickler writes text as Unicode and names NumPy's modules as they are called today; a reader that copes with
that may still fail on the real files. Opcodes: Python's `pickletools`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def dumps(value: Any) -> bytes:
    """Protocol 2 of dicts, lists, tuples, str, bool, int, float, None, numeric arrays; TypeError for anything else."""
    return b"\x80\x02" + _encode(value) + b"."


def _encode(value: Any) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool | np.bool_):
        return b"\x88" if value else b"\x89"
    if isinstance(value, str):
        return _byte_string(value.encode("latin1"))
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_encode(k) + _encode(v) for k, v in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encode, value)) + b"t"
    if isinstance(value, Sequence):
        return b"](" + b"".join(map(_encode, value)) + b"e"
    raise TypeError(f"{type(value).__name__} has no place in a 3DPW file")


def _array(array: np.ndarray[Any, Any]) -> bytes:
    """What NumPy 1's `ndarray.__reduce__` gave: an empty array, then its state."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"an array of {array.dtype} has no place in a 3DPW file")
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _encode((0,)) + _encode("b") + b"tR"
    order = "|" if array.dtype.itemsize == 1 else "<"
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    dtype = b"cnumpy\ndtype\n" + _encode((kind, 0, 1)) + b"R" + _encode((3, order, None, None, None, -1, -1, 0)) + b"b"
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    state = b"(" + _encode(1) + _encode(tuple(array.shape)) + dtype + _encode(False) + _byte_string(content) + b"t"
    return empty + state + b"b"


def _byte_string(content: bytes) -> bytes:
    """Python 2's `str`."""
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content
