"""What is in a raw folder, by names alone.  [raw] -> tracks -> features -> windows

For `doctor`: folders are listed, no file is opened. What cannot be listed is returned, not raised.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.files.raw.files import is_folder

Unreadable = dict[str, str]  # folder or file -> why not

WILD: Final = re.compile(r"[*?\[]")
ARCHIVE: Final = re.compile(r"\.(zip|7z|rar|tgz|tbz2?|txz|tar(\.[a-z0-9]+)?)(\.\d{3})?$", re.IGNORECASE)
MOST_FOLDERS: Final = 100  # listed at one level, when something is searched where it does not belong


def find(raw: Path, pattern: str, unreadable: Unreadable) -> Iterator[str]:
    """Every path below `raw` that a glob without "**" matches, in no order. Hidden names match no wildcard.

    A pattern with a slash at its end matches folders alone.
    """
    return _find(str(raw), pattern.rstrip("/").split("/"), pattern.endswith("/"), unreadable)


def _find(folder: str, names: Sequence[str], only_folders: bool, unreadable: Unreadable) -> Iterator[str]:
    name, deeper_names = names[0], names[1:]
    if not WILD.search(name):
        path = os.path.join(folder, name)  # noqa: PTH118 - a quarter of a million of these
        if deeper_names:
            yield from _find(path, deeper_names, only_folders, unreadable)
        elif _is_there(path, only_folders, unreadable):
            yield path
        return
    fits = re.compile(fnmatch.translate(name)).match
    for entry in listed(folder, unreadable):
        if not fits(entry.name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        if deeper_names:
            if is_folder(entry):
                yield from _find(entry.path, deeper_names, only_folders, unreadable)
        elif not only_folders or is_folder(entry):
            yield entry.path


def listed(folder: str | Path, unreadable: Unreadable) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, in no order; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable[str(folder)] = error.strerror or type(error).__name__


def _is_there(path: str, only_folders: bool, unreadable: Unreadable) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - as above; tells a missing right from a missing file
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        unreadable[path] = error.strerror or type(error).__name__
        return False
    return not only_folders or os.path.isdir(path)  # noqa: PTH112 - as above


def is_there(path: Path) -> bool:
    """False for a link that leads nowhere and for what may not be read."""
    return os.path.exists(path)  # noqa: PTH110 - Path's own may raise


def is_folder_there(path: Path) -> bool:
    """Also where it is a link to one."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def any_fits(folder: Path, patterns: Iterable[str]) -> bool:
    """Does one of the patterns match anything below `folder`?"""
    return any(next(find(folder, pattern, {}), None) is not None for pattern in patterns)


def folders_in(folder: Path) -> list[Path]:
    """The first folders in a folder by name, without hidden ones."""
    names = sorted(e.name for e in listed(folder, {}) if is_folder(e) and not e.name.startswith("."))
    return [folder / name for name in names[:MOST_FOLDERS]]


def deeper(raw: Path, patterns: Sequence[str], levels: int = 2) -> Path | None:
    """The first folder, one or two levels below `raw`, from which a pattern matches: unpacked too deep."""
    level = [raw]
    for _ in range(levels):
        level = [child for folder in level for child in folders_in(folder)][:MOST_FOLDERS]
        for folder in level:
            if any_fits(folder, patterns):
                return folder
    return None


def packed(raw: Path) -> list[Path]:
    """Archives in a folder and in the folders in it, by name."""
    archives = [
        Path(e.path) for folder in (raw, *folders_in(raw)) for e in listed(folder, {}) if ARCHIVE.search(e.name)
    ]
    return sorted(file for file in archives if os.path.isfile(file))  # noqa: PTH113 - Path's own may raise
