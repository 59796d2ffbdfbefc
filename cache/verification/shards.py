"""Is a shard what its record says? As fast as its bytes can be read: nothing is decoded.  [cache]

Chunks are read in blocks of about a mebibyte, each compared with its checksum while it is still near the processor. So
memory is a block a thread, and several threads keep the disk busy: reading lets go of the interpreter's lock.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout
from cache.format import shard as shards
from cache.format.layout import ColumnSpec, Geometry
from cache.format.manifest import Commit, shard_rows
from cache.storage.base import Bytes, Store, Tag
from cache.storage.local import Folder
from cache.storage.object_store import Bucket

_BLOCK: Final = 1 << 20
_WHOLE: Final = 1 << 26  # bytes of an object up to which it is fetched in one request, and held
_RESIDUE: Final = int(google_crc32c.value(bytes(4)))  # of any bytes followed by their own checksum
_THREAD: Final = threading.local()
_BROKEN: Final = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA)  # what a disk says of bytes that it has lost


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that a manifest names."""

    key: str
    record: str
    n_rows: int  # committed with it; of bytes, those of its chunks
    spec: ColumnSpec
    geometry: Geometry  # the column's own

    @property
    def size(self) -> int:
        return shards.size_of(self.record)

    @property
    def chunk_bytes(self) -> int:
        """With its checksum."""
        numbers = int(np.prod(self.spec.trailing, dtype=np.int64))
        return self.geometry.rows_per_chunk * numbers * self.spec.dtype.itemsize + 4

    @property
    def index_bytes(self) -> int:
        """With its checksum."""
        return shards.index_bytes(self.geometry.chunks)

    @property
    def held(self) -> int:
        """Rows, or bytes, of as many chunks as its size says it holds."""
        return (self.size - self.index_bytes) // self.chunk_bytes * self.geometry.rows_per_chunk


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one shard."""

    shard: ShardFile
    problem: str  # "": it is intact
    tag: Tag | None  # of the file that was looked at, where it has one that tells


def shards_of(commit: Commit, name: str, spec: ColumnSpec) -> tuple[list[tuple[int, ShardFile]], list[str]]:
    """The shards that a manifest names of an array, ascending, and what it says of them that cannot be."""
    geometry, array = spec.cut(Geometry(**commit.manifest["geometry"])), commit.place.array(name)
    files, strange = [], []
    for shard, record in sorted(commit.manifest["shards"][name].items(), key=lambda item: int(item[0])):
        try:
            n_rows = len(shard_rows(commit.manifest, int(shard)))
        except CacheError as error:
            strange.append(f"{commit.place.store.where(array)}: {error}")
            continue
        key = layout.shard_key(array, int(shard), spec.trailing)
        file = ShardFile(key, record, n_rows, spec, geometry)
        files.append((int(shard), file if spec.per_row == 1 else replace(file, n_rows=file.held)))
    return files, strange


class _NoAnswer(Exception):
    """A store could not be asked."""


class _Source(Protocol):
    size: int
    tag: Tag | None

    def read(self, start: int, out: Bytes) -> None: ...


def check(store: Store, shard: ShardFile, *, fast: bool, do: str) -> Finding:
    """Compare a shard with its record; `fast`: only its size and its index. `do` is what mends it, in words.

    Raises OSError and CacheError for what says nothing about the shard: a file that may not be read, a store that does
    not answer. A repair must not take such a shard for damaged.
    """
    where = store.where(shard.key)
    tag: Tag | None = None
    try:
        with _opened(store, shard, fast) as source:
            tag = source.tag
            _check(source, shard, where, do, fast)
    except FileNotFoundError:
        found = "no file"
    except _NoAnswer as error:
        raise CacheError(str(error)) from error
    except CacheError as error:
        return Finding(shard, str(error), tag)
    except OSError as error:
        if error.errno not in _BROKEN:
            raise
        found = f"a file that cannot be read ({error.strerror})"
    else:
        return Finding(shard, "", tag)
    return Finding(shard, str(CacheError.at(where, expected="a shard", found=found, do=do)), tag)


def _check(source: _Source, shard: ShardFile, where: str, do: str, fast: bool) -> None:
    if source.size != shard.size:
        raise CacheError.at(where, expected=f"{shard.size} bytes", found=f"{source.size} bytes", do=do)
    packed = np.empty(min(shard.index_bytes, source.size), np.uint8)
    source.read(source.size - len(packed), packed)
    index = shards.parse_index(packed.tobytes(), shard.geometry.chunks, source.size, where)
    order = _in_order(index, shard, where, do)
    if fast:
        return
    checksums = _chunks(source, shard, len(order), where, do)
    in_index_order = np.empty_like(checksums)
    in_index_order[np.argsort(order)] = checksums
    record = shards.record_text(source.size, in_index_order.tobytes())
    if record != shard.record:
        found = f"an intact shard of something else, {record}"
        raise CacheError.at(where, expected=f"the shard {shard.record}", found=found, do=do)


def _in_order(index: NDArray[np.uint64], shard: ShardFile, where: str, do: str) -> NDArray[np.int64]:
    """Numbers of the held chunks as they lie in the file. Every byte must be of exactly one, every row in one."""
    held = np.flatnonzero(index[:, 0] != shards.ABSENT)
    offsets, sizes = index[held].astype(np.int64).T
    order = np.argsort(offsets, kind="stable")
    expected = np.arange(len(held)) * shard.chunk_bytes
    end = len(held) * shard.chunk_bytes + shard.index_bytes
    if (sizes != shard.chunk_bytes).any() or (offsets[order] != expected).any() or end != shard.size:
        told = f"chunks of {shard.chunk_bytes} bytes, one after the other, and an index"
        raise CacheError.at(where, expected=told, found="an index that says otherwise", do=do)
    n_needed = -(-shard.n_rows // shard.geometry.rows_per_chunk)
    if (held[:n_needed] != np.arange(n_needed)[: len(held)]).any() or len(held) < n_needed:
        raise CacheError.at(where, expected=f"{shard.n_rows} rows", found="fewer chunks than that", do=do)
    return held[order]


def _chunks(source: _Source, shard: ShardFile, n_chunks: int, where: str, do: str) -> NDArray[np.uint8]:
    """(n, 4) checksums of a file's chunks, each compared with its bytes."""
    size = shard.chunk_bytes
    at_once = max(1, _BLOCK // size)
    checksums = np.empty((n_chunks, 4), np.uint8)
    for first in range(0, n_chunks, at_once):
        n_here = min(at_once, n_chunks - first)
        block = _buffer(n_here * size)
        source.read(first * size, block)
        chunks = block.reshape(n_here, size)
        for number, chunk in enumerate(chunks):
            if google_crc32c.value(chunk) != _RESIDUE:
                told = f"chunk {first + number} of its file to match its checksum"
                raise CacheError.at(where, expected=told, found="other bytes", do=do)
        checksums[first : first + n_here] = chunks[:, -4:]
    return checksums


def _buffer(size: int) -> Bytes:
    """The thread's own memory: new pages would cost more than the checksums."""
    held: Bytes | None = getattr(_THREAD, "buffer", None)
    if held is None or len(held) < size:
        held = _THREAD.buffer = np.empty(max(size, _BLOCK), np.uint8)
    return held[:size]


@contextmanager
def _opened(store: Store, shard: ShardFile, fast: bool) -> Iterator[_Source]:
    """A shard's bytes, from where they are quickest to be had. Raises FileNotFoundError."""
    key = shard.key
    if isinstance(store, Folder):
        file = _File(store, key)
        try:
            yield file
        finally:
            os.close(file.fd)
    elif isinstance(store, Bucket) and (fast or shard.size > _WHOLE):
        with _answered():
            ranges = _Ranges(store, key)
        yield ranges
    else:
        with _answered():
            whole = _Whole(store.read(key))
        yield whole


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except CacheError as error:
        raise _NoAnswer(str(error)) from error


class _File:
    def __init__(self, folder: Folder, key: str) -> None:
        self._path = folder.path(key)
        try:
            self.fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.fd)
            raise FileNotFoundError(self._path)
        self.size = status.st_size
        self.tag: Tag | None = (status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, start: int, out: Bytes) -> None:
        done = 0
        while done < len(out):
            got = os.preadv(self.fd, [out[done:].data], start + done)
            if not got:
                raise OSError(errno.EIO, "its end came early", str(self._path))
            done += got


class _Whole:
    tag: Tag | None = None

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)

    def read(self, start: int, out: Bytes) -> None:
        out[:] = self._data[start : start + len(out)]


class _Ranges:
    tag: Tag | None = None

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        size = bucket.size(key)
        if size is None:
            raise FileNotFoundError(key)
        self.size = size

    def read(self, start: int, out: Bytes) -> None:
        with _answered():
            (data,) = self._bucket.read_ranges(self._key, [start], [start + len(out)])
        out[:] = np.frombuffer(data, np.uint8)
