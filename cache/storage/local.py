"""A cache in a folder of this machine; the lock against a second writer.  [cache]

Several people may write into one cache: below its root, nothing is written or deleted behind a
link, and nothing but regular files is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cache.errors import AccessDenied, Busy, CacheError
from cache.storage.base import Bytes, Etag, Lock, Store
from cache.storage.durable import (
    make_folder,
    naming,
    publish,
    refuse_link,
    sync_folder,
    temporary_file,
    write_atomic,
    write_synced,
)

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read
_LOCKS: Final = (".writing", "lock")  # a writer's folder, and the file in it
# above a lock's file: of writers, of the split or stream, and of the dataset or all streams
_OWN_FOLDERS: Final = 3
# errors of `flock` on a file system without locks; 524: of the kernel's NFS, without a name
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, 524)
_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class LocalStore(Store):
    """Files below a local folder. One writer a split, by the kernel's own lock."""

    exclusive = True

    def __init__(self, root: Path) -> None:
        self.root: Path = root

    def path(self, key: str) -> Path:
        return self.root / key

    def folder(self, key: str = "") -> Path:
        return self.path(key)

    def location(self, key: str) -> str:
        return str(self.path(key))

    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        with os.fdopen(self._open(key), "rb") as file:
            return file.read(), _etag_of(os.fstat(file.fileno()))

    def _open(self, key: str) -> int:
        """A descriptor of a regular file. Raises AccessDenied for anything else: reading a pipe may
        never end.
        """
        path = self.path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if path.is_symlink():
                raise _no_regular_file(path) from None
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise _no_regular_file(path)
        return fd

    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        files: dict[str, Bytes] = {}
        for key in keys:
            size = self.size(key)
            if size is None:
                continue
            try:
                if size >= _MAP_FROM:
                    files[key] = np.memmap(self.path(key), np.uint8, "r")
                else:
                    files[key] = np.frombuffer(self.read(key), np.uint8)
            except PermissionError:
                raise
            # removed or emptied since, or unreadable: it counts as missing
            except (OSError, ValueError, AccessDenied):
                continue
        return files

    def read_into(self, key: str, start: int, out: Bytes) -> None:
        fd = self._open(key)
        try:
            filled = 0
            while filled < len(out):
                n_read = os.preadv(fd, [out[filled:].data], start + filled)
                if not n_read:
                    raise OSError(errno.EIO, "it ended early", str(self.path(key)))
                filled += n_read
        finally:
            os.close(fd)

    def size(self, key: str) -> int | None:
        status = self._stat(key)
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size

    def etag(self, key: str) -> Etag | None:
        status = self._stat(key)
        return None if status is None else _etag_of(status)

    def _stat(self, key: str) -> os.stat_result | None:
        """Of what a link leads to; of the link itself if it leads nowhere."""
        path = self.path(key)
        try:
            return path.stat()
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            return path.lstat() if path.is_symlink() else None

    def _own(self, key: str) -> Path:
        """The path of a key to write or delete. Raises AccessDenied for a link in place of a folder
        above it.
        """
        folder = self.root
        for name in key.split("/")[:-1]:
            folder = folder / name
            refuse_link(folder)
        return self.path(key)

    def list_names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(folder)))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str) -> dict[str, int]:
        sizes = {}
        top = self.root  # a link may lead to it
        if folder:
            top = self._own(f"{folder}/")
        for parent, _, names in os.walk(top):
            for name in names:
                file = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # a writer has removed it meanwhile
                    sizes[file.relative_to(self.root).as_posix()] = file.stat().st_size
        return sizes

    def age(self, key: str) -> float:
        return time.time() - self.path(key).stat().st_mtime

    def put(self, key: str, data: bytes, *, temporary: str) -> None:
        unfinished = self._own(temporary)
        file = self._own(key)
        make_folder(unfinished.parent)
        write_synced(unfinished, data)
        publish(unfinished, file)

    def rename(self, key: str, to: str) -> None:
        publish(self._own(key), self._own(to))

    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:
        top = self.path(home)
        paths = {self._own(key): data for key, data in files.items()}
        make_folder(top)
        folders = set()
        for file, data in paths.items():
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
        write_atomic(self._own(key), data)

    def remove(self, keys: Collection[str]) -> None:
        parents = set()
        for key in keys:
            path = self._own(key)
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

    def remove_empty(self, folder: str) -> bool:
        try:
            os.rmdir(self._own(folder))  # noqa: PTH106
        except OSError:
            return False
        return True

    def lock(self, folder: str) -> WriterLock:
        return WriterLock(self._own(f"{folder}/lock"))

    def zarr(self, folder: str = "") -> ZarrStore:
        from zarr.storage import LocalStore as ZarrLocalStore  # here: zarr takes its time to import

        class RegularFiles(ZarrLocalStore):
            async def get(self, key: str, *args: Any, **options: Any) -> Any:
                if not os.path.isfile(self.root / key):  # noqa: PTH113  it would wait for a pipe
                    return None
                return await super().get(key, *args, **options)

        return RegularFiles(self.path(folder), read_only=True)


def _no_regular_file(path: Path) -> AccessDenied:
    kind = "a link to nothing" if path.is_symlink() else "a folder, pipe or device"
    do = "It is not read. Remove it."
    return AccessDenied.at(path, expected="a regular file", found=kind, do=do)


def _etag_of(status: os.stat_result) -> Etag:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove_folder(folder: Path) -> None:
    """Remove a folder with its contents, the writer's lock last. A folder in which another process
    writes stays.
    """
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


class WriterLock(Lock):
    """One writer at a time. The kernel releases the lock when its process dies, so no stale lock
    stops a writer.

    Any user who may write into the folder can take the lock that a killed writer of another user
    has left.

    Raises CacheError naming the other writer's process when the lock is taken, and on a file system
    without locks; AccessDenied for a link in place of the file or its folder.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        above = itertools.islice(file.parents, 1, _OWN_FOLDERS)
        self._made = [file.parent, *(folder for folder in above if not folder.exists())]
        self._fd = -1
        while self._fd < 0:
            self._fd = self._take()
        try:
            with contextlib.suppress(OSError):  # a full disk: the number is for messages only
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
            # A killed writer may have put a manifest into place without making its name durable. A
            # power cut must not bring the manifest before it back once this writer has removed what
            # only that one names.
            sync_folder(self.file.parent.parent)
        except BaseException:
            self.close()
            raise
        _HELD.add(self)

    def require(self) -> None:
        """Raise CacheError unless the locked file is still the one of that name: else there may be
        another writer.
        """
        if not self._is_current(self._fd):
            holder = "another file, or none: the lock has been removed"
            do = "Nothing was committed. Make sure that there is no other writer, and run it again."
            raise CacheError.at(
                self.file, expected="the lock that this writer took", found=holder, do=do
            )

    def release(self) -> None:
        """Let the next writer in, and leave no trace: nor a folder that was made for the lock
        alone.
        """
        if self._fd < 0:
            return
        try:
            if self._is_current(self._fd):  # a lock that was lost may be another writer's by now
                # before the release: after it, the lock may be another's, too
                self.file.unlink(missing_ok=True)
        finally:
            self.close()
        # the first one that has other files, or the next writer's lock
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def close(self) -> None:
        """Close the lock's file in this process: in a forked child, the parent still holds the
        lock.
        """
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_current(self, fd: int) -> bool:
        try:
            return fd >= 0 and os.path.samestat(os.fstat(fd), self.file.lstat())
        except FileNotFoundError:
            return False

    def _take(self) -> int:
        """The locked file's descriptor, or -1 when the file has been removed, by its writer or
        here.
        """
        refuse_link(self.file.parent)
        try:
            make_folder(self.file.parent)
            fd, is_writable = self._open()
        except FileNotFoundError:  # the other one has removed the folder, too
            return -1
        try:
            self._lock(fd)
            is_shared = os.fstat(fd).st_nlink > 1  # with a snapshot
            left_by_killed = is_shared or not is_writable
            if self._is_current(fd) and left_by_killed:
                os.unlink(self.file)  # noqa: PTH108
            is_current = self._is_current(fd)
        except PermissionError as error:
            os.close(fd)
            raise AccessDenied.of(error) from error
        except BaseException:
            os.close(fd)
            raise
        if not is_current:
            os.close(fd)
            return -1
        return fd

    def _open(self) -> tuple[int, bool]:
        """A descriptor of the lock's file, and whether it may be written: not the file of a user
        with umask 022.
        """
        safe = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            try:
                fd = os.open(self.file, os.O_RDWR | os.O_CREAT | safe, 0o666)
                is_writable = True
            except PermissionError:
                fd = os.open(self.file, os.O_RDONLY | safe)
                is_writable = False
        except PermissionError as error:
            raise AccessDenied.of(error) from error
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise _no_regular_file(self.file) from error
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd, is_writable
        os.close(fd)
        raise _no_regular_file(self.file)

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
            writer = f"process {holder} writing"
            if not _is_running(holder):
                writer += ", on another machine or in a container"
            raise Busy.at(
                self.file.parent.parent,
                expected="no other writer",
                found=writer,
                do="Wait until it is done, or end it; finished work is kept. Its lock is "
                f"{self.file}.",
            ) from None
        except OSError as error:
            if error.errno == errno.EBADF:  # NFS locks only what may be written
                denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.file))
                raise AccessDenied.of(denied) from error
            if error.errno not in _NO_LOCKS:
                raise
            do = (
                "Without locks, two writers could mix their data. Mount it with locks (NFS: "
                "without nolock; Lustre: with flock), or use a local disk or an object store."
            )
            raise CacheError.at(
                self.file,
                expected="a file system with locks",
                found=f"none ({error.strerror})",
                do=do,
            ) from error


def _is_running(process: str) -> bool:
    """Whether this machine has a process of that number."""
    return Path("/proc", process).is_dir()


def _close_in_child() -> None:
    # A forked worker shares the lock's file description, and would hold the lock on after its
    # parent's death.
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
