"""What manifests name below a split, and what lies there besides.  [cache]"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.folders import stream_folders
from cache.format.layout import (
    COLUMNS,
    COPY,
    FEATURES,
    MANIFEST,
    PROVENANCE,
    STAGED,
    WRITING,
    ColumnSpec,
    Geometry,
    stream_arrays,
    stream_columns,
)
from cache.format.manifest import Place
from cache.format.tables import TABLES, TEXTS
from cache.storage.base import Store

_ATTEMPTS: Final = 5
_FEW: Final = 5


def groups_of(split: str) -> list[str]:
    """The folders of a split that are Zarr groups."""
    return [split, f"{split}/{FEATURES}"]


def columns_of(of: Mapping[str, Any]) -> Mapping[str, ColumnSpec]:
    """The columns that a manifest's arrays may be of: a split's, or a stream's."""
    return stream_columns(of["stream"], of["dim"], of["dtype"]) if "stream" in of else COLUMNS


def column_metadata_of(of: Mapping[str, Any], name: str) -> bytes | None:
    """The zarr.json, by its name in a manifest's `files`, that a column must have; None for all other small files."""
    array, _, rest = name.partition("/")
    columns = columns_of(of)
    if rest != "zarr.json" or array not in columns:
        return None
    return layout.column_metadata(columns[array], int(of["extent"]), Geometry(**of["geometry"]))


def unnamed(store: Store, split: str) -> Iterator[str]:
    """What lies below a split and no manifest names, in words. Notes in JSON beside a manifest are anybody's."""
    named, arrays = set[str](), set[str]()
    streams = stream_folders(store, split)
    for place in (Place.of_split(store, split), *(Place.of_stream(store, split, stream) for stream in streams)):
        try:
            read = manifest.read_manifest(place)
        except CacheError:
            return  # told as a problem; what belongs to it cannot be said
        of: Mapping[str, Any] = {} if read is None else read[0]
        columns = columns_of(of)
        stream = place.home.rpartition("/")[2]
        arrays |= {place.array(name) for name in (COLUMNS if place.home == split else stream_arrays(stream))}
        named |= {place.array(name) for name in of.get("files", ())}
        for name, records in of.get("shards", {}).items():
            if name in columns:
                trailing, array = columns[name].trailing, place.array(name)
                named |= {layout.shard_key(array, int(shard), trailing) for shard in records}
        in_force = str(of.get("digest", ""))[:16]
        for copy in store.below(f"{place.home}/{COPY}"):
            if copy != in_force:
                yield f"{store.where(f'{place.home}/{COPY}/{copy}')}: is of a commit that is in force no longer"
    yield from _in_words(store, split, frozenset(streams), named, arrays)


def _in_words(store: Store, split: str, streams: frozenset[str], named: set[str], arrays: set[str]) -> Iterator[str]:
    folders = arrays | {key.rpartition("/")[0] for key in named}  # in which a stranger is told by its own name
    left: dict[str, set[int]] = {}
    strange = {}
    for name in store.below(split):
        if "." not in name and name not in {*COLUMNS, *TABLES, *TEXTS, FEATURES}:
            strange[f"{split}/{name}"] = 0
    for key in _listing(store, split):
        relative = key.removeprefix(f"{split}/").split("/")
        if key in named or _is_the_writers(relative, streams):
            continue
        array, _, rest = key.partition("/c/")
        number = rest.partition("/")[0]
        if array in arrays and number.isdigit():
            left.setdefault(array, set()).add(int(number))
            continue
        depth = 2 if relative[0] == FEATURES else 1
        top = "/".join([split, *relative[:depth]])
        top = key if any(folder == top or folder.startswith(f"{top}/") for folder in folders) else top
        strange[top] = strange.get(top, 0) + 1
    for array, numbers in sorted(left.items()):
        some = sorted(numbers)
        yield f"{store.where(array)}: shards {some[:_FEW]} are named by no manifest ({len(some)} in all)"
    for key, n_files in sorted(strange.items()):
        yield f"{store.where(key)}: is named by no manifest" + (f" ({n_files} files)" if n_files > 1 else "")


def _is_the_writers(relative: list[str], streams: frozenset[str]) -> bool:
    """Is it a manifest, a note beside one, or in a folder that only writers look into?"""
    if relative == [FEATURES, "zarr.json"]:
        return True
    if relative[0] == FEATURES and len(relative) > 2 and relative[1] in streams:
        relative = relative[2:]
    if relative[0] in (WRITING, STAGED, COPY):
        return True
    return len(relative) == 1 and relative[0].endswith(".json") and not relative[0].startswith(".")


def not_the_caches(store: Store, split: str) -> list[str]:
    """Keys of the files below a split that are of no kind that the cache writes: notes, and what else people keep."""
    return [key for key in _listing(store, split) if not _is_the_caches(key.removeprefix(f"{split}/").split("/"))]


def _is_the_caches(relative: list[str]) -> bool:
    """Is it of an array, a group, a manifest, or in a folder that only writers look into, named or not?"""
    of_array = relative[0] in {*COLUMNS, *TABLES, *TEXTS}
    of_stream = relative[0] == FEATURES and len(relative) > 2
    own = relative[1:] if of_array else relative[2:] if of_stream else relative
    if own == ["zarr.json"] or relative == [FEATURES, "zarr.json"] or ((of_array or of_stream) and own[:1] == ["c"]):
        return True
    temporary = len(own) == 1 and own[0].startswith(".") and own[0].endswith(".tmp")
    return not of_array and (own[0] in (WRITING, STAGED, COPY) or own in ([MANIFEST], [PROVENANCE]) or temporary)


def _listing(store: Store, split: str) -> list[str]:
    """Keys of all files below a split; somebody may be writing there."""
    for attempt in range(_ATTEMPTS):
        try:
            return sorted(store.files(split))
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    return []
