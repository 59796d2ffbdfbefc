"""Read windows from memory-mapped shards.  tracks -> features -> [windows] -> training

The chunks of a shard lie one after the other: map the file, compare its index once, slice. That is a hundred times as
fast as zarr-python for small windows. The loop over windows is plain Python, takes no lock, and makes
one system call per batch and shard; threads would not help, since copying is bound by memory.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format import shard as shards
from cache.format.layout import shard_key
from cache.read.rows import ArrayLayout, check_range, chunk_parts, fill
from cache.windows import Ints

_CHECKED: Final = 1  # states of a chunk; 0: not checked yet
_ALL: Final = 2  # checked, and all its flags are 0; _ALL + 1: all are 1
_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)
_MOST: Final = 16384  # shards: a quarter of the maps that Linux allows a process

ByteRange = tuple[memoryview, int, int]  # a shard's bytes; first, last + 1 of them


class MappedShard:
    """One mapped shard."""

    __slots__ = ("_chunk_bytes", "_map", "data", "file_size", "n_chunks", "size")

    def __init__(self, file: Path, layout: ArrayLayout, record: str | None) -> None:
        if record is None:  # the file belongs to an unfinished commit
            raise shards.missing(str(file))
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise shards.missing(str(file)) from None
        chunks, self._chunk_bytes = layout.geometry.chunks, layout.chunk_bytes
        try:
            self.size = os.fstat(fd).st_size
            self.n_chunks = shards.count_chunks(str(file), self.size, record, self._chunk_bytes, chunks)
            self._map = mmap.mmap(fd, self.size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        # Reading a map behind the end of its file kills the process (SIGBUS): compare both sizes before reading.
        self.file_size = self._map.size
        self.data = memoryview(self._map)  # read-only, as the map is
        if self._map[self.n_chunks * self._chunk_bytes :] != shards.pack_index(
            self.n_chunks, self._chunk_bytes, chunks
        ):
            raise shards.damaged_index(str(file))

    def chunk(self, number: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.data, np.uint8, self._chunk_bytes - 4, number * self._chunk_bytes)

    def intact(self, number: int) -> bool:
        """Whether a chunk's bytes match the checksum behind them."""
        first = number * self._chunk_bytes
        stop = first + self._chunk_bytes - 4
        # On a cold disk, read the whole chunk at once, not page by page.
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        checksum = shards.crc32c(self.chunk(number))  # type: ignore[arg-type]  # takes a view of bytes, too
        return checksum == self.data[stop : stop + 4]


_OPENED: Final[deque[tuple[weakref.ref[MappedRows], int]]] = deque()  # (reader, shard) of this process, oldest first


def _open_within_limit(file: Path, layout: ArrayLayout, record: str | None) -> MappedShard:
    """Map a shard, with at most half of the process's open files. Without a free one, close every shard first."""
    _close_oldest(_shard_limit())
    try:
        return MappedShard(file, layout, record)
    except OSError as error:
        if error.errno not in _TOO_MANY:
            raise
    _close_oldest(0)  # other code uses the remaining descriptors
    return MappedShard(file, layout, record)


def _close_oldest(limit: int) -> None:
    """Close the oldest shards until fewer than `limit` are open, or none is."""
    with suppress(IndexError):  # none is left; other threads may close shards, too
        while len(_OPENED) >= limit:
            reader, shard = _OPENED.popleft()
            if (owner := reader()) is not None:
                owner.close_shard(shard)


def _shard_limit() -> int:
    """How many shards may be open. Read each time: the system's limit may change."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(max(soft // 2, 16), _MOST)


class MappedRows:
    """Rows of one array, read from mapped shards. Threads and forked processes may read at the same time.

    Args:
        array: the array's folder.
        layout: where its rows are in its files.
        records: the manifest's record of each shard, by its number as text: the file must have the record's size.
        check_current: called after opening a shard; raises when the array has been replaced.
    """

    def __init__(
        self, array: Path, layout: ArrayLayout, records: Mapping[str, str], check_current: Callable[[], None]
    ) -> None:
        self._array, self._layout, self._records, self._check_current = array, layout, records, check_current
        self.trailing, self.dtype, self._geometry = layout.spec.trailing, layout.spec.dtype, layout.geometry
        self._row_bytes = layout.spec.row_bytes
        # Readers do not share maps: a split that is opened again reads the files that exist now.
        self._held: dict[int, MappedShard] = {}
        n_shards = -(-layout.n_rows // layout.geometry.rows_per_shard)
        # State of each chunk: not checked, _CHECKED, or all its flags equal.
        self._checked = bytearray(n_shards * layout.geometry.chunks)
        self._states = np.frombuffer(self._checked, np.uint8)  # the same bytes

    def read(self, starts: Ints, seqlen: int, out: NDArray[Any]) -> None:
        if not out.size:
            return
        check_range(starts, seqlen, self._layout.n_rows, str(self._array))
        if self._same_flags(starts, seqlen, out):
            return
        if not out.flags.c_contiguous:
            whole = np.empty(out.shape, self.dtype)
            self.read(starts, seqlen, whole)
            out[...] = whole
            return
        filled = 0
        if out.dtype == self.dtype:  # the bytes of the windows, one after the other
            target = out.reshape(-1).view(np.uint8).data
            for data, first, stop in self._parts(starts, seqlen):
                end = filled + stop - first
                target[filled:end] = data[first:stop]
                filled = end
            return
        rows = out.reshape(-1, *self.trailing)
        for data, first, stop in self._parts(starts, seqlen):
            n_rows = (stop - first) // self._row_bytes
            fill(rows[filled : filled + n_rows], np.ndarray((n_rows, *self.trailing), self.dtype, data, first))
            filled += n_rows

    def _same_flags(self, starts: Ints, seqlen: int, out: NDArray[Any]) -> bool:
        """Fill `out` without reading, when all windows lie in chunks whose flags are known to be all 0 or all 1."""
        if self.dtype != np.uint8 or self.trailing or seqlen > self._geometry.rows_per_chunk:
            return False
        first = self._states[starts // self._geometry.rows_per_chunk]
        last = self._states[(starts + seqlen - 1) // self._geometry.rows_per_chunk]
        if first.min() < _ALL or not np.array_equal(first, last):
            return False
        out[...] = (first - _ALL)[:, None]
        return True

    def _parts(self, starts: Ints, seqlen: int) -> Iterator[ByteRange]:
        """Yield the byte ranges of the windows, in order, checked. A window that crosses chunks has several."""
        begin = 0
        n_windows = max(_shard_limit() // 8, 4)  # whose shards are open together: each touches two or three
        while begin < len(starts):
            try:
                parts = self._locate(starts[begin : begin + n_windows], seqlen)
            except OSError as error:
                if error.errno not in _TOO_MANY or n_windows == 1:
                    raise
                n_windows = max(n_windows // 4, 1)  # other code has files open, too
                continue
            yield from parts
            begin += n_windows

    def _locate(self, starts: Ints, seqlen: int) -> Iterator[ByteRange]:
        """The byte ranges of a few windows, whose shards are all opened together."""
        chunk, low, n_rows = chunk_parts(starts, seqlen, self._geometry.rows_per_chunk)
        shard = chunk // self._geometry.chunks
        opened = {number: self._open_shard(number) for number in set(shard.tolist())}
        if not self._states[chunk].all():
            for part in np.flatnonzero(self._states[chunk] == 0).tolist():
                number = int(shard[part])
                self._check(opened[number], number, int(chunk[part]) - number * self._geometry.chunks)
        first = (chunk - shard * self._geometry.chunks) * self._layout.chunk_bytes + low * self._row_bytes
        stop = first + n_rows * self._row_bytes
        data = {number: mapped.data for number, mapped in opened.items()}
        return zip(map(data.__getitem__, shard.tolist()), first.tolist(), stop.tolist(), strict=True)

    def _open_shard(self, shard: int) -> MappedShard:
        """Return the open shard, or open it. A file whose size has changed is opened again."""
        opened = self._held.get(shard)
        if opened is None or opened.file_size() != opened.size:
            record = self._records.get(str(shard))
            try:
                opened = _open_within_limit(self._file(shard), self._layout, record)
            finally:
                # Also after an error: a shard that is missing because the split was replaced is no damage.
                self._check_current()
            self._held[shard] = opened
            _OPENED.append((weakref.ref(self), shard))
        return opened

    def close_shard(self, shard: int) -> None:
        """Drop the reference to a shard. It is unmapped when the last view of it is deleted."""
        self._held.pop(shard, None)

    def _check(self, opened: MappedShard, shard: int, number: int) -> None:
        """Check a chunk's checksum, and record its state. Raises CacheError when the chunk is missing or damaged."""
        file = str(self._file(shard))
        if number >= opened.n_chunks:
            raise shards.damage(file, f"chunk {number} of the shard", "a shard without it")
        if not opened.intact(number):
            self._held.clear()  # the next read opens the repaired files
            raise shards.damaged_chunk(file, number, number * self._geometry.rows_per_chunk)
        state = _CHECKED
        if self.dtype == np.uint8 and not self.trailing:
            flags = opened.chunk(number)
            flag = int(flags[0])
            state = _ALL + flag if flag <= 1 and (flags == flag).all() else _CHECKED
        self._checked[shard * self._geometry.chunks + number] = state

    def _file(self, shard: int) -> Path:
        return Path(shard_key(str(self._array), shard, self.trailing))
