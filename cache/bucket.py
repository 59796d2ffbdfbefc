"""A cache in an object store: S3 and what speaks like it, Google's, Azure's.  tracks -> [cache] -> windows

There is no rename and no lock there. Shards are put only where nothing is, and the manifest only where it still is
the one that the writer began with: of two writers, one is refused. obstore speaks to the store; it takes credentials,
region and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from cache.errors import CacheError
from cache.fingerprint import fingerprint
from cache.local import overtaken
from cache.stores import Bytes, Store, Tag

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_AT_ONCE: Final = 16  # requests in flight: each waits for the network, none for a core
_T = TypeVar("_T")
_R = TypeVar("_R")


class Bucket(Store):
    """Objects below a URL as s3://bucket/prefix. Any number of writers may begin; one of them commits."""

    exclusive = False

    def __init__(self, url: str) -> None:
        self.root: str = url.rstrip("/")
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise CacheError(
                f"{url}: a cache in an object store needs obstore: pip install 'vibe-pipeline[s3]'"
            ) from error
        self._api = obstore
        with self._told(""):
            self._objects = from_url(self.root)
        self._process = os.getpid()

    def where(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def read(self, key: str) -> bytes:
        return self.read_tagged(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, Tag]:
        with self._told(key):
            answer = self._api.get(self._objects, key)
            return bytes(answer.bytes()), answer.meta["e_tag"]

    def read_ranges(self, key: str, starts: list[int], ends: list[int]) -> list[bytes]:
        """Several byte ranges of one object at once. Raises FileNotFoundError."""
        with self._told(key):
            return [bytes(part) for part in self._api.get_ranges(self._objects, key, starts=starts, ends=ends)]

    def views(self, keys: Iterable[str]) -> dict[str, Bytes]:
        def view(key: str) -> Bytes | None:
            try:
                return np.frombuffer(self.read(key), np.uint8)
            except FileNotFoundError:
                return None

        wanted = list(keys)
        found = zip(wanted, at_once(view, wanted), strict=True)
        return {key: data for key, data in found if data is not None}

    def size(self, key: str) -> int | None:
        found = self._head(key)
        return None if found is None else int(found["size"])

    def tag(self, key: str) -> Tag | None:
        found = self._head(key)
        return None if found is None else str(found["e_tag"])

    def below(self, folder: str) -> list[str]:
        with self._told(folder):
            found = self._api.list_with_delimiter(self._objects, folder or None)
        names = [*found["common_prefixes"], *(str(meta["path"]) for meta in found["objects"])]
        return sorted({name.rstrip("/").rpartition("/")[2] for name in names})

    def files(self, folder: str) -> dict[str, int]:
        with self._told(folder):
            pages = self._api.list(self._objects, folder or None)
            return {str(meta["path"]): int(meta["size"]) for page in pages for meta in page}

    def age(self, key: str) -> float:
        found = self._head(key)
        if found is None:
            raise FileNotFoundError(self.where(key))
        return float((datetime.now(UTC) - found["last_modified"]).total_seconds())

    def put(self, key: str, data: bytes, *, by_way_of: str) -> None:  # noqa: ARG002  an object appears whole
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._told(key):
                self._api.put(self._objects, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            if self.read(key) != data:
                raise CacheError.at(
                    self.where(key),
                    expected="nothing there yet",
                    found="other content: another writer is at work, or one that was killed has left it",
                    do="If no other writer is at work, remove what no manifest names, and run it again: "
                    f"python -m pipeline gc --older-than 0 --cache {self.root}",
                ) from None

    def put_small(self, files: Mapping[str, bytes], home: str) -> None:  # noqa: ARG002  there are no folders to sync
        def put(item: tuple[str, bytes]) -> None:
            with self._told(item[0]):
                self._api.put(self._objects, item[0], item[1], use_multipart=False)

        at_once(put, list(files.items()))

    def replace(self, key: str, data: bytes, *, expected: Tag | None) -> Tag:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if expected is None else {"e_tag": expected}
        try:
            with self._told(key):
                return self._api.put(self._objects, key, data, mode=mode, use_multipart=False)["e_tag"]
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise overtaken(self.where(key)) from None

    def move(self, folder: str, to: str) -> None:
        names = list(self.files(folder))

        def copy(key: str) -> None:
            with self._told(key):
                self._api.copy(self._objects, key, to + key.removeprefix(folder))

        at_once(copy, names)
        self.remove(names)

    def remove(self, keys: Collection[str]) -> None:
        names = [name for key in keys for name in (self.files(key) or [key])]
        for first in range(0, len(names), 1000):  # as many as one request takes
            with self._told(names[first]):
                try:
                    self._api.delete(self._objects, names[first : first + 1000])
                except FileNotFoundError:
                    continue

    def make_home(self, folder: str) -> None:
        """Nothing: there are no folders, only names with slashes."""

    def lock(self, folder: str) -> NoLock:  # noqa: ARG002
        return NoLock()

    def journal(self, folder: str) -> BucketJournal:
        return BucketJournal(self, folder)

    def spill(self, folder: str) -> None:  # noqa: ARG002
        return None

    def zarr(self, folder: str = "") -> ZarrStore:
        from obstore.store import from_url
        from zarr.storage import ObjectStore

        with self._told(folder):
            return ObjectStore(from_url(self.where(folder)), read_only=True)

    def _head(self, key: str) -> Any:
        try:
            with self._told(key):
                return self._api.head(self._objects, key)
        except FileNotFoundError:
            return None

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What the store refuses, in words: who to ask for what."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        if getattr(self, "_process", os.getpid()) != os.getpid():
            # The threads that speak to the store did not come along: a request would wait for ever.
            raise CacheError(
                f"{self.root}: was opened before this process was forked. Open it in the worker itself, or start "
                "workers by spawn (multiprocessing_context='spawn' of a DataLoader)."
            )
        try:
            yield
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise
        except (BaseError, OSError, ValueError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CacheError.at(
                self.where(key),
                expected="an answer from the object store",
                found=first[:300],
                do="Check the URL, the network, and the credentials in the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL). What is finished is kept.",
            ) from error


class NoLock:
    """An object store keeps nobody out. The manifest's conditional put decides."""

    def require(self) -> None:
        """Nothing to lose."""

    def release(self) -> None:
        """Nothing to let go of."""


class BucketJournal:
    """Records as objects of their own, below a name that their head gives: two runs with other heads do not meet."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        self._bucket, self._folder = bucket, folder
        self._home = ""
        self._next = 0

    def resume(self, head: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The records of a run with exactly this head; None when there is none."""
        self._home = f"{self._folder}/journal/{fingerprint(head)[:16]}"
        found = self._bucket.views(self._bucket.files(self._home))
        records = [json.loads(bytes(found[key])) for key in sorted(found)]
        self._next = len(records)
        return records or None

    def start(self, head: Mapping[str, Any]) -> None:
        """Begin anew. Journals under other heads stay: they may be of writers at work."""
        self._home = f"{self._folder}/journal/{fingerprint(head)[:16]}"
        self._next = 0

    def add(self, record: Mapping[str, Any]) -> None:
        self._bucket.put_small({f"{self._home}/{self._next:08d}.json": json.dumps(record).encode()}, self._folder)
        self._next += 1

    def remove(self) -> None:
        if self._home:
            self._bucket.remove([self._home])

    def close(self) -> None:
        """Nothing is open."""


def at_once(job: Callable[[_T], _R], items: Collection[_T]) -> list[_R]:
    """The job for every item, several at a time, answers in order. The first error is raised."""
    if len(items) < 2:
        return [job(item) for item in items]
    with ThreadPoolExecutor(min(_AT_ONCE, len(items))) as threads:
        return list(threads.map(job, items))
