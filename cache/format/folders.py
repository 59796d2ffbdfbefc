"""Folders that writers make and clean up.  tracks -> [cache] -> windows"""

from __future__ import annotations

from collections.abc import Collection

from cache.format import layout
from cache.storage.base import Store


def create_groups(store: Store, split: str) -> None:
    """The Zarr groups from the cache down to a split's features, where they are missing."""
    store.make_home(f"{split}/{layout.FEATURES}")
    dataset = split.partition("/")[0]
    folders = ("", dataset, split, f"{split}/{layout.FEATURES}")
    groups = {folder: layout.group_key(folder) for folder in folders}
    if all(map(store.exists, groups.values())):
        return
    with store.alone():  # writers of other splits make the same groups
        for folder, key in groups.items():
            if not store.exists(key):
                store.put_small({key: layout.group_metadata()}, folder)


def discard_shards(store: Store, array: str, keep: Collection[int]) -> None:
    """Remove the shards of one array whose numbers are not in `keep`, where they can only be a dead writer's."""
    if store.exclusive:
        store.remove([f"{array}/c/{number}" for number in shards_there(store, array) if number not in keep])


def shards_there(store: Store, array: str) -> list[int]:
    """Numbers of the shards of one array that lie there, named by a manifest or not."""
    return sorted(int(name) for name in store.below(f"{array}/c") if name.isdigit())


def split_folders(store: Store, below: str = "") -> list[str]:
    """All folders that may be splits, committed or not: names as below the cache itself."""
    prefix = f"{below}/" if below else ""
    datasets = (name for name in store.below(below) if layout.is_name(name))
    found = (f"{dataset}/{name}" for dataset in datasets for name in store.below(prefix + dataset))
    return [name for name in found if layout.is_split_name(name) and store.below(prefix + name)]


def stream_folders(store: Store, split: str) -> list[str]:
    """All folders of a split that may be streams, committed or not."""
    home = f"{split}/{layout.FEATURES}"
    names = [name for name in store.below(home) if layout.is_name(name) and layout.stream_of(name) == name]
    return [name for name in names if not store.exists(f"{home}/{name}")]  # a file is somebody's, or the group's own
