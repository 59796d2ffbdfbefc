"""The commit: a manifest that names every committed file, replaced atomically.  [cache]

A writer first writes new files of shards and tables, and never changes existing ones. It then
replaces the manifest by one that names them; this is the commit. Files that it does not name any
more stay until `gc`, for readers of earlier commits. Each `zarr.json` can be derived from the
manifest and is written after it, for other Zarr readers. Readers of this package do not use it, and
the next writer restores a `zarr.json` that is missing or outdated.

A manifest of a split:

    {"format": "vibe-cache 3", "digest": "1f2e...",   digest: SHA-256 of all other entries
     "rows": 110, "tracks": 3, "videos": 2,
     "geometry": {"rows_per_shard": 8192, "rows_per_chunk": 64},
     "extent": 8202, "commits": [[0, 100], [8192, 8202]],   the rows [start, stop) of each commit
     "shards": {"bbox": {"0": "133252:77aa...", "1": ...}, ...},   records: cache/format/shard.py
     "tables": "9c0d...",   SHA-256 of the file of all tables
     "dataset": ..., ...}   entries that the writer's caller gave to `commit`

A manifest of a stream; "geometry", "extent", "commits" and "shards" are as above:

    {"format": "vibe-cache 3", "digest": "88ab...",
     "stream": "resnet50", "dim": 2048, "dtype": "float16",
     "split_digest": "1f2e...",   of the split's manifest; "" while the stream lacks shards of it
     "rows": {"0": "5d0c...", "1": ...},   shard -> digest of the split's rows in it: `rows_record`
     "pending_rows": [[17, 18]],   optional: ranges of rows that may be computable later
     "geometry": ..., "extent": ..., "commits": ..., "shards": ...,
     "identity": ..., ...}   entries that the writer's caller gave to `commit`

So "rows" has two meanings: in a split's manifest, the number of its rows; in a stream's, for which
rows the features of each shard were computed. A shard is foreign if the split has other rows there
now (`foreign_shards`).

`Commit` is the state that a manifest describes, and `Place` (cache/format/place.py) says where its
files are.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cache.arrays import Ints
from cache.errors import OTHER_VERSION, AccessDenied, CacheChanged, CacheError, ForeignStream
from cache.format import layout
from cache.format.entries import check_entries, check_tables
from cache.format.extra import ExtraColumn
from cache.format.layout import (
    COLUMNS,
    FORMAT,
    Column,
    Geometry,
    StreamForm,
)
from cache.format.place import Place
from cache.format.shard import ShardFile, ShardLayout, sha256
from cache.format.tables import Tables
from cache.storage.base import Etag


def _parse_manifest(place: Place, text: bytes) -> dict[str, Any]:
    """Parse the text of this place's manifest.

    Raises CacheError if it is damaged, does not match its own digest, has an unknown format, or
    belongs to another split or stream.
    """
    manifest = _decode(place, text)
    try:
        check_entries(manifest, place.stream)
    except ValueError as error:
        title = f"split {place.split}"
        if place.stream is not None:
            title = f"stream {place.stream!r} of {place.split}"
        expected = f"the manifest of {title}"
        raise place.damage_error(place.manifest, expected=expected, found=str(error)) from error
    except CacheError as error:
        raise CacheError(f"{place.home.location(place.manifest)}: {error}") from error
    return manifest


def _decode(place: Place, text: bytes) -> dict[str, Any]:
    """Decode a manifest, and check its format and digest, but not its other entries."""
    try:
        manifest: dict[str, Any] = json.loads(text)
        written_as = manifest["format"]
        body = {key: value for key, value in manifest.items() if key != "digest"}
        intact = manifest["digest"] == sha256(layout.canonical(body))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        actual = f"something else ({error})"
        raise place.damage_error(
            place.manifest, expected="a manifest in JSON", found=actual
        ) from error
    # Check the format before the digest, which another format may define otherwise.
    if written_as != FORMAT:
        raise CacheError.at(
            place.home.location(place.manifest),
            expected=f"format {FORMAT!r}",
            found=f"format {written_as!r}",
            do=f"{OTHER_VERSION} Commit 3e733d41 is the last one that reads 'vibe-cache 2'.",
        )
    if not intact:
        expected = "its own digest to match"
        raise place.damage_error(place.manifest, expected=expected, found="changed content")
    return manifest


def lost_manifest(place: Place) -> CacheError | None:
    """The error to raise when committed arrays exist but their manifest does not; None if the
    manifest exists or nothing was saved in the cache.
    """
    array = place.manifest_folder  # a stream's own array is there, too
    if place.stream is None:
        array = place.array_key("frame_index")
    if not place.home.exists(f"{array}/zarr.json") or place.home.exists(place.manifest):
        return None
    expected = "the manifest of the data saved here"
    return place.damage_error(place.manifest, expected=expected, found="no file")


def has_unfinished_commit(place: Place) -> bool:
    """Whether a killed writer has left work that the next writer finishes or removes, even if it
    has no new rows: files in `.writing`, or a `zarr.json` that is missing or outdated.
    """
    writing = place.store.list_names(place.writing)
    if place.store.exclusive and set(writing) - {"lock"}:
        return True
    commit = Commit.load_manifest(place)
    return commit is not None and bool(commit.find_stale_metadata())


@dataclass(frozen=True)
class Commit:
    """One committed state: its manifest, and its tables, which are read when they are first used.
    When it is pickled, it goes without its tables.
    """

    place: Place
    manifest: Mapping[str, Any]
    etag: Etag | None  # version of the manifest's file; None before the first commit

    def __reduce__(self) -> tuple[Any, ...]:
        return Commit, (self.place, self.manifest, self.etag)

    @classmethod
    def empty(cls, place: Place, entries: Mapping[str, Any] | None = None) -> Commit:
        """The state of a split or stream in which nothing is committed: it has no rows, and its
        digest is "".

        entries: further ones of its manifest, such as its geometry.
        """
        empty = {"digest": "", "extent": 0, "commits": [], "shards": {}, "rows": {}}
        return cls(place, {**empty, **(entries or {})}, None)

    @cached_property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry(**self.manifest["geometry"])

    @cached_property
    def extent(self) -> int:
        """The end of the last commit's rows."""
        return int(self.manifest["extent"])

    @property
    def live_by_shard(self) -> Ints:
        """How many rows of committed tracks each shard of a split has (number of shards,)."""
        return self.tables.live_by_shard(self.geometry, self.extent)

    @classmethod
    def load_manifest(cls, place: Place) -> Commit | None:
        """Read the manifest alone; None if there is no file.

        Raises CacheError as `_parse_manifest` does, and AccessDenied without permission.
        """
        try:
            text, etag = place.home.read_with_etag(place.manifest)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise AccessDenied.from_error(error) from error
        return cls(place, _parse_manifest(place, text), etag)

    @classmethod
    def load(cls, place: Place) -> Commit | None:
        """Load the current commit with its tables, never a mixture of two; None if there is none.

        Raises CacheError for damaged or lost files. A split whose manifest is lost gives None.
        """
        while True:
            current = cls.load_manifest(place)
            if current is None:
                lost = lost_manifest(place)
                if place.stream is not None and lost is not None:
                    raise lost
                return None
            with suppress(CacheChanged):
                current.tables  # noqa: B018  read them
                return current

    def is_current(self) -> bool:
        """Whether there has been no commit since this one, which may be that of a pin. Raises
        CacheError as `load_manifest` does.
        """
        current = Commit.load_manifest(replace(self.place, pin=None))
        return current is not None and current.digest == self.digest

    @cached_property
    def tables_key(self) -> str:
        """The key of the file of a split's tables."""
        return self.place.tables_key(self.manifest["tables"])

    @cached_property
    def tables(self) -> Tables:
        """A split's tables; a stream has none.

        Raises CacheError if their file is missing, or is not the one that the manifest names;
        CacheChanged if `gc` may have removed it after another commit.
        """
        if self.place.stream is not None:
            return Tables()
        if not self.digest:
            return Tables.from_records([], self.extra.values())
        key = self.tables_key
        store = self.place.home
        file = store.read_many([key]).get(key)
        expected = "the file that the manifest names by its digest"
        if file is None:
            if store.etag(self.place.manifest) != self.etag:
                raise self.changed_error(unreadable=store.location(key))
            raise self.place.damage_error(key, expected=expected, found="no file")
        if sha256(file) != self.manifest["tables"]:
            raise self.place.damage_error(key, expected=expected, found="other bytes")
        try:
            tables = Tables.decode(file)
            check_tables(tables, self.manifest, self.extra.values())
        except (ValueError, OverflowError) as error:
            expected = "the tables of the manifest"
            raise self.place.damage_error(key, expected=expected, found=str(error)) from error
        if isinstance(file.base, mmap.mmap):  # all pages were read; few are needed again
            file.base.madvise(mmap.MADV_DONTNEED)
        return tables

    def changed_error(self, *, unreadable: str | None = None) -> CacheChanged:
        """The error for files that have changed or are gone since this commit was opened.

        unreadable: location of a file that later commits do not name; None: they name other bytes.
        """
        place = self.place
        home = place.store.location(place.manifest_folder)
        if place.store.etag(place.manifest) is None:
            why = "is no longer there: it was moved, deleted or replaced, or its disk is unmounted"
        elif unreadable is None:
            why = f"has been replaced since it was opened: commits since {self._next_time()} name"
            why += " other rows or features by the same names"
        else:
            home = unreadable
            why = f"commits since {self._next_time()} do not name this file, and `gc` removes it"
        title = place.split
        if place.stream is not None:
            title += f", stream {place.stream!r}"
        return CacheChanged(f"{home}: {why}. To read {title} on, open it again; a tag has lost it")

    def _next_time(self) -> str:
        """When the first commit after this one was made, by the notes of the last commits."""
        times = {digest: str(note.get("finished", "")) for digest, note in self.notes().items()}
        own = times.pop(self.digest, "")
        return min((time for time in times.values() if time >= own), default="an unknown time")

    @cached_property
    def note(self) -> Mapping[str, Any]:
        """This commit's note in provenance.json; {} if it is missing."""
        note: Mapping[str, Any] = self.notes().get(self.digest, {})
        return note

    def notes(self) -> dict[str, Any]:
        """Read the notes of all commits (provenance.json), by the digests of their manifests.

        Returns {} if the file is missing or damaged.
        """
        try:
            text = self.place.store.read(self.place.provenance)
            notes: dict[str, Any] = json.loads(text)["commits"]
            is_intact = all(isinstance(note, dict) for note in notes.values())
        except (ValueError, OSError, TypeError, KeyError, AttributeError):
            return {}
        return notes if is_intact else {}

    @property
    def shards(self) -> dict[int, dict[str, str]]:
        """The manifest's records of all shards: number -> array -> record."""
        shards: dict[int, dict[str, str]] = {}
        for name, records in self.manifest["shards"].items():
            for number, record in records.items():
                shards.setdefault(int(number), {})[name] = record
        return shards

    @cached_property
    def extra(self) -> dict[str, ExtraColumn]:
        """Extra columns of rows and tracks, by name; a stream has none."""
        return ExtraColumn.from_manifest(self.manifest)

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """All columns that the manifest may name, by name: those of a split with its extra columns
        per row, or the arrays of a stream.
        """
        manifest = self.manifest
        if "stream" in manifest:
            return StreamForm.from_manifest(manifest).columns(manifest["stream"])
        split_columns = {**COLUMNS, **self.extra}
        return {name: column for name, column in split_columns.items() if column.per == "row"}

    def column_metadata(self, name: str, extent: int) -> bytes:
        """The zarr.json of a column with `extent` rows."""
        return self.columns[name].metadata(extent, self.geometry)

    def metadata(self) -> dict[str, bytes]:
        """The bytes of every zarr.json that can be derived from the manifest, by its key."""
        files = {}
        for name in self.columns:
            if name in self.manifest["shards"]:
                files[f"{name}/zarr.json"] = self.column_metadata(name, self.extent)
        return {self.place.array_key(name): data for name, data in files.items()}

    def is_earlier_metadata(self, array: str, data: bytes) -> bool:
        """Whether `data` can be the zarr.json of a column in an earlier commit.

        If so, it is no damage: a writer was killed after it had replaced the manifest, and before
        it wrote the zarr.json of this array. The next writer does that.
        """
        # Commits differ only in its number of rows: the end of a commit; 0 before the first.
        ends = [0, *(end for _, end in self.manifest["commits"])]
        return array in self.columns and data in [self.column_metadata(array, end) for end in ends]

    def find_stale_metadata(self) -> dict[str, bytes]:
        """The correct bytes, by key, of every zarr.json that is missing or has other bytes."""
        expected = self.metadata()
        files = self.place.store.read_many(expected)
        intact = {key for key, data in files.items() if bytes(data) == expected[key]}
        return {key: data for key, data in expected.items() if key not in intact}

    def shard_files(self) -> list[ShardFile]:
        """All shards that the manifest names, sorted by column and number."""
        files = []
        for name, column in self.columns.items():
            records = self.manifest["shards"].get(name, {})
            encoding = ShardLayout(column, self.geometry)
            for number in sorted(map(int, records)):
                key = layout.shard_key(self.place.array_key(name), number, column.shape)
                n_rows = len(self.shard_rows(number))
                record = records[str(number)]
                files.append(ShardFile(name, key, number, record, n_rows, encoding))
        return files

    def foreign_shards(self, split: Commit) -> list[int]:
        """Numbers of a stream's shards that were computed for other rows than the split has now,
        for example because a backup was restored. Only for a stream's commit.

        Raises ForeignStream if these are all shards that the split has.
        """
        records: Mapping[str, str] = self.manifest["rows"]  # of a stream: `rows_record`s
        foreign = []
        own = []
        for shard, record in records.items():
            current = split.rows_record(int(shard))
            if current == record:
                own.append(int(shard))
            elif current:  # "": the split has dropped the shard; its features may be carried over
                foreign.append(int(shard))
        if foreign and not own:
            folder = self.place.store.location(self.place.manifest_folder)
            raise ForeignStream.at(
                folder,
                expected=f"features of the rows of {self.place.split}",
                found="those of other rows in all shards: the stream of another cache or of a "
                "backup, or an old one beside a split that was made anew",
                do="Mount or restore its own folder; or compute it again: extract --replace",
            )
        return foreign

    def refuse_foreign(self) -> None:
        """Raise ForeignStream as `foreign_shards` does, by the current commit of the split, if that
        can be read. Does nothing for the commit of a split.
        """
        if self.place.stream is None:
            return
        try:
            split = Commit.load_manifest(replace(self.place, stream=None))
        except CacheError:  # told of the split itself
            return
        if split is not None:
            self.foreign_shards(split)

    def rows_record(self, shard: int) -> str:
        """A digest (16 hex digits) of the rows that a split has in a shard, computed from the
        records of all its columns; "" if the split has no such shard.
        """
        number = str(shard)
        records = {}
        for name, shards in self.manifest["shards"].items():
            if number in shards:
                records[name] = shards[number]
        if not records:
            return ""
        return sha256(layout.canonical(records))[:16]

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard, without padding rows at its end.

        Raises CacheError if no commit in the manifest covers the shard.
        """
        size = self.geometry.rows_per_shard
        start = shard * size
        commits = self.manifest["commits"]
        for first, end in commits:
            if first <= start < end:
                return range(start, min(end, start + size))
        raise CacheError(
            f"no commit has a shard {shard}: commits are {commits}, {size} rows a shard"
        )


def shards_entry(
    arrays: Iterable[str], shards: Mapping[int, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """The manifest's entry for shards, as `Commit.shards` returns them, of these arrays."""
    numbers = sorted(shards)
    return {name: {str(n): shards[n][name] for n in numbers} for name in arrays}
