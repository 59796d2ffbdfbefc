"""Small files put right from what is intact of them, under the writer's lock.  [cache]"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from cache.errors import CacheError
from cache.fingerprint import canonical
from cache.format import layout, manifest
from cache.format.layout import COPY, MANIFEST, STAGED, json_file
from cache.format.manifest import Place
from cache.format.references import column_metadata_of, columns_of
from cache.storage.base import Store
from cache.verification.small_files import intact_copies

_DIGEST: Final = re.compile(rb'"digest": "([0-9a-f]{64})"')


def mend_groups(store: Store, folders: list[str]) -> list[str]:
    """Write the zarr.json of groups where it is not what it must be. Returns the keys written."""
    mended = []
    for folder in folders:
        key = layout.group_key(folder)
        there = store.views([key])
        if key not in there or bytes(there[key]) != layout.group_metadata():
            store.put_small({key: layout.group_metadata()}, folder)
            mended.append(key)
    return mended


def mend_place(place: Place) -> list[str]:
    """Put the manifest and all small files of a split or stream right, and their copies. Returns the keys written.

    Raises CacheError when a writer is at work, when no manifest can be told to be the one in force, and, having put
    right what can be, when of some small file nothing is intact.
    """
    store = place.store
    lock = store.lock(place.writing)
    try:
        of, mended = _manifest(place)
        if of is None:
            return []
        intact = {name: bytes(data) for name, data in manifest.small_files(place, of).items()}
        manifest.roll_forward(place, of)
        for name in of["files"].keys() - intact.keys():
            made = column_metadata_of(of, name)
            if made is not None and manifest.sha256(made) == of["files"][name]:
                intact[name] = made
        mended += _write(place, of, intact)
    finally:
        lock.release()
    if lost := sorted(of["files"].keys() - intact.keys()):
        raise CacheError.at(
            store.where(place.array(lost[0])),
            expected="it, or its copy, to be intact",
            found=f"both damaged ({len(lost)} files are so)",
            do="Restore it from a backup, or remove the folder with its manifest and make it again.",
        )
    return mended


def _write(place: Place, of: Mapping[str, Any], intact: Mapping[str, bytes]) -> list[str]:
    """Small files where they are not these, in place and as copies."""
    store, copy = place.store, place.copy(of["digest"])
    in_place = {place.array(name): data for name, data in intact.items()}
    copies = {f"{copy}/{name}": data for name, data in {**intact, MANIFEST: json_file(of)}.items()}
    mended = []
    for files, home in ((in_place, place.base), (copies, place.home)):
        there = store.views(files)
        wrong = {key: data for key, data in files.items() if key not in there or bytes(there[key]) != data}
        if wrong:
            store.put_small(wrong, home)
        mended += sorted(wrong)
    return mended


def _manifest(place: Place) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest in force and, if it had to be restored or written in its own form, its key."""
    store = place.store
    tag = store.tag(place.manifest)
    try:
        read = manifest.read_manifest(place)
    except CacheError:
        if _is_sealed(store.read(place.manifest)):
            raise  # intact, and of another version
        of = _only_copy(place, store.read(place.manifest))
    else:
        if read is None and not store.below(f"{place.home}/{COPY}"):
            return None, []  # nothing was ever committed; what is staged may be of the first commit, killed before it
        of = _only_copy(place, b"") if read is None else read[0]
        if read is None:
            _refuse_discarded(place, of)
        elif store.read(place.manifest) == json_file(of):
            return of, []
    store.replace(place.manifest, json_file(of), expected=tag)
    return of, [place.manifest]


def _only_copy(place: Place, damaged: bytes) -> dict[str, Any]:
    """The one copy that the manifest in force can have been. Raises CacheError when there is none, or more."""
    copies = {str(copy["digest"]): copy for copy in intact_copies(place)}
    said = [text.decode() for text in _DIGEST.findall(damaged)]
    if len(said) == 1 and said[0] in copies:
        return copies[said[0]]
    unsure = len(copies) > 1 or place.store.below(f"{place.home}/{STAGED}")
    if len(copies) == 1 and not unsure:
        return next(iter(copies.values()))
    found = f"{len(copies)} that may have been in force" if copies else "none that is intact"
    raise CacheError.at(
        place.store.where(place.manifest),
        expected="one intact copy of it",
        found=found,
        do="Restore it from a backup, or remove the folder with all that is in it and make it again.",
    )


def _is_sealed(text: bytes) -> bool:
    """Whether a manifest, of whatever format, is as it was written."""
    try:
        found = json.loads(text)
        return bool(found["digest"] == manifest.sha256(canonical({k: v for k, v in found.items() if k != "digest"})))
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


def _refuse_discarded(place: Place, of: Mapping[str, Any]) -> None:
    """A stream that is discarded loses its manifest first: what is left of it must not come back."""
    there, columns = place.store.files(place.base).keys(), columns_of(of)
    for name, records in of["shards"].items():
        for shard in records:
            key = layout.shard_key(place.array(name), int(shard), columns[name].trailing)
            if key not in there:
                raise CacheError.at(
                    place.store.where(place.manifest),
                    expected="the manifest, or all of its shards",
                    found=f"neither: {key} is missing, too",
                    do="It was removed, or half of it is lost: remove the folder and make it again.",
                )
