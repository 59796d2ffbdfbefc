"""The list of a cache's splits, in its root `zarr.json`.  [cache]

A split is added to the list just after its first commit. A listed split that is missing is a
problem: its disk may not be mounted, or somebody has deleted it. An unmounted disk leaves its mount
point behind (`is_mount_point`). A deleted folder leaves nothing, and `gc` removes its split from
the list. The next commit writes a damaged list again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from cache.errors import Busy, MissingSplit
from cache.format.layout import MANIFEST, SHARDS, WRITING, is_split_name, json_file
from cache.storage.base import Store

ROOT: Final = "zarr.json"  # key of the cache's Zarr group
SPLITS: Final = "splits"  # attribute of that group
# files and folders of which each dataset, split, features folder and stream has at least one
_OWN: Final = frozenset({ROOT, MANIFEST, WRITING, SHARDS})
_PATIENCE: Final = 10.0  # s to wait for other processes that change the list
_PAUSE: Final = 0.02  # s between two attempts


def root_group(splits: Collection[str]) -> bytes:
    """The root's `zarr.json` with this list of splits."""
    return json_file(
        {"zarr_format": 3, "node_type": "group", "attributes": {SPLITS: sorted(splits)}}
    )


def parse_list(root: bytes) -> frozenset[str] | None:
    """Parse the list of splits in a root `zarr.json`.

    Returns None if the file is damaged, which `verify` reports.
    """
    try:
        names = json.loads(root)["attributes"][SPLITS]
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not is_list:
        return None
    return frozenset(filter(is_split_name, names))


def listed_splits(store: Store) -> frozenset[str]:
    """Names of the listed splits; an empty set if the list is missing or damaged."""
    return _read_list(store) or frozenset()


def _read_list(store: Store) -> frozenset[str] | None:
    """Names of the listed splits; None if the list is missing or damaged."""
    try:
        return parse_list(store.read(ROOT))
    except FileNotFoundError:
        return None


def update_list(
    store: Store, *, add: Iterable[str] = (), remove: Iterable[str] = (), committed: Iterable[str]
) -> None:
    """Add splits to the list and remove others, without losing changes of other processes.

    Writes nothing if the list has all added and no removed splits already.

    Args:
        committed: all committed splits. They are added too when the list is written, because it
            may have been damaged.

    Raises Busy (a CacheError) if other processes keep the list locked for 10 s.
    """
    added = frozenset(add)
    removed = frozenset(remove)
    until = time.monotonic() + _PATIENCE
    while True:
        listed = _read_list(store)
        if listed is not None and added <= listed and not (removed & listed):
            return
        try:
            # An object store has no locks; its `replace` compares the etag instead.
            with store.lock(WRITING):
                etag = None
                listed = frozenset[str]()
                with suppress(FileNotFoundError):
                    root, etag = store.read_with_etag(ROOT)
                    listed = parse_list(root) or listed
                names = listed.union(committed, added) - removed
                store.replace(ROOT, root_group(names), expected=etag)
                return
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def is_mount_point(store: Store, folder: str) -> bool:
    """Whether an existing folder of a dataset, split, stream or all features seems to be the mount
    point of a disk that is not mounted: a dead link, or a folder without any file of its own,
    whatever else is in it. A folder that may not be read counts as mounted: opening it reports
    that.
    """
    try:
        return _OWN.isdisjoint(store.list_names(folder))
    except PermissionError:
        return False


def unmounted_folder(store: Store, split: str) -> str | None:
    """The key of the dataset's or the split's folder, if that folder seems to be the mount point of
    a disk that is not mounted; else None.
    """
    if not store.exclusive:  # an object store has no mount points
        return None
    listed = listed_splits(store)
    dataset, _, part = split.partition("/")
    parts = {name.partition("/")[2] for name in listed if name.startswith(f"{dataset}/")}
    if not parts or dataset not in store.list_names(""):
        return None
    with suppress(PermissionError):  # reading the split reports it
        names = store.list_names(dataset)
        if parts.isdisjoint(names) and is_mount_point(store, dataset):
            return dataset
        if split in listed and part in names and is_mount_point(store, split):
            return split
    return None


def refuse_unmounted(store: Store, split: str) -> None:
    """Raise MissingSplit if a listed split's disk, or its dataset's, seems to be unmounted."""
    if unmounted_folder(store, split) is not None:
        raise missing_error(store, split)


def refuse_missing(store: Store, split: str) -> None:
    """Raise MissingSplit if the list names the split. Call this for a split without a manifest."""
    if split in listed_splits(store):
        raise missing_error(store, split)


def missing_error(store: Store, split: str) -> MissingSplit:
    """The error about a listed split without a manifest."""
    expected = f"the split {split}, which {store.location(ROOT)} lists"
    gc = f"python -m pipeline gc --cache {store.root}"
    folder = unmounted_folder(store, split)
    if folder is not None:
        key = folder
        state = "nothing of it"
        do = f"Mount its disk. If the data may go, delete this folder, and run {gc}"
    elif store.list_names(split):
        key = f"{split}/{MANIFEST}"
        state = "no file"
        do = (
            "Restore it from a backup, or convert the split again: features of rows that are then "
            "as before are kept."
        )
    else:
        key = split
        state = "no such folder"
        do = (
            "Mount its disk, restore it, or convert it again. If it was deleted on purpose, run "
            f"{gc}"
        )
    return MissingSplit.at(store.location(key), expected=expected, found=state, do=do)
