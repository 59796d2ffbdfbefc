"""Writes that a power cut cannot halve, and the lock that keeps a second writer out.  [cache]

Every write to a local cache goes through the functions of `os` here and in `cache.storage.local`: tests record them and
replay power cuts.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cache.errors import CacheError
from cache.storage.base import Lock

_OWN_FOLDERS: Final = 3  # above a lock's file: of writers, of the split or stream, and of the dataset or all streams
_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to errors of the system that have none, as those of descriptors do."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and os.path.isabs(error.filename)):  # noqa: PTH117
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make names created in or removed from `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(folder):
            os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each one's name made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102  os: see above
    sync_folder(folder.parent)


def write_synced(file: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a new file and sync its bytes, given at once or in parts. Not atomic: for names that no reader looks at.

    A file that a killed writer has left is replaced, never changed: a snapshot by hard links may share it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(file, flags, 0o666)
    except FileExistsError:
        os.unlink(file)  # noqa: PTH108
        fd = os.open(file, flags, 0o666)
    try:
        with naming(file):
            for part in [data] if isinstance(data, bytes) else data:
                unwritten = memoryview(part)
                while unwritten:  # one call writes 2 GiB at most, and less where the disk is full
                    unwritten = unwritten[os.write(fd, unwritten) :]
            os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, file: Path) -> None:
    """Give a finished, synced file its name, atomically and durably."""
    make_folder(file.parent)
    os.replace(temporary, file)  # noqa: PTH105
    sync_folder(file.parent)


def write_atomic(file: Path, data: bytes) -> None:
    """Replace `file` by `data`: a reader sees all of the old bytes or all of the new ones."""
    make_folder(file.parent)
    temporary = file.with_name(f".{file.name}.tmp")
    write_synced(temporary, data)
    publish(temporary, file)


class WriterLock(Lock):
    """One writer at a time. The kernel releases the lock when its process dies, so no stale lock stops a writer.

    Raises CacheError naming the other writer's process when the lock is taken.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd = -1
        while self._fd < 0:
            self._fd = self._take()
        try:
            with contextlib.suppress(OSError):  # a full disk: the number is for messages only
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise
        _HELD.add(self)

    def require(self) -> None:
        """Raise CacheError unless the locked file is still the one of that name: else there may be another writer."""
        if not self._is_current(self._fd):
            holder = "another file, or none: the lock has been removed"
            do = "Nothing was committed. Make sure that there is no other writer, and run it again."
            raise CacheError.at(self.file, expected="the lock that this writer took", found=holder, do=do)

    def release(self) -> None:
        """Let the next writer in, and leave no trace: nor a folder in which nothing was written."""
        if self._fd < 0:
            return
        try:
            if self._is_current(self._fd):  # a lock that was lost may be another writer's by now
                self.file.unlink(missing_ok=True)  # before the lock is released: after that, likewise
        finally:
            self.close()
        with contextlib.suppress(OSError):  # the first one that has other files, or the next writer's lock
            for folder in itertools.islice(self.file.parents, _OWN_FOLDERS):
                folder.rmdir()

    def close(self) -> None:
        """Close the lock's file in this process: in a forked child, the parent still holds the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_current(self, fd: int) -> bool:
        try:
            return fd >= 0 and os.path.samestat(os.fstat(fd), self.file.stat())
        except FileNotFoundError:
            return False

    def _take(self) -> int:
        """The locked file's descriptor, or -1 when the file was removed meanwhile by the writer that held it."""
        try:
            make_folder(self.file.parent)
            fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the other one has removed the folder, too
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            do = "Wait until it is done, or end it; what it has finished is kept."
            place = self.file.parent.parent
            raise CacheError.at(place, expected="no other writer", found=f"process {holder} writing", do=do) from None
        if self._is_current(fd) and os.fstat(fd).st_nlink > 1:  # left by a killed writer, and shared with a snapshot
            os.unlink(self.file)  # noqa: PTH108
        if not self._is_current(fd):
            os.close(fd)
            return -1
        return fd


def _close_in_child() -> None:
    # A forked worker shares the lock's file description, and would hold the lock on after its parent's death.
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
