"""The commit: one small file that says what exists, replaced atomically.  tracks -> [cache] -> windows

Shards are written once and only named by the manifest. The small files that a commit changes (tables, `zarr.json` of
the arrays) are staged first; replacing the manifest, which holds their digests, is the commit; then they are copied
into place. Whoever opens in between finds by its digest which of the two, staged or in place, belongs to the manifest.
What was staged is kept beside them as long as the commit is in force: a flipped bit in a table costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cache.errors import CacheError
from cache.fingerprint import canonical
from cache.format.layout import (
    COPY,
    FEATURES,
    FORMAT,
    MANIFEST,
    STAGED,
    STAGED_SHARD,
    TEMPORARY_SHARD,
    WRITING,
    json_file,
)
from cache.storage.base import Bytes, Store, Tag

_ATTEMPTS: Final = 5  # how often an unchanged manifest may disagree with its files before that is called damage
REPAIR: Final = "Mend it: python -m pipeline verify --repair --cache {root}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one commit lives: `home` holds its manifest, staging and journal; the files it names lie below `base`."""

    store: Store
    home: str
    base: str

    @classmethod
    def of_split(cls, store: Store, split: str) -> Place:
        return cls(store, split, split)

    @classmethod
    def of_stream(cls, store: Store, split: str, stream: str) -> Place:
        base = f"{split}/{FEATURES}"
        return cls(store, f"{base}/{stream}", base)

    @property
    def manifest(self) -> str:
        return f"{self.home}/{MANIFEST}"

    @property
    def writing(self) -> str:
        return f"{self.home}/{WRITING}"

    @property
    def temporary(self) -> str:
        """Where a shard lies until it is whole."""
        return f"{self.writing}/{TEMPORARY_SHARD}"

    @property
    def staged(self) -> str:
        """How the keys of shards begin that lie there for a writer to accept."""
        return f"{self.writing}/{STAGED_SHARD}"

    def journals(self) -> list[str]:
        """Names, below `writing`, of what unfinished runs go on from; there are several in an object store only."""
        return [name for name in self.store.below(self.writing) if name.startswith("journal")]

    def array(self, name: str) -> str:
        return f"{self.base}/{name}"

    def staging(self, digest: str) -> str:
        return f"{self.home}/{STAGED}/{digest[:16]}"

    def copy(self, digest: str) -> str:
        return f"{self.home}/{COPY}/{digest[:16]}"

    @property
    def repair(self) -> str:
        return REPAIR.format(root=self.store.where(""))


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed state: its manifest, and the bytes of every small file that the manifest names."""

    place: Place
    manifest: Mapping[str, Any]
    files: Mapping[str, Bytes]
    tag: Tag | None  # of the manifest's file

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


def sha256(data: bytes | Bytes) -> str:
    """In hex."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest()


def seal(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its own digest: SHA-256 of the canonical JSON of everything else in it."""
    body = {"format": FORMAT, **entries}
    return {**body, "digest": sha256(canonical(body))}


def own_part(manifest: Mapping[str, Any], of_the_cache: Collection[str]) -> dict[str, Any]:
    """What whoever committed has put into the manifest, beside the cache's own entries."""
    return {key: value for key, value in manifest.items() if key not in of_the_cache}


def read_manifest(place: Place) -> tuple[dict[str, Any], Tag] | None:
    """The manifest, checked against its own digest, and its file's tag; None when there is none."""
    try:
        text, tag = place.store.read_tagged(place.manifest)
    except FileNotFoundError:
        return None
    return parse_manifest(text, place.store.where(place.manifest), place.repair), tag


def parse_manifest(text: bytes, file: str, do: str) -> dict[str, Any]:
    """The manifest in a file's bytes. Raises CacheError for other formats and changed content."""
    try:
        manifest = json.loads(text)
        written_as = manifest["format"]
        body = {key: value for key, value in manifest.items() if key != "digest"}
        intact = manifest["digest"] == sha256(canonical(body))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CacheError.at(file, expected="a manifest in JSON", found=f"something else ({error})", do=do) from error
    if written_as != FORMAT:  # first: another format may have another digest
        found = f"format {written_as!r}"
        raise CacheError.at(file, expected=f"format {FORMAT!r}", found=found, do="Use the version that wrote it.")
    if not intact:
        raise CacheError.at(file, expected="its own digest to match", found="changed content", do=do)
    return dict(manifest)


def load(place: Place) -> Commit | None:
    """The state committed at this moment, never a mixture of two; None when nothing was ever committed.

    Raises CacheError when a small file belongs neither in place, nor staged, nor as a copy to the manifest.
    """
    before: str | None = None
    failures = 0
    while True:
        found = read_manifest(place)
        if found is None:
            _refuse_lost(place)
            return None
        manifest, tag = found
        files = small_files(place, manifest)
        if files.keys() == manifest["files"].keys():
            return Commit(place, manifest, files, tag)
        # A writer may have been at work between the manifest and the file: then the manifest is another one by now.
        failures = failures + 1 if manifest["digest"] == before else 0
        before = manifest["digest"]
        if failures >= _ATTEMPTS:
            wrong = sorted(manifest["files"].keys() - files.keys())[0]
            raise CacheError.at(
                place.store.where(place.array(wrong)),
                expected="the file that the manifest names by its digest",
                found="a missing or changed file, and no copy of it",
                do="Restore it from a backup, or remove the folder with its manifest and make it again.",
            )
        time.sleep(0.01)


def _refuse_lost(place: Place) -> None:
    """Raise CacheError where there is the copy of a commit and no manifest: it has been lost, not never made."""
    if place.store.below(f"{place.home}/{COPY}") and place.store.tag(place.manifest) is None:
        where = place.store.where(place.manifest)
        expected = "the manifest of what is committed here"
        raise CacheError.at(where, expected=expected, found="no file, though there is its copy", do=place.repair)


def rows_record(split: Mapping[str, Any], shard: int) -> str:
    """Which rows a shard of a split has: 16 hex digits over the records of all its columns there; "": it has none."""
    records = {name: of_column[str(shard)] for name, of_column in split["shards"].items() if str(shard) in of_column}
    return sha256(canonical(records))[:16] if records else ""


def foreign_shards(stream: Mapping[str, Any], split: Mapping[str, Any]) -> list[int]:
    """The shards whose features a stream has for other rows than the split has there now, ascending.

    A split that came back from a backup, or was made anew in the same folder, has other rows under the same numbers.
    """
    rows: Mapping[str, str] = stream.get("rows", {})  # none in streams of before there were such records
    return [int(shard) for shard, record in rows.items() if rows_record(split, int(shard)) not in (record, "")]


def small_files(place: Place, manifest: Mapping[str, Any]) -> dict[str, Bytes]:
    """Every small file that a manifest names and that is in place, staged or copied with the digest named."""
    digests: dict[str, str] = dict(manifest["files"])
    found: dict[str, Bytes] = {}
    for folder in (place.base, place.staging(manifest["digest"]), place.copy(manifest["digest"])):
        keys = {f"{folder}/{name}": name for name in digests if name not in found}
        for key, data in place.store.views(keys).items() if keys else ():
            if sha256(data) == digests[keys[key]]:
                found[keys[key]] = data
    return found


def shard_rows(manifest: Mapping[str, Any], shard: int) -> range:
    """The rows of one shard of a split or stream, without padding. Raises CacheError for a shard of no commit."""
    size = manifest["geometry"]["rows_per_shard"]
    start = shard * size
    for first, end in manifest["commits"]:
        if first <= start < end:
            return range(start, min(end, start + size))
    raise CacheError(f"no commit has a shard {shard}: commits are {manifest['commits']}, {size} rows a shard")


def publish(
    place: Place,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    expected: Tag | None,
    journal_stays: bool = False,
) -> None:
    """Commit: stage the small files, replace the manifest, copy the files into place.

    Killed before the manifest is replaced, nothing has happened; killed after it, the next writer finishes the rest.
    Raises CacheError when the manifest in force is not the `expected` one any more.
    """
    staging = place.staging(manifest["digest"])
    text = json_file(manifest)
    place.store.put_small({f"{staging}/{name}": data for name, data in {**files, MANIFEST: text}.items()}, place.home)
    place.store.replace(place.manifest, text, expected=expected)
    roll_forward(place, manifest, journal_stays=journal_stays)


def roll_forward(place: Place, manifest: Mapping[str, Any] | None, *, journal_stays: bool = False) -> None:
    """Finish the commit in force, and discard what an earlier, killed one left staged."""
    store = place.store
    if manifest is None:
        _refuse_lost(place)
    if not store.exclusive:
        _roll_forward_beside_others(place, manifest)
        return
    copies = [f"{place.home}/{COPY}/{name}" for name in store.below(f"{place.home}/{COPY}")]
    current = None if manifest is None else place.copy(manifest["digest"])
    if manifest is not None and store.below(place.staging(manifest["digest"])):
        files = small_files(place, manifest)  # by their digests: a staged file may be damaged by now
        store.put_small({place.array(name): bytes(data) for name, data in files.items()}, place.base)
        if not journal_stays:
            store.journal(place.writing).remove()  # of the run that made this commit: killed, it has left it
        store.remove([folder for folder in copies if folder == current])  # the same state was committed once before
        store.move(place.staging(manifest["digest"]), place.copy(manifest["digest"]))
    store.remove([folder for folder in copies if folder != current])
    if STAGED in store.below(place.home):
        store.remove([f"{place.home}/{STAGED}"])


def settle(place: Place) -> None:
    """Finish whatever commit is in force, for who holds the writer's lock."""
    found = read_manifest(place)
    roll_forward(place, None if found is None else found[0])


def unsettled(place: Place) -> bool:
    """Whether the next writer has something to finish, or to clear up, though nothing may have changed."""
    store = place.store
    if store.exclusive:
        return STAGED in store.below(place.home) or any(name != "lock" for name in store.below(place.writing))
    found = read_manifest(place)
    return found is not None and bool(store.below(place.staging(found[0]["digest"])))


def _roll_forward_beside_others(place: Place, manifest: Mapping[str, Any] | None) -> None:
    """Finish the commit in force where other writers may be doing the same, or be further on.

    Nothing of theirs is removed: they may be about to commit what they have staged. The copy comes first, so that small
    files are found by digest whatever becomes of those in place. Whoever has put files into place looks whether a
    later commit is in force by then, and puts that one's in their stead: the last one leaves the right ones.
    """
    store = place.store
    behind = manifest is not None and bool(store.below(place.staging(manifest["digest"])))
    while manifest is not None and behind:
        staging, copy = place.staging(manifest["digest"]), place.copy(manifest["digest"])
        files = {name: bytes(data) for name, data in small_files(place, manifest).items()}
        files_and_manifest = {**files, MANIFEST: json_file(manifest)}
        store.put_small({f"{copy}/{name}": data for name, data in files_and_manifest.items()}, place.home)
        store.put_small({place.array(name): data for name, data in files.items()}, place.base)
        store.remove([f"{staging}/{name}" for name in files_and_manifest])
        found = read_manifest(place)
        behind = found is not None and found[0]["digest"] != manifest["digest"]
        manifest = None if found is None else found[0]
