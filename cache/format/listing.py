"""The list of a cache's splits, in its root `zarr.json`.  [cache]

A split is listed just after its first commit. A listed split that is missing is a problem: its disk
may not be mounted, or somebody has deleted it. An unmounted disk leaves its mount point, an empty
folder or a dead link; a deleted folder leaves nothing, and `gc` takes it off the list. Caches of an
earlier version get their list by the next commit or `gc`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from cache.errors import Busy, CacheError, MissingSplit
from cache.format.layout import GROUP, MANIFEST, WRITING, is_split_name, json_file
from cache.storage.base import Store

ROOT: Final = "zarr.json"  # key of the cache's Zarr group
SPLITS: Final = "splits"  # attribute of that group
_PATIENCE: Final = 10.0  # s to wait for others that change the list
_PAUSE: Final = 0.02  # s between two attempts


def root_group(splits: Collection[str] | None) -> bytes:
    """The root's `zarr.json` with this list; None: without a list."""
    if splits is None:
        return GROUP
    return json_file(
        {"zarr_format": 3, "node_type": "group", "attributes": {SPLITS: sorted(splits)}}
    )


def parse_list(root: bytes) -> frozenset[str] | None:
    """The list in a root `zarr.json`; None without one, or in a damaged file, which `verify`
    reports.
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
    """Names of the listed splits; none without a list."""
    try:
        return parse_list(store.read(ROOT)) or frozenset()
    except FileNotFoundError:
        return frozenset()


def update_list(
    store: Store, *, add: Iterable[str] = (), remove: Iterable[str] = (), there: Iterable[str]
) -> None:
    """Change the list, without losing changes of other processes. Does nothing if it is right
    already.

    there: committed splits, which a cache of an earlier version does not list.

    Raises CacheError if others do not let it in for 10 s.
    """
    added = frozenset(add)
    removed = frozenset(remove)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            if not _is_up_to_date(store, added, removed):
                with store.lock(WRITING):  # an object store compares the etag instead
                    _replace_list(store, added, removed, there)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _is_up_to_date(store: Store, added: frozenset[str], removed: frozenset[str]) -> bool:
    """Whether the list has all that are added, and none that is removed."""
    try:
        listed = parse_list(store.read(ROOT))
    except FileNotFoundError:
        return False
    return listed is not None and added <= listed and not (removed & listed)


def _replace_list(
    store: Store, added: frozenset[str], removed: frozenset[str], there: Iterable[str]
) -> None:
    etag = None
    listed = frozenset[str]()
    with suppress(FileNotFoundError):
        root, etag = store.read_with_etag(ROOT)
        listed = parse_list(root) or listed
    names = listed.union(there, added) - removed
    store.replace(ROOT, root_group(names), expected=etag)


def unmounted_folder(store: Store, split: str) -> str:
    """Key of the split's or its dataset's folder if that seems to be the mount point of a missing
    disk; else "".
    """
    if not store.exclusive:  # an object store has no mount points
        return ""
    listed = listed_splits(store)
    dataset, _, part = split.partition("/")
    parts = {name.partition("/")[2] for name in listed if name.startswith(f"{dataset}/")}
    if not parts or dataset not in store.list_names(""):
        return ""

    # a folder that is there, without anything that a commit leaves in it
    names = store.list_names(dataset)
    if ROOT not in names and parts.isdisjoint(names):
        return dataset
    if split not in listed or part not in names:
        return ""
    if {ROOT, WRITING, MANIFEST}.isdisjoint(store.list_names(split)):
        return split
    return ""


def refuse_unmounted(store: Store, split: str) -> None:
    """Raise MissingSplit if the split, or its dataset, is listed and its disk does not seem to be
    mounted.
    """
    if unmounted_folder(store, split):
        raise MissingSplit(missing_text(store, split))


def refuse_missing(store: Store, split: str) -> None:
    """Raise MissingSplit if the split, which has no manifest, is listed."""
    if split in listed_splits(store):
        raise MissingSplit(missing_text(store, split))


def missing_text(store: Store, split: str) -> str:
    """The message about a listed split without a manifest."""
    expected = f"the split {split}, which {store.location(ROOT)} lists"
    gc = f"python -m pipeline gc --cache {store.root}"
    key = unmounted_folder(store, split)
    if key:
        state = "nothing of it"
        do = f"Mount its disk. If the data may go, delete this folder, and run {gc}"
    elif store.list_names(split):
        key = f"{split}/{MANIFEST}"
        state = "no file"
        do = (
            "Restore it from a backup, or convert the split again: its features are carried "
            "over by their keys."
        )
    else:
        key = split
        state = "no such folder"
        do = (
            "Mount its disk, restore it, or convert it again. If it was deleted on purpose, run "
            f"{gc}"
        )
    return str(CacheError.at(store.location(key), expected=expected, found=state, do=do))
