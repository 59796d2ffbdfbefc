"""Opening untrusted files without waiting for them, and the temporary errors met by reading them.
[raw] -> tracks -> features -> windows
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

# Temporary errors: permissions, a disk or mount that does not answer, exhausted resources.
_TEMPORARY: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENODEV,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
    }
)
_FAULTS: Final[ContextVar[list[OSError] | None]] = ContextVar("faults", default=None)


def is_temporary(error: BaseException) -> bool:
    """Whether an error is temporary, of the system, and says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _TEMPORARY


def note_fault(error: BaseException | None) -> None:
    """Inside `faults`, record a temporary error, also if it is the cause of this one."""
    noted = _FAULTS.get()
    while noted is not None and error is not None:
        if isinstance(error, OSError) and is_temporary(error):
            noted.append(error)
        error = error.__cause__


@contextmanager
def faults() -> Iterator[list[OSError]]:
    """Temporary errors of all raw files that are read within the block, also handled ones."""
    noted: list[OSError] = []
    token = _FAULTS.set(noted)
    try:
        yield noted
    finally:
        _FAULTS.reset(token)


def open_unbuffered(path: Path) -> io.FileIO:
    """`open_regular` without a buffer, for reading a few bytes here and there."""
    try:
        stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        note_fault(error)
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream
