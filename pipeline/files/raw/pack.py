"""Read keypoints of all clips of a folder from one ZIP file.  [raw] -> tracks -> features ->
windows

`detect` writes this file, called PACK here. A file in it has the path `detected.zip/<clip>.json`.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from pipeline.files.raw.opening import open_unbuffered

PACK: Final = "detected.zip"
LARGEST: Final = 1 << 30  # most bytes of a file in it
# the last bytes of a ZIP file: number of entries, bytes of the index, and where it starts
END_OF_ZIP: Final = struct.Struct("<10xH2L2x")
# before a file's content: lengths of name and extra field, which follow in this order
FILE_LENGTHS: Final = struct.Struct("<26x2H")
# an entry of the index: lengths of name, extra field and comment, which follow in this order
ENTRY_LENGTHS: Final = struct.Struct("<28x3H12x")


def read_packed(path: Path) -> bytes:
    """Read a file in a PACK. Raises OSError if it is missing or damaged."""
    packed = packed_entry(path)
    # ZipFile is not used, as it would read the whole index for each file.
    with _reading_pack(path.parent) as stream:
        stream.seek(packed.header_offset)
        lengths = FILE_LENGTHS.unpack(stream.read(FILE_LENGTHS.size))
        stream.seek(sum(lengths), os.SEEK_CUR)
        content = stream.read(min(packed.compress_size, LARGEST + 1))
        if packed.compress_type == ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, LARGEST)
        if len(content) != packed.file_size or zlib.crc32(content) != packed.CRC:
            raise BadZipFile(
                f"{path.name} is not what the index says, or has over {LARGEST:,} bytes"
            )
        return content


def is_packed(path: Path) -> bool:
    """Whether a PACK has this file; True if the PACK is damaged, which reading it will report."""
    try:
        return path.name in pack_index(path.parent)
    except OSError:
        return True


def packed_entry(path: Path) -> ZipInfo:
    """The index entry of a file in a PACK. Raises OSError if it is missing."""
    packed = pack_index(path.parent).get(path.name)
    if packed is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return packed


def packed_names(pack: Path) -> Iterable[str]:
    """Names of the files in a PACK, in a tenth of the time of `pack_index`. Raises OSError if the
    PACK is damaged, or, unlike `pack_index`, if it does not exist.
    """
    with _reading_pack(pack) as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - END_OF_ZIP.size, 0))
        n_entries, index_size, index_start = END_OF_ZIP.unpack(stream.read())
        stream.seek(index_start)
        index = stream.read(index_size)

        names = list[str]()
        offset = 0
        while index[offset : offset + 4] == b"PK\1\2":
            lengths = ENTRY_LENGTHS.unpack_from(index, offset)
            name_start = offset + ENTRY_LENGTHS.size
            name_length = lengths[0]
            name = index[name_start : name_start + name_length]
            names.append(name.decode(errors="replace"))
            offset = name_start + sum(lengths)
    if len(names) == n_entries and offset == index_size:
        return names
    return pack_index(pack)  # it has a comment, and so was written by another program


def pack_index(pack: Path) -> Mapping[str, ZipInfo]:
    """The index entries of the files in a PACK, by name; {} if the PACK does not exist. Raises
    OSError if it is damaged.
    """
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
    """Open a PACK. Within the block, errors of a damaged one become OSError with advice."""
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
