"""Open commits and their streams.  tracks -> features -> [windows]

An `OpenCommit` opens the arrays of a split's or stream's commit on first use. An `OpenStream` is
one of a stream, with three arrays: features, `_ok` flags and `_key`. A row has features if its flag
is COMPUTED or UNDEFINED (`HAS_VALUE`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from cache.arrays import Array, Flags, Ints, Keys
from cache.crop_policy import CropPolicy
from cache.errors import CacheError
from cache.format.layout import (
    COMPUTED,
    HAS_VALUE,
    PENDING_ROWS,
    UNDECODABLE,
    Geometry,
    StreamForm,
)
from cache.format.manifest import Commit
from cache.format.shard import ShardLayout
from cache.read.rows import Rows, StoredArray
from cache.windows import Ranges, intersect, join_adjacent, ranges_where, spread

_ADVICE: Final = "Take windows(stream=...), or extract what is missing."


class OpenCommit:
    """One commit, with readers of its arrays, each opened on first use."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.manifest: Mapping[str, Any] = commit.manifest
        """The cache's own entries and those that were given to the writer's `commit`."""
        self.require_current = _StalenessCheck(commit)
        self._readers: dict[str, Rows] = {}  # by array

    @property
    def provenance(self) -> Mapping[str, Any]:
        """When, where and with which software this commit was made, and the writer's notes. Empty
        if provenance.json is lost.
        """
        return self.commit.note

    def reader(self, array: str) -> Rows:
        """The reader of an array that the manifest names."""
        if array not in self._readers:
            commit = self.commit
            layout = ShardLayout(commit.columns[array], commit.geometry)
            records = commit.manifest["shards"][array]
            stored = StoredArray(commit.place, layout, commit.extent, records, self.require_current)
            self._readers[array] = Rows.open(stored)
        return self._readers[array]

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards that this commit has, ascending."""
        return [*range(self.commit.geometry.shards(self.commit.extent))]


class _StalenessCheck:
    """A check to call after opening a shard: it raises CacheChanged if shards of the open commit
    have been replaced since. Shards of a split that a later commit does not name are allowed: they
    stay until `gc`, and no other ones get their numbers. Those of a stream are computed again.

    Readers refer to this object, not to their `OpenCommit`: so shards are closed as soon as nothing
    else refers to that.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._etag = commit.etag
        self.are_named = True  # whether the newest commit names all shards

    def __call__(self, *, unreadable: str | None = None) -> None:
        """unreadable: location of a shard that is missing or damaged."""
        place = self._commit.place
        if place.store.etag(place.manifest) != self._etag:
            current = Commit.load_manifest(replace(place, pin=None))
            if current is None:
                raise self._commit.changed_error()
            self.are_named = True
            for array, records in self._commit.manifest["shards"].items():
                named = current.manifest["shards"].get(array, {})
                if records.items() <= named.items():
                    continue
                self.are_named = False
                others = {number: named.get(number, record) for number, record in records.items()}
                if place.stream is not None or others != records:
                    raise self._commit.changed_error()
            self._etag = current.etag
        if unreadable is not None and not self.are_named:
            raise self._commit.changed_error(unreadable=unreadable)


class OpenStream(OpenCommit):
    """One committed state of a feature stream, for a commit of its split.

    Shards that were computed for other rows than the split has now are ignored.
    """

    def __init__(self, commit: Commit, split: Commit) -> None:
        super().__init__(commit)
        self._split = split
        self._name = str(commit.place.stream)
        self._title = f"{commit.place.split}: stream {self._name!r}"
        self._geometry = commit.geometry
        extent = max(commit.extent, split.extent)
        self._has_shard = np.zeros(self._geometry.shards(extent), bool)
        self._has_shard[[int(shard) for shard in commit.manifest["shards"][self._name]]] = True
        self._has_shard[commit.foreign_shards(split)] = False  # computed for other rows
        # whether each shard is known to have features for every row; `require` finds out
        self._is_complete = np.zeros(len(self._has_shard), bool)

    @property
    def form(self) -> StreamForm:
        """Numbers per row, and their dtype."""
        return StreamForm.from_manifest(self.manifest)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its numbers depend on, such as its kind and weights; empty if it is not recorded."""
        identity = self.manifest.get("identity")
        return identity if isinstance(identity, Mapping) else {}

    @cached_property
    def crop(self) -> CropPolicy:
        """How the crops of its network were cut. Raises CacheError for a policy that this version
        does not know.
        """
        policy = self.identity.get("crop", {})
        try:
            return CropPolicy.from_dict(policy)
        except (TypeError, ValueError) as error:
            location = self.commit.place.store.location(self.commit.place.manifest)
            do = "Use a version that knows it, or read labels only (stream=None)."
            raise CacheError.at(
                location, expected="a crop policy", found=f"{policy} ({error})", do=do
            ) from None

    @cached_property
    def jitter_seeds(self) -> Keys:
        """The random seed of each track's jitter (n_tracks,)."""
        names = self._split.tables.texts("track_name")
        if self.crop.jitter is None:
            return np.zeros(len(names), np.uint64)
        return self.crop.seeds(names)

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards that were computed for the split's rows, ascending."""
        return [int(shard) for shard in np.flatnonzero(self._has_shard)]

    def part(self, part: str = "") -> Rows:
        """The reader of the features, or of the array that `part` ("_ok" or "_key") names."""
        return self.reader(f"{self._name}{part}")

    def read(self, part: str, starts: Ints, seqlen: int = 1) -> Array:
        """Read windows (B, seqlen, ...) of one array as stored, even rows without features."""
        return self.part(part).read_windows(starts, seqlen)

    def rows_with_flag(self, *flags: int) -> Ranges:
        """Ascending ranges of rows whose `ok` flag is one of `flags`, including rows of replaced
        tracks.
        """
        records = self.commit.manifest["shards"][f"{self._name}_ok"]
        ranges = [np.zeros((0, 2), np.int64)]
        for shard in self.shards:
            rows = self.commit.shard_rows(shard)
            # Shards with equal records have equal flags: most shards are not read.
            if records[str(shard)] != _record_if_all_computed(len(rows), self._geometry):
                ranges.append(ranges_where(np.isin(self._flags(shard), flags), rows.start))
            elif COMPUTED in flags:
                ranges.append(np.array([[rows.start, rows.stop]]))
        return join_adjacent(np.concatenate(ranges))

    def pending_rows(self) -> Ranges:
        """Rows of tracks that are still to be computed in the stream's shards: (N, 2) of
        [start, stop) rows, each range in one track.
        """
        recorded = self.recorded_pending_rows()
        if not len(recorded):  # usual, and a split may have a million tracks
            return recorded
        return intersect(self._split.tables.track_rows, recorded)

    def undecodable(self) -> int:
        """Number of rows of tracks that have no features because their frames could not be decoded.
        Pending rows are not counted.
        """
        undecodable = self.rows_with_flag(UNDECODABLE)
        if not len(undecodable):
            return 0
        without = intersect(self._split.tables.run_rows, undecodable)
        return int(np.diff(without).sum() - np.diff(self.pending_rows()).sum())

    def recorded_pending_rows(self) -> Ranges:
        """As `pending_rows`, including rows of replaced tracks."""
        recorded = np.array(self.manifest.get(PENDING_ROWS, []), np.int64).reshape(-1, 2)
        shards = np.flatnonzero(self._has_shard)
        spans = np.stack([shards, shards + 1], axis=1) * self._geometry.rows_per_shard
        return intersect(recorded, spans)

    def _flags(self, shard: int) -> Flags:
        rows = self.commit.shard_rows(shard)
        flags: Flags = self.read("_ok", np.array([rows.start]), len(rows))[0]
        return flags

    def require(self, starts: Ints, seqlen: int, n_before: Ints) -> None:
        """Raise CacheError unless the stream has features for every row of B windows, and the
        shards of the `n_before` (B,) rows before each.

        Reads flags only if a window is in a shard that is not known to be complete.
        """
        if not len(starts):
            return
        size = self._geometry.rows_per_shard
        first = (starts - n_before) // size  # (B,) shards of the first and last rows
        last = (starts + seqlen - 1) // size
        window, nth = spread(last - first + 1)
        shards = np.unique(first[window] + nth)
        missing = shards[~self._has_shard[shards]]
        if len(missing):
            raise CacheError(f"{self._title} does not have shard {missing[0]} yet. {_ADVICE}")
        incomplete = shards[~self._is_complete[shards]]
        if not len(incomplete):
            return
        without_value = np.argwhere(~np.isin(self.read("_ok", starts, seqlen), HAS_VALUE))
        if len(without_value):
            window_number, frame = without_value[0]
            row = int(starts[window_number] + frame)
            problem = f"no features for row {row}: its frame could not be decoded"
            raise CacheError(f"{self._title} has {problem}. {_ADVICE}")
        for shard in incomplete.tolist():
            self._is_complete[shard] = np.isin(self._flags(shard), HAS_VALUE).all()


@functools.lru_cache(1024)
def _record_if_all_computed(n_rows: int, geometry: Geometry) -> str:
    """The record "<size>:<digest>" that a manifest has of a shard with `n_rows` flags, if all of
    them are COMPUTED. Flags of all streams are stored alike.
    """
    column = StreamForm(1).columns("any")["any_ok"]
    flags = np.ones(n_rows, np.uint8)  # COMPUTED is 1
    _, record = ShardLayout(column, geometry).encode(flags)
    return record
