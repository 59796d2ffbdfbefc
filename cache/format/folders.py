"""Folders of splits and streams in a store, committed or not.  [cache]"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress

from cache.format import layout
from cache.format.layout import FEATURES
from cache.format.listing import update_list
from cache.format.manifest import Place
from cache.storage.base import Store


def create_groups(place: Place) -> None:
    """Write the Zarr groups that are missing, from the cache, with its list of splits, down to the
    split's features.
    """
    store = place.store
    # writes the cache's own group, the first
    update_list(store, there=committed_names(store))
    for key in place.groups[1:]:
        if not store.exists(key):
            temporary = f"{place.writing}/.{secrets.token_hex(4)}"
            store.put(key, layout.GROUP, temporary=temporary)


def committed_names(store: Store) -> Iterator[str]:
    """Names of committed splits, also of those that have lost their manifest."""
    for name in possible_splits(store):
        place = Place(store, name)
        try:
            is_committed = store.exists(place.manifest) or place.lost_manifest() is not None
        except PermissionError:
            is_committed = "/" in name  # opening it says why
        if is_committed:
            yield name


def split_folders(store: Store) -> list[str]:
    """All folders that may be splits, committed or not, by "<dataset>/<split>"."""
    names = []
    for name in possible_splits(store):
        if _list_names(store, name) != []:  # also None: one that may not be read has content
            names.append(name)
    return names


def possible_splits(store: Store) -> Iterator[str]:
    """As `split_folders`, also empty ones. A dataset's folder that may not be read stands for its
    splits.
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
    """As `store.list_names`; None for a folder that may not be read."""
    try:
        return store.list_names(folder)
    except PermissionError:
        return None


def stream_folders(store: Store, split: str) -> list[str]:
    """All folders of a split that may be streams, committed or not."""
    folder = f"{split}/{FEATURES}"
    streams = []
    for name in store.list_names(folder):
        is_stream = layout.is_name(name) and layout.stream_of(name) == name
        # a file is the user's, or the group's own
        if is_stream and not store.exists(f"{folder}/{name}"):
            streams.append(name)
    return streams


def places_of(store: Store, split: str) -> list[Place]:
    """Places of a split and its streams, committed or not."""
    streams: list[str] = []
    with suppress(PermissionError):  # which the place of the split shows
        streams = stream_folders(store, split)
    return [Place(store, split, stream) for stream in (None, *streams)]
