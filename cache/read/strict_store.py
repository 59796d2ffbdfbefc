"""A zarr store that says when what it reads is not of the opened state.  tracks -> features -> [windows]

To zarr a missing chunk is fill values, and a replaced file is a file. Here the first is an error where the manifest
names the shard, and the second is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Self

from zarr.storage import WrapperStore

from cache.errors import CacheError
from cache.format import shard

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype


class Watched(WrapperStore[Any]):
    """One array's folder, read-only.

    Args:
        store: the folder.
        where: the folder's path or URL, for messages.
        named: keys of the shards that the manifest names.
        guard: called when something has been read, to raise when the array has been replaced since it was opened.
    """

    def __init__(self, store: ZarrStore, where: str, named: Collection[str], guard: Callable[[], None]) -> None:
        super().__init__(store)
        self._where, self._named, self._guard = where, frozenset(named), guard

    def _with_store(self, store: ZarrStore) -> Self:
        return type(self)(store, self._where, self._named, self._guard)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        self._check(key, found)
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        found = await super().get_partial_values(prototype, wanted)
        for (key, _), data in zip(wanted, found, strict=True):
            self._check(key, data)
        return found

    def _check(self, key: str, found: Buffer | None) -> None:
        self._guard()  # first: a shard that is gone since its split was replaced is no damage
        if found is None and key in self._named:
            raise CacheError.at(f"{self._where}/{key}", expected="a shard", found="no file", do=shard.REPAIR)
