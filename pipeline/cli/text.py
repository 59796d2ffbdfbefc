"""What people read, whichever command says it: numbers with nouns, commands to copy, errors of the system in words."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

AGAIN: Final = "then run the same command again."
OTHER: Final = "Name another place."
SYSTEM_ERRORS: Final = {  # what is wrong with the place that it happened at, and what to do
    errno.ENOSPC: ("no space is left on its disk", f"Make room, {AGAIN}"),
    errno.EDQUOT: ("your share of its disk is used up", f"Make room, {AGAIN}"),
    errno.EIO: ("its disk failed", f"Look after the disk, {AGAIN}"),
    errno.EACCES: (
        "you may not read or write here",
        "Change its rights (ls -ld shows them), or name another place.",
    ),
    errno.EPERM: ("the system forbids this here", OTHER),
    errno.EROFS: ("its disk is read-only", OTHER),
    errno.EEXIST: ("this is a file, where a folder is needed", OTHER),
    errno.ENOTDIR: ("this is a file, where a folder is needed", OTHER),
    errno.EISDIR: ("this is a folder, where a file is needed", "Name a file."),
    errno.ENOENT: ("there is no such file or folder", "Check its name."),
    errno.EMFILE: ("too many files are open", "Allow more (ulimit -n 4096), or take fewer workers."),
}


def count(n: int, noun: str) -> str:
    """
    >>> count(1, "video"), count(12000, "row")
    ('1 video', '12,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def not_counted(videos: int) -> str:
    """What a sum of frames leaves open: nobody knows how many there are in a video that could not be read.

    >>> not_counted(2), not_counted(0)
    ('; those of 2 videos that could not be read are not counted', '')
    """
    return f"; those of {count(videos, 'video')} that could not be read are not counted" if videos else ""


def command(*words: str, module: str = "pipeline") -> str:
    """How a command of this installation is called from here: .venv/bin/python -m pipeline status"""
    return shlex.join([python(), "-m", module, *words])


def python() -> str:
    """This interpreter as the documentation calls it, where it has that name: .venv/bin/python"""
    running = Path(sys.executable)
    usual = running.with_name("python")
    return from_here(usual if usual.exists() and usual.samefile(running) else running)


def from_here(place: str | Path) -> str:
    """A path as seen from the working folder, where it lies below that."""
    path = Path(place)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def in_words(error: BaseException, places: Sequence[Path | str] = ()) -> str:
    """An error's own words, or for one of the system: where it happened, what is wrong there, what to do.

    `places` are the folders, files and URLs that the user named to be written. They stand for the temporary files below
    them, and for a file that the system does not name.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    what, do = SYSTEM_ERRORS.get(error.errno, (error.strerror or type(error).__name__, f"Mend it, {AGAIN}"))
    return f"{_place(error, places)}: {what}. {do}"


def _place(error: OSError, places: Sequence[Path | str]) -> str:
    """Where it happened, by a name that means something to the user."""
    if error.filename is None or isinstance(error.filename, int):  # a number: an open file
        return " or ".join(map(str, places)) or "the disk"
    here = [place for place in places if isinstance(place, Path)]  # a URL has no files
    place = _without_temporary(Path(os.fsdecode(error.filename)), here)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return str(next((folder for folder in (*reversed(place.parents), place) if folder.is_file()), place))
    if error.errno == errno.EACCES:  # of what is not there yet, its folder's rights count
        return str(next((here for here in (place, *place.parents) if os.path.lexists(here)), place))
    return str(place)


def _without_temporary(file: Path, places: Sequence[Path]) -> Path:
    """What a hidden file or folder, which is ours alone, is made for."""
    for place in places:
        if file.is_relative_to(place):
            parts = file.relative_to(place).parts
            hidden = next((i for i, part in enumerate(parts) if part.startswith(".")), len(parts))
            return place.joinpath(*parts[:hidden])
        if file == place.with_name(f".{place.name}.part"):
            return place
    return file
