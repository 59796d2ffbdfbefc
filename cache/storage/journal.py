"""Journal of finished, uncommitted work, which the next writer continues.  [cache]"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from cache.fingerprint import fingerprint
from cache.storage.base import Store


class Journal:
    """Records under one head, each in a small file with a checksum."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._home, self._next = "", 0

    def start(self, head: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Continue the journal with exactly this head, or begin it. Returns its intact records."""
        self._home = f"{self._folder}/{fingerprint(head)[:16]}"
        files = self._store.read_many(self._store.files(self._home))
        records: list[dict[str, Any]] = []
        while (file := files.get(self._key(len(records)))) is not None:
            crc, _, text = bytes(file).partition(b" ")
            if crc != _checksum(len(records), text):
                break
            records.append(json.loads(text))
        self._next = len(records)
        # Remove records after a damaged one: they would come back after those added now.
        self._store.remove([key for key in files if key >= self._key(self._next)])
        if not records and self._store.exclusive:
            self._store.remove([self._folder])
        return records

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record, durably."""
        text = json.dumps(record).encode()
        record_text = _checksum(self._next, text) + b" " + text
        self._store.put_small({self._key(self._next): record_text}, self._folder)
        self._next += 1

    def remove(self) -> None:
        self._store.remove([self._folder if self._store.exclusive else self._home])

    def _key(self, number: int) -> str:
        return f"{self._home}/{number:08d}.json"


def _checksum(number: int, text: bytes) -> bytes:
    return b"%08x" % google_crc32c.value(b"%d %s" % (number, text))
