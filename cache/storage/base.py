"""The interface of storage: a local folder or an object store.  [cache]

Every file has a key: its path below one root, such as `penn_action/train/kp_2d/c/0/0/0`. Writers
need three things from a store: files that appear completely or not at all (`put`), one small file
that is replaced only if nobody has changed it (`replace`), and a lock if the store has locks.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import Busy, CacheError

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

Bytes = NDArray[np.uint8]
Etag = Hashable  # differs between a file and the one that has replaced it
Root = Path | str  # a folder, or a URL such as s3://bucket/prefix
# keys of the files that this package writes below folders that it removes; others are a user's,
# and stay
_OWN: Final = re.compile(
    r"""
    (.*/)?(
        c(/[0-9]+)+                                 # a shard
        | (zarr|manifest|provenance|unused)\.json   # the small files beside shards
        | \.[^/]+\.tmp                              # a temporary file
        | \.(writing|commit|tags)/.*                # all in a writer's folder, and of tags
    )
    """,
    re.VERBOSE,
)


def is_own_file(key: str) -> bool:
    """Whether a key is one of those that this package gives to files in folders that it removes.

    >>> is_own_file("3dpw/train/bbox/c/5/0"), is_own_file("3dpw/train/scripts/c/main.c")
    (True, False)
    """
    return _OWN.fullmatch(key) is not None


class Lock:
    """A writer's lock, held until `release` or the end of `with`.

    This base class does not keep other writers out; it is for stores without locks.
    """

    def require(self) -> None:
        """Raise CacheError if the lock has been lost: another process may be writing by now."""

    def release(self) -> None:
        """Give the lock up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Store(ABC):
    """Files by key below one root. Keys are relative, with "/" between their parts; "" is the root
    itself.
    """

    root: Root
    # Whether `lock` keeps other writers out.
    # True (a folder): under the lock, files that no manifest names are those of a dead writer. They
    #     may be removed, and `put` and `rename` replace them.
    # False (an object store): such files may belong to a running writer. They stay until
    #     they are old, `put` and `rename` replace no file, and of several writers, `replace` lets
    #     the first one commit.
    exclusive: bool

    @abstractmethod
    def location(self, key: str) -> str:
        """The key's path or URL, for messages."""

    @abstractmethod
    def below(self, folder: str) -> Store:
        """The store whose root is a folder of this one."""

    def folder(self, key: str = "") -> Path | None:  # noqa: ARG002  an object store has none
        """The folder on this machine, whose files can be memory-mapped; None in an object store."""
        return None

    @abstractmethod
    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        """Read a whole file. Returns its bytes and its etag, which is never newer than the bytes.

        Raises FileNotFoundError.
        """

    @abstractmethod
    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        """The bytes of small files by key, read-only. Files that do not exist are left out."""

    @abstractmethod
    def read_into(self, key: str, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes of a file from `start` on. Raises FileNotFoundError."""

    def read_ranges(self, key: str, starts: list[int], size: int) -> list[bytes]:
        """Read `size` bytes of one file from each start on. Raises FileNotFoundError."""
        parts = []
        for start in starts:
            part = np.empty(size, np.uint8)
            self.read_into(key, start, part)
            parts.append(part.tobytes())
        return parts

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The size of a file in bytes; None if it does not exist."""

    @abstractmethod
    def etag(self, key: str) -> Etag | None:
        """The etag of a file; None if it does not exist."""

    @abstractmethod
    def list_names(self, folder: str) -> list[str]:
        """Sorted names of the files and folders directly in a folder; [] if it does not exist."""

    @abstractmethod
    def file_sizes(self, folder: str) -> dict[str, int]:
        """The size in bytes of every file below a folder, at any depth, by key."""

    def refuse_links(self, key: str) -> None:  # noqa: B027  an object store has none
        """Raise AccessDenied if a file or folder, or one above it below the root, is a symbolic
        link.
        """

    @abstractmethod
    def age(self, key: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, temporary: str) -> None:
        """Write a new file, atomically and durably. If the file exists, it is replaced in an
        `exclusive` store; in others it stays.

        Args:
            temporary: key of a temporary file that a store without atomic writes writes first.

        Raises CacheError if a file that stays has other content: another writer has written it.
        """

    @abstractmethod
    def rename(self, key: str, to: str) -> None:
        """Rename a file, atomically and durably. Raises FileNotFoundError, and CacheError as `put`
        does.
        """

    @abstractmethod
    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:
        """Write or replace small files, each atomically. All are durable when this returns.

        Args:
            files: their contents, by key.
            home: key of a folder that contains all of them, at any depth. On a disk,
                missing folders are made, and this folder and those below it are synced.
            shared: other processes may write the same files at the same time, so the temporary
                files get random names.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        """Replace a file, atomically and durably.

        Raises CacheError (Busy) if the file's etag is not `expected`; None: no file may exist.
        """

    @abstractmethod
    def remove(self, keys: Collection[str]) -> None:
        """Remove files, and folders with the files for which `is_own_file` holds. A folder in which
        others are left stays. Those that do not exist are skipped.
        """

    def remove_empty(self, folder: str) -> bool:  # noqa: ARG002  an object store has no folders
        """Remove a folder if it is empty; safe while other processes write. Returns whether it was
        removed.
        """
        return False

    @abstractmethod
    def lock(self, folder: str) -> Lock:
        """Take the writer's lock. Raises CacheError (Busy) if another writer holds it, and another
        CacheError if the store ignores the conditions of `put` and `replace`.

        Args:
            folder: key of the folder for the lock's own files.
        """

    @abstractmethod
    def zarr(self, folder: str) -> ZarrStore:
        """The folder as zarr-python sees it, read-only."""

    def read(self, key: str) -> bytes:
        return self.read_with_etag(key)[0]

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def _concurrent_commit(self, key: str) -> CacheError:
        """The error for a commit whose base, the manifest at `key`, has been replaced by another
        writer.
        """
        return Busy.at(
            self.location(key),
            expected="the manifest that this writer began with",
            found="another one: another writer has saved its work meanwhile",
            do="Nothing was saved in the cache. Run the command again: it begins with the new "
            "state.",
        )
