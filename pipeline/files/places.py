"""Require folders to write to, make file names for tracks, and replace files.  [raw]"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from cache.storage.durable import publish, sync_file
from pipeline.errors import PipelineError

_END_OF_PAGE: Final = 100  # bytes


def require_writable(folder: Path, do: str) -> None:
    """Raise PipelineError, with `do`, if no file can be made in a folder, or in the folder above
    in which it would be made.

    A file without a name is made: permissions do not tell of read-only disks, or of those that
    the administrator meets.
    """
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise PipelineError(f"{folder}: {above} is a file, where a folder is needed. {do}")
    try:
        with tempfile.TemporaryFile(dir=above):
            return
    except OSError as error:
        raise PipelineError(
            f"{folder}: nothing can be written in {above} ({error.strerror}). {do}"
        ) from error


def require_parent(out: Path) -> None:
    """Raise PipelineError if the folder of the file or folder that `--out` names is missing."""
    if not out.parent.is_dir():
        raise PipelineError(
            f"--out {out}: the folder {out.parent} does not exist. Create it, or choose another."
        )


@contextmanager
def write_aside(file: Path) -> Iterator[Path]:
    """Yield a path beside `file` to write to. What is there at the end becomes `file`, durably; an
    error leaves `file` as it was.
    """
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)  # left by a killed run
    try:
        yield part
        sync_file(part)
        publish(part, file)
    finally:
        part.unlink(missing_ok=True)


def is_whole_page(page: BinaryIO) -> bool:
    """Whether an open HTML page ends as pages do, so that no end of it was lost."""
    size = page.seek(0, os.SEEK_END)
    page.seek(max(size - _END_OF_PAGE, 0))
    return page.read().rstrip().endswith(b"</html>")


def file_name(track: str, ending: str) -> str:
    """A unique file name for a track, which any file system allows.

    >>> file_name("train/abseiling/x y/0", ".npz")
    'train_abseiling_x_y_0-2906784860330344.npz'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", track).strip("._-")[:80] or "track"
    return f"{readable}-{hashlib.sha256(track.encode()).hexdigest()[:16]}{ending}"
