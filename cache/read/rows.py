"""Windows through zarr-python: every layout that Zarr v3 has, slowly.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard as shards
from cache.read.mapped import DirectRows, recognise
from cache.read.ranged import RangedRows
from cache.storage.base import Store
from cache.storage.local import Folder
from cache.storage.object_store import Bucket

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store as ZarrStore


class Rows(Protocol):
    """Rows of one array, by whichever way they are read."""

    trailing: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> None: ...


def open_rows(
    store: Store,
    array: str,
    metadata: bytes,
    *,
    records: Mapping[str, str] | None = None,
    guard: Callable[[], None] | None = None,
) -> Rows:
    """The fastest reader there is for an array with this zarr.json; arguments as for DirectRows."""
    meta = json.loads(metadata)
    layout = recognise(meta)
    if layout is not None and isinstance(store, Folder):
        return DirectRows(store.path(array), layout, records=records, guard=guard)
    if layout is not None and isinstance(store, Bucket):
        return RangedRows(store, array, layout, records=records, guard=guard)
    return ZarrRows(store, array, meta)


def open_zarr(store: Store, array: str, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
    """The array as zarr sees it, read-only, with the given zarr.json instead of the one in its folder."""
    return zarr_array(store.zarr(array), metadata)


def zarr_array(store: ZarrStore, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
    """The array whose folder a zarr store is."""
    import zarr
    from zarr.storage import StorePath

    return zarr.Array(zarr.AsyncArray(metadata=dict(metadata), store_path=StorePath(store)))  # type: ignore[call-overload]


class ZarrRows:
    """Rows of one array, read by zarr-python. A missing chunk file is an error here, not fill values."""

    def __init__(self, store: Store, array: str, metadata: Mapping[str, Any]) -> None:
        self._store, self._key = store, array
        self._array = open_zarr(store, array, metadata)
        self._grid: tuple[int, ...] = self._array.shards or self._array.chunks
        self.trailing: tuple[int, ...] = tuple(self._array.shape[1:])
        self.dtype: np.dtype[Any] = np.dtype(self._array.dtype)

    def read(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> None:
        """As DirectRows.read."""
        where = self._store.where(self._key)
        n_rows = self._array.shape[0]
        if len(starts) and (starts.min() < 0 or starts.max() + seqlen > n_rows):
            found = f"rows up to {int(starts.max()) + seqlen}"
            raise CacheError.at(where, expected=f"{n_rows} rows", found=found, do="Open it again.")
        first, last = starts // self._grid[0], (starts + seqlen - 1) // self._grid[0]
        touched = {shard for a, b in zip(first.tolist(), last.tolist(), strict=True) for shard in range(a, b + 1)}
        for shard in sorted(touched):
            self._require(shard)
        for window, start in enumerate(starts.tolist()):
            try:
                out[window] = self._array[start : start + seqlen]
            except (ValueError, OSError) as error:
                do = shards.REPAIR
                raise CacheError.at(where, expected="readable chunks", found=str(error), do=do) from error

    def _require(self, number: int) -> None:
        """Raise CacheError unless every file of the shards `number` along the rows is there."""
        counts = [range(-(-size // step)) for size, step in zip(self.trailing, self._grid[1:], strict=True)]
        for rest in itertools.product(*counts):
            key = f"{self._key}/{self._array.metadata.encode_chunk_key((number, *rest))}"
            if not self._store.exists(key):
                raise CacheError.at(self._store.where(key), expected="a shard", found="no file", do=shards.REPAIR)
