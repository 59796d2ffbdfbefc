"""A cache in a folder of this machine, and the journal of its writers.  [cache]"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import google_crc32c
import numpy as np

from cache.errors import CacheError
from cache.storage.atomic import WriterLock, make_folder, naming, publish, sync_folder, write_atomic, write_synced
from cache.storage.base import Bytes, Etag, Store, concurrent_commit

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read
_NO_LINKS: Final = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that have none


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
        try:
            status = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def etag(self, key: str) -> Etag | None:
        try:
            status = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

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

    def put(self, key: str, data: bytes | Iterable[bytes], *, temporary: str) -> None:
        make_folder(self.path(temporary).parent)
        write_synced(self.path(temporary), data)
        publish(self.path(temporary), self.path(key))

    def rename(self, key: str, to: str) -> None:
        publish(self.path(key), self.path(to))

    def copy(self, key: str, to: str) -> None:
        file = self.path(to)
        make_folder(file.parent)
        try:
            os.link(self.path(key), file)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            write_atomic(file, self.read(key))
        sync_folder(file.parent)

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
                    shutil.rmtree(path)
            elif path.exists() or path.is_symlink():
                os.unlink(path)  # noqa: PTH108
            else:
                continue
            parents.add(path.parent)
        for folder in sorted(parents):
            if folder.is_dir():
                sync_folder(folder)

    def lock(self, folder: str) -> WriterLock:
        return WriterLock(self.path(folder) / "lock")

    def journal(self, folder: str) -> FileJournal:
        return FileJournal(self.path(folder) / "journal.jsonl")

    def zarr(self, folder: str = "") -> ZarrStore:
        from zarr.storage import LocalStore as ZarrLocalStore  # here: zarr takes its time to import

        return ZarrLocalStore(self.path(folder), read_only=True)


class FileJournal:
    """A `Journal` in one append-only file, which comes with the first record.

    One JSON line for each, after the crc32c of its text, appended and synced once the shard is on the disk. A line that
    a crash has torn does not match its checksum: it and all after it count as never written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        self._head: Mapping[str, Any] = {}

    def resume(self, head: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return None
        records: list[dict[str, Any]] = []
        intact = 0  # bytes up to the first torn line
        while (end := text.find(b"\n", intact)) >= 0:
            crc, _, body = text[intact:end].partition(b" ")
            if crc != b"%08x" % google_crc32c.value(body):
                break
            records.append(json.loads(body))
            intact = end + 1
        if not records or records[0] != json.loads(json.dumps(head)):
            return None
        self._open()
        with naming(self._file):
            os.ftruncate(self._fd, intact)
        return records[1:]

    def start(self, head: Mapping[str, Any]) -> None:
        self.remove()
        self._head = dict(head)

    def add(self, record: Mapping[str, Any]) -> None:
        if self._fd < 0:
            write_atomic(self._file, _line(self._head))
            self._open()
        line = _line(record)
        with naming(self._file):
            if os.write(self._fd, line) != len(line):
                do = "Make room; run again."
                raise CacheError.at(self._file, expected="room for one line", found="a full disk", do=do)
            os.fsync(self._fd)

    def remove(self) -> None:
        self.close()
        if self._file.exists():
            self._file.unlink()
            sync_folder(self._file.parent)  # else a power cut could bring back records of what was committed

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value).encode()
    return b"%08x %s\n" % (google_crc32c.value(text), text)
