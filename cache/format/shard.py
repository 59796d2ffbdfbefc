"""One shard: encode, check.  [cache]

A shard is one file of Zarr's `sharding_indexed` codec: chunks of rows, each followed by its crc32c, then an index of
(offset, size) pairs for all chunks and the index's own crc32c. Chunks lie one after the other, so readers need no
index. Chunks of padding rows are absent.
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
REPAIR: Final = "Drop damaged shards and fill their rows again: python -m pipeline verify --repair --cache DIR"


def crc32c(data: bytes) -> bytes:
    """The checksum as Zarr stores it: CRC-32C, little endian. `data` is bytes or a read-only view of bytes."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def encode(rows: NDArray[Any], spec: ColumnSpec, geometry: Geometry) -> tuple[bytes, str]:
    """`rows` (n, *trailing), n up to a shard's rows -> the bytes of the shard file, and its record.

    The last chunk is filled up with the fill value; chunks that hold only padding are absent.
    """
    if rows.dtype != spec.dtype or rows.shape[1:] != spec.trailing or not 0 < len(rows) <= geometry.rows_per_shard:
        raise ValueError(f"{rows.dtype}{rows.shape} is no shard of {spec}")

    size = geometry.rows_per_chunk
    padding = np.full((-len(rows) % size, *spec.trailing), spec.fill, spec.dtype)
    parts, checksums = list[bytes](), list[bytes]()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        chunk = (part if len(part) == size else np.concatenate([part, padding])).tobytes()
        checksums.append(crc32c(chunk))
        parts += [chunk, checksums[-1]]
    file = b"".join([*parts, pack_index(len(checksums), size * spec.row_bytes + 4, geometry.chunks)])
    return file, record_text(len(file), b"".join(checksums))


def record_text(size: int, checksums: bytes) -> str:
    """The manifest's record of a shard file: its size, and a digest of its chunks' checksums in order."""
    return f"{size}:{hashlib.sha256(checksums).hexdigest()[:16]}"


def size_of(record: str) -> int:
    """Bytes of the file that a record describes."""
    return int(record.partition(":")[0])


def has_size(store: Store, key: str, text: str) -> bool:
    """Whether there is a shard file of the size in its record."""
    return store.size(key) == size_of(text)


def index_bytes(chunks: int) -> int:
    """Bytes of an index with its checksum."""
    return chunks * 16 + 4


def pack_index(n_chunks: int, chunk_bytes: int, chunks: int) -> bytes:
    """The index of a shard with this many chunks, one after the other, and its checksum."""
    index = np.full((chunks, 2), ABSENT, "<u8")
    index[:n_chunks] = np.stack([np.arange(n_chunks) * chunk_bytes, np.full(n_chunks, chunk_bytes)], axis=1)
    packed = index.tobytes()
    return packed + crc32c(packed)


def count_chunks(file: str, size: int, record: str, chunk_bytes: int, chunks: int) -> int:
    """The number of chunks in a shard file. Raises CacheError for a size that is not in its record, or impossible."""
    n_chunks, surplus = divmod(size - index_bytes(chunks), chunk_bytes)
    if size != size_of(record) or surplus or not 0 <= n_chunks <= chunks:
        raise damage(file, f"a shard of {size_of(record)} bytes", f"{size} bytes")
    return n_chunks


def damage(file: str, expected: str, found: str) -> CacheError:
    """The error for a shard that is not what its manifest says."""
    return CacheError.at(file, expected=expected, found=found, do=REPAIR)


def missing(file: str) -> CacheError:
    """The error for a shard that the manifest names and that does not exist."""
    return damage(file, "a shard", "no file")


def damaged_index(file: str) -> CacheError:
    """The error for an index that is not that of a shard of this size."""
    return damage(file, "a shard index with its checksum", "a damaged index")


def damaged_chunk(file: str, chunk: int, first_row: int) -> CacheError:
    """The error for a chunk whose bytes do not match their checksum. `first_row` counts within the shard."""
    return damage(file, f"chunk {chunk} (rows from {first_row} of the shard) to match its checksum", "other bytes")
