"""Names for content: what a file or a folder of pictures holds, as a sha256.  [raw, pixels, weights] -> fingerprints"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
HASHED_WHOLE: Final = 16 * MIB  # larger files (videos) are known by size and three probes of a MiB: reading all of
# Kinetics only to name it would take as long as decoding it


def file_digest(file: Path) -> str:
    """sha256 of a file up to 16 MiB; of size, first, middle and last MiB of a larger one; else why there is none."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            if size <= HASHED_WHOLE:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            probes = hashlib.sha256(f"probed {size}".encode())
            for start in (0, (size - MIB) // 2, size - MIB):
                stream.seek(start)
                probes.update(stream.read(MIB))
            return probes.hexdigest()
    except OSError as error:
        return _absent(error)


def whole_file_digest(file: Path) -> str:
    """sha256 of every byte, hex: for what is small beside what depends on it, such as weights."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def span_digest(file: Path, start: int, stop: int) -> str:
    """sha256 of the bytes [start, stop) of a file, fewer where it ends before; else why there is none."""
    total = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            while start < stop and (read := stream.read(min(MIB, stop - start))):
                total.update(read)
                start += len(read)
    except OSError as error:
        return _absent(error)
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """sha256 of the sorted names and sizes in a folder; else why there is none."""
    try:
        with os.scandir(folder) as entries:
            listing = sorted((entry.name, _size(entry)) for entry in entries)
    except OSError as error:
        return _absent(error)
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


def contents_digest(folder: Path) -> str:
    """sha256 of the sorted names in a folder and every byte of its files; else why there is none. Looks no deeper."""
    try:
        with os.scandir(folder) as entries:
            listing = sorted((entry.name, _content(entry)) for entry in entries)
    except OSError as error:
        return _absent(error)
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


def _content(entry: os.DirEntry[str]) -> str:
    try:
        return whole_file_digest(Path(entry.path)) if entry.is_file() else "no file"  # opening a pipe would not return
    except OSError as error:
        return _absent(error)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # also a link that leads nowhere
        return -1


def _absent(error: OSError) -> str:
    """Stands for a digest. What is wrong with the input is told by the one who needs to read it."""
    return "missing" if isinstance(error, FileNotFoundError) else f"unreadable: {type(error).__name__}"
