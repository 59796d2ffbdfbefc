"""A cache in a folder of this machine.  tracks -> [cache] -> windows"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cache.errors import CacheError
from cache.storage.atomic import (
    WriterLock,
    make_folder,
    naming,
    publish,
    sync_folder,
    sync_names,
    write_atomic,
    write_synced,
)
from cache.storage.base import Bytes, Store, Tag
from cache.storage.journal import FileJournal

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read


class Folder(Store):
    """Files below a local folder. One writer a split, by the kernel's own lock."""

    exclusive = True

    def __init__(self, root: Path) -> None:
        self.root: Path = root

    def path(self, key: str) -> Path:
        return self.root / key

    def where(self, key: str) -> str:
        return str(self.path(key))

    def read(self, key: str) -> bytes:
        try:
            return self.path(key).read_bytes()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path(key))) from error

    def read_tagged(self, key: str) -> tuple[bytes, Tag]:
        tag = self.tag(key)  # first: should the file be replaced in between, the tag is the older one
        return self.read(key), tag

    def views(self, keys: Iterable[str]) -> dict[str, Bytes]:
        found = {}
        for key in keys:
            size = self.size(key)
            if size is None:
                continue
            try:
                found[key] = (
                    np.memmap(self.path(key), np.uint8, "r")
                    if size >= _MAP_FROM
                    else np.frombuffer(self.read(key), np.uint8)
                )
            except PermissionError:
                raise
            except (OSError, ValueError):  # gone, or emptied, since we looked; or not to be read: it may have a copy
                continue
        return found

    def size(self, key: str) -> int | None:
        try:
            found = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def tag(self, key: str) -> Tag | None:
        try:
            found = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def below(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(folder)))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str) -> dict[str, int]:
        top = self.path(folder)
        found = (file for file in top.rglob("*") if file.is_file()) if top.is_dir() else ()
        return {file.relative_to(self.root).as_posix(): file.stat().st_size for file in found}

    def age(self, key: str) -> float:
        return time.time() - self.path(key).stat().st_mtime

    def put(self, key: str, data: bytes | Iterable[bytes], *, by_way_of: str) -> None:
        make_folder(self.path(by_way_of).parent)
        write_synced(self.path(by_way_of), data)
        publish(self.path(by_way_of), self.path(key))

    def rename(self, key: str, to: str) -> None:
        publish(self.path(key), self.path(to))

    def put_small(self, files: Mapping[str, bytes], home: str) -> None:
        below = self.path(home)
        make_folder(below)
        targets = [self.path(key) for key in files]
        for target, data in zip(targets, files.values(), strict=True):
            missing = [folder for folder in target.parents if folder.is_relative_to(below) and not folder.is_dir()]
            for folder in reversed(missing):
                os.mkdir(folder)  # noqa: PTH102
            temporary = target.with_name(f".{target.name}.tmp")
            write_synced(temporary, data)
            os.replace(temporary, target)  # noqa: PTH105
        sync_names(targets, below)

    def replace(self, key: str, data: bytes, *, expected: Tag | None) -> Tag:
        if self.tag(key) != expected:
            raise overtaken(self.where(key))
        write_atomic(self.path(key), data)
        return self.tag(key)

    def move(self, folder: str, to: str) -> None:
        target = self.path(to)
        make_folder(target.parent)
        os.rename(self.path(folder), target)  # noqa: PTH104
        sync_folder(target.parent)
        sync_folder(self.path(folder).parent)

    def remove(self, keys: Collection[str]) -> None:
        touched = set()
        for key in keys:
            path = self.path(key)
            if path.is_dir() and not path.is_symlink():
                with naming(path):
                    shutil.rmtree(path)
            elif path.exists() or path.is_symlink():
                os.unlink(path)  # noqa: PTH108
            else:
                continue
            touched.add(path.parent)
        for folder in sorted(touched):
            if folder.is_dir():
                sync_folder(folder)

    def make_home(self, folder: str) -> None:
        make_folder(self.path(folder))

    @contextmanager
    def alone(self) -> Iterator[None]:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def lock(self, folder: str) -> WriterLock:
        return WriterLock(self.path(folder) / "lock")

    def journal(self, folder: str) -> FileJournal:
        return FileJournal(self.path(folder) / "journal.jsonl")

    def spill(self, folder: str) -> Path | None:
        return self.path(folder) if self.path(folder).is_dir() else None

    def zarr(self, folder: str = "") -> ZarrStore:
        from zarr.storage import LocalStore

        return LocalStore(self.path(folder), read_only=True)


def overtaken(where: str) -> CacheError:
    """The error for a commit whose base is not in force any more."""
    return CacheError.at(
        Path(where) if "://" not in where else where,
        expected="the manifest that this writer began with",
        found="another one: another writer has committed meanwhile",
        do="Nothing of this run was committed. Run it again: it begins with what is there now.",
    )
