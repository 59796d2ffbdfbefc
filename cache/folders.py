"""Folders that writers make and clean up.  tracks -> [cache] -> windows"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from cache import layout
from cache.durable import make_folder, write_atomic


def create_groups(root: Path, split: str) -> None:
    """The Zarr groups from the cache down to a split's features, where they are missing."""
    folder = root / split
    make_folder(folder / layout.FEATURES)
    for group in (root, folder.parent, folder, folder / layout.FEATURES):
        if not (group / "zarr.json").exists():
            write_atomic(group / "zarr.json", layout.group_metadata())


def discard_shards(array: Path, keep: Collection[int]) -> None:
    """Remove the shards of one array whose numbers are not in `keep`."""
    folder = array / "c"
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name.isdigit() and int(entry.name) not in keep:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
