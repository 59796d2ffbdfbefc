"""Rows and whole columns through zarr-python: every layout that Zarr v3 has, slowly.  features -> [windows]

To zarr a missing chunk is fill values, and a replaced file is a file. Here the first is an error where the manifest
names the shard, and so is the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath, WrapperStore

from cache.errors import CacheError
from cache.format import shard as shards
from cache.read.rows import Ints, check_range
from cache.storage.base import Store

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype


def zarr_array(store: ZarrStore, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
    """The array whose folder a zarr store is, read-only, with the given zarr.json instead of the one in its folder."""
    return zarr.Array(zarr.AsyncArray(metadata=dict(metadata), store_path=StorePath(store)))  # type: ignore[call-overload]


class StrictStore(WrapperStore[Any]):
    """One array's folder, read-only.

    Args:
        store: the folder.
        location: the folder's path or URL, for messages.
        named: keys of the shards that the manifest names.
        check_current: called when something has been read, to raise when the array has been replaced since.
    """

    def __init__(
        self, store: ZarrStore, location: str, named: Collection[str], check_current: Callable[[], None]
    ) -> None:
        super().__init__(store)
        self._location, self._named, self._check_current = location, frozenset(named), check_current

    def _with_store(self, store: ZarrStore) -> Self:
        return type(self)(store, self._location, self._named, self._check_current)

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

    def _check(self, key: str, data: Buffer | None) -> None:
        self._check_current()  # first: a shard that is missing because its split was replaced is no damage
        if data is None and key in self._named:
            raise shards.missing(f"{self._location}/{key}")


class ZarrRows:
    """Rows of one array, read by zarr-python. A missing chunk file is an error here, not fill values."""

    def __init__(self, store: Store, array: str, metadata: Mapping[str, Any]) -> None:
        self._store, self._key = store, array
        self._array = zarr_array(store.zarr(array), metadata)
        self._grid: tuple[int, ...] = self._array.shards or self._array.chunks
        self.trailing: tuple[int, ...] = tuple(self._array.shape[1:])
        self.dtype: np.dtype[Any] = np.dtype(self._array.dtype)

    def read(self, starts: Ints, seqlen: int, out: NDArray[Any]) -> None:
        location = self._store.location(self._key)
        check_range(starts, seqlen, self._array.shape[0], location)
        first, last = starts // self._grid[0], (starts + seqlen - 1) // self._grid[0]
        touched = {shard for a, b in zip(first.tolist(), last.tolist(), strict=True) for shard in range(a, b + 1)}
        chunks = [range(-(-size // step)) for size, step in zip(self.trailing, self._grid[1:], strict=True)]
        for number in itertools.product(sorted(touched), *chunks):
            key = f"{self._key}/{self._array.metadata.encode_chunk_key(number)}"
            if not self._store.exists(key):
                raise shards.missing(self._store.location(key))
        for window, start in enumerate(starts.tolist()):
            try:
                out[window] = self._array[start : start + seqlen]
            except (ValueError, OSError) as error:
                do = shards.REPAIR
                raise CacheError.at(location, expected="readable chunks", found=str(error), do=do) from error
