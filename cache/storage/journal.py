"""What a writer has finished but not yet committed, so that a killed run goes on from there.  tracks -> [cache]

One JSON line per shard, each after the crc32c of its text, appended and synced once the shard is on the disk. A line
that a crash has torn does not match its checksum: it and all after it are as if never written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import google_crc32c

from cache.errors import CacheError
from cache.storage.atomic import naming, sync_folder, write_atomic

_CRC_DIGITS: Final = 8


class FileJournal:
    """An append-only list of records under one head, which says what they are good for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        self._head: Mapping[str, Any] = {}

    def resume(self, head: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The intact records, when the journal was begun with exactly this head; None otherwise."""
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return None
        lines, intact = _intact(text)
        if not lines or lines[0] != json.loads(json.dumps(head)):
            return None
        self._open()
        with naming(self._file):
            os.ftruncate(self._fd, intact)
        return lines[1:]

    def start(self, head: Mapping[str, Any]) -> None:
        """Begin anew: earlier records are gone. The file comes with the first record."""
        self.remove()
        self._head = dict(head)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record. When this returns, a crash can no longer take it away."""
        if self._fd < 0:
            write_atomic(self._file, _line(self._head))
            self._open()
        line = _line(record)
        with naming(self._file):
            self._append(line)

    def _append(self, line: bytes) -> None:
        if os.write(self._fd, line) != len(line):  # a torn line is as if never written: so is all that follows it
            raise CacheError.at(
                self._file, expected="room for one line", found="a full disk", do="Make room; run again."
            )
        os.fsync(self._fd)

    def remove(self) -> None:
        """The records are committed, or of no use any more."""
        self.close()
        if self._file.exists():
            self._file.unlink()
            sync_folder(self._file.parent)  # or a power cut could bring it back, to speak of what was committed

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value).encode()
    return b"%08x %s\n" % (google_crc32c.value(text), text)


def _intact(text: bytes) -> tuple[list[dict[str, Any]], int]:
    """(records, bytes they take) up to the first line that is torn."""
    records = []
    position = 0
    while (end := text.find(b"\n", position)) >= 0:
        crc, _, body = text[position:end].partition(b" ")
        if len(crc) != _CRC_DIGITS or crc != b"%08x" % google_crc32c.value(body):
            break
        records.append(json.loads(body))
        position = end + 1
    return records, position
