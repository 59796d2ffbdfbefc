"""Arrays of one committed state, and whether it is still the one on the disk.  tracks -> features -> [windows]"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheChanged, CacheError
from cache.format import shard as shards
from cache.format.layout import BYTES, Geometry, shard_key, stream_columns
from cache.format.manifest import Commit, foreign_shards, read_manifest, shard_rows
from cache.read.mapped import MappedRows
from cache.read.ragged import check_places, read_bytes
from cache.read.ranged import RangedRows
from cache.read.rows import Ints, Rows, recognise
from cache.storage.base import Store
from cache.storage.local import LocalStore
from cache.storage.object_store import ObjectStore
from cache.windows import Ranges, join_adjacent, ranges_where

if TYPE_CHECKING:
    import zarr

_DO: Final = "Take windows(stream=...), or extract what is missing."


class StalenessCheck:
    """Notices, when a shard has been opened, that the shards of an open commit have been replaced since.

    Called after the opening: what was opened before the answer was of the state that the answer is about. Ordinary
    commits only add shards: then nothing that is open is affected.
    """

    def __init__(self, commit: Commit) -> None:
        self._place, self._etag, self._shards = commit.place, commit.etag, commit.manifest["shards"]

    def __call__(self) -> None:
        place = self._place
        if place.store.etag(place.manifest) == self._etag:
            return
        current = read_manifest(place)
        newer, etag = ({}, None) if current is None else (current[0]["shards"], current[1])
        for array, records in self._shards.items():
            if not records.items() <= newer.get(array, {}).items():
                home = place.store.location(place.home)
                raise CacheChanged(f"{home}: has been replaced since it was opened: open it again")
        self._etag = etag


def open_rows(
    store: Store,
    array: str,
    metadata: bytes,
    *,
    records: Mapping[str, str] | None = None,
    check_current: Callable[[], None] | None = None,
) -> Rows:
    """The fastest reader there is for an array with this zarr.json; arguments as for MappedRows."""
    meta = json.loads(metadata)
    layout = recognise(meta)
    if layout is not None and isinstance(store, LocalStore):
        return MappedRows(store.path(array), layout, records=records, check_current=check_current)
    if layout is not None and isinstance(store, ObjectStore):
        return RangedRows(store, array, layout, records=records, check_current=check_current)
    from cache.read.zarr_rows import ZarrRows  # here: zarr takes its time to import

    return ZarrRows(store, array, meta)


def open_column(commit: Commit, array: str, check_current: Callable[[], None] | None = None) -> Rows:
    """The reader of one array that a commit names."""
    place, metadata = commit.place, bytes(commit.files[f"{array}/zarr.json"])
    records = commit.manifest["shards"][array]
    return open_rows(place.store, place.array(array), metadata, records=records, check_current=check_current)


def open_lazily(commit: Commit, array: str, check_current: Callable[[], None]) -> zarr.Array[Any]:
    """One array that a commit names, as zarr's. It raises CacheError for a missing shard, CacheChanged for another."""
    from cache.read.zarr_rows import StrictStore, zarr_array

    metadata = json.loads(bytes(commit.files[f"{array}/zarr.json"]))
    trailing = tuple(metadata["shape"][1:])
    named = [shard_key("", int(shard), trailing)[1:] for shard in commit.manifest["shards"][array]]
    store, folder = commit.place.store, commit.place.array(array)
    return zarr_array(StrictStore(store.zarr(folder), store.location(folder), named, check_current), metadata)


class OpenStream:
    """One committed state of a feature stream, and where it has rows. `rows`: manifest of the split it is read for."""

    def __init__(self, split: str, name: str, commit: Commit, rows: Mapping[str, Any]) -> None:
        self.commit = commit
        self._name, self._title = name, f"{split}: stream {name!r}"
        self.check_current = StalenessCheck(commit)
        self.of_bytes = commit.manifest["dtype"] == BYTES
        self.features = open_column(commit, name, self.check_current)
        self._at = open_column(commit, f"{name}_at", self.check_current) if self.of_bytes else None
        self._ok = open_column(commit, f"{name}_ok", self.check_current)
        self._geometry = Geometry(**commit.manifest["geometry"])
        self._has = np.zeros(self._geometry.shards(int(commit.manifest["extent"])), bool)
        self._has[[int(shard) for shard in commit.manifest["shards"][name]]] = True
        self._has[foreign_shards(commit.manifest, rows)] = False  # of other rows
        self._complete = np.zeros(len(self._has), bool)  # shards that are known to have every row

    @property
    def shards(self) -> list[int]:
        """Those that it has, ascending."""
        return list(map(int, np.flatnonzero(self._has)))

    def rows_with_flag(self, flag: int) -> Ranges:
        """Row ranges with ok = `flag`, ascending: 1: with features; 0: of pictures that could not be decoded.

        Rows of replaced tracks, too. Reads the flags one shard at a time, and only where they are not all 1.
        """
        size, name = self._geometry.rows_per_shard, f"{self._name}_ok"
        found = [np.zeros((0, 2), np.int64)]
        for shard in self.shards:
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

    def require(self, starts: Ints, seqlen: int) -> None:
        """Raise CacheError unless the stream has numbers for every row of the windows."""
        if self.of_bytes:
            raise CacheError(f"{self._title} holds bytes, not numbers: Split.blobs({self._name!r}, rows) reads them.")
        if not len(starts):
            return
        size = self._geometry.rows_per_shard
        first, last = starts // size, (starts + (seqlen - 1)) // size
        if last.max() < len(self._complete):
            before = np.concatenate([[0], np.cumsum(~self._complete)])  # shards before each one not known complete
            if np.array_equal(before[first], before[last + 1]):
                return
        reached = set(zip(first.tolist(), last.tolist(), strict=True))
        touched = sorted({shard for a, b in reached for shard in range(a, b + 1)})
        for shard in touched:
            if shard >= len(self._has) or not self._has[shard]:
                raise CacheError(f"{self._title} does not have shard {shard} yet. {_DO}")
        flags = np.empty((len(starts), seqlen), np.uint8)
        self._ok.read(starts, seqlen, flags)
        if (bad := np.argwhere(flags != 1)).size:
            row = int(starts[bad[0, 0]] + bad[0, 1])
            raise CacheError(f"{self._title} has no features for row {row}: its picture was not readable. {_DO}")
        for shard in touched:
            if not self._complete[shard]:
                self._complete[shard] = bool((self._flags(shard) == 1).all())

    def blobs(self, rows: Ints) -> list[bytes]:
        """The bytes of (N,) rows, in their order. Raises CacheError for rows that the stream does not have."""
        if self._at is None:
            raise CacheError(f"{self._title} holds numbers, not bytes: Split.read reads them.")
        shard = rows // self._geometry.rows_per_shard
        has = (rows >= 0) & (shard < len(self._has))
        has[has] = self._has[shard[has]]
        for number in np.unique(shard[has]).tolist():
            has[shard == number] = rows[shard == number] < shard_rows(self.commit.manifest, number).stop
        why = "the stream does not have it, or not yet"
        places = np.empty((len(rows), 1, 2), np.int64)
        if has.all():
            self._at.read(rows, 1, places)
            has = places[:, 0, 0] >= 0
            why = "its picture was not readable, or it is of no track"
        if not has.all():
            raise CacheError(f"{self._title} has no bytes for row {rows[np.argmin(has)]}: {why}. {_DO}")
        location = self.commit.place.store.location(self.commit.place.array(f"{self._name}_at"))
        check_places(places[:, 0], rows, self._geometry.rows_per_shard, location)
        return read_bytes(self.features, places[:, 0])


@functools.lru_cache(1024)
def _all_ok(n_rows: int, geometry: Geometry) -> str:
    """The record of a shard of flags that are all 1: known without reading them."""
    spec = stream_columns("any", 1, "float16")["any_ok"]
    return shards.record(shards.encode(np.ones(n_rows, np.uint8), spec, geometry), geometry, "")
