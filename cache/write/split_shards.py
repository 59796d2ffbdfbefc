"""Shards of the rows that a split's next commit appends, staged one by one.  raw -> [tracks] ->
features -> windows

New rows begin at a shard boundary. `SplitShards` buffers rows until a shard is full, and stages it:
its files have their final names, and its piece has the entry

    "videos": [{"name": ..., "stop": ...}, ...]

the records (`VideoRecord`) of the videos that were appended since the shard before. After a kill,
the next writer with the same plan resumes. Words for videos that the killed writer has appended:

    staged       a staged shard names the video; files of its rows may have been lost since
    finished     staged, and its rows are before the first shard that is missing or has another
                 size; a partial shard is also read
    usable       staged, and the next commit still needs it with the same rows
    journalled   finished and usable: the next commit has it, and the caller does not append it

The rows of a finished video that is not usable stay in the shards, but no track refers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format.records import TrackRows, VideoRecord
from cache.storage.base import Lock
from cache.write.staged import SHARD, ShardFiles, StagedShard


class SplitShards:
    """The shards of a commit's rows. Call `append` for each video, then `write_last`.

    Args:
        files: the split's files of shards, with its columns per row, including extra ones.
        lock: the writer's lock.
        begun: the rows that a killed writer has left, if any.
        journalled: the videos of these rows that the commit has.
    """

    def __init__(
        self,
        files: ShardFiles,
        lock: Lock,
        begun: _BegunRows,
        journalled: Sequence[VideoRecord],
    ) -> None:
        self.files = files
        self.journalled = journalled
        self._size = files.geometry.rows_per_shard
        self._lock = lock
        self.next_row = begun.next_row
        """The row that is appended next."""
        self.records = {**begun.records}
        """Number of a written shard -> column -> its record for the manifest."""
        self._unstaged = [*begun.unstaged]
        self._buffers = begun.buffers

    @classmethod
    def resume(
        cls,
        files: ShardFiles,
        lock: Lock,
        first_row: int,
        is_usable: Callable[[VideoRecord], bool],
    ) -> Self:
        """Continue after the last finished video of a killed writer with the same plan. Later
        videos must be appended again; their rows replace those in staged shards. Without a
        journalled video, begin at `first_row`.

        first_row: the first row of the commit, at the start of a shard.
        """
        staged = _StagedShards.read(files, first_row)
        # Of all staged videos: rows of finished ones that are not usable are skipped.
        begun = staged.restore()
        journalled = []
        for video in staged.videos:
            if video.stop <= begun.next_row and is_usable(video):
                journalled.append(video)
        if journalled:
            staged.forget_after(begun)
        else:
            begun = _StagedShards(files, first_row, {}).restore()
        return cls(files, lock, begun, journalled)

    def append(self, video: VideoRecord, tracks: Sequence[TrackRows]) -> None:
        """Add the rows of a video's tracks, and write each shard that they fill."""
        size = self._size
        for track in tracks:
            rows = {**track.columns, **track.extra}  # column -> (n_rows, *shape)
            n_rows = len(rows["frame_index"])
            n_added = 0
            while n_added < n_rows:
                offset = self.next_row % size
                n_fitting = min(size - offset, n_rows - n_added)
                for name, column in self.files.columns.items():
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
        staged = self.files.stage(shard, rows, _entries(self._unstaged))
        self.records[shard] = staged.records


@dataclass(frozen=True)
class _BegunRows:
    """The rows up to the end of the last finished video."""

    next_row: int  # that end; the first row of the commit if no video is finished
    # number of a staged shard before the one with that end -> column -> its record
    records: Mapping[int, Mapping[str, str]]
    # finished videos that the piece of the shard with that end names
    unstaged: Sequence[VideoRecord]
    # the rows of that shard, by column: (rows_per_shard, *shape)
    buffers: Mapping[str, Array]


@dataclass(frozen=True)
class _StagedShards:
    """The shards that a killed writer with the same plan has staged.

    first_row: the first row of the commit.
    """

    files: ShardFiles
    first_row: int
    shards: Mapping[int, StagedShard]  # by number, ascending

    @classmethod
    def read(cls, files: ShardFiles, first_row: int) -> _StagedShards:
        shards = sorted(files.read(files.work.names(SHARD)), key=lambda staged: staged.number)
        return cls(files, first_row, {staged.number: staged for staged in shards})

    @cached_property
    def videos(self) -> list[VideoRecord]:
        """The videos that the pieces name, in the order of their rows. If a video was appended
        twice, for example with another key, only the later one is in the list.
        """
        videos: dict[str, VideoRecord] = {}
        for staged in self.shards.values():
            for video in _videos_in(staged):
                videos.pop(video.name, None)  # the later one has its own position
                videos[video.name] = video
        return list(videos.values())

    def restore(self) -> _BegunRows:
        """Read the rows before the end of the last finished video, in the shard where it ends."""
        files = self.files
        size = files.geometry.rows_per_shard
        buffers = {name: column.empty(size) for name, column in files.columns.items()}
        first = self.first_row // size
        end = first  # the last finished shard + 1
        while end in self.shards and not files.find_damage(self.shards[end]):
            end += 1
        next_row = self._last_stop(end * size)
        while not self._read_last_shard(next_row, buffers):  # damaged: try without the last one
            end -= 1
            next_row = self._last_stop(end * size)
        last = next_row // size  # this one is written again
        records = {number: self.shards[number].records for number in range(first, last)}
        unstaged: list[VideoRecord] = []
        if last in self.shards:
            for video in _videos_in(self.shards[last]):
                if video.stop <= next_row:
                    unstaged.append(video)
        return _BegunRows(next_row, records, unstaged, buffers)

    def _last_stop(self, limit: int) -> int:
        """The end of the last video that ends at row `limit` or before."""
        stops = [video.stop for video in self.videos if video.stop <= limit]
        return max(stops, default=self.first_row)

    def _read_last_shard(self, next_row: int, buffers: Mapping[str, Array]) -> bool:
        """Read the rows before `next_row` of its shard into buffers. Returns whether the shard is
        intact.
        """
        shard, n_rows = divmod(next_row, self.files.geometry.rows_per_shard)
        if not n_rows:
            return True
        first = np.array([next_row - n_rows])
        try:
            for name, buffer in buffers.items():
                window = buffer[None, :n_rows]  # (1, n_rows, *shape)
                self.files.open_rows(self.shards[shard], name).read(first, n_rows, window)
        except CacheError:
            return False
        return True

    def forget_after(self, begun: _BegunRows) -> None:
        """Make the pieces not name videos whose rows are to be replaced. The piece of the last
        shard still names the finished videos that end in it, for another kill before it is full.
        """
        if all(video.stop <= begun.next_row for video in self.videos):
            return
        last = begun.next_row // self.files.geometry.rows_per_shard
        later = [staged.piece for number, staged in self.shards.items() if number > last]
        self.files.work.remove(later)
        if last in self.shards:
            entries = _entries(begun.unstaged)
            self.files.record(replace(self.shards[last], entries=entries))


def _entries(videos: Sequence[VideoRecord]) -> dict[str, object]:
    """The entries of a shard's piece."""
    return {"videos": [video.as_json() for video in videos]}


def _videos_in(staged: StagedShard) -> list[VideoRecord]:
    """The videos that the piece of a shard names."""
    return [VideoRecord.from_json(record) for record in staged.entries["videos"]]
