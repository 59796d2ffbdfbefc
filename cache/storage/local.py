"""A cache in a folder of this machine.  [cache]

`LocalStore` does what `Store` promises, with the files below a folder, its root. A key is a path
below the root.

Several people may write into one cache, and not all of them can be trusted with the files of the
others. So below the root, nothing is written or deleted behind a link, and nothing but regular
files is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cache.errors import AccessDenied
from cache.storage.base import Bytes, Etag, Store, is_own_file
from cache.storage.durable import (
    make_folder,
    naming,
    no_regular_file,
    publish,
    refuse_link,
    share,
    sync_folder,
    temporary_file,
    write_atomic,
    write_synced,
)
from cache.storage.writer_lock import WriterLock

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_LARGEST: Final = 1 << 30  # bytes of a file that is read whole, such as a manifest
_MAP_FROM: Final = 1 << 20  # bytes from which a file is mapped into memory, not read
# a writer's folder, and the file in it that it has locked: both are removed last
_LOCKS: Final = (".writing", "lock")


class LocalStore(Store):
    """The files below a local folder. A lock lets one writer at a time into a split.

    group_of: as in `durable.share`, for all that is written (default: the root).
    """

    exclusive = True

    def __init__(self, root: Path, group_of: Path | None = None) -> None:
        self.root: Path = root
        self._group_of = group_of or root

    def _path(self, key: str) -> Path:
        return self.root / key

    def below(self, folder: str) -> LocalStore:
        return LocalStore(self._path(folder), self._group_of)

    def folder(self, key: str = "") -> Path:
        return self._path(key)

    def location(self, key: str) -> str:
        return str(self._path(key))

    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        with os.fdopen(self._open(key), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST:
                expected = f"at most {_LARGEST:,} bytes"
                do = "It is not read. Restore it from a backup."
                raise AccessDenied.at(self._path(key), expected=expected, found=f"{size:,}", do=do)
            return file.read(), _etag_of(os.fstat(file.fileno()))

    def _open(self, key: str) -> int:
        """A descriptor of a regular file, open for reading. Raises AccessDenied for anything else:
        reading a pipe may never end.
        """
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if path.is_symlink():
                raise no_regular_file(path) from None
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise no_regular_file(path)
        return fd

    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        files: dict[str, Bytes] = {}
        for key in keys:
            try:
                with os.fdopen(self._open(key), "rb") as file:
                    if os.fstat(file.fileno()).st_size >= _MAP_FROM:
                        files[key] = np.memmap(file, np.uint8, "r")
                    else:
                        files[key] = np.frombuffer(file.read(), np.uint8)
            except PermissionError:
                raise
            # missing, empty, no regular file, or unreadable: it counts as missing
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
                    raise OSError(errno.EIO, "it ended early", str(self._path(key)))
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
        """The status of a file or folder; None if there is none. A link has that of what it leads
        to, or its own if it leads nowhere.
        """
        path = self._path(key)
        try:
            return path.stat()
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            return path.lstat() if path.is_symlink() else None

    def _path_to_write(self, key: str) -> Path:
        """The path of a key that is to be written or deleted. Raises AccessDenied if a folder above
        it is a link, which may lead out of the cache.
        """
        folder = self.root
        for name in key.split("/")[:-1]:
            folder = folder / name
            refuse_link(folder)
        return self._path(key)

    def list_names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(folder)))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def file_sizes(self, folder: str) -> dict[str, int]:
        sizes = {}
        top = self.root  # a link may lead to it
        if folder:
            top = self._path_to_write(f"{folder}/")
        for parent, _, names in os.walk(top):
            for name in names:
                file = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # a writer has removed it meanwhile
                    sizes[file.relative_to(self.root).as_posix()] = file.stat().st_size
        return sizes

    def refuse_links(self, key: str) -> None:
        refuse_link(self._path_to_write(key))

    def age(self, key: str) -> float:
        return time.time() - self._path(key).stat().st_mtime

    def put(self, key: str, data: bytes, *, temporary: str) -> None:
        unfinished = self._path_to_write(temporary)
        file = self._path_to_write(key)
        make_folder(unfinished.parent, self._group_of)
        write_synced(unfinished, data, self._group_of)
        publish(unfinished, file, self._group_of)

    def rename(self, key: str, to: str) -> None:
        publish(self._path_to_write(key), self._path_to_write(to), self._group_of)

    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:
        top = self._path(home)
        paths = {self._path_to_write(key): data for key, data in files.items()}
        make_folder(top, self._group_of)
        folders = set()
        for file, data in paths.items():
            above = [folder for folder in file.parents if folder.is_relative_to(top)]
            for folder in reversed(above):
                if folder not in folders and not folder.is_dir():
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder)  # noqa: PTH102
                        share(folder, self._group_of)
            folders.update(above)
            temporary = temporary_file(file, shared=shared)
            write_synced(temporary, data, self._group_of)
            os.replace(temporary, file)  # noqa: PTH105
        for folder in sorted(folders, reverse=True):  # each once, and inner ones first
            sync_folder(folder)

    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        if self.etag(key) != expected:
            raise self._concurrent_commit(key)
        write_atomic(self._path_to_write(key), data, group_of=self._group_of)

    def remove(self, keys: Collection[str]) -> None:
        parents = set()
        for key in keys:
            path = self._path_to_write(key)
            if path.is_dir() and not path.is_symlink():
                with naming(path):
                    self._remove_folder(path)
            elif path.exists() or path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
            else:
                continue
            parents.add(path.parent)
        for folder in sorted(parents):
            if folder.is_dir():
                sync_folder(folder)

    def _remove_folder(self, folder: Path) -> None:
        """Remove a folder with this package's files, the writer's lock last. A folder with other
        files, or into which another process writes meanwhile, stays.
        """
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name in _LOCKS)
            for entry in entries:
                path = Path(entry.path)
                key = path.relative_to(self.root).as_posix()
                is_linked_folder = entry.is_symlink() and is_own_file(f"{key}/0")
                if entry.is_dir(follow_symlinks=False):
                    self._remove_folder(path)
                elif is_own_file(key) or is_linked_folder:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)  # noqa: PTH108
            os.rmdir(folder)  # noqa: PTH106
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise

    def remove_empty(self, folder: str) -> bool:
        try:
            os.rmdir(self._path_to_write(folder))  # noqa: PTH106
        except OSError:
            return False
        return True

    def lock(self, folder: str) -> WriterLock:
        return WriterLock(self._path_to_write(f"{folder}/lock"), self._group_of)

    def zarr(self, folder: str) -> ZarrStore:
        from zarr.storage import LocalStore as ZarrLocalStore  # here: zarr takes its time to import

        path = self._path(folder)

        class RegularFiles(ZarrLocalStore):
            def __reduce__(self) -> tuple[Any, ...]:
                return LocalStore(path).zarr, ("",)

            async def get(self, key: str, *args: Any, **options: Any) -> Any:
                if not os.path.isfile(self.root / key):  # noqa: PTH113  it would wait for a pipe
                    return None
                return await super().get(key, *args, **options)

        return RegularFiles(path, read_only=True)


def _etag_of(status: os.stat_result) -> Etag:
    return status.st_ino, status.st_size, status.st_mtime_ns
