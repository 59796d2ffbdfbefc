"""A damaged cache made whole again, as far as the cache itself can: nothing that is good is touched.  [cache]

Small files come from their copies. Shards cannot be made good: they are taken out, into `.quarantine`, and the manifest
names them no longer. A stream's are pending then, and extracted anew. A split's rows must be read from the raw data
anew first, which is not the cache's to do: `Repaired.rows` says which. Killed at any point, it can be run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.folders import shards_there, split_folders, stream_folders
from cache.format.layout import BYTES, COLUMNS, STAGED, ColumnSpec, Geometry
from cache.format.manifest import Commit, Place
from cache.format.provenance import read_provenance
from cache.format.references import columns_of, groups_of
from cache.format.tables import Tables, live_shards
from cache.read.split import require_cache
from cache.storage.base import Root, Store, store_at
from cache.verification.mending import mend_groups, mend_place
from cache.verification.problems import Report
from cache.verification.ragged import misplaced_shards
from cache.verification.shards import check, shards_of
from cache.write.discarding import forget
from cache.write.split_writer import SplitWriter

QUARANTINE: Final = ".quarantine"  # below the cache: what repairs have taken out, by the keys that it had


@dataclass(slots=True)
class Repaired:
    """What a repair did. Keys are below the cache."""

    mended: list[str] = field(default_factory=list)  # small files written anew
    quarantined: dict[str, str] = field(default_factory=dict)  # what was taken out -> where it lies now
    streams: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)  # shards to be extracted anew
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)  # split -> shards whose videos must be read anew
    refused: list[str] = field(default_factory=list)  # what could not be done, and what to do instead


def repair(root: Root, report: Report) -> Repaired:
    """Put right what `verify` found damaged. Shards are looked at once more: what is intact by now stays.

    Raises CacheError when there is no cache at `root`, OSError when files may not be read. What cannot be repaired is
    told in `refused`.
    """
    store = require_cache(root)
    done = Repaired()
    _mend(store, report, done)
    for (split, stream), numbers in _shards(report, of_streams=True).items():
        with _told(done):
            _take_out_of_stream(store, split, stream, numbers, done)
    for (split, _), numbers in _shards(report, of_streams=False).items():
        with _told(done):
            _look_at_split(store, split, numbers, done)
    for split in split_folders(store):
        done.quarantined |= put_aside(store.root, split)
    return done


@contextmanager
def _told(done: Repaired) -> Iterator[None]:
    """What one place refuses must not keep the others from being repaired."""
    try:
        yield
    except CacheError as error:
        done.refused.append(str(error))


def put_aside(root: Root, split: str) -> dict[str, str]:
    """Take the shards of a split that a commit has named and names no longer into quarantine. (key -> where now)

    Only `begin(forget=...)` leaves such: what an unfinished run writes lies behind all that is committed.
    """
    store = store_at(root)
    place = Place.of_split(store, split)
    try:
        read = manifest.read_manifest(place)
    except CacheError:
        return {}
    if read is None:
        return {}
    behind = Geometry(**read[0]["geometry"]).shards(int(read[0]["extent"]))
    moved: dict[str, str] = {}
    for name, records in read[0]["shards"].items():
        for number in shards_there(store, place.array(name)):
            if number < behind and str(number) not in records and name in COLUMNS:
                moved |= _quarantine(store, place.array(name), number, COLUMNS[name])
    return moved


def _mend(store: Store, report: Report, done: Repaired) -> None:
    """The small files of every place of which one is damaged. A split first: a stream is of its split."""
    small = [damage for damage in report.damaged if damage.shard is None]
    groups = [damage for damage in small if damage.array is None and damage.key.endswith("zarr.json")]
    done.mended += mend_groups(store, [damage.key.rpartition("/")[0] for damage in groups])
    places = {(d.split, d.stream or "") for d in small if d not in groups}
    staged = {place for place in _all(store) if store.below(f"{_place(store, *place).home}/{STAGED}")}
    places |= staged  # where a commit was killed: it is finished
    for split, stream in sorted(places):
        with _told(done):
            done.mended += mend_groups(store, groups_of(split))
            done.mended += mend_place(_place(store, split, stream))


def _all(store: Store) -> list[tuple[str, str]]:
    """(split, stream), and (split, "") for the split itself."""
    return [(split, stream) for split in split_folders(store) for stream in ("", *stream_folders(store, split))]


def _place(store: Store, split: str, stream: str) -> Place:
    return Place.of_stream(store, split, stream) if stream else Place.of_split(store, split)


def _shards(report: Report, *, of_streams: bool) -> dict[tuple[str, str], set[int]]:
    """(split, stream) -> numbers of damaged shards."""
    found: dict[tuple[str, str], set[int]] = {}
    for damage in report.damaged:
        if damage.shard is not None and (damage.stream is not None) == of_streams:
            found.setdefault((damage.split, damage.stream or ""), set()).add(damage.shard)
    return dict(sorted(found.items()))


def _take_out_of_stream(store: Store, split: str, stream: str, numbers: Collection[int], done: Repaired) -> None:
    """The files first: were they still there, the next writer would remove them as nobody's."""
    place = Place.of_stream(store, split, stream)
    commit = _loaded(place)
    still = sorted(_still_damaged(commit, numbers))
    if not still:
        return
    store.lock(place.writing).release()  # a writer at work is told now, before anything is moved
    for array, spec in columns_of(commit.manifest).items():
        for number in still:
            done.quarantined |= _quarantine(store, place.array(array), number, spec)
    forget(store.root, split, stream, still)
    done.streams[split, stream] = tuple(still)


def _look_at_split(store: Store, split: str, numbers: Collection[int], done: Repaired) -> None:
    """Shards in which no track has a row are let go of; the others need the raw data."""
    commit = _loaded(Place.of_split(store, split))
    live = set(live_shards(Tables.from_files(commit.files), Geometry(**commit.manifest["geometry"])))
    still = _still_damaged(commit, numbers)
    needed, free = tuple(sorted(still & live)), sorted(still - live)
    if needed:
        done.rows[split] = needed
    if free:
        columns = commit.manifest["shards"].keys() & COLUMNS.keys()
        told = read_provenance(commit.place)["commits"].get(commit.digest, {})
        given = {key: told[key] for key in ("raw", "body") if key in told}  # where the data are, extraction asks for
        with SplitWriter(
            store.root, split, columns=columns, plan="repair", provenance={**given, "forgot": free}
        ) as writer:
            writer.begin(forget=free)
            writer.commit(writer.entries)


def _still_damaged(commit: Commit, numbers: Collection[int]) -> set[int]:
    """Those of the shards that are damaged now: the report may be of another day, and its shards made good since."""
    found: set[int] = set()
    for name, spec in columns_of(commit.manifest).items():
        if name in commit.manifest["shards"]:
            files = (file for file in shards_of(commit, name, spec)[0] if file[0] in numbers)
            found |= {shard for shard, file in files if check(commit.place.store, file, fast=False, do="").problem}
    if commit.manifest.get("dtype") == BYTES:
        intact = set(numbers) - found
        found |= {shard for shard, _, _ in misplaced_shards(commit, commit.manifest["stream"], (), only=intact)}
    return found


def _loaded(place: Place) -> Commit:
    commit = manifest.load(place)
    if commit is None:
        raise CacheError(f"{place.store.where(place.home)}: nothing is committed there")
    return commit


def _quarantine(store: Store, array: str, number: int, spec: ColumnSpec) -> dict[str, str]:
    """Move a shard, its folder and all, away from where the cache looks; nothing when it is not there."""
    folder, file = f"{array}/c/{number}", layout.shard_key(array, number, spec.trailing)
    files = {*store.files(folder), *([file] if store.exists(file) else [])}
    if not files and not store.exists(folder):
        return {}
    target = next(name for name in _names(f"{QUARANTINE}/{folder}") if not store.exists(name) and not store.files(name))
    moved = {name: target + name.removeprefix(folder) for name in sorted(files)}
    if store.exclusive:
        store.move(folder, target)
    else:
        for name, to in moved.items():
            store.put(to, store.read(name), by_way_of="")
        store.remove(list(files))
    return moved


def _names(key: str) -> Iterator[str]:
    yield key
    number = 1
    while True:
        yield f"{key}.{number}"
        number += 1
