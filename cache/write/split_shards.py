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
from dataclasses import fields, replace
from typing import Self

import numpy as np

from cache.errors import CacheError
from cache.format.records import TrackRows, VideoRecord
from cache.storage.base import Lock
from cache.write.staged import SHARD, ShardFiles, StagedShard


class SplitShards:
    """The shards of a commit's rows. Call `append` for each video, then `write_last`.

    Args:
        files: the split's files of shards, with its columns per row, including extra ones.
        lock: the writer's lock.
        staged: what a killed writer with the same plan has left.
        journalled: the videos of it that the commit has.
    """

    def __init__(
        self,
        files: ShardFiles,
        lock: Lock,
        staged: _StagedRows,
        journalled: Sequence[VideoRecord],
    ) -> None:
        self.files = files
        self.journalled = journalled
        self._size = files.geometry.rows_per_shard
        self._lock = lock
        self.next_row = staged.next_row
        """The row that is appended next."""
        self.records = staged.records
        """Number of a written shard -> column -> its record for the manifest."""
        self._unstaged = staged.unstaged
        self._buffers = staged.buffers

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
        shards = sorted(files.read(files.work.names(SHARD)), key=lambda staged: staged.number)
        staged = _StagedRows(files, first_row, shards)
        # Of all staged videos: rows of finished ones that are not usable are skipped.
        finished = [video for video in staged.videos if video.stop <= staged.next_row]
        journalled = [*filter(is_usable, finished)]
        if not journalled:
            return cls(files, lock, _StagedRows(files, first_row, []), [])
        if len(finished) < len(staged.videos):
            staged.forget_unfinished()
        return cls(files, lock, staged, journalled)

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


class _StagedRows:
    """The rows of staged shards, up to the end of the last finished video.

    Args:
        first_row: the first row of the commit, at the start of a shard.
        shards: ascending.
    """

    def __init__(self, files: ShardFiles, first_row: int, shards: Sequence[StagedShard]) -> None:
        self._files = files
        self._first_row = first_row
        self._size = files.geometry.rows_per_shard
        self._shards = {staged.number: staged for staged in shards}
        self.videos = _latest_videos(shards)
        # the rows of the shard with that end, by column: (rows_per_shard, *shape)
        self.buffers = {name: column.empty(self._size) for name, column in files.columns.items()}
        self.next_row = self._restore_buffers()
        """That end; `first_row` if no video is finished."""
        self._last = self.next_row // self._size  # number of the shard with that end
        self.records: dict[int, Mapping[str, str]] = {}
        """Number of a shard before that one -> column -> its record."""
        for number in range(first_row // self._size, self._last):
            self.records[number] = self._shards[number].records
        self.unstaged: list[VideoRecord] = []
        """The finished videos that the piece of the shard with that end names."""
        if self._last in self._shards:
            for video in _videos_of(self._shards[self._last]):
                if video.stop <= self.next_row:
                    self.unstaged.append(video)

    def _restore_buffers(self) -> int:
        """Read the rows before the end of the last finished video, in the shard where it ends, into
        the buffers. Returns that end.
        """
        end = self._first_row // self._size  # the last finished shard + 1
        while end in self._shards and not self._files.find_damage(self._shards[end]):
            end += 1
        while True:
            limit = end * self._size
            stops = [video.stop for video in self.videos if video.stop <= limit]
            next_row = max(stops, default=self._first_row)
            if self._fill_buffers(next_row):
                return next_row
            end -= 1  # a shard before `end` is damaged: try without the last one

    def _fill_buffers(self, next_row: int) -> bool:
        """Fill the buffers with the rows before `next_row` of its shard. Returns whether the shard
        is intact.
        """
        shard, n_rows = divmod(next_row, self._size)
        first = np.array([next_row - n_rows])
        try:
            for name, buffer in self.buffers.items():
                if n_rows:
                    window = buffer[None, :n_rows]  # (1, n_rows, *shape)
                    self._files.open_rows(self._shards[shard], name).read(first, n_rows, window)
        except CacheError:
            return False
        return True

    def forget_unfinished(self) -> None:
        """Make the pieces not name videos whose rows are to be replaced. The piece of the last
        shard still names the finished videos that end in it, for another kill before it is full.
        """
        later = [staged.piece for number, staged in self._shards.items() if number > self._last]
        self._files.work.remove(later)
        if self._last in self._shards:
            entries = _entries(self.unstaged)
            self._files.record(replace(self._shards[self._last], entries=entries))


def _latest_videos(shards: Sequence[StagedShard]) -> list[VideoRecord]:
    """The videos that the pieces name, in the order of their rows. If a video was appended twice,
    for example with another key, only the later one is in the list.
    """
    videos: dict[str, VideoRecord] = {}
    for staged in shards:
        for video in _videos_of(staged):
            videos.pop(video.name, None)  # the later one has its own position
            videos[video.name] = video
    return list(videos.values())


def _entries(videos: Sequence[VideoRecord]) -> dict[str, object]:
    """The entries of a shard's piece."""
    names = [field.name for field in fields(VideoRecord)]
    # `asdict` would copy all runs of all tracks
    return {"videos": [{name: getattr(video, name) for name in names} for video in videos]}


def _videos_of(staged: StagedShard) -> list[VideoRecord]:
    """The videos that the piece of a shard names."""
    return [VideoRecord(**record) for record in staged.entries["videos"]]
