"""Remove unreferenced files of killed and replaced writers; the user's own files stay.  [cache]

`gc` goes through every split and stream of a cache (each a `Place`), under the lock of its writer,
and removes what no manifest names: what a killed write left, tables, shards and columns that a
later commit replaced, arrays of deleted streams. Files that this program does not write are never
touched. It returns what it removed and what it left, with the reason (`Collected`).

*Unfinished work* is staged by a writer and not committed yet (`cache/write/staged.py`). With it,
there may be files that only its writer knows: those in `.writing`, and shards under final names.
The writer's command would continue the work, so all this stays until the user gives it up. An
object store has no locks: a writer may be running unseen, so there the age of files decides.

Trainings read files of earlier commits. To leave them time, `gc` with `unused_for` notes what it
finds in `unused.json`, beside the manifest, and removes what has stood there long enough:

    {"noted": "2026-11-30T02:00:00+00:00",
     "unused": {"3dpw/train/bbox/c/3": "2026-11-29T02:00:00+00:00", ...}}

A later `gc` strikes out what a manifest names again. A file that was written after its entry, such
as tables that a commit has named again in the meantime, counts from then on. If the last `gc` was
too long ago, the clock of this one may be wrong, and all entries count from now on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from cache.errors import AccessDenied, Busy, CacheError
from cache.format.folders import (
    committed_names,
    find_unreferenced,
    own_files,
    places_of,
    split_folders,
    unmounted_streams,
)
from cache.format.layout import UNUSED, json_file
from cache.format.listing import missing_error, unmounted_folder, update_list
from cache.format.manifest import Commit, lost_manifest
from cache.format.place import Place
from cache.format.tags import tag_pins
from cache.read.split import FeatureCache, require_cache
from cache.storage import store_at
from cache.storage.base import Lock, Root, Store
from cache.write.base import follow_manifest
from cache.write.parts import refuse_running_parts

_GRACE: Final = 24 * 3600.0  # s: in an object store, younger files may be of a running writer
_LONGEST_GAP: Final = 40 * 86400.0  # s between two calls with `unused_for`: over a month
_IN_SPLIT: Final = 2  # slashes in the key of a folder in <dataset>/<split>/


@dataclass(slots=True)
class Collected:
    """What `gc` removed, or would remove, and what it left."""

    removed: list[str] = field(default_factory=list)  # keys of files and folders below the cache
    bytes: int = 0  # of these
    skipped: list[str] = field(default_factory=list)  # messages: why something was left
    waiting: int = 0  # unused files and folders that `unused_for` keeps
    # why nothing could be done: a disk, a permission, a manifest, an object store
    problems: list[str] = field(default_factory=list)
    # splits that were listed, and whose folders are gone
    forgotten: list[str] = field(default_factory=list)


def gc(
    root: Root,
    *,
    dry_run: bool = False,
    unfinished: bool = False,
    older_than: float | None = None,
    unused_for: float = 0.0,
    now: float | None = None,
    pins: Callable[[], Iterable[Root]] | None = tuple,
) -> Collected:
    """Remove files of the cache that no manifest names. Committed rows are not affected; readers
    that have opened an earlier commit may have to open it again.

    Args:
        root: the cache.
        dry_run: only report. No lock is taken, so work of running writers is reported, too.
        unfinished: also remove the staged, uncommitted work of killed writers. Not used in an
            object store, where its age decides.
        older_than: minimum age in seconds (default: 0; in an object store a day).
        unused_for: note what is found, and remove only what every call has found for this many
            seconds.
        now: seconds since 1970 (default: the clock), for tests.
        pins: folders or URLs of the pins whose shards stay, beside those of tags. Asked again under
            each lock, as a pin may have been written meanwhile. None: no pin and no tag keeps any,
            as to erase rows.

    Raises CacheError when there is no cache. Splits and streams with a writer are skipped and
    reported.
    """
    store = store_at(root)
    splits = split_folders(store)
    is_cache = store.exists("zarr.json") or FeatureCache(root)
    if not is_cache:  # no commit was ever made: sweep what a killed writer has begun
        splits = [name for name in splits if store.list_names(Place(store, name).writing)]
    if is_cache or not splits:
        require_cache(root)
    if older_than is None:
        older_than = 0.0 if store.exclusive else _GRACE
    sweep = _Sweep(store, dry_run, unfinished, older_than, unused_for, now or time.time(), pins)
    # of others, a killed first conversion may have left a folder of features without its file
    committed = set(committed_names(store))
    for split in splits:
        if split in committed:
            sweep.collected.problems += unmounted_streams(store, split).values()
        for place in places_of(store, split):
            sweep.run(place)
    sweep.forget_deleted()
    return sweep.collected


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One pass over a cache, with its results. The other fields are the arguments of `gc`."""

    store: Store
    dry_run: bool
    unfinished: bool
    older_than: float
    unused_for: float
    now: float
    pins: Callable[[], Iterable[Root]] | None
    collected: Collected = field(default_factory=Collected)

    def run(self, place: Place) -> None:
        """Sweep a stream, or a split without its streams, under the writer's lock. A running writer
        is a reason to leave the place as it is; all else that prevents the sweep is a problem.
        """
        try:
            no_lock = Lock()
            with no_lock if self.dry_run else self.store.lock(place.writing):
                self._sweep_locked(place)
            self._prune(place.manifest_folder)
        except Busy as error:
            self.collected.skipped.append(str(error))
        except CacheError as error:
            self.collected.problems.append(str(error))
        except PermissionError as error:
            self.collected.problems.append(str(AccessDenied.from_error(error)))
        except OSError as error:
            self.collected.problems.append(
                f"{error.filename or place.manifest_folder}: {error.strerror}"
            )

    def forget_deleted(self) -> None:
        """Take splits off the cache's list whose folders the user has deleted. Those whose disk
        does not seem to be mounted, or which have files left, are reported instead.
        """
        store = self.store
        features = FeatureCache(store.root)
        for name in features.splits:
            if features.is_committed(name) or lost_manifest(Place(store, name)):
                continue
            if unmounted_folder(store, name) is not None or store.list_names(name):
                self.collected.problems.append(str(missing_error(store, name)))
            else:
                self.collected.forgotten.append(name)
        if self.collected.forgotten and not self.dry_run:
            update_list(store, remove=self.collected.forgotten, committed=())

    def _sweep_locked(self, place: Place) -> None:
        """Remove what the manifest does not name, unless it is too young. Raises CacheError if
        parts are running, and if the manifest is lost: then nothing tells which files are of the
        commit.
        """
        refuse_running_parts(self.store, place.writing)
        commit = Commit.load_manifest(place)
        if commit is None:
            lost = lost_manifest(place)
            if lost:
                raise lost
            commit = Commit.empty(place)
        keep_unfinished = self._keeps_unfinished(place)
        if keep_unfinished:
            text = "unfinished work, which the same command continues (--unfinished removes it)"
            if not self.store.exclusive:  # other code's stays after a commit, and is not continued
                how = "--older-than 0 removes it"
                text = f"unfinished work of a running writer, or of an ended one ({how})"
            self.collected.skipped.append(f"{self.store.location(place.manifest_folder)}: {text}")
        noted = self._read_notes(place)
        staying: dict[str, float] = {}  # what is left -> since when it is unused
        n_recent = 0
        pinned = list(self._find_pinned(commit))
        for key in find_unreferenced(commit, uncommitted=not keep_unfinished, pinned=pinned):
            files = own_files(self.store, key)
            if files is None:
                continue
            staying[key] = self._unused_since(key, files, noted)
            if self._is_young(key):
                why = f"younger than {self.older_than:g} s (--older-than)"
                self.collected.skipped.append(f"{self.store.location(key)}: {why}")
                continue
            if self.now - staying[key] < self.unused_for:
                n_recent += 1
                continue
            del staying[key]
            self.collected.removed.append(key)
            self.collected.bytes += sum(files.values())
            if not self.dry_run:
                self.store.remove([key])
                self._prune(key.rpartition("/")[0])
        self.collected.waiting += n_recent
        if not self.dry_run:
            self._write_notes(place, noted, staying if self.unused_for else {})
            if commit.digest:
                follow_manifest(commit)

    def _find_pinned(self, commit: Commit) -> Iterator[Commit]:
        """The pinned commits of a split or stream that name shards which its own does not name.
        Raises CacheError for a damaged one: then nothing tells which files it needs.
        """
        named = commit.manifest["shards"]
        if self.pins is None:
            return
        for pin in (*map(store_at, self.pins()), *tag_pins(self.store)):
            pinned = Commit.load_manifest(replace(commit.place, pin=pin))
            n_files = 0
            if pinned is not None:
                for name, records in pinned.manifest["shards"].items():
                    n_files += len(records.keys() - named.get(name, {}))
            if pinned is not None and n_files:
                home = self.store.location(commit.place.manifest_folder)
                self.collected.skipped.append(f"{home}: {n_files} files that {pin.root} needs")
                yield pinned

    def _unused_since(self, key: str, files: Collection[str], noted: Mapping[str, float]) -> float:
        """Since when a file, or a folder with `files`, is known to be unused (s since 1970)."""
        if key not in noted:
            return self.now
        written = [time.time() - self.store.age(file) for file in files]
        return min(max([noted[key], *written]), self.now)

    def _read_notes(self, place: Place) -> dict[str, float]:
        """The entries of `unused.json`: key -> s since 1970; none if it is missing or damaged."""
        try:
            file = json.loads(self.store.read(f"{place.manifest_folder}/{UNUSED}"))
            noted = datetime.fromisoformat(file["noted"]).timestamp()
            if self.now - noted > _LONGEST_GAP:
                return dict.fromkeys(file["unused"], self.now)
            return {
                key: datetime.fromisoformat(text).timestamp()
                for key, text in file["unused"].items()
            }
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write_notes(
        self, place: Place, noted: Mapping[str, float], staying: Mapping[str, float]
    ) -> None:
        """Replace the entries `noted` of `unused.json` by `staying`."""
        file = f"{place.manifest_folder}/{UNUSED}"
        if staying:
            texts = {key: _moment(since) for key, since in staying.items()}
            notes = {"noted": _moment(self.now), "unused": texts}
            self.store.put_small({file: json_file(notes)}, place.manifest_folder)
        elif noted:
            self.store.remove([file])

    def _keeps_unfinished(self, place: Place) -> bool:
        """Whether there is unfinished work that stays, with all files that may belong to it."""
        if not self.store.list_names(place.staged):
            return False
        if self.store.exclusive:  # under the lock, its writer has ended: the user decides
            return not self.unfinished
        return self._is_young(place.staged)  # its writer may be running

    def _prune(self, folder: str) -> None:
        """Remove a folder that is empty, and those above it within the split."""
        if self.dry_run:
            return
        while folder.count("/") >= _IN_SPLIT and self.store.remove_empty(folder):
            folder = folder.rpartition("/")[0]

    def _is_young(self, key: str) -> bool:
        """Whether a file, or any file of a folder, is younger than what may be removed."""
        if not self.older_than:
            return False
        files = own_files(self.store, key) or ()
        return any(self.store.age(file) < self.older_than for file in files)


def _moment(seconds: float) -> str:
    """The text of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
