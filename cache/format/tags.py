"""Names of committed states.  [cache]

A tag is a folder below `.tags`: manifests and small files of its splits and streams, and its own manifest, written
last. A writer that removes shards from the cache first copies them to the tags that need them (`keep_for_tags`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cache.errors import CacheError
from cache.format import layout
from cache.format.check import check, shard_files
from cache.format.layout import TAGS, fingerprint
from cache.format.manifest import Place, has_shards, read_manifest, read_provenance
from cache.format.shard import size_of
from cache.storage.base import Store


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for one committed state of splits and their streams."""

    name: str
    created: str  # when, as ISO 8601 in UTC; "" when the note on it is lost
    splits: Mapping[str, Mapping[str, Any]]  # split -> `digest` of its manifest, `rows`, `tracks`, `streams`: digests
    folder: str  # key of the folder with its manifests
    held: int = 0  # bytes of shards that only the tag still references; set by `cache.tags` alone


def place_of_tag(store: Store, name: str) -> Place:
    """The folder that has a tag's own manifest. Raises CacheError for what cannot be a tag's name."""
    if not layout.is_name(name):
        raise CacheError(f"{name!r} is no valid tag name: expected letters, digits and _ . + -, none of . + - first")
    return Place(store, f"{TAGS}/{name}")


def folder_of(name: str, splits: Mapping[str, Any]) -> str:
    """The folder with a tag's copies, named by their content."""
    return f"{TAGS}/{name}/{fingerprint(splits)[:16]}"


def read_tag(store: Store, name: str) -> Tag:
    """A tag. Raises CacheError when there is none of that name, and for a damaged one."""
    place = place_of_tag(store, name)
    if (read := read_manifest(place)) is None:
        names = ", ".join(tag_names(store)) or "none"
        raise CacheError(f"{store.location('')}: no tag {name!r}; there are: {names}")
    splits = read[0]["splits"]
    created = read_provenance(place).get(read[0]["digest"], {}).get("finished", "")
    return Tag(name, created, splits, folder_of(name, splits))


def tag_names(store: Store) -> list[str]:
    """Names of all tags, sorted."""
    names = [name for name in store.list_names(TAGS) if layout.is_name(name)]
    return [name for name in names if store.exists(place_of_tag(store, name).manifest)]


def places_of_tag(store: Store, tag: Tag) -> Iterator[Place]:
    """Places of the manifests of its splits and streams."""
    for split, state in tag.splits.items():
        for stream in (None, *state["streams"]):
            yield Place(store, split, stream, tag.folder)


def held_back(store: Store, tag: Tag) -> int:
    """Bytes of shards that the tag references and the cache no longer does. Raises CacheError for a damaged tag."""
    n_bytes = 0
    for place in places_of_tag(store, tag):
        named, current = (read_manifest(of) or ({"shards": {}}, None) for of in (place, replace(place, tag="")))
        for array, records in named[0]["shards"].items():
            removed = records.items() - current[0]["shards"].get(array, {}).items()
            n_bytes += sum(size_of(record) for _, record in removed)
    return n_bytes


def keep_for_tags(place: Place, before: Mapping[str, Any] | None, after: Mapping[str, Mapping[str, str]]) -> None:
    """Give each tag its own copies of the shards of a split or stream, unless it needs no more than `after`.

    Call it before a manifest ceases to name shards, and again before they are removed: a tag may have been made
    meanwhile. In a folder the copies are hard links. A damaged copy is replaced by an intact shard.

    Args:
        before: the manifest that names the shards; None, for a lost or replaced one: check each shard.
        after: array -> shard -> record that the manifest names next.
    """
    store = place.store
    homes = [f"{TAGS}/{name}" for name in store.list_names(TAGS)]
    for folder in [f"{home}/{part}" for home in homes for part in store.list_names(home)]:  # of unfinished tags, too
        tagged, read = replace(place, tag=folder), None
        with suppress(CacheError):  # damaged: of no use to any reader
            read = read_manifest(tagged)
        if read is None or has_shards({"shards": after}, read[0]["shards"]):
            continue
        for own in shard_files(read[0], tagged):
            file = replace(own, key=f"{place.base}{own.key.removeprefix(tagged.base)}")
            named = None if before is None else before["shards"].get(own.array, {}).get(str(own.number))
            if (before is not None and named != own.record) or store.size(file.key) is None:
                continue
            has_own = store.size(own.key) is not None
            if has_own and (store.etag(own.key) == store.etag(file.key) or not check(store, own, fast=False)):
                continue
            if (has_own or before is None) and check(store, file, fast=False):
                continue
            store.remove([own.key] if has_own else [])
            store.copy(file.key, own.key)
