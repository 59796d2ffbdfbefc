"""A cache in a folder of this machine; writes that a power cut cannot halve; the lock against a second writer.  [cache]

Every write goes through the functions of `os` here: tests record them and replay power cuts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cache.errors import CacheError
from cache.storage.base import Bytes, Etag, Lock, Store

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read
_LOCKS: Final = (".writing", "lock")  # a writer's folder, and the file in it
_OWN_FOLDERS: Final = 3  # above a lock's file: of writers, of the split or stream, and of the dataset or all streams
_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class LocalStore(Store):
    """Files below a local folder. One writer a split, by the kernel's own lock."""

    exclusive = True

    def __init__(self, root: Path) -> None:
        self.root: Path = root

    def path(self, key: str) -> Path:
        return self.root / key

    def location(self, key: str) -> str:
        return str(self.path(key))

    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        etag = self.etag(key)  # first: should the file be replaced in between, the etag is the older one
        try:
            return self.path(key).read_bytes(), etag
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path(key))) from error

    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        files = {}
        for key in keys:
            if (size := self.size(key)) is None:
                continue
            try:
                large = size >= _MAP_FROM
                files[key] = np.memmap(self.path(key), np.uint8, "r") if large else np.frombuffer(self.read(key), "u1")
            except PermissionError:
                raise
            except (OSError, ValueError):  # removed or emptied since, or unreadable: it counts as missing
                continue
        return files

    def read_into(self, key: str, start: int, out: Bytes) -> None:
        fd = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            filled = 0
            while filled < len(out):
                if not (got := os.preadv(fd, [out[filled:].data], start + filled)):
                    raise OSError(errno.EIO, "it ended early", str(self.path(key)))
                filled += got
        finally:
            os.close(fd)

    def size(self, key: str) -> int | None:
        status = self._stat(key)
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def etag(self, key: str) -> Etag | None:
        status = self._stat(key)
        return status and (status.st_ino, status.st_size, status.st_mtime_ns)

    def _stat(self, key: str) -> os.stat_result | None:
        try:
            return self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list_names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(folder)))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str) -> dict[str, int]:
        sizes = {}
        for top, _, names in os.walk(self.path(folder)):
            for name in names:
                file = Path(top, name)
                with contextlib.suppress(FileNotFoundError):  # a writer has removed it meanwhile
                    sizes[file.relative_to(self.root).as_posix()] = file.stat().st_size
        return sizes

    def age(self, key: str) -> float:
        return time.time() - self.path(key).stat().st_mtime

    def put(self, key: str, data: bytes, *, temporary: str) -> None:
        make_folder(self.path(temporary).parent)
        write_synced(self.path(temporary), data)
        publish(self.path(temporary), self.path(key))

    def rename(self, key: str, to: str) -> None:
        publish(self.path(key), self.path(to))

    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:
        top = self.path(home)
        make_folder(top)
        folders = set()
        for key, data in files.items():
            file = self.path(key)
            above = [folder for folder in file.parents if folder.is_relative_to(top)]
            for folder in reversed(above):
                if folder not in folders and not folder.is_dir():
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder)  # noqa: PTH102
            folders.update(above)
            temporary = temporary_file(file, shared=shared)
            write_synced(temporary, data)
            os.replace(temporary, file)  # noqa: PTH105
        for folder in sorted(folders, reverse=True):  # each once, and inner ones first
            sync_folder(folder)

    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        if self.etag(key) != expected:
            raise self._concurrent_commit(key)
        write_atomic(self.path(key), data)

    def remove(self, keys: Collection[str]) -> None:
        parents = set()
        for key in keys:
            path = self.path(key)
            if path.is_dir() and not path.is_symlink():
                with naming(path):
                    _remove_folder(path)
            elif path.exists() or path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
            else:
                continue
            parents.add(path.parent)
        for folder in sorted(parents):
            if folder.is_dir():
                sync_folder(folder)

    def lock(self, folder: str) -> WriterLock:
        return WriterLock(self.path(folder) / "lock")

    def zarr(self, folder: str = "") -> ZarrStore:
        from zarr.storage import LocalStore as ZarrLocalStore  # here: zarr takes its time to import

        return ZarrLocalStore(self.path(folder), read_only=True)


def _remove_folder(folder: Path) -> None:
    """Remove a folder with its contents, the writer's lock last. A folder in which another process writes stays."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name in _LOCKS)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_folder(Path(entry.path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


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


def temporary_file(file: Path, *, shared: bool) -> Path:
    """The file to write before it is renamed to `file`. shared: other processes may do so at the same time."""
    return file.with_name(f".{file.name}{f'.{secrets.token_hex(4)}' if shared else ''}.tmp")


def write_atomic(file: Path, data: bytes, *, shared: bool = False) -> None:
    """Replace `file` by `data`: a reader sees all of the old bytes or all of the new ones."""
    make_folder(file.parent)
    temporary = temporary_file(file, shared=shared)
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
                self.file.unlink(missing_ok=True)  # before the release: after it, the lock may be another's, too
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
            do = "Wait until it is done, or end it; finished work is kept."
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
