"""One commit of a split or stream, opened for reading.  tracks -> features -> [windows]"""

from __future__ import annotations

from cache.errors import CacheChanged
from cache.format.manifest import Commit, has_shards
from cache.format.shard import ShardLayout
from cache.read.rows import Rows


class _StalenessCheck:
    """A check to call after opening a shard: it raises CacheChanged if shards of the open commit
    have been replaced since. A later commit that still names all of them is allowed.

    Readers refer to this object, not to their `OpenCommit`: so shards are closed as soon as nothing
    else refers to that.
    """

    def __init__(self, commit: Commit) -> None:
        self._place = commit.place
        self._etag = commit.etag
        self._shards = commit.manifest["shards"]

    def __call__(self) -> None:
        place = self._place
        if place.store.etag(place.manifest) == self._etag:
            return
        current = Commit.load_manifest(place)
        if current is None or not has_shards(current.manifest, self._shards):
            home = place.store.location(place.manifest_folder)
            raise CacheChanged(f"{home}: has been replaced since it was opened: open it again")
        self._etag = current.etag


class OpenCommit:
    """One commit, with readers of its arrays, each opened on first use."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.require_current = _StalenessCheck(commit)
        self._readers: dict[str, Rows] = {}  # by array

    def reader(self, array: str) -> Rows:
        """The reader of an array that the manifest names."""
        if array not in self._readers:
            commit = self.commit
            layout = ShardLayout(commit.columns[array], commit.geometry)
            records = commit.manifest["shards"][array]
            self._readers[array] = Rows.open(
                commit.place, layout, commit.extent, records, self.require_current
            )
        return self._readers[array]
