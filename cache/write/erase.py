"""Erase the rows of removed and replaced videos: no shard keeps them.  [cache]

A committed shard never changes, so rows that belong to no track any more stay in it. `erase_rows`
writes the other rows of such shards once more, in a new commit, and takes the shards off the
manifest; `gc` then removes their files. A video may have rows in several shards: shards that are
joined by videos go together.

Features are not computed again. The commit's note says which rows it has, and where they were
before:

    "moved": [160, 288, [[0, 10], [25, 143]]]    rows 160 to 287 were 0 to 9, then 25 to 142

By it, each stream gets its new shards, in a commit that also takes off the old ones. After a kill,
a later call goes on there, also after other commits: rows keep their numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from cache.format.manifest import Commit
from cache.read.split import FeatureCache, Split
from cache.windows import join_adjacent
from cache.write.base import MOVED
from cache.write.copy import Progress, write_stream, write_tracks


@dataclass(frozen=True, slots=True)
class Erasure:
    """What `erase_rows` does to a split and its streams."""

    removed: int  # rows of no track, which go
    moved: int  # rows of tracks, which are written again
    row_bytes: int  # of a row, with the features of all streams
    going: Collection[int]  # numbers of the split's shards that go


def erase_rows(
    split: Split, *, dry_run: bool = False, progress: Progress = lambda *_: None
) -> Erasure:
    """Write the tracks of each shard that has rows of no track again, with their features, and take
    these shards off the manifests; `gc` then removes the files. What a killed call has begun is
    finished.

    Args:
        split: the newest commit, which can be read until `gc`.
        dry_run: change nothing.

    Raises CacheError if a stream cannot be read, CacheChanged after another commit, and Busy if the
    split or a stream has a running writer.
    """
    row_bytes = 0
    for opened in (split, *map(split.open_stream, split.streams)):
        columns = opened.commit.columns
        row_bytes += sum(columns[name].row_bytes for name in opened.manifest["shards"])
    going = _find_going(split.commit)
    is_moving = np.isin(split.tracks.start // split.rows_per_shard, going)
    rows = split.tables.track_rows[is_moving]
    n_moved = int(np.diff(rows).sum())
    n_removed = -n_moved
    for shard in going:
        n_removed += len(split.commit.shard_rows(shard))
    if not dry_run:
        # First of rows that a killed call has moved: they may move again.
        _carry_features(split, progress)
        if going:
            n_shards = split.commit.geometry.shards(split.commit.extent)
            start = n_shards * split.rows_per_shard
            moved = [start, start + n_moved, join_adjacent(rows).tolist()]
            note = {**split.provenance, MOVED: moved}
            # numbered in the order of their rows
            videos = np.unique(split.tracks.video[is_moving])
            write_tracks(split.root, split, videos, going, "erase", note, progress)
            _carry_features(FeatureCache(split.root)[split.name], progress)
    return Erasure(n_removed, n_moved, row_bytes, going)


def _find_going(commit: Commit) -> list[int]:
    """Numbers of the shards of a split that go: those with a row of no track, and those that are
    joined to one by videos.
    """
    tables = commit.tables
    live = commit.live_by_shard
    dead = []
    for shard in commit.shards:
        if live[shard] < len(commit.shard_rows(shard)):
            dead.append(shard)
    first = np.arange(len(live)) * commit.geometry.rows_per_shard
    video_of = np.append(tables["track_video"], -1)  # by track; of rows without one: -1
    video = video_of[tables.track_of(first)]
    is_joined = (video >= 0) & (video == video_of[tables.track_of(first - 1)])
    group = np.cumsum(~is_joined)
    is_going = np.isin(group, group[dead])
    going: list[int] = np.flatnonzero(is_going).tolist()
    return going


def _carry_features(split: Split, progress: Progress) -> None:
    """Write the features of moved rows to the new shards of all streams, and take off the shards
    that the split does not have any more.
    """
    commit = split.commit
    before = np.full(commit.extent, -1)  # where each row was
    for note in commit.notes().values():
        start, stop, parts = note.get(MOVED, (0, 0, ()))
        if [start, stop] in commit.manifest["commits"]:
            ranges = [np.arange(*part) for part in parts]
            before[start:stop] = np.concatenate(ranges)
    for name in split.streams:
        stream = split.open_stream(name)
        own = commit.shards.keys() & stream.shards
        gone = stream.commit.shards.keys() - own
        if gone:
            note = stream.provenance
            write_stream(split, stream, before.__getitem__, gone, "erase", note, progress)
