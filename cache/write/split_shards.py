"""Rows of a split's next commit, written one shard at a time.  raw -> [tracks] -> features ->
windows

Each `NextCommit` makes one `SplitShards` and appends tracks to it. Rows are buffered until a shard
is full. The shard is then staged: its files have their final names, and its piece has the entry

    "videos": [{"name": ..., "stop": ...}, ...]

These are the records (`video_record`) of the videos that were appended since the shard before;
`stop` is the row after a video's last one. A staged shard is finished if its files are complete,
and a video if all of its rows are in finished shards. After a kill, `StagedShards.read` reads the
pieces, and `SplitShards.resume` continues after the last finished video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format.records import TrackRows
from cache.storage.base import Lock
from cache.write.staged import SHARD, ShardFiles, StagedShard

Video = Mapping[str, Any]  # a record that `video_record` made


@dataclass(frozen=True)
class StagedShards:
    """The shards that a killed writer with the same plan has staged."""

    shards: Mapping[int, StagedShard]  # by number, ascending

    @classmethod
    def read(cls, files: ShardFiles) -> StagedShards:
        shards = {staged.number: staged for staged in files.read(files.work.names(SHARD))}
        return cls({number: shards[number] for number in sorted(shards)})

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


class SplitShards:
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
        for track in tracks:
            self._add_rows({**track.columns, **track.extra})
        self._unstaged.append(video)

    def _add_rows(self, rows: Mapping[str, Array]) -> None:
        """Add the rows of a track: column -> (n_rows, *shape). Missing columns are filled with
        their fill value.
        """
        size = self._size
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

    def resume(self, staged: StagedShards) -> None:
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

    def _restore_buffers(self, staged: StagedShards) -> int:
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
            try:
                if n_rows:
                    self._read_buffers(shards[shard], n_rows)
            except CacheError:  # a shard before `end` is damaged: try without the last one
                end -= 1
            else:
                return next_row

    def _read_buffers(self, staged: StagedShard, n_rows: int) -> None:
        """Read the first rows of a staged shard into the buffers. Raises CacheError if they are
        damaged.
        """
        start = np.array([staged.number * self._size])
        for name, buffer in self._buffers.items():
            window = buffer[None, :n_rows]  # (1, n_rows, *shape)
            self._files.open_rows(staged, name).read(start, n_rows, window)
