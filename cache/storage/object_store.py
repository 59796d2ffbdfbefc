"""A cache in an object store: S3 and what speaks like it, Google's, Azure's.  tracks -> [cache] -> windows

There is no rename and no lock there. Shards are put only where nothing is, and the manifest only where it still is
the one that the writer began with: of two writers, one is refused. obstore speaks to the store; it takes credentials,
region, endpoint and timeouts from the environment (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL, AWS_TIMEOUT, ...).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from cache.errors import CacheError
from cache.fingerprint import fingerprint
from cache.storage.base import Bytes, Store, Tag
from cache.storage.local import overtaken

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

RETRY_SECONDS = 20.0  # how long a request is tried again that meets no server, or one out of order; read at opening

_AT_ONCE: Final = 16  # requests in flight: each waits for the network, none for a core
_T = TypeVar("_T")
_R = TypeVar("_R")

_spoken = False  # whether this process has threads that speak to a store
_orphan = False  # whether it was forked from one that had: they did not come along, and cannot be had again


def _forked() -> None:
    global _orphan
    _orphan = _spoken


os.register_at_fork(after_in_child=_forked)


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
        self._open: Callable[[str], Any] = from_url
        self._seen = False  # whether the bucket is known to be there
        with self._told(""):
            self._objects = self._at("")

    def where(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def read(self, key: str) -> bytes:
        return self.read_tagged(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, Tag]:
        with self._told(key):
            answer = self._api.get(self._objects, key)
            return bytes(answer.bytes()), _tag_of(answer.meta)

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
        return None if found is None else _tag_of(found)

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

    def put(
        self,
        key: str,
        data: bytes | Iterable[bytes],
        *,
        by_way_of: str,  # noqa: ARG002  an object appears whole
    ) -> None:
        from obstore.exceptions import AlreadyExistsError

        whole = data if isinstance(data, bytes) else b"".join(data)
        try:
            with self._told(key, writing=True):
                self._api.put(self._objects, key, whole, mode="create", use_multipart=False)
        except AlreadyExistsError:
            if not self._holds(key, whole):
                raise self._taken(key) from None

    def rename(self, key: str, to: str) -> None:
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._told(key):
                self._api.copy(self._objects, key, to, overwrite=False)
        except AlreadyExistsError:
            if not self._holds(to, self.read(key)):
                raise self._taken(to) from None
        self.remove([key])

    def put_small(self, files: Mapping[str, bytes], home: str) -> None:  # noqa: ARG002  there are no folders to sync
        def put(item: tuple[str, bytes]) -> None:
            with self._told(item[0], writing=True):
                self._api.put(self._objects, item[0], item[1], use_multipart=False)

        at_once(put, list(files.items()))

    def replace(self, key: str, data: bytes, *, expected: Tag | None) -> Tag:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if expected is None else dict(expected)  # type: ignore[call-overload]
        try:
            with self._told(key):
                return _tag_of(self._api.put(self._objects, key, data, mode=mode, use_multipart=False))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # The answer to a put may be lost, and the same put sent again: then what is there is our own.
            if not self._holds(key, data):
                raise overtaken(self.where(key)) from None
            return self.tag(key)

    def move(self, folder: str, to: str) -> None:
        names = list(self.files(folder))

        def copy(key: str) -> None:
            with self._told(key), suppress(FileNotFoundError):  # another writer is moving it, too
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

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()  # an object appears whole, whoever else puts the same

    def lock(self, folder: str) -> NoLock:  # noqa: ARG002
        return NoLock()

    def journal(self, folder: str) -> BucketJournal:
        return BucketJournal(self, folder)

    def spill(self, folder: str) -> None:  # noqa: ARG002
        return None

    def zarr(self, folder: str = "") -> ZarrStore:
        from zarr.storage import ObjectStore

        with self._told(folder):
            return ObjectStore(self._at(folder), read_only=True)

    def _at(self, folder: str) -> Any:
        retries = {"retry_timeout": timedelta(seconds=RETRY_SECONDS), "max_retries": 1000}  # the time decides
        # S3 copies where nothing is only in parts; who has set the variable knows of another way.
        s3 = self.root.startswith("s3") and "AWS_COPY_IF_NOT_EXISTS" not in os.environ
        config = {"copy_if_not_exists": "multipart"} if s3 else {}
        return self._open(self.where(folder), config=config, retry_config=retries)  # type: ignore[call-arg]

    def _taken(self, key: str) -> CacheError:
        return CacheError.at(
            self.where(key),
            expected="nothing there yet",
            found="other content: another writer is at work, or one that was killed has left it",
            do="If no other writer is at work, remove what no manifest names, and run it again: "
            f"python -m pipeline gc --older-than 0 --cache {self.root}",
        )

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except FileNotFoundError:
            return False

    def _head(self, key: str) -> Any:
        try:
            with self._told(key):
                return self._api.head(self._objects, key)
        except FileNotFoundError:
            if not self._seen:  # a bucket that is not there has the same answer
                self.below("")
                self._seen = True
            return None

    @contextmanager
    def _told(self, key: str, *, writing: bool = False) -> Iterator[None]:
        """What the store refuses, in words. `writing`: an object need not be there, so what is missing is the bucket.

        Lets AlreadyExistsError, PreconditionError and FileNotFoundError through.
        """
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        global _spoken
        if _orphan:
            raise CacheError(
                f"{self.root}: this process was forked from one that had a cache in an object store open, and requests "
                "from here would wait for ever. Start workers by spawn (multiprocessing_context='spawn' of a "
                "DataLoader), and hand them the split."
            )
        _spoken = True
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not writing and "NoSuchBucket" not in str(error):
                raise
            raise CacheError.at(
                self.where(key),
                expected="an answer from the object store",
                found=_in_words(error),
                do="Check the URL, the network, and the credentials in the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL). What is finished is kept.",
            ) from error


def _tag_of(meta: Any) -> Tag:
    """What S3 and Azure (an ETag) or Google's store (a version) compare for a conditional put, in obstore's words."""
    return tuple((name, str(meta[name])) for name in ("e_tag", "version") if meta.get(name) is not None)


def _in_words(error: Exception) -> str:
    """The server's own sentence where there is one; else obstore's, without what it adds for those who debug it."""
    text = str(error).partition("\n\nDebug source")[0]
    said = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    if said is not None:
        return f"{said[1]}: {said[2].strip().rstrip('.')}"
    text = re.sub(r", max_retries: \d+, retry_timeout: \S+\s*", " ", text)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(" .:")


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
