"""What a verification has found intact so far, so that one that is interrupted goes on from there.  [cache]

It lies in `.verifying` below the cache, and is gone when the verification has finished. A file counts as checked only
while it is the same one: same name, same record in the manifest, same inode, size and time. Nobody relies on it but
the verification itself, so where it cannot be written, it is not.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

from cache.errors import CacheError
from cache.storage.base import Root, Store, Tag, store_at
from cache.storage.journal import FileJournal
from cache.storage.local import Folder

VERIFYING: Final = ".verifying"
KEPT_FOR: Final = 7 * 24 * 3600.0  # s: disks forget too
EVERY: Final = 5.0  # s between writes
_HEAD: Final[dict[str, Any]] = {"verified": 1}


class Checked:
    """The shards of a cache that are known to be intact."""

    def __init__(self, store: Store, *, resume: bool) -> None:
        self._store = store
        self._journal: FileJournal | None = None
        self._seen: dict[str, tuple[str, list[Any]]] = {}
        self._new: list[list[Any]] = []
        self._wrote = time.monotonic()
        if not isinstance(store, Folder):
            return
        journal = store.journal(VERIFYING)
        try:
            records = journal.resume(_HEAD) if resume else None
            if records is None:
                journal.start(_HEAD)
        except (OSError, ValueError):  # not ours to write, or not what we wrote: verify without
            journal.close()
            return
        self._journal = journal
        oldest = time.time() - KEPT_FOR
        for record in records or ():
            if oldest < record["at"] <= time.time():
                self._seen |= {key: (text, tag) for key, text, tag in record["shards"]}

    def __len__(self) -> int:
        return len(self._seen)

    def has(self, key: str, record: str) -> bool:
        """Whether the file of this key was found to be what the record says, and is the same file still."""
        seen = self._seen.get(key)
        if seen is None or seen[0] != record:
            return False
        return _as_json(self._store.tag(key)) == seen[1]

    def add(self, key: str, record: str, tag: Tag | None) -> None:
        """The file with this tag is what the record says."""
        if self._journal is None or tag is None:
            return
        self._new.append([key, record, _as_json(tag)])
        if time.monotonic() - self._wrote > EVERY:
            self.keep()

    def keep(self) -> None:
        """Put down what is known by now."""
        if self._journal is not None and self._new:
            try:
                self._journal.add({"at": time.time(), "shards": self._new})
            except (OSError, CacheError):  # a full disk, say: to verify goes on, only not where it was
                self._journal.close()
                self._journal = None
            self._new = []
        self._wrote = time.monotonic()

    def leave(self) -> None:
        """Put it down, for the next verification to go on from."""
        self.keep()
        self.close()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def finish(self) -> None:
        """Nobody needs it any more."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.remove()
                self._store.remove([VERIFYING])


def interrupted(root: Root) -> int:
    """How many shards a verification that did not finish has found intact; 0: there is none to go on from."""
    store = store_at(root)
    if not store.below(VERIFYING):
        return 0
    checked = Checked(store, resume=True)
    checked.close()
    return len(checked)


def _as_json(tag: Tag | None) -> list[Any] | None:
    return list(tag) if isinstance(tag, tuple) else None
