"""Which row of a stream holds the features for a key.  tracks -> [features] -> windows

When a label is corrected, its video comes anew, in other rows, with the same pictures and boxes: the same keys. Their
features are then copied instead of computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format import shard as shards
from cache.format.layout import NO_KEY, ColumnSpec, Geometry, shard_key
from cache.format.manifest import Commit
from cache.read.ragged import read_rows, require_own_room
from cache.read.rows import open_rows

_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd: each word alone maps one to one


_RUN_ROWS: Final = 1 << 22  # 64 MiB


class KeyIndex:
    """All keys of a stream's committed shards, by a 64-bit hash.

    Sorted runs of `_RUN_ROWS` rows lie in unnamed temporary files, which are mapped: memory does not grow with the
    stream. Where two keys share a hash (one pair in 10^19), only one is found; the other's row is computed again.
    """

    def __init__(self, commit: Commit, columns: Mapping[str, ColumnSpec]) -> None:
        self._columns, self._stream = columns, next(iter(columns))
        self._runs: list[NDArray[np.uint64]] = []  # (2, n): hashes, ascending, and their rows
        self._place, self._geometry = commit.place, Geometry(**commit.manifest["geometry"])
        metadata, array = bytes(commit.files[f"{self._stream}/zarr.json"]), commit.place.array(self._stream)
        self._data = open_rows(commit.place.store, array, metadata, records=commit.manifest["shards"][self._stream])

    @classmethod
    def build(
        cls,
        commit: Commit,
        columns: Mapping[str, ColumnSpec],
        committed: Iterable[int],
        temporary: Path | None,
    ) -> KeyIndex:
        """Read the keys of the committed shards; sorted runs go to the folder `temporary`, or the system's own."""
        index = cls(commit, columns)
        parts, held = [], 0
        for shard in sorted(committed):
            parts.append(index._entries(shard))
            held += parts[-1].shape[1]
            if held >= _RUN_ROWS:
                index._runs.append(_spill(_sorted(parts), temporary))
                parts, held = [], 0
        if held:
            index._runs.append(_sorted(parts))
        return index

    def look_up(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]:
        """(mask, features or bytes, ok) for (n, 2) keys, as `StreamWriter.carried` gives them."""
        mask, found, ok = nothing_held(len(keys), self._columns)
        rows = self._candidates(keys)
        shard_of = np.where(rows < 0, -1, rows // self._geometry.rows_per_shard)
        for shard in np.unique(shard_of[rows >= 0]).tolist():
            wanted = np.flatnonzero(shard_of == shard)
            within = rows[wanted] - shard * self._geometry.rows_per_shard
            same = (self._decode("_key", shard)[within] == keys[wanted]).all(axis=1)
            wanted, within = wanted[same], within[same]
            mask[wanted] = True
            ok[wanted] = self._decode("_ok", shard)[within]
            good = ok[wanted] == 1
            if isinstance(found, list):
                places, array = self._decode("_at", shard)[within[good]], self._place.array(f"{self._stream}_at")
                at, where = rows[wanted[good]], self._place.store.where(array)
                require_own_room(places, at, self._geometry.rows_per_shard, where, self._place.repair)
                rows_of_bytes = read_rows(self._data, places)
                for row, data in zip(wanted[good].tolist(), rows_of_bytes, strict=True):
                    found[row] = data
            else:
                found[wanted[good]] = self._decode("", shard)[within[good]]
        return mask, found, ok

    def _entries(self, shard: int) -> NDArray[np.uint64]:
        """(2, n) hash and row of every row of a shard that has a key."""
        keys = self._decode("_key", shard)
        held = np.flatnonzero((keys != NO_KEY).any(axis=1))
        rows = held + shard * self._geometry.rows_per_shard
        return np.stack([_mixed(keys[held]), rows.astype(np.uint64)])

    def _candidates(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n,) a row whose key has the same hash, -1 where there is none."""
        rows = np.full(len(keys), -1, np.int64)
        hashes = _mixed(keys)
        for known, their_rows in self._runs:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            found = (known[at] == hashes) & (rows < 0)
            rows[found] = their_rows[at[found]]
        return rows

    def _decode(self, part: str, shard: int) -> NDArray[Any]:
        """The rows of one of the stream's arrays, not of the bytes."""
        name, store = f"{self._stream}{part}", self._place.store
        spec = self._columns[name]
        key = shard_key(self._place.array(name), shard, spec.trailing)
        return shards.decode(shards.read(store, key), spec, self._geometry, store.where(key))


def nothing_held(n: int, columns: Mapping[str, ColumnSpec]) -> tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]:
    """What `look_up` answers of n keys where there are none."""
    stream, spec = next(iter(columns.items()))
    of_bytes = f"{stream}_at" in columns
    data = [b""] * n if of_bytes else np.zeros((n, *spec.trailing), spec.dtype)
    return np.zeros(n, bool), data, np.zeros(n, np.uint8)


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit number for two: good for finding, not for telling keys apart."""
    mixed: NDArray[np.uint64] = (keys * _MIX).sum(axis=1, dtype=np.uint64)
    return mixed


def _sorted(parts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """(2, n) entries as one run. Stable: of equal keys, the earliest row is found."""
    entries = np.concatenate(parts, axis=1)
    return entries[:, np.argsort(entries[0], kind="stable")]


def _spill(run: NDArray[np.uint64], folder: Path | None) -> NDArray[np.uint64]:
    """The same run in a mapped file without a name: it goes when the map goes, or the process."""
    with tempfile.TemporaryFile(dir=folder) as file:
        run.tofile(file)
        return np.memmap(file, np.uint64, "r", shape=run.shape)
