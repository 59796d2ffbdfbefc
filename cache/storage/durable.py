"""Write local files and folders so that a power cut leaves them complete or absent.  [cache]

A file is durable when both its bytes and its name in the folder have been synced (fsync). Every
write uses the functions of `os` in this module, because tests record the calls and replay power
cuts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.errors import AccessDenied


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to OSErrors that have none, such as those of calls on file descriptors."""
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


def sync_file(file: Path) -> None:
    """Make the bytes of a finished file survive a power cut."""
    with naming(file):
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make all files and names below a finished folder survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def share(new: Path, group_of: Path | None) -> None:
    """Give a new file or folder of this process what `group_of` lets its group do, if that group
    may write there: then it may write the new one, too, whatever the umask. Others get what the
    umask leaves.

    Args:
        group_of: a folder; None: the umask alone decides.
    """
    if group_of is None:
        return
    # `group_of` may not be there yet, and a file system may have no permissions.
    with contextlib.suppress(OSError):
        model = group_of.stat()
        if not model.st_mode & stat.S_IWGRP:
            return
        fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            own = os.fstat(fd)
            shared = model.st_mode & (0o070 if stat.S_ISDIR(own.st_mode) else 0o060)
            if own.st_gid == model.st_gid:
                os.fchmod(fd, stat.S_IMODE(own.st_mode) | shared)
        finally:
            os.close(fd)


def make_folder(folder: Path, group_of: Path | None = None) -> None:
    """Create `folder` and its missing parents, durably. group_of: as in `share`."""
    if folder.is_dir():
        return
    make_folder(folder.parent, group_of)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102  os: tests record it
        share(folder, group_of)
    sync_folder(folder.parent)


def write_synced(file: Path, data: bytes | Iterable[bytes], group_of: Path | None = None) -> None:
    """Write a new file, given at once or in parts, and sync its bytes. group_of: as in `share`.

    This is not atomic, so use it only for temporary names that no reader looks at. An existing
    file, left by a killed writer, is removed first and not written over: a snapshot made with hard
    links may share its bytes.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    parts = [data] if isinstance(data, bytes) else data
    try:
        fd = os.open(file, flags, 0o666)
    except FileExistsError:
        os.unlink(file)  # noqa: PTH108
        fd = os.open(file, flags, 0o666)
    try:
        share(file, group_of)
        with naming(file):
            for part in parts:
                unwritten = memoryview(part)
                while unwritten:  # one call writes 2 GiB at most, and less where the disk is full
                    unwritten = unwritten[os.write(fd, unwritten) :]
            os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, file: Path, group_of: Path | None = None) -> None:
    """Rename a finished, synced temporary file to its final name, atomically and durably.
    group_of: as in `share`, for missing folders.
    """
    make_folder(file.parent, group_of)
    try:
        os.replace(temporary, file)  # noqa: PTH105
    except FileNotFoundError:  # another process that ended has removed the empty folder
        make_folder(file.parent, group_of)
        os.replace(temporary, file)  # noqa: PTH105
    sync_folder(file.parent)


def temporary_file(file: Path, *, shared: bool) -> Path:
    """The temporary file to write before it is renamed to `file`.

    Args:
        shared: other processes may write `file` at the same time: give it a random name.
    """
    name = f".{file.name}"
    if shared:
        name += f".{secrets.token_hex(4)}"
    return file.with_name(f"{name}.tmp")


def write_atomic(
    file: Path, data: bytes, *, shared: bool = False, group_of: Path | None = None
) -> None:
    """Replace `file` by `data`: a reader sees all of the old bytes or all of the new ones.
    group_of: as in `share`.
    """
    make_folder(file.parent, group_of)
    temporary = temporary_file(file, shared=shared)
    write_synced(temporary, data, group_of)
    publish(temporary, file, group_of)


def refuse_link(path: Path) -> None:
    """Raise AccessDenied if a folder or file is a symbolic link: writing or deleting behind it
    could change files that are not part of the cache.
    """
    if not path.is_symlink():
        return
    do = "Nothing is written or deleted behind it. Replace it by the "
    if path.is_file():
        kind = "a file"
        do += "file itself."
    else:
        kind = "a folder"
        do += "folder itself, or mount the folder there."
    link = f"a link to {os.readlink(path)}"  # noqa: PTH115
    raise AccessDenied.at(path, expected=kind, found=link, do=do)


def no_regular_file(path: Path) -> AccessDenied:
    """The error for a link, folder, pipe or device in the place of a file, for the caller to
    raise.
    """
    kind = "a folder, pipe or device"
    if path.is_symlink():
        kind = "a link" if path.exists() else "a link to nothing"
    do = "It is not read. Remove it."
    return AccessDenied.at(path, expected="a regular file", found=kind, do=do)
