"""Read arrays and values from untrusted label files: MATLAB v5 (by SciPy), NumPy archives, JSON.
[raw] -> tracks

Every error (RawDataError) names the file and the key, what was expected and found, and what to do
(argument `do` of the functions). A damaged file can make SciPy's compiled reader crash or allocate
without limit. Conversion reads in the processes of `pipeline.processes`, so this costs one video.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, NoReturn
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.lib import format as npy_format

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.known_files import owner_of
from pipeline.files.formats.names import LARGEST_WHOLE, is_short_word, kind, shown, shown_names
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.skeletons import Array, Doubles

Shape = tuple[int | None, ...]  # None: any length

AGAIN: Final = "Unpack the download again."
TAKE_AWAY: Final = "Take the file away."  # for another program's
BLOCK: Final = 1 << 20  # bytes that are searched at a time
N_LEVELS: Final = 3  # how many JSON objects are around the content of a frame
ZIP: Final = b"PK\x03\x04"  # first bytes of an .npz archive
HDF5: Final = "an HDF5 file"
OTHERS: Final = {  # first bytes of files that are often downloaded by mistake
    b"<": "a web page (a login or licence page, perhaps)",
    ZIP: "a zip archive",
    b"\x1f\x8b": "a file compressed with gzip",
    b"BZh": "a file compressed with bz2",
    b"\xfd7zXZ": "a file compressed with xz",
    b"]\x00": "a file compressed with lzma",
    b"\x04\x22\x4d\x18": "a file compressed with lz4",
    **dict.fromkeys((b"x\x01", b"x^", b"x\x9c", b"x\xda"), "a file compressed with zlib"),
    b"\x89HDF": HDF5,
    b"version http": "a Git LFS pointer",
}
NO_TEXT: Final = OTHERS | {  # first bytes of other files that have the name of a text or a clip
    b"GIF8": "a GIF image",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "an AVI video or WebP image",
    b"\x1aE\xdf\xa3": "a WebM or Matroska video",
    b"%PDF": "a PDF",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x80": "a pickle",
    b"PAR1": "a Parquet file",
    b"MATLAB": "a MATLAB file",
    b"\x30\x26\xb2\x75": "Windows Media, to be converted: ffmpeg -i IN.wmv OUT.mp4",
    b"\xff\xfe": "text in UTF-16, not in UTF-8",
    b"\xfe\xff": "text in UTF-16, not in UTF-8",
}
HEADERS: Final = {  # version of NumPy's file -> function that reads its header
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
_QUOTED: Final = re.compile(
    r"""(?<!\w)b?(['"])((?:\\.|(?!\1).)*)\1""", re.DOTALL
)  # in a library's messages
_MARK: Final = re.compile(rb'[{}"\\]')
_KEY: Final = re.compile(rb'"([0-9]{1,9})"\s*:\s*\Z')


@contextmanager
def reading(
    file: Path, expected: str, *, key: str = "file", do: str = AGAIN, reason: str = "bad_label_file"
) -> Iterator[None]:
    """Within the block, turn any exception of a library on a damaged file into RawDataError.

    Errors of this pipeline, and MemoryError, which ends the process, are raised unchanged.

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
        problem = str(error)
        if isinstance(error, FileNotFoundError):
            problem = "no such file"
        elif isinstance(error, EOFError):
            problem = "a file that ends early: it is cut off"
        elif isinstance(error, OSError):
            problem = f"{type(error).__name__}: {problem}"
        elif not isinstance(error, _Refused):  # a library may quote the file's content
            problem = _QUOTED.sub(lambda quoted: shown(quoted[2]), problem)
            if type(error) not in (ValueError, JSONDecodeError):
                problem = f"{type(error).__name__}: {problem}"
        raise RawDataError(file, key, expected, problem[:300], do, reason=reason) from error


def state_of(file: Path, do: str = "Put it back.") -> tuple[int, int]:
    """Size and time (ns) of a file. Raises RawDataError if they cannot be read."""
    with reading(file, "a file", do=do):
        status = file.stat()
    return status.st_size, status.st_mtime_ns


def require_unchanged(file: Path, state: tuple[int, int]) -> None:
    """Raise RawDataError if the file's state is not this one, which `state_of` returned before the
    file was read.
    """
    if state_of(file) != state:
        expected = "the same file until its last row"
        found = "another one, or other content, at the end: it was replaced while it was read"
        raise RawDataError(file, "content", expected, found, "Run the same command again.")


class _Refused(ValueError):
    """What was found, in words of this package."""


def refuse(found: str) -> NoReturn:
    """Raise an error inside a `reading` block, with this text as what was found."""
    raise _Refused(found)


def other_format(start: bytes) -> str:
    """What a file is in place of the expected download, from its first bytes; "" if unknown."""
    if not start:
        return "empty (0 bytes)"
    return identify_format(start.lstrip(), OTHERS)


def other_than_text(content: bytes) -> str:
    """What a file is in place of text in UTF-8; "" if it may be text."""
    if not content.strip():
        return f"empty ({len(content)} bytes)"
    if not content.strip(b"\0"):
        return "zero bytes alone, as a full disk or a broken copy leaves them"
    if content[4:8] == b"ftyp":
        return "an MP4 or MOV video"
    if content[257:262] == b"ustar":
        return "a tar archive"
    return identify_format(content.lstrip(), NO_TEXT)


def identify_format(start: bytes, formats: Mapping[bytes, str]) -> str:
    """The name of the first of `formats` (first bytes -> name) that `start` begins with; "" for
    none.
    """
    for magic, name in formats.items():
        if start.startswith(magic):
            return name
    return ""


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
            refuse(other_format(head) or "a file of another kind")
        variables = loadmat(stream, variable_names=[*keys, *optional])
        content = {name: value for name, value in variables.items() if not name.startswith("__")}
        missing = [key for key in keys if key not in content]
        if not missing:
            return content
        names = sorted(name for name, *_ in whosmat(stream))

    found = f"only {shown_names(names)}"
    do = f"Name the folder of this dataset, if it is another's file. {AGAIN}"
    raise RawDataError(file, missing[0], "a variable of this name", found, do)


def load_npz(file: Path, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, Array]:
    """Read arrays of an .npz, by name. Those in `optional` may be missing. Pickled objects are
    refused, as they can run code.

    Raises RawDataError for another file, if one of `keys` is missing, and for an object array.
    """
    expected = "an array of numbers or text (pickled objects are not read: they can run code)"
    arrays = {}
    with reading(file, "a NumPy .npz archive"), open_regular(file) as stream:
        head = stream.read(16)
        # NumPy would take another file for a pickle, and advise the user to trust it.
        if not head.startswith(ZIP):
            refuse(other_format(head) or "a file of another kind")
        if not is_zipfile(stream):
            refuse("an archive without its end: it is cut off")
        stream.seek(0)
        archive = np.load(stream, allow_pickle=False)
        present = [key for key in optional if key in archive]
        owner = owner_of({".npz", *archive.files})
        for key in (*keys, *present):
            is_other = key not in archive and owner
            with reading(file, expected, key=key, do=TAKE_AWAY if is_other else AGAIN):
                if key not in archive:
                    refuse(owner or f"only {shown_names(archive.files)}")
                arrays[key] = np.asarray(archive[key])
    return arrays


def npz_shape(file: Path, key: str) -> tuple[int, ...]:
    """The shape of an array in an .npz, without reading its numbers. Raises RawDataError."""
    with (
        reading(file, "a NumPy .npz archive", key=key),
        open_regular(file) as stream,
        ZipFile(stream) as archive,
    ):
        return read_npy_header(archive.open(f"{key}.npy"))[0]


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what is before the numbers of NumPy's file: their shape, whether they are in Fortran
    order, and their type. Raises ValueError for another file.
    """
    version = npy_format.read_magic(stream)
    if version not in HEADERS:
        refuse(f"npy version {version}")
    shape, fortran, dtype = HEADERS[version](stream)
    return shape, fortran, dtype


def fits(actual: tuple[int, ...], expected: Shape) -> bool:
    """Whether an array's shape is the expected one, in which None stands for any length."""
    if len(actual) != len(expected):
        return False
    return all(n in (None, m) for n, m in zip(expected, actual, strict=True))


def numbers(file: Path, key: str, stored: Any, shape: Shape, *, do: str = AGAIN) -> Doubles:
    """Convert an array or lists to float64. Raises RawDataError unless they hold real numbers in
    `shape` (None: any length).

    Stored types vary between files, and unsigned arithmetic wraps around: always convert.
    """
    try:
        array = np.asarray(stored)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    has_shape = fits(array.shape, shape)
    if has_shape and array.dtype.kind in "biuf":
        return array.astype(np.float64)

    lengths = ", ".join(map(str, shape)).replace("None", "any")
    found = f"{array.shape} {array.dtype}"
    if has_shape:
        found = f"{kind(_first_other(array))} among them"
    raise RawDataError(file, key, f"numbers of shape ({lengths})", found, do)


def _first_other(array: Array) -> object:
    """The first element that is not a real number in range, for a message."""
    elements = array.ravel().tolist()
    for element in elements:
        if not isinstance(element, int | float) or abs(element) > LARGEST_WHOLE:
            return element
    return elements


def table(
    file: Path, keys: Sequence[str], rows: Sequence[Any], n: int, *, do: str = AGAIN
) -> Doubles:
    """Convert N lists of n numbers to an array (N, n). `keys[i]` is the key of the i-th list in the
    file. Raises as `numbers` does.
    """
    try:
        array = np.asarray(rows)  # all at once, which is faster
    except ValueError:
        array = np.empty(0, object)
    if array.shape == (len(rows), n) and array.dtype.kind in "biuf":
        return array.astype(np.float64)
    one_by_one = [numbers(file, key, row, (n,), do=do) for key, row in zip(keys, rows, strict=True)]
    return np.array(one_by_one).reshape(len(rows), n)


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


def load_sequence(file: Path, keys: tuple[int, int], levels: str, *, do: str) -> dict[int, Any]:
    """Read one sequence of a JSON file {"<key>": {"<key>": {"<frame>": content}}}. Returns its
    content by frame, sorted; {} if the file does not have the sequence.

    Such files have hundreds of MB. So each process finds the bytes of all sequences of a file once,
    and only the bytes of the wanted sequence are parsed.

    Args:
        keys: the sequence's two keys.
        levels: what the keys and frames are called, for messages.

    Raises RawDataError for other content, and for strings with braces or escapes, which the search
    for sequences does not understand.
    """
    spans = _find_sequences(file, state_of(file), levels, do)
    key = f"{keys[0]}/{keys[1]}"
    if isinstance(spans, RawDataError):
        raise spans
    start, stop = spans.get(keys, (0, 0))
    with reading(file, "JSON", key=key, do=do), open_regular(file) as stream:
        stream.seek(start)
        stored: dict[str, Any] = json.loads(stream.read(stop - start) or "{}")
    for frame in stored:
        if not is_number(frame):
            raise RawDataError(file, key, f"{levels} as numbers", "other keys", do)
    return {int(frame): stored[frame] for frame in sorted(stored, key=int)}


@functools.lru_cache(maxsize=2)  # a reader may need two files at a time: joints and fits
def _find_sequences(
    file: Path, _state: tuple[int, int], levels: str, do: str
) -> Mapping[tuple[int, int], tuple[int, int]] | RawDataError:
    """Find the bytes [start, stop) of each sequence's object, by its keys. An error is returned,
    not raised, so that it is also cached for the other videos of the file.
    """
    try:
        with reading(file, f"JSON with {levels} as numbers", do=do), open_regular(file) as stream:
            return _scan_braces(stream)
    except RawDataError as error:
        return error


def _scan_braces(stream: BinaryIO) -> Mapping[tuple[int, int], tuple[int, int]]:
    """Find the sequences of an open file by its braces, in one pass. Raises ValueError and other
    errors for other content.
    """
    spans = dict[tuple[int, int], tuple[int, int]]()
    starts = list[int]()  # where the objects begin that are open at a byte, outermost first
    n_read = 0
    in_text = False
    while block := stream.read(BLOCK):
        for mark in _MARK.finditer(block):
            symbol = mark[0]
            position = n_read + mark.start()
            if symbol == b'"':
                in_text = not in_text
            # Strings must have no braces or escapes. Then every second quote ends a string.
            elif in_text or symbol == b"\\":
                refuse(f"a text with {symbol.decode()} at byte {position}")
            elif symbol == b"{":
                starts.append(position)
            else:
                if len(starts) == N_LEVELS:
                    _, outer, start = starts
                    keys = _find_key(stream, outer), _find_key(stream, start)
                    spans[keys] = (start, position + 1)
                starts.pop()
            if len(starts) > N_LEVELS + 1:
                refuse("other lists")
        n_read += len(block)
    if starts:
        refuse("a file that ends early")
    if not spans:
        refuse("no sequence")
    return spans


def _find_key(stream: BinaryIO, start: int) -> int:
    """The number that is the key of the object at this byte. Raises ValueError if none is."""
    before = os.pread(stream.fileno(), min(start, 40), max(start - 40, 0))
    key = _KEY.search(before)
    if key is None:
        refuse("an object without a number as its key")
    return int(key[1])


def number_of(text: str) -> float:
    """Convert a text to a number. Raises ValueError, without a text that may be private: a link in
    the raw folder may lead to any file, and a group reads the message.
    """
    try:
        return float(text)
    except ValueError:
        found = repr(text) if is_short_word(text) else f"a text of {len(text)} characters"
        raise ValueError(f"no number: {found}") from None


def is_number(text: str) -> bool:
    """Whether a text is a whole number of at most nine plain digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 9


def whole(file: Path, key: str, value: object, *, do: str) -> int:
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
