"""Untrusted files: what is no regular file is refused, not waited for.  [raw] -> tracks -> features -> windows

The digest of a video, its reader and the digest of its pixels need the same listings and contents. Inside `caching`,
functions marked with `cached` read them once, so all three see the same state.
"""

from __future__ import annotations

import errno
import functools
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
        found: R = cache[function, args]
        return found

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
