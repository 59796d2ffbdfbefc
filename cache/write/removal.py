"""Delete streams, and remove shards from a commit.  [cache]

`invalidate_shards` makes a commit that lacks some shards. It takes over no staged work, which
belongs to the next writer.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from cache.errors import CacheError
from cache.format import layout
from cache.format.folders import refuse_unmounted_stream
from cache.format.manifest import (
    Commit,
    shards_entry,
)
from cache.format.place import Place
from cache.format.tags import refuse_tagged
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import publish
from cache.write.parts import refuse_running_parts


def delete_stream(root: Root, split: str, stream: str) -> None:
    """Delete a stream if it exists, committed or not. Raises CacheError if its disk seems to be
    unmounted, and if a tag has it; Busy if it has a running writer.
    """
    layout.check_names(split, stream)
    store = store_at(root)
    place = Place(store, split, stream)
    refuse_unmounted_stream(place)
    # The array whose folder holds the lock is removed last; otherwise another writer could begin
    # while arrays are being removed.
    arrays = [place.array_key(f"{stream}{part}") for part in reversed(layout.STREAM_ARRAYS)]
    if not any(store.list_names(array) for array in arrays):
        return
    with store.lock(place.writing):
        refuse_running_parts(store, place.writing)
        refuse_tagged(place)
        # Without the manifest, no reader finds the stream. Without its zarr.json, the missing
        # manifest is not reported as lost.
        store.remove([place.manifest, f"{place.manifest_folder}/zarr.json"])
        store.remove(arrays)


def invalidate(root: Root, split: str, stream: str | None, numbers: Collection[int]) -> None:
    """Commit a stream, or a split (`stream` is None), without some of its shards.

    A stream's shards become pending again, and their files are deleted, as new ones will have the
    same names. A split's files stay until `gc`; they must not have rows of tracks, which is not
    checked. Raises CacheError if the stream or split is missing or has a running writer.
    """
    layout.check_names(split, stream)
    place = Place(store_at(root), split, stream)
    with place.store.lock(place.writing):
        commit = Commit.load(place)
        if commit is None:
            raise CacheError(
                f"{place.store.location(place.manifest_folder)}: nothing is saved there"
            )
        invalidate_shards(place, commit, numbers)


def invalidate_shards(place: Place, commit: Commit, numbers: Collection[int]) -> None:
    """Remove shards as `invalidate` does. The caller holds the writer's lock."""
    entries = dict(commit.manifest)
    for key in ("format", "digest", "tables"):  # `publish` adds these
        entries.pop(key, None)
    arrays = entries["shards"].keys()
    remaining = commit.shards
    for number in numbers:
        remaining.pop(number, None)
    entries["shards"] = shards_entry(arrays, remaining)
    if place.stream is not None:
        entries["split_digest"] = ""  # the stream may lack shards of the split now
        entries["rows"] = {str(number): entries["rows"][str(number)] for number in remaining}
    note = {**commit.note, "invalidated": sorted(numbers)}
    publish(
        place,
        entries,
        commit.tables,
        before=commit,
        note=note,
        started=time.time(),
        keep_staged=True,
    )
    if place.stream is not None:
        place.store.remove(place.shard_folders(arrays, numbers))
