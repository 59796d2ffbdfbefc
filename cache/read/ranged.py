"""Windows out of an object store, by ranges of bytes.  tracks -> features -> [windows] -> training

As `cache.read.mapped`, with requests in place of maps: a shard's index is fetched once, then just the chunks that
windows touch, those of one shard in one request and several shards at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard as shards
from cache.read.float16 import fill
from cache.read.mapped import DirectLayout
from cache.storage.object_store import Bucket, at_once

_INDEXES: Final = 8 << 20  # bytes of them kept of each column: one has 2 KB, of a column of bytes 128 KB
_SHARDS_AT_ONCE: Final = 64  # a batch that touches more is read in parts: memory stays bounded


class RangedRows:
    """Rows of one array, read by ranges. Arguments as for `DirectRows`."""

    def __init__(
        self,
        bucket: Bucket,
        array: str,
        layout: DirectLayout,
        *,
        records: Mapping[str, str] | None = None,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self._bucket, self._array, self._layout = bucket, array, layout
        self._records, self._guard = records, guard
        self.trailing, self.dtype = layout.trailing, layout.dtype
        self._bytes = layout.chunk_bytes
        self._indexes: dict[int, NDArray[np.uint64]] = {}
        self._lock = threading.Lock()

    def read(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> None:
        """As `DirectRows.read`."""
        if not out.size:
            return
        if starts.min() < 0 or starts.max() + seqlen > self._layout.n_rows:
            found = f"rows up to {int(starts.max()) + seqlen}"
            where = self._bucket.where(self._array)
            raise CacheError.at(where, expected=f"{self._layout.n_rows} rows", found=found, do="Open it again.")
        size = self._layout.rows_per_chunk
        first, last = starts // size, (starts + seqlen - 1) // size
        chunks = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]))
        by_shard = np.split(chunks, np.flatnonzero(np.diff(chunks // self._layout.chunks)) + 1)
        for part in range(0, len(by_shard), _SHARDS_AT_ONCE):
            held = self._fetch_all(by_shard[part : part + _SHARDS_AT_ONCE])
            for window in range(len(starts)):
                for chunk in range(int(first[window]), int(last[window]) + 1):
                    if chunk in held:
                        low = max(int(starts[window]), chunk * size)
                        high = min(int(starts[window]) + seqlen, (chunk + 1) * size)
                        rows = held[chunk][low - chunk * size : high - chunk * size]
                        fill(out[window, low - int(starts[window]) : high - int(starts[window])], rows)

    def _fetch_all(self, by_shard: Sequence[NDArray[np.int64]]) -> dict[int, NDArray[Any]]:
        """The rows of chunks, each shard's apart, by the chunk's number in the array: all of one committed state."""
        held: dict[int, NDArray[Any]] = {}
        try:
            for fetched in at_once(self._fetch, by_shard):
                held.update(fetched)
        finally:
            # Afterwards: what was fetched is of the state that the guard speaks of. A shard that is gone, or other
            # bytes in its place, since its split was replaced are no damage.
            if self._guard is not None:
                with self._lock:
                    self._guard()
        return held

    def _fetch(self, chunks: NDArray[np.int64]) -> dict[int, NDArray[Any]]:
        """The rows of chunks of one shard, by the chunk's number in the array; every checksum compared."""
        shard = int(chunks[0]) // self._layout.chunks
        key = self._key(shard)
        try:
            index = self._index(shard)
            within = [int(chunk) % self._layout.chunks for chunk in chunks]
            for number in within:
                if index[number, 0] == shards.ABSENT:
                    found, where = "a shard without it", self._bucket.where(key)
                    raise CacheError.at(where, expected=f"chunk {number} of the shard", found=found, do=shards.REPAIR)
            begins = [int(index[number, 0]) for number in within]
            ends = [begin + self._bytes + 4 * self._layout.checksums for begin in begins]
            parts = self._bucket.read_ranges(key, begins, ends)
        except FileNotFoundError:
            self._drop_index(shard)  # so that a shard put back is read at the next attempt
            where = self._bucket.where(key)
            raise CacheError.at(where, expected="a shard", found="no object", do=shards.REPAIR) from None
        rows = {}
        for chunk, number, data in zip(chunks.tolist(), within, parts, strict=True):
            body = data[: self._bytes]
            if len(body) != self._bytes or (self._layout.checksums and shards.crc32c(body) != data[self._bytes :]):
                self._drop_index(shard)
                raise shards.damaged_chunk(self._bucket.where(key), number, number * self._layout.rows_per_chunk)
            rows[chunk] = np.frombuffer(body, self._layout.dtype).reshape(-1, *self._layout.trailing)
        return rows

    def _key(self, shard: int) -> str:
        return self._layout.key(self._array, shard)

    def _index(self, shard: int) -> NDArray[np.uint64]:
        """Offsets and sizes of a shard's chunks, fetched once."""
        index = self._indexes.get(shard)
        if index is None:
            key, tail = self._key(shard), shards.index_bytes(self._layout.chunks)
            size = self._bucket.size(key)
            record = None if self._records is None else self._records.get(str(shard))
            expected = f"a shard of {shards.size_of(record)} bytes" if record else "a shard"
            if size is None or size < tail or (record and size != shards.size_of(record)):
                found = "no object" if size is None else f"{size} bytes"
                raise CacheError.at(self._bucket.where(key), expected=expected, found=found, do=shards.REPAIR)
            begin = 0 if self._layout.index_first else size - tail
            (packed,) = self._bucket.read_ranges(key, [begin], [begin + tail])
            index = shards.parse_index(packed, self._layout.chunks, size, self._bucket.where(key))
            held = index[index[:, 0] != shards.ABSENT]
            if (held[:, 1] != self._bytes + 4 * self._layout.checksums).any():
                found, where = "chunks of another size", self._bucket.where(key)
                raise CacheError.at(where, expected=f"chunks of {self._bytes} bytes", found=found, do=shards.REPAIR)
            with self._lock:
                while len(self._indexes) >= max(1, _INDEXES // tail):
                    del self._indexes[next(iter(self._indexes))]  # the one that was fetched first
                self._indexes[shard] = index
        return index

    def _drop_index(self, shard: int) -> None:
        with self._lock:
            self._indexes.pop(shard, None)
