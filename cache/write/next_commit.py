"""The next commit of a split: the videos that stay, then the appended ones.  raw -> [tracks] ->
features -> windows

`SplitState` is what is committed, `_Removal` what the next commit takes from it, and `NextCommit`
what it adds. `SplitWriter.begin` makes them. The rows are in `SplitShards` (`split_shards.py`),
which says how a killed writer's work is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from cache.errors import CacheError
from cache.format.extra import EXTRA, LOWER_CASE, ExtraColumn
from cache.format.layout import SUMS, Column
from cache.format.manifest import Commit, shards_entry
from cache.format.records import TrackRows, VideoEntry, VideoRecord, check_track
from cache.format.tables import Tables
from cache.format.track_tables import VideosByName, VideoTable
from cache.write.split_shards import SplitShards
from cache.write.staged import Plan


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
        stored = {name: column.stored_as for name, column in self.commit.extra.items()}
        target = {name: column.stored_as for name, column in self.extra.items()}
        return stored != target or not self.columns.keys() <= self.commit.manifest["shards"].keys()

    @cached_property
    def videos(self) -> Mapping[str, VideoEntry]:
        """The committed videos, by name."""
        return VideosByName(self.commit.tables)

    @property
    def first_row(self) -> int:
        """The first row of the next commit, at a shard boundary, because committed shards never
        change.
        """
        geometry = self.commit.geometry
        return geometry.shards(self.commit.extent) * geometry.rows_per_shard

    def plan_removal(self, drop: Collection[str], invalidate: Collection[int]) -> _Removal:
        """What a commit takes away; arguments and errors as of `SplitWriter.begin`."""
        split = self.commit.place.split
        unknown = sorted(set(drop) - self.videos.keys())
        if unknown:
            raise CacheError(f"{split}: {unknown[:5]}: not among the split's videos")
        removal = _Removal(self, frozenset(drop), frozenset(invalidate))
        if self.has_other_columns:
            if len(removal.videos) < len(self.videos):
                raise CacheError(f"{split}: its columns have changed: drop all of its videos")
            return replace(removal, shards=frozenset(self.commit.shards))  # no row stays
        n_live = removal.remaining.live_by_shard(self.commit.geometry, self.commit.extent)
        needed = sorted(removal.shards.intersection(np.flatnonzero(n_live).tolist()))
        if needed:
            raise CacheError(
                f"{split}: shards {needed[:5]} have rows of kept tracks: drop their videos, too"
            )
        return removal


@dataclass(frozen=True)
class _Removal:
    """What the next commit takes away from the one before."""

    state: SplitState
    videos: frozenset[str]  # names of committed videos
    shards: frozenset[int]  # numbers of committed shards

    @cached_property
    def remaining(self) -> Tables:
        """The tables of the videos that stay."""
        return self.state.commit.tables.drop_videos(self.videos)

    @cached_property
    def video_names(self) -> frozenset[str]:
        """The names of the videos that stay."""
        return frozenset(self.remaining.texts("video_name"))

    @cached_property
    def track_names(self) -> frozenset[str]:
        """The names of their tracks."""
        return frozenset(self.remaining.texts("track_name"))

    def admits(self, video: VideoRecord) -> bool:
        """Whether no video that stays has this name, or a track of the same name."""
        has_track_names = self.track_names.isdisjoint(video.track_names)
        return video.name not in self.video_names and has_track_names

    def staged_conditions(self, plan: Plan) -> dict[str, Any]:
        """Everything that must be equal for staged shards to be used again. Other videos may be
        dropped than before: each staged video is checked.
        """
        state = self.state
        conditions: dict[str, Any] = {
            "plan": plan,
            "base": state.commit.digest or None,
            "drop": "by keys",
            "invalidate": sorted(self.shards),
            "columns": sorted(state.columns),
            "geometry": state.commit.manifest["geometry"],
        }
        if state.extra:
            conditions[EXTRA] = [column.stored_as for column in state.extra.values()]
        return conditions


class NextCommit:
    """The next commit of a split, which `SplitWriter.begin` returns. Call `append` for every new or
    changed video, then `commit`.

    Args:
        removal: what it takes away.
        shards: its rows: those of a killed writer, and those to come.
        keys: for each video to append, what decides its rows besides the plan.
        publish: called with its manifest and its tables, to make it.
    """

    journalled: dict[str, str]
    """Fingerprints, by name, of videos that a killed writer with the same plan has finished, in
    order. They are part of this commit: do not append them again."""

    def __init__(
        self,
        removal: _Removal,
        shards: SplitShards,
        keys: Mapping[str, str],
        publish: Callable[[Mapping[str, Any], Tables], None],
    ) -> None:
        self.state = removal.state
        """What is committed before it."""
        self.removal = removal
        self.shards = shards
        self.journalled = {video.name: video.fingerprint for video in shards.journalled}
        self._split = self.state.commit.place.split
        self._keys = keys
        self._publish = publish
        # journalled and appended videos, in the order of their rows
        self._new_videos: list[VideoRecord] = []
        # names of all videos, and of their tracks, that this commit has so far
        self._video_names = set(removal.video_names)
        self._track_names = set(removal.track_names)
        for video in shards.journalled:
            self._add_video(video)
        self._ended: str | None = None  # why it takes no more videos; None as long as it does

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the accounts of all videos that this commit has so far: first those that stay from
        the commit before, then the journalled and appended ones.
        """
        videos = VideoTable(self.removal.remaining)
        for number in range(len(videos)):
            yield videos.account(number)
        for video in self._new_videos:
            yield video.account

    def measures(self) -> dict[str, str]:
        """`VideoEntry.measures` of the journalled and appended videos, by name."""
        return {video.name: video.measures for video in self._new_videos}

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
        self.removal = replace(self.removal, videos=self.removal.videos - {name})
        self._video_names.add(name)
        self._track_names |= self.removal.track_names

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video with its tracks. A video without tracks is added for its account.

        Raises CacheError for a video or track that exists already, for sums with other names or
        values, and as `check_track` does. After an error of the store, enter the writer again: it
        continues with the finished videos.
        """
        self._require_open()
        if entry.name in self._video_names:
            do = "append each video once"
            if entry.name in self.state.videos:
                do = "drop it in begin to replace it"
            raise CacheError(f"{self._split}: video {entry.name!r} exists already: {do}")
        extra = self.state.extra.values()
        for track in tracks:
            check_track(track, entry.name, self.state.columns, extra)
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(
                f"{self._split}: video {entry.name!r}: a track of that name exists already: {names}"
            )
        # A video that no table takes would be journalled, and refused by each commit.
        for name, value in entry.sums.items():
            if not LOWER_CASE.fullmatch(name) or math.isinf(value):
                raise CacheError(
                    f"{self._split}: video {entry.name!r}: sum {name!r} is {value}: expected a "
                    "lower-case word, and a finite number or NaN"
                )
        Tables.encode_texts([entry.name, entry.source, entry.pixels, entry.fingerprint, *names])
        key = self._keys.get(entry.name, "")
        first_row = self.shards.next_row
        video = VideoRecord.make(entry, tracks, first_row, extra=extra, key=key)
        try:
            self._add_video(video)
            self.shards.append(video, tracks)
        except BaseException:  # some of its rows are missing
            self._ended = _ENDED
            raise

    def _add_video(self, video: VideoRecord) -> None:
        """Add a video, without its rows, to what this commit has so far."""
        self._new_videos.append(video)
        self._video_names.add(video.name)
        self._track_names.update(video.track_names)

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
        self.shards.write_last()
        tables = Tables.from_records(self._new_videos, self.state.extra.values())
        if not self.state.has_other_columns:
            tables = self.removal.remaining.plus(tables)
        manifest = {**entries, **self._own_entries(tables)}
        self._ended = _ENDED  # also if it fails: the manifest may have been replaced
        self._publish(manifest, tables)

    def _own_entries(self, tables: Tables) -> dict[str, Any]:
        """The manifest's entries that are not the caller's, except those that `publish` adds."""
        state = self.state
        commits = state.commit.manifest["commits"]
        extent = state.commit.extent
        end = self.shards.next_row
        if end > state.first_row:
            commits = [*commits, [state.first_row, end]]
            extent = end
        shards = state.commit.shards
        staying = {n: shards[n] for n in shards.keys() - self.removal.shards}
        entries = {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": extent,
            "commits": commits,
            "geometry": state.commit.manifest["geometry"],
            "shards": shards_entry(state.columns, {**staying, **self.shards.records}),
        }
        if tables.sums:
            entries[SUMS] = tables.total_sums()
        if state.extra:
            entries[EXTRA] = {name: column.as_json() for name, column in state.extra.items()}
        return entries

    def end(self, why: str) -> None:
        """Refuse more videos, and to be committed, with this reason; it may have ended before."""
        if self._ended is None:
            self._ended = why

    def _require_open(self) -> None:
        if self._ended is not None:
            raise CacheError(f"{self._split}: {self._ended}")


_ENDED: Final = (
    "this commit is made, or an error has ended it: call begin for the next one; after an error, "
    "enter the writer again, which continues"
)
