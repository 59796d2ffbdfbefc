"""A cache in a folder of this machine.  [cache]"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cache.storage.atomic import WriterLock, make_folder, naming, publish, sync_folder, write_atomic, write_synced
from cache.storage.base import Bytes, Etag, Store, concurrent_commit

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read
_LOCKS: Final = (".writing", "lock")  # a writer's folder, and the file in it


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

    def put_small(self, files: Mapping[str, bytes], home: str) -> None:
        top = self.path(home)
        make_folder(top)
        folders = set()
        for key, data in files.items():
            file = self.path(key)
            above = [folder for folder in file.parents if folder.is_relative_to(top)]
            for folder in reversed(above):
                if folder not in folders and not folder.is_dir():
                    os.mkdir(folder)  # noqa: PTH102
            folders.update(above)
            temporary = file.with_name(f".{file.name}.tmp")
            write_synced(temporary, data)
            os.replace(temporary, file)  # noqa: PTH105
        for folder in sorted(folders, reverse=True):  # each once, and inner ones first
            sync_folder(folder)

    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        if self.etag(key) != expected:
            raise concurrent_commit(self.location(key))
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
