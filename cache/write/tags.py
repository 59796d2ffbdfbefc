"""Make and delete tags.  [cache]

Takes no writer's lock. A tag copies its manifests, then checks that the cache still has their shards, then writes its
own manifest. A writer that removes shards looks for such copies before and after its commit: one sees the other.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from cache.errors import CacheError
from cache.format import manifest
from cache.format.layout import PROVENANCE, WRITING, json_file
from cache.format.manifest import Commit
from cache.format.tags import Tag, folder_of, held_back, place_of_tag, read_tag, tag_names
from cache.read.split import FeatureCache, Split, require_cache
from cache.storage.base import Root


def tags(root: Root) -> list[Tag]:
    """All tags of a cache, by name. Raises CacheError when there is no cache, and for a damaged tag."""
    store = require_cache(root)
    read = [read_tag(store, name) for name in tag_names(store)]
    return [replace(tag, held=held_back(store, tag)) for tag in read]


def tag(root: Root, name: str, splits: Collection[str] | None = None) -> Tag:
    """Name the committed state of these splits (default: all) and their streams, for `cache.open(root, tag=name)`.

    Copies manifests and tables, not shards. Atomic: killed at any point, there is the whole tag or none.

    Raises CacheError for an invalid name, a name of another state, when nothing is committed, and when another process
    removes data meanwhile; MissingSplit for a missing split.
    """
    store, started = require_cache(root), time.time()
    place, opened = place_of_tag(store, name), FeatureCache(root)
    commits = [_commits(opened[split]) for split in sorted({*(opened.splits if splits is None else splits)})]
    if not commits:
        raise CacheError(f"{store.location('')}: no split is committed: there is nothing to tag")
    state = {
        split.place.split: {
            "digest": split.digest,
            "rows": split.manifest["rows"],
            "tracks": split.manifest["tracks"],
            "streams": {str(commit.place.stream): commit.digest for commit in streams},
        }
        for split, *streams in commits
    }
    with store.lock(place.writing):
        if (read := manifest.read_manifest(place)) is not None:
            if read[0]["splits"] == state:
                return read_tag(store, name)
            do = f"Choose another name, or delete it: python -m pipeline tag {name} --delete --cache {store.root}"
            expected = "no tag of this name, or one of the same state"
            raise CacheError.at(store.location(place.home), expected=expected, found="a tag of another one", do=do)
        folder, flat = folder_of(name, state), [commit for of_split in commits for commit in of_split]
        for commit in flat:
            _copy_small_files(commit, folder)
        for commit in flat:
            current = manifest.read_manifest(commit.place)
            if current is None or not manifest.has_shards(current[0], commit.manifest["shards"]):
                store.remove([folder])
                found = "that some were removed meanwhile"
                raise CacheError.at(
                    store.location(commit.place.home), expected="its shards", found=found, do="Run it again."
                )
        manifest.publish(place, {"splits": state}, {}, before=None, note={}, started=started)
    return read_tag(store, name)


def _commits(split: Split) -> list[Commit]:
    commits = [manifest.load(split.place(stream)) for stream in (None, *split.streams)]
    return [commit for commit in commits if commit is not None]


def _copy_small_files(commit: Commit, folder: str) -> None:
    tagged = replace(commit.place, tag=folder)
    files = {tagged.array(name): bytes(data) for name, data in commit.files.items()}
    files[f"{tagged.home}/{PROVENANCE}"] = json_file({"commits": {commit.digest: manifest.note_of(commit)}})
    tagged.store.put_small(files, folder)
    tagged.store.put_small({tagged.manifest: json_file(commit.manifest)}, folder)


def delete_tag(root: Root, name: str) -> None:
    """Delete a tag and the removed data that only it holds. The current state does not change.

    Raises CacheError when there is no such tag, and while it is being made.
    """
    store = require_cache(root)
    place = place_of_tag(store, name)
    if not store.exists(place.manifest):
        read_tag(store, name)  # raises, with the names that there are
    with store.lock(place.writing):
        store.remove([f"{place.home}/{PROVENANCE}"])  # first: of a tag without both, `verify` misses nothing
        store.remove([place.manifest])  # without it, no reader finds the tag
        store.remove([f"{place.home}/{part}" for part in store.list_names(place.home) if part != WRITING])
