"""What lies in a raw folder, by names alone.  [raw] -> tracks -> features -> windows

For `doctor`: folders are listed, each once; no file is opened, and none is looked at beyond its name but where a
pattern ends in a whole name. What cannot be listed is remembered, not raised.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

Unreadable = dict[str, str]  # folder or file -> why not

WILD: Final = re.compile(r"[*?\[]")
ARCHIVE: Final = re.compile(r"\.(zip|7z|rar|tgz|tbz2?|txz|tar(\.[a-z0-9]+)?)(\.\d{3})?$", re.IGNORECASE)
UNFINISHED: Final = re.compile(r"\.(part|crdownload|download|aria2|filepart)$", re.IGNORECASE)
MOST_FOLDERS: Final = 100  # looked into at one level, when something is searched where it does not belong


def find(raw: Path, pattern: str, unreadable: Unreadable) -> Iterator[str]:
    """Every path below `raw` that a glob without "**" matches, in no order. Hidden names match no wildcard.

    A pattern with a slash at its end matches folders alone.
    """
    return _find(str(raw), pattern.rstrip("/").split("/"), pattern.endswith("/"), unreadable)


def _find(folder: str, names: Sequence[str], only_folders: bool, unreadable: Unreadable) -> Iterator[str]:
    name, rest = names[0], names[1:]
    if not WILD.search(name):
        path = os.path.join(folder, name)  # noqa: PTH118 - a quarter of a million of these
        if rest:
            yield from _find(path, rest, only_folders, unreadable)
        elif _is_there(path, only_folders, unreadable):
            yield path
        return
    fits = re.compile(fnmatch.translate(name)).match
    for entry in listed(folder, unreadable):
        if not fits(entry.name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        if rest:
            if is_folder(entry):
                yield from _find(entry.path, rest, only_folders, unreadable)
        elif not only_folders or is_folder(entry):
            yield entry.path


def listed(folder: str | Path, unreadable: Unreadable) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, in no order; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable[str(folder)] = error.strerror or type(error).__name__


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Also when it is a link to one. A link that cannot be followed is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_there(path: str, only_folders: bool, unreadable: Unreadable) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - as above; tells a missing right from a missing file
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        unreadable[path] = error.strerror or type(error).__name__
        return False
    return not only_folders or os.path.isdir(path)  # noqa: PTH112 - as above


def any_fits(folder: Path, patterns: Iterable[str]) -> bool:
    """Does one of the patterns match anything below `folder`?"""
    return any(next(find(folder, pattern, {}), None) is not None for pattern in patterns)


def names_in(folder: Path) -> set[str]:
    """Names of all that lies in a folder but hidden things; none where it cannot be listed."""
    return {entry.name for entry in listed(folder, {}) if not entry.name.startswith(".")}


def is_empty(folder: Path) -> bool:
    """Is there nothing in the folder? No for what cannot be listed."""
    unreadable: Unreadable = {}
    return not any(True for _ in listed(folder, unreadable)) and not unreadable


def folders_in(folder: Path) -> list[Path]:
    """The first folders in a folder, by name."""
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


def same_but_for_spelling(folder: Path, name: str) -> str | None:
    """What lies in `folder` under nearly this name: other capitals, or other signs between the words."""
    wanted = letters(name)
    found = sorted(e.name for e in listed(folder, {}) if e.name != name and letters(e.name) == wanted)
    return found[0] if found else None


def letters(name: str) -> str:
    """A name without capitals and signs.

    >>> letters("Penn_Action"), letters("3DPW")
    ('pennaction', '3dpw')
    """
    return "".join(char for char in name.lower() if char.isalnum())


def misspelt(raw: Path, pattern: str) -> tuple[Path, str] | None:
    """(what is there, the name it should have) where a pattern fails only for a name's spelling."""
    folder = raw
    for name in pattern.rstrip("/").split("/"):
        if WILD.search(name):
            return None
        if not os.path.lexists(folder / name):
            found = same_but_for_spelling(folder, name)
            return None if found is None else (folder / found, name)
        folder /= name
    return None


def packed(raw: Path, pattern: re.Pattern[str] = ARCHIVE) -> list[Path]:
    """Archives (or unfinished downloads) in a folder and in the folders in it, by name."""
    found = [Path(e.path) for folder in (raw, *folders_in(raw)) for e in listed(folder, {}) if pattern.search(e.name)]
    return sorted(file for file in found if os.path.isfile(file))  # noqa: PTH113 - Path's own may raise


def empty_folder(raw: Path, pattern: str) -> Path | None:
    """The folder in which a pattern should match and which holds nothing at all, if that is why it does not."""
    folder = raw
    for name in pattern.split("/"):
        if WILD.search(name) or not os.path.isdir(folder / name):  # noqa: PTH112 - as above
            break
        folder /= name
    return folder if os.path.isdir(folder) and is_empty(folder) else None  # noqa: PTH112 - as above
