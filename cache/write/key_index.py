"""Which row of a stream holds the features for a key.  tracks -> [features] -> windows

When a label is corrected, its video is written again, in other rows, with the same pictures and boxes: the same keys.
Their features are then copied instead of computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format import shard as shards
from cache.format.layout import NO_KEY, ColumnSpec, Geometry, shard_key
from cache.format.manifest import Commit
from cache.read.open_stream import open_column
from cache.read.ragged import check_places, read_bytes
from cache.storage.local import LocalStore

Carried = tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]  # mask, features or bytes, ok: see `StreamShards.carried`

_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd: each word alone maps one to one
_SORTED_ROWS: Final = 1 << 22  # that are held in memory: 64 MiB


class KeyIndex:
    """All keys of a stream's committed shards, by a 64-bit hash.

    Every `_SORTED_ROWS` rows are sorted and written to an unnamed temporary file, which is mapped: memory does not grow
    with the stream. Where two keys share a hash (one pair in 10^19), only one is found; the other's row is computed.
    """

    def __init__(self, commit: Commit, columns: Mapping[str, ColumnSpec], committed: Iterable[int]) -> None:
        self._columns, self._stream, self._place = columns, next(iter(columns)), commit.place
        self._geometry = Geometry(**commit.manifest["geometry"])
        self._data = open_column(commit, self._stream)
        self._sorted: list[NDArray[np.uint64]] = []  # (2, n): hashes, ascending, and their rows
        parts: list[NDArray[np.uint64]] = []
        for shard in sorted(committed):
            keys = self._decode("_key", shard)
            held = np.flatnonzero((keys != NO_KEY).any(axis=1))
            rows = held + shard * self._geometry.rows_per_shard
            parts.append(np.stack([_hashed(keys[held]), rows.astype(np.uint64)]))
            if sum(part.shape[1] for part in parts) >= _SORTED_ROWS:
                self._sorted.append(self._mapped(_merged(parts)))
                parts = []
        if parts:
            self._sorted.append(_merged(parts))

    def look_up(self, keys: NDArray[np.uint64]) -> Carried:
        """(mask, features or bytes, ok) for (n, 2) keys, as `StreamShards.carried` gives them."""
        mask, found, ok = nothing_carried(len(keys), self._columns)
        rows, hashes = np.full(len(keys), -1, np.int64), _hashed(keys)
        for known, their_rows in self._sorted:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            hits = (known[at] == hashes) & (rows < 0) if len(known) else np.zeros(len(keys), bool)
            rows[hits] = their_rows[at[hits]]
        size = self._geometry.rows_per_shard
        for shard in np.unique(rows[rows >= 0] // size).tolist():
            wanted = np.flatnonzero((rows >= 0) & (rows // size == shard))
            within = rows[wanted] - shard * size
            same = (self._decode("_key", shard)[within] == keys[wanted]).all(axis=1)
            wanted, within = wanted[same], within[same]
            mask[wanted] = True
            ok[wanted] = self._decode("_ok", shard)[within]
            good = ok[wanted] == 1
            if isinstance(found, list):
                places, array = self._decode("_at", shard)[within[good]], self._place.array(f"{self._stream}_at")
                check_places(places, rows[wanted[good]], size, self._place.store.location(array))
                for row, data in zip(wanted[good].tolist(), read_bytes(self._data, places), strict=True):
                    found[row] = data
            else:
                found[wanted[good]] = self._decode("", shard)[within[good]]
        return mask, found, ok

    def _decode(self, part: str, shard: int) -> NDArray[Any]:
        """The rows of one of the stream's arrays, not of the bytes."""
        name = f"{self._stream}{part}"
        spec = self._columns[name]
        key = shard_key(self._place.array(name), shard, spec.trailing)
        return shards.read(self._place.store, key, spec, self._geometry)

    def _mapped(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The same in a mapped file without a name: it is gone with the map, or with the process."""
        store = self._place.store
        folder = store.path(self._place.home) if isinstance(store, LocalStore) else None  # None: the system's own
        with tempfile.TemporaryFile(dir=folder) as file:
            entries.tofile(file)
            return np.memmap(file, np.uint64, "r", shape=entries.shape)


def nothing_carried(n: int, columns: Mapping[str, ColumnSpec]) -> Carried:
    """The answer for n keys where there are none."""
    stream, spec = next(iter(columns.items()))
    of_bytes = f"{stream}_at" in columns
    data = [b""] * n if of_bytes else np.zeros((n, *spec.trailing), spec.dtype)
    return np.zeros(n, bool), data, np.zeros(n, np.uint8)


def _hashed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit number for two: good for finding, not for telling keys apart."""
    mixed: NDArray[np.uint64] = (keys * _MIX).sum(axis=1, dtype=np.uint64)
    return mixed


def _merged(parts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """(2, n) entries, sorted by hash. Stable: of equal keys, the earliest row is found."""
    entries = np.concatenate(parts, axis=1)
    return entries[:, np.argsort(entries[0], kind="stable")]
