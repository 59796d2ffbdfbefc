"""What killed and replaced runs have left, and its removal.  [cache]

Only what the cache itself writes is ever removed: shards, arrays, copies and temporary files that no manifest names.
Anything else that lies in its folders is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cache.errors import CacheError
from cache.format import manifest
from cache.format.folders import shards_there, split_folders, stream_folders
from cache.format.layout import (
    COLUMNS,
    COMPACTING,
    COPY,
    FEATURES,
    STAGED,
    STAGED_SHARD,
    TEMPORARY_SHARD,
    stream_arrays,
    stream_of,
)
from cache.format.manifest import Commit, Place
from cache.format.tables import TABLES, TEXTS
from cache.read.split import require_cache
from cache.storage.base import Root, Store

TABLE_NAMES: Final = frozenset({*TABLES, *TEXTS})
IN_SPLIT: Final = 2  # slashes in a key below <dataset>/<split>/
GRACE: Final = 24 * 3600.0  # s: in an object store, what is younger may be of a writer at work


@dataclass(slots=True)
class Collected:
    """What `gc` removed, or would remove: keys below the cache, files or folders; and what it left."""

    removed: list[str] = field(default_factory=list)
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)  # why something was left, in words


def gc(root: Root, *, dry_run: bool = False, unfinished: bool = False, older_than: float | None = None) -> Collected:
    """Remove what no manifest names. Readers and committed rows are not concerned.

    Args:
        root: the cache.
        dry_run: only tell.
        unfinished: also what a killed run has finished, with its journal: it will start anew. In an object store these
            cannot be told from the left-overs of abandoned runs, and always go.
        older_than: seconds; leave what is younger. None: 0, and a day in an object store, where no lock tells of a
            writer at work.

    Raises CacheError when there is no cache. Splits and streams that somebody is writing are skipped, and told.
    """
    store = require_cache(root)
    least = older_than if older_than is not None else 0.0 if store.exclusive else GRACE
    sweep = _Sweep(store, dry_run, unfinished or not store.exclusive, least)
    for split in split_folders(store):
        sweep.place(Place.of_split(store, split), tuple(COLUMNS))
        for stream in stream_folders(store, split):
            sweep.place(Place.of_stream(store, split, stream), stream_arrays(stream))
        sweep.arrays_without_stream(split)
    sweep.compacting()
    return sweep.found


class _Sweep:
    """One pass over a cache."""

    def __init__(self, store: Store, dry_run: bool, unfinished: bool, older_than: float) -> None:
        self.found = Collected()
        self._store, self._dry_run = store, dry_run
        self._unfinished, self._older_than = unfinished, older_than

    def place(self, place: Place, arrays: Collection[str]) -> None:
        """One split without its streams, or one stream."""
        try:
            lock = self._store.lock(place.writing)
        except CacheError as error:
            self.found.skipped.append(str(error))
            return
        try:
            commit = manifest.load(place)
            if not self._dry_run and commit is not None and self._store.below(place.staging(commit.digest)):
                manifest.roll_forward(place, commit.manifest)
            self._remove(self._unnamed(place, commit, arrays))
        except CacheError as error:  # damaged: what its manifest names is not known
            self.found.skipped.append(str(error))
        finally:
            lock.release()
        self._prune(place.home)

    def arrays_without_stream(self, split: str) -> None:
        """`_ok`, `_key` and `_at` arrays whose stream's folder is gone."""
        there = self._store.below(f"{split}/{FEATURES}")
        for name in there:
            if stream_of(name) != name and stream_of(name) not in there:
                self._remove([f"{split}/{FEATURES}/{name}"])

    def compacting(self) -> None:
        """What a killed compaction has left. One at work holds the lock of the split that it compacts."""
        for split in split_folders(self._store, COMPACTING):
            try:
                lock = self._store.lock(Place.of_split(self._store, split).writing)
            except CacheError as error:
                self.found.skipped.append(str(error))
                continue
            try:
                self._remove([f"{COMPACTING}/{split}", f"{COMPACTING}/{split}.from"])
            finally:
                lock.release()
            self._prune(split)
        if not self._dry_run and self._store.below(COMPACTING) and not split_folders(self._store, COMPACTING):
            self._store.remove([COMPACTING])  # groups and marks of what is gone

    def _unnamed(self, place: Place, commit: Commit | None, arrays: Collection[str]) -> Iterator[str]:
        """Keys that the cache has written and no manifest names."""
        there, working = self._store.below(place.home), self._store.below(place.writing)
        journals = place.journals()
        # What nobody has accepted is of no use to whoever goes on. In an object store, one may be about to.
        yield from (f"{place.writing}/{name}" for name in working if name.startswith(STAGED_SHARD))
        goes_on = bool(journals) and (not self._unfinished or self._at_work(place, journals))
        if goes_on:
            where = self._store.where(place.home)
            told = "an unfinished run, which goes on from there when it is run again (--unfinished removes it)"
            self.found.skipped.append(f"{where}: {told}")
        else:
            yield from (f"{place.writing}/{name}" for name in (*journals, TEMPORARY_SHARD) if name in working)
            named = {} if commit is None else commit.manifest["shards"]
            for array in map(place.array, arrays):
                records = named.get(array.rpartition("/")[2])
                if records is None:
                    yield from (f"{array}/{name}" for name in self._store.below(array) if name in ("c", "zarr.json"))
                else:
                    shards = shards_there(self._store, array)
                    yield from (f"{array}/c/{shard}" for shard in shards if str(shard) not in records)
        if place.home == place.base:  # a split: it has tables
            files = () if commit is None else commit.manifest["files"]
            named_tables = {name.partition("/")[0] for name in files}
            yield from (place.array(name) for name in there if name in TABLE_NAMES and name not in named_tables)
        kept = "" if commit is None else commit.digest[:16]
        for folder in (COPY, STAGED):
            names = self._store.below(f"{place.home}/{folder}")
            yield from (f"{place.home}/{folder}/{name}" for name in names if name != kept)
        yield from (f"{place.home}/{name}" for name in there if name.startswith(".") and name.endswith(".tmp"))

    def _at_work(self, place: Place, journals: Iterable[str]) -> bool:
        """Where no lock tells: has a writer finished something lately? Then all that it has finished is its own."""
        records = (key for name in journals for key in self._all(f"{place.writing}/{name}"))
        return not self._store.exclusive and any(self._store.age(key) < self._older_than for key in records)

    def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            files = self._all(key)
            if not files and not self._store.below(key):
                continue
            if self._older_than and any(self._store.age(file) < self._older_than for file in files):
                where = self._store.where(key)
                self.found.skipped.append(f"{where}: younger than {self._older_than:g} s (--older-than)")
                continue
            self.found.removed.append(key)
            self.found.bytes += sum(files.values())
            if not self._dry_run:
                self._store.remove([key])
                self._prune(key.rpartition("/")[0])

    def _prune(self, folder: str) -> None:
        """Remove a folder in which nothing is left, and those above it within the split."""
        while not self._dry_run and self._store.exclusive and folder.count("/") >= IN_SPLIT:
            if self._store.below(folder):
                return
            self._store.remove([folder])
            folder = folder.rpartition("/")[0]

    def _all(self, key: str) -> dict[str, int]:
        """Every file below a key, or itself, with its size."""
        found = self._store.files(key)
        size = None if found else self._store.size(key)
        return found if size is None else {key: size}
