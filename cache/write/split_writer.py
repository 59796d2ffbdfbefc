"""Rows into a split, one atomic commit at a time.  raw -> [tracks] -> features -> windows

Rows are buffered one shard at a time, so memory does not grow with the dataset. A full shard is written, synced and
journalled; a run that is killed goes on after the last video whose rows are all in journalled shards: the rest of
that shard is read back into the buffer, and written again with what follows, to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.folders import create_groups, discard_shards
from cache.format.layout import COLUMNS, ROWS_PER_CHUNK, ROWS_PER_SHARD, Geometry
from cache.format.manifest import Commit, Place, own_part
from cache.format.provenance import add_provenance
from cache.format.records import TrackRows, VideoEntry
from cache.format.tables import CommittedVideos, TableBuilder, Tables, decode_texts, live_shards, video_record
from cache.storage.base import Root, Tag, store_at
from cache.write.base import OneWriter
from cache.write.validation import checked_rows

OWN_ENTRIES: Final = frozenset(
    {"format", "digest", "rows", "tracks", "videos", "extent", "commits", "geometry", "shards", "files"}
)


class SplitWriter(OneWriter):
    """The one writer of a split. Use as a context manager: begin, append every new or changed video, commit.

    Leaving without `commit` leaves the old state in force; shards finished by then are kept for the next run with the
    same `plan`, and discarded by a run with another.

    Args:
        root: the cache, created when missing: a folder, or a URL as s3://bucket/prefix.
        split: "<dataset>/<split>".
        columns: names in `COLUMNS`, the same for all commits of a split; `frame_index` is always one of them.
        plan: names everything that decides the rows of this commit, and their order.
        provenance: goes to `provenance.json`, with time, host and versions.
        rows_per_shard, rows_per_chunk: for a new split; an existing one keeps its own.

    Raises CacheError when another writer is at work, or when columns or geometry differ from the committed ones.
    """

    def __init__(
        self,
        root: Root,
        split: str,
        *,
        columns: Collection[str],
        plan: str,
        provenance: Mapping[str, Any] | None = None,
        rows_per_shard: int | None = None,
        rows_per_chunk: int | None = None,
    ) -> None:
        layout.check_names(split)
        super().__init__(Place.of_split(store_at(root), split))
        self._split = split
        if unknown := sorted(set(columns) - COLUMNS.keys()):
            raise CacheError(f"{split}: no such columns: {unknown}. Known: {sorted(COLUMNS)}")
        self._columns = {name: COLUMNS[name] for name in COLUMNS if name in columns or name == "frame_index"}
        self._plan, self._provenance = plan, dict(provenance or {})
        self._asked = (rows_per_shard, rows_per_chunk)
        self._began = False
        self._journalled: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the commit in force; "" when there is none."""
        return "" if self._commit is None else self._commit.digest

    @property
    def committed_videos(self) -> Mapping[str, VideoEntry]:
        """The videos of the commit in force, by name; empty when there is none."""
        return self._committed

    @property
    def journalled(self) -> tuple[str, ...]:
        """Videos taken over from a killed run with the same plan, in order: they need not be appended again."""
        return self._journalled

    @property
    def entries(self) -> dict[str, Any]:
        """The caller's own part of the manifest in force; empty when there is none."""
        return {} if self._commit is None else own_part(self._commit.manifest, OWN_ENTRIES)

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """The account of every video that the next commit will have: those that stay, and those of this commit."""
        yield from (self._kept.account(number) for number in range(len(self._kept["video_name"])))
        yield from self._builder.accounts()

    def _make_home(self) -> None:
        create_groups(self._store, self._split)

    def _open(self) -> None:
        self._started = time.time()
        if self._store.exclusive:
            self._store.remove([self._place.temporary])
        manifest.settle(self._place)
        self._commit = manifest.load(self._place)
        self._geometry = self._checked_geometry(self._commit)
        self._tables = Tables.empty() if self._commit is None else Tables.from_files(self._commit.files)
        self._committed = CommittedVideos(self._tables)
        self._first = 0 if self._commit is None else self._geometry.boundary(self._commit.manifest["extent"])

    @property
    def _where(self) -> str:
        return self._store.where(self._place.manifest)

    @property
    def _base(self) -> Tag | None:
        """The manifest that this commit follows."""
        return None if self._commit is None else self._commit.tag

    def _checked_geometry(self, commit: Commit | None) -> Geometry:
        if commit is None:
            return Geometry(self._asked[0] or ROWS_PER_SHARD, self._asked[1] or ROWS_PER_CHUNK)
        held = commit.manifest["shards"].keys()
        if held != self._columns.keys():
            do = "Columns are the same over all commits of a split: remove the split and convert it anew."
            expected, found = f"columns {sorted(held)}", str(sorted(self._columns))
            raise CacheError.at(self._where, expected=expected, found=found, do=do)
        geometry = Geometry(**commit.manifest["geometry"])
        wanted = (geometry.rows_per_shard, geometry.rows_per_chunk)
        if any(asked not in (None, own) for asked, own in zip(self._asked, wanted, strict=True)):
            do = "A split keeps its geometry: leave it out, or remove the split and convert it anew."
            raise CacheError.at(self._where, expected=f"{geometry}", found=f"{self._asked}", do=do)
        return geometry

    def begin(
        self,
        drop: Collection[str] = (),
        *,
        refingerprint: Mapping[str, tuple[str, str]] | None = None,
        forget: Collection[int] = (),
    ) -> None:
        """Start a commit in which the tracks of the committed videos `drop` go, or come anew.

        Args:
            drop: names of committed videos.
            refingerprint: (fingerprint, pixels) of committed videos that keep their rows.
            forget: shards that the manifest is to name no longer, in any column: nobody needs their rows.

        Raises CacheError when a name is not that of a committed video, and for a shard with rows of a track that stays.
        """
        if self._began:
            raise CacheError(f"{self._split}: begin was called before: commit first")
        stated = dict(refingerprint or {})
        if strange := sorted({*drop, *stated} - self._committed.keys()):
            raise CacheError(f"{self._split}: {strange[:5]}: not among the committed videos")
        self._began = True
        self._journalled = ()
        self._drop = frozenset(drop)
        self._kept = self._tables.without(self._drop).with_fingerprints(stated)
        self._forget = frozenset(forget)
        if needed := sorted(self._forget & set(live_shards(self._kept, self._geometry))):
            raise CacheError(f"{self._split}: shards {needed[:5]} have rows of tracks that stay: drop their videos too")
        self._builder = TableBuilder()
        self._videos = set(self._committed) - self._drop
        self._track_names = set(decode_texts(self._kept["track_name"]))
        self._records: dict[str, dict[int, str]] = {name: {} for name in self._columns}
        self._next = self._first  # the row that comes next
        self._unwritten: list[dict[str, Any]] = []  # videos since the last journalled shard
        self._buffers = {
            name: np.full((self._geometry.rows_per_shard, *spec.trailing), spec.fill, spec.dtype)
            for name, spec in self._columns.items()
        }
        self._take_over()

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video with its tracks, or with none: what became of it is in its account.

        Raises CacheError for a video or track that is there already, and for columns that do not fit.
        """
        if not self._began:
            raise CacheError(f"{self._split}: append before begin")
        if entry.name in self._videos:
            do = "drop it in begin to replace it" if entry.name in self._committed else "append each video once"
            raise CacheError(f"{self._split}: video {entry.name!r} is there already: {do}")
        rows = [checked_rows(track, entry.name, self._columns, self._split) for track in tracks]
        video = video_record(entry, tracks, self._next)
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(f"{self._split}: video {entry.name!r}: a track of that name is there already: {names}")
        self._remember(video)
        for columns in rows:
            self._add_rows(columns)
        self._unwritten.append(video)

    def commit(self, entries: Mapping[str, Any]) -> None:
        """Make everything appended visible, and everything dropped invisible, at one instant.

        Args:
            entries: the caller's own part of the manifest, under its own keys. Anything that JSON holds.

        Raises CacheError when a key is one of the manifest's own.
        """
        if not self._began:
            raise CacheError(f"{self._split}: commit before begin")
        if taken := sorted(entries.keys() & OWN_ENTRIES):
            raise CacheError(f"{self._split}: {taken} in the manifest are the cache's own; choose other keys")
        if filled := self._next % self._geometry.rows_per_shard:
            self._write_shard(filled)
        tables = self._kept.plus(self._builder.tables())
        files = {**tables.to_files(), **self._array_files()}
        new = manifest.seal({**entries, **self._own_entries(tables, files)})
        if self._commit is None or new["digest"] != self._commit.digest:
            self._lock.require()
            add_provenance(self._place, new["digest"], self._provenance, self._started)
            manifest.publish(self._place, new, files, expected=self._base)
        self._journal.remove()
        self._began = False
        self._open()

    def _array_files(self) -> dict[str, bytes]:
        extent = self._extent()
        return {
            f"{name}/zarr.json": layout.column_metadata(spec, extent, self._geometry)
            for name, spec in self._columns.items()
        }

    def _extent(self) -> int:
        """Rows of the arrays: up to the end of the last commit that has any."""
        if self._next > self._first or self._commit is None:
            return self._next
        return int(self._commit.manifest["extent"])

    def _own_entries(self, tables: Tables, files: Mapping[str, bytes]) -> dict[str, Any]:
        earlier = {} if self._commit is None else self._commit.manifest
        commits = list(earlier.get("commits", []))
        if self._next > self._first:
            commits.append([self._first, self._next])
        return {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": self._extent(),
            "commits": commits,
            "geometry": {
                "rows_per_shard": self._geometry.rows_per_shard,
                "rows_per_chunk": self._geometry.rows_per_chunk,
            },
            "shards": {
                name: {**self._named(name), **{str(k): r for k, r in sorted(records.items())}}
                for name, records in self._records.items()
            },
            "files": {name: manifest.sha256(data) for name, data in files.items()},
        }

    def _named(self, name: str) -> dict[str, str]:
        """The records of a column's committed shards that stay."""
        records = {} if self._commit is None else self._commit.manifest["shards"].get(name, {})
        return {shard: record for shard, record in records.items() if int(shard) not in self._forget}

    def _remember(self, video: Mapping[str, Any]) -> None:
        self._builder.add(video)
        self._videos.add(video["name"])
        self._track_names.update(track["name"] for track in video["tracks"])

    def _add_rows(self, rows: Mapping[str, NDArray[Any]]) -> None:
        size = self._geometry.rows_per_shard
        n_rows = len(rows["frame_index"])
        done = 0
        while done < n_rows:
            at = self._next % size
            take = min(size - at, n_rows - done)
            for name, spec in self._columns.items():
                part = rows[name][done : done + take] if name in rows else spec.fill
                self._buffers[name][at : at + take] = part
            done += take
            self._next += take
            if at + take == size:
                self._write_shard(size)

    def _write_shard(self, filled: int) -> None:
        """The buffer, as the shard that ends at the next row -> disk and journal."""
        shard = (self._next - 1) // self._geometry.rows_per_shard
        self._lock.require()  # without it, this may be a shard that somebody else has committed
        written = {}
        for name, spec in self._columns.items():
            data = shards.encode(self._buffers[name][:filled], spec, self._geometry)
            key = self._shard_key(name, shard)
            written[name] = shards.write(self._store, key, data, self._geometry, by_way_of=self._place.temporary)
            self._records[name][shard] = written[name]
        self._journal.add({"shard": shard, "files": written, "videos": self._unwritten})
        self._unwritten = []

    def _take_over(self) -> None:
        """Go on from the journal of a killed run with the same plan; discard that of any other."""
        head = {
            "plan": self._plan,
            "base": None if self._commit is None else self._commit.digest,
            "drop": sorted(self._drop),
            "forget": sorted(self._forget),
            "columns": sorted(self._columns),
            "geometry": [self._geometry.rows_per_shard, self._geometry.rows_per_chunk],
        }
        records = self._journal.resume(head)
        if records is None:
            self._discard_shards()
            self._journal.start(head)
            return
        videos, finished = self._finished(records)
        while not self._restore(finished, videos):
            finished -= 1
        taken = [video for video in videos if video["stop"] <= self._next]
        for video in taken:
            self._remember(video)
        self._journalled = tuple(video["name"] for video in taken)

    def _finished(self, records: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
        """(videos in order, number of leading shards that are on the disk with their full size)."""
        files: dict[int, Mapping[str, str]] = {record["shard"]: record["files"] for record in records}
        videos: dict[str, dict[str, Any]] = {video["name"]: video for record in records for video in record["videos"]}
        shard = first = self._first // self._geometry.rows_per_shard
        while shard in files and all(
            shards.has_size(self._store, self._shard_key(name, shard), text) for name, text in files[shard].items()
        ):
            for name, text in files[shard].items():
                self._records[name][shard] = text
            shard += 1
        return list(videos.values()), shard - first

    def _restore(self, finished: int, videos: Sequence[Mapping[str, Any]]) -> bool:
        """Set the next row behind the last video within the finished shards, the buffer as it was then.

        False when the shard that it needs is damaged: then only the shards before count as finished.
        """
        size = self._geometry.rows_per_shard
        limit = self._first + finished * size
        self._next = max((video["stop"] for video in videos if video["stop"] <= limit), default=self._first)
        shard, filled = divmod(self._next, size)
        for records in self._records.values():
            for later in [number for number in records if number >= shard]:
                del records[later]
        if filled == 0:
            return True
        try:
            for name, spec in self._columns.items():
                key = self._shard_key(name, shard)
                data, where = shards.read(self._store, key), self._store.where(key)
                self._buffers[name][:filled] = shards.decode(data, spec, self._geometry, where)[:filled]
        except CacheError:
            return False
        return True

    def _discard_shards(self) -> None:
        """Remove the shards that no commit names."""
        first = self._first // self._geometry.rows_per_shard
        for name in COLUMNS:
            discard_shards(self._store, self._place.array(name), keep=range(first))

    def _shard_key(self, name: str, shard: int) -> str:
        return layout.shard_key(self._place.array(name), shard, COLUMNS[name].trailing)
