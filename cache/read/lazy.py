"""Open whole columns as lazy arrays of zarr-python.  features -> [windows]

zarr-python itself returns fill values for a missing shard; here, missing and replaced shards raise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import StorePath, WrapperStore

from cache.format.layout import shard_key
from cache.format.shard import missing
from cache.read.streams import OpenCommit

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype


def open_lazily(opened: OpenCommit, array: str) -> zarr.Array[Any]:
    """Open one array of a commit, read-only. Its metadata is derived from the manifest; the stored
    zarr.json is not used.

    Reading it raises CacheError when a shard of the commit is missing, and CacheChanged when its
    shards were replaced.
    """
    commit = opened.commit
    metadata = json.loads(commit.column_metadata(array, commit.extent))
    trailing = tuple(metadata["shape"][1:])
    shards = commit.manifest["shards"][array]
    committed = [shard_key("", int(n), trailing).removeprefix("/") for n in shards]
    store = commit.place.store
    folder = commit.place.array_key(array)
    # not `opened` itself, so that an array does not keep its split open
    strict = _StrictStore(
        store.zarr(folder), store.location(folder), committed, opened.require_current
    )
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=StorePath(strict)))


class _StrictStore(WrapperStore[Any]):
    """One array's folder as a store for zarr-python, which raises if a committed shard is missing.

    Args:
        location: the folder, for messages.
        committed: keys of the committed shards; other files are hidden.

    zarr-python reads the shards of an array with `get` alone: it neither lists keys, nor asks
    whether one exists.
    """

    def __init__(
        self,
        store: ZarrStore,
        location: str,
        committed: Collection[str],
        require_current: Callable[..., None],
    ) -> None:
        super().__init__(store)
        self._location = location
        self._committed = frozenset(committed)
        self._require_current = require_current

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key not in self._committed:  # the file belongs to an unfinished commit
            return None
        data = await super().get(key, prototype, byte_range)
        # Check this first: a shard that is missing after a later commit is no damage.
        location = f"{self._location}/{key}"
        self._require_current(unreadable=location if data is None else None)
        if data is None:
            raise missing(location)
        return data
