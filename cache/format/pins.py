"""Pins: copies of manifests and tables, by which earlier commits stay readable.  [cache]

A pin is a folder, or a prefix in an object store. It has the manifests and tables of some splits
and streams, under the keys that they had in the cache:

    3dpw/train/manifest.json
    3dpw/train/tables-<digest>.npz
    3dpw/train/features/resnet50/manifest.json

`FeatureCache(root, pin)` opens them: it reads the shards that they name from the cache. Later
commits do not touch these, and `gc` leaves the shards of tags, and of the pins that it is told of.
A stream's shards are nevertheless lost if they are computed again, and all if a split is made anew:
`find_missing` finds these.

A training has a pin in its folder, `<runs>/<run>/pin-<...>`, and renews its time whenever it saves
its state.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from cache.format.folders import possible_splits, stream_folders
from cache.format.layout import json_file
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.shard import ShardFile
from cache.storage.base import Store

PIN: Final = "pin-"  # prefix of a pin's name in the folder of a run
LIFETIME: Final = 30  # days since it was renewed, after which the pin of a run counts no more


def is_live(pin: Path) -> bool:
    """Whether the pin of a run still counts."""
    return time.time() - pin.stat().st_mtime < LIFETIME * 86400


def pins_of_runs(runs: Path) -> list[Path]:
    """The pins that count, of all runs in a folder."""
    return [pin for pin in runs.glob(f"*/{PIN}*") if is_live(pin)]


def write_pin(pin: Store, commits: Collection[Commit]) -> None:
    """Write a pin of these commits of splits and streams, as they are in the cache.

    Raises CacheChanged if one of them is not the current one any more, or its pin is gone: `gc` may
    have removed its files before it could see the new pin. Open the splits again then, and write
    their pin.
    """
    for commit in commits:
        place = commit.place
        files = {place.manifest: json_file(commit.manifest)}
        if place.stream is None:
            key = commit.tables_key
            tables = place.home.read_many([key]).get(key)
            if tables is None:
                raise commit.changed_error(unreadable=place.store.location(key))
            files = {key: bytes(tables), **files}
        pin.put_small(files, "")
    for commit in commits:
        if commit.place.home.etag(commit.place.manifest) != commit.etag:
            raise commit.changed_error()


def pinned_commits(store: Store, pin: Store) -> Iterator[Commit]:
    """The commits of a pin: of each split, then of its streams. Raises CacheError for a damaged
    manifest.

    store: that of the cache.
    """
    for split in possible_splits(pin):
        for stream in (None, *stream_folders(pin, split)):
            commit = Commit.load_manifest(Place(store, split, stream, pin))
            if commit is not None:
                yield commit


def find_missing(commit: Commit) -> list[ShardFile]:
    """The shards of a pinned commit that the cache has no longer: `gc` has removed them, or they
    were written again. Raises CacheError as `Commit.load_manifest` does.

    Shards that the current commit names, too, are not looked for: `verify` does that.
    """
    place = commit.place
    current = Commit.load_manifest(replace(place, pin=None))
    if current is None:
        return commit.shard_files()
    missing = []
    for file in commit.shard_files():
        record = current.manifest["shards"].get(file.array, {}).get(str(file.number))
        is_there = record == file.record
        if record is None and place.stream is None:  # no other shard of a split gets its number
            is_there = place.store.exists(file.key)
        if not is_there:
            missing.append(file)
    return missing
