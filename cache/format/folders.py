"""Find the folders of splits and streams in a store, and the files in them that no manifest names.
[cache]

A split's folder is `<dataset>/<split>`, and a stream's is `<dataset>/<split>/features/<stream>`;
neither needs a commit. An array's folder has its shards below `c`, and a `zarr.json`, which is
written after a commit. Beside the arrays of a split lie `manifest.json`, its tables, `features` and
the user's files:

    3dpw/train/bbox/c/0/0           a shard of the column `bbox`
    3dpw/train/bbox/zarr.json
    3dpw/train/foot_contact/c/0     only `c`: an extra column of another commit, or of none yet
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from cache.errors import CacheError
from cache.format import layout
from cache.format.layout import FEATURES, MEASURES, PROVENANCE, SHARDS, stream_of
from cache.format.listing import is_mount_point, unmounted_folder, update_list
from cache.format.manifest import Commit, lost_manifest
from cache.format.place import Place
from cache.storage.base import Store, is_own_file

_TABLES: Final = re.compile(r"tables-[0-9a-f]{16}\.npz")


def create_groups(place: Place) -> None:
    """Write the missing Zarr groups (`zarr.json`) of the cache, the dataset, the split and its
    features. The cache's group also gets its list of splits.
    """
    store = place.store
    # This writes the cache's own group, the first of `place.groups`.
    update_list(store, committed=committed_names(store))
    for key in present_groups(place)[1:]:
        if not store.exists(key):
            temporary = f"{place.writing}/.{secrets.token_hex(4)}"
            store.put(key, layout.GROUP, temporary=temporary)


def present_groups(place: Place) -> list[str]:
    """`place.groups`, of a committed split without that of features whose disk seems to be
    unmounted, as its file would be written into the mount point.
    """
    groups = place.groups
    unmounted = unmounted_streams(place.store, place.split)
    is_committed = place.store.exists(f"{place.split}/{layout.MANIFEST}")
    if is_committed and f"{place.split}/{FEATURES}" in unmounted:
        groups.pop()
    return groups


def committed_names(store: Store) -> Iterator[str]:
    """Names of committed splits, including those whose manifest is lost.

    A split that may not be read counts as committed.
    """
    for name in possible_splits(store):
        place = Place(store, name)
        try:
            is_committed = store.exists(place.manifest) or lost_manifest(place) is not None
        except PermissionError:
            is_committed = "/" in name  # opening the split will report the missing permission
        if is_committed:
            yield name


def split_folders(store: Store) -> list[str]:
    """Names "<dataset>/<split>" of all folders that may be splits, are not empty, and are not in
    the mount point of a disk that is not mounted.

    Neither needs a commit. A dataset's folder that may not be read is in the list as "<dataset>".
    """
    names = []
    for name in possible_splits(store):
        # None, for a folder that may not be read, counts as content.
        if _list_names(store, name) != [] and unmounted_folder(store, name) is None:
            names.append(name)
    return names


def possible_splits(store: Store) -> Iterator[str]:
    """Names "<dataset>/<split>" of all folders whose names fit, including empty folders.

    A dataset's folder that may not be read is yielded as "<dataset>", in place of its splits.
    """
    for dataset in store.list_names(""):
        if layout.is_name(dataset):
            names = _list_names(store, dataset)
            if names is None:
                yield dataset
                continue
            for name in names:
                if layout.is_name(name):
                    yield f"{dataset}/{name}"


def _list_names(store: Store, folder: str) -> list[str] | None:
    """The names in a folder; None if the user may not read it."""
    try:
        return store.list_names(folder)
    except PermissionError:
        return None


def stream_folders(store: Store, split: str) -> list[str]:
    """Names of all folders of a split that may be streams, committed or not."""
    folder = f"{split}/{FEATURES}"
    streams = []
    for name in store.list_names(folder):
        is_stream = layout.is_name(name) and layout.stream_of(name) == name
        # A file is no stream: it is the Zarr group's own file, or one that a user has put there.
        if is_stream and not store.exists(f"{folder}/{name}"):
            streams.append(name)
    return streams


def places_of(store: Store, split: str) -> list[Place]:
    """The `Place` of a split, then those of its streams, committed or not; without streams whose
    disk seems to be unmounted, because a lock would remove the mount point.
    """
    streams: list[str] = []
    with suppress(PermissionError):  # reading the split's own place reports it
        streams = stream_folders(store, split)
    places = [Place(store, split, stream) for stream in streams]
    unmounted = unmounted_streams(store, split)
    return [Place(store, split), *(place for place in places if not _why_away(place, unmounted))]


def unmounted_streams(store: Store, split: str) -> dict[str, str]:
    """Folders of a split's features, of all or of one stream, that seem to be mount points of disks
    that are not mounted (`is_mount_point`) -> a message.

    A split's first commit leaves a file for all features. A stream's folder, which a writer makes
    first and removes last, has a file of its own beside the stream's other arrays.
    """
    if not store.exclusive:  # an object store has no mount points
        return {}
    folder = f"{split}/{FEATURES}"
    unmounted = []
    with suppress(PermissionError):
        streams = stream_folders(store, split)
        away = [name for name in streams if is_mount_point(store, f"{folder}/{name}")]
        if away != streams or not is_mount_point(store, folder):
            names = store.list_names(folder)
            unmounted = [f"{folder}/{name}" for name in away if f"{name}_ok" in names]
        elif FEATURES in store.list_names(split):
            unmounted = [folder]
    do = "Mount its disk. If the features may go, delete this folder: they are computed again."
    texts = {}
    for key in unmounted:
        where = store.location(key)
        texts[key] = str(CacheError.at(where, expected="features", found="none", do=do))
    return texts


def deleted_streams(store: Store, split: str) -> dict[str, str]:
    """The arrays `<stream>_ok` and `<stream>_key` of streams whose own folder, beside theirs, is
    gone -> a message.
    """
    folder = f"{split}/{FEATURES}"
    names = store.list_names(folder)
    do = "mount its disk; if the stream was deleted, `gc` removes the rest of it"
    texts = {}
    for name in names:
        key = f"{folder}/{name}"
        stream = stream_of(name)
        if stream not in names and own_files(store, key) is not None and not store.exists(key):
            texts[key] = f"{store.location(f'{folder}/{stream}')}: no such folder: {do}"
    return texts


def own_files(store: Store, key: str) -> dict[str, int] | None:
    """Key -> size of this package's files in a folder, or of the file that the key names. An empty
    folder has {}; None if there are only a user's files, or nothing.
    """
    sizes = store.file_sizes(key)
    if sizes:
        return {name: size for name, size in sizes.items() if is_own_file(name)} or None
    size = store.size(key)
    if size is not None:
        return {key: size}
    folder, _, name = key.rpartition("/")
    return {} if name in store.list_names(folder) else None


def _why_away(place: Place, unmounted: Mapping[str, str]) -> str | None:
    """The message of `unmounted_streams` about a stream, or about all of its split's."""
    return unmounted.get(place.arrays_folder) or unmounted.get(place.manifest_folder)


def refuse_unmounted_stream(place: Place) -> None:
    """Raise CacheError if a stream's disk, or that of all features, seems to be unmounted."""
    why = _why_away(place, unmounted_streams(place.store, place.split))
    if why is not None:
        raise CacheError(why)


def find_unreferenced(
    commit: Commit, *, uncommitted: bool, pinned: Sequence[Commit] = ()
) -> Iterator[str]:
    """Keys of the files and folders of a split or stream that its manifest does not name. Only
    names that this program gives are looked for.

    Args:
        commit: the current one, or `Commit.empty`.
        uncommitted: also find staged work, and files that may belong to it.
        pinned: other commits of it, whose shards are left out. Pins have their tables.
    """
    place = commit.place
    names = place.store.list_names(place.manifest_folder)
    if uncommitted and not commit.digest:  # of a commit that was never made, or that is gone
        for name in names:
            if name == PROVENANCE or (name == MEASURES and place.stream is None):
                yield f"{place.manifest_folder}/{name}"
    # the temporary files of killed writes, or all uncommitted ones except the lock
    for name in place.store.list_names(place.writing):
        if name.startswith(".") or (uncommitted and name != "lock"):
            yield f"{place.writing}/{name}"
    if uncommitted:
        yield from _find_unnamed_shards(commit, pinned)
    if place.stream is None:
        yield from deleted_streams(place.store, place.split)
    for name in names:
        key = f"{place.manifest_folder}/{name}"
        is_temporary = name.startswith(".") and name.endswith(".tmp")
        is_tables = place.stream is None and _TABLES.fullmatch(name) is not None
        if is_temporary or (is_tables and not (commit.digest and key == commit.tables_key)):
            yield key


def _find_unnamed_shards(commit: Commit, pinned: Sequence[Commit]) -> Iterator[str]:
    """Shards that no manifest names, of arrays that one of them names. Of the split's or stream's
    other arrays, which a killed writer has begun, all files that this program writes.
    """
    place = commit.place
    store = place.store
    arrays = [f"{place.stream}{part}" for part in layout.STREAM_ARRAYS]
    if place.stream is None:
        arrays = _columns_on_disk(commit)
    named: dict[str, set[str]] = {}
    for one in (commit, *pinned):
        for name, records in one.manifest["shards"].items():
            named.setdefault(name, set()).update(records)
    present = store.list_names(place.arrays_folder)
    for name in arrays:
        array = place.array_key(name)
        if name in named:
            for number in store.list_names(f"{array}/{SHARDS}"):
                if number.isdigit() and number not in named[name]:
                    yield f"{array}/{SHARDS}/{number}"
        elif name in present:
            inside = store.list_names(array)
            for file in inside:
                key = f"{array}/{file}"
                # A file `c` is a user's.
                if file == "zarr.json" or (file == SHARDS and not store.exists(key)):
                    yield key
            if not inside:  # of a write that ended before its first file
                yield array


def _columns_on_disk(commit: Commit) -> list[str]:
    """Names of the columns that a split may have on the disk.

    These are the commit's columns (without a commit: those that every split may have), and extra
    columns of a killed writer or an earlier commit. Nothing names the latter: they are the other
    folders that have only shards in them, and so no zarr.json.
    """
    place = commit.place
    store = place.store
    columns = list(commit.columns)
    for name in store.list_names(place.manifest_folder):
        if name not in columns and store.list_names(place.array_key(name)) == [SHARDS]:
            columns.append(name)
    return columns
