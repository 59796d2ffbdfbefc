"""Opening files of strangers: what is no regular file is refused, not waited for.  [raw] -> tracks -> features"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes; links are followed.

    Raises OSError as `open` does, and for a pipe, a socket or a device too: reading those may never end, and even
    opening a pipe waits for somebody to write.
    """
    return io.BufferedReader(open_unbuffered(path))


def open_unbuffered(path: Path) -> io.FileIO:
    """The same without a buffer, for who reads a few bytes here and there."""
    stream = io.FileIO(path, opener=_without_waiting)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream


def read_regular(path: Path, at_most: int | None = None) -> bytes:
    """The whole content; of more than `at_most` bytes so many and one more. Raises OSError as `open_regular` does."""
    with open_unbuffered(path) as stream:
        if at_most is None or os.fstat(stream.fileno()).st_size <= at_most:
            return stream.readall()
        return stream.read(at_most + 1)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Is it a folder, or a link to one? A link that leads in a circle is none; `DirEntry.is_dir` raises there."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
