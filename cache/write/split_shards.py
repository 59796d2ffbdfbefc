"""Rows of a split's next commit, written one shard at a time.  raw -> [tracks] -> features ->
windows

Each `NextCommit` makes one `SplitShards` and appends tracks to it. Rows are buffered until a shard
is full. The shard is then written and staged: its files have their final names, and the piece
`shard-<number>` of staged work is

    {"shard": 12, "files": {"bbox": "<record>", ...}, "videos": [{"name": ..., "stop": ...}, ...]}

`videos` are the records (`video_record`) of the videos that were appended since the shard before;
`stop` is the row after a video's last one. A staged shard is finished if its files are complete,
and a video if all of its rows are in finished shards. After a kill, `StagedShards.read` reads the
pieces, and `SplitShards.resume` continues after the last finished video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError
from cache.format.layout import Column, Geometry
from cache.format.place import Place
from cache.format.records import TrackRows
from cache.format.shard import ShardLayout, size_of
from cache.read.rows import Rows
from cache.storage.base import Lock
from cache.write.staged import SHARD, ShardFiles, StagedWork

Video = Mapping[str, Any]  # a record that `video_record` made


@dataclass(frozen=True)
class StagedShards:
    """The shards that a killed writer with the same plan has staged."""

    pieces: Mapping[int, Mapping[str, Any]]  # by number, ascending

    @classmethod
    def read(cls, work: StagedWork) -> StagedShards:
        pieces = [head for head, _ in work.read(work.names(SHARD)).values()]
        pieces.sort(key=lambda piece: int(piece["shard"]))
        return cls({piece["shard"]: piece for piece in pieces})

    @cached_property
    def videos(self) -> list[Video]:
        """The videos that the pieces name, in the order of their rows. If a video was appended
        twice, for example with another key, only the later one is in the list.
        """
        videos: dict[str, Video] = {}
        for piece in self.pieces.values():
            for video in piece["videos"]:
                videos.pop(video["name"], None)  # the later one has its own position
                videos[video["name"]] = video
        return list(videos.values())


class SplitShards(ShardFiles):
    """The shards of the rows from `first_row` on. Call `append` for each video, then `write_last`.
    To continue the work of a killed writer, call `resume` before.

    Args:
        place: the split.
        columns: its columns per row, including extra ones, by name.
        first_row: the first row of the commit, at the start of a shard.
        work: the staged work of the commit's plan.
        lock: the writer's lock.
    """

    def __init__(
        self,
        place: Place,
        columns: Mapping[str, Column],
        geometry: Geometry,
        first_row: int,
        work: StagedWork,
        lock: Lock,
    ) -> None:
        super().__init__(place, columns, work)
        self.geometry = geometry
        self._first_row = first_row
        self._lock = lock
        self.next_row = first_row
        """The row that is appended next."""
        self.records: dict[int, Mapping[str, str]] = {}
        """Number of a written shard -> column -> its record for the manifest."""
        # appended videos that the piece of the shard that is not full yet will name
        self._unstaged: list[Video] = []
        # the rows of the shard that is not full yet, by column: (rows_per_shard, *shape)
        self._buffers = {
            name: column.empty(geometry.rows_per_shard) for name, column in columns.items()
        }

    def append(self, video: Video, tracks: Sequence[TrackRows]) -> None:
        """Add the rows of a video's tracks, and write each shard that they fill."""
        for track in tracks:
            self._add_rows({**track.columns, **track.extra})
        self._unstaged.append(video)

    def _add_rows(self, rows: Mapping[str, Array]) -> None:
        """Add the rows of a track: column -> (n_rows, *shape). Missing columns are filled with
        their fill value.
        """
        size = self.geometry.rows_per_shard
        n_rows = len(rows["frame_index"])
        n_added = 0
        while n_added < n_rows:
            offset = self.next_row % size
            n_fitting = min(size - offset, n_rows - n_added)
            for name, column in self.columns.items():
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
        n_buffered = self.next_row % self.geometry.rows_per_shard
        if n_buffered:
            self._write_shard(n_buffered)

    def _write_shard(self, n_rows: int) -> None:
        """Write the first `n_rows` rows of the buffers as a shard, and stage it."""
        shard = self._shard_of(self.next_row - 1)
        self._lock.require()  # without it, this may be a shard that another writer has committed
        rows = {name: buffer[:n_rows] for name, buffer in self._buffers.items()}
        self.records[shard] = self._write_files(shard, rows)
        self._stage(shard, self.records[shard])

    def _stage(self, shard: int, files: Mapping[str, str]) -> None:
        """Write or replace the piece of a shard, with the videos in `_unstaged`. files: column ->
        record.
        """
        piece = {"shard": shard, "files": files, "videos": self._unstaged}
        self._work.put(f"{SHARD}-{shard}", piece)

    def resume(self, staged: StagedShards) -> None:
        """Continue after the last finished one of the staged videos. Its end becomes `next_row`.
        Later videos must be appended again; their rows replace those in staged shards.
        """
        self.next_row = self._restore_buffers(staged)
        first = self._shard_of(self._first_row)
        shard = self._shard_of(self.next_row)  # it is written again
        pieces = staged.pieces
        self.records = {n: pieces[n]["files"] for n in range(first, shard)}
        if shard in pieces:
            videos = pieces[shard]["videos"]
            self._unstaged = [video for video in videos if video["stop"] <= self.next_row]
        # Pieces must not name videos whose rows are to be replaced. The piece of `shard` still
        # names the finished videos that end in it, for another kill before the shard is full.
        if any(video["stop"] > self.next_row for video in staged.videos):
            self._work.remove([f"{SHARD}-{number}" for number in pieces if number > shard])
            if shard in pieces:
                self._stage(shard, pieces[shard]["files"])

    def _restore_buffers(self, staged: StagedShards) -> int:
        """Read the rows before the end of the last finished video, in the shard where it ends, into
        the buffers. Returns that end; `first_row` if no video is finished.
        """
        stops = [video["stop"] for video in staged.videos]
        end = self._shard_of(self._first_row)  # the last finished shard + 1
        while end in staged.pieces and self._is_finished(end, staged.pieces[end]["files"]):
            end += 1
        while True:
            limit = end * self.geometry.rows_per_shard
            next_row = max((stop for stop in stops if stop <= limit), default=self._first_row)
            shard, n_rows = divmod(next_row, self.geometry.rows_per_shard)
            try:
                if n_rows:
                    self._read_buffers(shard, n_rows, staged.pieces[shard]["files"])
            except CacheError:  # a shard before `end` is damaged: try without the last one
                end -= 1
            else:
                return next_row

    def _is_finished(self, shard: int, files: Mapping[str, str]) -> bool:
        """Whether all files of a staged shard (column -> record) exist with their full size."""
        keys = self._file_keys(shard)
        return all(self._store.size(keys[name]) == size_of(files[name]) for name in files)

    def _read_buffers(self, shard: int, n_rows: int, files: Mapping[str, str]) -> None:
        """Read the first rows of a staged shard into the buffers. Raises CacheError if they are
        damaged.
        """
        start = shard * self.geometry.rows_per_shard
        for name, column in self.columns.items():
            reader = Rows.kind(self._store)(
                self._store,
                self.place.array_key(name),
                ShardLayout(column, self.geometry),
                start + n_rows,
                {str(shard): files[name]},
                lambda: None,  # not committed: there is no manifest to compare
            )
            window = self._buffers[name][None, :n_rows]  # (1, n_rows, *shape)
            reader.read(np.array([start]), n_rows, window)

    def _shard_of(self, row: int) -> int:
        return row // self.geometry.rows_per_shard
