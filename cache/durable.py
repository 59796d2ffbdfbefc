"""Writes that a power cut cannot halve, and the lock that keeps a second writer out.  tracks -> [cache] -> windows"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from cache.errors import CacheError

_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def sync_folder(folder: Path) -> None:
    """Make names created in or removed from `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each one's name made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_synced(file: Path, data: bytes) -> None:
    """Write a file and its bytes through to the disk. Not atomic: for names that nobody looks at yet."""
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def publish(temporary: Path, file: Path) -> None:
    """Give a finished, synced file its name, atomically and durably."""
    make_folder(file.parent)
    os.replace(temporary, file)
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
        make_folder(file.parent)
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise CacheError.at(
                file.parent.parent,
                expected="no other writer",
                found=f"process {holder} writing",
                do="Wait until it is done, or end it; what it has finished is kept.",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        _HELD.add(self)

    def release(self) -> None:
        """Let the next writer in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _close_in_child() -> None:
    # A forked worker shares the lock's file description, and would hold the lock on after its parent's death.
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_close_in_child)
