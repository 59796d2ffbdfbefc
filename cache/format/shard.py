"""One shard: encode, decode, check.  tracks -> [cache] -> windows

A shard is one file of Zarr's `sharding_indexed` codec: chunks of rows, each followed by its crc32c, then an index of
(offset, size) pairs for all chunks and the index's own crc32c. Chunks of padding rows are absent from the index.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import ColumnSpec, Geometry
from cache.storage.base import Store

ABSENT: Final = 2**64 - 1  # offset and size of a chunk that the shard does not hold
REPAIR: Final = "Put damaged files aside and make their rows anew: python -m pipeline verify --repair --cache DIR"


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
    pieces: list[bytes] = []
    offset = 0
    for chunk, start in enumerate(range(0, len(rows), geometry.rows_per_chunk)):
        part = rows[start : start + geometry.rows_per_chunk]
        if len(part) < geometry.rows_per_chunk:
            padding = np.full((geometry.rows_per_chunk - len(part), *spec.trailing), spec.fill, spec.dtype)
            part = np.concatenate([part, padding])
        data = part.tobytes()
        pieces += data, crc32c(data)
        index[chunk] = offset, len(data) + 4
        offset += len(data) + 4
    packed = index.tobytes()
    return b"".join([*pieces, packed, crc32c(packed)])


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
    """Bytes of the file that a record speaks of."""
    return int(record.partition(":")[0])


def index_bytes(chunks: int) -> int:
    """How long the index of so many chunks is, with its checksum."""
    return chunks * 16 + 4


def write(store: Store, key: str, data: bytes, geometry: Geometry, *, by_way_of: str) -> str:
    """Write one shard so that its name appears only when its bytes are on the disk. Returns its record."""
    store.put(key, data, by_way_of=by_way_of)
    return record(data, geometry, store.where(key))


def read(store: Store, key: str) -> bytes:
    """All bytes of a shard file. Raises CacheError when it is missing."""
    try:
        return store.read(key)
    except FileNotFoundError:
        raise CacheError.at(store.where(key), expected="a shard", found="no file", do=REPAIR) from None


def has_size(store: Store, key: str, text: str) -> bool:
    """Whether a shard file is there with the size that its record says."""
    return store.size(key) == size_of(text)


def parse_index(packed: bytes, chunks: int, size: int, file: str) -> NDArray[np.uint64]:
    """The (chunks, 2) offsets and sizes out of the index's bytes with its checksum; CacheError when they cannot be."""
    body, found = packed[:-4], packed[-4:]
    if len(packed) != index_bytes(chunks) or crc32c(body) != found:
        raise CacheError.at(file, expected="a shard index with its checksum", found="a damaged index", do=REPAIR)
    index = np.frombuffer(body, "<u8").reshape(chunks, 2)
    held = index[index[:, 0] != ABSENT]
    if (held > size).any() or (held.sum(axis=1) > size).any():
        raise CacheError.at(file, expected=f"chunks within {size} bytes", found="chunks beyond its end", do=REPAIR)
    return index


def decode(data: bytes, spec: ColumnSpec, geometry: Geometry, file: str) -> NDArray[Any]:
    """The bytes of a shard file -> (rows_per_shard, *trailing), absent chunks as fill values. Checks every checksum."""
    out = np.full((geometry.rows_per_shard, *spec.trailing), spec.fill, spec.dtype)
    index = parse_index(data[-index_bytes(geometry.chunks) :], geometry.chunks, len(data), file)
    for chunk, (offset, size) in enumerate(index.tolist()):
        if offset == ABSENT:
            continue
        body = data[offset : offset + size - 4]
        where = slice(chunk * geometry.rows_per_chunk, (chunk + 1) * geometry.rows_per_chunk)
        if len(body) != out[where].nbytes or crc32c(body) != data[offset + size - 4 : offset + size]:
            raise damaged_chunk(file, chunk, where.start)
        out[where] = np.frombuffer(body, spec.dtype).reshape(-1, *spec.trailing)
    return out


def damaged_chunk(file: str, chunk: int, first_row: int) -> CacheError:
    """The error for a chunk whose bytes do not match their checksum. `first_row` counts within the shard."""
    return CacheError.at(
        file,
        expected=f"chunk {chunk} (rows from {first_row} of the shard) to match its checksum",
        found="other bytes",
        do=REPAIR,
    )
