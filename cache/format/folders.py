"""Find the folders of splits and streams in a store, committed or not.  [cache]

A split's folder is `<dataset>/<split>`, and a stream's is `<dataset>/<split>/features/<stream>`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress

from cache.errors import CacheError
from cache.format import layout
from cache.format.layout import FEATURES
from cache.format.listing import update_list
from cache.format.manifest import lost_manifest
from cache.format.place import Place
from cache.storage.base import Store


def create_groups(place: Place) -> None:
    """Write the missing Zarr groups (`zarr.json`) of the cache, the dataset, the split and its
    features. The cache's group also gets its list of splits.
    """
    store = place.store
    # This writes the cache's own group, the first of `place.groups`.
    update_list(store, committed=committed_names(store))
    for key in place.groups[1:]:
        if not store.exists(key):
            temporary = f"{place.writing}/.{secrets.token_hex(4)}"
            store.put(key, layout.GROUP, temporary=temporary)


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
    """Names "<dataset>/<split>" of all folders that may be splits and are not empty.

    Neither needs a commit. A dataset's folder that may not be read is in the list as "<dataset>".
    """
    names = []
    for name in possible_splits(store):
        # None, for a folder that may not be read, counts as content.
        if _list_names(store, name) != []:
            names.append(name)
    return names


def possible_splits(store: Store) -> Iterator[str]:
    """Names "<dataset>/<split>" of all folders whose names fit, including empty folders.

    A dataset's folder that may not be read is yielded as "<dataset>", in place of its splits.
    """
    for dataset in store.list_names(""):
        if layout.is_name(dataset) and dataset != "lost+found":
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


def _stream_folders(store: Store, split: str) -> list[str]:
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
        streams = _stream_folders(store, split)
    unmounted = unmounted_streams(store, split)
    places = [Place(store, split, stream) for stream in (None, *streams)]
    return [place for place in places if place.manifest_folder not in unmounted]


def unmounted_streams(store: Store, split: str) -> dict[str, str]:
    """Folders of a split's features, of all or of one stream, that seem to be mount points of disks
    that are not mounted -> a message.

    A mount point is an empty folder or a dead link: a split's first commit leaves a file for all
    features, and a stream's folder, which a writer makes first and removes last, is never empty
    beside the stream's other arrays.
    """
    if not store.exclusive:  # an object store has no mount points
        return {}
    folder = f"{split}/{FEATURES}"
    empty = []
    with suppress(PermissionError):
        names = store.list_names(folder)
        if names:
            begun = [name for name in _stream_folders(store, split) if f"{name}_ok" in names]
            below = [f"{folder}/{name}" for name in begun]
            empty = [key for key in below if _list_names(store, key) == []]
        elif FEATURES in store.list_names(split):
            empty = [folder]
    do = "Mount its disk. If the features may go, delete this folder: they are computed again."
    texts = {}
    for key in empty:
        where = store.location(key)
        texts[key] = str(CacheError.at(where, expected="features", found="none", do=do))
    return texts
