"""Untrusted files: safe opening, digests, and names in a folder.  [raw] -> tracks -> features ->
windows

The digest of a video, its reader and the digest of its pixels need the same files. Inside
`caching`, functions marked with `cached` read them once, so all three see the same state.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import hashlib
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, ParamSpec, TypeVar
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Unreadable = dict[str, str]  # folder or file that cannot be listed -> why not

MIB: Final = 1 << 20
SMALL: Final = 1 << 16  # bytes
# larger videos are sampled: hashing Kinetics would take as long as decoding it
HASHED_WHOLE: Final = 16 * MIB
VIDEOS: Final = (  # in any capitals
    ".mp4",
    ".mov",
    ".mkv",
    ".avi",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".3gp",
    ".ts",
    ".mts",
    ".m2ts",
)

WILD: Final = re.compile(r"[*?\[]")
# keypoints of the clips of one folder; `detected.zip/<clip>.json` is a path here
PACK: Final = "detected.zip"
LARGEST: Final = 1 << 30  # bytes of a file in it
# number of entries, bytes of the index, and where it starts
END_OF_ZIP: Final = struct.Struct("<10xH2L2x")
# of name, extra field and comment, which follow in this order
ENTRY_LENGTHS: Final = struct.Struct("<28x3H12x")
# listed at one level, when something is searched where it does not belong
MOST_FOLDERS: Final = 100

# Files that systems leave in folders, which no reader reads: .DS_Store, ._000001.jpg, .nfs0000, ...
_LITTER: Final = re.compile(r"\.|(thumbs\.db|desktop\.ini|@eadir)$", re.IGNORECASE)

# Temporary errors: permissions, a disk or mount that does not answer, exhausted resources.
_PASSING: Final = frozenset(
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
_CACHE: Final[ContextVar[dict[Any, Any] | None]] = ContextVar("cache", default=None)


@contextmanager
def caching() -> Iterator[None]:
    """Cache results of functions marked with `cached` until the end of the block."""
    token = _CACHE.set({})
    try:
        yield
    finally:
        _CACHE.reset(token)


def cached(function: Callable[P, R]) -> Callable[P, R]:
    """Inside `caching`, call a function once per (hashable) arguments. Do not change its
    results.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        cache = _CACHE.get()
        if cache is None or kwargs:
            return function(*args, **kwargs)
        if (function, args) not in cache:
            cache[function, args] = function(*args)  # type: ignore[call-arg]  # kwargs are empty
        result: R = cache[function, args]
        return result

    return call


def remember(kind: type[T], key: str, value: T) -> None:
    """Inside `caching`, keep a value for `recall`; else do nothing."""
    cache = _CACHE.get()
    if cache is not None:
        cache[kind, (key,)] = value


def recall(kind: type[T], key: str) -> T | None:
    """The remembered value, or None."""
    return (_CACHE.get() or {}).get((kind, (key,)))


def passes(error: BaseException) -> bool:
    """Whether an error is temporary, of the system, and says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _PASSING


def note_fault(error: BaseException | None) -> None:
    """Inside `faults`, record a temporary error, also if it is the cause of this one."""
    noted = _FAULTS.get()
    while noted is not None and error is not None:
        if isinstance(error, OSError) and passes(error):
            noted.append(error)
        error = error.__cause__


@contextmanager
def faults() -> Iterator[list[OSError]]:
    """Temporary errors of all raw files that are read within the block, also handled ones."""
    noted: list[OSError] = []
    token = _FAULTS.set(noted)
    try:
        yield noted
    finally:
        _FAULTS.reset(token)


def open_regular(path: Path) -> BinaryIO:
    """Open a file, also one in a PACK, to read its bytes; follows links.

    Raises OSError as `open` does, and for a pipe, socket or device: reading those may never end.
    """
    if path.parent.name == PACK:
        return io.BytesIO(read_regular(path))
    return io.BufferedReader(open_unbuffered(path))


def open_unbuffered(path: Path) -> io.FileIO:
    """`open_regular` without a buffer, for reading a few bytes here and there."""
    try:
        stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        note_fault(error)
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream


def read_regular(path: Path) -> bytes:
    """The whole content. Raises OSError as `open_regular` does."""
    if path.parent.name != PACK:
        with open_unbuffered(path) as stream:
            return stream.readall()
    packed = packed_entry(path)
    # not by ZipFile, which reads the whole index for each file
    with _reading_pack(path.parent) as stream:
        # lengths of its name and of its extra field, which follow
        stream.seek(packed.header_offset + 26)
        stream.seek(sum(struct.unpack("<2H", stream.read(4))), os.SEEK_CUR)
        content = stream.read(packed.compress_size)
        if packed.compress_type == ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, LARGEST)
        if len(content) != packed.file_size or zlib.crc32(content) != packed.CRC:
            raise BadZipFile(
                f"{path.name} is not what the index says, or has over {LARGEST:,} bytes"
            )
        return content


def is_packed(path: Path) -> bool:
    """Whether a PACK has this file; True if the PACK is damaged, which reading tells."""
    try:
        return path.name in pack_index(path.parent)
    except OSError:
        return True


def packed_entry(path: Path) -> ZipInfo:
    """The record of a file in a PACK. Raises OSError."""
    packed = pack_index(path.parent).get(path.name)
    if packed is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return packed


def packed_names(pack: Path) -> Iterable[str]:
    """Names of the files in a PACK, in a tenth of the time of `pack_index`; raises OSError as it
    does.
    """
    with _reading_pack(pack) as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - END_OF_ZIP.size, 0))
        n, size, start = END_OF_ZIP.unpack(stream.read())
        stream.seek(start)
        index = stream.read(size)
        names = list[str]()
        offset = 0
        while index[offset : offset + 4] == b"PK\1\2":
            name, extra, comment = ENTRY_LENGTHS.unpack_from(index, offset)
            start = offset + ENTRY_LENGTHS.size
            names.append(index[start : start + name].decode(errors="replace"))
            offset = start + name + extra + comment
    if len(names) == n and offset == size:
        return names
    return pack_index(pack)  # of another program's, with a comment


def pack_index(pack: Path) -> Mapping[str, ZipInfo]:
    """The files in a PACK, by name; empty without one. Raises OSError for a damaged one."""
    try:
        status = os.stat(pack)  # noqa: PTH116 - once for each clip
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return _pack_index(pack, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _pack_index(pack: Path, _size: int, _time: int) -> Mapping[str, ZipInfo]:
    with _reading_pack(pack) as stream, ZipFile(stream) as opened:
        return {packed.filename: packed for packed in opened.infolist()}


@contextmanager
def _reading_pack(pack: Path) -> Iterator[io.FileIO]:
    try:
        with open_unbuffered(pack) as stream:
            yield stream
    except (
        BadZipFile,
        NotImplementedError,
        struct.error,
        zlib.error,
        EOFError,
        ValueError,
    ) as error:
        do = "Restore it, or delete it and run `python -m pipeline detect` again."
        raise OSError(f"{pack}: a damaged file of keypoints ({error}). {do}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; False for circular links, where `DirEntry.is_dir`
    raises.
    """
    try:
        return entry.is_dir()
    except OSError:
        return False


def _or_why_not(digest: Callable[P, str]) -> Callable[P, str]:
    """The digest, or why there is none; the reader reports the error."""

    @functools.wraps(digest)
    def call(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return digest(*args, **kwargs)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"unreadable: {type(error).__name__}"

    return call


@cached
@_or_why_not
def file_digest(file: Path) -> str:
    """SHA-256 of the file; for videos over 16 MiB, of the size and the first, middle and last MiB;
    else the problem.
    """
    if file.parent.name == PACK:
        return hashlib.sha256(read_regular(file)).hexdigest()
    with io.BufferedReader(open_unbuffered(file)) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= HASHED_WHOLE or file.suffix.lower() not in VIDEOS:
            return _sha256(stream, size)
        probes = hashlib.sha256(f"probed {size}".encode())
        for start in (0, (size - MIB) // 2, size - MIB):
            stream.seek(start)
            probes.update(stream.read(MIB))
        return probes.hexdigest()


def whole_file_digest(file: Path) -> str:
    """SHA-256 of all bytes, hex, for small files such as weights."""
    with io.BufferedReader(open_unbuffered(file)) as stream:
        return _sha256(stream, os.fstat(stream.fileno()).st_size)


def _sha256(stream: io.BufferedReader[io.FileIO], size: int) -> str:
    """SHA-256 of all bytes, hex. `file_digest` makes a large buffer, which is slow for small
    files.
    """
    if size <= SMALL:
        return hashlib.sha256(stream.read()).hexdigest()
    return hashlib.file_digest(stream, "sha256").hexdigest()


@cached
@_or_why_not
def span_digest(file: Path, start: int, stop: int) -> str:
    """SHA-256 of the bytes [start, stop) of a file, fewer at its end; else the problem."""
    total = hashlib.sha256()
    with open_regular(file) as stream:
        stream.seek(start)
        while content := stream.read(max(0, min(MIB, stop - start))):
            total.update(content)
            start += len(content)
    return total.hexdigest()


@_or_why_not
def folder_digest(folder: Path) -> str:
    """SHA-256 of the sorted names and sizes in a folder; else the problem."""
    return _listing_digest(_names_and_sizes(folder))


def list_names(folder: Path) -> list[str]:
    """Names in a folder, unsorted. Raises OSError."""
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
            files = [entry for entry in entries if not _LITTER.match(entry.name)]
            return sorted((entry.name, _size(entry)) for entry in files)
    finally:
        os.close(descriptor)


@_or_why_not
def contents_digest(folder: Path) -> str:
    """SHA-256 of the sorted file names in a folder and their content, without subfolders; else the
    problem.
    """
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if not _LITTER.match(entry.name)]
        return _listing_digest(sorted((entry.name, _content(entry)) for entry in files))


def _listing_digest(listing: object) -> str:
    return hashlib.sha256(repr(listing).encode(errors="surrogateescape")).hexdigest()


@_or_why_not
def _content(entry: os.DirEntry[str]) -> str:
    if not entry.is_file():  # opening a pipe would not return
        return "no file"
    return whole_file_digest(Path(entry.path))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # also a link that leads nowhere
        return -1


def find(
    raw: Path, pattern: str, unreadable: Unreadable, *, any_case: bool = False
) -> Iterator[str]:
    """Paths below `raw` that match a glob without "**", unsorted. Wildcards do not match hidden
    names.

    A slash at the end matches folders only. any_case: in any capitals.
    """
    return _find(
        str(raw), pattern.rstrip("/").split("/"), pattern.endswith("/"), unreadable, any_case
    )


def _find(
    folder: str, names: Sequence[str], only_folders: bool, unreadable: Unreadable, any_case: bool
) -> Iterator[str]:
    name = names[0]
    deeper_names = names[1:]
    if not (any_case or WILD.search(name)):
        path = os.path.join(folder, name)  # noqa: PTH118 - a quarter of a million of these
        if deeper_names:
            yield from _find(path, deeper_names, only_folders, unreadable, any_case)
        elif _is_there(path, only_folders, unreadable):
            yield path
        return
    flags = re.IGNORECASE if any_case else 0
    fits = re.compile(fnmatch.translate(name), flags).match
    for entry in scan_folder(folder, unreadable):
        is_hidden = entry.name.startswith(".") and not name.startswith(".")
        if is_hidden or not fits(entry.name):
            continue
        if deeper_names:
            if is_folder(entry):
                yield from _find(entry.path, deeper_names, only_folders, unreadable, any_case)
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
    names = []
    for entry in scan_folder(folder, {}):
        if not entry.name.startswith(".") and is_folder(entry):
            names.append(entry.name)
    return [folder / name for name in sorted(names)[:MOST_FOLDERS]]


def deeper(raw: Path, patterns: Sequence[str]) -> Path | None:
    """The first folder, one or two levels below `raw`, with a match: unpacked too deep."""
    level = [raw]
    for _ in range(2):
        level = [*chain.from_iterable(map(list_folders, level))][:MOST_FOLDERS]
        for folder in level:
            if any_fits(folder, patterns):
                return folder
    return None
