"""Write rows of a split, one atomic commit at a time.  raw -> [tracks] -> features -> windows

Rows are buffered one shard at a time; a full shard is written, synced and staged: its files have
their final names, and a piece of staged work names the videos whose rows it has (they are
journalled). After a kill, the next writer with the same plan resumes after the last video whose
rows are all in staged shards. If a staged video has changed since, its rows stay in the shards, but
no track refers to them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format import layout
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.folders import create_groups, stream_folders
from cache.format.layout import COLUMNS, ROWS_PER_CHUNK, ROWS_PER_SHARD, Geometry
from cache.format.manifest import Commit, Place
from cache.format.shard import ShardLayout, size_of
from cache.format.tables import Tables, TrackRows, VideoEntry, VideoTable, video_record
from cache.read.rows import Rows
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import Writer, follow_manifest
from cache.write.checks import check_track, columns_by_name
from cache.write.staged import SHARD, Plan, StagedWork


class SplitWriter(Writer):
    """The one writer of a split. Use it as a context manager: call `begin`, `append` for every new
    or changed video, then `commit`.

    Leaving without `commit` changes nothing for readers. The next writer with the same `plan`
    continues with the finished shards; a writer with another plan removes them.

    Args:
        root: the cache, created if missing: a folder, or a URL such as s3://bucket/prefix.
        split: "<dataset>/<split>".
        columns: names in `COLUMNS` and of `extra`, the same in all commits; `frame_index` is always
            included.
        plan: text or JSON that names everything that decides the rows of this commit and their
            order, except for `keys` of `begin`.
        provenance: goes to `provenance.json`, with time, host and versions.
        rows_per_shard, rows_per_chunk: for a new split; an existing split does not change them.
        extra: extra columns. To change them, a commit must drop all videos; features are carried
            over by their keys.

    Raises CacheError if there is another writer, or if committed columns are not among `columns`.
    """

    own_entries = frozenset(
        {
            "format",
            "digest",
            "rows",
            "tracks",
            "videos",
            "extent",
            "commits",
            "geometry",
            "shards",
            "tables",
            EXTRA,
        }
    )

    def __init__(
        self,
        root: Root,
        split: str,
        *,
        columns: Collection[str],
        plan: Plan,
        provenance: Mapping[str, Any] | None = None,
        rows_per_shard: int | None = None,
        rows_per_chunk: int | None = None,
        extra: Iterable[ExtraColumn] = (),
    ) -> None:
        layout.check_names(split)
        super().__init__(Place(store_at(root), split), provenance)
        self._split = split
        self._extra = columns_by_name(extra)
        unknown = sorted(set(columns) - COLUMNS.keys() - self._extra.keys())
        if unknown:
            names = sorted({*COLUMNS, *self._extra})
            raise CacheError(f"{split}: no such columns: {unknown}. Known: {names}")
        chosen = {*columns, "frame_index"}
        self._columns = {name: spec for name, spec in COLUMNS.items() if name in chosen}
        for name, column in self._extra.items():
            if column.per == "row":
                self._columns[name] = column.spec
        self._plan = plan
        self._new_geometry = Geometry(
            rows_per_shard or ROWS_PER_SHARD, rows_per_chunk or ROWS_PER_CHUNK
        )
        self._began = False
        self.journalled: dict[str, str] = {}
        """Fingerprints, by name, of videos that a killed writer with the same plan has finished, in
        order. They are part of the next commit: do not append them again."""
        self.committed_videos: Mapping[str, VideoEntry] = {}
        """The videos of the current commit, by name; empty when there is none."""

    @property
    def digest(self) -> str:
        """Digest of the current commit; "" if there is none."""
        return "" if self._commit is None else self._commit.digest

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the accounts of all videos of the next commit: first those that stay from the
        current commit, then the appended ones.
        """
        videos = VideoTable(self._kept)
        for number in range(len(videos)):
            yield videos.account(number)
        for video in self._new:
            yield video["account"]

    def _open(self) -> None:
        self._started = time.time()
        if self._store.exclusive:
            self._store.remove([self.place.temporary])
        self._commit = Commit.load(self.place)
        if self._commit is None:
            create_groups(self.place)
            self._tables = Tables.from_records([], self._extra.values())
            earlier = self._longest_stream()
            self._shards: Mapping[str, Mapping[str, str]] = {}
            self._other_columns = False
        else:
            follow_manifest(self._commit)
            self._tables = self._commit.tables
            earlier = self._commit.manifest
            self._shards = earlier["shards"]
            self._other_columns = self._has_other_columns(earlier)
        self.committed_videos = VideoTable(self._tables).by_name()
        self._geometry = self._new_geometry
        if "geometry" in earlier:
            self._geometry = Geometry(**earlier["geometry"])
        self._commits: list[list[int]] = list(earlier.get("commits", []))
        self._extent = int(earlier.get("extent", 0))
        self._first = self._geometry.shards(self._extent) * self._geometry.rows_per_shard

    def _has_other_columns(self, committed: Mapping[str, Any]) -> bool:
        """Whether some columns are new or declared differently than in the commit. Raises
        CacheError if a committed column in `COLUMNS` is missing now.
        """
        gone = sorted(self._shards.keys() & COLUMNS.keys() - self._columns.keys())
        if gone:
            location = self._store.location(self.place.manifest)
            do = (
                "A split keeps its columns over all commits: bring them, or remove the split "
                "and convert it again."
            )
            raise CacheError.at(
                location, expected=f"columns {gone}", found="a commit without them", do=do
            )
        declared = ExtraColumn.from_manifest(committed)
        stored = {name: column.stored_as for name, column in declared.items()}
        target = {name: column.stored_as for name, column in self._extra.items()}
        return stored != target or not self._columns.keys() <= self._shards.keys()

    def _longest_stream(self) -> Mapping[str, Any]:
        """The manifest of the stream with the largest extent; {} if there is no stream.

        If the split has lost its manifest, this tells which rows streams may have features for.
        """
        manifests: list[Mapping[str, Any]] = []
        for stream in stream_folders(self._store, self._split):
            with suppress(CacheError):  # a stream with a damaged manifest has nothing to carry over
                current = Place(self._store, self._split, stream).read_manifest()
                if current is not None:
                    manifests.append(current[0])
        return max(manifests, key=lambda manifest: int(manifest["extent"]), default={})

    def begin(
        self,
        drop: Collection[str] = (),
        *,
        invalidate: Collection[int] = (),
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """Start a commit.

        Args:
            drop: names of committed videos to remove or replace.
            invalidate: numbers of shards to remove from all columns. They may not have rows of
                tracks that stay.
            keys: for each video to append, what decides its rows besides the plan. Journalled
                videos with other keys must be appended again. None: the plan decides all rows.

        Raises CacheError for unknown videos, and for a shard with rows of a track that stays.
        """
        if self._began:
            raise CacheError(f"{self._split}: begin was called before: commit first")
        strange = sorted({*drop} - self.committed_videos.keys())
        if strange:
            raise CacheError(f"{self._split}: {strange[:5]}: not among the committed videos")
        self._drop = frozenset(drop)
        self._invalid = frozenset(invalidate)
        self._keys = keys
        if self._other_columns:
            if self.committed_videos.keys() - self._drop:
                raise CacheError(f"{self._split}: its columns have changed: drop all of its videos")
            numbers = set[str]().union(*self._shards.values())
            self._invalid = frozenset(map(int, numbers))
        self._kept = self._tables.drop_videos(self._drop)
        needed = sorted(self._invalid.intersection(self._kept.live_shards(self._geometry)))
        if needed:
            raise CacheError(
                f"{self._split}: shards {needed[:5]} have rows of kept tracks: drop their "
                "videos, too"
            )
        self._began = True
        self.journalled = {}
        self._new: list[Mapping[str, Any]] = []  # videos of this commit
        self._videos = set(self.committed_videos) - self._drop
        self._track_names = set(self._kept.texts("track_name"))
        self._records: dict[str, dict[int, str]] = {name: {} for name in self._columns}
        self._next = self._first  # the next row
        self._unwritten: list[dict[str, Any]] = []  # videos since the last journalled shard
        self._buffers = {
            name: np.full((self._geometry.rows_per_shard, *spec.trailing), spec.fill, spec.dtype)
            for name, spec in self._columns.items()
        }
        self._resume()

    def keep(self, name: str) -> None:
        """Keep a committed video that `begin` was told to drop; do not append it, then. Raises
        CacheError if the split's columns have changed.
        """
        if self._other_columns:
            raise CacheError(
                f"{self._split}: its columns have changed: video {name!r} cannot be kept"
            )
        self._drop -= {name}
        self._kept = self._tables.drop_videos(self._drop)
        self._videos.add(name)

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video with its tracks. A video without tracks is added for its account.

        Raises CacheError for a video or track that exists already, and as `check_track` does.
        """
        if not self._began:
            raise CacheError(f"{self._split}: append before begin")
        if entry.name in self._videos:
            do = "append each video once"
            if entry.name in self.committed_videos:
                do = "drop it in begin to replace it"
            raise CacheError(f"{self._split}: video {entry.name!r} exists already: {do}")
        for track in tracks:
            check_track(track, entry.name, self._columns, self._extra.values())
        video = video_record(entry, tracks, self._next, self._extra.values())
        if self._keys is not None:
            video["key"] = self._keys[entry.name]
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(
                f"{self._split}: video {entry.name!r}: a track of that name exists already: {names}"
            )
        self._remember(video)
        for track in tracks:
            self._add_rows({**track.columns, **track.extra})
        self._unwritten.append(video)

    def commit(self, entries: Mapping[str, Any], *, note: Mapping[str, Any] | None = None) -> None:
        """Commit atomically, then read the new state for the next `begin`.

        Args:
            entries: the caller's entries of the manifest, as JSON values.
            note: additional entries of `provenance.json`.

        Raises CacheError if a key of `entries` is in `own_entries`.
        """
        if not self._began:
            raise CacheError(f"{self._split}: commit before begin")
        self._refuse(entries)
        filled = self._next % self._geometry.rows_per_shard
        if filled:
            self._write_shard(filled)
        if self._next > self._first:
            self._commits = [*self._commits, [self._first, self._next]]
            self._extent = self._next
        tables = Tables.from_records(self._new, self._extra.values())
        if not self._other_columns:
            tables = self._kept.plus(tables)
        self._publish({**entries, **self._own_entries(tables)}, tables, note)
        gone = sorted(self._shards.keys() - self._columns.keys())
        self._store.remove([self.place.array_key(name) for name in gone])
        self._store.remove(self.place.shard_folders(self._columns, self._invalid))
        self._remove_unfinished(self.place.staged)
        self._began = False
        self._open()

    def _own_entries(self, tables: Tables) -> dict[str, Any]:
        shards: dict[str, dict[str, str]] = {}
        for name, records in self._records.items():
            committed = self._shards.get(name, {})
            shards[name] = {
                number: record
                for number, record in committed.items()
                if int(number) not in self._invalid
            }
            for shard, record in records.items():
                shards[name][str(shard)] = record
        entries = {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": self._extent,
            "commits": self._commits,
            "geometry": asdict(self._geometry),
            "shards": shards,
        }
        if self._extra:
            entries[EXTRA] = {name: column.as_json() for name, column in self._extra.items()}
        return entries

    def _remember(self, video: Mapping[str, Any]) -> None:
        self._new.append(video)
        self._videos.add(video["name"])
        self._track_names.update(track["name"] for track in video["tracks"])

    def _add_rows(self, rows: Mapping[str, Array]) -> None:
        size = self._geometry.rows_per_shard
        n_rows = len(rows["frame_index"])
        n_added = 0
        while n_added < n_rows:
            offset = self._next % size
            take = min(size - offset, n_rows - n_added)
            for name, spec in self._columns.items():
                buffer = self._buffers[name][offset : offset + take]
                if name in rows:
                    buffer[...] = rows[name][n_added : n_added + take]
                else:
                    buffer[...] = spec.fill
            n_added += take
            self._next += take
            if offset + take == size:
                self._write_shard(size)

    def _write_shard(self, filled: int) -> None:
        """Write the first `filled` rows of the buffers as a shard, and stage it."""
        shard = self._shard_of(self._next - 1)
        self._lock.require()  # without it, this may be a shard that another writer has committed
        for name, spec in self._columns.items():
            rows = self._buffers[name][:filled]
            data, record = ShardLayout(spec, self._geometry).encode(rows)
            self._store.put(self._shard_key(name, shard), data, temporary=self.place.temporary)
            self._records[name][shard] = record
        written = {name: records[shard] for name, records in self._records.items()}
        self._stage(shard, written)
        self._unwritten = []

    def _stage(self, shard: int, files: Mapping[str, str]) -> None:
        piece = {"shard": shard, "files": files, "videos": self._unwritten}
        self._work.put(f"{SHARD}-{shard}", piece)

    def _resume(self) -> None:
        """Continue from the shards of a killed writer with the same plan; if there are none, remove
        uncommitted shards that other writers have left.
        """
        self._work = StagedWork(self.place, self._staged_head())
        pieces = self._read_pieces()
        videos: dict[str, dict[str, Any]] = {}
        for piece in pieces.values():
            for video in piece["videos"]:
                videos.pop(video["name"], None)  # the last one of each name, in its order
                videos[video["name"]] = video
        usable = [video for video in videos.values() if self._is_usable(video)]
        if not usable:
            self._remove_uncommitted_shards()
            return

        self._restore_buffers(pieces, [video["stop"] for video in videos.values()])
        first = self._shard_of(self._first)
        shard = self._shard_of(self._next)
        for name in self._columns:
            self._records[name] = {n: pieces[n]["files"][name] for n in range(first, shard)}
        if shard in pieces:
            staged = pieces[shard]["videos"]
            self._unwritten = [video for video in staged if video["stop"] <= self._next]
        # Videos that are not finished will be written again, over the same rows.
        if any(video["stop"] > self._next for video in videos.values()):
            self._work.remove([f"{SHARD}-{number}" for number in pieces if number > shard])
            if shard in pieces:
                self._stage(shard, pieces[shard]["files"])
        for video in usable:
            if video["stop"] <= self._next:
                self._remember(video)
        self.journalled = {video["name"]: video["fingerprint"] for video in self._new}

    def _staged_head(self) -> dict[str, Any]:
        """Everything that must be equal for staged shards to be used again."""
        head: dict[str, Any] = {
            "plan": self._plan,
            "base": None if self._commit is None else self._commit.digest,
            "drop": sorted(self._drop) if self._keys is None else "by keys",
            "invalidate": sorted(self._invalid),
            "columns": sorted(self._columns),
            "geometry": [self._geometry.rows_per_shard, self._geometry.rows_per_chunk],
        }
        if self._extra:
            head[EXTRA] = [column.stored_as for column in self._extra.values()]
        return head

    def _read_pieces(self) -> dict[int, Mapping[str, Any]]:
        """Heads of the pieces of staged shards, by shard number, ascending."""
        pieces = {}
        for head, _ in self._work.read(self._work.names(SHARD)).values():
            pieces[head["shard"]] = head
        return dict(sorted(pieces.items()))

    def _remove_uncommitted_shards(self) -> None:
        self._work.remove_shards()
        n_committed = 0 if self._commit is None else self._shard_of(self._first)
        for name in {**COLUMNS, **self._columns}:
            self._remove_shards(name, keep=range(n_committed))

    def _restore_buffers(self, pieces: Mapping[int, Mapping[str, Any]], stops: list[int]) -> None:
        """Set `_next` to the end of the last video that ends within finished shards, and fill the
        buffers up to there. `stops`: the ends of staged videos.
        """
        end = self._shard_of(self._first)
        while end in pieces and self._is_finished(end, pieces[end]["files"]):
            end += 1
        while True:
            limit = end * self._geometry.rows_per_shard
            self._next = max((stop for stop in stops if stop <= limit), default=self._first)
            try:
                self._read_buffers(pieces)
            except CacheError:  # the last shard is damaged: only those before it are finished
                end -= 1
            else:
                return

    def _is_finished(self, shard: int, records: Mapping[str, str]) -> bool:
        """Whether all files of a staged shard exist with their full size."""
        for name, record in records.items():
            if self._store.size(self._shard_key(name, shard)) != size_of(record):
                return False
        return True

    def _read_buffers(self, pieces: Mapping[int, Mapping[str, Any]]) -> None:
        """Read the rows before `_next` in its shard into the buffers. Raises CacheError."""
        shard, filled = divmod(self._next, self._geometry.rows_per_shard)
        if not filled:
            return
        start = self._next - filled
        for name, spec in self._columns.items():
            reader = Rows.kind(self._store)(
                self._store,
                self.place.array_key(name),
                ShardLayout(spec, self._geometry),
                start + self._geometry.rows_per_shard,
                {str(shard): pieces[shard]["files"][name]},
                lambda: None,
            )
            reader.read(np.array([start]), filled, self._buffers[name][None, :filled])

    def _shard_of(self, row: int) -> int:
        return row // self._geometry.rows_per_shard

    def _is_usable(self, video: Mapping[str, Any]) -> bool:
        """Whether a journalled video is part of the next commit: it is still to be appended, its
        key is unchanged, and its track names are free.
        """
        if self._keys is None:
            return True
        if video["key"] != self._keys.get(video["name"]):
            return False
        return self._track_names.isdisjoint(track["name"] for track in video["tracks"])

    def _shard_key(self, name: str, shard: int) -> str:
        return layout.shard_key(self.place.array_key(name), shard, self._columns[name].trailing)
