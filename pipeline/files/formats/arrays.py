"""Read arrays and values from untrusted label files: MATLAB v5 (by SciPy), NumPy archives, JSON.
[raw] -> tracks

Every error (RawDataError) names the file and the key, what was expected and found, and what to do
(argument `do` of the functions). A damaged file can make SciPy's compiled reader crash or allocate
without limit. Conversion reads in the processes of `pipeline.processes`, so this costs one video.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, NoReturn
from zipfile import is_zipfile

import numpy as np
from numpy.lib import format as npy_format

from cache.arrays import Array, Doubles
from pipeline.errors import PipelineError, RawDataError, library_of
from pipeline.files.formats.names import LARGEST_WHOLE, kind, quote_name, shown_names
from pipeline.files.formats.other_formats import ZIP, other_format, other_than_text, owner_of
from pipeline.files.numbers import LARGEST, are_usable_numbers
from pipeline.files.raw.files import open_regular, read_regular

Shape = tuple[int | None, ...]  # None: any length

UNPACK_AGAIN: Final = "Unpack the download again."
_STORED_ARRAY: Final = (
    "an array of numbers or text (pickled objects are not read: they can run code)"
)
TAKE_AWAY: Final = "Take the file away."  # for another program's
_HEADER_READERS: Final = {  # version of NumPy's file -> function that reads its header
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
# In a library's messages, which may be cut off. No character fits in two ways: else, a quote that
# does not end takes for ever.
_QUOTED: Final = re.compile(r"""(?<!\w)b?(['"])((?:\\.|(?!\1)[^\\])*)(\1|\\?\Z)""", re.DOTALL)


@contextmanager
def reading(
    file: Path,
    expected: str,
    *,
    key: str = "file",
    do: str = UNPACK_AGAIN,
    reason: str = "bad_label_file",
) -> Iterator[None]:
    """Within the block, turn any exception of a library on a damaged file into RawDataError.

    Errors of this pipeline, of a library that lacks something (`errors.library_of`), and
    MemoryError, which ends the process, are raised unchanged.

    Args:
        expected: what the file should hold, for the message.
        key: which part of the file is read.
        do: what the user can do.
        reason: why the video is rejected, as accounts count it.
    """
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except Exception as error:
        if library_of(error):
            raise
        problem = _describe_error(error)[:300]
        raise RawDataError(file, key, expected, problem, do, reason=reason) from error


class FileState(NamedTuple):
    """What changes when a file is written again."""

    n_bytes: int
    modified_ns: int

    @classmethod
    def read(cls, file: Path, do: str = "Put it back.") -> FileState:
        """The state of a file. Raises RawDataError if it cannot be read."""
        with reading(file, "a file", do=do):
            status = file.stat()
        return cls(status.st_size, status.st_mtime_ns)


class _Refused(ValueError):
    """What was found, in words of this package."""


def refuse(found: str) -> NoReturn:
    """Raise an error inside a `reading` block, with this text as what was found."""
    raise _Refused(found)


def refuse_other(start: bytes) -> NoReturn:
    """Refuse a file of another format, with what it is by its first bytes."""
    refuse(other_format(start) or "a file of another kind")


def load_mat(file: Path, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, Array]:
    """Read variables of a MATLAB v5 file, by name, in their stored types. Those in `optional` may
    be missing.

    Raises RawDataError for another file, and if one of `keys` is missing.
    """
    # Importing SciPy takes 0.3 s: commands that read no such file need not wait for it.
    from scipy.io import loadmat, whosmat

    with reading(file, "a whole MATLAB v5 file"), open_regular(file) as stream:
        head = stream.read(128)
        # without this, the file may be MATLAB v4 or v7.3
        if head[124:] not in (b"\x00\x01IM", b"\x01\x00MI"):
            refuse_other(head)
        variables = loadmat(stream, variable_names=[*keys, *optional])
        content = {name: value for name, value in variables.items() if not name.startswith("__")}
        missing = [key for key in keys if key not in content]
        if not missing:
            return content
        names = sorted(name for name, *_ in whosmat(stream))

    raise _missing_variable(file, missing[0], names)


def load_npz(file: Path, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, Array]:
    """Read arrays of an .npz, by name. Those in `optional` may be missing. Pickled objects are
    refused, as they can run code.

    Raises RawDataError for another file, if one of `keys` is missing, and for an object array.
    """
    arrays = {}
    with reading(file, "a NumPy .npz archive"), open_regular(file) as stream:
        head = stream.read(16)
        # NumPy would take another file for a pickle, and advise the user to trust it.
        if not head.startswith(ZIP):
            refuse_other(head)
        if not is_zipfile(stream):
            refuse("an archive without its end: it is cut off")
        stream.seek(0)
        archive = np.load(stream, allow_pickle=False)
        present = [key for key in optional if key in archive]
        for key in (*keys, *present):
            if key not in archive:
                raise _missing_array(file, key, archive.files)
            with reading(file, _STORED_ARRAY, key=key):
                arrays[key] = np.asarray(archive[key])
    return arrays


class _NpyHeader(NamedTuple):
    """What is before the numbers in NumPy's file."""

    shape: tuple[int, ...]
    is_fortran: bool  # the order of the numbers; else C's
    dtype: np.dtype[Any]


def read_npy_header(stream: IO[bytes]) -> _NpyHeader:
    """Read the header of NumPy's file. Raises ValueError for another file."""
    version = npy_format.read_magic(stream)
    if version not in _HEADER_READERS:
        refuse(f"npy version {version}")
    return _NpyHeader(*_HEADER_READERS[version](stream))


def matches_shape(actual: tuple[int, ...], expected: Shape) -> bool:
    """Whether an array's shape is the expected one, in which None stands for any length."""
    if len(actual) != len(expected):
        return False
    return all(n in (None, m) for n, m in zip(expected, actual, strict=True))


def numbers(file: Path, key: str, stored: Any, shape: Shape, *, do: str = UNPACK_AGAIN) -> Doubles:
    """Convert an array or lists to float64. Raises RawDataError unless they hold real numbers in
    `shape` (None: any length).

    Stored types vary between files, and unsigned arithmetic wraps around: always convert.
    """
    try:
        array = np.asarray(stored)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    has_shape = matches_shape(array.shape, shape)
    if has_shape and array.dtype.kind in "biuf":
        return array.astype(np.float64)

    lengths = ", ".join(map(str, shape)).replace("None", "any")
    actual = f"{array.shape} {array.dtype}"
    if has_shape:
        actual = f"{kind(_first_other(array))} among them"
    raise RawDataError(file, key, f"numbers of shape ({lengths})", actual, do)


@dataclass(frozen=True, slots=True, eq=False)
class StoredArrays:
    """The content of a label file, of which readers take one array after the other. Methods raise
    RawDataError for other content.
    """

    file: Path
    content: Mapping[str, Any]
    do: str = UNPACK_AGAIN  # advice for messages

    def value(self, key: str) -> Any:
        """The value under a key; under "camera/width", the `width` of the dict `camera`."""
        value: Any = self.content
        for name in key.split("/"):
            if not isinstance(value, Mapping) or name not in value:
                actual = type(value).__name__
                if isinstance(value, Mapping):
                    actual = f"only {shown_names(map(str, value))}"
                raise self.error(key, "this key", actual)
            value = value[name]
        return value

    def take(self, key: str, *shape: int | None, finite: bool = False) -> Doubles:
        """The numbers under a key, as `numbers` converts them.

        finite: Refuse NaN, infinities, and numbers from LARGEST on.
        """
        array = numbers(self.file, key, self.value(key), shape, do=self.do)
        if finite and not are_usable_numbers(array).all():
            raise self.error(key, "finite numbers", f"NaN, infinity or numbers over {LARGEST:.0e}")
        return array

    def scalar(self, key: str) -> float:
        """The only number under a key, which may be in an array of any shape."""
        value = np.reshape(self.value(key), -1)
        return float(numbers(self.file, key, value, (1,), do=self.do)[0])

    def error(self, key: str, expected: str, found: str) -> RawDataError:
        """The error for other content under a key."""
        return RawDataError(self.file, key, expected, found, self.do)


def number_rows(
    file: Path, keys: Sequence[str], rows: Sequence[Any], n: int, *, do: str = UNPACK_AGAIN
) -> Doubles:
    """Convert N lists of n numbers to an array (N, n). `keys[i]` is the key of the i-th list in the
    file. Raises as `numbers` does.
    """
    checked = [numbers(file, key, row, (n,), do=do) for key, row in zip(keys, rows, strict=True)]
    return np.array(checked).reshape(len(rows), n)


def load_json(file: Path, *, do: str) -> Any:
    """Read a JSON file. Raises RawDataError for another file, and if it is nested too deeply.

    NaN and infinities are returned as floats, so callers must check numbers.
    """
    with reading(file, "JSON", do=do):
        content = read_regular(file)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            refuse(other_than_text(content) or _json_fault(content, error))


def floats(file: Path, key: str, texts: Sequence[str], *, do: str) -> list[float]:
    """Convert texts to numbers. Raises RawDataError for other texts, without a text that may be
    private: a link in the raw folder may lead to any file, and a group reads the message.
    """
    values = []
    for text in texts:
        try:
            values.append(float(text))
        except ValueError:
            actual = f"no number: {kind(text)}"
            raise RawDataError(file, key, "numbers", actual, do) from None
    return values


def whole_number(file: Path, key: str, value: object, *, do: str) -> int:
    """Convert a JSON value to a whole number; 3.0 is one, too. Raises RawDataError for other
    values, including `true`.
    """
    match value:
        case bool():
            pass
        # comparisons with NaN are false
        case int() | float() if abs(value) <= LARGEST_WHOLE and value % 1 == 0:
            return int(value)
    raise RawDataError(file, key, "a whole number", kind(value), do)


def records(file: Path, key: str, value: object, *, do: str) -> list[dict[str, Any]]:
    """Check that a JSON value is a list of objects, and return it. Raises RawDataError if not."""
    if not isinstance(value, list):
        raise RawDataError(file, key, "a list of objects", kind(value), do)
    for i, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise RawDataError(file, f"{key}[{i}]", "an object", kind(entry), do)
    return value


def _describe_error(error: Exception) -> str:
    """What was found, from the error of reading it."""
    problem = str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, EOFError):
        return "a file that ends early: it is cut off"
    if isinstance(error, _Refused):
        return problem
    if not isinstance(error, OSError):  # a library may quote the file's content
        problem = _QUOTED.sub(lambda quoted: quote_name(quoted[2]), problem)
    if type(error) in (ValueError, JSONDecodeError):
        return problem
    return f"{type(error).__name__}: {problem}"


def _missing_variable(file: Path, key: str, names: Sequence[str]) -> RawDataError:
    """The error for a MATLAB file without a variable. names: of those that it has."""
    actual = f"only {shown_names(names)}"
    do = f"Name the folder of this dataset, if it is another's file. {UNPACK_AGAIN}"
    return RawDataError(file, key, "a variable of this name", actual, do)


def _missing_array(file: Path, key: str, names: Sequence[str]) -> RawDataError:
    """The error for an .npz without an array. names: of those that it has."""
    owner = owner_of({".npz", *names})
    if owner:
        return RawDataError(file, key, _STORED_ARRAY, owner, TAKE_AWAY)
    return RawDataError(file, key, _STORED_ARRAY, f"only {shown_names(names)}", UNPACK_AGAIN)


def _first_other(array: Array) -> object:
    """The first element that is not a real number in range, for a message."""
    elements = array.ravel().tolist()
    for element in elements:
        if not isinstance(element, int | float) or abs(element) > LARGEST_WHOLE:
            return element
    return elements


def _json_fault(content: bytes, error: Exception) -> str:
    """Why a text is not JSON, from the error of parsing it."""
    if isinstance(error, UnicodeDecodeError):
        return "text that is not in UTF-8"
    if isinstance(error, RecursionError):
        return "lists or objects that are nested too deeply"
    begins_as_json = content.lstrip()[:1] in (b"[", b"{")
    if str(error).startswith("Extra data"):
        if _is_json(content.splitlines()[0]):
            return "JSON Lines, a value in each line"
        return f"{error}: two texts in one"
    if begins_as_json and content.rstrip()[-1:] not in (b"]", b"}"):
        return "JSON that is cut off"
    if begins_as_json:
        return str(error)
    return "text that is not JSON"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
