"""Read rows of one array: from memory-mapped shards on a disk, or by byte ranges from an object
store.  features -> [windows]

`Rows` is the interface, and `Rows.open` chooses `_MappedRows` (disk) or `_RangedRows` (object
store). Row r is in chunk r // rows_per_chunk of the array. The chunks of a shard are stored one
after the other, so a reader maps the file, checks its index once, and slices it. For small windows,
that is a hundred times as fast as zarr-python. A chunk's checksum is compared when its rows are
first read. The loop over windows is plain Python, takes no lock, and makes one system call per
batch and shard; threads would not help, since the speed of memory limits copying.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import resource
import weakref
from abc import ABC, abstractmethod
from collections import ChainMap, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from cache.arrays import Array, Ints
from cache.errors import CacheError
from cache.format import shard as shards
from cache.format.layout import shard_key
from cache.format.place import Place
from cache.format.shard import ShardLayout
from cache.read.copying import copy_rows
from cache.storage.object_store import map_parallel
from cache.windows import spread

_TOO_MANY_FILES: Final = (errno.EMFILE, errno.ENFILE)
_MOST_SHARDS: Final = 16384  # most open shards: a quarter of the maps that Linux allows a process
# shards of an object store to fetch at once; a batch that needs more is read in parts, so that
# memory stays bounded
_SHARDS_AT_ONCE: Final = 64

_ByteRange = tuple[memoryview, int, int]  # a shard's bytes; the range's first and last byte + 1


class _ChunkParts(NamedTuple):
    """Windows that are cut where they cross chunks: one part for each chunk that a window touches.
    Chunks are counted through all shards of the array: chunk c is chunk c % n of shard c // n, if a
    shard has n chunks (`Geometry.chunks`).

    The parts of the first window come first, in order of rows. So the parts, one after the other,
    are the rows of a batch (B * seqlen, *trailing).
    """

    chunk: Ints  # (n_parts,) number of each part's chunk in the array
    first: Ints  # (n_parts,) its first row in the chunk
    n_rows: Ints  # (n_parts,)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array of a commit, as `Rows` reads it."""

    place: Place  # the split or stream
    layout: ShardLayout  # the column, and how its rows are arranged in the shard files
    n_rows: int
    # the manifest's record of each shard, by its number as text; the file must have its size
    records: Mapping[str, str]
    # called after opening a shard, with unreadable=<its location> if it cannot be; raises when the
    # array has been replaced
    check_current: Callable[..., None]


class Rows(ABC):
    """Reads rows of one array. Threads may read at the same time; so may forked processes, unless
    the array is in an object store.
    """

    @staticmethod
    def open(array: StoredArray) -> Rows:
        """Make the reader for the store of the array."""
        if array.place.store.folder() is None:
            return _RangedRows(array)
        return _MappedRows(array)

    def __init__(self, array: StoredArray) -> None:
        self._store = array.place.store
        self._array_key = array.place.array_key(array.layout.column.name)
        self._layout = array.layout
        self._n_rows = array.n_rows
        self._records = array.records
        self._check_current = array.check_current
        self._location = self._store.location(self._array_key)
        self.trailing = array.layout.column.shape
        self.dtype = array.layout.column.dtype
        self._geometry = array.layout.geometry

    def read(self, starts: Ints, seqlen: int, out: Array) -> None:
        """Fill `out` (B, T, *trailing) with rows [start, start + seqlen) for each of `starts`, one
        after the other, converted to the dtype of `out`. `starts` are those of B windows, with
        seqlen = T; or B * T single rows, with seqlen = 1.

        Raises CacheError for rows beyond the array, and for shards that are missing, short or
        damaged.
        """
        if not out.size:
            return
        first = int(starts.min())
        end = int(starts.max()) + seqlen
        if first < 0 or end > self._n_rows:
            raise CacheError.at(
                self._location,
                expected=f"rows of 0 to {self._n_rows}",
                found=f"[{first}, {end})",
                do="Take rows of tracks, of a stream those that are extracted.",
            )
        if out.flags.c_contiguous:
            self._fill(starts, seqlen, out)
        else:
            contiguous = np.empty(out.shape, self.dtype)
            self._fill(starts, seqlen, contiguous)
            out[...] = contiguous

    def read_windows(self, starts: Ints, seqlen: int) -> Array:
        """Read windows into a new array (B, seqlen, *trailing), as stored."""
        rows = np.empty((len(starts), seqlen, *self.trailing), self.dtype.newbyteorder("="))
        self.read(starts, seqlen, rows)
        return rows

    def forget(self, start: int, stop: int) -> None:  # noqa: B027  most readers keep nothing
        """Let the memory go in which rows [start, stop) are mapped; they can be read again."""

    @abstractmethod
    def _fill(self, starts: Ints, seqlen: int, out: Array) -> None:
        """Fill `out`, which is contiguous, as `read` does. The array has the rows."""


class _MappedRows(Rows):
    """Rows in shard files on a disk, which are memory-mapped and stay open between reads."""

    def __init__(self, array: StoredArray) -> None:
        super().__init__(array)
        self._row_bytes = self._layout.column.row_bytes
        # Open shards by number; `_POOL` limits how many all readers have. Readers do not share
        # maps: a split that is opened again reads the files that exist now.
        self._maps: dict[int, _MappedShard] = {}
        n_chunks = self._geometry.shards(self._n_rows) * self._geometry.chunks
        self._is_checked = bytearray(n_chunks)  # whether each chunk's checksum was compared

    def forget(self, start: int, stop: int) -> None:
        size = self._geometry.rows_per_shard
        for shard in range(start // size, -(-stop // size)):
            if shard in self._maps:
                self._maps[shard].forget()

    def close_shard(self, shard: int) -> None:
        """Close a shard, if it is open. It is unmapped when its last view is deleted."""
        self._maps.pop(shard, None)

    def _fill(self, starts: Ints, seqlen: int, out: Array) -> None:
        if seqlen == 1:
            self._gather(starts, out.reshape(-1, *self.trailing))
            return
        ranges = self._byte_ranges(starts, seqlen)
        if out.dtype == self.dtype:
            _copy_bytes(ranges, out)
        else:
            self._convert(ranges, out.reshape(-1, *self.trailing))

    def _convert(self, ranges: Iterator[_ByteRange], out: Array) -> None:
        """Fill `out` (N, *trailing) with the rows of byte ranges, converted to its dtype."""
        n_filled = 0
        for data, first, stop in ranges:
            n_rows = (stop - first) // self._row_bytes
            stored = np.ndarray((n_rows, *self.trailing), self.dtype, data, first)
            copy_rows(stored, out[n_filled : n_filled + n_rows])
            n_filled += n_rows

    def _gather(self, rows: Ints, out: Array) -> None:
        """Fill `out` (N, *trailing) with single rows, in one copy for those of a shard that follow
        one another: the loop over `_byte_ranges` would take longer than the copies.
        """
        chunk, first = np.divmod(rows, self._geometry.rows_per_chunk)
        shard_of = chunk // self._geometry.chunks
        begins = [0, *(np.flatnonzero(np.diff(shard_of)) + 1).tolist(), len(rows)]
        for begin, end in itertools.pairwise(begins):
            shard = int(shard_of[begin])
            opened = self._open_shard(shard)
            for number in np.unique(chunk[begin:end]).tolist():
                if not self._is_checked[number]:
                    self._check_chunk(number, shard, opened)
            numbers = chunk[begin:end] - shard * self._geometry.chunks
            stored = self._layout.rows(opened.data, opened.n_chunks)[numbers, first[begin:end]]
            copy_rows(stored.view(self.dtype).reshape(-1, *self.trailing), out[begin:end])

    def _byte_ranges(self, starts: Ints, seqlen: int) -> Iterator[_ByteRange]:
        """Yield the byte ranges of the windows, in order, with checksums compared. A window that
        crosses chunks has several ranges.
        """
        parts = _cut_at_chunks(starts, seqlen, self._geometry.rows_per_chunk)
        shards_of_parts = parts.chunk // self._geometry.chunks
        numbers = parts.chunk - shards_of_parts * self._geometry.chunks  # of chunks in their shard
        first = self._layout.first_byte(numbers) + parts.first * self._row_bytes
        stop = first + parts.n_rows * self._row_bytes
        current: set[int] = set()  # shards that are known to be open, with their present size
        columns = (parts.chunk, shards_of_parts, first, stop)
        for chunk, shard, begin, end in zip(*[column.tolist() for column in columns], strict=True):
            opened = self._maps.get(shard)
            if opened is None or shard not in current:
                opened = self._open_shard(shard)
                current.add(shard)
            if not self._is_checked[chunk]:
                self._check_chunk(chunk, shard, opened)
            yield opened.data, begin, end

    def _check_chunk(self, chunk: int, shard: int, opened: _MappedShard) -> None:
        """Compare the checksum of a chunk. Raises CacheError if it is missing or damaged."""
        number = chunk - shard * self._geometry.chunks
        if number >= opened.n_chunks:
            raise _missing_chunk(self._file(shard), number)
        if not opened.is_intact(number):
            self._maps.clear()  # the next read opens the repaired files
            raise self._layout.damaged_chunk(self._file(shard), number)
        self._is_checked[chunk] = True

    def _open_shard(self, shard: int) -> _MappedShard:
        """Return the open shard, or open it. A file whose size has changed is opened again."""
        opened = self._maps.get(shard)
        if opened is None or opened.file_size() != opened.size:
            record = self._records.get(str(shard))
            try:
                opened = _POOL.map(self._file(shard), self._layout, record)
            except CacheError:  # a shard that is missing after a later commit is no damage
                self._check_current(unreadable=self._file(shard))
                raise
            self._check_current()
            self._maps[shard] = opened
            _POOL.add(self, shard)
        return opened

    def _file(self, shard: int) -> str:
        return shard_key(self._location, shard, self.trailing)


class _MappedShard:
    """One memory-mapped shard file. Opening it raises CacheError if it is missing or damaged."""

    __slots__ = ("_layout", "_map", "data", "file_size", "n_chunks", "size")

    def __init__(self, file: str, layout: ShardLayout, record: str | None) -> None:
        if record is None:  # the file belongs to an unfinished commit
            raise shards.missing(file)
        try:
            # without O_NONBLOCK, opening a pipe would wait; its size 0 is then reported as damage
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise shards.missing(file) from None
        self._layout = layout
        try:
            self.size = os.fstat(fd).st_size
            self.n_chunks = layout.count_chunks(file, self.size, record)
            self._map = mmap.mmap(fd, self.size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        # Reading a map beyond the end of its file kills the process (SIGBUS): callers compare
        # `file_size()`, the size now, with `size` before they read.
        self.file_size = self._map.size
        self.data = memoryview(self._map)  # read-only, as the map is
        index = self._map[layout.first_byte(self.n_chunks) :]
        layout.check_index(file, index, self.n_chunks)

    def forget(self) -> None:
        """Unmap its pages until they are read again."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def is_intact(self, number: int) -> bool:
        """Whether a chunk's bytes match the checksum that follows them."""
        n_bytes = self._layout.chunk_bytes
        first = self._layout.first_byte(number)
        # On a cold disk, read the whole chunk at once, not page by page.
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, first + n_bytes - page)
        return self._layout.is_intact(np.frombuffer(self.data, np.uint8, n_bytes, first))


class _ShardPool:
    """The shards that the readers of this process have open, at most half of its file descriptors.

    An entry whose reader is gone, or has dropped the shard itself, stays until it is the oldest: it
    counts as open. Closing it does nothing, or closes the shard that the reader has opened again,
    which it then opens once more.
    """

    def __init__(self) -> None:
        # each reader and the shard's number, oldest first; threads take no lock
        self._opened: deque[tuple[weakref.ref[_MappedRows], int]] = deque()

    def map(self, file: str, layout: ShardLayout, record: str | None) -> _MappedShard:
        """Map a shard, and close the oldest ones before: all of them if the process has no file
        descriptor left. The reader then adds it.
        """
        self._close_oldest(self.limit())
        try:
            return _MappedShard(file, layout, record)
        except OSError as error:
            if error.errno not in _TOO_MANY_FILES:
                raise
        self._close_oldest(0)  # other code uses the remaining descriptors
        return _MappedShard(file, layout, record)

    def add(self, reader: _MappedRows, shard: int) -> None:
        """Note that a reader has opened a shard."""
        self._opened.append((weakref.ref(reader), shard))

    def limit(self) -> int:
        """How many shards may be open. Read each time: the system's limit may change."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return _MOST_SHARDS
        return min(max(soft // 2, 16), _MOST_SHARDS)

    def _close_oldest(self, limit: int) -> None:
        """Close the oldest shards until fewer than `limit` are open, or none is left."""
        with suppress(IndexError):  # none is left; other threads may close shards, too
            while len(self._opened) >= limit:
                reference, shard = self._opened.popleft()
                reader = reference()
                if reader is not None:
                    reader.close_shard(shard)


_POOL: Final = _ShardPool()


class _RangedRows(Rows):
    """Rows in an object store, of which only the needed chunks are fetched."""

    def __init__(self, array: StoredArray) -> None:
        super().__init__(array)
        self._n_chunks: dict[int, int] = {}  # how many chunks each shard has, once it is known

    def _fill(self, starts: Ints, seqlen: int, out: Array) -> None:
        parts = _cut_at_chunks(starts, seqlen, self._geometry.rows_per_chunk)
        rows = out.reshape(-1, *self.trailing)  # of the batch: one part after the other
        begins = np.cumsum(parts.n_rows) - parts.n_rows  # the first of each part

        chunks = np.unique(parts.chunk)  # ascending, each once
        is_next_shard = np.diff(chunks // self._geometry.chunks) > 0
        by_shard = np.split(chunks, np.flatnonzero(is_next_shard) + 1)  # one array for each shard
        for n_done in range(0, len(by_shard), _SHARDS_AT_ONCE):
            parts_of_rows = map_parallel(self._fetch, by_shard[n_done:][:_SHARDS_AT_ONCE])
            self._check_current()  # afterwards: all rows are of the commit that it allows
            fetched = dict(ChainMap(*parts_of_rows))  # chunk -> its rows
            is_fetched = np.isin(parts.chunk, list(fetched))
            for part in np.flatnonzero(is_fetched).tolist():
                chunk = fetched[int(parts.chunk[part])]
                n_rows = parts.n_rows[part]
                stored = chunk[parts.first[part] :][:n_rows]
                copy_rows(stored, rows[begins[part] :][:n_rows])

    def _fetch(self, chunks: Ints) -> dict[int, Array]:
        """Fetch chunks of one shard, compare their checksums, and return their rows by the chunk's
        number in the array.
        """
        shard = int(chunks[0]) // self._geometry.chunks
        key = shard_key(self._array_key, shard, self.trailing)
        try:
            return self._fetch_shard(shard, key, chunks)
        except CacheError:  # a shard that is missing after a later commit is no damage
            self._check_current(unreadable=self._store.location(key))
            raise

    def _fetch_shard(self, shard: int, key: str, chunks: Ints) -> dict[int, Array]:
        """Fetch chunks of this shard, as `_fetch` does."""
        geometry = self._geometry
        location = self._store.location(key)
        numbers = (chunks - shard * geometry.chunks).tolist()
        try:
            n_chunks = self._count_chunks(shard, key)
            if numbers[-1] >= n_chunks:
                raise _missing_chunk(location, numbers[-1])
            begins = [*map(self._layout.first_byte, numbers)]
            parts = self._store.read_ranges(key, begins, self._layout.chunk_bytes)
        except FileNotFoundError:
            raise shards.missing(location) from None
        rows = {}
        for chunk, number, data in zip(chunks.tolist(), numbers, parts, strict=True):
            if not self._layout.is_intact(data):
                raise self._layout.damaged_chunk(location, number)
            rows[chunk] = self._layout.decode(data)
        return rows

    def _count_chunks(self, shard: int, key: str) -> int:
        """The number of chunks of a shard, whose size is checked the first time."""
        if shard not in self._n_chunks:
            size = self._store.size(key)
            record = self._records.get(str(shard))
            # without a record, the object belongs to an unfinished commit
            if size is None or record is None:
                raise FileNotFoundError(key)
            location = self._store.location(key)
            self._n_chunks[shard] = self._layout.count_chunks(location, size, record)
        return self._n_chunks[shard]


def _cut_at_chunks(starts: Ints, seqlen: int, rows_per_chunk: int) -> _ChunkParts:
    """Cut windows where they cross chunks. Two windows of 4 rows, in chunks of 8 rows:

    >>> [column.tolist() for column in _cut_at_chunks(np.array([6, 0]), 4, 8)]
    [[0, 1, 0], [6, 0, 0], [2, 2, 4]]
    """
    chunk = starts // rows_per_chunk  # of each window's first row
    first = starts - chunk * rows_per_chunk  # that row in the chunk
    n_parts = (first + (seqlen - 1)) // rows_per_chunk + 1
    if n_parts.max() == 1:
        return _ChunkParts(chunk, first, np.full(len(starts), seqlen))
    window, nth = spread(n_parts)  # of each part, and which part of that window it is
    # The window begins in its first part's chunk. In the nth chunk after it, the part begins at
    # row 0, and the window ends `nth * rows_per_chunk` rows sooner.
    part_first = np.where(nth == 0, first[window], 0)
    stop = np.minimum(first[window] + seqlen - nth * rows_per_chunk, rows_per_chunk)
    return _ChunkParts(chunk[window] + nth, part_first, stop - part_first)


def _missing_chunk(file: str, number: int) -> CacheError:
    """The error for a shard that ends before a chunk with committed rows."""
    return shards.damage(file, f"chunk {number} of the shard", "a shard without it")


def _copy_bytes(ranges: Iterator[_ByteRange], out: Array) -> None:
    """Fill `out`, which has the stored dtype, with byte ranges: faster than copying arrays."""
    target = out.reshape(-1).view(np.uint8).data
    n_filled = 0
    for data, first, stop in ranges:
        end = n_filled + stop - first
        target[n_filled:end] = data[first:stop]
        n_filled = end
