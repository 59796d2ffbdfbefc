"""Pickles of 3DPW, EMDB and SMPL, by an unpickler with a list of names.  raw pickles -> plain
dicts, lists and arrays

A pickle names functions and calls them. Here, names on the list stand for functions of this module,
and any other name ends reading. NumPy fills arrays and types from checked states: no array is made
without its bytes. So nothing that a file names is imported, called or changed.

This is Python's unpickler, not the one in C, which allocates as many memos as a number in the file
says (9 bytes take 4 GiB), and passes states on unchecked: a type's state can make NumPy take
numbers for addresses.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import reprlib
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.files.formats.arrays import other_format, reading, refuse
from pipeline.files.raw.files import read_regular

Kind = Literal["smpl", "sequence"]

HOLDS: Final[Mapping[Kind, str]] = {
    "smpl": "an SMPL model: NumPy arrays, SciPy's csc_matrix, chumpy's Ch and Select",
    "sequence": "labels of a sequence: NumPy arrays in dicts and lists",
}
# numbers, text of fixed size, Python objects
DTYPE: Final = re.compile(r"[<>=|]?[biufcSU][1-9]\d{0,5}|[<>=|]?O[48]?")


def load_pickle(path: Path | str, *, kind: Kind) -> dict[str, Any]:
    """The dict in a pickle (any protocol, Python 2 or 3, strings as latin1); none of its code runs.

    Values are None, bool, int, float, str, bytes, list, tuple, set, dict, NumPy arrays and scalars;
    with kind "smpl" also scipy csc_matrix, and chumpy objects as their values. Raises UnsafePickle
    for a name that is not on the list of `kind`, RawDataError if it cannot be read.
    """
    path = Path(path)
    with reading(path, HOLDS[kind], key="pickle", do="Download or unpack it again."):
        data = read_regular(path)
        other = other_format(data[:100])
        if other:
            refuse(other)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts
            content = ArrayUnpickler(path, io.BytesIO(data), ALLOWED[kind], HOLDS[kind]).load()
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            refuse(f"{type(content).__name__} at the top")
        values: dict[int, Any] = {}
        return {key: _plain_value(value, values) for key, value in content.items()}


def load_labels(file: Path) -> dict[str, Any]:
    """`load_pickle` of a dataset's labels. Raises RawDataError, `unsafe_pickle` for a file that
    would run code.
    """
    try:
        return load_pickle(file, kind="sequence")
    except UnsafePickle as error:
        expected = HOLDS["sequence"]
        do = "Do not open it; download it from the official page."
        problem = f"that it asks for {error.asks_for}: not read"
        raise RawDataError(file, "pickle", expected, problem, do, reason="unsafe_pickle") from error


class Object:
    """Attributes of an object whose class is not imported."""


class _Sparse(Object):
    """scipy.sparse.csc_matrix."""


class _Leaf(Object):
    """chumpy.ch.Ch: its value is x."""


class _ChumpySelect(Object):
    """chumpy.reordering.Select: elements of `a` by flat index, in preferred_shape."""


NDARRAY = "numpy.ndarray"
_OBJECT = "object"  # classes that a file names and never calls


def _dtype(code: Any, *_: object) -> np.dtype[Any]:
    if not isinstance(code, str) or not DTYPE.fullmatch(code):
        raise ValueError(f"array type {reprlib.repr(code)[:80]}")
    return np.dtype(code, copy=True)  # NumPy's own are shared, and this one's state follows


def _reconstruct(of: object, *_: object) -> NDArray[Any]:
    if of is not NDARRAY:
        raise ValueError("an array of another class")
    return np.empty(0)  # its state follows


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding")
    return text.encode("latin1")


def _new_object(of: Any, base: object, state: object) -> Object:
    """Objects of protocols 0 and 1."""
    is_known = isinstance(of, type) and issubclass(of, Object)
    is_plain = base is _OBJECT and state is None
    if not (is_known and is_plain):
        raise ValueError("an object of no known class")
    return cast(Object, of())


def _from_bytes(content: Any, dtype: Any, shape: Any = (), order: Any = "C") -> NDArray[Any]:
    if not isinstance(dtype, np.dtype):
        raise TypeError(f"array type {reprlib.repr(dtype)[:80]}")
    if isinstance(content, str):  # Python 2's bytes
        content = content.encode("latin1")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _checked_state(target: Any, state: Any) -> Any:
    """The state of an array, a type or an object. Raises ValueError and others for an invalid
    one.
    """
    # once: others may look at its bytes already
    if isinstance(target, np.ndarray) and not target.size:
        return _checked_array_state(state)
    if isinstance(target, np.dtype):
        return _checked_dtype_state(target, state)
    if isinstance(target, Object):
        return dict(state)
    raise TypeError(f"a state for a {type(target).__name__}")


def _checked_dtype_state(dtype: np.dtype[Any], state: Any) -> Any:
    """As NumPy writes it: version, byte order, three for fields, and what the type itself tells."""
    orders = ["<", ">", "="]
    if dtype.byteorder == "|":
        orders = ["|"]
    order = state[1]
    has_fields = any(part is not None for part in state[2:5])
    if order not in orders or has_fields:
        raise ValueError(f"array type {dtype} with fields or an unknown state")
    return 3, order, None, None, None, dtype.itemsize, dtype.alignment, dtype.flags


def _checked_array_state(state: Any) -> Any:
    """As NumPy writes it, with as much content as the shape and the type need."""
    _, shape, dtype, fortran, content = state
    is_short = isinstance(shape, tuple) and len(shape) <= 32
    if not is_short or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {reprlib.repr(shape)[:80]}")
    length = math.prod(shape)
    is_content = isinstance(content, list)  # of objects
    if not dtype.hasobject:
        length *= dtype.itemsize
        is_content = isinstance(content, bytes | str)
    if not is_content or len(content) != length:
        raise ValueError(f"an array of shape {shape} and type {dtype} with other content")
    return 1, shape, dtype, bool(fortran), content


MODULES: Final = {  # name in other versions -> name in the lists below
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "copyreg": "copy_reg",
    "builtins": "__builtin__",
}
ARRAYS: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): lambda dtype, content: _from_bytes(content, dtype)[()],
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes for Python 2
    ("__builtin__", "bytes"): lambda: b"",  # and empty bytes
}
ALLOWED: Final[Mapping[Kind, Mapping[tuple[str, str], Any]]] = {
    "sequence": ARRAYS,
    "smpl": ARRAYS
    | {
        ("scipy.sparse.csc", "csc_matrix"): _Sparse,
        ("chumpy.ch", "Ch"): _Leaf,
        ("chumpy.reordering", "Select"): _ChumpySelect,
        ("copy_reg", "_reconstructor"): _new_object,
        ("__builtin__", "object"): _OBJECT,
        ("__builtin__", "set"): lambda values=(): set(values),  # chumpy's bookkeeping
    },
}

SET_STATE: Final[Any] = pickle._Unpickler.dispatch[pickle.BUILD[0]]

# what results of WHAM, TRAM and others hold
OTHER_PROGRAMS: Final = ("collections", "torch", "pandas")


class ArrayUnpickler(pickle._Unpickler):
    """Python's unpickler with a list of names and checked states. Raises UnsafePickle and
    others.
    """

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch.copy()
    stack: list[Any]
    read: Any  # set by load(): bytes of the stream
    append: Any  # set by load(): to the stack

    def __init__(
        self, path: Path, stream: Any, allowed: Mapping[tuple[str, str], Any], holds: str
    ) -> None:
        """`stream`: a file or an mmap; `allowed`: (module, name) -> its substitute; `holds`: what
        such files hold.
        """
        super().__init__(stream, encoding="latin1")
        self.path = path
        self.allowed = allowed
        self.holds = holds

    def find_class(self, module: str, name: str) -> Any:
        key = MODULES.get(module, module), name
        if key in self.allowed:
            return self.allowed[key]
        asks_for = f"{module}.{name}"[:200]
        needs = self.holds.split(":")[0]
        advice = (
            "Do not unpickle it by other means; download the file again from its official page."
        )
        if module.partition(".")[0] in OTHER_PROGRAMS:
            advice = (
                "It is another program's file: have that program write plain dicts and "
                "NumPy arrays."
            )
        raise UnsafePickle(
            f"{self.path}: not read, because it asks for {asks_for}, which {needs} does not "
            f"need. {advice}",
            asks_for=asks_for,
        )

    def load_build(self) -> None:
        self.stack[-1] = _checked_state(self.stack[-2], self.stack[-1])
        SET_STATE(self)

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray(self) -> None:
        """Read bytes, which end with the file: Python's own allocates any size that the file
        states.
        """
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray


def _plain_value(value: Any, values: dict[int, Any]) -> Any:
    """Plain value of an object. `values`: by id, since an object may be in many others."""
    if not isinstance(value, Object):
        return value
    if id(value) not in values:
        state = {key: _plain_value(part, values) for key, part in vars(value).items()}
        values[id(value)] = _object_value(value, state)
    return values[id(value)]


def _object_value(value: Object, state: Mapping[str, Any]) -> Any:
    if isinstance(value, _Sparse):
        from scipy import sparse  # 0.2 s, and most pickles have none

        shape = state.get("_shape", state.get("shape"))
        matrix = sparse.csc_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
        return matrix
    if isinstance(value, _Leaf):
        return state["x"]
    assert isinstance(value, _ChumpySelect)
    picked = state["a"].ravel()[state["idxs"]]
    shape = state.get("preferred_shape")
    if shape is None:
        return picked
    return picked.reshape([int(n) for n in shape])
