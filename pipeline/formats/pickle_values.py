"""What the records of a pickle mean: arrays, sparse matrices, chumpy values.  [records] -> plain Python and NumPy

The counterpart of `pipeline.formats.pickles`. Every array is made here from bytes that are there and a shape that fits
them; NumPy's own unpickling (`_reconstruct`, `__setstate__`) is never entered.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import numpy as np
from scipy import sparse

MAX_DEPTH: Final = 60  # of nesting; real files stay under 10
_DTYPE: Final = re.compile(r"[<>=|]?[biufcSU]\d{1,6}|[<>=|]?O(8|4)?")
_LATIN1: Final = ("latin1", "latin-1")


class Malformed(Exception):  # internal: pipeline.formats.pickles turns it into RawDataError
    """The pickle is broken, or its parts do not fit together."""


class Unlisted(Exception):  # internal: pipeline.formats.pickles turns it into UnsafePickle
    """The pickle asks for something that is not on the list."""


class Name(Enum):
    """The words that a pickle may use. They stand for nothing that could be called."""

    NDARRAY = auto()
    DTYPE = auto()
    RECONSTRUCT = auto()
    SCALAR = auto()
    FROM_BUFFER = auto()
    ENCODE = auto()
    BYTES = auto()
    CSC = auto()
    CH = auto()
    SELECT = auto()
    RECONSTRUCTOR = auto()
    OBJECT = auto()
    SET = auto()
    ARRAY_WRAPPER = auto()
    MEMMAP = auto()


@dataclass(slots=True, eq=False)
class Record:
    """ "Call `name` with `arguments`, then give it `state`", written down instead of done."""

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None


def resolve(root: Any, *, room: int) -> Any:
    """Replace every record below `root` by its value.

    `room`: how many bytes all arrays together may have, so that a small file cannot fill the memory. Raises Malformed.
    """
    try:
        return _Resolver(room).value(root, 0)
    except (ValueError, TypeError, OverflowError, IndexError, KeyError, MemoryError) as error:
        raise Malformed(f"parts that do not fit together ({type(error).__name__}: {error})") from None


class _Resolver:
    def __init__(self, room: int) -> None:
        self.room = room
        self.done: dict[int, Any] = {}  # id of a container or record -> its value: shared parts stay shared
        self.kept: list[Any] = []  # holds what `done` knows by id

    def value(self, item: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Malformed(f"values nested deeper than {MAX_DEPTH}")
        if not isinstance(item, list | tuple | dict | Record | Name):
            return item
        if id(item) not in self.done:
            self.kept.append(item)
            self.done[id(item)] = self._value(item, depth + 1)
        return self.done[id(item)]

    def _value(self, item: Any, depth: int) -> Any:
        if isinstance(item, dict):
            return {key: self.value(part, depth) for key, part in item.items()}
        if isinstance(item, list):
            return [self.value(part, depth) for part in item]
        if isinstance(item, tuple):
            return tuple(self.value(part, depth) for part in item)
        if isinstance(item, Name):
            raise Malformed(f"{item.name.lower()} itself where a value belongs")
        return self._record(item, depth)

    def _record(self, record: Record, depth: int) -> Any:
        name, arguments = record.name, record.arguments
        if name is Name.RECONSTRUCTOR:  # (class, object, None)
            if len(arguments) != 3 or not isinstance(arguments[0], Name) or arguments[1:] != (Name.OBJECT, None):
                raise Malformed("an object of no known class")
            name, arguments = arguments[0], ()
        if name is Name.RECONSTRUCT:
            if len(arguments) != 3 or arguments[0] is not Name.NDARRAY:
                raise Malformed("an array of no known class")
            return self._array(self.value(record.state, depth))
        given = self.value(arguments, depth)
        state = self.value(record.state, depth)
        simple = {
            Name.DTYPE: _dtype,
            Name.SCALAR: self._scalar,
            Name.FROM_BUFFER: self._from_buffer,
            Name.ENCODE: _encode,
            Name.BYTES: _empty_bytes,
            Name.SET: _set,
        }
        if name in simple:
            return simple[name](given, state)
        if name in (Name.CSC, Name.CH, Name.SELECT):
            if given != () or not isinstance(state, dict):
                raise Malformed(f"a {name.name.lower()} without its parts")
            return {Name.CSC: _csc, Name.CH: _ch, Name.SELECT: _select}[name](state)
        raise Malformed(f"{name.name.lower()} where a value belongs")

    def _array(self, state: Any) -> np.ndarray[Any, Any]:
        """ndarray's state: (version, shape, dtype, is Fortran-ordered, content)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("an array without shape, type and content")
        _, shape, dtype, fortran, content = state
        return self._filled(content, dtype, shape, "F" if fortran else "C")

    def _from_buffer(self, given: Any, _state: Any) -> np.ndarray[Any, Any]:
        content, dtype, shape, order = given
        if order not in ("C", "F"):
            raise Malformed(f"array order {order!r}")
        return self._filled(content, dtype, shape, order)

    def _filled(self, content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
        sizes = shape if isinstance(shape, tuple) else (shape,)
        if not isinstance(dtype, np.dtype) or len(sizes) > 32 or not all(_is_size(n) for n in sizes):
            raise Malformed(f"an array of shape {str(shape)[:80]}")
        count = math.prod(sizes)
        if dtype.kind == "O":
            if not isinstance(content, list) or len(content) != count:
                raise Malformed(f"an array of {count} objects without them")
            flat = np.empty(count, object)
            flat[:] = [None] * count
            for k, part in enumerate(content):
                flat[k] = part
            return flat.reshape(sizes, order=order)
        raw = self._bytes(content)
        if len(raw) != count * dtype.itemsize:
            raise Malformed(f"an array of shape {shape} and type {dtype} with {len(raw)} bytes")
        self.room -= len(raw)
        if self.room < 0:
            raise Malformed("arrays that are larger than the file")
        return np.frombuffer(raw, dtype).reshape(sizes, order=order).copy(order=order)

    def _scalar(self, given: Any, _state: Any) -> Any:
        dtype, content = given
        return self._filled(content, dtype, (), "C")[()]

    @staticmethod
    def _bytes(content: Any) -> bytes:
        """An array's content: bytes, or a Python 2 string, whose characters are bytes."""
        if isinstance(content, str):
            return content.encode("latin1")
        if not isinstance(content, bytes):
            raise Malformed(f"an array whose content is {type(content).__name__}")
        return content


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48


def _dtype(given: Any, state: Any) -> np.dtype[Any]:
    """dtype(code, align, copy) with state (version, byte order, ...). Numbers and text of fixed size; no fields."""
    code = given[0] if given else None
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        raise Malformed(f"array type {str(code)[:40]!r}")
    dtype = np.dtype(code)
    if state is None:
        return dtype
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
        raise Malformed(f"array type {code!r} with an unknown state")
    if any(part is not None for part in state[2:5]):
        raise Malformed(f"array type {code!r} with fields")
    return dtype.newbyteorder(state[1]) if state[1] in "<>" else dtype


def _encode(given: Any, _state: Any) -> bytes:
    text, encoding = given
    if encoding not in _LATIN1 or not isinstance(text, str):
        raise Malformed("bytes in an unknown encoding")
    return text.encode("latin1")


def _empty_bytes(given: Any, _state: Any) -> bytes:
    if given != ():
        raise Malformed("bytes made from something")
    return b""


def _set(given: Any, _state: Any) -> set[Any]:
    (members,) = given or ([],)
    if not isinstance(members, list) or not all(isinstance(m, str | int | float | bytes | None) for m in members):
        raise Malformed("a set of something else than text and numbers")
    return set(members)


def _csc(state: dict[Any, Any]) -> sparse.csc_matrix:
    shape = state.get("_shape", state.get("shape"))
    data, indices, indptr = (state.get(key) for key in ("data", "indices", "indptr"))
    parts = (data, indices, indptr)
    if not all(isinstance(part, np.ndarray) and part.ndim == 1 and part.dtype.kind in "fiu" for part in parts):
        raise Malformed("a sparse matrix without its arrays")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(_is_size(int(n)) for n in shape):
        raise Malformed("a sparse matrix without a shape")
    matrix = sparse.csc_matrix((data, indices, indptr), shape=tuple(int(n) for n in shape))
    matrix.check_format(full_check=True)
    return matrix


def _ch(state: dict[Any, Any]) -> np.ndarray[Any, Any]:
    """chumpy's leaf: it has its value in x."""
    value = state.get("x")
    if not isinstance(value, np.ndarray):
        raise Malformed("a chumpy value without x")
    return value


def _select(state: dict[Any, Any]) -> np.ndarray[Any, Any]:
    """chumpy's slice: elements of a by flat index, in preferred_shape."""
    source, index = state.get("a"), state.get("idxs")
    if not isinstance(source, np.ndarray) or not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
        raise Malformed("a chumpy selection without a and idxs")
    picked = source.ravel()[index]
    shape = state.get("preferred_shape")
    if shape is None:
        return picked
    if not isinstance(shape, tuple | list):
        raise Malformed("a chumpy selection of unknown shape")
    return picked.reshape([int(n) for n in shape])
