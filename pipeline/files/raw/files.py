"""Untrusted files: open them safely, compute digests, and find files in folders.  [raw] -> tracks
-> features -> windows

A video's digest, its reader and the digest of its pixels need the same files. Inside `caching`,
functions marked with `cache_result` read a file only once, so that all three see the same state.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, ParamSpec, TypeVar

from pipeline.cli.console import warn_once
from pipeline.errors import note_fault, within

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Unreadable = dict[str, str]  # folder or file that cannot be listed -> why not

MIB: Final = 1 << 20
SMALL: Final = 1 << 16  # bytes of a file that is hashed without a large buffer
# Of larger videos, only parts are hashed: hashing all of Kinetics takes as long as decoding it.
HASHED_WHOLE: Final = 16 * MIB
VIDEOS: Final = (  # endings of video files, in lower case
    ".mp4",
    ".mov",
    ".mkv",
    ".avi",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".3gp",
    ".ts",
    ".mts",
    ".m2ts",
)

PRODUCT: Final = "vibe-pipeline"
# in a folder that a command wrote for people: names the command, and lists what it wrote there
ABOUT: Final = "about.json"
_LARGEST_ABOUT: Final = 64 * MIB
WILD: Final = re.compile(r"[*?\[]")  # wildcards of a glob
# how many folders are searched on one level, to find data that was unpacked to the wrong place
MOST_FOLDERS: Final = 100

# of Windows, Macs, Synology's and QNAP's disks, and Linux; besides hidden names: .DS_Store, ...
_LITTER: Final = re.compile(
    r"\.|((eh)?thumbs\.db|desktop\.ini|\$recycle\.bin|system volume information|__macosx"
    r"|@eadir|[#@]recycle|#snapshot|lost\+found)$",
    re.IGNORECASE,
)

_CACHE: Final[ContextVar[dict[Any, Any] | None]] = ContextVar("cache", default=None)


def is_litter(name: str) -> bool:
    """Whether a name is hidden, or one that systems and file managers leave in folders.

    >>> is_litter("._000001.jpg"), is_litter("@eaDir"), is_litter("000001.jpg")
    (True, True, False)
    """
    return _LITTER.match(name) is not None


@contextmanager
def caching() -> Iterator[None]:
    """Cache results of functions marked with `cache_result` until the end of the block."""
    with within(_CACHE, {}):
        yield


def cache_result(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: inside `caching`, the function is called once for the same (hashable) arguments.
    Callers must not change its results.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        cache = _CACHE.get()
        if cache is None or kwargs:
            return function(*args, **kwargs)
        if (function, args) not in cache:
            cache[function, args] = function(*args)  # type: ignore[call-arg]  # kwargs are empty
        result: R = cache[function, args]
        return result

    return call


def remember(kind: type[T], key: str, value: T) -> None:
    """Inside `caching`, store a value for `recall`, by its type and a key; else do nothing."""
    cache = _CACHE.get()
    if cache is not None:
        cache[kind, (key,)] = value


def recall(kind: type[T], key: str) -> T | None:
    """The value that `remember` has stored inside the same `caching` block, or None."""
    return (_CACHE.get() or {}).get((kind, (key,)))


def open_unbuffered(path: Path) -> io.FileIO:
    """Open a file without a buffer, to read a few bytes here and there. Raises OSError as
    `open_regular` does.
    """
    try:
        stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        note_fault(error)
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes. Links are followed.

    Raises OSError as `open` does, and for a pipe, socket or device, as reading those may never end.
    """
    return io.BufferedReader(open_unbuffered(path))


def read_regular(path: Path) -> bytes:
    """Read a whole file. Raises OSError as `open_regular` does."""
    with open_unbuffered(path) as stream:
        return stream.readall()


def is_folder_entry(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; False for circular links, for which
    `DirEntry.is_dir` raises.
    """
    try:
        return entry.is_dir()
    except OSError:
        return False


def _or_why_not(digest: Callable[P, str]) -> Callable[P, str]:
    """A decorator for a function that returns a digest: on an error, it returns "missing" or
    "unreadable: ..." instead, which equals no digest. The reader of the file reports the error.
    """

    @functools.wraps(digest)
    def call(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return digest(*args, **kwargs)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            note_fault(error)
            return f"unreadable: {type(error).__name__}"

    return call


@cache_result
def file_digest(file: Path) -> str:
    """SHA-256 of a file; of a video over 16 MiB, SHA-256 of its size and its first, middle and last
    MiB. A label file over 16 MiB, which many videos may have, is read once while it stays. Raises
    OSError.
    """
    if file.suffix.lower() not in VIDEOS:
        if file.stat().st_size > HASHED_WHOLE:
            return remembered_digest(file)
        return whole_file_digest(file)
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= HASHED_WHOLE:
            return whole_file_digest(file)
        probes = hashlib.sha256(f"probed {size}".encode())
        for start in (0, (size - MIB) // 2, size - MIB):
            stream.seek(start)
            probes.update(stream.read(MIB))
        return probes.hexdigest()


digest_or_problem: Final = _or_why_not(file_digest)


def whole_file_digest(file: Path) -> str:
    """SHA-256, in hex, of all bytes of a file, even of a large video. Raises OSError."""
    with io.BufferedReader(open_unbuffered(file)) as stream:
        # `hashlib.file_digest` makes a large buffer, which is slow for small files
        if os.fstat(stream.fileno()).st_size <= SMALL:
            return hashlib.sha256(stream.read()).hexdigest()
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_digest(file: Path) -> str:
    """`whole_file_digest`, computed once in a process while size and time of the file stay. Raises
    OSError.
    """
    status = file.stat()
    return _remembered_digest(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _remembered_digest(file: Path, _size: int, _mtime_ns: int) -> str:
    return whole_file_digest(file)


@cache_result
@_or_why_not
def span_digest(file: Path, start: int, stop: int) -> str:
    """SHA-256 of the bytes [start, stop) of a file, as far as it goes; or the problem as text."""
    total = hashlib.sha256()
    with open_regular(file) as stream:
        stream.seek(start)
        while content := stream.read(max(0, min(MIB, stop - start))):
            total.update(content)
            start += len(content)
    return total.hexdigest()


@_or_why_not
def folder_digest(folder: Path) -> str:
    """SHA-256 of the sorted names and sizes of the files in a folder; or the problem as text."""
    return _listing_digest(_names_and_sizes(folder))


def list_names(folder: Path) -> list[str]:
    """Names in a folder, unsorted. Raises OSError."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError as error:
        note_fault(error)
        raise


@cache_result
def _names_and_sizes(folder: Path) -> list[tuple[str, int]]:
    """Sorted names and sizes of a folder's files. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # faster than whole paths
    try:
        with os.scandir(descriptor) as entries:
            files = [entry for entry in entries if not is_litter(entry.name)]
            return sorted((entry.name, _size(entry)) for entry in files)
    finally:
        os.close(descriptor)


@_or_why_not
def contents_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of the files in a folder; or the problem as text. Contents
    of subfolders do not count.
    """
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if not is_litter(entry.name)]
        return _listing_digest(sorted((entry.name, _content(entry)) for entry in files))


def _listing_digest(listing: object) -> str:
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


@_or_why_not
def _content(entry: os.DirEntry[str]) -> str:
    if not entry.is_file():  # opening a pipe would not return
        return "no file"
    return whole_file_digest(Path(entry.path))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:  # also a link that leads nowhere
        note_fault(error)
        return -1


def find(
    folder: Path | str, pattern: str, unreadable: Unreadable, *, any_case: bool = False
) -> Iterator[str]:
    """Find paths below `folder` that match a glob without "**", in any order. Wildcards do not
    match litter.

    Args:
        pattern: the glob. If it ends in a slash, it matches only folders.
        unreadable: gets an entry for each folder or file that cannot be read.
        any_case: ignore upper and lower case.
    """
    name, slash, deeper = pattern.partition("/")
    if not (any_case or WILD.search(name)):
        path = os.path.join(folder, name)  # noqa: PTH118 - a quarter of a million of these
        if deeper:
            yield from find(path, deeper, unreadable)
        elif _is_match(path, bool(slash), unreadable):
            yield path
        return
    flags = re.IGNORECASE if any_case else 0
    fits = re.compile(fnmatch.translate(name), flags).match
    for entry in scan_folder(folder, unreadable):
        is_hidden = is_litter(entry.name) and not name.startswith(".")
        is_other_kind = bool(slash) and not is_folder_entry(entry)
        if is_hidden or not fits(entry.name) or is_other_kind:
            continue
        if deeper:
            yield from find(entry.path, deeper, unreadable, any_case=any_case)
        else:
            yield entry.path


def scan_folder(folder: str | Path, unreadable: Unreadable) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, in any order; none if it does not exist. `unreadable`: as for
    `find`.
    """
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        note_fault(error)
        unreadable[str(folder)] = error.strerror or type(error).__name__


def scan_names(folder: Path) -> Iterator[str]:
    """Yield the names of the entries that `scan_folder` yields."""
    return (entry.name for entry in scan_folder(folder, {}))


def _is_match(path: str, only_folders: bool, unreadable: Unreadable) -> bool:
    """Whether a path without wildcards exists, and is a folder if it must be one."""
    try:
        os.stat(path)  # noqa: PTH116 - as above; tells a missing right from a missing file
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        note_fault(error)
        unreadable[path] = error.strerror or type(error).__name__
        return False
    return not only_folders or os.path.isdir(path)  # noqa: PTH112 - as above


def is_there(path: Path) -> bool:
    """Whether a path exists; False for broken links and without permission."""
    return os.path.exists(path)  # noqa: PTH110 - Path's own may raise


def is_folder_there(path: Path) -> bool:
    """Whether a path is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def has_match(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches anything below `folder`."""
    return any(next(find(folder, pattern, {}), None) is not None for pattern in patterns)


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, at most MOST_FOLDERS. Litter is left out."""
    names = []
    for entry in scan_folder(folder, {}):
        if not is_litter(entry.name) and is_folder_entry(entry):
            names.append(entry.name)
    return [folder / name for name in sorted(names)[:MOST_FOLDERS]]


def read_about(folder: Path) -> tuple[str, set[str]]:
    """The mark of the command that wrote into a folder, and what it wrote there, by the folder's
    `ABOUT`; "" and nothing without one of this product. The paths are untrusted.
    """
    try:
        with open_regular(folder / ABOUT) as stream:
            content = json.loads(stream.read(_LARGEST_ABOUT))
        if content["generator"].startswith(f"{PRODUCT} "):
            return content["generator"], set(filter(str.isprintable, content["files"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return "", set()


def list_files(raw: Path) -> list[str]:
    """List all files below `raw`, sorted, except litter and what a folder's `ABOUT` lists, of which
    a line is printed. Follows links to folders.
    """
    files: list[str] = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        resolved = Path(folder).resolve()
        mark, listed = read_about(Path(folder)) if ABOUT in names else ("", set())
        if mark:
            warn_once(f"{folder}: skipped what {mark} wrote there")
        shown = [name for name in folders if not (is_litter(name) or name in listed)]
        folders.clear()
        for name in shown:
            is_cycle = resolved.is_relative_to(os.path.realpath(f"{folder}/{name}"))
            if not is_cycle:
                folders.append(name)
        parent = PurePath(folder).relative_to(raw).as_posix()
        prefix = "" if parent == "." else f"{parent}/"
        shown = [name for name in names if not (is_litter(name) or name in listed)]
        files += [f"{prefix}{name}" for name in shown]
    return sorted(files)
