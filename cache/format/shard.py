"""One shard: encode, decode, check.  [cache]

A shard is one file of Zarr's `sharding_indexed` codec: chunks of rows, each followed by its crc32c, then an index of
(offset, size) pairs for all chunks and the index's own crc32c. Chunks of padding rows are absent from the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import ColumnSpec, Geometry
from cache.storage.base import Store

ABSENT: Final = 2**64 - 1  # offset and size of a chunk that the shard does not hold
REPAIR: Final = "Drop damaged shards and fill their rows again: python -m pipeline verify --repair --cache DIR"


def crc32c(data: bytes) -> bytes:
    """The checksum as Zarr stores it: CRC-32C, little endian. `data` is bytes or a read-only view of bytes."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def encode(rows: NDArray[Any], spec: ColumnSpec, geometry: Geometry) -> bytes:
    """`rows` (n, *trailing), n up to a shard's rows -> the bytes of the shard file.

    The last chunk is filled up with the fill value; chunks that hold only padding are absent.
    """
    if rows.dtype != spec.dtype or rows.shape[1:] != spec.trailing or not 0 < len(rows) <= geometry.rows_per_shard:
        raise ValueError(f"{rows.dtype}{rows.shape} is no shard of {spec}")
    index = np.full((geometry.chunks, 2), ABSENT, "<u8")
    parts: list[bytes] = []
    offset = 0
    for chunk, start in enumerate(range(0, len(rows), geometry.rows_per_chunk)):
        part = rows[start : start + geometry.rows_per_chunk]
        if len(part) < geometry.rows_per_chunk:
            padding = np.full((geometry.rows_per_chunk - len(part), *spec.trailing), spec.fill, spec.dtype)
            part = np.concatenate([part, padding])
        data = part.tobytes()
        parts += data, crc32c(data)
        index[chunk] = offset, len(data) + 4
        offset += len(data) + 4
    packed = index.tobytes()
    return b"".join([*parts, packed, crc32c(packed)])


class RaggedShard:
    """The file of a shard of bytes, in parts: a chunk is made when it is asked for, so the bytes are not held twice.

    Args:
        rows: the bytes of its rows, in order. Together, they fit.
        geometry: of the column, in bytes.
    """

    def __init__(self, rows: Sequence[bytes], geometry: Geometry) -> None:
        self._rows, self._geometry = rows, geometry
        self._checksums: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        """Every chunk with its checksum, then the index with its own. The last chunk is filled up with zeros."""
        self._checksums = []
        size, pending = self._geometry.rows_per_chunk, bytearray()
        for row in self._rows:
            pending += row
            while len(pending) >= size:
                yield self._closed(bytes(pending[:size]))
                del pending[:size]
        if pending:
            yield self._closed(bytes(pending.ljust(size, b"\0")))
        held = len(self._checksums)
        index = np.full((self._geometry.chunks, 2), ABSENT, "<u8")
        index[:held] = np.stack([np.arange(held) * (size + 4), np.full(held, size + 4)], axis=1)
        packed = index.tobytes()
        yield packed + crc32c(packed)

    def _closed(self, chunk: bytes) -> bytes:
        self._checksums.append(crc32c(chunk))
        return chunk + self._checksums[-1]

    @property
    def record(self) -> str:
        """As the function `record` would give it, once all parts have been taken."""
        size = len(self._checksums) * (self._geometry.rows_per_chunk + 4) + index_bytes(self._geometry.chunks)
        return record_text(size, b"".join(self._checksums))


def record(data: bytes, geometry: Geometry, file: str) -> str:
    """What the manifest keeps of a shard: its size in bytes, and a digest of all its chunks' checksums.

    Not a checksum of the file: the CRC of data with its CRC behind it is the same for all data.
    """
    index = parse_index(data[-index_bytes(geometry.chunks) :], geometry.chunks, len(data), file)
    ends = (offset + size for offset, size in index.tolist() if offset != ABSENT)
    return record_text(len(data), b"".join(data[end - 4 : end] for end in ends))


def record_text(size: int, checksums: bytes) -> str:
    """The record of a shard file of `size` bytes, by the checksums of the chunks that it holds, in their order."""
    return f"{size}:{hashlib.sha256(checksums).hexdigest()[:16]}"


def size_of(record: str) -> int:
    """Bytes of the file that a record describes."""
    return int(record.partition(":")[0])


def has_size(store: Store, key: str, text: str) -> bool:
    """Whether there is a shard file of the size in its record."""
    return store.size(key) == size_of(text)


def index_bytes(chunks: int) -> int:
    """How long the index of so many chunks is, with its checksum."""
    return chunks * 16 + 4


def parse_index(packed: bytes, chunks: int, size: int, file: str, chunk_bytes: int | None = None) -> NDArray[np.uint64]:
    """The (chunks, 2) offsets and sizes out of the index's bytes with its checksum.

    Raises CacheError where they cannot be: in a file of `size` bytes, with chunks of `chunk_bytes` (with checksum).
    """
    body, found = packed[:-4], packed[-4:]
    if len(packed) != index_bytes(chunks) or crc32c(body) != found:
        raise CacheError.at(file, expected="a shard index with its checksum", found="a damaged index", do=REPAIR)
    index = np.frombuffer(body, "<u8").reshape(chunks, 2)
    held = index[index[:, 0] != ABSENT]
    if (held > size).any() or (held.sum(axis=1) > size).any():
        raise CacheError.at(file, expected=f"chunks within {size} bytes", found="chunks beyond its end", do=REPAIR)
    if chunk_bytes is not None and (held[:, 1] != chunk_bytes).any():
        raise CacheError.at(file, expected=f"chunks of {chunk_bytes} bytes", found="chunks of another size", do=REPAIR)
    return index


def read(store: Store, key: str, spec: ColumnSpec, geometry: Geometry) -> NDArray[Any]:
    """A shard file -> (rows_per_shard, *trailing). Raises CacheError when it is missing or damaged."""
    try:
        return decode(store.read(key), spec, geometry, store.location(key))
    except FileNotFoundError:
        raise missing(store.location(key)) from None


def decode(data: bytes, spec: ColumnSpec, geometry: Geometry, file: str) -> NDArray[Any]:
    """The bytes of a shard file -> (rows_per_shard, *trailing), absent chunks as fill values. Checks every checksum."""
    out = np.full((geometry.rows_per_shard, *spec.trailing), spec.fill, spec.dtype)
    index = parse_index(data[-index_bytes(geometry.chunks) :], geometry.chunks, len(data), file)
    for chunk, (offset, size) in enumerate(index.tolist()):
        if offset == ABSENT:
            continue
        body = data[offset : offset + size - 4]
        rows = slice(chunk * geometry.rows_per_chunk, (chunk + 1) * geometry.rows_per_chunk)
        if len(body) != out[rows].nbytes or crc32c(body) != data[offset + size - 4 : offset + size]:
            raise damaged_chunk(file, chunk, rows.start)
        out[rows] = np.frombuffer(body, spec.dtype).reshape(-1, *spec.trailing)
    return out


def missing(file: str) -> CacheError:
    """The error for a shard that the manifest names and that does not exist."""
    return CacheError.at(file, expected="a shard", found="no file", do=REPAIR)


def damaged_chunk(file: str, chunk: int, first_row: int) -> CacheError:
    """The error for a chunk whose bytes do not match their checksum. `first_row` counts within the shard."""
    expected = f"chunk {chunk} (rows from {first_row} of the shard) to match its checksum"
    return CacheError.at(file, expected=expected, found="other bytes", do=REPAIR)
