"""Names for content: what a file or a folder of pictures holds, as a sha256.  [raw, pixels, weights] -> fingerprints"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec

from pipeline.files.raw.files import cached, note_fault, open_regular

P = ParamSpec("P")

MIB: Final = 1 << 20
SMALL: Final = 1 << 16  # bytes
HASHED_WHOLE: Final = 16 * MIB  # larger files (videos) are known by size and three probes of a MiB: reading all of
# Kinetics only to name it would take as long as decoding it


def _or_why_not(digest: Callable[P, str]) -> Callable[P, str]:
    """The digest, or why there is none. The reader reports what is wrong with the file."""

    @functools.wraps(digest)
    def call(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return digest(*args, **kwargs)
        except OSError as error:
            return "missing" if isinstance(error, FileNotFoundError) else f"unreadable: {type(error).__name__}"

    return call


@cached
@_or_why_not
def file_digest(file: Path) -> str:
    """sha256 of a file up to 16 MiB; of size, first, middle and last MiB of a larger one; else why there is none."""
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= HASHED_WHOLE:
            return _sha256(stream, size)
        probes = hashlib.sha256(f"probed {size}".encode())
        for start in (0, (size - MIB) // 2, size - MIB):
            stream.seek(start)
            probes.update(stream.read(MIB))
        return probes.hexdigest()


def whole_file_digest(file: Path) -> str:
    """sha256 of every byte, hex: for what is small beside what depends on it, such as weights."""
    with open_regular(file) as stream:
        return _sha256(stream, os.fstat(stream.fileno()).st_size)


def _sha256(stream: io.BufferedReader, size: int) -> str:
    """Of all bytes, hex. `file_digest` makes a large buffer, which takes longer than a small file."""
    if size <= SMALL:
        return hashlib.sha256(stream.read()).hexdigest()
    return hashlib.file_digest(stream, "sha256").hexdigest()


@cached
@_or_why_not
def span_digest(file: Path, start: int, stop: int) -> str:
    """sha256 of the bytes [start, stop) of a file, fewer where it ends before; else why there is none."""
    total = hashlib.sha256()
    with open_regular(file) as stream:
        stream.seek(start)
        while start < stop and (read := stream.read(min(MIB, stop - start))):
            total.update(read)
            start += len(read)
    return total.hexdigest()


@_or_why_not
def folder_digest(folder: Path) -> str:
    """sha256 of the sorted names and sizes in a folder; else why there is none."""
    return _of_listing(_names_and_sizes(folder))


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, in any order. Raises OSError."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError as error:
        note_fault(error)
        raise


@cached
def _names_and_sizes(folder: Path) -> list[tuple[str, int]]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # faster than whole paths
    try:
        with os.scandir(descriptor) as entries:
            return sorted([(entry.name, _size(entry)) for entry in entries])
    finally:
        os.close(descriptor)


@_or_why_not
def contents_digest(folder: Path) -> str:
    """sha256 of the sorted names in a folder and every byte of its files, folders left out; else why there is none."""
    with os.scandir(folder) as entries:
        return _of_listing(sorted((entry.name, _content(entry)) for entry in entries))


def _of_listing(listing: object) -> str:
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


@_or_why_not
def _content(entry: os.DirEntry[str]) -> str:
    return whole_file_digest(Path(entry.path)) if entry.is_file() else "no file"  # opening a pipe would not return


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # also a link that leads nowhere
        return -1
