"""Find the files of a cache, referenced and unreferenced.  [cache]"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from cache.format import layout
from cache.format.extra import extras_of
from cache.format.layout import (
    CHECKPOINT,
    COLUMNS,
    FEATURES,
    PROVENANCE,
    STAGED,
    STAGED_SHARD,
    TAG_COPIED,
    TAGS,
    TEMPORARY_SHARD,
    ColumnSpec,
    Geometry,
    stream_arrays,
    stream_columns,
    stream_of,
)
from cache.format.manifest import Commit, Place, shard_rows
from cache.format.shard import ShardFile, ShardLayout
from cache.format.tables import TABLES, TEXTS
from cache.storage.base import Store

TABLE_NAMES: Final = frozenset({*TABLES, *TEXTS})


def groups_of(split: str) -> list[str]:
    """The folders that are Zarr groups, from the cache down to a split's features."""
    return ["", split.partition("/")[0], split, f"{split}/{FEATURES}"]


def create_groups(place: Place) -> None:
    """Write the Zarr groups from the cache down to a split's features, where they are missing."""
    for key in map(layout.group_key, groups_of(place.split)):
        if not place.store.exists(key):
            place.store.put(key, layout.group_metadata(), temporary=place.temporary)


def columns_of(manifest: Mapping[str, Any]) -> Mapping[str, ColumnSpec]:
    """The columns that a manifest may name: a split's, or a stream's."""
    if "stream" in manifest:
        return stream_columns(manifest["stream"], manifest["dim"], manifest["dtype"])
    return {**COLUMNS, **{c.name: c.spec for c in extras_of(manifest).values() if c.per == "row"}}


def shard_files(manifest: Mapping[str, Any], place: Place) -> list[ShardFile]:
    """The shards that a manifest names, by column and number. Raises CacheError for one without a commit."""
    geometry, shards_of = Geometry(**manifest["geometry"]), manifest["shards"]
    files = []
    for name, spec in columns_of(manifest).items():
        for number, record in sorted((int(shard), record) for shard, record in shards_of.get(name, {}).items()):
            key = layout.shard_key(place.array(name), number, spec.trailing)
            n_rows = len(shard_rows(manifest, number))
            files.append(ShardFile(name, key, number, record, n_rows, ShardLayout(spec, geometry)))
    return files


def column_metadata_of(manifest: Mapping[str, Any], name: str) -> bytes | None:
    """The zarr.json, by its name in a manifest's `files`, that a column must have; None for all other small files."""
    array, _, file = name.partition("/")
    columns = columns_of(manifest)
    if file != "zarr.json" or array not in columns:
        return None
    return layout.column_metadata(columns[array], int(manifest["extent"]), Geometry(**manifest["geometry"]))


def split_folders(store: Store) -> list[str]:
    """All folders that may be splits, committed or not, by "<dataset>/<split>"."""
    return [name for name in possible_splits(store) if _names_in(store, name) != []]


def possible_splits(store: Store) -> Iterator[str]:
    """As `split_folders`, also empty ones. A dataset's folder that may not be read stands for its splits."""
    for dataset in store.list_names(""):
        if layout.is_name(dataset) and dataset != "lost+found":
            names = _names_in(store, dataset)
            folders = [dataset] if names is None else [f"{dataset}/{name}" for name in names if layout.is_name(name)]
            yield from folders


def _names_in(store: Store, folder: str) -> list[str] | None:
    """As `store.list_names`; None for a folder that may not be read."""
    try:
        return store.list_names(folder)
    except PermissionError:
        return None


def tag_notes(store: Store) -> list[str]:
    """What to do about each tag of an earlier version that is not copied yet."""
    names = [name for name in store.list_names(TAGS) if not store.exists(f"{TAGS}/{name}/{TAG_COPIED}")]
    return [
        f"{store.location(f'{TAGS}/{name}')}: a tag of an earlier version. Copy what it names into another cache: "
        f"python -m pipeline copy --tag {name} --cache {store.root} --to DIR. Then `gc` removes it."
        for name in names
    ]


def stream_folders(store: Store, split: str) -> list[str]:
    """All folders of a split that may be streams, committed or not."""
    home = f"{split}/{FEATURES}"
    names = [name for name in store.list_names(home) if layout.is_name(name) and stream_of(name) == name]
    return [name for name in names if not store.exists(f"{home}/{name}")]  # a file is the user's, or the group's own


def places_of(store: Store, split: str) -> list[Place]:
    """Places of a split and its streams, committed or not."""
    streams: list[str] = []
    with suppress(PermissionError):  # which the place of the split shows
        streams = stream_folders(store, split)
    return [Place(store, split, stream) for stream in (None, *streams)]


def shards_on_disk(store: Store, array: str) -> list[int]:
    """Numbers of an array's existing shards, committed or not."""
    return sorted(int(name) for name in store.list_names(f"{array}/c") if name.isdigit())


def remove_shards(store: Store, array: str, keep: Collection[int]) -> None:
    """Remove an array's shards that are not in `keep`, unless they may belong to a running writer."""
    if store.exclusive:
        store.remove([f"{array}/c/{number}" for number in shards_on_disk(store, array) if number not in keep])


def find_unreferenced(place: Place, commit: Commit | None, *, unfinished: bool) -> Iterator[str]:
    """Keys of the cache's files that no manifest names; `unfinished`: also uncommitted work with its journal."""
    store, is_split = place.store, place.stream is None
    names, writing = store.list_names(place.home), store.list_names(place.writing)
    yield from (f"{place.writing}/{name}" for name in writing if name.startswith("."))  # of a killed write
    # Without a checkpoint that names them, shards that were staged and not accepted are of no use to the next writer.
    if unfinished or not any(name.startswith(CHECKPOINT) for name in writing):
        yield from (f"{place.writing}/{name}" for name in writing if name.startswith(STAGED_SHARD))
    if unfinished:
        if commit is None and PROVENANCE in names:  # of a commit that was never made
            yield f"{place.home}/{PROVENANCE}"
        yield from (f"{place.writing}/{name}" for name in (*place.journals(), TEMPORARY_SHARD) if name in writing)
        named = {} if commit is None else commit.manifest["shards"]
        for name in _columns_on_disk(place, commit) if place.stream is None else stream_arrays(place.stream):
            array = place.array(name)
            if name in named:
                shards = shards_on_disk(store, array)
                yield from (f"{array}/c/{shard}" for shard in shards if str(shard) not in named[name])
            else:
                yield from (f"{array}/{file}" for file in store.list_names(array) if file in ("c", "zarr.json"))
    if is_split:
        tables = {name.partition("/")[0] for name in (() if commit is None else commit.manifest["files"])}
        yield from (place.array(name) for name in names if name in TABLE_NAMES and name not in tables)
        streams = store.list_names(place.array(FEATURES))  # `_ok`, `_key` and `_at` of those whose folder is gone:
        yield from (place.array(f"{FEATURES}/{name}") for name in streams if stream_of(name) not in streams)
    committed = "" if commit is None else commit.digest[:16]
    digests = store.list_names(f"{place.home}/{STAGED}")
    yield from (f"{place.home}/{STAGED}/{digest}" for digest in digests if digest != committed)
    yield from (f"{place.home}/{name}" for name in names if name.startswith(".") and name.endswith(".tmp"))


def _columns_on_disk(place: Place, commit: Commit | None) -> list[str]:
    """The columns that a split may have, and folders that hold only shards: extra columns of a killed writer."""
    store, known = place.store, {*COLUMNS, *TABLE_NAMES, *({} if commit is None else columns_of(commit.manifest))}
    strange = [name for name in store.list_names(place.home) if name not in known]
    shards_alone = [name for name in strange if store.list_names(place.array(name)) == ["c"]]
    return [name for name in known if name not in TABLE_NAMES] + shards_alone
