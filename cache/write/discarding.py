"""Streams, or shards of them, that are to be there no longer.  tracks -> [features] -> windows"""

from __future__ import annotations

import time
from collections.abc import Collection

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.manifest import Commit, Place, own_part
from cache.format.provenance import add_provenance
from cache.storage.base import Root, store_at


def discard(root: Root, split: str, stream: str) -> None:
    """Remove a stream, committed or not. Nothing happens when there is none.

    Raises CacheError when a writer is at work on it.
    """
    layout.check_names(split, stream)
    store = store_at(root)
    place = Place.of_stream(store, split, stream)
    if not store.below(place.home):
        return
    lock = store.lock(place.writing)
    try:
        store.remove([f"{place.home}/{layout.COPY}"])  # without it, the manifest is not missed
        store.remove([place.manifest])  # from here on, no reader takes the rest for a stream
        # The folder with the lock last: without it, the next writer could begin while its arrays are removed.
        store.remove([place.array(name) for name in reversed(layout.stream_arrays(stream))])
    finally:
        lock.release()


def forget(root: Root, split: str, stream: str, numbers: Collection[int]) -> None:
    """Let a committed stream name these shards no longer: they are pending again, and their files nobody's.

    Raises CacheError when there is no such stream, or a writer is at work on it.
    """
    layout.check_names(split, stream)
    place = Place.of_stream(store_at(root), split, stream)
    lock = place.store.lock(place.writing)
    try:
        commit = manifest.load(place)
        if commit is None:
            raise CacheError(f"{place.store.where(place.home)}: no committed stream: there is nothing to forget")
        manifest.roll_forward(place, commit.manifest)
        forget_shards(place, commit, numbers)
    finally:
        lock.release()


def forget_shards(place: Place, commit: Commit, numbers: Collection[int]) -> None:
    """The same, for who holds the lock and has rolled the commit forward."""
    gone = {str(shard) for shard in numbers}
    named = {
        array: {shard: record for shard, record in records.items() if shard not in gone}
        for array, records in commit.manifest["shards"].items()
    }
    rows = {shard: record for shard, record in commit.manifest.get("rows", {}).items() if shard not in gone}
    body = own_part(commit.manifest, {"digest", "format", "split_digest", "shards", "rows"})
    new = manifest.seal({**body, "split_digest": "", "shards": named, "rows": rows})
    add_provenance(place, new["digest"], {"forgot": sorted(numbers)}, time.time())
    files = {name: bytes(data) for name, data in commit.files.items()}
    if new["digest"] != commit.digest:
        manifest.publish(place, new, files, expected=commit.tag, journal_stays=True)
