"""Writes that a power cut cannot halve, and the lock that keeps a second writer out.  tracks -> [cache] -> windows

All that this project writes into a local cache goes through the functions of `os` here and in `cache.storage.local`:
tests record them, and replay what a power cut would have left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.errors import CacheError

_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system with the path that they are about: those of descriptors have none."""
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


def sync_names(files: Iterable[Path], below: Path) -> None:
    """The same for every one of `files` and of the folders that lead to it from `below` on: each folder once."""
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(below)}
    for folder in sorted(folders, reverse=True):
        sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each one's name made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102  os: see above
    sync_folder(folder.parent)


def write_synced(file: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file and its bytes, or pieces of them, through to the disk. Not atomic: for names nobody looks at yet."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        with naming(file):
            for piece in [data] if isinstance(data, bytes) else data:
                left = memoryview(piece)
                while left:  # one call writes 2 GiB at most, and less where the disk is full
                    left = left[os.write(fd, left) :]
            os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, file: Path) -> None:
    """Give a finished, synced file its name, atomically and durably."""
    make_folder(file.parent)
    os.replace(temporary, file)  # noqa: PTH105
    sync_folder(file.parent)


def write_atomic(file: Path, data: bytes) -> None:
    """Replace `file` by `data`: whoever looks sees all of the old bytes or all of the new ones."""
    make_folder(file.parent)
    temporary = file.with_name(f".{file.name}.tmp")
    write_synced(temporary, data)
    publish(temporary, file)


class WriterLock:
    """One writer at a time. The kernel lets go of the lock when its process dies, so no stale lock stops anyone.

    Raises CacheError naming the other writer's process when the lock is taken.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        while self._fd < 0:
            self._fd = self._take()
        try:
            with naming(file):
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            self.close()
            raise
        _HELD.add(self)

    def require(self) -> None:
        """Raise CacheError unless the locked file is still the one of that name: else another writer may be at work."""
        with contextlib.suppress(FileNotFoundError):
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), self._file.stat()):
                return
        raise CacheError.at(
            self._file,
            expected="the lock that this writer took",
            found="another file, or none: somebody has removed it",
            do="Nothing was committed. Make sure that no other writer is at work, and run it again.",
        )

    def release(self) -> None:
        """Let the next writer in, and leave no trace."""
        if self._fd < 0:
            return
        try:
            with contextlib.suppress(CacheError):  # a lock that was lost may be another writer's by now
                self.require()
                self._file.unlink(missing_ok=True)  # before letting go: after that, it may be another writer's
        finally:
            self.close()
        if self._file.parent.is_dir() and not any(self._file.parent.iterdir()):
            with contextlib.suppress(OSError):  # the next writer was quicker to put its own lock there
                self._file.parent.rmdir()

    def moved(self, file: Path) -> None:
        """The folder that holds the lock has another name now."""
        self._file = file

    def close(self) -> None:
        """Forget the lock in this process: in a forked child, the parent holds it on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> int:
        """The locked file's descriptor, or -1 when the file went away meanwhile, with the writer that held it."""
        make_folder(self._file.parent)
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise CacheError.at(
                self._file.parent.parent,
                expected="no other writer",
                found=f"process {holder} writing",
                do="Wait until it is done, or end it; what it has finished is kept.",
            ) from None
        if not self._file.exists() or not os.path.samestat(os.fstat(fd), self._file.stat()):
            os.close(fd)
            return -1
        return fd


def _close_in_child() -> None:
    # A forked worker shares the lock's file description, and would hold the lock on after its parent's death.
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
