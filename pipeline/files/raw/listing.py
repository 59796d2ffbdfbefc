"""Content of a raw folder, by names only.  [raw] -> tracks -> features -> windows

For `doctor`: opens no file; collects what cannot be listed.
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
    """Paths below `raw` that match a glob without "**", unsorted. Wildcards do not match hidden names.

    A slash at the end matches folders only.
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
    for entry in scan_folder(folder, unreadable):
        if not fits(entry.name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        if deeper_names:
            if is_folder(entry):
                yield from _find(entry.path, deeper_names, only_folders, unreadable)
        elif not only_folders or is_folder(entry):
            yield entry.path


def scan_folder(folder: str | Path, unreadable: Unreadable) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder, unsorted; none if it does not exist."""
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
    """Whether it exists; False for broken links and without permission."""
    return os.path.exists(path)  # noqa: PTH110 - Path's own may raise


def is_folder_there(path: Path) -> bool:
    """Whether it is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def any_fits(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches anything below `folder`."""
    return any(next(find(folder, pattern, {}), None) is not None for pattern in patterns)


def list_folders(folder: Path) -> list[Path]:
    """The first folders in a folder by name, without hidden ones."""
    names = sorted(e.name for e in scan_folder(folder, {}) if is_folder(e) and not e.name.startswith("."))
    return [folder / name for name in names[:MOST_FOLDERS]]


def deeper(raw: Path, patterns: Sequence[str]) -> Path | None:
    """The first folder, one or two levels below `raw`, with a match: unpacked too deep."""
    level = [raw]
    for _ in range(2):
        level = [child for folder in level for child in list_folders(folder)][:MOST_FOLDERS]
        for folder in level:
            if any_fits(folder, patterns):
                return folder
    return None


def find_archives(raw: Path) -> list[Path]:
    """Archives in a folder and its subfolders, by name."""
    archives = [
        Path(e.path) for folder in (raw, *list_folders(raw)) for e in scan_folder(folder, {}) if ARCHIVE.search(e.name)
    ]
    return sorted(file for file in archives if os.path.isfile(file))  # noqa: PTH113 - Path's own may raise
