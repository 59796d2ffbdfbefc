"""Find the files of a split or stream that its manifest does not name.  [cache]

An array's folder has its shards below `c`, and a `zarr.json`, which is written after a commit.
Beside the arrays of a split lie `manifest.json`, `tables`, `features` and the user's files:

    3dpw/train/bbox/c/0/0           a shard of the column `bbox`
    3dpw/train/bbox/zarr.json
    3dpw/train/foot_contact/c/0     only `c`: an extra column whose first commit was never made
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cache.format import layout
from cache.format.layout import FEATURES, PROVENANCE, TABLE_FOLDER, stream_of
from cache.format.manifest import Commit
from cache.format.tables import StoredTable

_SHARDS: Final = "c"  # folder of an array's shards
_TABLE: Final = re.compile(rf"{layout.NAME}-[0-9a-f]{{16}}")  # name of a table's folder


def find_unreferenced(commit: Commit, *, uncommitted: bool) -> Iterator[str]:
    """Keys of the files and folders of a split or stream that its manifest does not name. Only
    names that this program gives are looked for.

    Args:
        commit: the current one, or `Commit.empty`.
        uncommitted: also find staged work, and files that may belong to it.
    """
    place = commit.place
    names = place.store.list_names(place.manifest_folder)
    if uncommitted and not commit.digest and PROVENANCE in names:  # of a commit that was never made
        yield place.provenance
    # the temporary files of killed writes, or all uncommitted ones except the lock
    for name in place.store.list_names(place.writing):
        if name.startswith(".") or (uncommitted and name != "lock"):
            yield f"{place.writing}/{name}"
    if uncommitted:
        yield from find_unnamed_shards(commit)
    if place.stream is None:
        # `<stream>_ok` and `<stream>_key` of streams whose own folder, beside theirs, is gone
        streams = place.store.list_names(place.array_key(FEATURES))
        for name in streams:
            if stream_of(name) not in streams:
                yield place.array_key(f"{FEATURES}/{name}")
    yield from find_unnamed_tables(commit)
    for name in names:
        if name.startswith(".") and name.endswith(".tmp"):
            yield f"{place.manifest_folder}/{name}"


def find_unnamed_shards(commit: Commit) -> Iterator[str]:
    """Shards that the manifest does not name, of arrays that it names. Of the split's or stream's
    other arrays, which a killed writer has begun, all files that this program writes.
    """
    place = commit.place
    store = place.store
    arrays = [f"{place.stream}{part}" for part in layout.STREAM_ARRAYS]
    if place.stream is None:
        arrays = _columns_on_disk(commit)
    named = commit.manifest["shards"]
    present = store.list_names(place.arrays_folder)
    for name in arrays:
        array = place.array_key(name)
        if name in named:
            numbers = place.shards_on_disk(name)
            unnamed = [number for number in numbers if str(number) not in named[name]]
            yield from place.shard_folders([name], unnamed)
        elif name in present:
            inside = store.list_names(array)
            for file in inside:
                if file in (_SHARDS, "zarr.json"):
                    yield f"{array}/{file}"
            if not inside:  # of a write that ended before its first file
                yield array


def _columns_on_disk(commit: Commit) -> list[str]:
    """Names of the columns that a split may have on the disk.

    These are the commit's columns (without a commit: those that every split may have), and the
    extra columns of a killed writer. Nothing names the latter: they are the other folders that have
    only shards in them, and so no zarr.json.
    """
    place = commit.place
    store = place.store
    columns = list(commit.columns)
    for name in store.list_names(place.manifest_folder):
        if name not in columns and store.list_names(place.array_key(name)) == [_SHARDS]:
            columns.append(name)
    return columns


def find_unnamed_tables(commit: Commit) -> Iterator[str]:
    """Keys of existing table folders that the manifest does not name."""
    place = commit.place
    folders = {table.folder for table in StoredTable.from_manifest(commit.manifest)}
    if place.stream is None:
        for name in place.store.list_names(place.array_key(TABLE_FOLDER)):
            folder = f"{TABLE_FOLDER}/{name}"
            if _TABLE.fullmatch(name) and folder not in folders:
                yield place.array_key(folder)
