"""The journal of a local writer: what it has finished but not yet committed, for the next one to go on from.  [cache]

One JSON line per shard, each after the crc32c of its text, appended and synced once the shard is on the disk. A line
that a crash has torn does not match its checksum: it and all after it count as never written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c

from cache.errors import CacheError
from cache.storage.atomic import naming, sync_folder, write_atomic


class FileJournal:
    """A `Journal` in one append-only file, which comes with the first record."""

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
