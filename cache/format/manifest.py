"""The commit: a manifest that names every committed file, replaced atomically.  [cache]

A writer first writes new files of shards and tables, and never changes existing ones. It then
replaces the manifest by one that names them; this is the commit. Each `zarr.json` can be derived
from the manifest and is written after it, for other Zarr readers. Readers of this package do not
use it, and the next writer restores a `zarr.json` that is missing or outdated.

`Place` says where the files of a split or a stream are, and `Commit` is the state that its manifest
describes. A shard's record is a short text with its size and digest (`cache/format/shard.py`).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cache.errors import AccessDenied, CacheError
from cache.format import earlier, layout
from cache.format.extra import ExtraColumn
from cache.format.layout import (
    COLUMNS,
    EARLIER_FORMAT,
    FEATURES,
    FORMAT,
    TABLE_FOLDER,
    ColumnSpec,
    Geometry,
)
from cache.format.shard import ShardFile, ShardLayout, sha256
from cache.format.tables import Tables, parse_table, table_folder, table_key
from cache.storage.base import Etag, Store

_COMMIT: Final = ("extent", "commits", "geometry", "shards", "rows")
_ENTRIES: Final = {  # entries that a manifest must have
    "split": (*_COMMIT, "tracks"),
    "stream": (*_COMMIT, "stream", "dim", "dtype"),
}
# path of a shard or table, or of its zarr.json, below `Place.arrays_folder`
_FILE: Final = re.compile(rf"({TABLE_FOLDER}/)?{layout.NAME}/(zarr\.json|c(/[0-9]+)+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a split (`stream` is None) or one of its streams is in a store, and the keys of its
    files.
    """

    store: Store
    split: str
    stream: str | None = None

    @property
    def arrays_folder(self) -> str:
        """The folder that the manifest's file names are relative to."""
        return self.split if self.stream is None else f"{self.split}/{FEATURES}"

    @property
    def manifest_folder(self) -> str:
        """The folder of the manifest, and of unfinished work."""
        return self.arrays_folder if self.stream is None else f"{self.arrays_folder}/{self.stream}"

    @property
    def manifest(self) -> str:
        return f"{self.manifest_folder}/{layout.MANIFEST}"

    @property
    def writing(self) -> str:
        return f"{self.manifest_folder}/{layout.WRITING}"

    @property
    def temporary(self) -> str:
        """The key of a shard while it is being written."""
        return f"{self.writing}/{layout.TEMPORARY_SHARD}"

    @property
    def staged(self) -> str:
        """The folder of uncommitted work, from which the next writer continues."""
        return f"{self.writing}/{layout.STAGED}"

    def array_key(self, name: str) -> str:
        return f"{self.arrays_folder}/{name}"

    @property
    def kind(self) -> str:
        return "split" if self.stream is None else "stream"

    @property
    def remedy(self) -> str:
        """What to do when the manifest or a table is damaged."""
        if self.stream is None:
            return (
                f"Restore it from a backup; or remove {self.store.location(self.manifest)} and "
                "convert the split again: its features are carried over by their keys."
            )
        return "Restore it from a backup; or extract the stream again, with --replace."

    @property
    def groups(self) -> list[str]:
        """Keys of the zarr.json of all Zarr groups, from the cache down to a split's features."""
        dataset = self.split.partition("/")[0]
        return [
            "zarr.json",
            f"{dataset}/zarr.json",
            f"{self.split}/zarr.json",
            f"{self.split}/{FEATURES}/zarr.json",
        ]

    def shards_on_disk(self, name: str) -> list[int]:
        """Sorted numbers of an array's existing shards, committed or not."""
        names = self.store.list_names(f"{self.array_key(name)}/c")
        return sorted(int(shard) for shard in names if shard.isdigit())

    def shard_folders(self, arrays: Iterable[str], numbers: Iterable[int]) -> list[str]:
        """Keys `<array>/c/<number>` of these shards of these arrays.

        A key is the shard's file, or a folder around it if the array has several dimensions.
        """
        pairs = itertools.product(arrays, sorted(numbers))
        return [f"{self.array_key(name)}/c/{number}" for name, number in pairs]

    def read_manifest(self) -> tuple[dict[str, Any], Etag] | None:
        """Read the manifest, and return it with its file's etag; None if there is no file.

        Raises CacheError as `parse_manifest` does, and AccessDenied without permission.
        """
        try:
            text, etag = self.store.read_with_etag(self.manifest)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise AccessDenied.of(error) from error
        return self.parse_manifest(text), etag

    def parse_manifest(self, text: bytes) -> dict[str, Any]:
        """Parse the text of this place's manifest.

        Raises CacheError if it is damaged, does not match its own digest, has an unknown format, or
        belongs to another split or stream.
        """
        file = self.store.location(self.manifest)
        do = self.remedy
        try:
            manifest = json.loads(text)
            written_as = manifest["format"]
            body = {key: value for key, value in manifest.items() if key != "digest"}
            intact = manifest["digest"] == sha256(layout.canonical(body))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            other = f"something else ({error})"
            raise CacheError.at(file, expected="a manifest in JSON", found=other, do=do) from error
        # Check the format before the digest, which another format may define otherwise.
        if written_as not in (FORMAT, EARLIER_FORMAT):
            raise CacheError.at(
                file,
                expected=f"format {FORMAT!r}",
                found=f"format {written_as!r}",
                do="Use the version that wrote it.",
            )
        if not intact:
            raise CacheError.at(
                file, expected="its own digest to match", found="changed content", do=do
            )
        if manifest.get("dtype") == "bytes":
            raise CacheError.at(
                file,
                expected="a stream of numbers",
                found="bytes of an earlier version",
                do=f"{earlier.REMOVED}, or delete the stream: cache.delete_stream.",
            )
        try:
            problem = _problem_of(manifest, self)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            problem = f"other entries ({error!r})"
        if problem:
            title = f"split {self.split}"
            if self.stream is not None:
                title = f"stream {self.stream!r} of {self.split}"
            raise CacheError.at(file, expected=f"the manifest of {title}", found=problem, do=do)
        return dict(manifest)

    def read_tables(self, manifest: Mapping[str, Any]) -> tuple[Tables, dict[str, str]]:
        """Read a split's tables.

        Returns the tables whose files match the manifest, and the names of the other tables by the
        key of their missing or changed file. A stream has no tables.
        """
        tables = Tables()
        if self.stream is not None:
            return tables, {}
        if manifest["format"] == EARLIER_FORMAT:
            return earlier.read_tables(self.store, self.arrays_folder, manifest)
        entries = manifest["tables"]
        keys = {name: self.array_key(table_key(name, entry)) for name, entry in entries.items()}
        files = self.store.read_many(keys.values())
        wrong = {}
        for name, key in keys.items():
            if key in files and sha256(files[key]) == entries[name]["sha256"]:
                tables[name] = parse_table(files[key], entries[name])
            else:
                wrong[key] = name
        return tables, wrong

    def unnamed_tables(self, manifest: Mapping[str, Any] | None) -> Iterator[str]:
        """Keys of existing table folders that the manifest does not name, and of remains of the
        earlier format that the manifest does not need.
        """
        named = {} if manifest is None else manifest.get("tables", {})
        folders = {table_folder(name, entry) for name, entry in named.items()}
        if self.stream is None:
            for name in self.store.list_names(self.array_key(TABLE_FOLDER)):
                folder = f"{TABLE_FOLDER}/{name}"
                if name != "zarr.json" and folder not in folders:
                    yield self.array_key(folder)
        if manifest is None or manifest["format"] == FORMAT:
            yield from earlier.find_remains(self.store, self.manifest_folder)

    def lost_manifest(self) -> CacheError | None:
        """The error to raise when committed arrays exist but their manifest does not; None if the
        manifest exists or nothing was committed.
        """
        array = self.array_key("frame_index") if self.stream is None else self.manifest_folder
        if not self.store.exists(f"{array}/zarr.json") or self.store.exists(self.manifest):
            return None
        file = self.store.location(self.manifest)
        expected = "the manifest of the data committed here"
        return CacheError.at(file, expected=expected, found="no file", do=self.remedy)

    def has_unfinished_commit(self) -> bool:
        """Whether a killed writer has left work that the next writer finishes or removes, even if
        it has no new rows: files in `.writing`, or a `zarr.json` that is missing or outdated.
        """
        writing = self.store.list_names(self.writing)
        if self.store.exclusive and set(writing) - {"lock"}:
            return True
        current = self.read_manifest()
        if current is None:
            return False
        manifest, etag = current
        return bool(Commit(self, manifest, Tables(), etag).find_stale_metadata())

    def read_notes(self) -> dict[str, Any]:
        """Read the notes of all commits (provenance.json), by the digests of their manifests.

        Returns {} if the file is missing or damaged.
        """
        try:
            text = self.store.read(f"{self.manifest_folder}/{layout.PROVENANCE}")
            notes: dict[str, Any] = json.loads(text)["commits"]
            is_intact = all(isinstance(note, dict) for note in notes.values())
        except (ValueError, OSError, TypeError, KeyError, AttributeError):
            return {}
        return notes if is_intact else {}


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed state: its manifest, and the tables that the manifest names."""

    place: Place
    manifest: Mapping[str, Any]
    tables: Tables  # empty for a stream
    etag: Etag | None  # version of the manifest's file

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @classmethod
    def load(cls, place: Place) -> Commit | None:
        """Load the current commit, never a mixture of two; None if there is none.

        Raises CacheError for damaged or lost files. A split whose manifest is lost gives None.
        """
        digest = ""
        while True:
            current = place.read_manifest()
            if current is None:
                lost = place.lost_manifest()
                if place.stream is not None and lost is not None:
                    raise lost
                return None
            manifest, etag = current
            tables, wrong = place.read_tables(manifest)
            if not wrong:
                return cls(place, manifest, tables, etag)
            if manifest["digest"] == digest:
                raise CacheError.at(
                    place.store.location(min(wrong)),
                    expected="the file that the manifest names by its digest",
                    found="a missing or changed file",
                    do=place.remedy,
                )
            # Another process may have committed after the manifest was read, and removed tables:
            # read again, until the same manifest fails twice.
            digest = manifest["digest"]

    @property
    def note(self) -> Mapping[str, Any]:
        """Read this commit's note in provenance.json; {} if it is missing."""
        note: Mapping[str, Any] = self.place.read_notes().get(self.digest, {})
        return note

    @property
    def columns(self) -> Mapping[str, ColumnSpec]:
        """All columns that the manifest may name, by name: those of a split with its extra columns
        per row, or the arrays of a stream.
        """
        held = self.manifest
        if "stream" in held:
            return layout.stream_columns(held["stream"], held["dim"], held["dtype"])
        columns = dict(COLUMNS)
        for name, column in ExtraColumn.from_manifest(held).items():
            if column.per == "row":
                columns[name] = column.spec
        return columns

    def column_metadata(self, name: str, extent: int | None = None) -> bytes:
        """The zarr.json of a column with `extent` rows (default: those of this commit)."""
        if extent is None:
            extent = int(self.manifest["extent"])
        return self.columns[name].metadata(extent, Geometry(**self.manifest["geometry"]))

    def metadata(self) -> dict[str, bytes]:
        """The bytes of every zarr.json that can be derived from the manifest, by its key."""
        files = {}
        for name in self.columns:
            if name in self.manifest["shards"]:
                files[f"{name}/zarr.json"] = self.column_metadata(name)
        tables = self.manifest.get("tables", {})
        for name, entry in tables.items():
            metadata = layout.table_metadata(tuple(entry["shape"]), np.dtype(entry["dtype"]))
            files[f"{table_folder(name, entry)}/zarr.json"] = metadata
        if tables:
            files[f"{TABLE_FOLDER}/zarr.json"] = layout.GROUP
        return {self.place.array_key(name): data for name, data in files.items()}

    def is_earlier_metadata(self, array: str, data: bytes) -> bool:
        """Whether `data` can be the zarr.json of a column or table in an earlier commit."""
        if array in self.columns:
            ends = [0, *(end for _, end in self.manifest["commits"])]
            return data in [self.column_metadata(array, end) for end in ends]
        # Tables of different shapes can have equal bytes, and so the same folder: an empty table
        # is stored as a row of zeros.
        tables = self.manifest.get("tables", {})
        dtypes = {table_folder(name, entry): entry["dtype"] for name, entry in tables.items()}
        try:
            shape = json.loads(data)["shape"]
            return data == layout.table_metadata(tuple(shape), np.dtype(dtypes[array]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return False

    def find_stale_metadata(self) -> dict[str, bytes]:
        """The correct bytes, by key, of every zarr.json that is missing or has other bytes."""
        expected = self.metadata()
        files = self.place.store.read_many(expected)
        intact = {key for key, data in files.items() if bytes(data) == expected[key]}
        return {key: data for key, data in expected.items() if key not in intact}

    def shard_files(self) -> list[ShardFile]:
        """All shards that the manifest names, sorted by column and number.

        Raises CacheError if a shard's rows are in none of the manifest's commits.
        """
        geometry = Geometry(**self.manifest["geometry"])
        files = []
        for name, spec in self.columns.items():
            records = self.manifest["shards"].get(name, {})
            encoding = ShardLayout(spec, geometry)
            for number in sorted(map(int, records)):
                key = layout.shard_key(self.place.array_key(name), number, spec.trailing)
                n_rows = len(shard_rows(self.manifest, number))
                record = records[str(number)]
                files.append(ShardFile(name, key, number, record, n_rows, encoding))
        return files

    def foreign_shards(self, split: Mapping[str, Any]) -> list[int]:
        """Numbers of a stream's shards that were computed for other rows than the split has now,
        for example because a backup was restored. `split` is the split's manifest.
        """
        records: Mapping[str, str] = self.manifest["rows"]
        foreign = []
        for shard, record in records.items():
            now = rows_record(split, int(shard))
            # "": the split has dropped the shard. Its features may be carried over to new rows.
            if now not in (record, ""):
                foreign.append(int(shard))
        return foreign


def has_shards(held: Mapping[str, Any], shards: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether the manifest `held` names all these shards (array -> shard number -> record)."""
    for array, records in shards.items():
        if not records.items() <= held["shards"].get(array, {}).items():
            return False
    return True


def _problem_of(manifest: Mapping[str, Any], place: Place) -> str:
    """Why an untrusted manifest cannot belong to a place; "" if it can."""
    for name in _ENTRIES[place.kind]:
        if name not in manifest:
            return f"no {name!r}"
    if manifest.get("stream") != place.stream:
        if "stream" in manifest:
            return f"that of stream {manifest['stream']!r}"
        return "that of a split"
    files = []
    for name, shards in manifest["shards"].items():
        files += [f"{name}/c/{shard}" for shard in shards]
    if manifest["format"] == EARLIER_FORMAT:
        files += manifest["files"]
    elif place.stream is None:
        tables = manifest["tables"]
        lost = sorted((layout.TABLES.keys() | layout.TEXTS) - tables.keys())
        if lost:
            return f"no table {lost[0]!r}"
        files += [table_key(name, entry) for name, entry in tables.items()]
    for name in files:
        if _FILE.fullmatch(name) is None:
            return f"the name {name!r}"
    return ""


def rows_record(split: Mapping[str, Any], shard: int) -> str:
    """A digest (16 hex digits) of the rows that a split has in a shard, computed from the records
    of all its columns; "" if the split has no such shard. `split` is the split's manifest.
    """
    number = str(shard)
    records = {}
    for name, shards in split["shards"].items():
        if number in shards:
            records[name] = shards[number]
    if not records:
        return ""
    return sha256(layout.canonical(records))[:16]


def shard_rows(manifest: Mapping[str, Any], shard: int) -> range:
    """The rows of a shard of a split or stream, without padding rows at its end.

    Raises CacheError if no commit in the manifest covers the shard.
    """
    size = manifest["geometry"]["rows_per_shard"]
    start = shard * size
    for first, end in manifest["commits"]:
        if first <= start < end:
            return range(start, min(end, start + size))
    raise CacheError(
        f"no commit has a shard {shard}: commits are {manifest['commits']}, {size} rows a shard"
    )
