"""Read pickles of 3DPW, EMDB and SMPL safely, with a list of allowed names.  raw pickles -> plain
dicts, lists and arrays

A pickle names functions and has them called. Here, each name on a list stands for a function of
this module, and any other name is an error. Objects restore themselves from a state in the file;
states of arrays and their types are checked first, so that no array is made without its bytes. So
nothing that a file names is imported, called or changed.

This uses Python's unpickler that is written in Python. The one in C allocates as many memos as a
number in the file says (9 bytes take 4 GiB), and does not let states be checked: a type's state can
make NumPy take numbers for addresses.
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

from cache.arrays import Array
from pipeline.cli import pages
from pipeline.errors import RawDataError, UnsafePickle, require_option
from pipeline.files.formats.arrays import reading, refuse
from pipeline.files.formats.other_formats import other_format
from pipeline.files.raw.files import read_regular

Kind = Literal["smpl", "sequence"]

HOLDS: Final[Mapping[Kind, str]] = {
    "smpl": "an SMPL model: NumPy arrays, SciPy's csc_matrix, chumpy's Ch and Select",
    "sequence": "labels of a sequence: NumPy arrays in dicts and lists",
}
# allowed types of arrays: numbers, text of fixed size, Python objects
DTYPE: Final = re.compile(r"[<>=|]?[biufcSU][1-9]\d{0,5}|[<>=|]?O[48]?")


def load_pickle(path: Path | str, *, kind: Kind) -> dict[str, Any]:
    """Read the dict in a pickle (any protocol, of Python 2 or 3, strings as latin1). No code of the
    file runs.

    Values are None, bool, int, float, str, bytes, list, tuple, set, dict, NumPy arrays and scalars;
    with kind "smpl" also SciPy's csc_matrix, and the values of chumpy objects. Raises UnsafePickle
    if the file names something that is not on the list of `kind`, RawDataError if it cannot be
    read.
    """
    require_option("kind", kind, Kind)
    path = Path(path)
    with reading(path, HOLDS[kind], key="pickle", do="Download or unpack it again."):
        data = read_regular(path)
        format_name = other_format(data[:100])
        if format_name:
            refuse(format_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts
            content = ArrayUnpickler(path, io.BytesIO(data), ALLOWED[kind], HOLDS[kind]).load()
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            refuse(f"{type(content).__name__} at the top")
        values: dict[int, Any] = {}
        return {key: _plain_value(value, values) for key, value in content.items()}


def load_labels(file: Path) -> dict[str, Any]:
    """Read a pickle of a dataset's labels. Raises RawDataError, with the reason `unsafe_pickle` for
    a file that names something that is not allowed.
    """
    try:
        return load_pickle(file, kind="sequence")
    except UnsafePickle as error:
        expected = HOLDS["sequence"]
        do = "Do not open it; download it from the official page."
        problem = f"that it asks for {error.asks_for}: not read"
        raise RawDataError(file, "pickle", expected, problem, do, reason="unsafe_pickle") from error


class Object:
    """Stands for an object whose class is not imported: it has only the object's attributes."""


class _Sparse(Object):
    """Stands for scipy.sparse.csc_matrix."""


class _Leaf(Object):
    """Stands for chumpy.ch.Ch, whose value is its attribute x."""


class _ChumpySelect(Object):
    """Stands for chumpy.reordering.Select: the elements of `a` at flat indices, reshaped to
    preferred_shape.
    """


# Stand for the classes `numpy.ndarray` and `object`, which a file names and never calls.
NDARRAY = "numpy.ndarray"
_OBJECT = "object"


def _dtype(code: Any, *_: object) -> np.dtype[Any]:
    """Stands for numpy.dtype."""
    if not isinstance(code, str) or not DTYPE.fullmatch(code):
        raise ValueError(f"array type {reprlib.repr(code)[:80]}")
    return np.dtype(code, copy=True)  # a copy, because its state will be set: NumPy shares its own


def _reconstruct(kind: object, *_: object) -> Array:
    """Stands for the function by which NumPy begins to restore an array."""
    if kind is not NDARRAY:
        raise ValueError("an array of another class")
    return np.empty(0)  # shape and content follow as its state


def _encode(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding")
    return text.encode("latin1")


def _new_object(kind: Any, base: object, state: object) -> Object:
    """Make an object as pickles of protocols 0 and 1 ask for it."""
    is_known = isinstance(kind, type) and issubclass(kind, Object)
    is_plain = base is _OBJECT and state is None
    if not (is_known and is_plain):
        raise ValueError("an object of no known class")
    return cast(Object, kind())


def _from_bytes(content: Any, dtype: Any, shape: Any = (), order: Any = "C") -> Array:
    """Stands for NumPy's functions that make an array or a number from bytes."""
    if not isinstance(dtype, np.dtype):
        raise TypeError(f"array type {reprlib.repr(dtype)[:80]}")
    if isinstance(content, str):  # Python 2's bytes
        content = content.encode("latin1")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _checked_state(target: Any, state: Any) -> Any:
    """Check the state of an array, a type or an object, and return it in the form to set. Raises
    ValueError and other errors for an invalid state.
    """
    # An array's state is set only once: later, other arrays may already refer to its memory.
    if isinstance(target, np.ndarray) and not target.size:
        return _checked_array_state(state)
    if isinstance(target, np.dtype):
        return _checked_dtype_state(target, state)
    if isinstance(target, Object):
        return dict(state)
    raise TypeError(f"a state for a {type(target).__name__}")


def _checked_dtype_state(dtype: np.dtype[Any], state: Any) -> Any:
    """Check a type's state: it may only set the byte order, and not have fields. The rest of the
    returned state is taken from the type itself.
    """
    orders = ["<", ">", "="]
    if dtype.byteorder == "|":
        orders = ["|"]
    order = state[1]
    has_fields = any(part is not None for part in state[2:5])
    if order not in orders or has_fields:
        raise ValueError(f"array type {dtype} with fields or an unknown state")
    return 3, order, None, None, None, dtype.itemsize, dtype.alignment, dtype.flags


def _checked_array_state(state: Any) -> Any:
    """Check an array's state: it must have exactly as much content as its shape and type need."""
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

# packages that pickles of WHAM's, TRAM's and other programs' results name
OTHER_PROGRAMS: Final = ("collections", "torch", "pandas")


class ArrayUnpickler(pickle._Unpickler):
    """Python's unpickler with a list of allowed names and checked states. `load` raises
    UnsafePickle for other names, and other errors for damaged files.
    """

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch.copy()
    stack: list[Any]
    read: Any  # set by load(): bytes of the stream
    append: Any  # set by load(): to the stack

    def __init__(
        self, path: Path, stream: Any, allowed: Mapping[tuple[str, str], Any], holds: str
    ) -> None:
        """
        Args:
            path: the file's path, for messages.
            stream: the open file, or an mmap of it.
            allowed: (module, name) -> what stands for it here.
            holds: what such files hold, for messages.
        """
        super().__init__(stream, encoding="latin1")
        self.path = path
        self.allowed = allowed
        self.holds = holds

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the file. Raises UnsafePickle for one that is not allowed."""
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
                f"It is another program's file: {pages.RESULTS} has the results of body "
                "estimators that are imported; have others written as plain dicts and NumPy arrays."
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
        """Read a bytearray. Unlike Python's method, this does not first allocate the size that the
        file states: it reads at most what the file has.
        """
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray


def _plain_value(value: Any, values: dict[int, Any]) -> Any:
    """The plain value of an object. `values` caches the values by id, since an object may be part
    of many others.
    """
    if not isinstance(value, Object):
        return value
    if id(value) not in values:
        state = {key: _plain_value(part, values) for key, part in vars(value).items()}
        values[id(value)] = _object_value(value, state)
    return values[id(value)]


def _object_value(value: Object, state: Mapping[str, Any]) -> Any:
    """The plain value of an object with these attributes."""
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
