"""The next commit of a split: the videos that stay, then the appended ones.  raw -> [tracks] ->
features -> windows

New rows begin at a shard boundary. `_SplitShards` buffers rows until a shard is full, and stages
it: its files have their final names, and its piece has the entry

    "videos": [{"name": ..., "stop": ...}, ...]

the records (`video_record`) of the videos that were appended since the shard before; `stop` is the
row after a video's last one. After a kill, the `NextCommit` of the next writer with the same plan
resumes (`_StagedShards`). Words for videos that the killed writer has appended:

    staged       a staged shard names the video; files of its rows may have been lost since
    finished     staged, and its rows are before the first shard that is missing or has another
                 size; a partial shard is also read
    usable       staged, and the next commit still needs it with the same rows (`_is_usable`)
    journalled   finished and usable: the next commit has it, and the caller does not append it

The rows of a finished video that is not usable stay in the shards, but no track refers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cache.errors import CacheError
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.layout import Column
from cache.format.manifest import Commit, shards_entry
from cache.format.records import TrackRows, VideoEntry, check_track, video_record
from cache.format.tables import Tables, encode_texts
from cache.format.track_tables import VideoTable
from cache.storage.base import Lock
from cache.write.staged import SHARD, Plan, ShardFiles, StagedShard, StagedWork

Video = Mapping[str, Any]  # a record that `video_record` made


@dataclass(frozen=True, kw_only=True)
class SplitState:
    """What is committed of a split, and the columns of its next commit, which has the same
    geometry.
    """

    commit: Commit  # `Commit.empty` if nothing is committed
    columns: Mapping[str, Column]  # per row, including extra ones
    extra: Mapping[str, ExtraColumn]

    @cached_property
    def has_other_columns(self) -> bool:
        """Whether some columns are new or declared differently than in the commit: then no
        committed video stays.
        """
        declared = ExtraColumn.from_manifest(self.commit.manifest)
        stored = {name: column.stored_as for name, column in declared.items()}
        target = {name: column.stored_as for name, column in self.extra.items()}
        return stored != target or not self.columns.keys() <= self.commit.manifest["shards"].keys()

    @cached_property
    def videos(self) -> Mapping[str, VideoEntry]:
        """The committed videos, by name."""
        return VideoTable(self.commit.tables).by_name()

    @property
    def first_row(self) -> int:
        """The first row of the next commit, at a shard boundary, because committed shards never
        change.
        """
        geometry = self.commit.geometry
        return geometry.shards(self.commit.extent) * geometry.rows_per_shard


class NextCommit:
    """The next commit of a split, which `SplitWriter.begin` returns. Call `append` for every new or
    changed video, then `commit`.
    """

    journalled: dict[str, str]
    """Fingerprints, by name, of videos that a killed writer with the same plan has finished, in
    order. They are part of this commit: do not append them again."""

    def __init__(
        self,
        state: SplitState,
        plan: Plan,
        lock: Lock,
        commit: Callable[[NextCommit, Mapping[str, Any]], None],
        *,
        drop: Collection[str],
        invalidate: Collection[int],
        keys: Mapping[str, str] | None,
    ) -> None:
        self.state = state
        """What is committed before it."""
        self._split = state.commit.place.split
        self._commit = commit
        self._keys = keys  # of videos to append; None: the plan decides all rows
        self._drop = frozenset(drop)  # names of committed videos
        unknown = sorted(self._drop - state.videos.keys())
        if unknown:
            raise CacheError(f"{self._split}: {unknown[:5]}: not among the committed videos")
        self.invalid_shards = frozenset(invalidate)
        """Numbers of the committed shards to remove."""
        if state.has_other_columns:
            if len(self._drop) < len(state.videos):
                raise CacheError(f"{self._split}: its columns have changed: drop all of its videos")
            self.invalid_shards = frozenset(state.commit.shards)  # no committed row stays
        self._remaining = state.commit.tables.drop_videos(self._drop)  # tables of videos that stay
        self._refuse_invalid_rows()
        # names of all videos, and of their tracks, that this commit has so far
        self._video_names = set(self._remaining.texts("video_name"))
        self._track_names = set(self._remaining.texts("track_name"))
        # records of journalled and appended videos, in the order of their rows
        self._new_videos: list[Video] = []
        work = StagedWork(state.commit.place, self._staged_conditions(plan))
        self.files = ShardFiles(state.commit.place, state.columns, state.commit.geometry, work)
        """Its uncommitted shards."""
        self._shards = _SplitShards(self.files, state.first_row, lock)
        self.is_resumed = self._resume()
        """Whether rows of a killed writer are used."""
        self.journalled = {video["name"]: video["fingerprint"] for video in self._new_videos}
        self.is_open = True
        """Whether it takes more videos. False once the writer replaces the manifest, and after an
        error while rows were added, some of which are missing then."""

    def _refuse_invalid_rows(self) -> None:
        """Raise CacheError if a shard to remove has rows of a track that stays."""
        live_shards = self._remaining.live_shards(self.state.commit.geometry)
        needed = sorted(self.invalid_shards.intersection(live_shards))
        if needed:
            raise CacheError(
                f"{self._split}: shards {needed[:5]} have rows of kept tracks: drop their "
                "videos, too"
            )

    def _staged_conditions(self, plan: Plan) -> dict[str, Any]:
        """Everything that must be equal for staged shards to be used again."""
        conditions: dict[str, Any] = {
            "plan": plan,
            "base": self.state.commit.digest or None,
            # With keys, other videos may be dropped than before: `_is_usable` checks each video.
            "drop": sorted(self._drop) if self._keys is None else "by keys",
            "invalidate": sorted(self.invalid_shards),
            "columns": sorted(self.state.columns),
            "geometry": self.state.commit.manifest["geometry"],
        }
        if self.state.extra:
            conditions[EXTRA] = [column.stored_as for column in self.state.extra.values()]
        return conditions

    def _resume(self) -> bool:
        """Take over the journalled videos. Returns False if no staged video is usable."""
        staged = _StagedShards.read(self.files)
        usable = [video for video in staged.videos if self._is_usable(video)]
        if not usable:
            return False
        # Of all staged videos: rows of finished ones that are not usable are skipped.
        self._shards.resume(staged)
        for video in usable:
            if video["stop"] <= self._shards.next_row:
                self._add_video(video)
        return True

    def _is_usable(self, video: Video) -> bool:
        """Whether this commit needs a staged video with the same rows: it is to be appended,
        its key is unchanged, and no video that stays has a track of the same name.

        Without keys, that follows from `_staged_conditions`.
        """
        if self._keys is None:
            return True
        if video["key"] != self._keys.get(video["name"]):
            return False
        return self._track_names.isdisjoint(track["name"] for track in video["tracks"])

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the accounts of all videos that this commit has so far: first those that stay from
        the commit before, then the journalled and appended ones.
        """
        videos = VideoTable(self._remaining)
        for number in range(len(videos)):
            yield videos.account(number)
        for video in self._new_videos:
            yield video["account"]

    def keep(self, name: str) -> None:
        """Keep a committed video that `begin` was told to drop; the caller does not append it then.
        None of its rows may be in a shard that `begin` invalidates; this is not checked.

        Raises CacheError if the columns have changed: then no committed row stays.
        """
        self._require_open()
        if self.state.has_other_columns:
            raise CacheError(
                f"{self._split}: its columns have changed: video {name!r} cannot be kept"
            )
        self._drop -= {name}
        self._remaining = self.state.commit.tables.drop_videos(self._drop)
        self._video_names.add(name)
        self._track_names.update(self._remaining.texts("track_name"))

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video with its tracks. A video without tracks is added for its account.

        Raises CacheError for a video or track that exists already, and as `check_track` does. After
        an error of the store, enter the writer again: it continues with the finished videos.
        """
        self._require_open()
        if entry.name in self._video_names:
            do = "append each video once"
            if entry.name in self.state.videos:
                do = "drop it in begin to replace it"
            raise CacheError(f"{self._split}: video {entry.name!r} exists already: {do}")
        for track in tracks:
            check_track(track, entry.name, self.state.columns, self.state.extra.values())
        first_row = self._shards.next_row
        video = video_record(entry, tracks, first_row, self.state.extra.values())
        if self._keys is not None:
            video["key"] = self._keys[entry.name]
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(
                f"{self._split}: video {entry.name!r}: a track of that name exists already: {names}"
            )
        # A video that no table takes would be journalled, and refused by each commit.
        encode_texts([entry.name, entry.source, entry.pixels, entry.fingerprint, *names])
        self.is_open = False
        self._add_video(video)
        self._shards.append(video, tracks)
        self.is_open = True

    def _add_video(self, video: Video) -> None:
        """Add a video, without its rows, to what this commit has so far."""
        self._new_videos.append(video)
        self._video_names.add(video["name"])
        self._track_names.update(track["name"] for track in video["tracks"])

    def commit(self, entries: Mapping[str, Any]) -> None:
        """Commit atomically. The writer's next `begin` starts from the new state.

        Args:
            entries: the caller's entries of the manifest, as JSON values. Their keys are not in
                `SplitWriter.own_entries`.

        Raises CacheError if the writer was entered again since. After an error of the store, the
        commit may be made, and files that it replaces be left. Enter the writer again: its `state`
        shows it.
        """
        self._require_open()
        self._commit(self, entries)

    def _require_open(self) -> None:
        """Raise CacheError after `commit`: the rows of more videos would be in its shards."""
        if not self.is_open:
            raise CacheError(
                f"{self._split}: this commit is made, or an error has ended it: call begin for the "
                "next one; after an error, enter the writer again, which continues"
            )

    def finish(self) -> tuple[dict[str, Any], Tables]:
        """Write the last shard. Returns the manifest's entries that are not the caller's, except
        those that `publish` adds, and the tables.
        """
        self._shards.write_last()
        state = self.state
        commits = state.commit.manifest["commits"]
        extent = state.commit.extent
        end = self._shards.next_row
        if end > state.first_row:
            commits = [*commits, [state.first_row, end]]
            extent = end
        tables = Tables.from_records(self._new_videos, state.extra.values())
        if not state.has_other_columns:
            tables = self._remaining.plus(tables)
        shards = state.commit.shards
        staying = {n: shards[n] for n in shards.keys() - self.invalid_shards}
        entries = {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": extent,
            "commits": commits,
            "geometry": state.commit.manifest["geometry"],
            "shards": shards_entry(state.columns, {**staying, **self._shards.records}),
        }
        if state.extra:
            entries[EXTRA] = {name: column.as_json() for name, column in state.extra.items()}
        return entries, tables


@dataclass(frozen=True)
class _StagedShards:
    """The shards that a killed writer with the same plan has staged."""

    shards: Mapping[int, StagedShard]  # by number, ascending

    @classmethod
    def read(cls, files: ShardFiles) -> _StagedShards:
        shards = sorted(files.read(files.work.names(SHARD)), key=lambda staged: staged.number)
        return cls({staged.number: staged for staged in shards})

    @cached_property
    def videos(self) -> list[Video]:
        """The videos that the pieces name, in the order of their rows. If a video was appended
        twice, for example with another key, only the later one is in the list.
        """
        videos: dict[str, Video] = {}
        for staged in self.shards.values():
            for video in staged.entries["videos"]:
                videos.pop(video["name"], None)  # the later one has its own position
                videos[video["name"]] = video
        return list(videos.values())


class _SplitShards:
    """The shards of the rows from `first_row` on. Call `append` for each video, then `write_last`.
    To continue the work of a killed writer, call `resume` before.

    Args:
        files: the split's files of shards, with its columns per row, including extra ones.
        first_row: the first row of the commit, at the start of a shard.
        lock: the writer's lock.
    """

    def __init__(self, files: ShardFiles, first_row: int, lock: Lock) -> None:
        self._files = files
        self._size = files.geometry.rows_per_shard
        self._first_row = first_row
        self._lock = lock
        self.next_row = first_row
        """The row that is appended next."""
        self.records: dict[int, Mapping[str, str]] = {}
        """Number of a written shard -> column -> its record for the manifest."""
        # appended videos that the piece of the shard that is not full yet will name
        self._unstaged: list[Video] = []
        # the rows of the shard that is not full yet, by column: (rows_per_shard, *shape)
        self._buffers = {name: column.empty(self._size) for name, column in files.columns.items()}

    def append(self, video: Video, tracks: Sequence[TrackRows]) -> None:
        """Add the rows of a video's tracks, and write each shard that they fill."""
        size = self._size
        for track in tracks:
            rows = {**track.columns, **track.extra}  # column -> (n_rows, *shape)
            n_rows = len(rows["frame_index"])
            n_added = 0
            while n_added < n_rows:
                offset = self.next_row % size
                n_fitting = min(size - offset, n_rows - n_added)
                for name, column in self._files.columns.items():
                    buffer = self._buffers[name][offset : offset + n_fitting]
                    if name in rows:
                        buffer[...] = rows[name][n_added : n_added + n_fitting]
                    else:
                        buffer[...] = column.fill
                n_added += n_fitting
                self.next_row += n_fitting
                if offset + n_fitting == size:
                    self._write_shard(size)
                    self._unstaged = []
        self._unstaged.append(video)

    def write_last(self) -> None:
        """Write the last shard, which is not full, if it has any rows."""
        n_buffered = self.next_row % self._size
        if n_buffered:
            self._write_shard(n_buffered)

    def _write_shard(self, n_rows: int) -> None:
        """Write the first `n_rows` rows of the buffers as a shard, and stage it."""
        self._lock.require()  # without it, this may be a shard that another writer has committed
        shard = (self.next_row - 1) // self._size
        rows = {name: buffer[:n_rows] for name, buffer in self._buffers.items()}
        staged = self._files.stage(shard, rows, {"videos": self._unstaged})
        self.records[shard] = staged.records

    def resume(self, staged: _StagedShards) -> None:
        """Continue after the last finished one of the staged videos. Its end becomes `next_row`.
        Later videos must be appended again; their rows replace those in staged shards.
        """
        shards = staged.shards
        self.next_row = self._restore_buffers(staged)
        first = self._first_row // self._size
        last = self.next_row // self._size  # this one is written again
        self.records = {number: shards[number].records for number in range(first, last)}
        if last in shards:
            videos = shards[last].entries["videos"]
            self._unstaged = [video for video in videos if video["stop"] <= self.next_row]
        # Pieces must not name videos whose rows are to be replaced. The piece of the last shard
        # still names the finished videos that end in it, for another kill before the shard is full.
        if any(video["stop"] > self.next_row for video in staged.videos):
            self._files.work.remove([shards[number].piece for number in shards if number > last])
            if last in shards:
                self._files.record(replace(shards[last], entries={"videos": self._unstaged}))

    def _restore_buffers(self, staged: _StagedShards) -> int:
        """Read the rows before the end of the last finished video, in the shard where it ends, into
        the buffers. Returns that end; `first_row` if no video is finished.
        """
        shards = staged.shards
        stops = [video["stop"] for video in staged.videos]
        end = self._first_row // self._size  # the last finished shard + 1
        while end in shards and not self._files.find_damage(shards[end]):
            end += 1
        while True:
            limit = end * self._size
            next_row = max((stop for stop in stops if stop <= limit), default=self._first_row)
            shard, n_rows = divmod(next_row, self._size)
            first = np.array([next_row - n_rows])
            try:
                for name, buffer in self._buffers.items():
                    if n_rows:
                        window = buffer[None, :n_rows]  # (1, n_rows, *shape)
                        self._files.open_rows(shards[shard], name).read(first, n_rows, window)
            except CacheError:  # a shard before `end` is damaged: try without the last one
                end -= 1
            else:
                return next_row
