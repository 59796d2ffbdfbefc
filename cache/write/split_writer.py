"""Write rows of a split, one atomic commit at a time.  raw -> [tracks] -> features -> windows

    with SplitWriter(root, "3dpw/train", columns=("bbox", "kp_2d"), plan="v1") as writer:
        writer.begin(drop=["old_video"])
        for entry, tracks in videos:
            if entry.name not in writer.journalled:
                writer.append(entry, tracks)
        writer.commit({"dataset": "3dpw"})

The next commit has the videos that stay, then the appended ones. New rows begin at a shard
boundary; `SplitShards` writes and stages them shard by shard. After a kill, `begin` of the next
writer with the same plan resumes. Words for videos that the killed writer has appended:

    staged       a staged shard names the video; files of its rows may have been lost since
    finished     staged, and its rows are before the first shard that is missing or has another
                 size; a partial shard is also read
    usable       staged, and the next commit still needs it with the same rows (`_is_usable`)
    journalled   finished and usable: the next commit has it, and the caller does not append it

The rows of a finished video that is not usable stay in the shards, but no track refers to them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from cache.errors import CacheError
from cache.format import layout
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.folders import create_groups, stream_folders
from cache.format.layout import COLUMNS, ROWS_PER_CHUNK, ROWS_PER_SHARD, Geometry
from cache.format.manifest import Commit, read_manifest
from cache.format.place import Place
from cache.format.records import TrackRows, VideoEntry, video_record
from cache.format.tables import Tables, VideoTable
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import Writer, follow_manifest
from cache.write.checks import check_track, columns_by_name
from cache.write.split_shards import SplitShards, Video
from cache.write.staged import Plan, StagedWork


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

    # `_open` reads the current commit, on entry and after each commit:
    #
    #     _commit, _tables     None and empty tables if nothing is committed
    #     _shards              the committed shards: number -> column -> record
    #     _commits, _extent    the rows [start, stop) of each commit; the end of the last
    #     _geometry            rows per shard and chunk, also of the next commit
    #     _first_row           the first row of the next commit, at a shard boundary, because
    #                          committed shards never change
    #
    # `begin` sets up the next commit, to which `keep` and `append` add:
    #
    #     _drop, _remaining    names of committed videos to drop; the tables of those that stay
    #     _invalid_shards      numbers of committed shards to remove
    #     _keys                the keys of videos to append; None: the plan decides all rows
    #     _new_videos          records of journalled and appended videos, in the order of their rows
    #     _video_names         names of all videos that the next commit has so far
    #     _track_names         names of their tracks
    #     _work, _new_shards   its staged work; the shards of its rows

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
        self.columns = {name: column for name, column in COLUMNS.items() if name in chosen}
        for name, column in self._extra.items():
            if column.per == "row":
                self.columns[name] = column
        self._plan = plan
        self._new_geometry = Geometry(
            rows_per_shard or ROWS_PER_SHARD, rows_per_chunk or ROWS_PER_CHUNK
        )
        self._has_begun = False
        self.journalled: dict[str, str] = {}
        """Fingerprints, by name, of videos that a killed writer with the same plan has finished, in
        order. They are part of the next commit: do not append them again."""
        self.committed_videos: Mapping[str, VideoEntry] = {}
        """The videos of the current commit, by name; empty when there is none."""
        self.has_other_columns = False
        """Whether the columns differ from the committed ones, so that no committed video stays."""

    @property
    def digest(self) -> str:
        """Digest of the current commit; "" if there is none."""
        return "" if self._commit is None else self._commit.digest

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the accounts of all videos that the next commit has so far: first those that stay
        from the current commit, then the journalled and appended ones. Call it after `begin`.
        """
        videos = VideoTable(self._remaining)
        for number in range(len(videos)):
            yield videos.account(number)
        for video in self._new_videos:
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
            self._shards: dict[int, dict[str, str]] = {}
            self.has_other_columns = False
        else:
            follow_manifest(self._commit)
            self._tables = self._commit.tables
            earlier = self._commit.manifest
            self._shards = self._commit.shards
            self.has_other_columns = self._compare_columns(earlier)
        self.committed_videos = VideoTable(self._tables).by_name()
        self._geometry = self._new_geometry
        if "geometry" in earlier:
            self._geometry = Geometry(**earlier["geometry"])
        self._commits: list[list[int]] = list(earlier.get("commits", []))
        self._extent = int(earlier.get("extent", 0))
        self._first_row = self._geometry.shards(self._extent) * self._geometry.rows_per_shard

    def _compare_columns(self, committed: Mapping[str, Any]) -> bool:
        """Whether some columns are new or declared differently than in the commit. Raises
        CacheError if a committed column in `COLUMNS` is missing now.
        """
        names = committed["shards"].keys()
        gone = sorted(names & COLUMNS.keys() - self.columns.keys())
        if gone:
            do = (
                "A split keeps its columns over all commits: bring them, or remove the split "
                "and convert it again."
            )
            raise CacheError.at(
                self._store.location(self.place.manifest),
                expected=f"columns {gone}",
                found="a commit without them",
                do=do,
            )
        declared = ExtraColumn.from_manifest(committed)
        stored = {name: column.stored_as for name, column in declared.items()}
        target = {name: column.stored_as for name, column in self._extra.items()}
        return stored != target or not self.columns.keys() <= names

    def _longest_stream(self) -> Mapping[str, Any]:
        """The manifest of the stream with the largest extent; {} if there is no stream.

        If the split has lost its manifest, this tells which rows streams may have features for.
        """
        manifests: list[Mapping[str, Any]] = []
        for stream in stream_folders(self._store, self._split):
            with suppress(CacheError):  # a stream with a damaged manifest has nothing to carry over
                current = read_manifest(Place(self._store, self._split, stream))
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
        """Start a commit, and resume the work of a killed writer with the same plan.

        Args:
            drop: names of committed videos to remove or replace.
            invalidate: numbers of shards to remove from all columns. They may not have rows of
                tracks that stay. If the columns have changed, all committed shards are removed.
            keys: for each video to append, what decides its rows besides the plan. Finished
                videos with other keys must be appended again. None: the plan decides all rows.

        Raises CacheError for unknown videos, for a shard with rows of a track that stays, and for a
        video that stays although the columns have changed.
        """
        if self._has_begun:
            raise CacheError(f"{self._split}: begin was called before: commit first")
        self._drop = frozenset(drop)
        unknown = sorted(self._drop - self.committed_videos.keys())
        if unknown:
            raise CacheError(f"{self._split}: {unknown[:5]}: not among the committed videos")
        remaining_names = self.committed_videos.keys() - self._drop
        self._invalid_shards = frozenset(invalidate)
        if self.has_other_columns:
            if remaining_names:
                raise CacheError(f"{self._split}: its columns have changed: drop all of its videos")
            # No committed row stays, so no committed shard does.
            self._invalid_shards = frozenset(self._shards)
        self._keys = keys
        self._remaining = self._tables.drop_videos(self._drop)
        self._refuse_invalid_rows()

        self._has_begun = True
        self.journalled = {}
        self._new_videos: list[Video] = []
        self._video_names = remaining_names
        self._track_names = set(self._remaining.texts("track_name"))
        self._work = StagedWork(self.place, self._staged_conditions())
        self._new_shards = SplitShards(
            self.place, self.columns, self._geometry, self._first_row, self._work, self._lock
        )
        self._resume()

    def _refuse_invalid_rows(self) -> None:
        """Raise CacheError if a shard to remove has rows of a track that stays."""
        live_shards = self._remaining.live_shards(self._geometry)
        needed = sorted(self._invalid_shards.intersection(live_shards))
        if needed:
            raise CacheError(
                f"{self._split}: shards {needed[:5]} have rows of kept tracks: drop their "
                "videos, too"
            )

    def keep(self, name: str) -> None:
        """Keep a committed video that `begin` was told to drop; the caller does not append it then.
        None of its rows may be in a shard that `begin` invalidates; this is not checked.

        Raises CacheError if the columns have changed: then no committed row stays.
        """
        if self.has_other_columns:
            raise CacheError(
                f"{self._split}: its columns have changed: video {name!r} cannot be kept"
            )
        self._drop -= {name}
        self._remaining = self._tables.drop_videos(self._drop)
        self._video_names.add(name)
        self._track_names.update(self._remaining.texts("track_name"))

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video with its tracks. A video without tracks is added for its account.

        Raises CacheError for a video or track that exists already, and as `check_track` does.
        """
        if not self._has_begun:
            raise CacheError(f"{self._split}: append before begin")
        if entry.name in self._video_names:
            do = "append each video once"
            if entry.name in self.committed_videos:
                do = "drop it in begin to replace it"
            raise CacheError(f"{self._split}: video {entry.name!r} exists already: {do}")
        for track in tracks:
            check_track(track, entry.name, self.columns, self._extra.values())
        first_row = self._new_shards.next_row
        video = video_record(entry, tracks, first_row, self._extra.values())
        if self._keys is not None:
            video["key"] = self._keys[entry.name]
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(
                f"{self._split}: video {entry.name!r}: a track of that name exists already: {names}"
            )
        self._add_video(video)
        self._new_shards.append(video, tracks)

    def _add_video(self, video: Video) -> None:
        """Add a video, without its rows, to what the next commit has so far."""
        self._new_videos.append(video)
        self._video_names.add(video["name"])
        self._track_names.update(track["name"] for track in video["tracks"])

    def commit(self, entries: Mapping[str, Any]) -> None:
        """Commit atomically, then read the new state for the next `begin`.

        Args:
            entries: the caller's entries of the manifest, as JSON values.

        Raises CacheError if a key of `entries` is in `own_entries`.
        """
        if not self._has_begun:
            raise CacheError(f"{self._split}: commit before begin")
        self._refuse(entries)
        self._new_shards.write_last()
        end = self._new_shards.next_row
        if end > self._first_row:
            self._commits = [*self._commits, [self._first_row, end]]
            self._extent = end
        tables = Tables.from_records(self._new_videos, self._extra.values())
        if not self.has_other_columns:
            tables = self._remaining.plus(tables)
        self._publish({**entries, **self._cache_entries(tables)}, tables)
        self._remove_replaced()
        self._remove_unfinished(self.place.staged)
        self._has_begun = False
        self._open()

    def _remove_replaced(self) -> None:
        """Remove columns that the split no longer has, and the shards that `begin` invalidated."""
        if self._commit is not None:
            gone = sorted(self._commit.manifest["shards"].keys() - self.columns.keys())
            self._store.remove([self.place.array_key(name) for name in gone])
        self._store.remove(self.place.shard_folders(self.columns, self._invalid_shards))

    def _cache_entries(self, tables: Tables) -> dict[str, Any]:
        """The manifest's entries that are not the caller's, except those that `publish` adds.

        tables: those of the next commit.
        """
        shards = {n: self._shards[n] for n in self._shards.keys() - self._invalid_shards}
        entries = {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": self._extent,
            "commits": self._commits,
            "geometry": asdict(self._geometry),
            "shards": self._manifest_shards({**shards, **self._new_shards.records}),
        }
        if self._extra:
            entries[EXTRA] = {name: column.as_json() for name, column in self._extra.items()}
        return entries

    def _resume(self) -> None:
        """Take over the journalled videos. If no staged video is usable, remove the uncommitted
        shards that killed writers have left.
        """
        staged = self._new_shards.read_staged()
        usable = [video for video in staged if self._is_usable(video)]
        if not usable:
            self._remove_uncommitted({**COLUMNS, **self.columns})
            return
        # Of all staged videos: rows of finished ones that are not usable are skipped.
        self._new_shards.resume(staged)
        for video in usable:
            if video["stop"] <= self._new_shards.next_row:
                self._add_video(video)
        self.journalled = {video["name"]: video["fingerprint"] for video in self._new_videos}

    def _is_usable(self, video: Video) -> bool:
        """Whether the next commit needs a staged video with the same rows: it is to be appended,
        its key is unchanged, and no video that stays has a track of the same name.

        Without keys, that follows from `_staged_conditions`.
        """
        if self._keys is None:
            return True
        if video["key"] != self._keys.get(video["name"]):
            return False
        return self._track_names.isdisjoint(track["name"] for track in video["tracks"])

    def _staged_conditions(self) -> dict[str, Any]:
        """Everything that must be equal for staged shards to be used again."""
        conditions: dict[str, Any] = {
            "plan": self._plan,
            "base": None if self._commit is None else self._commit.digest,
            # With keys, other videos may be dropped than before: `_is_usable` checks each video.
            "drop": sorted(self._drop) if self._keys is None else "by keys",
            "invalidate": sorted(self._invalid_shards),
            "columns": sorted(self.columns),
            "geometry": [self._geometry.rows_per_shard, self._geometry.rows_per_chunk],
        }
        if self._extra:
            conditions[EXTRA] = [column.stored_as for column in self._extra.values()]
        return conditions
