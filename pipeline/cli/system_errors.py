"""Messages of system errors: the path, what is wrong there, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_AGAIN: Final = "then run the same command again."
_OTHER: Final = "Name another path."
_FREED: Final = 100  # inodes that a command may have freed again before its error is printed
_ROOM: Final = 1 << 20  # bytes that are free on a disk that is not full
_PROBLEMS: Final = {  # errno -> (what is wrong, what to do)
    errno.ENOSPC: ("no space left on its disk", f"Make room, {_AGAIN}"),
    errno.EDQUOT: ("disk quota exceeded", f"Make room, {_AGAIN}"),
    errno.EFBIG: ("file larger than allowed", f"Allow larger files (ulimit -f), {_AGAIN}"),
    errno.EIO: ("input/output error of its disk", f"Check the disk, {_AGAIN}"),
    errno.EACCES: (
        "permission denied",
        "Change its permissions (ls -ld shows them), or name another path.",
    ),
    errno.EPERM: ("operation not permitted", _OTHER),
    errno.EROFS: ("its disk is read-only", _OTHER),
    errno.EEXIST: ("this is a file, where a folder is needed", _OTHER),
    errno.ENOTDIR: ("this is a file, where a folder is needed", _OTHER),
    errno.EISDIR: ("this is a folder, where a file is needed", "Name a file."),
    errno.ENOENT: ("no such file or folder", "Check its name."),
    errno.EMFILE: ("too many open files", "Allow more (ulimit -n 4096), or set fewer workers."),
}


def error_text(error: BaseException, places: Sequence[Path | str] = ()) -> str:
    """An error's message. For a system error: the path, what is wrong there, and what to do.

    places: Folders, files and URLs that the user named for output. The message names them if the
        system does not name a file.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    default = (error.strerror or type(error).__name__, f"Correct this, {_AGAIN}")
    problem, do = _PROBLEMS.get(error.errno, default)
    if error.errno == errno.ENOSPC and not _has_inodes(error, places):
        problem = "no inodes left on its disk (df -i), which has room, but for no further file"
        do = f"Delete files that nobody needs, {_AGAIN}"
    return f"{_place(error, places)}: {problem}. {do}"


def _has_inodes(error: OSError, places: Sequence[Path | str]) -> bool:
    """Whether the disk of the error can have further files; True if it does not say."""
    with contextlib.suppress(OSError):
        state = os.statvfs(_existing(Path(_place(error, places))))
        has_room = state.f_bavail * state.f_frsize > _ROOM
        return state.f_files == 0 or state.f_favail > _FREED or not has_room
    return True


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path())


def _place(error: OSError, places: Sequence[Path | str]) -> str:
    """The path to name for a system error."""
    if error.filename is None or isinstance(error.filename, int):  # a number: an open file
        return " or ".join(map(str, places)) or "the disk"
    return str(_find_blamed(Path(os.fsdecode(error.filename)), error.errno))


def _find_blamed(file: Path, number: int | None) -> Path:
    """The file or folder on the way to `file` that caused a system error."""
    above = [file, *file.parents]
    if not file.is_absolute():
        above[-1] = Path.cwd()  # says more than "."
    if number in (errno.EEXIST, errno.ENOTDIR):
        for folder in reversed(above):
            if folder.is_file():
                return folder
    elif number == errno.EACCES:  # a missing file needs the permissions of its folder
        for folder in above:
            if os.path.lexists(folder):
                return folder
    return file
