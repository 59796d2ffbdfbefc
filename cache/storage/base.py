"""The interface of storage: a local folder or an object store.  [cache]

Every file has a key below one root, as `penn_action/train/kp_2d/c/0/0/0`. Writers need whole files
that appear at once, one small file that is replaced only if it is unchanged, and, if there is one,
a lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import Busy, CacheError

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

Bytes = NDArray[np.uint8]
Etag = Hashable  # differs between a file and the one that has replaced it
Root = Path | str  # a folder, or a URL as s3://bucket/prefix


class Lock:
    """A writer's lock, held until `release` or the end of `with`. This base class excludes
    nobody.
    """

    def require(self) -> None:
        """Raise CacheError when the lock has been lost: another process may be writing by now."""

    def release(self) -> None:
        """Let the next writer in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Store(ABC):
    """Files by key below one root. Keys are relative, with "/" between their parts; "" is the root
    itself.
    """

    root: Root
    # whether `lock` keeps others out: then unreferenced files can only be a dead writer's
    exclusive: bool

    @abstractmethod
    def location(self, key: str) -> str:
        """The key's path or URL, for messages."""

    def folder(self, key: str = "") -> Path | None:  # noqa: ARG002  an object store has none
        """The folder on a disk of this machine, whose files can be mapped; None in other stores."""
        return None

    @abstractmethod
    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        """A whole file and its etag, which is never newer than the bytes. Raises
        FileNotFoundError.
        """

    @abstractmethod
    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        """The bytes of small files, read-only; those that do not exist are left out."""

    @abstractmethod
    def read_into(self, key: str, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes of a file from `start` on. Raises FileNotFoundError."""

    def read_ranges(self, key: str, starts: list[int], ends: list[int]) -> list[bytes]:
        """Several byte ranges of one file. Raises FileNotFoundError."""
        parts = []
        for start, end in zip(starts, ends, strict=True):
            part = np.empty(end - start, np.uint8)
            self.read_into(key, start, part)
            parts.append(part.tobytes())
        return parts

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of a file; None when there is none."""

    @abstractmethod
    def etag(self, key: str) -> Etag | None:
        """The etag of a file; None when there is none."""

    @abstractmethod
    def list_names(self, folder: str) -> list[str]:
        """The names of files and folders directly below a folder, sorted; none when it does not
        exist.
        """

    @abstractmethod
    def files(self, folder: str) -> dict[str, int]:
        """Every file below a folder, however deep, by its key, with its size."""

    @abstractmethod
    def age(self, key: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, temporary: str) -> None:
        """Write a new file, atomically and durably. `temporary`: key of a file to write first.

        Raises CacheError if `exclusive` is False and the file exists with other content.
        """

    @abstractmethod
    def rename(self, key: str, to: str) -> None:
        """Rename a file, atomically and durably. Raises FileNotFoundError, and CacheError as `put`
        does.
        """

    @abstractmethod
    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:
        """Write small files below `home`, each replaced atomically; all of them are durable when
        this returns.

        shared: other processes may write the same files at the same time.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        """Replace a file, atomically and durably. Raises CacheError for another etag; None: no
        file.
        """

    @abstractmethod
    def remove(self, keys: Collection[str]) -> None:
        """Remove files, and folders with their contents. Those that do not exist are skipped."""

    def remove_empty(self, folder: str) -> bool:  # noqa: ARG002  an object store has no folders
        """Remove a folder if it is empty, whatever others do at the time. Returns whether it
        did.
        """
        return False

    @abstractmethod
    def lock(self, folder: str) -> Lock:
        """Keep other writers out; CacheError when there is one. `folder` is for the lock's own
        files.
        """

    @abstractmethod
    def zarr(self, folder: str = "") -> ZarrStore:
        """The folder as zarr-python sees it, read-only."""

    def read(self, key: str) -> bytes:
        return self.read_with_etag(key)[0]

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def _concurrent_commit(self, key: str) -> CacheError:
        """The error for a commit that was prepared on a manifest that is no longer in force."""
        return Busy.at(
            self.location(key),
            expected="the manifest that this writer began with",
            found="another one: another writer has committed meanwhile",
            do="Nothing was committed. Run the command again: it begins with the new state.",
        )
