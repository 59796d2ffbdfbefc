"""Shards mapped into memory, and how many of them at once.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard as shards

if TYPE_CHECKING:
    from cache.read.mapped import DirectLayout


TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)
NOT_HELD: Final = sys.maxsize  # offset of a chunk that the shard does not hold: slices from there are empty


_MOST: Final = 16384  # a quarter of the maps that Linux gives a process


class Holder(Protocol):
    """Who holds shards open."""

    def let_go(self, shard: int, opened: OpenShard) -> None: ...


class OpenShard:
    """One mapped shard and its index."""

    __slots__ = ("__weakref__", "_chunk_bytes", "_map", "data", "file_size", "offsets", "size", "used")

    def __init__(self, file: Path, layout: DirectLayout, record: str | None) -> None:
        tail = shards.index_bytes(layout.chunks)
        expected = f"a shard of {shards.size_of(record)} bytes" if record else "a shard"
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise CacheError.at(file, expected=expected, found="no file", do=shards.REPAIR) from None
        try:
            size = os.fstat(fd).st_size
            if size < tail or (record and size != shards.size_of(record)):
                raise CacheError.at(file, expected=expected, found=f"{size} bytes", do=shards.REPAIR)
            self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        # A file that is shorter than its map must not be touched, or the process ends: compare these before.
        self.size, self.file_size = size, self._map.size
        packed = self._map[:tail] if layout.index_first else self._map[size - tail :]
        index = shards.parse_index(packed, layout.chunks, size, str(file))
        self._chunk_bytes = layout.chunk_bytes
        held = index[:, 0] != shards.ABSENT
        if (index[held, 1] != self._chunk_bytes + 4 * layout.checksums).any():
            found = "chunks of another size"
            raise CacheError.at(file, expected=f"chunks of {self._chunk_bytes} bytes", found=found, do=shards.REPAIR)
        self.data = memoryview(self._map)  # read-only, as the map is
        self.offsets = np.where(held, index[:, 0].astype(np.int64), NOT_HELD).data  # compact, and gives plain integers
        self.used = False  # since it was last passed over, when room was made

    def chunk(self, number: int) -> NDArray[np.uint8]:
        """The bytes of a chunk that is held, a view of the file."""
        return np.frombuffer(self.data, np.uint8, self._chunk_bytes, self.offsets[number])

    def intact(self, number: int) -> bool:
        """Whether a chunk's bytes match the checksum behind them."""
        first = self.offsets[number]
        stop = first + self._chunk_bytes
        # From a cold disk all at once, instead of a piece for every page that is missed.
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        found = shards.crc32c(self.chunk(number))  # type: ignore[arg-type]  # takes a view of bytes, too
        return found == self.data[stop : stop + 4]


class OpenFileLimit:
    """Keeps the shards that this process holds mapped within half of the files that it may have open.

    The mapping of a shard keeps one. Readers hold their shards; this knows them weakly, in the order in which they were
    opened. Room is made by the oldest; those that were used since they were last passed over are passed over once more.
    So reading a shard that is open takes no lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring: deque[tuple[weakref.ref[OpenShard], weakref.ref[Holder], int]] = deque()

    def open(self, make: Callable[[], OpenShard]) -> OpenShard:
        """What `make` opens, once there is room for it."""
        self._make_room(_allowed())
        try:
            return make()
        except OSError as error:
            if error.errno not in TOO_MANY:
                raise
        self._make_room(0)  # others hold what was counted on: give back all that there is
        return make()

    @staticmethod
    def at_once() -> int:
        """For how many windows shards may be kept open at the same time: a window touches two or three."""
        return max(_allowed() // 8, 4)

    def remember(self, reader: Holder, shard: int, opened: OpenShard) -> None:
        """Count a shard that a reader holds from now on."""
        self._ring.append((weakref.ref(opened), weakref.ref(reader), shard))

    def _make_room(self, limit: int) -> None:
        """Let go of shards until fewer than `limit` are held, or none."""
        if len(self._ring) < limit:
            return
        with self._lock:
            for _ in range(2 * len(self._ring)):  # the second time round nothing counts as used
                if not self._ring or len(self._ring) < limit:
                    break
                entry = self._ring.popleft()
                opened, reader = entry[0](), entry[1]()
                if opened is None or reader is None:
                    continue
                if opened.used and limit:
                    opened.used = False
                    self._ring.append(entry)
                else:
                    reader.let_go(entry[2], opened)

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it


def _allowed() -> int:
    """How many shards may be open. Looked up each time: the limit may be lowered at any time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(max(soft // 2, 16), _MOST)


OPEN_FILES: Final = OpenFileLimit()
os.register_at_fork(after_in_child=OPEN_FILES.after_fork)
