"""Find the rows of a stream that have given keys, to carry their features over.  raw -> tracks ->
[features] -> windows
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Final

import numpy as np

from cache.arrays import Ints, Keys
from cache.format.layout import NO_KEY
from cache.read.streams import OpenStream

SORTED_ROWS: Final = 1 << 22  # rows that are sorted in memory at once: 64 MiB


class KeyIndex:
    """Finds rows of a stream by their keys.

    It holds 64-bit hashes of the keys, sorted in parts; large parts are in temporary files that are
    memory-mapped.
    """

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        self._sorted: list[Keys] = []  # parts (2, n): ascending hashes, and their rows
        unsorted: list[Keys] = []
        for shard in stream.shards:
            rows = np.asarray(stream.commit.shard_rows(shard))
            keys = stream.read("_key", rows[:1], len(rows))[0]
            has_key = (keys != NO_KEY).any(axis=1)
            hashes = _hash_keys(keys[has_key])
            unsorted.append(np.stack([hashes, rows[has_key].astype(np.uint64)]))
            if sum(part.shape[1] for part in unsorted) >= SORTED_ROWS:
                self._sorted.append(self._map_file(_sort_by_hash(unsorted)))
                unsorted = []
        if unsorted:
            self._sorted.append(_sort_by_hash(unsorted))

    def find(self, keys: Keys) -> Ints:
        """The rows (n,) that have these keys (n, 2); -1 for keys that no row has."""
        rows = np.full(len(keys), -1, np.int64)
        hashes = _hash_keys(keys)
        for sorted_hashes, sorted_rows in self._sorted:
            if not len(sorted_hashes):
                continue
            position = np.searchsorted(sorted_hashes, hashes)
            position = np.minimum(position, len(sorted_hashes) - 1)
            # Only the first row with a hash is found. If another key has the same hash, its row is
            # computed again.
            has_hash = sorted_hashes[position] == hashes
            hits = has_hash & (rows < 0)
            rows[hits] = sorted_rows[position[hits]]
        candidates = np.flatnonzero(rows >= 0)
        stored = self._stream.read("_key", rows[candidates])[:, 0]
        is_other_key = (stored != keys[candidates]).any(axis=1)
        mismatches = candidates[is_other_key]
        rows[mismatches] = -1
        return rows

    def _map_file(self, entries: Keys) -> Keys:
        """Copy the entries into an unnamed temporary file and memory-map it. The file disappears
        when the map is deleted or the process ends.
        """
        place = self._stream.commit.place
        # In an object store, the folder is None: the system's temporary folder is used.
        folder = place.store.folder(place.manifest_folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            entries.tofile(file)
            return np.memmap(file, np.uint64, "r", shape=entries.shape)


def _hash_keys(keys: Keys) -> Keys:
    """Hash keys (n, 2) to 64 bits (n,): both words are hashes. Different keys may have equal
    hashes: callers compare the keys, too.
    """
    return np.bitwise_xor(keys[:, 0], keys[:, 1])


def _sort_by_hash(parts: Sequence[Keys]) -> Keys:
    """Join entries (2, n), sorted by hash. The sort is stable, so that `find` returns the earliest
    of several rows with the same key.
    """
    entries = np.concatenate(parts, axis=1)
    hashes = entries[0]
    order = np.argsort(hashes, kind="stable")
    return entries[:, order]
