"""Windows straight out of mapped shards.  tracks -> features -> [windows] -> training

An uncompressed shard is the rows themselves at offsets that its index gives: map the file, read the index once, slice.
zarr-python does about a thousand small windows a second; this does a hundred times that. Only what `recognise` accepts
is read this way; `cache.zarr_rows` reads everything else, with equal results.
"""

from __future__ import annotations

import itertools
import mmap
import os
import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import shards
from cache.errors import CacheError
from cache.float16 import fill

_TYPES: Final = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)


@dataclass(frozen=True, slots=True)
class DirectLayout:
    """What there is to know about an array in order to find a row of it in a file."""

    n_rows: int
    trailing: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_shard: int
    rows_per_chunk: int
    checksums: bool
    index_first: bool
    separator: str

    @property
    def chunks(self) -> int:
        return self.rows_per_shard // self.rows_per_chunk

    def key(self, array: str, shard: int) -> str:
        """The shard's file below the store's root, by its array's folder there."""
        return f"{array}/{self.separator.join(['c', str(shard), *('0' for _ in self.trailing)])}"


def recognise(metadata: Mapping[str, Any]) -> DirectLayout | None:
    """The layout of an array by its zarr.json, or None when it is none that can be sliced out of a mapped file."""
    shape = tuple(metadata["shape"])
    codecs, grid, keys = metadata["codecs"], metadata["chunk_grid"], metadata["chunk_key_encoding"]
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed" or metadata.get("storage_transformers"):
        return None
    if grid["name"] != "regular" or keys["name"] != "default" or metadata["data_type"] not in _TYPES or not shape:
        return None
    sharding = codecs[0]["configuration"]
    outer, inner = tuple(grid["configuration"]["chunk_shape"]), tuple(sharding["chunk_shape"])
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    names = [codec["name"] for codec in sharding["codecs"]]
    if (
        outer[1:] != shape[1:]
        or inner[1:] != shape[1:]
        or names not in (["bytes"], ["bytes", "crc32c"])
        or not _little(sharding["codecs"][0], dtype)
        or [codec["name"] for codec in sharding["index_codecs"]] != ["bytes", "crc32c"]
        or not _little(sharding["index_codecs"][0], np.dtype("<u8"))
    ):
        return None
    return DirectLayout(
        n_rows=shape[0],
        trailing=shape[1:],
        dtype=dtype,
        rows_per_shard=outer[0],
        rows_per_chunk=inner[0],
        checksums=len(names) == 2,
        index_first=sharding.get("index_location", "end") == "start",
        separator=keys.get("configuration", {}).get("separator", "/"),
    )


def _little(codec: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize == 1 or codec.get("configuration", {}).get("endian") == "little"


class DirectRows:
    """Rows of one array, read from mapped shards.

    Args:
        array: the array's folder.
        layout: from `recognise`.
        records: the manifest's record of each shard by its number as text; None: sizes are not compared.
        guard: called when a shard has been opened, to raise when the array has been replaced since.
    """

    def __init__(
        self,
        array: Path,
        layout: DirectLayout,
        *,
        records: Mapping[str, str] | None = None,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self._array, self._layout, self._records, self._guard = array, layout, records, guard
        self.trailing, self.dtype = layout.trailing, layout.dtype
        # Maps are not shared between readers: who opens a split again sees the files that are there now.
        self._owner = next(_OWNERS)
        weakref.finalize(self, _OPEN.forget, self._owner).atexit = False
        n_shards = -(-layout.n_rows // layout.rows_per_shard)
        self._checked = bytearray(n_shards * layout.chunks)  # 1 where this process has checked the checksum

    def read(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> None:
        """Fill out (B, seqlen, *trailing) with rows [start, start + seqlen) for every one of (B,) starts.

        Raises CacheError for rows beyond the array, and for shards that are missing, short or damaged.
        """
        if len(starts) and (starts.min() < 0 or starts.max() + seqlen > self._layout.n_rows):
            found = f"rows up to {int(starts.max()) + seqlen}"
            raise CacheError.at(self._array, expected=f"{self._layout.n_rows} rows", found=found, do="Open it again.")
        chunks = self._layout.chunks
        shard, opened = -1, None
        for window, at, chunk, low, high in _pieces(starts, seqlen, self._layout.rows_per_chunk):
            if chunk // chunks != shard or opened is None:
                shard = chunk // chunks
                opened = self._open(shard)
            rows = opened.chunk(chunk % chunks)
            if not self._checked[chunk]:
                self._check(opened, shard, chunk)
            fill(out[window, at : at + high - low], rows[low:high])

    def _open(self, shard: int) -> _OpenShard:
        found = _OPEN.get((self._owner, shard))
        if found is None or found.cut:
            record = None if self._records is None else self._records.get(str(shard))
            try:
                found = _OpenShard(self._file(shard), self._layout, record)
            finally:
                # Afterwards: what is open now is of the state that the guard speaks of. A shard that is gone since
                # its split was replaced is no damage.
                if self._guard is not None:
                    self._guard()
            _OPEN.put((self._owner, shard), found)
        return found

    def _check(self, opened: _OpenShard, shard: int, chunk: int) -> None:
        if self._layout.checksums and not opened.intact(chunk % self._layout.chunks):
            first = chunk % self._layout.chunks * self._layout.rows_per_chunk
            _OPEN.forget(self._owner)
            raise shards.damaged_chunk(str(self._file(shard)), chunk % self._layout.chunks, first)
        self._checked[chunk] = 1

    def _file(self, shard: int) -> Path:
        return Path(self._layout.key(str(self._array), shard))


class _OpenShard:
    """One mapped shard and its index."""

    __slots__ = ("_bytes", "_file", "_layout", "_map", "_offsets", "_shape", "_size")

    def __init__(self, file: Path, layout: DirectLayout, record: str | None) -> None:
        self._file, self._layout = file, layout
        tail = layout.chunks * 16 + 4
        expected = f"a shard of {record.partition(':')[0]} bytes" if record else "a shard"
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise CacheError.at(file, expected=expected, found="no file", do=shards.REPAIR) from None
        try:
            size = os.fstat(fd).st_size
            if size < tail or (record and size != int(record.partition(":")[0])):
                raise CacheError.at(file, expected=expected, found=f"{size} bytes", do=shards.REPAIR)
            self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._size = size
        packed = self._map[:tail] if layout.index_first else self._map[size - tail :]
        index = shards.parse_index(packed, layout.chunks, size, str(file))
        self._shape = (layout.rows_per_chunk, *layout.trailing)
        self._bytes = int(np.prod(self._shape)) * layout.dtype.itemsize
        held = index[:, 0] != shards.ABSENT
        if (index[held, 1] != self._bytes + 4 * layout.checksums).any():
            found = "chunks of another size"
            raise CacheError.at(file, expected=f"chunks of {self._bytes} bytes", found=found, do=shards.REPAIR)
        self._offsets: list[int] = np.where(held, index[:, 0].astype(np.int64), -1).tolist()

    @property
    def cut(self) -> bool:
        """Whether the file has another length by now: reading a map beyond its file's end would end the process."""
        return self._map.size() != self._size

    def chunk(self, number: int) -> NDArray[Any]:
        """(rows_per_chunk, *trailing), a view of the file."""
        offset = self._offsets[number]
        if offset < 0:
            found = "a shard without it"
            raise CacheError.at(self._file, expected=f"chunk {number} of the shard", found=found, do=shards.REPAIR)
        return np.ndarray(self._shape, self._layout.dtype, self._map, offset)

    def intact(self, number: int) -> bool:
        """Whether a chunk's bytes match the checksum behind them."""
        stop = self._offsets[number] + self._bytes
        return shards.crc32c(self._map[self._offsets[number] : stop]) == self._map[stop : stop + 4]


_Key = tuple[int, int]  # reader, shard


class _OpenShards:
    """The shards that this process holds mapped: the most recently used ones, within its limit of open files."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[_Key, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> _OpenShard | None:
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: _Key, shard: _OpenShard) -> None:
        with self._lock:
            self._held[key] = shard
            while len(self._held) > self._limit:
                self._held.popitem(last=False)  # unmapped when the last view of it is gone

    def forget(self, owner: int) -> None:
        """Let go of all shards of one reader."""
        with self._lock:
            for key in [key for key in self._held if key[0] == owner]:
                del self._held[key]

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it


def _open_file_limit() -> int:
    """A quarter of the files that the process may open: the mapping of a shard keeps one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 16), 4096)


_OWNERS: Final = itertools.count()
_OPEN: Final = _OpenShards(_open_file_limit())
os.register_at_fork(after_in_child=_OPEN.after_fork)


def _pieces(starts: NDArray[np.int64], seqlen: int, rows_per_chunk: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(window, first frame in it, chunk, first and last + 1 row in the chunk) for every chunk that a window touches."""
    first = starts // rows_per_chunk
    count = (starts + seqlen - 1) // rows_per_chunk - first + 1
    window = np.repeat(np.arange(len(starts)), count)
    chunk = np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count) + first[window]
    origin = chunk * rows_per_chunk
    low = np.maximum(starts[window] - origin, 0)
    high = np.minimum(starts[window] + seqlen - origin, rows_per_chunk)
    at = origin + low - starts[window]
    return zip(window.tolist(), at.tolist(), chunk.tolist(), low.tolist(), high.tolist(), strict=True)
