"""The commit: a manifest that names every committed file, replaced atomically.  [cache]

Shards are written once. The small files of a commit (tables, `zarr.json`) are staged, then the manifest with their
digests is replaced, which is the commit, then they are copied into place. A reader that opens in between takes each
file from where it matches the manifest. An object store keeps the staged files: a slower writer may copy older ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

from cache.errors import AccessDenied, CacheError
from cache.format import layout
from cache.format.layout import FORMAT, IN_PLACE, JOURNAL, PROVENANCE, STAGED, canonical, json_file
from cache.format.shard import REPAIR
from cache.storage.base import Bytes, Etag, Store

NOTES: Final = 100  # commits that are noted in `provenance.json`, the last ones
_COMMIT: Final = ("files", "extent", "commits", "geometry", "shards", "rows")
_ENTRIES: Final = {  # that a manifest must have
    "split": (*_COMMIT, "tracks"),
    "stream": (*_COMMIT, "stream", "dim", "dtype"),
}
_FILE: Final = re.compile(rf"{layout.NAME}/(zarr\.json|c(/[0-9]+)+)")  # small files and shards, of one array
_ATTEMPTS: Final = 5  # reads of an unchanged manifest whose files do not match it, before this is reported as damage


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a split's or of a stream's commit in a store, and the keys of its files."""

    store: Store
    split: str
    stream: str | None = None

    @property
    def base(self) -> str:
        """The folder that the manifest's file names are relative to."""
        return self.split if self.stream is None else f"{self.split}/{layout.FEATURES}"

    @property
    def home(self) -> str:
        """The folder of the manifest, the staged files, and the journal."""
        return self.base if self.stream is None else f"{self.base}/{self.stream}"

    @property
    def manifest(self) -> str:
        return f"{self.home}/{layout.MANIFEST}"

    @property
    def writing(self) -> str:
        return f"{self.home}/{layout.WRITING}"

    @property
    def temporary(self) -> str:
        return f"{self.writing}/{layout.TEMPORARY_SHARD}"

    @property
    def journal(self) -> str:
        return f"{self.writing}/{JOURNAL}"

    @property
    def staged_shard(self) -> str:
        return f"{self.writing}/{layout.STAGED_SHARD}"

    def checkpoint(self, shard: int) -> str:
        return f"{self.writing}/{layout.CHECKPOINT}{shard}"

    def journals(self) -> list[str]:
        """Names of journals and checkpoints in `writing`, from which the next writer continues."""
        prefixes = (JOURNAL, layout.CHECKPOINT)
        return [name for name in self.store.list_names(self.writing) if name.startswith(prefixes)]

    def array(self, name: str) -> str:
        return f"{self.base}/{name}"

    def staging(self, digest: str) -> str:
        return f"{self.home}/{STAGED}/{digest[:16]}"

    @property
    def kind(self) -> str:
        return "split" if self.stream is None else "stream"

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
    """The SHA-256 of bytes, in hex."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest()


def callers_entries(manifest: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """The caller's entries of a manifest: all except the cache's `own`."""
    return {key: value for key, value in manifest.items() if key not in own}


def read_manifest(place: Place) -> tuple[dict[str, Any], Etag] | None:
    """Read the manifest, check its own digest, and return it with its file's etag; None when there is none."""
    try:
        text, etag = place.store.read_with_etag(place.manifest)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise AccessDenied.of(error) from error
    return parse_manifest(text, place), etag


def has_shards(held: Mapping[str, Any], shards: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a manifest names all these shards: array -> shard -> record."""
    return all(records.items() <= held["shards"].get(array, {}).items() for array, records in shards.items())


def parse_manifest(text: bytes, place: Place) -> dict[str, Any]:
    """Parse the manifest of a place. Raises CacheError for a damaged one, and for one of another place or format."""
    file, do = place.store.location(place.manifest), place.again
    try:
        manifest = json.loads(text)
        written_as = manifest["format"]
        intact = manifest["digest"] == sha256(canonical({key: manifest[key] for key in manifest if key != "digest"}))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CacheError.at(file, expected="a manifest in JSON", found=f"something else ({error})", do=do) from error
    if written_as != FORMAT:  # before the digest, which another format may define otherwise
        held_format = f"format {written_as!r}"
        raise CacheError.at(file, expected=f"format {FORMAT!r}", found=held_format, do="Use the version that wrote it.")
    if not intact:
        raise CacheError.at(file, expected="its own digest to match", found="changed content", do=do)
    try:
        problem = _problem_of(manifest, place)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        problem = f"other entries ({error!r})"
    if problem:
        of = f"stream {place.stream!r} of {place.split}" if place.stream is not None else f"{place.kind} {place.split}"
        raise CacheError.at(file, expected=f"the manifest of {of}", found=problem, do=do)
    return dict(manifest)


def _problem_of(manifest: Mapping[str, Any], place: Place) -> str:
    """Why an untrusted manifest cannot be that of a place; "" if it can."""
    if missing := [name for name in _ENTRIES[place.kind] if name not in manifest]:
        return f"no {missing[0]!r}"
    if manifest.get("stream") != place.stream:
        return f"that of stream {manifest['stream']!r}" if "stream" in manifest else "that of a split"
    shards = [f"{name}/c/{shard}" for name, of in manifest.get("shards", {}).items() for shard in of]
    if strange := [name for name in (*manifest["files"], *shards) if not _FILE.fullmatch(name)]:
        return f"the name {strange[0]!r}"
    return ""


def load(place: Place) -> Commit | None:
    """The current commit, never a mixture of two; None without one. Raises CacheError for damaged or lost files."""
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
        # Another process may have committed after the manifest was read. Then the manifest has changed: read it again.
        failures = failures + 1 if manifest["digest"] == before else 0
        before = manifest["digest"]
        if failures >= _ATTEMPTS:
            wrong = sorted(manifest["files"].keys() - files.keys())[0]
            is_table = wrong.partition("/")[0] not in manifest["shards"]  # else it follows from the manifest
            raise CacheError.at(
                place.store.location(place.array(wrong)),
                expected="the file that the manifest names by its digest",
                found="a missing or changed file",
                do=place.again if is_table else REPAIR,
            )
        time.sleep(0.01)


def lost_manifest(place: Place) -> str:
    """The error message when committed arrays exist without their manifest; "" when nothing was committed."""
    array = place.array("frame_index") if place.stream is None else place.home
    if not place.store.exists(f"{array}/zarr.json") or place.store.exists(place.manifest):
        return ""
    file = place.store.location(place.manifest)
    expected = "the manifest of what was committed here"
    return str(CacheError.at(file, expected=expected, found="no file", do=place.again))


def small_files(place: Place, manifest: Mapping[str, Any]) -> dict[str, Bytes]:
    """Read the small files whose digests match the manifest, in place or staged."""
    digests: dict[str, str] = dict(manifest["files"])
    files: dict[str, Bytes] = {}
    for folder in (place.base, place.staging(manifest["digest"])):
        keys = {f"{folder}/{name}": name for name in digests if name not in files}
        for key, data in place.store.read_many(keys).items() if keys else ():
            if sha256(data) == digests[keys[key]]:
                files[keys[key]] = data
    return files


def rows_record(split: Mapping[str, Any], shard: int) -> str:
    """The identity of a shard's rows: 16 hex digits over the records of all its columns; "" without rows."""
    records = {name: of_column[str(shard)] for name, of_column in split["shards"].items() if str(shard) in of_column}
    return sha256(canonical(records))[:16] if records else ""


def foreign_shards(stream: Mapping[str, Any], split: Mapping[str, Any]) -> list[int]:
    """Shards whose features were computed for other rows than the split has now, as after a restored backup."""
    records: Mapping[str, str] = stream["rows"]
    return [int(shard) for shard, record in records.items() if rows_record(split, int(shard)) not in (record, "")]


def shard_rows(manifest: Mapping[str, Any], shard: int) -> range:
    """The rows of a shard of a split or stream, without padding. Raises CacheError when no commit has the shard."""
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
    """Commit: stage the small files, replace the manifest, copy the files into place. Does nothing without a change.

    A kill before the manifest is replaced changes nothing. After a later kill, the next writer copies the files.

    Args:
        entries: the manifest without its format and digests.
        files: the small files by name.
        before: the current commit.
        note: goes to `provenance.json`, with the time since `started`.
        keep_journal: do not delete the journal, which belongs to another writer.

    Returns the manifest. Raises CacheError when another process has committed since `before`.
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
    """Finish the current commit, and remove files staged by killed writers. The caller holds the writer's lock."""
    current = read_manifest(place)
    _put_in_place(place, None if current is None else current[0], keep_journal=False)


def has_unfinished_commit(place: Place) -> bool:
    """Whether a killed writer has left files that the next one finishes or removes, even without new rows."""
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
        files = small_files(place, manifest)  # those whose digests match: a staged file may be damaged
        store.put_small({place.array(name): bytes(data) for name, data in files.items()}, place.base)
        if store.exclusive:
            if not keep_journal:
                store.remove([place.journal])  # left by the writer of this commit when it was killed
            store.remove([place.staging(manifest["digest"])])
            break
        # Another writer may have committed meanwhile, and these files have overwritten its own: check again.
        store.put_small({f"{place.staging(manifest['digest'])}/{IN_PLACE}": b""}, place.home)
        current = read_manifest(place)
        if current is None or current[0]["digest"] == manifest["digest"]:
            break
        manifest = current[0]
        store.remove([f"{place.staging(manifest['digest'])}/{IN_PLACE}"])
    if store.exclusive and STAGED in store.list_names(place.home):
        store.remove([f"{place.home}/{STAGED}"])


_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


def add_provenance(place: Place, digest: str, facts: Mapping[str, Any], started: float) -> None:
    """Add a note on a commit before it is made: a note without its commit does no harm."""
    software = {}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    note = {
        **facts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": software,
    }
    notes = [*read_provenance(place).items()][-NOTES:]
    write_provenance(place, {**dict(notes), digest: note})


def write_provenance(place: Place, notes: Mapping[str, Any]) -> None:
    """Write the notes of all commits, by their manifests' digests."""
    place.store.put_small({f"{place.home}/{PROVENANCE}": json_file({"commits": notes})}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """Read the notes of all commits, by their manifests' digests; {} when the file is missing or damaged."""
    try:
        notes: dict[str, Any] = json.loads(place.store.read(f"{place.home}/{PROVENANCE}"))["commits"]
        return notes if all(isinstance(entry, dict) for entry in notes.values()) else {}
    except (ValueError, OSError, TypeError, KeyError, AttributeError):
        return {}


def note_of(commit: Commit) -> Mapping[str, Any]:
    """Read the note of a commit; {} when it is missing."""
    note: Mapping[str, Any] = read_provenance(commit.place).get(commit.digest, {})
    return note
