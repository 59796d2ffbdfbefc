"""Open untrusted files without waiting for them, and record temporary errors of reading them.
[raw] -> tracks -> features -> windows

A temporary error is one of the system, such as a disk that does not answer. It says nothing about
the file's content, so a video must not be rejected because of it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from pipeline.errors import within

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
    """Whether an error is a temporary one of the system, which says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _TEMPORARY


def note_fault(error: BaseException | None) -> None:
    """Inside `faults`, record an error if it is temporary, and its causes that are temporary."""
    noted = _FAULTS.get()
    while noted is not None and error is not None:
        if isinstance(error, OSError) and is_temporary(error):
            noted.append(error)
        error = error.__cause__


def faults() -> AbstractContextManager[list[OSError]]:
    """Within the block, collect the temporary errors of all raw files that are read, including
    errors that are handled.
    """
    return within(_FAULTS, [])


def open_unbuffered(path: Path) -> io.FileIO:
    """Open a file without a buffer, to read a few bytes here and there. Raises OSError as
    `files.open_regular` does.
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
