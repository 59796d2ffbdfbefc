"""Write the files of one shard, of a split or a stream.  [cache]"""

from __future__ import annotations

from collections.abc import Mapping

from cache.arrays import Array
from cache.format import layout
from cache.format.layout import Column, Geometry
from cache.format.place import Place
from cache.format.shard import ShardLayout
from cache.write.staged import StagedWork


class ShardFiles:
    """The base of `SplitShards` and `StreamShards`: writes the files of a shard."""

    geometry: Geometry
    """How rows are cut into shards and chunks."""

    def __init__(self, place: Place, columns: Mapping[str, Column], work: StagedWork) -> None:
        self.place = place
        self.columns = columns
        self._store = place.store
        self._work = work

    def _final_keys(self, shard: int) -> dict[str, str]:
        """The keys that a shard's files have when it is committed, by column."""
        keys = {}
        for name, column in self.columns.items():
            keys[name] = layout.shard_key(self.place.array_key(name), shard, column.shape)
        return keys

    def _write_files(
        self, arrays: Mapping[str, Array], keys: Mapping[str, str], temporary: Mapping[str, str]
    ) -> dict[str, str]:
        """Write a shard's rows (n, *shape), durably. Returns the manifest's records of its files.
        All arguments are by column; a file is at its temporary key while it is written.
        """
        records = {}
        for name, column in self.columns.items():
            file, records[name] = ShardLayout(column, self.geometry).encode(arrays[name])
            self._store.put(keys[name], file, temporary=temporary[name])
        return records
