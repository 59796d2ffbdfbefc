"""Write rows of a split, one atomic commit at a time.  raw -> [tracks] -> features -> windows

    with SplitWriter(root, "3dpw/train", columns=("bbox", "kp_2d"), plan="v1") as writer:
        following = writer.begin(drop=["old_video"])
        for entry, tracks in videos:
            if entry.name not in following.journalled:
                following.append(entry, tracks)
        following.commit({"dataset": "3dpw"})

`SplitWriter` has the lock and the committed state; `NextCommit` has what is added to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from cache.errors import CacheError
from cache.format import layout
from cache.format.entries import SPLIT_ENTRIES
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.folders import create_groups
from cache.format.layout import COLUMNS, ROWS_PER_CHUNK, ROWS_PER_SHARD, SUMS, Geometry
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.records import VideoRecord, columns_by_name
from cache.format.tables import Tables
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import Writer, follow_manifest
from cache.write.next_commit import NextCommit, SplitState
from cache.write.split_shards import SplitShards
from cache.write.staged import Plan, ShardFiles, StagedWork


class SplitWriter(Writer):
    """The one writer of a split. Use it as a context manager: `begin` the next commit, append
    videos to it, and commit it.

    Leaving without a commit changes nothing for readers. The next writer with the same `plan`
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

    own_entries = frozenset({*SPLIT_ENTRIES, EXTRA, SUMS})

    state: SplitState
    """What is committed now. Set on entry and after each commit."""

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
        specs = {**COLUMNS, **self._extra}
        unknown = sorted(set(columns) - specs.keys())
        if unknown:
            raise CacheError(f"{split}: no such columns: {unknown}. Known: {sorted(specs)}")
        chosen = {*columns, "frame_index", *self._extra}
        self._columns = {n: specs[n] for n in specs if n in chosen and specs[n].per == "row"}
        self._plan = plan
        self._new_geometry = Geometry(
            rows_per_shard or ROWS_PER_SHARD, rows_per_chunk or ROWS_PER_CHUNK
        )
        # what `begin` returned; None before that, and after its commit
        self._next: NextCommit | None = None

    def _open(self) -> Commit:
        commit = Commit.load(self.place)
        if commit is None:
            create_groups(self.place)
            entries = {
                "geometry": asdict(self._new_geometry),
                "shards": {name: {} for name in self._columns},
                EXTRA: {name: column.as_json() for name, column in self._extra.items()},
            }
            commit = Commit.empty(self.place, entries)
        else:
            follow_manifest(commit)
            self._refuse_missing_columns(commit)
        self.state = SplitState(commit=commit, columns=self._columns, extra=self._extra)
        if self._next is not None:
            do = "call begin, and append its videos again"
            self._next.end(f"the writer was entered again since begin: {do}")
            self._next = None  # last: another `begin` needs the new state
        return commit

    def _refuse_missing_columns(self, commit: Commit) -> None:
        """Raise CacheError if a committed column in `COLUMNS` is missing now."""
        committed = commit.manifest["shards"].keys() & COLUMNS.keys()
        missing = sorted(committed - self._columns.keys())
        if missing:
            do = (
                "A split keeps its columns over all commits: bring them, or remove the split "
                "and convert it again."
            )
            raise CacheError.at(
                self._store.location(self.place.manifest),
                expected=f"columns {missing}",
                found="a commit without them",
                do=do,
            )

    def begin(
        self,
        drop: Collection[str] = (),
        *,
        invalidate: Collection[int] = (),
        keys: Mapping[str, str] | None = None,
    ) -> NextCommit:
        """Start the next commit, and resume the work of a killed writer with the same plan.

        Args:
            drop: names of committed videos to remove or replace.
            invalidate: numbers of shards to leave out of all columns. They may not have rows of
                tracks that stay. If the columns have changed, all committed shards are left out.
            keys: for each video to append, what decides its rows besides the plan. Finished
                videos with other keys must be appended again. None: the plan decides all rows.

        Raises CacheError for unknown videos, for a shard with rows of a track that stays, and for a
        video that stays although the columns have changed.
        """
        if self._next is not None:
            do = "commit first; after an error, enter the writer again"
            raise CacheError(f"{self._split}: begin was called before: {do}")
        removal = self.state.plan_removal(drop, invalidate)

        def is_usable(video: VideoRecord) -> bool:
            """Whether a staged video is to be appended with the same rows."""
            key = "" if keys is None else keys.get(video.name)
            return video.key == key and removal.admits(video)

        work = StagedWork(self.place, removal.staged_conditions(self._plan))
        files = ShardFiles(self.place, self._columns, self._commit.geometry, work)
        shards = SplitShards.resume(files, self._lock, self.state.first_row, is_usable)
        if not shards.journalled:
            first = self.state.first_row // self._commit.geometry.rows_per_shard
            self._remove_uncommitted(work, self._columns, lambda number: number >= first)
        self._next = NextCommit(removal, shards, keys or {}, self._publish_next)
        return self._next

    def _publish_next(self, manifest: Mapping[str, Any], tables: Tables) -> None:
        """Make the commit that `begin` returned."""
        gone = sorted(self._commit.manifest["shards"].keys() - self._columns.keys())
        # Plain Zarr readers, and `gc`, know a column by it; our readers do not need it.
        self._store.remove([f"{self.place.array_key(name)}/zarr.json" for name in gone])
        self._publish(manifest, tables)
        self._remove_unfinished(self.place.staged)
        self._open_next()
