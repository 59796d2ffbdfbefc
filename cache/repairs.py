"""Write damaged small files again, and remove damaged shards.  [cache]

`repair` takes the report of `cache.verification.verify`. Metadata, which follow from manifests, are
written again. Shards hold data and cannot be: a damaged one is taken off the manifest. Then rows of
a stream are pending again, and rows of a split must be converted again (`Repaired.rows`). Damaged
tables or manifests take a new conversion. A repair can be killed and repeated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from cache.errors import AccessDenied, CacheError
from cache.format.folders import committed_names
from cache.format.layout import GROUP
from cache.format.listing import ROOT, parse_list, refuse_unmounted, root_group, update_list
from cache.format.manifest import Commit, lost_manifest
from cache.format.place import Place
from cache.read.split import require_cache
from cache.storage.base import Root, Store
from cache.verification import VerifyReport
from cache.write.removal import invalidate


@dataclass(slots=True)
class Repaired:
    """Result of `repair`. Keys are below the cache."""

    restored: list[str] = field(default_factory=list)  # small files that were written again
    # files of damaged shards that were taken off a manifest; those of a split stay until `gc`
    removed: list[str] = field(default_factory=list)
    # (split, stream) -> numbers of removed shards, whose rows must be extracted again
    streams: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    # split -> numbers of damaged shards that stay, because tracks have rows in them: their videos
    # must be converted again
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)  # messages: remaining damage, and what to do


def repair(root: Root, report: VerifyReport) -> Repaired:
    """Repair what `verify` found damaged or stale. Damaged shards are checked again: those that are
    intact by now stay.

    Raises CacheError when there is no cache at `root`, OSError when files may not be read.
    """
    store = require_cache(root)
    repaired = Repaired()
    # (split, stream; "" for the split itself) -> its shards that were reported as damaged
    homes: dict[tuple[str, str], set[int]] = {}
    for split, stream in report.stale:
        homes[split, stream or ""] = set()
    for damage in report.damaged:
        try:
            store.refuse_links(damage.key)
        except AccessDenied:  # `what` says what the user can do about the link
            repaired.refused.append(damage.what)
            continue
        if damage.array is None and damage.key.endswith("zarr.json"):
            _restore_group(store, damage.key)
            repaired.restored.append(damage.key)
            continue
        shards = homes.setdefault((damage.split, damage.stream or ""), set())
        if damage.shard is not None:
            shards.add(damage.shard)
    # a split first: a stream is of its split
    for (split, stream), shards in sorted(homes.items()):
        place = Place(store, split, stream or None)
        try:
            refuse_unmounted(store, split)
            _restore_metadata(place, repaired)
            _remove_shards(place, shards, repaired)  # damaged tables raise here
        except CacheError as error:  # still repair the other splits and streams
            repaired.refused.append(str(error))
        except PermissionError as error:
            repaired.refused.append(str(AccessDenied.from_error(error)))
    return repaired


def _restore_group(store: Store, key: str) -> None:
    """Write a group's zarr.json again. The root's lists the splits: a list that can be read is
    kept, else it is made from the committed splits.
    """
    group = GROUP
    if key == ROOT:
        root = store.read_many([ROOT]).get(ROOT, b"")
        names = parse_list(bytes(root))
        if names is None:
            names = frozenset(committed_names(store))
        group = root_group(names)
    store.put_small({key: group}, key.rpartition("/")[0])


def _restore_metadata(place: Place, repaired: Repaired) -> None:
    """Write the metadata again that follow from a manifest. Raises CacheError if the manifest is
    damaged, or if there is another writer.
    """
    store = place.store
    with store.lock(place.writing):
        commit = Commit.load_manifest(place)
        if commit is None:
            return
        stale = commit.find_stale_metadata()
        if stale:
            update_list(store, add=[place.split], committed=committed_names(store))
            store.put_small(stale, place.arrays_folder)
        repaired.restored += sorted(stale)


def _remove_shards(place: Place, reported: Collection[int], repaired: Repaired) -> None:
    """Take the reported shards that are still damaged off the manifest: all of them from a stream;
    from a split only those without rows of tracks. The others stay, in `repaired.rows`.

    Raises CacheError if the manifest or the tables are damaged, if there is no manifest, and for a
    stream of other rows.
    """
    commit = Commit.load(place)
    if commit is None:
        raise lost_manifest(place) or CacheError(
            f"{place.store.location(place.manifest_folder)}: nothing is saved there"
        )
    commit.refuse_foreign()
    suspects = [file for file in commit.shard_files() if file.number in reported]
    damaged = {file.number for file in suspects if file.problem(place.store, fast=False)}
    if place.stream is None:
        with_rows = damaged.intersection(np.flatnonzero(commit.live_by_shard).tolist())
        if with_rows:
            repaired.rows[place.split] = tuple(sorted(with_rows))
        damaged -= with_rows
    if not damaged:
        return

    files = []
    for folder in place.shard_folders(commit.manifest["shards"], damaged):
        for key in place.store.file_sizes(folder) or [folder]:
            if place.store.exists(key):
                files.append(key)
    invalidate(place.store.root, place.split, place.stream, damaged)
    repaired.removed += files
    if place.stream is not None:
        repaired.streams[place.split, place.stream] = tuple(sorted(damaged))
