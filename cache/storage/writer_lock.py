"""The lock of a folder of this machine against a second writer.  [cache]

A writer locks a small file in its own folder, SPLIT/.writing/lock, with the kernel's `flock`, and
writes who it is into it, for messages: its process, user and machine, and since when. When the
process ends, in whatever way, the kernel releases the lock. The file may stay behind; it locks
nobody out.

A writer that ends well removes the file, and the folders that it has made. That is what makes the
lock difficult: the file that one process has just opened may be removed by another, and a third one
may make a new file of that name. Each would hold a lock, and they would write at once. So a lock is
valid only while its file is *current*: still the one that its name leads to. A process that has
locked a file that is not current starts again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import pwd
import socket
import stat
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cache.errors import AccessDenied, Busy, CacheError
from cache.storage.base import Lock
from cache.storage.durable import make_folder, no_regular_file, refuse_link, share, sync_folder

# folders that a writer may make for its lock, the innermost one first: its own (.writing), that of
# the split or stream, and that of the dataset or of all streams
_OWN_FOLDERS: Final = 3
# errors of `flock` on a file system without locks; 524: of the kernel's NFS, without a name
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, 524)
# An attempt fails only if another writer ends within it. If that many fail, something else is
# wrong, such as a folder in which nothing can be made.
_ATTEMPTS: Final = 100
# locks that this process holds
_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock(Lock):
    """One writer at a time in the folder that the lock's folder is in.

    Any user who may write into the folder can take the lock that a killed writer of another user
    has left.

    Raises CacheError naming the other writer's process when the lock is taken, and on a file system
    without locks; AccessDenied for a link in place of the file or its folder.

    group_of: as in `durable.share`, for the file and its folders.
    """

    def __init__(self, file: Path, group_of: Path | None = None) -> None:
        self.file = file
        self._group_of = group_of
        above = itertools.islice(file.parents, 1, _OWN_FOLDERS)
        # folders that `release` removes if they are empty
        self._made = [file.parent, *(folder for folder in above if not folder.exists())]
        # descriptor of the locked file; None once it is closed
        self._fd: int | None = None
        for _ in range(_ATTEMPTS):
            self._fd = self._take()
            if self._fd is not None:
                break
        else:
            raise CacheError.at(
                self.file,
                expected="a file that a writer can make and lock",
                found=f"none after {_ATTEMPTS} attempts: it, or a folder above it, was missing "
                "again",
                do="Make sure that folders can be made there, and run it again.",
            )
        try:
            with contextlib.suppress(OSError):  # a full disk: the text is for messages only
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()} {_describe_writer()}\n".encode(), 0)
            # A killed writer may have put a manifest into place without making its name durable. A
            # power cut must not bring the manifest before it back once this writer has removed what
            # only that one names.
            sync_folder(self.file.parent.parent)
        except BaseException:
            self.close()
            raise
        _HELD.add(self)

    def _take(self) -> int | None:
        """Open the file and lock it. Returns its descriptor, or None if another attempt is needed:
        the file that was locked is not current, because its writer has removed it meanwhile, or
        this function has.
        """
        refuse_link(self.file.parent)
        try:
            make_folder(self.file.parent, self._group_of)
            fd = self._open()
        except FileNotFoundError:  # the other writer has removed the folder, too
            return None
        try:
            self._lock(fd)
            # A snapshot by hard links has the same file, and must not change with it. A file that
            # may not be written is another user's. Both are left by a killed writer: the next
            # attempt makes a new one.
            is_in_snapshot = os.fstat(fd).st_nlink > 1
            must_be_replaced = is_in_snapshot or not _is_writable(fd)
            if must_be_replaced and self._is_current(fd):
                os.unlink(self.file)  # noqa: PTH108
            is_current = self._is_current(fd)
        except PermissionError as error:
            os.close(fd)
            raise AccessDenied.from_error(error) from error
        except BaseException:
            os.close(fd)
            raise
        if not is_current:
            os.close(fd)
            return None
        return fd

    def _open(self) -> int:
        """Open the file, and make it if there is none. Returns its descriptor, which is for reading
        only if the file is of another user, with umask 022. Raises AccessDenied for anything but a
        regular file.
        """
        safe = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            try:
                fd = os.open(self.file, os.O_RDWR | os.O_CREAT | safe, 0o666)
            except PermissionError as error:
                try:
                    fd = os.open(self.file, os.O_RDONLY | safe)
                except FileNotFoundError:  # in a folder that may not be written
                    raise AccessDenied.from_error(error) from error
        except PermissionError as error:
            raise AccessDenied.from_error(error) from error
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise no_regular_file(self.file) from error
        if stat.S_ISREG(os.fstat(fd).st_mode):
            share(self.file, self._group_of)
            return fd
        os.close(fd)
        raise no_regular_file(self.file)

    def _lock(self, fd: int) -> None:
        """Lock an open file. Raises Busy, with the other writer's process, if it is locked, and
        CacheError on a file system without locks.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 256, 0).decode(errors="replace").strip()
            holder, _, about = text.partition(" ")
            writer = f"process {holder or 'unknown'} writing {about}".rstrip()
            if not Path("/proc", holder or "unknown").is_dir():  # it does not run on this machine
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
                raise AccessDenied.from_error(denied) from error
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

    def _is_current(self, fd: int | None) -> bool:
        """Whether an open file is the one that the lock's name leads to."""
        try:
            return fd is not None and os.path.samestat(os.fstat(fd), self.file.lstat())
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raise CacheError unless the locked file is still current: else there may be another
        writer.
        """
        if not self._is_current(self._fd):
            holder = "another file, or none: the lock has been removed"
            do = (
                "Nothing was saved in the cache. Make sure that there is no other writer, and run "
                "it again."
            )
            raise CacheError.at(
                self.file, expected="the lock that this writer took", found=holder, do=do
            )

    def release(self) -> None:
        """Let the next writer in. Removes the lock's file, and the folders that were made for it if
        nothing else is in them.
        """
        if self._fd is None:
            return
        try:
            # A file that is not current may be another writer's by now. This one is removed before
            # it is unlocked: after that, it may be another writer's, too.
            if self._is_current(self._fd):
                self.file.unlink(missing_ok=True)
        finally:
            self.close()
        # up to the first folder that has other files, or the next writer's lock
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def close(self) -> None:
        """Close the lock's file in this process, which releases the lock unless a forked process or
        the parent of this one has the file open, too.
        """
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_writable(fd: int) -> bool:
    """Whether a file was opened for reading and writing."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    return flags & os.O_ACCMODE == os.O_RDWR


def _describe_writer() -> str:
    """This process's user, machine and the time, for the messages of other writers."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container need not know its users
        user = str(os.getuid())
    since = datetime.now(UTC).isoformat(" ", "seconds")
    return f"(user {user} on {socket.gethostname()} since {since})"


def _close_in_child() -> None:
    """Close all locks in a forked child, which shares its parent's open files: it would hold the
    locks on after the parent's death.
    """
    for lock in list(_HELD):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
