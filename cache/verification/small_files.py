"""The small files of a commit: manifests, tables, metadata. Each is there twice; is each what it must be?  [cache]"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cache.errors import CacheError
from cache.format import manifest
from cache.format.layout import COPY, MANIFEST, STAGED, json_file
from cache.format.manifest import Commit, Place
from cache.format.references import column_metadata_of


def intact_copies(place: Place) -> list[dict[str, Any]]:
    """Every manifest that is kept beside its small files, staged or copied, and is what its folder's name says."""
    found = {}
    for folder in (COPY, STAGED):
        for name in place.store.below(f"{place.home}/{folder}"):
            key = f"{place.home}/{folder}/{name}/{MANIFEST}"
            try:
                text = place.store.read(key)
                parsed = manifest.parse_manifest(text, place.store.where(key), place.repair)
            except (CacheError, OSError):
                continue
            if str(parsed["digest"])[:16] == name and text == json_file(parsed):
                found[parsed["digest"]] = parsed
    return list(found.values())


def small_file_problems(commit: Commit, *, told_already: bool) -> Iterator[tuple[str, str | None, str]]:
    """(key, array, what) of small files that are not what the manifest says, in place or as the copy."""
    place, store = commit.place, commit.place.store
    expected = "the file that the manifest names by its digest"
    if store.below(place.staging(commit.digest)):  # a killed commit: the next writer puts them into place
        for name in sorted(commit.manifest["files"].keys() - commit.files.keys()):
            told = CacheError.at(
                store.where(place.array(name)), expected=expected, found="no such file", do=place.repair
            )
            yield place.array(name), name.partition("/")[0], str(told)
    else:
        copy = place.copy(commit.digest)
        digests = {**commit.manifest["files"], MANIFEST: manifest.sha256(json_file(commit.manifest))}
        named = {place.manifest if name == MANIFEST else place.array(name): name for name in digests}
        named |= {f"{copy}/{name}": name for name in digests}
        found = store.views(named)
        for key, name in named.items():
            if (key == place.manifest and told_already) or (
                key in found and manifest.sha256(found[key]) == digests[name]
            ):
                continue
            state = "other bytes" if key in found else "no file"
            told = CacheError.at(store.where(key), expected=expected, found=state, do=place.repair)
            yield key, None if name == MANIFEST else name.partition("/")[0], str(told)
    for name, data in commit.files.items():
        made = column_metadata_of(commit.manifest, name)
        if made is not None and bytes(data) != made:
            found_there = "another shape, type or layout, though with the digest that the manifest says"
            do = "What has committed it is not this version: convert or extract it anew."
            told = CacheError.at(store.where(place.array(name)), expected="its column's", found=found_there, do=do)
            yield place.array(name), name.partition("/")[0], str(told)
