"""Check every byte of every file that a cache's manifests name; remove damaged shards.  [cache]

`verify` goes through every split and stream of a cache (each a `Place`) and compares its files with
what the manifest says of them. It changes nothing; what it found is a `VerifyReport`.
`cache.repair` takes that report.

Words:
    small file    any file but a shard: a manifest, the tables, or a zarr.json
    group         a folder of Zarr arrays or groups, with a zarr.json that is the same everywhere
    damaged       missing, or with other bytes than the manifest says: a `Damage`
    lost          a manifest that is missing, although arrays of its commit exist: damaged, too
    stale         a zarr.json of an earlier commit, left by a killed commit: a note. A missing one
                  is damage, since plain Zarr readers cannot open the array without it
    unnamed       a file or folder that no manifest names: a note
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cache.errors import OTHER_VERSION, AccessDenied, CacheError, ForeignStream
from cache.format.folders import (
    committed_names,
    deleted_streams,
    find_unreferenced,
    own_files,
    places_of,
    present_groups,
    split_folders,
    unmounted_streams,
)
from cache.format.layout import GROUP
from cache.format.listing import (
    ROOT,
    listed_splits,
    missing_error,
    parse_list,
    root_group,
    unmounted_folder,
)
from cache.format.manifest import Commit, lost_manifest
from cache.format.place import Place
from cache.format.shard import REPAIR, ShardFile
from cache.read.split import FeatureCache, require_cache
from cache.storage.base import Etag, Root

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# called with the shards checked, the shards in all, and the folder of a split or stream
Progress = Callable[[int, int, str], None]

# a few keep a disk busy while others compute
_THREADS: Final = max(2, min(4, len(os.sched_getaffinity(0))))
_REQUESTS: Final = 8  # to an object store, at the same time
_ATTEMPTS: Final = 3  # at a split that is written meanwhile
_WAIT: Final = 0.05  # s before the next one


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged or missing file."""

    split: str  # "" for a group above the splits
    stream: str | None  # None: of the split itself
    array: str | None  # column or array of a stream; None: a manifest, the tables, a group
    shard: int | None  # None: a small file
    key: str  # of the file, below the cache
    what: str  # the message: where, what was expected, what was found, what to do


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found, and how much it checked."""

    damaged: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # on what killed writers left: harmless
    # (split, stream or None) with a stale zarr.json
    stale: list[tuple[str, str | None]] = field(default_factory=list)
    splits: int = 0  # numbers of checked splits and shards; bytes of these
    shards: int = 0
    bytes: int = 0
    fast: bool = False  # chunks were not checked

    @property
    def ok(self) -> bool:
        return not self.damaged

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(damage.what for damage in self.damaged)

    def _add(self, later: VerifyReport) -> None:
        """Add what was found later. A link that leads to several places is in the report once."""
        messages = set(self.problems)
        self.damaged += [damage for damage in later.damaged if damage.what not in messages]
        self.notes += later.notes
        self.stale += later.stale
        self.splits += later.splits
        self.shards += later.shards
        self.bytes += later.bytes


_Tell = Callable[[int, Place], None]  # called with a place's shards that are checked


def verify(
    root: Root,
    *,
    fast: bool = False,
    progress: Progress = lambda *_: None,
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
    strange = sorted(set(splits or ()) - set(folders))
    if strange:
        names = ", ".join(folders) or "none"
        raise CacheError(f"{store.location('')}: no split {strange[0]!r}; there are: {names}")
    places: list[Place] = []
    groups = [ROOT]
    committed = set(committed_names(store))
    for name in folders:
        if splits is None or name in splits:
            places += places_of(store, name)
            if name in committed:
                groups.append(Place(store, name).groups[1])
    report = VerifyReport(fast=fast)
    total = sum(map(_count_shards, places))

    def tell(n_shards: int, place: Place) -> None:
        """Tell the progress, after each shard. n_shards: those of its place so far."""
        n_checked = report.shards + n_shards
        progress(n_checked, max(total, n_checked), place.manifest_folder)

    n_threads = _THREADS if store.exclusive else _REQUESTS
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(n_threads, thread_name_prefix="verify") as threads:
        try:
            above = _PlaceCheck(Place(store, ""), fast, threads, tell)
            above.check_groups(dict.fromkeys(groups))
            report._add(above.report)
            for place in places:
                report._add(_check_place(place, fast, threads, tell))
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return report


def _count_shards(place: Place) -> int:
    """Number of shards that the manifest of a split or stream names; 0 if it cannot be read."""
    with suppress(CacheError):
        commit = Commit.load_manifest(place)
        if commit is not None:
            return sum(map(len, commit.manifest["shards"].values()))
    return 0


def _manifest_etag(place: Place) -> Etag | None:
    """The etag of the manifest; None without one, and if it may not be read."""
    with suppress(PermissionError):
        return place.store.etag(place.manifest)
    return None


def _check_place(
    place: Place, fast: bool, threads: ThreadPoolExecutor, tell: _Tell
) -> VerifyReport:
    """Check a stream, or a split without its streams.

    A commit during the check can look like damage: then the place is checked again. So it is if a
    zarr.json is missing, which the writer of a first commit may be about to write.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        etag = _manifest_etag(place)
        check = _PlaceCheck(place, fast, threads, tell)
        check.run()
        is_same_commit = etag is not None and _manifest_etag(place) == etag
        if is_same_commit and not check.lacks_metadata:
            break
        if check.report.ok or attempt == _ATTEMPTS:
            break
        time.sleep(_WAIT)  # while a stream is deleted, its manifest goes first
    return check.report


class _PlaceCheck:
    """One check of a split or stream. It adds what it finds to `report`."""

    def __init__(self, place: Place, fast: bool, threads: ThreadPoolExecutor, tell: _Tell) -> None:
        self._place = place
        self._store = place.store
        self._threads = threads
        self._tell = tell
        self.report = VerifyReport(fast=fast)
        self.lacks_metadata = False  # whether a zarr.json of an array is missing

    def run(self) -> None:
        """Check all files of the place; those that this user may not read count as damaged."""
        place = self._place
        try:
            is_unmounted = unmounted_folder(self._store, place.split) is not None
            if is_unmounted or not self._is_linked(place.manifest_folder):
                commit = self._check_small_files()
                if commit is not None:
                    self._check_shards(commit)
                    commit.refuse_foreign()
            unmounted = {} if place.stream else unmounted_streams(self._store, place.split)
            # of others, a killed first conversion may have left a folder without its file
            if unmounted and place.split in committed_names(self._store):
                for key, message in unmounted.items():
                    self._damage(key, message)
        except (AccessDenied, ForeignStream) as error:
            self._damage(place.manifest, str(error))
        except PermissionError as error:
            self._damage(place.manifest, str(AccessDenied.from_error(error)))

    def check_groups(self, keys: Collection[str]) -> None:
        """Check the zarr.json of groups, which only plain Zarr readers need. All are the same, but
        for the root's, which also lists the splits.
        """
        files = self._store.read_many(keys)
        for key in keys:
            data = bytes(files.get(key, b""))
            group = root_group(parse_list(data) or ()) if key == ROOT else GROUP
            if not self._is_linked(key) and data != group:
                self._differs(key, "the zarr.json of a Zarr group")

    def _check_small_files(self) -> Commit | None:
        """Check the manifest and, if it is intact, tables and metadata. Note unnamed files.

        Returns the commit, for the check of its shards; None if it cannot be read.
        """
        place = self._place
        commit = self._check_manifest()
        has_staged = bool(self._store.list_names(place.staged))
        if has_staged and not self._is_linked(place.staged):
            self._note(place.writing, "unfinished work of a running writer, or of an ended one")
        if not self.report.ok:  # a damaged manifest may name other files
            return commit
        deleted = {} if place.stream else deleted_streams(self._store, place.split)
        self.report.notes += dict.fromkeys(deleted.values())
        unnamed = []
        for key in find_unreferenced(commit or Commit.empty(place), uncommitted=not has_staged):
            is_tables = key.endswith(".npz")  # of an earlier commit: nothing has gone wrong
            if is_tables or key in deleted or self._is_linked(key):
                continue
            if own_files(self._store, key) is not None:
                unnamed.append(key)
        if unnamed:
            files = f"{len(unnamed)} files or folders that no manifest names, first {unnamed[0]}"
            self._note(place.manifest_folder, f"{files}; `gc` removes those that no tag needs")
        if commit is not None:
            linked = {key for key in commit.metadata() if self._is_linked(key)}
            self._is_linked(place.manifest)
            self._is_linked(place.provenance)
            if place.stream is None and not self._is_linked(commit.tables_key):
                self._check_tables(commit)
            self._check_metadata(commit, linked)
        return commit

    def _check_tables(self, commit: Commit) -> None:
        try:
            commit.tables  # noqa: B018  read them
        except CacheError as error:
            self._damage(commit.tables_key, str(error))

    def _check_manifest(self) -> Commit | None:
        """Check the manifest. Returns the commit without its tables; None if it cannot be read."""
        place = self._place
        try:
            commit = Commit.load_manifest(place)
        except AccessDenied:
            raise  # `run` reports it
        except CacheError as error:
            self._damage(place.manifest, str(error))
            return None
        if commit is None:
            self._check_lost_manifest()
        return commit

    def _check_lost_manifest(self) -> None:
        """Report a missing manifest: as damage if it is lost, or if the cache's list has the split,
        else as a note.
        """
        place = self._place
        lost = lost_manifest(place)
        if lost:
            self._damage(place.manifest, str(lost))
        elif place.stream is None and place.split in listed_splits(self._store):
            self._damage(place.manifest, str(missing_error(self._store, place.split)))
        else:
            self._note(place.manifest_folder, "nothing is saved yet")

    def _check_metadata(self, commit: Commit, linked: Collection[str]) -> None:
        """Check the zarr.json of each array. One of an earlier commit is stale: a killed commit
        left it. One that is missing, or has other content, is damage. Keys in `linked` are skipped.
        """
        place = self._place
        changed = commit.find_stale_metadata().keys() - set(linked)
        files = self._store.read_many(changed)
        n_stale = 0
        for key in sorted(changed):
            array = key.removeprefix(f"{place.arrays_folder}/").removesuffix("/zarr.json")
            if key in files and commit.is_earlier_metadata(array, bytes(files[key])):
                n_stale += 1
            else:
                self.lacks_metadata |= key not in files
                expected = "the zarr.json that follows from the manifest"
                self._differs(key, expected, array)
        if n_stale:
            self.report.stale.append((place.split, place.stream))
            self._note(
                place.arrays_folder,
                f"{n_stale} zarr.json of an earlier commit, left by a killed commit; the next "
                "writer, or --repair, writes them",
            )

    def _check_shards(self, commit: Commit) -> None:
        """Check the shards that a manifest names, in threads, and the groups that they lie in."""
        place = self._place
        if place.stream is None:
            self.report.splits += 1
            self.check_groups(present_groups(place)[2:])
        unknown = sorted(commit.manifest["shards"].keys() - commit.columns.keys())
        if unknown:
            state = f"columns that this version does not know: {unknown}"
            self._expect(place.manifest, "known columns", state, OTHER_VERSION)
        files = [file for file in commit.shard_files() if not self._is_linked(file.key)]
        checks = self._threads.map(self._problem_of, files)
        for file, problem in zip(files, checks, strict=True):
            if problem:
                self._damage(file.key, problem, file.array, file.number)
            self.report.shards += 1
            self.report.bytes += file.size
            self._tell(self.report.shards, place)

    def _problem_of(self, file: ShardFile) -> str:
        """A message about a damaged shard; "" for an intact one."""
        try:
            return file.problem(self._store, fast=self.report.fast)
        except PermissionError as error:
            return str(AccessDenied.from_error(error))

    def _is_linked(self, key: str) -> bool:
        """Whether a file or folder is a link, or behind one. Then it is not checked, because it may
        not be part of the cache; the link is reported once.
        """
        try:
            self._store.refuse_links(key)
        except AccessDenied as error:
            if str(error) not in self.report.problems:
                self._damage(key, str(error))
            return True
        return False

    def _differs(self, key: str, expected: str, array: str | None = None) -> None:
        """Report a file that is missing or has other bytes than `expected`."""
        state = "no file" if self._store.etag(key) is None else "other bytes"
        do = f"Write it again: {REPAIR} {shlex.quote(str(self._store.root))}"
        self._expect(key, expected, state, do, array)

    def _expect(
        self, key: str, expected: str, found: str, do: str, array: str | None = None
    ) -> None:
        """Report a file in which something else was found than expected."""
        location = self._store.location(key)
        error = CacheError.at(location, expected=expected, found=found, do=do)
        self._damage(key, str(error), array)

    def _damage(
        self, key: str, message: str, array: str | None = None, shard: int | None = None
    ) -> None:
        place = self._place
        self.report.damaged.append(Damage(place.split, place.stream, array, shard, key, message))

    def _note(self, key: str, text: str) -> None:
        """Add a note on a file or folder."""
        self.report.notes.append(f"{self._store.location(key)}: {text}")
