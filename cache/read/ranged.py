"""Windows out of an object store, by requests of byte ranges.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format import shard as shards
from cache.format.layout import shard_key
from cache.read.rows import ArrayLayout, check_range, chunk_parts, fill
from cache.storage.object_store import ObjectStore, map_parallel
from cache.windows import Ints

_SHARDS_AT_ONCE: Final = 64  # a batch that touches more is read in parts: memory stays bounded


class RangedRows:
    """Rows of one array, read by ranges. Arguments as for `MappedRows`."""

    def __init__(
        self,
        store: ObjectStore,
        array: str,
        layout: ArrayLayout,
        records: Mapping[str, str],
        check_current: Callable[[], None],
    ) -> None:
        self._store, self._array, self._layout = store, array, layout
        self._records, self._check_current = records, check_current
        self.trailing, self.dtype, self._geometry = layout.spec.trailing, layout.spec.dtype, layout.geometry
        self._n_chunks: dict[int, int] = {}

    def read(self, starts: Ints, seqlen: int, out: NDArray[Any]) -> None:
        if not out.size:
            return
        check_range(starts, seqlen, self._layout.n_rows, self._store.location(self._array))
        size = self._geometry.rows_per_chunk
        chunk, first, n_rows = chunk_parts(starts, seqlen, size)
        window = (np.cumsum(n_rows) - n_rows) // seqlen  # parts come in the order of windows, of seqlen rows each
        within = chunk * size + first - starts[window]  # the part's first row in its window
        touched = np.unique(chunk)
        by_shard = np.split(touched, np.flatnonzero(np.diff(touched // self._geometry.chunks)) + 1)
        for begin in range(0, len(by_shard), _SHARDS_AT_ONCE):
            held = self._fetch_all(by_shard[begin : begin + _SHARDS_AT_ONCE])
            for part in np.flatnonzero(np.isin(chunk, list(held))).tolist():
                rows = held[int(chunk[part])][first[part] : first[part] + n_rows[part]]
                fill(out[window[part], within[part] : within[part] + n_rows[part]], rows)

    def _fetch_all(self, by_shard: Sequence[Ints]) -> dict[int, NDArray[Any]]:
        """Rows by chunk number in the array, of one committed state. `by_shard`: chunks of each shard."""
        held: dict[int, NDArray[Any]] = {}
        try:
            for fetched in map_parallel(self._fetch, by_shard):
                held.update(fetched)
        finally:
            # Afterwards, and after an error: a shard that is missing because the split was replaced is no damage.
            self._check_current()
        return held

    def _fetch(self, chunks: Ints) -> dict[int, NDArray[Any]]:
        """Rows of chunks of one shard by chunk number in the array, with checksums compared."""
        geometry, size = self._geometry, self._layout.chunk_bytes
        shard = int(chunks[0]) // geometry.chunks
        key = shard_key(self._array, shard, self.trailing)
        location = self._store.location(key)
        numbers = (chunks - shard * geometry.chunks).tolist()
        try:
            n_chunks = self._count_chunks(shard, key)
            if numbers[-1] >= n_chunks:
                raise shards.damage(location, f"chunk {numbers[-1]} of the shard", "a shard without it")
            begins = [number * size for number in numbers]
            parts = self._store.read_ranges(key, begins, [begin + size for begin in begins])
        except FileNotFoundError:
            raise shards.missing(location) from None
        rows = {}
        for chunk, number, data in zip(chunks.tolist(), numbers, parts, strict=True):
            if len(data) != size or shards.crc32c(data[:-4]) != data[-4:]:
                raise shards.damaged_chunk(location, number, number * geometry.rows_per_chunk)
            rows[chunk] = np.frombuffer(data[:-4], self.dtype).reshape(-1, *self.trailing)
        return rows

    def _count_chunks(self, shard: int, key: str) -> int:
        """The number of chunks of a shard, whose size is checked the first time."""
        if shard not in self._n_chunks:
            size, record = self._store.size(key), self._records.get(str(shard))
            if size is None or record is None:  # without a record, the object belongs to an unfinished commit
                raise FileNotFoundError(key)
            location, chunks = self._store.location(key), self._geometry.chunks
            self._n_chunks[shard] = shards.count_chunks(location, size, record, self._layout.chunk_bytes, chunks)
        return self._n_chunks[shard]
