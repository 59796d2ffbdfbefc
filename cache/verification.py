"""Check every byte of every file that a cache's manifests name; remove damaged shards.  [cache]

A repair changes the manifest first, then removes shards: those of a stream are pending again, rows
of a split must be converted again (`Repaired.rows`). A damaged table or manifest takes a new
conversion. Can be killed and repeated.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cache.errors import AccessDenied, CacheError
from cache.format import shard as shards
from cache.format.layout import BYTES, GROUP, STAGED, Geometry, json_file
from cache.format.listing import (
    ROOT,
    listed_splits,
    missing_text,
    parse_list,
    refuse_unmounted,
    root_group,
)
from cache.format.manifest import (
    Commit,
    Place,
    committed_names,
    places_of,
    sha256,
    split_folders,
    tag_notes,
)
from cache.format.shard import ShardFile
from cache.format.tables import Tables
from cache.read.split import FeatureCache, require_cache
from cache.storage.base import Root, Store
from cache.write.base import invalidate
from cache.write.gc import find_unreferenced

# called with the shards checked, the shards in all, and the speed
Progress = Callable[[int, int, str], None]

# a few keep a disk busy while others compute
_THREADS: Final = max(2, min(4, len(os.sched_getaffinity(0))))
_REQUESTS: Final = 8  # to an object store, at the same time
_ATTEMPTS: Final = 3  # at a split that is written meanwhile


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged or missing file."""

    split: str  # "" for a group above the splits
    stream: str | None  # None: of the split itself
    array: str | None  # None: a manifest, a group
    shard: int | None  # None: a small file
    key: str  # below the cache
    what: str  # the message: where, what was expected, what was found, what to do


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of `verify`. `notes` name harmless files of killed writers."""

    damaged: tuple[Damage, ...] = ()
    notes: tuple[str, ...] = ()
    splits: int = 0
    shards: int = 0
    bytes: int = 0
    fast: bool = False  # chunks were not checked

    @property
    def ok(self) -> bool:
        return not self.damaged

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(damage.what for damage in self.damaged)


def verify(
    root: Root,
    *,
    fast: bool = False,
    progress: Progress | None = None,
    splits: Collection[str] | None = None,
) -> VerifyReport:
    """Check every file that the manifests of a cache name, byte by byte. Damage is reported, not
    raised.

    Args:
        root: the cache.
        fast: check only sizes and indexes of shards, and all small files. Takes seconds.
        progress: called after each shard.
        splits: only these, as "<dataset>/<split>".

    Raises CacheError when there is no cache at `root`, or no such split, and when an object store
    does not answer.
    """
    store = require_cache(root)
    folders = sorted({*split_folders(store), *FeatureCache(store.root).splits})
    if strange := sorted(set(splits or ()) - set(folders)):
        raise CacheError(
            f"{store.location('')}: no split {strange[0]!r}; there are: "
            f"{', '.join(folders) or 'none'}"
        )
    names = [name for name in folders if splits is None or name in splits]
    places = {name: places_of(store, name) for name in names}
    with ThreadPoolExecutor(
        _THREADS if store.exclusive else _REQUESTS, thread_name_prefix="verify"
    ) as threads:
        verification = _Verification(
            store, fast, threads, progress, itertools.chain(*places.values())
        )
        try:
            committed = [
                place for place in (places[name][0] for name in names) if _is_committed(place)
            ]
            verification.groups(
                "", dict.fromkeys(["zarr.json", *(place.groups[1] for place in committed)])
            )
            for place in itertools.chain(*places.values()):
                verification.place_if_readable(place)
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    notes = (*verification.notes, *tag_notes(store))
    return VerifyReport(tuple(verification.damaged), notes, fast=fast, **verification.counts)


def _is_committed(place: Place) -> bool:
    try:
        return place.store.exists(place.manifest) or bool(place.lost_manifest())
    except PermissionError:
        return False


class _Verification:
    """One pass over a cache, and its results."""

    def __init__(
        self,
        store: Store,
        fast: bool,
        threads: ThreadPoolExecutor,
        progress: Progress | None,
        places: Iterable[Place],
    ) -> None:
        self._store = store
        self._fast = fast
        self._threads = threads
        self._progress = progress
        self.damaged: list[Damage] = []
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()  # of splits, shards, bytes
        self._listed = listed_splits(store)
        self._total = 0
        self._started = time.monotonic()
        for place in places if progress else ():
            with suppress(CacheError):
                if current := place.read_manifest():
                    self._total += sum(map(len, current[0]["shards"].values()))

    def _damage(
        self,
        place: Place,
        key: str,
        message: str,
        array: str | None = None,
        shard: int | None = None,
    ) -> None:
        self.damaged.append(Damage(place.split, place.stream, array, shard, key, message))

    def groups(self, split: str, keys: Collection[str]) -> None:
        """Check the zarr.json of groups: all the same, and needed by a plain Zarr reader only."""
        files = self._store.read_many(keys)
        for key in keys:
            expected = root_group(parse_list(bytes(files.get(key, b"")))) if key == ROOT else GROUP
            if key not in files or bytes(files[key]) != expected:
                state = "other bytes" if key in files else "no file"
                message = self._error(key, "the zarr.json of a Zarr group", state, shards.REPAIR)
                self.damaged.append(Damage(split, None, None, None, key, message))

    def place_if_readable(self, place: Place) -> None:
        """As `place`; files that this user may not read count as damaged."""
        try:
            self.place(place)
        except PermissionError as error:
            self._damage(place, place.manifest, str(AccessDenied.of(error)))

    def place(self, place: Place) -> None:
        """Check a split without its streams, or a stream; again when there has been a commit
        meanwhile.
        """
        for left in reversed(range(_ATTEMPTS)):
            before = self._store.etag(place.manifest)
            n_damaged = len(self.damaged)
            n_notes = len(self.notes)
            counts = self.counts.copy()
            if (commit := self._commit(place)) is not None:
                self._arrays(commit)
            is_same = before is not None and self._store.etag(place.manifest) == before
            if not left or len(self.damaged) == n_damaged or is_same:
                return
            time.sleep(0.05)  # while a stream is deleted, its manifest goes first
            del self.damaged[n_damaged:], self.notes[n_notes:]
            self.counts = counts

    def _arrays(self, commit: Commit) -> None:
        place = commit.place
        if place.stream is None:
            self.counts["splits"] += 1
            self.groups(place.split, place.groups[2:])
        unknown = sorted(commit.manifest["shards"].keys() - commit.columns.keys())
        if unknown and commit.manifest.get("dtype") == BYTES:
            self.notes.append(
                f"{self._store.location(place.home)}: holds bytes, which this version does not "
                "check"
            )
        elif unknown:
            state = f"columns that this version does not know: {unknown}"
            message = self._error(
                place.manifest, "known columns", state, "Use the version that wrote it."
            )
            self._damage(place, place.manifest, message)
        try:
            files = commit.shard_files()
        except CacheError as error:
            self._damage(place, place.manifest, f"{self._store.location(place.manifest)}: {error}")
            return
        checks = self._threads.map(self._problem_of, files)
        for file, problem in zip(files, checks, strict=True):
            if problem:
                self._damage(place, file.key, problem, file.array, file.number)
            self.counts.update(shards=1, bytes=file.size)
            if self._progress is not None:
                n_shards = self.counts["shards"]
                seconds = max(time.monotonic() - self._started, 1e-3)
                rate = f"{self.counts['bytes'] / 1e6 / seconds:,.0f} MB/s"
                self._progress(n_shards, max(self._total, n_shards), rate)

    def _problem_of(self, file: ShardFile) -> str:
        try:
            return file.problem(self._store, fast=self._fast)
        except PermissionError as error:
            return str(AccessDenied.of(error))

    def _commit(self, place: Place) -> Commit | None:
        """The commit in force with its intact small files; None where there is none."""
        store = self._store
        n_damaged = len(self.damaged)
        commit: Commit | None = None
        try:
            text, etag = store.read_with_etag(place.manifest)
            held = place.parse_manifest(text)
            commit = Commit(place, held, place.read_small_files(held), etag)
            if text != json_file(held):
                expected = "the text that its content gives"
                self._damage(
                    place,
                    place.manifest,
                    self._error(place.manifest, expected, "another", shards.REPAIR),
                )
        except FileNotFoundError:
            if lost := place.lost_manifest():
                self._damage(place, place.manifest, lost)
            elif place.stream is None and place.split in self._listed:
                self._damage(place, place.manifest, missing_text(store, place.split))
            else:
                self.notes.append(f"{store.location(place.home)}: nothing is committed yet")
        except CacheError as error:
            self._damage(place, place.manifest, str(error))
        if journals := place.journals():
            self.notes.append(
                f"{store.location(place.writing)}: unfinished work; the same command continues it"
            )
        staged = commit is not None and place.is_staged(held)
        if staged or (store.exclusive and store.list_names(f"{place.home}/{STAGED}")):
            location = store.location(f"{place.home}/{STAGED}")
            self.notes.append(f"{location}: left by a killed commit; the next writer finishes it")
        if len(self.damaged) > n_damaged:
            return commit
        if unnamed := list(find_unreferenced(place, commit, unfinished=not journals)):
            named = (
                f"{len(unnamed)} files or folders that no manifest names, first "
                f"{unnamed[0]}; `gc` removes them"
            )
            self.notes.append(f"{store.location(place.home)}: {named}")
        if commit is None:
            return None
        names = {place.array(name): name for name in held["files"]}
        in_place = store.read_many(names)
        for key, name in names.items():
            metadata = commit.column_metadata(name)
            array = name.partition("/")[0]
            intact = key in in_place and sha256(in_place[key]) == held["files"][name]
            # the next writer puts staged ones into place
            if not intact and not (staged and name in commit.files):
                state = "other bytes" if key in in_place else "no file"
                do = shards.REPAIR if metadata is not None or name in commit.files else place.again
                message = self._error(
                    key, "the file that the manifest names by its digest", state, do
                )
                self._damage(place, key, message, array)
            elif metadata is not None and bytes(commit.files[name]) != metadata:
                expected = "its column's shape, type and layout"
                state = "others, with the digest in the manifest"
                do = "Convert or extract it again, with this version."
                self._damage(place, key, self._error(key, expected, state, do), array)
        return commit

    def _error(self, key: str, expected: str, found: str, do: str) -> str:
        return str(CacheError.at(self._store.location(key), expected=expected, found=found, do=do))


@dataclass(slots=True)
class Repaired:
    """Result of `repair`. Keys are below the cache."""

    restored: list[str] = field(default_factory=list)  # small files that were written again
    removed: list[str] = field(default_factory=list)  # files and folders of damaged shards
    # shards to be extracted again
    streams: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    # split -> shards to be converted again
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)  # messages: remaining damage, and what to do


def repair(root: Root, report: VerifyReport) -> Repaired:
    """Repair what `verify` found damaged. Shards are checked again: intact ones stay.

    Raises CacheError when there is no cache at `root`, OSError when files may not be read.
    """
    store = require_cache(root)
    repaired = Repaired()
    small: set[tuple[str, str]] = set()
    damaged_shards: dict[tuple[str, str], set[int]] = {}
    for damage in report.damaged:
        home = damage.split, damage.stream or ""
        if damage.shard is not None:
            damaged_shards.setdefault(home, set()).add(damage.shard)
        elif damage.array is None and damage.key.endswith("zarr.json"):  # a group's
            _restore_group(store, damage.key)
            repaired.restored.append(damage.key)
        else:
            small.add(home)
    # a split first: a stream is of its split
    for split, stream in sorted({*small, *damaged_shards}):
        place = Place(store, split, stream or None)
        try:
            refuse_unmounted(store, split)
            if (split, stream) in small:
                _restore_small_files(place, repaired)
            _remove_shards(place, damaged_shards.get((split, stream), ()), repaired)
        except CacheError as error:  # still repair the other splits and streams
            repaired.refused.append(str(error))
        except PermissionError as error:
            repaired.refused.append(str(AccessDenied.of(error)))
    return repaired


def _restore_group(store: Store, key: str) -> None:
    """Write a group's zarr.json; the root's with the list that can still be read, or with the
    committed splits.
    """
    group = GROUP
    if key == ROOT:
        root = store.read_many([ROOT]).get(ROOT, b"")
        listed = parse_list(bytes(root))
        group = root_group(set(committed_names(store)) if listed is None else listed)
    store.put_small({key: group}, key.rpartition("/")[0])


def _restore_small_files(place: Place, repaired: Repaired) -> None:
    """Write the manifest, and small files that are intact elsewhere or follow from it. Raises
    CacheError.
    """
    store = place.store
    with store.lock(place.writing):
        read = place.read_manifest()
        if read is None:
            return
        held, etag = read
        if store.read(place.manifest) != json_file(held):
            store.replace(place.manifest, json_file(held), expected=etag)
            repaired.restored.append(place.manifest)
        commit = Commit(place, held, place.read_small_files(held), etag)
        files = {name: bytes(data) for name, data in commit.files.items()}
        for name in held["files"].keys() - files.keys():
            metadata = commit.column_metadata(name)
            if metadata is not None and sha256(metadata) == held["files"][name]:
                files[name] = metadata
        keys = {place.array(name): data for name, data in files.items()}
        in_place = {key: bytes(data) for key, data in store.read_many(keys).items()}
        wrong = {key: data for key, data in keys.items() if in_place.get(key) != data}
        if wrong:
            store.put_small(wrong, place.base)
        repaired.restored += sorted(wrong)


def _remove_shards(place: Place, reported: Collection[int], repaired: Repaired) -> None:
    """Remove shards of a stream, and those of a split in which no track has a row; the others need
    the raw data.
    """
    commit = Commit.load(place)
    if commit is None:
        message = f"{place.store.location(place.home)}: nothing is committed there"
        raise CacheError(place.lost_manifest() or message)
    named = commit.manifest["shards"]
    suspects = [file for file in commit.shard_files() if file.number in reported]
    numbers = {file.number for file in suspects if file.problem(place.store, fast=False)}
    if place.stream is None:
        live = set(
            Tables.from_files(commit.files).live_shards(Geometry(**commit.manifest["geometry"]))
        )
        if needed := tuple(sorted(numbers & live)):
            repaired.rows[place.split] = needed
        numbers -= live
    if numbers:
        folders = [
            f"{place.array(name)}/c/{number}" for name in named for number in sorted(numbers)
        ]
        files = [
            key
            for folder in folders
            for key in place.store.files(folder) or [folder]
            if place.store.exists(key)
        ]
        invalidate(place.store.root, place.split, place.stream, numbers)
        repaired.removed += files
        if place.stream is not None:
            repaired.streams[place.split, place.stream] = tuple(sorted(numbers))
