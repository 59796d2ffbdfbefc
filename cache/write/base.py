"""Commits, and the base of both writers.  [cache]

A commit is made by `publish`, in this order:

    1. a note on it is added to provenance.json, and the file of tables is written; shards have been
       written before
    2. manifest.json is replaced: from now on, readers see the commit
    3. `follow_manifest` updates the cache's list of splits, and writes each zarr.json that is
       missing or outdated. These come last: until all of them are written, the commit is
       unfinished, and the next writer finishes it

Files that only earlier commits name stay, for readers of these; `gc` removes them.

Staged work is work that a writer has finished but not committed; it is in the folder
`.writing/staged`. A writer's commit takes over the work of its plan, and removes it.
`invalidate_shards` (`removal.py`) also makes a commit, but leaves all staged work as it is.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

from cache.format import layout
from cache.format.folders import committed_names, places_of
from cache.format.layout import json_file
from cache.format.listing import refuse_unmounted, update_list
from cache.format.manifest import (
    Commit,
    has_unfinished_commit,
)
from cache.format.place import Place
from cache.format.shard import sha256
from cache.format.tables import Tables
from cache.storage import store_at
from cache.storage.base import Lock, Root
from cache.write.parts import refuse_running_parts
from cache.write.staged import StagedWork

_NOTES: Final = 100  # `provenance.json` has notes on this many last commits
# entry of a note: the commit is a copy for others, and the note has no host, process or folder
SHARED: Final = "shared"
MOVED: Final = "moved"  # entry of a note: the commit has rows of the one before again (`erase.py`)
_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


class Writer(ABC):
    """The base of the writers of splits and streams: a context manager that holds the writer's
    lock.

    Entering raises MissingSplit if the split's disk seems to be unmounted, and Busy (a CacheError)
    if another writer, or a part of an array job, is running.

    A subclass defines `own_entries` and `_open`.
    """

    own_entries: ClassVar[frozenset[str]]
    """Keys of the manifest that are the cache's own."""
    # set on entry
    _lock: Lock  # held until exit
    _commit: Commit  # the current one; without digest and shards before the first
    _started: float  # when the work on the next commit began (s since 1970)

    def __init__(self, place: Place, provenance: Mapping[str, Any] | None) -> None:
        self.place = place
        self._store = place.store
        self._provenance = dict(provenance or {})

    def __enter__(self) -> Self:
        refuse_unmounted(self._store, self.place.split)  # first: the lock would create folders
        self._lock = self._store.lock(self.place.writing)
        try:
            refuse_running_parts(self._store, self.place.writing)
            self._open_next()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _open_next(self) -> None:
        """Begin the work on the next commit: on entry, and after each commit."""
        self._started = time.time()
        self._commit = self._open()

    @abstractmethod
    def _open(self) -> Commit:
        """Read the committed state, under the lock, and return the current commit."""

    def note_again(self) -> None:
        """Update the current commit's note in `provenance.json` with this writer's provenance, for
        example after raw files have moved. Makes no commit.
        """
        assert self._commit.digest, "nothing is saved yet"
        notes = self._commit.notes()
        note = notes.setdefault(self._commit.digest, {})
        note.pop(SHARED, None)
        note.update(self._provenance)
        self._lock.require()
        self._store.put_small(
            {self.place.provenance: _notes_file(notes)}, self.place.manifest_folder
        )

    def _remove_unfinished(self, staged: str) -> None:
        """After a commit, remove the folder of staged work `staged`, and the files of parts. If the
        store has locks, everything in `.writing` goes except the lock.
        """
        names = self._store.list_names(self.place.writing)
        if self._store.exclusive:
            names = [name for name in names if name != "lock"]
        else:
            names = [name for name in names if name.startswith(layout.RUNNING)]
        keys = [f"{self.place.writing}/{name}" for name in names]
        self._store.remove([staged, *keys])

    def _remove_uncommitted(
        self, work: StagedWork, arrays: Iterable[str], is_new: Callable[[int], bool]
    ) -> None:
        """Remove the shards whose number is of the next commit and that killed writers have written
        under final names, and the pieces that record them. In a store without locks, other writers
        may be running, and only the pieces of `work` go.
        """
        work.remove_shards()
        if self._store.exclusive:
            folders = [f"{self.place.array_key(name)}/{layout.SHARDS}" for name in arrays]
            keys = []
            for folder in folders:
                for name in self._store.list_names(folder):
                    if name.isdigit() and is_new(int(name)):
                        keys.append(f"{folder}/{name}")
            self._store.remove(keys)

    def _publish(
        self, entries: Mapping[str, Any], tables: Tables, note: Mapping[str, Any] | None = None
    ) -> None:
        """Commit, with `note` and the writer's provenance as the commit's note. Raises CacheError
        if the lock has been lost.
        """
        self._lock.require()
        publish(
            self.place,
            entries,
            tables,
            before=self._commit,
            note={**self._provenance, **(note or {})},
            started=self._started,
            keep_staged=False,
        )


def publish(
    place: Place,
    entries: Mapping[str, Any],
    tables: Tables,
    *,
    before: Commit,
    note: Mapping[str, Any],
    started: float,
    keep_staged: bool,
) -> dict[str, Any]:
    """Commit: write tables that differ, replace the manifest, then write what is derived from it.
    Does nothing if the manifest would not change.

    If the process is killed before the manifest is replaced, readers see no change. If it is killed
    later, the next writer finishes the commit.

    Args:
        entries: the manifest without its format, digest and tables.
        tables: the split's tables; empty for a stream.
        before: the current commit, or `Commit.empty`.
        note: goes to `provenance.json`, with the time since `started`.
        started: when the work began (s since 1970).
        keep_staged: False: the commit takes over the staged work. `follow_manifest` removes it.

    Returns the manifest. Raises CacheError if another process has committed since `before`.
    """
    store = place.store
    body = {"format": layout.FORMAT, **entries}
    files = {}
    if place.stream is None:
        file = tables.encode()
        body["tables"] = sha256(file)
        if body["tables"] != before.manifest.get("tables"):
            files[place.tables_key(body["tables"])] = file
    manifest = {**body, "digest": sha256(layout.canonical(body))}
    if manifest["digest"] == before.digest:
        return manifest

    # the steps 1 to 3 of the module's docstring
    files[place.provenance] = _add_note(before, manifest["digest"], note, started)
    store.put_small(files, place.manifest_folder)

    store.replace(place.manifest, json_file(manifest), expected=before.etag)

    follow_manifest(Commit(place, manifest, None), keep_staged=keep_staged)
    return manifest


def follow_manifest(commit: Commit, *, keep_staged: bool = True) -> None:
    """Finish a commit after its manifest is written: add the split to the cache's list, and write
    each zarr.json that is missing or outdated. The caller holds the lock. In a store without locks,
    nothing is removed.

    Args:
        keep_staged: False: an unfinished commit has taken over the staged work, which is removed if
            a zarr.json is outdated. The staged work of a finished commit belongs to the next one,
            and stays.
    """
    place = commit.place
    store = place.store
    stale = commit.find_stale_metadata()
    # Only after the commit: readers report a listed split without a manifest as missing.
    update_list(store, add=[place.split], committed=committed_names(store))
    if store.exclusive and stale and not keep_staged:
        store.remove([place.staged])
    if stale:  # last: it shows that the commit is unfinished
        store.put_small(stale, place.arrays_folder)


def _add_note(before: Commit, digest: str, facts: Mapping[str, Any], started: float) -> bytes:
    """The bytes of provenance.json with the note of a commit that is not made yet: a note without
    its commit does no harm. before: the current commit.
    """
    from importlib import metadata

    software = {}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    note = {
        **facts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "python": platform.python_version(),
        "software": software,
    }
    if SHARED not in facts:
        note |= {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "platform": platform.platform(),
        }
    # The file has its notes sorted by digest; the newest are kept.
    by_time = sorted(before.notes().items(), key=lambda item: str(item[1].get("finished", "")))
    n_earlier = 1 if MOVED in facts else _NOTES - 1
    earlier = by_time[-n_earlier:]
    return _notes_file({**dict(earlier), digest: note})


def _notes_file(notes: Mapping[str, Any]) -> bytes:
    """The bytes of provenance.json: the notes of all commits, by their manifests' digests."""
    return json_file({"commits": notes})


def finish_commits(root: Root, split: str) -> None:
    """Finish commits that killed writers of a split and its streams have left unfinished.

    Raises Busy (a CacheError) if one of them has a running writer.
    """
    for place in places_of(store_at(root), split):
        if has_unfinished_commit(place):
            with place.store.lock(place.writing):
                commit = Commit.load(place)
                if commit is not None:
                    follow_manifest(commit, keep_staged=False)
