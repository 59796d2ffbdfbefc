"""The commit: a manifest that names every committed file, replaced atomically.  [cache]

Shards are written once. The small files of a commit (tables, `zarr.json`) are staged, then the
manifest with their digests is replaced, which is the commit, then they are copied into place. A
reader that opens in between takes each file from where it matches the manifest. An object store
keeps the staged files: a slower writer may copy older ones.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cache.errors import AccessDenied, CacheError
from cache.format import layout
from cache.format.extra import ExtraColumn
from cache.format.layout import COLUMNS, FEATURES, STAGED, TAG_COPIED, TAGS, ColumnSpec, Geometry
from cache.format.listing import update_list
from cache.format.shard import REPAIR, ShardFile, ShardLayout
from cache.storage.base import Bytes, Etag, Store

_COMMIT: Final = ("files", "extent", "commits", "geometry", "shards", "rows")
_ENTRIES: Final = {  # that a manifest must have
    "split": (*_COMMIT, "tracks"),
    "stream": (*_COMMIT, "stream", "dim", "dtype"),
}
# small files and shards, of one array
_FILE: Final = re.compile(rf"{layout.NAME}/(zarr\.json|c(/[0-9]+)+)")
# reads of an unchanged manifest whose files do not match it, before this is reported as damage
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a split's or of a stream's commit in a store, and the keys of its files."""

    store: Store
    split: str
    stream: str | None = None

    @property
    def base(self) -> str:
        """The folder that the manifest's file names are relative to."""
        return self.split if self.stream is None else f"{self.split}/{FEATURES}"

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
        return f"{self.writing}/{layout.JOURNAL}"

    def checkpoint(self, shard: int) -> str:
        return f"{self.writing}/{layout.CHECKPOINT}{shard}"

    def journals(self) -> list[str]:
        """Names in `writing` of the work from which the next writer continues."""
        prefixes = (layout.JOURNAL, *layout.WITHOUT_LOCK)
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
            *(f"{group}/zarr.json" for group in (dataset, self.split, f"{self.split}/{FEATURES}")),
        ]

    def create_groups(self) -> None:
        """Write the Zarr groups that are missing."""
        update_list(self.store, there=committed_names(self.store))
        for key in self.groups[1:]:
            if not self.store.exists(key):
                self.store.put(
                    key, layout.GROUP, temporary=f"{self.writing}/.{secrets.token_hex(4)}"
                )

    def shards_on_disk(self, name: str) -> list[int]:
        """Numbers of an array's existing shards, committed or not."""
        return sorted(
            int(shard)
            for shard in self.store.list_names(f"{self.array(name)}/c")
            if shard.isdigit()
        )

    def read_manifest(self) -> tuple[dict[str, Any], Etag] | None:
        """Read the manifest, check its own digest, and return it with its file's etag; None without
        a file.
        """
        try:
            text, etag = self.store.read_with_etag(self.manifest)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise AccessDenied.of(error) from error
        return self.parse_manifest(text), etag

    def parse_manifest(self, text: bytes) -> dict[str, Any]:
        """Parse its manifest. Raises CacheError for a damaged one, and for one of another place or
        format.
        """
        file = self.store.location(self.manifest)
        do = self.again
        try:
            manifest = json.loads(text)
            written_as = manifest["format"]
            body = {key: value for key, value in manifest.items() if key != "digest"}
            intact = manifest["digest"] == sha256(layout.canonical(body))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            other = f"something else ({error})"
            raise CacheError.at(file, expected="a manifest in JSON", found=other, do=do) from error
        # before the digest, which another format may define otherwise
        if written_as != layout.FORMAT:
            held_format = f"format {written_as!r}"
            do = "Use the version that wrote it."
            raise CacheError.at(
                file, expected=f"format {layout.FORMAT!r}", found=held_format, do=do
            )
        if not intact:
            raise CacheError.at(
                file, expected="its own digest to match", found="changed content", do=do
            )
        try:
            problem = _problem_of(manifest, self)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            problem = f"other entries ({error!r})"
        if problem:
            of = (
                f"stream {self.stream!r} of {self.split}"
                if self.stream is not None
                else f"{self.kind} {self.split}"
            )
            raise CacheError.at(file, expected=f"the manifest of {of}", found=problem, do=do)
        return dict(manifest)

    def read_small_files(self, manifest: Mapping[str, Any]) -> dict[str, Bytes]:
        """Read the small files whose digests match the manifest, in place or staged."""
        digests: dict[str, str] = dict(manifest["files"])
        files: dict[str, Bytes] = {}
        for folder in (self.base, self.staging(manifest["digest"])):
            keys = {f"{folder}/{name}": name for name in digests if name not in files}
            for key, data in self.store.read_many(keys).items() if keys else ():
                if sha256(data) == digests[keys[key]]:
                    files[keys[key]] = data
        return files

    def lost_manifest(self) -> str:
        """The error message when committed arrays exist without their manifest; "" when nothing was
        committed.
        """
        array = self.array("frame_index") if self.stream is None else self.home
        if not self.store.exists(f"{array}/zarr.json") or self.store.exists(self.manifest):
            return ""
        file = self.store.location(self.manifest)
        expected = "the manifest of the data committed here"
        return str(CacheError.at(file, expected=expected, found="no file", do=self.again))

    def is_staged(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the manifest's small files are still to be copied into place."""
        staged = self.store.list_names(self.staging(manifest["digest"]))
        return bool(staged) and layout.IN_PLACE not in staged

    def has_unfinished_commit(self) -> bool:
        """Whether a killed writer has left files that the next one finishes or removes, even
        without new rows.
        """
        store = self.store
        if store.exclusive:
            writing = store.list_names(self.writing)
            return STAGED in store.list_names(self.home) or any(name != "lock" for name in writing)
        current = self.read_manifest()
        return current is not None and self.is_staged(current[0])

    def read_notes(self) -> dict[str, Any]:
        """Read the notes of all commits, by their manifests' digests; {} when the file is missing
        or damaged.
        """
        try:
            notes: dict[str, Any] = json.loads(self.store.read(f"{self.home}/{layout.PROVENANCE}"))[
                "commits"
            ]
            return notes if all(isinstance(entry, dict) for entry in notes.values()) else {}
        except (ValueError, OSError, TypeError, KeyError, AttributeError):
            return {}


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed state: its manifest, and the bytes of every small file that the manifest
    names.
    """

    place: Place
    manifest: Mapping[str, Any]
    files: Mapping[str, Bytes]
    etag: Etag | None  # of the manifest's file

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @classmethod
    def load(cls, place: Place) -> Commit | None:
        """The current commit, never a mixture of two; None without one. Raises CacheError for
        damaged or lost files.
        """
        before: str | None = None
        failures = 0
        while True:
            current = place.read_manifest()
            if current is None:
                if place.stream is not None and (lost := place.lost_manifest()):
                    raise CacheError(lost)
                return None
            manifest, etag = current
            files = place.read_small_files(manifest)
            if files.keys() == manifest["files"].keys():
                return cls(place, manifest, files, etag)
            # Another process may have committed after the manifest was read. Then it has changed:
            # read it again.
            failures = failures + 1 if manifest["digest"] == before else 0
            before = manifest["digest"]
            if failures >= _ATTEMPTS:
                wrong = sorted(manifest["files"].keys() - files.keys())[0]
                # else it follows from the manifest
                is_table = wrong.partition("/")[0] not in manifest["shards"]
                raise CacheError.at(
                    place.store.location(place.array(wrong)),
                    expected="the file that the manifest names by its digest",
                    found="a missing or changed file",
                    do=place.again if is_table else REPAIR,
                )
            time.sleep(0.01)

    @property
    def note(self) -> Mapping[str, Any]:
        """Read its note; {} when it is missing."""
        note: Mapping[str, Any] = self.place.read_notes().get(self.digest, {})
        return note

    @property
    def columns(self) -> Mapping[str, ColumnSpec]:
        """The columns that its manifest may name: a split's, or a stream's."""
        held = self.manifest
        if "stream" in held:
            return layout.stream_columns(held["stream"], held["dim"], held["dtype"])
        return {
            **COLUMNS,
            **{c.name: c.spec for c in ExtraColumn.from_manifest(held).values() if c.per == "row"},
        }

    def column_metadata(self, name: str) -> bytes | None:
        """The zarr.json, by its name in `files`, that a column must have; None for all other small
        files.
        """
        array, _, file = name.partition("/")
        if file != "zarr.json" or (spec := self.columns.get(array)) is None:
            return None
        return spec.metadata(int(self.manifest["extent"]), Geometry(**self.manifest["geometry"]))

    def shard_files(self) -> list[ShardFile]:
        """Its shards, by column and number. Raises CacheError for one that no commit has."""
        geometry = Geometry(**self.manifest["geometry"])
        shards_of = self.manifest["shards"]
        files = []
        for name, spec in self.columns.items():
            for number, record in sorted(
                (int(shard), record) for shard, record in shards_of.get(name, {}).items()
            ):
                key = layout.shard_key(self.place.array(name), number, spec.trailing)
                n_rows = len(shard_rows(self.manifest, number))
                files.append(
                    ShardFile(name, key, number, record, n_rows, ShardLayout(spec, geometry))
                )
        return files

    def foreign_shards(self, split: Mapping[str, Any]) -> list[int]:
        """Shards of a stream, computed for other rows than the split has now, as after a restored
        backup.
        """
        records: Mapping[str, str] = self.manifest["rows"]
        return [
            int(shard)
            for shard, record in records.items()
            if rows_record(split, int(shard)) not in (record, "")
        ]


def sha256(data: bytes | Bytes) -> str:
    """The SHA-256 of bytes, in hex."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest()


def has_shards(held: Mapping[str, Any], shards: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a manifest names all these shards: array -> shard -> record."""
    return all(
        records.items() <= held["shards"].get(array, {}).items()
        for array, records in shards.items()
    )


def _problem_of(manifest: Mapping[str, Any], place: Place) -> str:
    """Why an untrusted manifest cannot be that of a place; "" if it can."""
    if missing := [name for name in _ENTRIES[place.kind] if name not in manifest]:
        return f"no {missing[0]!r}"
    if manifest.get("stream") != place.stream:
        return (
            f"that of stream {manifest['stream']!r}" if "stream" in manifest else "that of a split"
        )
    shards = [
        f"{name}/c/{shard}" for name, of in manifest.get("shards", {}).items() for shard in of
    ]
    if strange := [name for name in (*manifest["files"], *shards) if not _FILE.fullmatch(name)]:
        return f"the name {strange[0]!r}"
    return ""


def rows_record(split: Mapping[str, Any], shard: int) -> str:
    """The identity of a shard's rows: 16 hex digits over the records of all its columns; "" without
    rows.
    """
    records = {
        name: of_column[str(shard)]
        for name, of_column in split["shards"].items()
        if str(shard) in of_column
    }
    return sha256(layout.canonical(records))[:16] if records else ""


def shard_rows(manifest: Mapping[str, Any], shard: int) -> range:
    """The rows of a shard of a split or stream, without padding. Raises CacheError when no commit
    has the shard.
    """
    size = manifest["geometry"]["rows_per_shard"]
    start = shard * size
    for first, end in manifest["commits"]:
        if first <= start < end:
            return range(start, min(end, start + size))
    raise CacheError(
        f"no commit has a shard {shard}: commits are {manifest['commits']}, {size} rows a shard"
    )


def committed_names(store: Store) -> Iterator[str]:
    """Names of committed splits, also of those that have lost their manifest."""
    for name in possible_splits(store):
        place = Place(store, name)
        try:
            is_committed = store.exists(place.manifest) or bool(place.lost_manifest())
        except PermissionError:
            is_committed = "/" in name  # opening it says why
        if is_committed:
            yield name


def split_folders(store: Store) -> list[str]:
    """All folders that may be splits, committed or not, by "<dataset>/<split>"."""
    return [name for name in possible_splits(store) if _names_in(store, name) != []]


def possible_splits(store: Store) -> Iterator[str]:
    """As `split_folders`, also empty ones. A dataset's folder that may not be read stands for its
    splits.
    """
    for dataset in store.list_names(""):
        if layout.is_name(dataset) and dataset != "lost+found":
            names = _names_in(store, dataset)
            folders = (
                [dataset]
                if names is None
                else [f"{dataset}/{name}" for name in names if layout.is_name(name)]
            )
            yield from folders


def _names_in(store: Store, folder: str) -> list[str] | None:
    """As `store.list_names`; None for a folder that may not be read."""
    try:
        return store.list_names(folder)
    except PermissionError:
        return None


def tag_notes(store: Store) -> list[str]:
    """What to do about each tag of an earlier version that is not copied yet."""
    names = [
        name for name in store.list_names(TAGS) if not store.exists(f"{TAGS}/{name}/{TAG_COPIED}")
    ]
    return [
        f"{store.location(f'{TAGS}/{name}')}: a tag of an earlier version. Copy its data into "
        "another cache: "
        f"python -m pipeline copy --tag {name} --cache {store.root} --to DIR. Then `gc` removes it."
        for name in names
    ]


def stream_folders(store: Store, split: str) -> list[str]:
    """All folders of a split that may be streams, committed or not."""
    home = f"{split}/{FEATURES}"
    names = [
        name
        for name in store.list_names(home)
        if layout.is_name(name) and layout.stream_of(name) == name
    ]
    # a file is the user's, or the group's own
    return [name for name in names if not store.exists(f"{home}/{name}")]


def places_of(store: Store, split: str) -> list[Place]:
    """Places of a split and its streams, committed or not."""
    streams: list[str] = []
    with suppress(PermissionError):  # which the place of the split shows
        streams = stream_folders(store, split)
    return [Place(store, split, stream) for stream in (None, *streams)]
