"""Compare shards with their records, chunk checksums included, without decoding them.  [cache]"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np

from cache.errors import CacheError
from cache.format import layout
from cache.format import shard as shards
from cache.format.layout import ColumnSpec, Geometry
from cache.format.manifest import Place, shard_rows
from cache.format.references import columns_of
from cache.storage.base import Store

_BLOCK: Final = 1 << 20
_REQUEST: Final = 1 << 26  # largest request to an object store, bytes
_RESIDUE: Final = int(google_crc32c.value(bytes(4)))  # CRC of any bytes followed by their own checksum
_BROKEN: Final = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA)  # errors of a disk that has lost bytes


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that a manifest names."""

    array: str  # its column
    key: str
    number: int
    record: str
    n_rows: int  # committed rows
    spec: ColumnSpec
    geometry: Geometry

    @property
    def size(self) -> int:
        return shards.size_of(self.record)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk with its checksum."""
        return self.geometry.rows_per_chunk * self.spec.row_bytes + 4


def shard_files(manifest: Mapping[str, Any], place: Place) -> list[ShardFile]:
    """The shards that a manifest names, by column and number. Raises CacheError for one without a commit."""
    geometry, shards_of = Geometry(**manifest["geometry"]), manifest["shards"]
    files = []
    for name, spec in columns_of(manifest).items():
        for number, record in sorted((int(shard), record) for shard, record in shards_of.get(name, {}).items()):
            n_rows = len(shard_rows(manifest, number))
            key = layout.shard_key(place.array(name), number, spec.trailing)
            files.append(ShardFile(name, key, number, record, n_rows, spec, geometry))
    return files


def check(store: Store, shard: ShardFile, *, fast: bool) -> str:
    """The problem of a shard, "" without one; `fast`: size and index only. Raises OSError, CacheError of the store."""
    location = store.location(shard.key)
    size = store.size(shard.key)
    if size is None:
        return str(shards.missing(location))
    chunks = shard.geometry.chunks
    try:
        n_chunks = shards.count_chunks(location, size, shard.record, shard.chunk_bytes, chunks)
    except CacheError as error:
        return str(error)
    if n_chunks * shard.geometry.rows_per_chunk < shard.n_rows:
        return str(shards.damage(location, f"{shard.n_rows} rows", f"{n_chunks} chunks"))
    try:
        index = np.empty(shards.index_bytes(chunks), np.uint8)
        store.read_into(shard.key, size - len(index), index)
        if index.tobytes() != shards.pack_index(n_chunks, shard.chunk_bytes, chunks):
            return str(shards.damaged_index(location))
        return "" if fast else _check_chunks(store, shard, n_chunks)
    except FileNotFoundError:
        return str(shards.missing(location))
    except OSError as error:
        if error.errno not in _BROKEN:
            raise
        return str(shards.damage(location, "a shard", f"a file that cannot be read ({error.strerror})"))


def _check_chunks(store: Store, shard: ShardFile, n_chunks: int) -> str:
    """Compare chunks with their checksums, and all checksums with the record."""
    location, size = store.location(shard.key), shard.chunk_bytes
    at_once = max(1, (_BLOCK if store.exclusive else _REQUEST) // size)
    checksums = np.empty((n_chunks, 4), np.uint8)
    block = np.empty(min(at_once, n_chunks) * size, np.uint8)
    for first in range(0, n_chunks, at_once):
        n_here = min(at_once, n_chunks - first)
        store.read_into(shard.key, first * size, block[: n_here * size])
        chunks = block[: n_here * size].reshape(n_here, size)
        for number, chunk in enumerate(chunks):
            if google_crc32c.value(chunk) != _RESIDUE:
                expected = f"chunk {first + number} of its file to match its checksum"
                return str(shards.damage(location, expected, "other bytes"))
        checksums[first : first + n_here] = chunks[:, -4:]
    if (record := shards.record_text(shard.size, checksums.tobytes())) != shard.record:
        return str(shards.damage(location, f"the shard {shard.record}", f"an intact shard of something else, {record}"))
    return ""
