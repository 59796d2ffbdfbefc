"""Untrusted files: opened where they are regular, and named by what they hold.  [raw] -> tracks -> features -> windows

The digest of a video, its reader and the digest of its pixels need the same listings and contents. Inside `caching`,
functions marked with `cached` read them once, so all three see the same state.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MIB: Final = 1 << 20
SMALL: Final = 1 << 16  # bytes
HASHED_WHOLE: Final = 16 * MIB  # larger videos are known by size and three samples of a MiB: reading all of
# Kinetics only to name it would take as long as decoding it
VIDEOS: Final = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"})

# What need not be wrong with a file: permissions, a disk or mount that does not answer, what the machine ran out of.
_PASSING: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.EAGAIN),
        *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV),
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    }
)
_FAULTS: Final[ContextVar[list[OSError] | None]] = ContextVar("faults", default=None)
_CACHE: Final[ContextVar[dict[Any, Any] | None]] = ContextVar("cache", default=None)


@contextmanager
def caching() -> Iterator[None]:
    """What functions marked with `cached` return is kept until the end of the block."""
    token = _CACHE.set({})
    try:
        yield
    finally:
        _CACHE.reset(token)


def cached(function: Callable[P, R]) -> Callable[P, R]:
    """Inside `caching`, call a function once for the same (hashable) arguments. Its results must not be changed."""

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


def passes(error: BaseException) -> bool:
    """Is it an error of the system that may pass, so that it says nothing about the file?"""
    return isinstance(error, OSError) and error.errno in _PASSING


def note_fault(error: BaseException | None) -> None:
    """Inside `faults`, keep an error that may pass, also where it is the cause of this one."""
    noted = _FAULTS.get()
    while noted is not None and error is not None:
        if isinstance(error, OSError) and passes(error):
            noted.append(error)
        error = error.__cause__


@contextmanager
def faults() -> Iterator[list[OSError]]:
    """Errors that may pass, met by anything that reads raw files within the block, whatever became of them there."""
    noted: list[OSError] = []
    token = _FAULTS.set(noted)
    try:
        yield noted
    finally:
        _FAULTS.reset(token)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes; links are followed.

    Raises OSError as `open` does, and for a pipe, a socket or a device too: reading those may never end, and even
    opening a pipe waits for a process that writes.
    """
    return io.BufferedReader(open_unbuffered(path))


def open_unbuffered(path: Path) -> io.FileIO:
    """The same without a buffer, for reading a few bytes here and there."""
    try:
        stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        note_fault(error)
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream


def read_regular(path: Path) -> bytes:
    """The whole content. Raises OSError as `open_regular` does."""
    with open_unbuffered(path) as stream:
        return stream.readall()


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Is it a folder, or a link to one? A link that leads in a circle is none; `DirEntry.is_dir` raises there."""
    try:
        return entry.is_dir()
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------- digests


def _or_why_not(digest: Callable[P, str]) -> Callable[P, str]:
    """The digest, or why there is none. The reader reports what is wrong with the file."""

    @functools.wraps(digest)
    def call(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return digest(*args, **kwargs)
        except OSError as error:
            return "missing" if isinstance(error, FileNotFoundError) else f"unreadable: {type(error).__name__}"

    return call


@cached
@_or_why_not
def file_digest(file: Path) -> str:
    """SHA-256 of a file; of a video over 16 MiB, of its size, first, middle and last MiB; else why there is none."""
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= HASHED_WHOLE or file.suffix.lower() not in VIDEOS:
            return _sha256(stream, size)
        probes = hashlib.sha256(f"probed {size}".encode())
        for start in (0, (size - MIB) // 2, size - MIB):
            stream.seek(start)
            probes.update(stream.read(MIB))
        return probes.hexdigest()


def whole_file_digest(file: Path) -> str:
    """sha256 of every byte, hex: for what is small beside what depends on it, such as weights."""
    with open_regular(file) as stream:
        return _sha256(stream, os.fstat(stream.fileno()).st_size)


def _sha256(stream: io.BufferedReader, size: int) -> str:
    """Of all bytes, hex. `file_digest` makes a large buffer, which takes longer than a small file."""
    if size <= SMALL:
        return hashlib.sha256(stream.read()).hexdigest()
    return hashlib.file_digest(stream, "sha256").hexdigest()


@cached
@_or_why_not
def span_digest(file: Path, start: int, stop: int) -> str:
    """sha256 of the bytes [start, stop) of a file, fewer where it ends before; else why there is none."""
    total = hashlib.sha256()
    with open_regular(file) as stream:
        stream.seek(start)
        while start < stop and (read := stream.read(min(MIB, stop - start))):
            total.update(read)
            start += len(read)
    return total.hexdigest()


@_or_why_not
def folder_digest(folder: Path) -> str:
    """sha256 of the sorted names and sizes in a folder; else why there is none."""
    return _of_listing(_names_and_sizes(folder))


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, in any order. Raises OSError."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError as error:
        note_fault(error)
        raise


@cached
def _names_and_sizes(folder: Path) -> list[tuple[str, int]]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # faster than whole paths
    try:
        with os.scandir(descriptor) as entries:
            return sorted([(entry.name, _size(entry)) for entry in entries])
    finally:
        os.close(descriptor)


@_or_why_not
def contents_digest(folder: Path) -> str:
    """sha256 of the sorted names in a folder and every byte of its files, folders left out; else why there is none."""
    with os.scandir(folder) as entries:
        return _of_listing(sorted((entry.name, _content(entry)) for entry in entries))


def _of_listing(listing: object) -> str:
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


@_or_why_not
def _content(entry: os.DirEntry[str]) -> str:
    return whole_file_digest(Path(entry.path)) if entry.is_file() else "no file"  # opening a pipe would not return


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # also a link that leads nowhere
        return -1
