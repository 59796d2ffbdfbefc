"""Pickles from strangers, read as data.  raw pickles (3DPW, SMPL) -> plain dicts, lists and arrays

A pickle is a program: unpickling one runs what it names. Here the program is interpreted by a machine that has no call
instruction. A name is looked up in an exact table and stays a word; "call" and "build" only put words and data side by
side in a `Record`; what a record means - an array, a sparse matrix, a chumpy value - is decided afterwards by this
module's own functions, from checked parts. Nothing that a file names is ever imported, called or changed, and no length
that a file claims is believed before the bytes are there.
"""

from __future__ import annotations

import codecs
import mmap
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.formats.pickle_values import Malformed, Name, Record, Unlisted, resolve
from pipeline.raw.files import read_regular

Kind = Literal["smpl", "sequence", "joblib"]

_PY2, _PY3 = "__builtin__", "builtins"
_ARRAYS: Final = {
    ("numpy", "ndarray"): Name.NDARRAY,
    ("numpy", "dtype"): Name.DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): Name.SCALAR,
    ("numpy._core.multiarray", "scalar"): Name.SCALAR,
    ("numpy.core.numeric", "_frombuffer"): Name.FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): Name.FROM_BUFFER,
    ("_codecs", "encode"): Name.ENCODE,  # how Python 3 writes bytes for Python 2
    (_PY2, "bytes"): Name.BYTES,  # and empty bytes
    (_PY3, "bytes"): Name.BYTES,
}
_MODELS: Final = _ARRAYS | {
    ("scipy.sparse.csc", "csc_matrix"): Name.CSC,
    ("scipy.sparse._csc", "csc_matrix"): Name.CSC,
    ("chumpy.ch", "Ch"): Name.CH,
    ("chumpy.reordering", "Select"): Name.SELECT,
    ("copy_reg", "_reconstructor"): Name.RECONSTRUCTOR,  # classes in protocols 0 and 1
    ("copyreg", "_reconstructor"): Name.RECONSTRUCTOR,
    (_PY2, "object"): Name.OBJECT,
    (_PY3, "object"): Name.OBJECT,
    (_PY2, "set"): Name.SET,  # chumpy's bookkeeping
    (_PY3, "set"): Name.SET,
}
_JOBLIB: Final = _ARRAYS | {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Name.ARRAY_WRAPPER,  # the array's bytes lie behind it
    ("numpy", "memmap"): Name.MEMMAP,  # what a mapped array was
    ("numpy.core.memmap", "memmap"): Name.MEMMAP,
}
ALLOWED: Final[Mapping[Kind, Mapping[tuple[str, str], Name]]] = {
    "smpl": _MODELS,
    "sequence": _ARRAYS,
    "joblib": _JOBLIB,  # read by pipeline.vibe_db.joblib_reader alone
}
_HOLDS: Final[Mapping[Kind, str]] = {
    "smpl": "an SMPL model: NumPy arrays, SciPy's csc_matrix, chumpy's Ch and Select",
    "sequence": "a 3DPW sequence: NumPy arrays in dicts and lists",
    "joblib": "a joblib file: NumPy arrays in a dict",
}


# What people have in place of the file they meant to download, by how it begins.
_NO_PICKLES: Final = {
    b"<": "a web page (a login or licence page, perhaps)",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer",
}


def load_pickle(path: Path | str, *, kind: Kind) -> dict[str, Any]:
    """The dict that a pickle (any protocol, Python 2 or 3, strings as latin1) holds; no code of its choosing runs.

    Values are None, bool, int, float, str, bytes, list, tuple, set, dict, NumPy arrays and scalars; with kind "smpl"
    also scipy csc_matrix, chumpy objects being replaced by their values.
    Raises UnsafePickle when it names anything that is not on the list for `kind`, RawDataError when it cannot be read.
    """
    path = Path(path)
    try:
        data = read_regular(path)
    except OSError as error:
        _fail(path, kind, f"{type(error).__name__}: {error.strerror or error}", "Check the path and the permissions.")
    for start, what in _NO_PICKLES.items():
        if data.startswith(start):
            _fail(path, kind, what, "Download or unpack it again.")
    try:
        content = resolve(Machine(data, ALLOWED[kind]).run(), room=len(data))
    except Unlisted as error:
        raise UnsafePickle(
            f"{path}: not read, because it asks for {error}, which {_HOLDS[kind].split(':')[0]} never does. "
            "Do not unpickle it by other means; download the file again from its official page.",
            asks_for=str(error),
        ) from None
    except Malformed as error:
        _fail(path, kind, str(error), "Download or unpack it again.")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        _fail(path, kind, f"{type(content).__name__} at the top", "Use the file as its authors distribute it.")
    return content


def _fail(path: Path, kind: Kind, found: str, do: str) -> NoReturn:
    raise RawDataError(path, "pickle", expected=_HOLDS[kind], found=found, do=do) from None


_MARK: Final = object()

# Instruction -> struct code of the number that follows it (PEPs 307, 3154, 574; the library's pickletools).
_NUMBERS: Final = {"J": "<i", "K": "<B", "M": "<H", "G": ">d"}
_STRINGS: Final = {  # struct code of the length, and how the bytes that follow are read
    "T": ("<i", "latin1"),
    "U": ("<B", "latin1"),
    "X": ("<I", "utf-8"),
    "\x8c": ("<B", "utf-8"),
    "\x8d": ("<Q", "utf-8"),
    "B": ("<I", ""),
    "C": ("<B", ""),
    "\x8e": ("<Q", ""),
    "\x96": ("<Q", ""),
}
_CONSTANTS: Final[Mapping[str, Any]] = {"N": None, "\x88": True, "\x89": False}
_TUPLES: Final = {"\x85": 1, "\x86": 2, "\x87": 3}
_REFUSED: Final = {  # instructions that neither kind of file has any use for
    "i": "INST",
    "o": "OBJ",
    "P": "PERSID",
    "Q": "BINPERSID",
    "\x82": "EXT1",
    "\x83": "EXT2",
    "\x84": "EXT4",
    "\x91": "FROZENSET",
    "\x92": "NEWOBJ_EX",
    "\x97": "NEXT_BUFFER",
    "\x98": "READONLY_BUFFER",
}
_MEMO_WIDTH: Final = {"q": "<B", "r": "<I", "h": "<B", "j": "<I"}


class Machine:
    """The stack machine of pickle protocols 0 to 5, less everything that imports, calls or changes an object."""

    def __init__(self, data: bytes | mmap.mmap, allowed: Mapping[tuple[str, str], Name]) -> None:
        self.data, self.position, self.allowed = data, 0, allowed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Interpret up to STOP: the value left on the stack, with its records unresolved."""
        while (code := self.take(1).decode("latin1")) != ".":
            if code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code])
            elif code in _NUMBERS:
                self.stack.append(self.number(_NUMBERS[code]))
            elif code in _STRINGS:
                self.stack.append(self.string(*_STRINGS[code]))
            elif code in _TUPLES:
                self.stack.append(tuple(self.pop_many(_TUPLES[code])))
            elif step := _STEPS.get(code):
                step(self)
            elif code in _REFUSED:
                raise Unlisted(f"the instruction {_REFUSED[code]}")
            else:
                raise Malformed(f"byte {ord(code):#04x} at {self.position - 1}, which is no instruction of a pickle")
        return self.pop()

    # -- reading ---------------------------------------------------------------------------------------------------

    def take(self, n: int) -> bytes:
        if not 0 <= n <= len(self.data) - self.position:
            raise Malformed(f"it ends inside a value: {n} bytes are announced at byte {self.position}")
        self.position += n
        return self.data[self.position - n : self.position]

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise Malformed(f"it ends inside a line that begins at byte {self.position}")
        return self.take(end + 1 - self.position)[:-1]

    def string(self, length: str, encoding: str) -> str | bytes:
        raw = self.take(self.number(length))
        if not encoding:
            return raw
        try:
            return raw.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        except UnicodeDecodeError:
            raise Malformed(f"text that is not {encoding} before byte {self.position}") from None

    # -- the stack -------------------------------------------------------------------------------------------------

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise Malformed(f"nothing on the stack at byte {self.position}")
        return self.stack.pop()

    def pop_many(self, n: int) -> list[Any]:
        return [self.pop() for _ in range(n)][::-1]

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while self.stack and self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        if not self.stack:
            raise Malformed(f"no mark on the stack at byte {self.position}")
        self.stack.pop()
        return values[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise Malformed(f"no {kind.__name__} to fill at byte {self.position}")
        return self.stack[-1]

    # -- instructions ----------------------------------------------------------------------------------------------

    def push_decimal(self) -> None:
        """INT and LONG: text, "01" and "00" being booleans."""
        text = self.line()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
            return
        try:
            self.stack.append(int(text.rstrip(b"L")))
        except ValueError:
            raise Malformed(f"a number that is none before byte {self.position}") from None

    def push_float(self) -> None:
        try:
            self.stack.append(float(self.line()))
        except ValueError:
            raise Malformed(f"a number that is none before byte {self.position}") from None

    def push_long(self) -> None:
        raw = self.take(self.number("<B" if self.data[self.position - 1] == 0x8A else "<i"))
        self.stack.append(int.from_bytes(raw, "little", signed=True))

    def push_quoted(self) -> None:
        """STRING: a Python 2 literal in quotes."""
        text = self.line().strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise Malformed(
                f"a string without quotes before byte {self.position} (line ends may have been converted: a pickle "
                "must be copied as binary)"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # escapes that Python 2 never writes
                self.stack.append(codecs.escape_decode(text[1:-1])[0].decode("latin1"))
        except ValueError:
            raise Malformed(f"a string with a broken escape before byte {self.position}") from None

    def push_unicode(self) -> None:
        try:
            self.stack.append(self.line().decode("raw-unicode-escape"))
        except UnicodeDecodeError:
            raise Malformed(f"a string with a broken escape before byte {self.position}") from None

    def push_name(self) -> None:
        names = [self.line().decode("latin1"), self.line().decode("latin1")]
        self.stack.append(self.named(*names))

    def push_name_from_stack(self) -> None:
        module, name = self.pop_many(2)
        self.stack.append(self.named(module, name))

    def named(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed(f"a name that is no text before byte {self.position}")
        if (module, name) not in self.allowed:
            raise Unlisted(repr(f"{module}.{name}"[:200]))  # repr: no escape sequences on somebody's terminal
        return self.allowed[module, name]

    def apply(self) -> None:
        """REDUCE and NEWOBJ: in other unpicklers a call, here a record of what was to be called with what."""
        name, arguments = self.pop_many(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Unlisted(f"a call of something unnamed before byte {self.position}")
        self.stack.append(Record(name, arguments))

    def build(self) -> None:
        state = self.pop()
        record = self.top(Record)
        if record.state is not None:
            raise Malformed(f"an object built twice before byte {self.position}")
        record.state = state

    def fill_dict(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        if len(pairs) % 2:
            raise Malformed(f"a key without a value before byte {self.position}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes | None):  # hashing a deep tuple can exhaust the C stack
                raise Malformed(f"a dict key of type {type(key).__name__} before byte {self.position}")
            target[key] = value

    def make_dict(self) -> None:
        pairs = self.pop_to_mark()
        self.stack.append({})
        self.fill_dict(pairs)

    def push_set(self) -> None:
        """EMPTY_SET: the same record as a call of set, so that the list of names holds for it too."""
        self.stack.append(Record(self.named(_PY3, "set"), ([],)))

    def add_all(self) -> None:
        values = self.pop_to_mark()
        record = self.top(Record)
        if record.name is not Name.SET or not record.arguments or not isinstance(record.arguments[0], list):
            raise Malformed(f"no set to fill at byte {self.position}")
        record.arguments[0].extend(values)

    def append_all(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1] if self.stack else self.pop()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed(f"a reference to nothing before byte {self.position}")
        self.stack.append(self.memo[index])

    def memo_index(self) -> int:
        """The number after PUT and GET, as text or binary."""
        width = _MEMO_WIDTH.get(chr(self.data[self.position - 1]))
        if width:
            return int(self.number(width))
        try:
            return int(self.line())
        except ValueError:
            raise Malformed(f"a number that is none before byte {self.position}") from None


_STEPS: Final[Mapping[str, Callable[[Machine], Any]]] = {
    "\x80": lambda m: m.take(1),  # PROTO: what each instruction means is the same in all
    "\x95": lambda m: m.take(8),  # FRAME: a hint for buffering
    "(": lambda m: m.stack.append(_MARK),
    "0": lambda m: m.pop(),
    "1": lambda m: m.pop_to_mark(),
    "2": lambda m: m.stack.append(m.top(object)),
    "I": Machine.push_decimal,
    "L": Machine.push_decimal,
    "F": Machine.push_float,
    "\x8a": Machine.push_long,
    "\x8b": Machine.push_long,
    "S": Machine.push_quoted,
    "V": Machine.push_unicode,
    "c": Machine.push_name,
    "\x93": Machine.push_name_from_stack,
    "R": Machine.apply,
    "\x81": Machine.apply,
    "b": lambda m: m.build(),  # which a machine of joblib files does otherwise
    "]": lambda m: m.stack.append([]),
    "l": lambda m: m.stack.append(m.pop_to_mark()),
    "a": lambda m: m.append_all(m.pop_many(1)),
    "e": lambda m: m.append_all(m.pop_to_mark()),
    ")": lambda m: m.stack.append(()),
    "t": lambda m: m.stack.append(tuple(m.pop_to_mark())),
    "}": lambda m: m.stack.append({}),
    "d": Machine.make_dict,
    "\x8f": Machine.push_set,
    "\x90": Machine.add_all,
    "s": lambda m: m.fill_dict(m.pop_many(2)),
    "u": lambda m: m.fill_dict(m.pop_to_mark()),
    "p": lambda m: m.put(m.memo_index()),
    "q": lambda m: m.put(m.memo_index()),
    "r": lambda m: m.put(m.memo_index()),
    "\x94": lambda m: m.put(len(m.memo)),
    "g": lambda m: m.get(m.memo_index()),
    "h": lambda m: m.get(m.memo_index()),
    "j": lambda m: m.get(m.memo_index()),
}
