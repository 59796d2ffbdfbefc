"""Encode and check one shard.  [cache]

A shard is one file of Zarr's `sharding_indexed` codec: chunks of rows, each followed by its crc32c,
then an index of (offset, size) pairs for all chunks and the index's own crc32c. Chunks are stored
one after the other without gaps, so readers of this package need no index. Chunks that would hold
only padding rows are absent. The manifest's record of a shard is the text "<size>:<digest>": the
file's size in bytes and a digest of its chunks' checksums.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import shlex
import warnings
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format.layout import FEATURES, SHARDS, Column, Geometry
from cache.storage.base import Bytes, Store

REPAIR: Final = "python -m pipeline verify --repair --cache"  # and the cache's name
ABSENT: Final = 2**64 - 1  # offset and size of a chunk that the shard does not hold
_PART: Final = 1 << 22  # most bytes of a mapped file that are in memory while it is hashed
_BLOCK: Final = 1 << 20  # most bytes that are read from a disk at once
_REQUEST: Final = 1 << 26  # largest request to an object store, bytes
# the CRC of any bytes that are followed by their own checksum: a property of CRCs
_RESIDUE: Final = int(google_crc32c.value(bytes(4)))
# errors of a disk that has lost bytes
_BROKEN: Final = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA)

if google_crc32c.implementation == "python":
    warnings.warn(
        "google-crc32c has no compiled part here: checksums of shards, and so all reading and "
        "writing, take over 1,000 times as long. Install it again: pip install --force-reinstall "
        "google-crc32c",
        stacklevel=1,
    )


def crc32c(data: bytes | Bytes) -> bytes:
    """The CRC-32C checksum of `data` (bytes or a read-only view) as Zarr stores it: 4 bytes, little
    endian.
    """
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def sha256(data: bytes | Bytes) -> str:
    """The SHA-256 of bytes, in hex. Of a file that is mapped into memory, no more than _PART is
    there at a time, and nothing afterwards.
    """
    view = memoryview(data if isinstance(data, bytes) else data.data)
    base = getattr(data, "base", None)
    digest = hashlib.sha256()
    for start in range(0, len(view), _PART):
        digest.update(view[start : start + _PART])
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """How a column's rows are arranged in its shard files."""

    column: Column
    geometry: Geometry

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk with its checksum, in bytes."""
        return self.geometry.rows_per_chunk * self.column.row_bytes + 4

    @property
    def index_bytes(self) -> int:
        """Size of an index with its checksum, in bytes."""
        return self.geometry.chunks * 16 + 4

    def first_byte(self, chunk: Any) -> Any:
        """Where a chunk begins in its shard: of its number, or of (n,) numbers."""
        return chunk * self.chunk_bytes

    def is_intact(self, chunk: bytes | Array) -> bool:
        """Whether these are the bytes of a chunk that match the checksum at their end."""
        return len(chunk) == self.chunk_bytes and google_crc32c.value(chunk) == _RESIDUE

    def decode(self, chunk: bytes) -> Array:
        """The rows (`rows_per_chunk`, *shape) of the bytes of a chunk."""
        return np.frombuffer(chunk[:-4], self.column.dtype).reshape(-1, *self.column.shape)

    def rows(self, shard: Bytes | memoryview, n_chunks: int) -> Array:
        """The rows of a shard's chunks as a view of its bytes: (n_chunks, `rows_per_chunk`), of
        `row_bytes` each.
        """
        row_bytes = self.column.row_bytes
        shape = (n_chunks, self.geometry.rows_per_chunk)
        return np.ndarray(shape, f"V{row_bytes}", shard, strides=(self.chunk_bytes, row_bytes))

    def damaged_chunk(self, file: str, number: int) -> CacheError:
        """The error for a chunk that is not intact."""
        first_row = number * self.geometry.rows_per_chunk
        expected = f"chunk {number} (rows from {first_row} of the shard) to match its checksum"
        return damage(file, expected, "other bytes")

    def encode(self, rows: Array) -> tuple[bytes, str]:
        """Encode `rows` (n, *shape) of the column's dtype, 1 <= n <= `rows_per_shard`, as a shard.

        Returns the bytes of the shard file, and its record for the manifest. The last chunk is
        filled up with the fill value; chunks that would hold only padding are absent.
        """
        size = self.geometry.rows_per_chunk
        padding = self.column.empty(-len(rows) % size)
        parts = list[bytes]()
        checksums = list[bytes]()
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size].tobytes()
            if start + size > len(rows):
                chunk += padding.tobytes()
            checksum = crc32c(chunk)
            checksums.append(checksum)
            parts += [chunk, checksum]
        parts.append(self.index(len(checksums)))
        file = b"".join(parts)
        return file, _record(len(file), b"".join(checksums))

    def index(self, n_chunks: int) -> bytes:
        """The bytes of the index, with its checksum, of a shard with `n_chunks` chunks."""
        index = np.full((self.geometry.chunks, 2), ABSENT, "<u8")
        index[:n_chunks, 0] = self.first_byte(np.arange(n_chunks))
        index[:n_chunks, 1] = self.chunk_bytes
        packed = index.tobytes()
        return packed + crc32c(packed)

    def check_index(self, file: str, index: bytes, n_chunks: int) -> None:
        """Raise CacheError if `index` is not that of a shard with `n_chunks` chunks."""
        if index != self.index(n_chunks):
            raise damage(file, "a shard index with its checksum", "a damaged index")

    def count_chunks(self, file: str, size: int, record: str) -> int:
        """The number of chunks in a shard file of `size` bytes.

        Raises CacheError if the size is not that of its record, or no shard can have it.
        """
        n_chunks, surplus = divmod(size - self.index_bytes, self.chunk_bytes)
        if size != _size_of(record) or surplus or not 0 <= n_chunks <= self.geometry.chunks:
            raise damage(file, f"a shard of {_size_of(record)} bytes", f"{size} bytes")
        return n_chunks


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that a manifest names, with what is needed to check its file."""

    array: str  # name of its column
    key: str  # of its file in the store
    number: int
    record: str
    n_rows: int  # committed rows
    layout: ShardLayout

    @property
    def size(self) -> int:
        return _size_of(self.record)

    def problem(self, store: Store, *, fast: bool) -> str:
        """Check the shard's file, and return a message about the damage; "" if it is intact.

        Args:
            fast: check only the file's size and index, not its chunks.

        Raises OSError if the file cannot be read for another reason than damage.
        """
        location = store.location(self.key)
        try:
            n_chunks = self._check_index(store)
            if not fast:
                self._check_chunks(store, n_chunks)
        except _ShardDamage as error:  # an object store that does not answer is no damage
            return str(error)
        except FileNotFoundError:
            return str(missing(location))
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
            state = f"a file that cannot be read ({error.strerror})"
            return str(damage(location, "a shard", state))
        return ""

    def _check_index(self, store: Store) -> int:
        """Check the size and the index. Returns the number of chunks. Raises CacheError for damage,
        FileNotFoundError without a file.
        """
        location = store.location(self.key)
        size = store.size(self.key)
        if size is None:
            raise FileNotFoundError(self.key)
        n_chunks = self.layout.count_chunks(location, size, self.record)
        if n_chunks * self.layout.geometry.rows_per_chunk < self.n_rows:
            raise damage(location, f"{self.n_rows} rows", f"{n_chunks} chunks")
        index = np.empty(self.layout.index_bytes, np.uint8)
        store.read_into(self.key, size - len(index), index)
        self.layout.check_index(location, index.tobytes(), n_chunks)
        return n_chunks

    def _check_chunks(self, store: Store, n_chunks: int) -> None:
        """Compare each chunk with its checksum, then all checksums with the record. Raises
        CacheError for the first difference.
        """
        location = store.location(self.key)
        size = self.layout.chunk_bytes
        largest = _BLOCK if store.exclusive else _REQUEST
        step = max(1, largest // size)
        checksums = np.empty((n_chunks, 4), np.uint8)
        block = np.empty((min(step, n_chunks), size), np.uint8)
        for first in range(0, n_chunks, step):
            chunks = block[: n_chunks - first]
            store.read_into(self.key, self.layout.first_byte(first), chunks.reshape(-1))
            for number, chunk in enumerate(chunks):
                if not self.layout.is_intact(chunk):
                    raise self.layout.damaged_chunk(location, first + number)
            checksums[first : first + step] = chunks[:, -4:]
        record = _record(self.size, checksums.tobytes())
        if record != self.record:
            state = f"an intact shard of something else, {record}"
            raise damage(location, f"the shard {self.record}", state)


def _record(size: int, checksums: bytes) -> str:
    """The record of a shard file of `size` bytes, from the checksums of its chunks in order."""
    return f"{size}:{hashlib.sha256(checksums).hexdigest()[:16]}"


def _size_of(record: str) -> int:
    """The size in bytes of the shard file that a record describes."""
    return int(record.partition(":")[0])


class _ShardDamage(CacheError):
    """A shard is not what its manifest says."""


def damage(file: str, expected: str, found: str) -> CacheError:
    """The error for a shard that is not what its manifest says. file: its path or URL."""
    home = file.rpartition(f"/{SHARDS}/")[0].rpartition("/")[0].removesuffix(f"/{FEATURES}")
    root = home.rsplit("/", 2)[0] if home.count("/") > 1 else "."
    do = f"Drop damaged shards and fill their rows again: {REPAIR} {shlex.quote(root)}"
    return _ShardDamage.at(file, expected=expected, found=found, do=do)


def missing(file: str) -> CacheError:
    """The error for a shard that the manifest names and that does not exist."""
    return damage(file, "a shard", "no file")
