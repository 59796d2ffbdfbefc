"""Find the rows of a stream that have given keys, to carry their features over.  raw -> tracks ->
[features] -> windows
"""

from __future__ import annotations

import numpy as np

from cache.arrays import Ints, Keys
from cache.format.layout import NO_KEY
from cache.read.streams import OpenStream


class KeyIndex:
    """Finds the committed rows of a stream by their keys. It holds a hash and the number of each
    row, 16 bytes, sorted by hash.
    """

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        hashes_of_shards = [np.empty(0, np.uint64)]
        rows_of_shards = [np.empty(0, np.int64)]
        for shard in stream.shards:
            rows = np.asarray(stream.commit.shard_rows(shard))
            keys = stream.read("_key", rows[:1], len(rows))[0]
            has_key = (keys != NO_KEY).any(axis=1)
            hashes_of_shards.append(_hash_keys(keys[has_key]))
            rows_of_shards.append(rows[has_key])
        hashes = np.concatenate(hashes_of_shards)
        order = np.argsort(hashes, kind="stable")  # the first of several rows with the same key
        self._hashes = hashes[order]
        self._rows = np.concatenate(rows_of_shards)[order]

    def find(self, keys: Keys) -> Ints:
        """The rows (n,) that have these keys (n, 2); -1 for keys that no row has."""
        rows = np.full(len(keys), -1, np.int64)
        hashes = _hash_keys(keys)
        first = np.searchsorted(self._hashes, hashes)
        after = np.searchsorted(self._hashes, hashes, side="right")
        # Only the first row with a hash is found. If it has another key, the other rows with this
        # hash are computed again.
        found = np.flatnonzero(first < after)
        candidates = self._rows[first[found]]
        stored = self._stream.read("_key", candidates)[:, 0]
        is_same = (stored == keys[found]).all(axis=1)
        rows[found[is_same]] = candidates[is_same]
        return rows


def _hash_keys(keys: Keys) -> Keys:
    """Hash keys (n, 2) to 64 bits (n,): both words are hashes. Different keys may have equal
    hashes: callers compare the keys, too.
    """
    return np.bitwise_xor(keys[:, 0], keys[:, 1])
