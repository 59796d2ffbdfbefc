"""Which row of a stream holds the features for a key.  tracks -> [features] -> windows

When a label is corrected, its video is written again, in other rows, with the same pictures and boxes: the same keys.
Their features are then copied instead of computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cache.format.layout import NO_KEY
from cache.format.manifest import shard_rows
from cache.read.streams import OpenStream
from cache.storage.local import LocalStore

_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd: each word alone maps one to one
_SORTED_ROWS: Final = 1 << 22  # that are held in memory: 64 MiB


class KeyIndex:
    """All keys of some of a stream's shards, by a 64-bit hash.

    Every `_SORTED_ROWS` rows are sorted and written to an unnamed temporary file, which is mapped: memory does not grow
    with the stream. Where two keys share a hash (one pair in 10^19), only one is found; the other's row is computed.
    """

    def __init__(self, stream: OpenStream, shards: Iterable[int]) -> None:
        self.stream = stream
        self._sorted: list[NDArray[np.uint64]] = []  # (2, n): hashes, ascending, and their rows
        parts: list[NDArray[np.uint64]] = []
        for shard in sorted(shards):
            rows = np.asarray(shard_rows(stream.commit.manifest, shard))
            keys = stream.read("_key", rows[:1], len(rows))[0]
            held = (keys != NO_KEY).any(axis=1)
            parts.append(np.stack([_hashed(keys[held]), rows[held].astype(np.uint64)]))
            if sum(part.shape[1] for part in parts) >= _SORTED_ROWS:
                self._sorted.append(self._mapped(_merged(parts)))
                parts = []
        if parts:
            self._sorted.append(_merged(parts))

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n, 2) keys -> (n,) rows; -1 for keys that the stream does not have."""
        rows, hashes = np.full(len(keys), -1, np.int64), _hashed(keys)
        for known, their_rows in self._sorted:
            if len(known):
                at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
                hits = (known[at] == hashes) & (rows < 0)
                rows[hits] = their_rows[at[hits]]
        found = np.flatnonzero(rows >= 0)
        other = (self.stream.read("_key", rows[found]) != keys[found, None]).any(axis=(1, 2))
        rows[found[other]] = -1
        return rows

    def _mapped(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The same in a mapped file without a name: it is gone with the map, or with the process."""
        place = self.stream.commit.place
        folder = place.store.path(place.home) if isinstance(place.store, LocalStore) else None  # None: the system's own
        with tempfile.TemporaryFile(dir=folder) as file:
            entries.tofile(file)
            return np.memmap(file, np.uint64, "r", shape=entries.shape)


def _hashed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit number for two: good for finding, not for telling keys apart."""
    mixed: NDArray[np.uint64] = (keys * _MIX).sum(axis=1, dtype=np.uint64)
    return mixed


def _merged(parts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """(2, n) entries, sorted by hash. Stable: of equal keys, the earliest row is found."""
    entries = np.concatenate(parts, axis=1)
    return entries[:, np.argsort(entries[0], kind="stable")]
