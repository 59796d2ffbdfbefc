"""Where a cache's files lie: a folder of this machine, or a prefix of an object store.  tracks -> [cache] -> windows

Everything in a cache is a file with a key below one root, as `penn_action/train/kp_2d/c/0/0/0`. A `Store` is what
writers and readers need of the place: whole files that appear at once, one small file that is replaced only if it is
still what it was, and, where there is such a thing, a lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

Bytes = NDArray[np.uint8]
Tag = Hashable  # differs between a file and the one that has replaced it
Root = Path | str  # a folder, or a URL as s3://bucket/prefix

SCHEMES: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")


class Lock(Protocol):
    """What keeps other writers out."""

    def require(self) -> None:
        """Raise CacheError when the lock has been lost: somebody else may be writing by now."""

    def release(self) -> None:
        """Let the next writer in."""


class Journal(Protocol):
    """What a writer has finished but not yet committed: records under one head, which says what they are good for."""

    def resume(self, head: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The intact records, when the journal was begun with exactly this head; None otherwise."""

    def start(self, head: Mapping[str, Any]) -> None:
        """Begin anew under this head."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record. When this returns, a crash can no longer take it away."""

    def remove(self) -> None:
        """The records are committed, or of no use any more."""

    def close(self) -> None:
        """Let go of the file, if there is one."""


class Store(ABC):
    """Files by key below one root. Keys are relative, with "/" between their parts; "" is the root itself."""

    root: Root
    exclusive: bool  # whether `lock` keeps others out: then whatever no manifest names is a left-over of a dead writer

    @abstractmethod
    def where(self, key: str) -> str:
        """The key's path or URL, as a person is told it."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""

    @abstractmethod
    def read_tagged(self, key: str) -> tuple[bytes, Tag]:
        """A whole file and its tag, which is never newer than the bytes. Raises FileNotFoundError."""

    @abstractmethod
    def views(self, keys: Iterable[str]) -> dict[str, Bytes]:
        """The bytes of small files, read-only; those that are not there are left out."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of a file; None when there is none."""

    @abstractmethod
    def tag(self, key: str) -> Tag | None:
        """The tag of a file; None when there is none."""

    @abstractmethod
    def below(self, folder: str) -> list[str]:
        """The names of files and folders directly below a folder, sorted; none when it is not there."""

    @abstractmethod
    def files(self, folder: str) -> dict[str, int]:
        """Every file below a folder, however deep, by its key, with its size."""

    @abstractmethod
    def age(self, key: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""

    @abstractmethod
    def put(self, key: str, data: bytes | Iterable[bytes], *, by_way_of: str) -> None:
        """A new file that appears whole, and stays after a power cut. `by_way_of`: key of a temporary file, if needed.

        `data` may come in pieces: a folder holds one of them at a time, an object store all of them.

        Raises CacheError where `exclusive` is False and there is another file of that name with other content.
        """

    @abstractmethod
    def rename(self, key: str, to: str) -> None:
        """Give a file another name, at once and durably. Raises FileNotFoundError, and CacheError as `put` does."""

    @abstractmethod
    def put_small(self, files: Mapping[str, bytes], home: str) -> None:
        """Several small files below `home`, each replaced at once; all of them durable when this returns."""

    @abstractmethod
    def replace(self, key: str, data: bytes, *, expected: Tag | None) -> Tag:
        """Replace one file at once and durably, if its tag still is the expected one (None: there is none yet).

        Raises CacheError when another writer was quicker.
        """

    @abstractmethod
    def move(self, folder: str, to: str) -> None:
        """Rename a folder, durably."""

    @abstractmethod
    def remove(self, keys: Collection[str]) -> None:
        """Remove files, folders with all that is in them too. Those that are not there do not matter."""

    @abstractmethod
    def make_home(self, folder: str) -> None:
        """Make a folder to put files in, where that is needed."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """For a moment, the only one to write what no writer's lock covers. Waits for whoever is."""

    @abstractmethod
    def lock(self, folder: str) -> Lock:
        """Keep other writers out, or raise CacheError when one is at work. `folder` is for the lock's own files."""

    @abstractmethod
    def journal(self, folder: str) -> Journal:
        """The journal of a writer whose own files lie in `folder`."""

    @abstractmethod
    def spill(self, folder: str) -> Path | None:
        """A folder of this machine for unnamed temporary files; None: the system's own."""

    @abstractmethod
    def zarr(self, folder: str = "") -> ZarrStore:
        """The folder as zarr-python sees it, read-only."""

    def __reduce__(self) -> tuple[Any, ...]:
        return store_at, (self.root,)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None


def store_at(root: Root | Store) -> Store:
    """The store of a cache at a path, or at a URL of an object store. Raises CacheError for a URL of another kind."""
    if isinstance(root, Store):
        return root
    scheme, found, rest = str(root).partition("://")
    if not found:
        from cache.storage.local import Folder

        return Folder(Path(root))
    if scheme == "file":
        return store_at(Path(rest))
    if scheme not in SCHEMES:
        raise CacheError(f"{root}: expected a folder, or a URL that starts with one of {', '.join(SCHEMES)}")
    from cache.storage.object_store import Bucket

    return Bucket(str(root))


def is_url(root: Root) -> bool:
    """Whether a cache's place is an object store rather than a folder."""
    return isinstance(root, str) and "://" in root and not root.startswith("file://")


def place_of(text: str) -> Root:
    """What a person wrote as a cache's place: a URL stays text, anything else is a path."""
    return text if is_url(text) else Path(text.removeprefix("file://"))
