"""Windows straight out of mapped shards.  tracks -> features -> [windows] -> training

An uncompressed shard is the rows themselves at offsets that its index gives: map the file, read the index once, slice.
zarr-python does about a thousand small windows a second; this does a hundred times that. Only what `recognise` accepts
is read this way; `cache.read.rows` reads everything else, with equal results.

A window takes a few microseconds, so what is done once a window counts: the loop of `_pieces` is plain Python on plain
integers, takes no lock, and asks the system once a batch and shard. One thread does it all: copying is as fast as
memory already, and a second thread would wait for the interpreter (measured: slower on two cores).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard as shards
from cache.read.float16 import fill
from cache.read.mapped_shards import NOT_HELD, OPEN_FILES, TOO_MANY, OpenShard

_TYPES: Final = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)

_CHECKED: Final = 1  # states of a chunk; 0: not looked at
_ALL: Final = 2  # checked, and all its flags are 0; one more: all are 1


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
        """In a shard."""
        return self.rows_per_shard // self.rows_per_chunk

    @property
    def row_bytes(self) -> int:
        return math.prod(self.trailing) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Without its checksum."""
        return self.rows_per_chunk * self.row_bytes

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
    """Rows of one array, read from mapped shards. Any number of threads may read at once, and forked children.

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
        self._held: dict[int, OpenShard] = {}
        n_shards = -(-layout.n_rows // layout.rows_per_shard)
        # Of each chunk: has this process checked its checksum, and are all its flags the same?
        self._checked = bytearray(n_shards * layout.chunks)
        self._states = np.frombuffer(self._checked, np.uint8)  # the same bytes
        self._offsets = np.zeros(len(self._checked), np.int64)  # of checked chunks, in their shards

    def read(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> None:
        """Fill out (B, seqlen, *trailing) with rows [start, start + seqlen) for every one of (B,) starts.

        Raises CacheError for rows beyond the array, and for shards that are missing, short or damaged.
        """
        if not out.size:
            return
        if starts.min() < 0 or starts.max() + seqlen > self._layout.n_rows:
            found = f"rows up to {int(starts.max()) + seqlen}"
            raise CacheError.at(self._array, expected=f"{self._layout.n_rows} rows", found=found, do="Open it again.")
        if self._same_flags(starts, seqlen, out):
            return
        if not out.flags.c_contiguous:
            whole = np.empty(out.shape, self.dtype)
            self.read(starts, seqlen, whole)
            out[...] = whole
        elif out.dtype == self.dtype:
            self._copy(starts, seqlen, out.reshape(-1).view(np.uint8).data)
        else:
            self._convert(starts, seqlen, out.reshape(-1, *self.trailing))

    def _same_flags(self, starts: NDArray[np.int64], seqlen: int, out: NDArray[Any]) -> bool:
        """Fill `out` without a look at the files, where every window lies in chunks that are known to be all 0 or 1."""
        if self.dtype != np.uint8 or self.trailing or seqlen > self._layout.rows_per_chunk:
            return False
        first = self._states[starts // self._layout.rows_per_chunk]
        last = self._states[(starts + seqlen - 1) // self._layout.rows_per_chunk]
        if first.min() < _ALL or not np.array_equal(first, last):
            return False
        out[...] = (first - _ALL)[:, None]
        return True

    def _copy(self, starts: NDArray[np.int64], seqlen: int, target: memoryview) -> None:
        """Fill `target` with the bytes of the windows, one after the other."""
        at = 0
        for data, first, stop in self._pieces(starts, seqlen):
            end = at + stop - first
            target[at:end] = data[first:stop]
            at = end

    def _convert(self, starts: NDArray[np.int64], seqlen: int, target: NDArray[Any]) -> None:
        """Fill `target` (B * seqlen, *trailing), which is of another type, with the rows of the windows."""
        row_bytes, at = self._layout.row_bytes, 0
        for data, first, stop in self._pieces(starts, seqlen):
            n_rows = (stop - first) // row_bytes
            fill(target[at : at + n_rows], np.ndarray((n_rows, *self.trailing), self.dtype, data, first))
            at += n_rows

    def _pieces(self, starts: NDArray[np.int64], seqlen: int) -> Iterator[tuple[memoryview, int, int]]:
        """(a shard's bytes, first, last + 1 of them) of the windows in order, checked; several where chunks end."""
        begin, at_once = 0, OPEN_FILES.at_once()
        while begin < len(starts):
            try:
                found = self._located(starts[begin : begin + at_once], seqlen)
            except OSError as error:
                if error.errno not in TOO_MANY or at_once == 1:
                    raise
                at_once = max(at_once // 4, 1)  # others have files open, too
                continue
            yield from found
            begin += at_once

    def _located(self, starts: NDArray[np.int64], seqlen: int) -> Iterator[tuple[memoryview, int, int]]:
        """The same, of windows whose shards are all open at once."""
        chunk, low, n_rows = chunk_pieces(starts, seqlen, self._layout.rows_per_chunk)
        shard = chunk // self._layout.chunks
        opened = {number: self._ready(number) for number in set(shard.tolist())}
        if not self._states[chunk].all():
            for piece in np.flatnonzero(self._states[chunk] == 0).tolist():
                number = int(shard[piece])
                self._check(opened[number], number, int(chunk[piece]) - number * self._layout.chunks)
        first = self._offsets[chunk] + low * self._layout.row_bytes
        stop = first + n_rows * self._layout.row_bytes
        data = {number: found.data for number, found in opened.items()}
        return zip(map(data.__getitem__, shard.tolist()), first.tolist(), stop.tolist(), strict=True)

    def _ready(self, shard: int) -> OpenShard:
        """A shard that is open, of the length that it had then: behind its end, a map must not be touched."""
        opened = self._held.get(shard)
        if opened is None or opened.file_size() != opened.size:
            opened = self._open(shard)
        opened.used = True
        return opened

    def _open(self, shard: int) -> OpenShard:
        record = None if self._records is None else self._records.get(str(shard))
        file = self._file(shard)
        try:
            found = OPEN_FILES.open(lambda: OpenShard(file, self._layout, record))
        finally:
            # Afterwards: what is open now is of the state that the guard speaks of. A shard that is gone since
            # its split was replaced is no damage.
            if self._guard is not None:
                self._guard()
        self._held[shard] = found
        OPEN_FILES.remember(self, shard, found)
        return found

    def let_go(self, shard: int, opened: OpenShard) -> None:
        """Hold a shard open no longer; it is unmapped when the last view of it is gone."""
        if self._held.get(shard) is opened:
            self._held.pop(shard, None)

    def _check(self, opened: OpenShard, shard: int, number: int) -> None:
        """Raise CacheError unless the shard holds this chunk, with bytes that match the checksum behind them."""
        file = self._file(shard)
        if opened.offsets[number] == NOT_HELD:
            found = "a shard without it"
            raise CacheError.at(file, expected=f"chunk {number} of the shard", found=found, do=shards.REPAIR)
        if self._layout.checksums and not opened.intact(number):
            self._held.clear()  # so that files put right are read at the next attempt
            raise shards.damaged_chunk(str(file), number, number * self._layout.rows_per_chunk)
        chunk = shard * self._layout.chunks + number
        self._offsets[chunk] = opened.offsets[number]  # before the state, which other threads go by
        self._checked[chunk] = self._state_of(opened, number)

    def _state_of(self, opened: OpenShard, number: int) -> int:
        if self.dtype != np.uint8 or self.trailing:
            return _CHECKED
        flags = opened.chunk(number)
        flag = int(flags[0])
        return _ALL + flag if flag <= 1 and (flags == flag).all() else _CHECKED

    def _file(self, shard: int) -> Path:
        return Path(self._layout.key(str(self._array), shard))


def chunk_pieces(
    starts: NDArray[np.int64], seqlen: int, rows_per_chunk: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(chunk, first row in it, rows) of every piece of the windows, in order: one in each chunk that a window touches.

    >>> [column.tolist() for column in chunk_pieces(np.array([6, 0]), 4, 8)]
    [[0, 1, 0], [6, 0, 0], [2, 2, 4]]
    """
    chunk = starts // rows_per_chunk
    low = starts - chunk * rows_per_chunk
    count = (low + (seqlen - 1)) // rows_per_chunk + 1
    if count.max() == 1:
        return chunk, low, np.full(len(starts), seqlen)
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # piece of its window
    before = np.repeat(low, count)
    first = np.where(nth == 0, before, 0)
    stop = np.minimum(before + seqlen - nth * rows_per_chunk, rows_per_chunk)
    return np.repeat(chunk, count) + nth, first, stop - first
