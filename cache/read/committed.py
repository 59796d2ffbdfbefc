"""Arrays of one committed state, and whether it is still the one on the disk.  tracks -> features -> [windows]"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheChanged, CacheError
from cache.format import shard as shards
from cache.format.layout import BYTES, Geometry, shard_key, stream_columns
from cache.format.manifest import Commit, foreign_shards, read_manifest, shard_rows
from cache.read.ragged import read_rows, require_own_room
from cache.read.rows import Rows, open_rows, zarr_array
from cache.windows import Ranges, join_adjacent, ranges_where

if TYPE_CHECKING:
    import zarr

_DO: Final = "Take windows(stream=...), or extract what is missing."


class OpenStream:
    """One committed state of a feature stream, and where it has rows. `rows`: manifest of the split it is read for."""

    def __init__(self, split: str, name: str, commit: Commit, rows: Mapping[str, Any]) -> None:
        self.commit = commit
        self._name, self._where = name, f"{split}: stream {name!r}"
        self.guard = Guard(commit)
        self.of_bytes = commit.manifest["dtype"] == BYTES
        self.features = open_column(commit, name, self.guard)
        self._at = open_column(commit, f"{name}_at", self.guard) if self.of_bytes else None
        self._ok = open_column(commit, f"{name}_ok", self.guard)
        self._geometry = Geometry(**commit.manifest["geometry"])
        self._has = np.zeros(self._geometry.shards(int(commit.manifest["extent"])), bool)
        self._has[[int(shard) for shard in commit.manifest["shards"][name]]] = True
        self._has[foreign_shards(commit.manifest, rows)] = False  # of a split that was made anew: of other rows
        self._whole = np.zeros(len(self._has), bool)  # shards that are known to have every row

    @property
    def shards(self) -> list[int]:
        """Those that it has, ascending."""
        return list(map(int, np.flatnonzero(self._has)))

    def readable(self) -> Ranges:
        """Row ranges with ok = 1, ascending. Reads the flags one shard at a time."""
        return self._where_ok_is(1)

    def undecodable(self) -> Ranges:
        """Row ranges with ok = 0, likewise; of replaced tracks too."""
        return self._where_ok_is(0)

    def _where_ok_is(self, flag: int) -> Ranges:
        size, name = self._geometry.rows_per_shard, f"{self._name}_ok"
        found = [np.zeros((0, 2), np.int64)]
        for shard in np.flatnonzero(self._has).tolist():
            rows = shard_rows(self.commit.manifest, shard)
            if self.commit.manifest["shards"][name][str(shard)] != _all_ok(len(rows), self._geometry):
                found.append(ranges_where(self._flags(shard) == flag, shard * size))
            elif flag == 1:
                found.append(np.array([[rows.start, rows.stop]]))
        return join_adjacent(np.concatenate(found))

    def _flags(self, shard: int) -> NDArray[np.uint8]:
        """(n,) the `ok` flags of a shard's rows."""
        rows = shard_rows(self.commit.manifest, shard)
        flags = np.empty((1, len(rows)), np.uint8)
        self._ok.read(np.array([rows.start]), len(rows), flags)
        row: NDArray[np.uint8] = flags[0]
        return row

    def require(self, starts: NDArray[np.int64], seqlen: int) -> None:
        """Raise CacheError unless the stream has every row of the windows."""
        if not len(starts):
            return
        size = self._geometry.rows_per_shard
        first, last = starts // size, (starts + (seqlen - 1)) // size
        if last.max() < len(self._whole):
            wanting = np.concatenate([[0], np.cumsum(~self._whole)])  # shards before each one that are not known whole
            if np.array_equal(wanting[first], wanting[last + 1]):
                return
        reached = set(zip(first.tolist(), last.tolist(), strict=True))
        touched = sorted({shard for a, b in reached for shard in range(a, b + 1)})
        for shard in touched:
            if shard >= len(self._has) or not self._has[shard]:
                raise CacheError(f"{self._where} does not have shard {shard} yet. {_DO}")
        flags = np.empty((len(starts), seqlen), np.uint8)
        self._ok.read(starts, seqlen, flags)
        if (bad := np.argwhere(flags != 1)).size:
            row = int(starts[bad[0, 0]] + bad[0, 1])
            raise CacheError(f"{self._where} has no features for row {row}: its picture was not readable. {_DO}")
        for shard in touched:
            if not self._whole[shard]:
                self._whole[shard] = bool((self._flags(shard) == 1).all())

    def require_numbers(self) -> None:
        """Raise CacheError unless there are numbers for every row."""
        if self.of_bytes:
            name = repr(self._name)
            raise CacheError(f"{self._where} holds bytes, not numbers: Split.blobs({name}, rows) reads them.")

    def blobs(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The bytes of (N,) rows, in their order. Raises CacheError for rows that the stream does not have."""
        if self._at is None:
            raise CacheError(f"{self._where} holds numbers, not bytes: Split.read reads them.")
        shard = rows // self._geometry.rows_per_shard
        there = (rows >= 0) & (shard < len(self._has))
        there[there] = self._has[shard[there]]
        for number in np.unique(shard[there]).tolist():
            there[shard == number] = rows[shard == number] < shard_rows(self.commit.manifest, number).stop
        if not there.all():
            raise self._without_bytes(int(rows[np.argmin(there)]), "the stream does not have it, or not yet")
        places = np.empty((len(rows), 1, 2), np.int64)
        self._at.read(rows, 1, places)
        if (bad := np.flatnonzero(places[:, 0, 0] < 0)).size:
            row, flag = rows[bad[:1]], np.empty((1, 1), np.uint8)
            self._ok.read(row, 1, flag)
            why = "its picture was not readable" if flag[0, 0] == 0 else "it is of no track"
            raise self._without_bytes(int(row[0]), why)
        place = self.commit.place
        where = place.store.where(place.array(f"{self._name}_at"))
        require_own_room(places[:, 0], rows, self._geometry.rows_per_shard, where, place.repair)
        return read_rows(self.features, places[:, 0])

    def _without_bytes(self, row: int, why: str) -> CacheError:
        return CacheError(f"{self._where} has no bytes for row {row}: {why}. {_DO}")


@functools.lru_cache(1024)
def _all_ok(n_rows: int, geometry: Geometry) -> str:
    """The record of a shard of flags that are all 1: it says so, and nobody has to read them."""
    spec = stream_columns("any", 1, "float16")["any_ok"]
    return shards.record(shards.encode(np.ones(n_rows, np.uint8), spec, geometry), geometry, "")


class Guard:
    """Notices, when a shard has been opened, that the shards of an open commit have been replaced since.

    Asked after the opening: what was opened before the answer was of the state that the answer is about. Ordinary
    commits only add shards: then nothing that is open is affected.
    """

    def __init__(self, commit: Commit) -> None:
        self._place, self._tag, self._shards = commit.place, commit.tag, commit.manifest["shards"]

    def __call__(self) -> None:
        place = self._place
        if place.store.tag(place.manifest) == self._tag:
            return
        current = read_manifest(place)
        newer, tag = ({}, None) if current is None else (current[0]["shards"], current[1])
        for array, records in self._shards.items():
            if not records.items() <= newer.get(array, {}).items():
                where = place.store.where(place.home)
                raise CacheChanged(f"{where}: has been replaced since it was opened: open it again")
        self._tag = tag


def open_lazily(commit: Commit, array: str, guard: Guard) -> zarr.Array[Any]:
    """One array that a commit names, as zarr's. It raises CacheError for a missing shard, CacheChanged for another."""
    from cache.read.strict_store import Watched  # imports zarr, which takes its time

    metadata = json.loads(bytes(commit.files[f"{array}/zarr.json"]))
    trailing = tuple(metadata["shape"][1:])
    named = [shard_key("", int(shard), trailing)[1:] for shard in commit.manifest["shards"][array]]
    store, folder = commit.place.store, commit.place.array(array)
    return zarr_array(Watched(store.zarr(folder), store.where(folder), named, guard), metadata)


def open_column(commit: Commit, array: str, guard: Guard) -> Rows:
    """The reader of one array that a commit names."""
    metadata = bytes(commit.files[f"{array}/zarr.json"])
    records = commit.manifest["shards"][array]
    return open_rows(commit.place.store, commit.place.array(array), metadata, records=records, guard=guard)
