"""Damaged files of a cache removed from it, so that just their rows are made again: nothing intact is touched.  [cache]

Small files that follow from the manifest are written again. Shards cannot be restored: the manifest is changed to name
them no longer, and their files are removed. A stream's are pending then, and extracted again. A split's rows must be
read from the raw data first, which is not the cache's to do: `Repaired.rows` has their shards. A damaged table or
manifest takes a new conversion, which carries features over by their keys. Killed at any point, it can be run again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.extra import extras_of
from cache.format.layout import TAGS, Geometry, json_file
from cache.format.manifest import Commit, Place
from cache.format.references import column_metadata_of, columns_of
from cache.format.tables import Tables, live_shards
from cache.read.split import require_cache
from cache.storage.base import Root
from cache.verification.shards import check, shards_of
from cache.verification.verify import VerifyReport
from cache.write.base import invalidate
from cache.write.split_writer import SplitWriter


@dataclass(slots=True)
class Repaired:
    """What a repair did. Keys are below the cache."""

    restored: list[str] = field(default_factory=list)  # small files that were written again
    removed: list[str] = field(default_factory=list)  # files and folders of damaged shards
    streams: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)  # shards to be extracted again
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)  # split -> shards whose videos must be read again
    refused: list[str] = field(default_factory=list)  # messages: what could not be done, and what to do instead


def repair(root: Root, report: VerifyReport) -> Repaired:
    """Repair what `verify` found damaged. Shards are checked once more: what is intact by now stays.

    Raises CacheError when there is no cache at `root`, OSError when files may not be read. What cannot be repaired is
    in `refused`.
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
            numbers = shards.get((split, stream), ())
            if not stream:
                _remove_from_split(place, numbers, repaired)
                continue
            commit = _loaded(place)
            if still := sorted(_still_damaged(commit, numbers)):
                files = _files(commit, still)
                invalidate(store.root, split, stream, still)
                repaired.streams[split, stream] = tuple(still)
                repaired.removed += files
        except CacheError as error:  # it must not keep other splits and streams from being repaired
            repaired.refused.append(str(error))
    return repaired


def _restore_small_files(place: Place, repaired: Repaired) -> None:
    """Write the manifest in its own form, and small files that are intact elsewhere or follow from the manifest.

    Raises CacheError when there is a writer, and for a damaged manifest.
    """
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


def _remove_from_split(place: Place, numbers: Collection[int], repaired: Repaired) -> None:
    """Remove the shards in which no track has a row; the others need the raw data."""
    commit = _loaded(place)
    live = set(live_shards(Tables.from_files(commit.files), Geometry(**commit.manifest["geometry"])))
    still = _still_damaged(commit, numbers)
    if needed := tuple(sorted(still & live)):
        repaired.rows[place.split] = needed
    if free := sorted(still - live):
        columns, extra = commit.manifest["shards"].keys(), extras_of(commit.manifest).values()
        notes = manifest.note_of(commit)
        provenance = {
            key: notes[key] for key in ("raw", "body") if key in notes
        }  # extraction needs to know where they are
        files = _files(commit, free)
        with SplitWriter(
            place.store.root,
            place.split,
            columns=columns,
            extra=extra,
            plan="repair",
            provenance={**provenance, "invalidated": free},
        ) as writer:
            writer.begin(invalidate=free)
            writer.commit(writer.entries)
        repaired.removed += files


def _loaded(place: Place) -> Commit:
    commit = manifest.load(place)
    if commit is None:
        message = f"{place.store.location(place.home)}: nothing is committed there"
        raise CacheError(manifest.lost_manifest(place) or message)
    return commit


def _files(commit: Commit, numbers: Collection[int]) -> list[str]:
    """Keys of the files of these shards, of all arrays."""
    place = commit.place
    folders = [f"{place.array(name)}/c/{number}" for name in commit.manifest["shards"] for number in numbers]
    return [key for folder in folders for key in place.store.files(folder) or [folder] if place.store.exists(key)]


def _still_damaged(commit: Commit, numbers: Collection[int]) -> set[int]:
    """Those of the shards that are damaged now: the report may be old, and its shards restored since."""
    damaged: set[int] = set()
    for name, spec in columns_of(commit.manifest).items():
        if name in commit.manifest["shards"]:
            files = (file for file in shards_of(commit, name, spec) if file.number in numbers)
            damaged |= {file.number for file in files if check(commit.place.store, file, fast=False)}
    return damaged
