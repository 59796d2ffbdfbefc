"""Commits; the base of both writers; deleting streams and shards.  [cache]"""

from __future__ import annotations

import os
import platform
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, ClassVar, Final, Self

from cache.errors import CacheError
from cache.format import layout
from cache.format.earlier import refuse_tags
from cache.format.folders import committed_names, places_of
from cache.format.layout import PROVENANCE, json_file
from cache.format.listing import refuse_unmounted, update_list
from cache.format.manifest import Commit, Place
from cache.format.shard import sha256
from cache.format.tables import Tables, table_entry, table_key
from cache.storage import store_at
from cache.storage.base import Lock, Root
from cache.write.parts import refuse_running_parts

NOTES: Final = 100  # commits that are noted in `provenance.json`, the last ones
_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


class Writer(ABC):
    """A context manager that holds the writer's lock of a split or stream."""

    own_entries: ClassVar[frozenset[str]]
    """Keys of the manifest that are the cache's own."""
    _commit: Commit | None
    _started: float

    def __init__(self, place: Place, provenance: Mapping[str, Any] | None) -> None:
        self.place = place
        self._store = place.store
        self._provenance = dict(provenance or {})

    def __enter__(self) -> Self:
        refuse_unmounted(self._store, self.place.split)  # before the lock makes folders there
        refuse_tags(self._store)
        self._lock: Lock = self._store.lock(self.place.writing)
        try:
            refuse_running_parts(self._store, self.place.writing)
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @abstractmethod
    def _open(self) -> None:
        """Read the committed state, under the lock. Called on entry and after each commit."""

    def _refuse(self, entries: Mapping[str, Any]) -> None:
        """Raise CacheError when a key of the caller's entries is one of the cache's own."""
        reserved = sorted(entries.keys() & self.own_entries)
        if reserved:
            raise CacheError(
                f"{self.place.manifest_folder}: {reserved} in the manifest are the cache's own; "
                "choose other keys"
            )

    def note_again(self) -> None:
        """Update the current commit's notes in `provenance.json`, as after raw files have moved."""
        assert self._commit is not None, "nothing is committed yet"
        notes = self.place.read_notes()
        note = notes.setdefault(self._commit.digest, {})
        note.update(self._provenance)
        self._lock.require()
        _write_notes(self.place, notes)

    def _remove_unfinished(self, staged: str) -> None:
        """After a commit, remove staged work at this key, and files of parts; where a lock keeps
        others out, all but the lock.
        """
        names = self._store.list_names(self.place.writing)
        if self._store.exclusive:
            names = [name for name in names if name != "lock"]
        else:
            names = [name for name in names if name.startswith(layout.RUNNING)]
        keys = [f"{self.place.writing}/{name}" for name in names]
        self._store.remove([staged, *keys])

    def _remove_shards(self, name: str, keep: Collection[int]) -> None:
        """Remove an array's shards that are not in `keep`, unless they may belong to a running
        writer.
        """
        if self._store.exclusive:
            gone = [number for number in self.place.shards_on_disk(name) if number not in keep]
            self._store.remove(self.place.shard_folders([name], gone))

    def _publish(
        self, entries: Mapping[str, Any], tables: Tables, note: Mapping[str, Any] | None
    ) -> None:
        """Commit, with a note on how it came about. Raises CacheError when the lock was lost."""
        self._lock.require()
        noted = {**self._provenance, **(note or {})}
        before = self._commit
        publish(self.place, entries, tables, before=before, note=noted, started=self._started)


def publish(
    place: Place,
    entries: Mapping[str, Any],
    tables: Tables,
    *,
    before: Commit | None,
    note: Mapping[str, Any],
    started: float,
    keep_staged: bool = False,
) -> dict[str, Any]:
    """Commit: write new tables, replace the manifest, then what follows from it. Does nothing
    without a change.

    A kill before the manifest is replaced changes nothing. After a later kill, the next writer
    finishes what follows.

    Args:
        entries: the manifest without its format, tables and digest.
        tables: of a split; none of a stream.
        before: the current commit.
        note: goes to `provenance.json`, with the time since `started`.
        keep_staged: do not delete staged work, which belongs to another writer.

    Returns the manifest. Raises CacheError when another process has committed since `before`.
    """
    store = place.store
    body = {"format": layout.FORMAT, **entries}
    new_tables: dict[str, bytes] = {}  # by key
    if place.stream is None:
        committed = {}
        if before is not None:
            committed = before.manifest.get("tables", {})
        body["tables"] = {}
        for name, data in tables.to_files().items():
            entry = table_entry(tables[name], data)
            body["tables"][name] = entry
            if committed.get(name) != entry:
                new_tables[place.array_key(table_key(name, entry))] = data
    manifest = {**body, "digest": sha256(layout.canonical(body))}
    if before is not None and manifest["digest"] == before.digest:
        return manifest

    _add_note(place, manifest["digest"], note, started)
    store.put_small(new_tables, place.manifest_folder)
    etag = None if before is None else before.etag
    store.replace(place.manifest, json_file(manifest), expected=etag)
    follow_manifest(Commit(place, manifest, tables, None), keep_staged=keep_staged)
    return manifest


def follow_manifest(commit: Commit, *, keep_staged: bool = True) -> None:
    """Finish a commit: list the split, remove tables that it does not name, where a lock keeps
    others out, and write each zarr.json that is missing or of an earlier commit. The caller holds
    the lock.

    keep_staged: else staged work is that of this commit, and goes.
    """
    place = commit.place
    store = place.store
    stale = commit.find_stale_metadata()
    # not before the commit: a reader would miss the manifest of a listed split
    update_list(store, add=[place.split], there=committed_names(store))
    if store.exclusive:
        store.remove([*place.unnamed_tables(commit.manifest)])
        if stale and not keep_staged:
            store.remove([place.staged])
    if stale:  # last: it shows that the commit is unfinished
        store.put_small(stale, place.arrays_folder)


def _add_note(place: Place, digest: str, facts: Mapping[str, Any], started: float) -> None:
    """Add a note on a commit before it is made: a note without its commit does no harm."""
    software = {}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    note = {
        **facts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": software,
    }
    # by time, since the file has them sorted by digest
    by_time = sorted(place.read_notes().items(), key=lambda item: str(item[1].get("finished", "")))
    earlier = by_time[-(NOTES - 1) :]
    _write_notes(place, {**dict(earlier), digest: note})


def _write_notes(place: Place, notes: Mapping[str, Any]) -> None:
    """Write the notes of all commits, by their manifests' digests."""
    place.store.put_small(
        {f"{place.manifest_folder}/{PROVENANCE}": json_file({"commits": notes})},
        place.manifest_folder,
    )


def finish_commits(root: Root, split: str) -> None:
    """Finish the commits of killed writers of a split and its streams. Raises CacheError when one
    has a writer.
    """
    for place in places_of(store_at(root), split):
        if place.has_unfinished_commit():
            with place.store.lock(place.writing):
                commit = Commit.load(place)
                if commit is not None:
                    follow_manifest(commit, keep_staged=False)


def delete_stream(root: Root, split: str, stream: str) -> None:
    """Delete a stream if it exists, committed or not. Raises CacheError when it has a writer."""
    layout.check_names(split, stream)
    store = store_at(root)
    place = Place(store, split, stream)
    # The array whose folder has the lock goes last: else another writer could begin while arrays
    # are removed.
    arrays = [place.array_key(f"{stream}{part}") for part in reversed(layout.STREAM_ARRAYS)]
    if not any(store.list_names(array) for array in arrays):
        return
    refuse_tags(store)
    with store.lock(place.writing):
        refuse_running_parts(store, place.writing)
        # Without its manifest, no reader finds the stream; without zarr.json, its manifest is not
        # lost.
        store.remove([place.manifest, f"{place.manifest_folder}/zarr.json"])
        store.remove(arrays)


def invalidate(root: Root, split: str, stream: str | None, numbers: Collection[int]) -> None:
    """Remove shards from a committed stream, which makes them pending again; of a split, shards
    without tracks' rows.

    Raises CacheError when the stream or split is missing or has a writer.
    """
    layout.check_names(split, stream)
    place = Place(store_at(root), split, stream)
    refuse_tags(place.store)
    with place.store.lock(place.writing):
        commit = Commit.load(place)
        if commit is None:
            raise CacheError(
                f"{place.store.location(place.manifest_folder)}: nothing is committed there"
            )
        invalidate_shards(place, commit, numbers)


def invalidate_shards(place: Place, commit: Commit, numbers: Collection[int]) -> None:
    """Remove shards as `invalidate` does. The caller holds the writer's lock."""
    removed = {str(shard) for shard in numbers}

    def remaining(records: Mapping[str, str]) -> dict[str, str]:
        return {shard: record for shard, record in records.items() if shard not in removed}

    shards = commit.manifest["shards"]
    body = dict(commit.manifest)
    for key in ("format", "digest", "files", "tables"):  # the cache's own
        body.pop(key, None)
    body["shards"] = {array: remaining(records) for array, records in shards.items()}
    if place.stream is not None:
        body["split_digest"] = ""
        body["rows"] = remaining(body["rows"])
    note = {**commit.note, "invalidated": sorted(numbers)}
    started = time.time()
    publish(place, body, commit.tables, before=commit, note=note, started=started, keep_staged=True)
    place.store.remove(place.shard_folders(shards, numbers))
