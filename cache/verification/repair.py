"""Remove damaged shards of a cache, and write damaged small files again.  [cache]

The manifest is changed first, then shards are removed: those of a stream are pending again, rows of a split must be
converted again (`Repaired.rows`). A damaged table or manifest takes a new conversion. Can be killed and repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.check import check, shard_files
from cache.format.layout import TAGS, Geometry, json_file
from cache.format.manifest import Place
from cache.format.references import column_metadata_of, columns_of
from cache.format.tables import Tables, live_shards
from cache.read.split import require_cache
from cache.storage.base import Root
from cache.verification.verify import VerifyReport
from cache.write.base import invalidate


@dataclass(slots=True)
class Repaired:
    """What a repair did. Keys are below the cache."""

    restored: list[str] = field(default_factory=list)  # small files that were written again
    removed: list[str] = field(default_factory=list)  # files and folders of damaged shards
    streams: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)  # shards to be extracted again
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)  # split -> shards whose videos must be read again
    refused: list[str] = field(default_factory=list)  # messages: what could not be done, and what to do instead


def repair(root: Root, report: VerifyReport) -> Repaired:
    """Repair what `verify` found damaged. Shards are checked again: intact ones stay.

    Raises CacheError when there is no cache at `root`, OSError when files may not be read.
    """
    store = require_cache(root)
    repaired = Repaired()
    small: set[tuple[str, str]] = set()
    shards: dict[tuple[str, str], set[int]] = {}
    for damage in report.damaged:
        home = damage.split, damage.stream or ""
        if damage.key.startswith(f"{TAGS}/"):
            repaired.refused.append(f"{store.location(damage.key)}: is of a tag. {Place(store, damage.key).again}")
        elif damage.shard is not None:
            shards.setdefault(home, set()).add(damage.shard)
        elif damage.array is None and damage.key.endswith("zarr.json"):  # a group's
            store.put_small({damage.key: layout.group_metadata()}, damage.key.rpartition("/")[0])
            repaired.restored.append(damage.key)
        else:
            small.add(home)
    for split, stream in sorted({*small, *shards}):  # a split first: a stream is of its split
        place = Place(store, split, stream or None)
        try:
            if (split, stream) in small:
                _restore_small_files(place, repaired)
            _remove_shards(place, shards.get((split, stream), ()), repaired)
        except CacheError as error:  # it must not keep other splits and streams from being repaired
            repaired.refused.append(str(error))
    return repaired


def _restore_small_files(place: Place, repaired: Repaired) -> None:
    """Write the manifest, and small files that are intact elsewhere or follow from it. Raises CacheError."""
    store = place.store
    with store.lock(place.writing):
        read = manifest.read_manifest(place)
        if read is None:
            return
        held, etag = read
        if store.read(place.manifest) != json_file(held):
            store.replace(place.manifest, json_file(held), expected=etag)
            repaired.restored.append(place.manifest)
        files = {name: bytes(data) for name, data in manifest.small_files(place, held).items()}
        for name in held["files"].keys() - files.keys():
            metadata = column_metadata_of(held, name)
            if metadata is not None and manifest.sha256(metadata) == held["files"][name]:
                files[name] = metadata
        keys = {place.array(name): data for name, data in files.items()}
        in_place = {key: bytes(data) for key, data in store.read_many(keys).items()}
        wrong = {key: data for key, data in keys.items() if in_place.get(key) != data}
        if wrong:
            store.put_small(wrong, place.base)
        repaired.restored += sorted(wrong)


def _remove_shards(place: Place, reported: Collection[int], repaired: Repaired) -> None:
    """Remove shards of a stream, and those of a split in which no track has a row; the others need the raw data."""
    commit = manifest.load(place)
    if commit is None:
        message = f"{place.store.location(place.home)}: nothing is committed there"
        raise CacheError(manifest.lost_manifest(place) or message)
    named = commit.manifest["shards"]
    files_of = (shard_files(commit.manifest, place, name) for name in columns_of(commit.manifest) if name in named)
    suspects = (file for file in itertools.chain.from_iterable(files_of) if file.number in reported)
    numbers = {file.number for file in suspects if check(place.store, file, fast=False)}
    if place.stream is None:
        live = set(live_shards(Tables.from_files(commit.files), Geometry(**commit.manifest["geometry"])))
        if needed := tuple(sorted(numbers & live)):
            repaired.rows[place.split] = needed
        numbers -= live
    if numbers:
        folders = [f"{place.array(name)}/c/{number}" for name in named for number in sorted(numbers)]
        files = [key for folder in folders for key in place.store.files(folder) or [folder] if place.store.exists(key)]
        invalidate(place.store.root, place.split, place.stream, numbers)
        repaired.removed += files
        if place.stream is not None:
            repaired.streams[place.split, place.stream] = tuple(sorted(numbers))
