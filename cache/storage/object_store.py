"""A cache in an object store: S3 and compatible ones, Google's, Azure's.  [cache]

An object store has no locks and no atomic rename. A shard is put only if no object has that name,
and the manifest only if it has not changed since it was read; of two writers, one is refused. Some
servers ignore these conditions, and are refused when a writer begins. The library obstore takes
credentials, region, endpoint and timeouts from the environment (AWS_ACCESS_KEY_ID, ...).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from cache.errors import CacheError
from cache.storage.base import Bytes, Etag, Lock, Store, is_own_file

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

# s: how long a failed request is repeated, longer than the limit of one request (obstore's default:
# 30 s), since a request that hangs would never be sent again. Applies to caches opened afterwards
RETRY_SECONDS = 45.0

# an etag (S3, Azure) and a version (Google) that no object has
_OTHER: Final[Any] = {"e_tag": f'"{"0" * 32}"', "version": "1"}
_CONFLICTS: Final = 5  # refusals of a creation before it fails, although there is no object
IN_FLIGHT: Final = 16  # concurrent requests; they wait for the network, so cores do not limit them
_T = TypeVar("_T")
_R = TypeVar("_R")

# id of the process in which obstore has started its threads (0: not started). A process that is
# forked from it does not have these threads, and cannot start others.
_threads_of = 0


class ObjectStore(Store):
    """Objects below a URL such as s3://bucket/prefix.

    Any number of writers may begin at the same time; only the first one can commit.
    """

    exclusive = False

    def __init__(self, url: str) -> None:
        self.root: str = url.rstrip("/")
        try:
            import obstore
        except ImportError as error:
            do = "pip install 'vibe-pipeline[s3]', in a clone .venv/bin/pip install -e '.[s3]'"
            raise CacheError(f"{url}: a cache in an object store needs obstore: {do}") from error
        self._api = obstore
        self._bucket_exists = False  # not checked yet
        self._keeps_conditions = False  # not checked yet
        with self._errors(""):
            self._objects = self._connect("")

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStore, (self.root,)

    def below(self, folder: str) -> ObjectStore:
        return ObjectStore(self.location(folder))

    def location(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def read_with_etag(self, key: str) -> tuple[bytes, Etag]:
        with self._errors(key):
            answer = self._api.get(self._objects, key)
            return bytes(answer.bytes()), _etag_of(answer.meta)

    def read_many(self, keys: Iterable[str]) -> dict[str, Bytes]:
        def read(key: str) -> Bytes | None:
            try:
                return np.frombuffer(self.read(key), np.uint8)
            except FileNotFoundError:
                return None

        names = list(keys)
        files = dict(zip(names, map_parallel(read, names), strict=True))
        return {key: data for key, data in files.items() if data is not None}

    def read_ranges(self, key: str, starts: list[int], size: int) -> list[bytes]:
        with self._errors(key):  # one request
            lengths = [size] * len(starts)
            parts = self._api.get_ranges(self._objects, key, starts=starts, lengths=lengths)
            return [bytes(part) for part in parts]

    def read_into(self, key: str, start: int, out: Bytes) -> None:
        parts = self.read_ranges(key, [start], len(out))
        out[:] = np.frombuffer(parts[0], np.uint8)

    def size(self, key: str) -> int | None:
        head = self._head(key)
        return None if head is None else int(head["size"])

    def etag(self, key: str) -> Etag | None:
        head = self._head(key)
        return None if head is None else _etag_of(head)

    def list_names(self, folder: str) -> list[str]:
        with self._errors(folder):
            listing = self._api.list_with_delimiter(self._objects, folder or None)
        keys = [str(meta["path"]) for meta in listing["objects"]]
        keys += listing["common_prefixes"]
        return sorted({key.rstrip("/").rpartition("/")[2] for key in keys})

    def file_sizes(self, folder: str) -> dict[str, int]:
        sizes = {}
        with self._errors(folder):
            for page in self._api.list(self._objects, folder or None):
                for meta in page:
                    sizes[str(meta["path"])] = int(meta["size"])
        return sizes

    def age(self, key: str) -> float:
        head = self._head(key)
        if head is None:
            raise FileNotFoundError(self.location(key))
        return float((datetime.now(UTC) - head["last_modified"]).total_seconds())

    def put(self, key: str, data: bytes, *, temporary: str) -> None:  # noqa: ARG002  an object appears whole
        def put() -> None:
            with self._errors(key, writing=True):
                self._api.put(self._objects, key, data, mode="create", use_multipart=False)

        self._create(key, put, lambda: data)

    def rename(self, key: str, to: str) -> None:
        def copy() -> None:
            with self._errors(key):
                self._api.copy(self._objects, key, to, overwrite=False)

        self._create(to, copy, lambda: self.read(key))
        self.remove([key])

    def put_small(self, files: Mapping[str, bytes], home: str, *, shared: bool = False) -> None:  # noqa: ARG002  no folders
        def upload(key: str) -> None:
            with self._errors(key, writing=True):
                self._api.put(self._objects, key, files[key], use_multipart=False)

        map_parallel(upload, list(files))

    def replace(self, key: str, data: bytes, *, expected: Etag | None) -> None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if expected is None:

            def put() -> None:
                with self._errors(key):
                    self._api.put(self._objects, key, data, mode="create", use_multipart=False)

            if not self._is_created(key, put, lambda: data):
                raise self._concurrent_commit(key)
            return
        mode: Any = dict(expected)  # type: ignore[call-overload]
        try:
            with self._errors(key):
                self._api.put(self._objects, key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # If the answer to a put is lost, obstore sends the put again, and finds our own object
            # there.
            if not self._holds(key, data):
                raise self._concurrent_commit(key) from None

    def remove(self, keys: Collection[str]) -> None:
        names: list[str] = []
        for key in keys:
            names += [name for name in self.file_sizes(key) if is_own_file(name)] or [key]
        for first in range(0, len(names), 1000):  # as many as one request takes
            with self._errors(names[first]), suppress(FileNotFoundError):
                self._api.delete(self._objects, names[first : first + 1000])

    def lock(self, folder: str) -> Lock:
        """Let every writer begin: the manifest's conditional put decides. Raises CacheError if the
        store ignores conditions, which the first call tries.
        """
        if not self._keeps_conditions:
            self._require_conditions(f"{folder}/.{secrets.token_hex(8)}")
            self._keeps_conditions = True
        return Lock()

    def _require_conditions(self, key: str) -> None:
        """Put a new object twice as if it did not exist, and once as if it were another one. Raises
        CacheError if the store carries out more than the first put.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        n_done = 0
        try:
            for mode in ("create", "create", _OTHER):
                # obstore repeats a put whose answer was lost: the first one may be refused, too.
                refused = suppress(AlreadyExistsError, PreconditionError)
                with refused, self._errors(key, writing=True):
                    self._api.put(self._objects, key, b"", mode=mode, use_multipart=False)
                    n_done += 1
        finally:
            self.remove([key])
        if n_done > 1:
            raise self._ignored_conditions()

    def zarr(self, folder: str) -> ZarrStore:
        from zarr.storage import ObjectStore as ZarrObjectStore

        with self._errors(folder):
            return ZarrObjectStore(self._connect(folder), read_only=True)

    def _connect(self, folder: str) -> Any:
        from obstore import store

        # The time limits retries, not their number.
        retries: Any = {"retry_timeout": timedelta(seconds=RETRY_SECONDS), "max_retries": 1000}
        config: Any = {}
        # On S3, only a multipart copy can be refused if the object exists. A user who has set the
        # variable knows another way for that store.
        if self.root.startswith("s3") and "AWS_COPY_IF_NOT_EXISTS" not in os.environ:
            config["copy_if_not_exists"] = "multipart"
        return store.from_url(self.location(folder), config=config, retry_config=retries)

    def _holds(self, key: str, data: bytes) -> bool:
        """Whether the object exists with exactly this content."""
        try:
            return self.read(key) == data
        except FileNotFoundError:
            return False

    def _head(self, key: str) -> Any:
        """An object's metadata; None if there is no object. Raises CacheError without a bucket."""
        try:
            with self._errors(key):
                return self._api.head(self._objects, key)
        except FileNotFoundError:
            if not self._bucket_exists:  # the answer is the same if the bucket is missing: list it
                self.list_names("")
                self._bucket_exists = True
            return None

    def _create(self, key: str, write: Callable[[], None], data: Callable[[], bytes]) -> None:
        """Create an object by `write`. Raises CacheError if an object of this name exists with
        other content than `data()`. One with the same content is accepted.
        """
        if not self._is_created(key, write, data):
            raise CacheError.at(
                self.location(key),
                expected="no object yet",
                found="other content: of another writer, or of one that was killed",
                do="If there is no other writer, remove unreferenced files, and run the "
                f"command again: python -m pipeline gc --older-than 0 --cache {self.root}",
            )

    def _is_created(self, key: str, write: Callable[[], None], data: Callable[[], bytes]) -> bool:
        """Call `write`, which creates an object; whether the object is there with `data()`.

        S3 also refuses a creation while another one of the same name is under way (its error 409),
        which may fail: if there is no object then, `write` is called again.
        """
        from obstore.exceptions import AlreadyExistsError

        for _ in range(_CONFLICTS):
            try:
                write()
            except AlreadyExistsError:
                if self._head(key) is not None:
                    return self._holds(key, data())
            else:
                return True
        raise CacheError.at(
            self.location(key),
            expected="to create this object",
            found=f"{_CONFLICTS} times a conflict with another request, and no object",
            do="Run the command again. Finished work is kept.",
        )

    def _ignored_conditions(self) -> CacheError:
        return CacheError.at(
            self.root,
            expected="a store that refuses puts whose condition (If-None-Match, If-Match) is false",
            found="one that carries them out: of two writers, the later one would remove what the "
            "earlier one has saved",
            do="Nothing was written. Use a server, or a version of it, with conditional writes, or "
            "a folder. Caches in this store can be read.",
        )

    @contextmanager
    def _errors(self, key: str, *, writing: bool = False) -> Iterator[None]:
        """Turn errors of obstore into CacheError; FileNotFoundError for a missing object is passed
        on.

        Args:
            writing: the block writes, so that a missing object means a missing bucket.
        """
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        global _threads_of
        if _threads_of not in (0, os.getpid()):
            raise CacheError(
                f"{self.root}: this process was forked from one with an open cache in an "
                "object store: its requests would wait for ever. Start workers by spawn "
                "(multiprocessing_context='spawn' of a DataLoader)."
            )
        _threads_of = os.getpid()
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError, ValueError) as error:
            is_missing = isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)
            if is_missing and not writing:
                raise
            # The URL is that of a cloud machine's metadata service, which obstore asks if it finds
            # no credentials.
            if "/latest/" in str(error):
                raise CacheError.at(
                    self.location(key),
                    expected="credentials in the environment, or a role of this machine",
                    found="neither",
                    do="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. ~/.aws is not read: "
                    'eval "$(aws configure export-credentials --format env)" exports its '
                    "credentials.",
                ) from error
            raise CacheError.at(
                self.location(key),
                expected="an answer from the object store",
                found=_message(error),
                do="Check the URL, the network, and the credentials in the environment "
                "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; for "
                "http://, AWS_ALLOW_HTTP=true). Finished work is kept.",
            ) from error


def _etag_of(meta: Any) -> Etag:
    """The ETag (S3, Azure) or version (Google) of an object, as obstore's conditional put takes
    it.
    """
    names = [name for name in ("e_tag", "version") if meta.get(name) is not None]
    return tuple((name, str(meta[name])) for name in names)


def _message(error: Exception) -> str:
    """The server's message if there is one; else obstore's, without its debugging information."""
    text = str(error).partition("\n\nDebug source")[0]
    answer = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    if answer:
        return f"{answer[1]}: {answer[2].strip().rstrip('.')}"
    text = re.sub(r", max_retries: \d+, retry_timeout: \S+\s*", " ", text)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(" .:")


def map_parallel(job: Callable[[_T], _R], items: Collection[_T]) -> list[_R]:
    """Run the job on all items, several at a time. Returns results in order, and raises the first
    error.
    """
    if len(items) < 2:
        return [job(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(IN_FLIGHT, len(items))) as threads:
        return list(threads.map(job, items))
