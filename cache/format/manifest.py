"""The commit: one small file that names everything that exists, replaced atomically.  [cache]

Shards are written once and only named by the manifest. The small files that a commit changes (tables, `zarr.json` of
the arrays) are staged first; replacing the manifest, which holds their digests, is the commit; then they are copied
into place. A reader that opens in between finds by its digest which of the two, staged or in place, belongs to the
manifest. In an object store, where a slower writer may put older files into place, the staged ones stay.

Beside it are notes on when, where and with what each commit was made, outside what is the same to the byte. They are
only for people, so a damaged file of them stops no work: `verify` reports it, and the next commit replaces it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

from cache.errors import CacheError
from cache.fingerprint import canonical
from cache.format import layout
from cache.format.layout import FORMAT, IN_PLACE, PROVENANCE, STAGED, json_file
from cache.storage.base import Bytes, Etag, Store

REPAIR: Final = "Repair it: python -m pipeline verify --repair --cache {root}"
_ATTEMPTS: Final = 5  # how often an unchanged manifest may disagree with its files before that is called damage


@dataclass(frozen=True, slots=True)
class Place:
    """Where one commit is: of a split without its streams, or of a stream."""

    store: Store
    split: str
    stream: str | None = None

    @property
    def base(self) -> str:
        """The files that a manifest names are below it."""
        return self.split if self.stream is None else f"{self.split}/{layout.FEATURES}"

    @property
    def home(self) -> str:
        """The folder of the manifest, of what is staged, and of the journal."""
        return self.split if self.stream is None else f"{self.base}/{self.stream}"

    @property
    def manifest(self) -> str:
        return f"{self.home}/{layout.MANIFEST}"

    @property
    def writing(self) -> str:
        return f"{self.home}/{layout.WRITING}"

    @property
    def temporary(self) -> str:
        """The key of a shard until it is complete."""
        return f"{self.writing}/{layout.TEMPORARY_SHARD}"

    @property
    def staged_shard(self) -> str:
        """How the keys begin of shards that a writer has not accepted yet."""
        return f"{self.writing}/{layout.STAGED_SHARD}"

    def checkpoint(self, shard: int) -> str:
        """The key of work on a shard that is not accepted yet."""
        return f"{self.writing}/{layout.CHECKPOINT}{shard}"

    def journals(self) -> list[str]:
        """Names in `writing` of journals and checkpoints: what the next writer goes on from."""
        begins = ("journal", layout.CHECKPOINT)
        return [name for name in self.store.list_names(self.writing) if name.startswith(begins)]

    def array(self, name: str) -> str:
        return f"{self.base}/{name}"

    def staging(self, digest: str) -> str:
        return f"{self.home}/{STAGED}/{digest[:16]}"

    @property
    def again(self) -> str:
        """What to do when the manifest or a table is damaged."""
        if self.stream is None:
            return (
                f"Restore it from a backup; or remove {self.store.location(self.manifest)} and convert the split "
                "again: its features are carried over by their keys."
            )
        return "Restore it from a backup; or extract the stream again, with --replace."


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed state: its manifest, and the bytes of every small file that the manifest names."""

    place: Place
    manifest: Mapping[str, Any]
    files: Mapping[str, Bytes]
    etag: Etag | None  # of the manifest's file

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


def sha256(data: bytes | Bytes) -> str:
    """In hex."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest()


def callers_entries(manifest: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """What the caller of `commit` has put into the manifest, without the cache's `own` entries."""
    return {key: value for key, value in manifest.items() if key not in own}


def read_manifest(place: Place) -> tuple[dict[str, Any], Etag] | None:
    """The manifest, checked against its own digest, and its file's etag; None when there is none."""
    try:
        text, etag = place.store.read_with_etag(place.manifest)
    except FileNotFoundError:
        return None
    return parse_manifest(text, place.store.location(place.manifest), place.again), etag


def parse_manifest(text: bytes, file: str, do: str) -> dict[str, Any]:
    """The manifest in a file's bytes. Raises CacheError for other formats and changed content."""
    try:
        manifest = json.loads(text)
        written_as = manifest["format"]
        intact = manifest["digest"] == sha256(canonical({key: manifest[key] for key in manifest if key != "digest"}))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CacheError.at(file, expected="a manifest in JSON", found=f"something else ({error})", do=do) from error
    if written_as != FORMAT:  # first: another format may have another digest
        held_format = f"format {written_as!r}"
        raise CacheError.at(file, expected=f"format {FORMAT!r}", found=held_format, do="Use the version that wrote it.")
    if not intact:
        raise CacheError.at(file, expected="its own digest to match", found="changed content", do=do)
    return dict(manifest)


def load(place: Place) -> Commit | None:
    """The state committed at this moment, never a mixture of two; None when nothing was ever committed.

    Raises CacheError for a damaged manifest, for a small file that is neither in place nor staged as the manifest names
    it, and for a stream whose manifest is lost: its features would be written over.
    """
    before: str | None = None
    failures = 0
    while True:
        current = read_manifest(place)
        if current is None:
            if place.stream is not None and (lost := lost_manifest(place)):
                raise CacheError(lost)
            return None
        manifest, etag = current
        files = small_files(place, manifest)
        if files.keys() == manifest["files"].keys():
            return Commit(place, manifest, files, etag)
        # There may have been a commit between reading the manifest and the file: then the manifest has changed by now.
        failures = failures + 1 if manifest["digest"] == before else 0
        before = manifest["digest"]
        if failures >= _ATTEMPTS:
            wrong = sorted(manifest["files"].keys() - files.keys())[0]
            is_table = wrong.partition("/")[0] not in manifest["shards"]  # else it follows from the manifest
            raise CacheError.at(
                place.store.location(place.array(wrong)),
                expected="the file that the manifest names by its digest",
                found="a missing or changed file",
                do=place.again if is_table else REPAIR.format(root=place.store.root),
            )
        time.sleep(0.01)


def lost_manifest(place: Place) -> str:
    """The message for a manifest that does not exist, though what it committed does; "" where it was never there."""
    array = place.array("frame_index") if place.stream is None else place.home
    if not place.store.exists(f"{array}/zarr.json") or place.store.exists(place.manifest):
        return ""
    file = place.store.location(place.manifest)
    expected = "the manifest of what was committed here"
    return str(CacheError.at(file, expected=expected, found="no file", do=place.again))


def small_files(place: Place, manifest: Mapping[str, Any]) -> dict[str, Bytes]:
    """Every small file that has the digest in the manifest: in place, or staged."""
    digests: dict[str, str] = dict(manifest["files"])
    files: dict[str, Bytes] = {}
    for folder in (place.base, place.staging(manifest["digest"])):
        keys = {f"{folder}/{name}": name for name in digests if name not in files}
        for key, data in place.store.read_many(keys).items() if keys else ():
            if sha256(data) == digests[keys[key]]:
                files[keys[key]] = data
    return files


def rows_record(split: Mapping[str, Any], shard: int) -> str:
    """Which rows a shard of a split has: 16 hex digits over the records of all its columns there; "": it has none."""
    records = {name: of_column[str(shard)] for name, of_column in split["shards"].items() if str(shard) in of_column}
    return sha256(canonical(records))[:16] if records else ""


def foreign_shards(stream: Mapping[str, Any], split: Mapping[str, Any]) -> list[int]:
    """The shards whose features a stream has for other rows than the split has there now, ascending.

    A split that was restored from a backup may have other rows under the same numbers.
    """
    records: Mapping[str, str] = stream["rows"]
    return [int(shard) for shard, record in records.items() if rows_record(split, int(shard)) not in (record, "")]


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
    entries: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    before: Commit | None,
    note: Mapping[str, Any],
    started: float,
    keep_journal: bool = False,
) -> dict[str, Any]:
    """Commit, unless it is what is in force: stage the small files, replace the manifest, copy the files into place.

    Killed before the manifest is replaced, nothing has happened; killed after it, the next writer finishes the rest.

    Args:
        place: where.
        entries: what the manifest has beside its format and digests.
        files: the small files by name.
        before: the commit in force.
        note: for `provenance.json`, with the time since `started`.
        keep_journal: it is another writer's, not of this commit.

    Returns the manifest. Raises CacheError when the one in force is not that of `before` any more.
    """
    body = {"format": FORMAT, **entries, "files": {name: sha256(data) for name, data in files.items()}}
    manifest = {**body, "digest": sha256(canonical(body))}
    if before is None or manifest["digest"] != before.digest:
        add_provenance(place, manifest["digest"], note, started)
        staging = place.staging(manifest["digest"])
        place.store.put_small({f"{staging}/{name}": data for name, data in files.items()}, place.home)
        place.store.replace(place.manifest, json_file(manifest), expected=None if before is None else before.etag)
        _put_in_place(place, manifest, keep_journal=keep_journal)
    return manifest


def recover(place: Place) -> None:
    """Finish the commit in force, and remove what killed ones have staged, for the holder of the writer's lock."""
    current = read_manifest(place)
    _put_in_place(place, None if current is None else current[0], keep_journal=False)


def has_unfinished_commit(place: Place) -> bool:
    """Whether the next writer has something to finish or to remove, even if there is nothing new to write."""
    store = place.store
    if store.exclusive:
        return STAGED in store.list_names(place.home) or any(name != "lock" for name in store.list_names(place.writing))
    current = read_manifest(place)
    return current is not None and is_staged(place, current[0])


def is_staged(place: Place, manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest's small files are still to be copied into place."""
    staged = place.store.list_names(place.staging(manifest["digest"]))
    return bool(staged) and IN_PLACE not in staged


def _put_in_place(place: Place, manifest: Mapping[str, Any] | None, *, keep_journal: bool) -> None:
    store = place.store
    while manifest is not None and is_staged(place, manifest):
        files = small_files(place, manifest)  # by their digests: a staged file may be damaged by now
        store.put_small({place.array(name): bytes(data) for name, data in files.items()}, place.base)
        if store.exclusive:
            if not keep_journal:
                store.journal(place.writing).remove()  # of the writer of this commit: killed, it has left it
            store.remove([place.staging(manifest["digest"])])
            break
        # Other writers may have committed meanwhile, and these files are now in place over theirs. The last one to
        # look leaves the right ones. What others have staged stays: they may be about to commit it.
        store.put_small({f"{place.staging(manifest['digest'])}/{IN_PLACE}": b""}, place.home)
        current = read_manifest(place)
        if current is None or current[0]["digest"] == manifest["digest"]:
            break
        manifest = current[0]
        store.remove([f"{place.staging(manifest['digest'])}/{IN_PLACE}"])
    if store.exclusive and STAGED in store.list_names(place.home):
        store.remove([f"{place.home}/{STAGED}"])


_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


def add_provenance(place: Place, digest: str, given: Mapping[str, Any], started: float) -> None:
    """Note how the commit `digest` came about, before it is made: a note without its commit does no harm."""
    software = {}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    note = {
        **given,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": software,
    }
    write_provenance(place, {**read_provenance(place), digest: note})


def write_provenance(place: Place, notes: Mapping[str, Any]) -> None:
    """Write the notes of all commits, by their manifests' digests."""
    place.store.put_small({f"{place.home}/{PROVENANCE}": json_file({"commits": notes})}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """How each commit came about, by its manifest's digest; {} where there is no such file, or a damaged one."""
    try:
        notes: dict[str, Any] = json.loads(place.store.read(f"{place.home}/{PROVENANCE}"))["commits"]
        return notes if all(isinstance(entry, dict) for entry in notes.values()) else {}
    except (ValueError, OSError, TypeError, KeyError, AttributeError):
        return {}


def note_of(commit: Commit) -> Mapping[str, Any]:
    """How a commit came about; empty when that is lost."""
    note: Mapping[str, Any] = read_provenance(commit.place).get(commit.digest, {})
    return note


def provenance_problem(place: Place) -> str:
    """The message for a damaged file; "" for an intact one, or none."""
    key = f"{place.home}/{PROVENANCE}"
    if read_provenance(place) or not place.store.exists(key):
        return ""
    do = "How the data were made is not known; the data are intact. The next commit replaces the file."
    return f"{place.store.location(key)}: expected notes on commits, found something else. {do}"
