"""Shards of a stream, staged by any process on any machine.  raw -> tracks -> [features] -> windows

`StreamShards` takes no lock and changes nothing that is committed; the one `StreamWriter` of the
stream accepts staged shards and commits them (its file describes the states of a shard). For each
pending shard, a process

    1. takes the features that the cache has: `kept` and `carried`
    2. computes the other rows, and may store unfinished ones by `checkpoint`
    3. writes the complete shard by `stage`

Features are *kept* if an earlier process has stored them in a checkpoint of this shard. They are
*carried* over from an old row of the stream if a row is written again, for example after a label
was corrected. Both need equal row keys: `keys` (n, 2) are hashes of everything that the features of
n rows depend on. A file key, in contrast, is a file's path in the store.

Checkpoints and staged shards are recorded in pieces, small files that `cache/write/staged.py`
describes. The piece of a shard has the entries

    "rows"          digest of the split's rows in this shard: `Commit.rows_record`
    "pending_rows"  ranges of its rows that are still to be computed
    "made"          how its features were computed: see `StreamShards.stage`
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cache.arrays import Array, Bools, Flags, Ints, Keys
from cache.errors import CacheError, MissingSplit
from cache.format import layout
from cache.format.folders import refuse_unmounted_stream
from cache.format.layout import (
    HAS_VALUE,
    NO_KEY,
    UNDECODABLE,
    StreamForm,
)
from cache.format.listing import refuse_missing
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.base import Root
from cache.windows import ranges_where
from cache.write.staged import (
    ROWS,
    SHARD,
    STAGED,
    Arrays,
    Plan,
    ShardFiles,
    StagedShard,
    StagedWork,
)


class _FoundRows(NamedTuple):
    """Features that the cache has for n rows, some of which have none."""

    mask: Bools  # (n,) which rows have stored features
    features: Any  # (n, dim); 0 for the other rows
    ok: Flags  # (n,) flags as stored; 0 for the other rows


class StreamShards:
    """One state of a split and its stream, for computing and staging shards. Threads may share it.
    A later commit is another state: open it again.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream, which need not exist yet.
        form: numbers per row, and their dtype.
        plan: the plan of the `StreamWriter`. Checkpoints of the same plan are used again, and its
            writer accepts staged shards.

    Attributes:
        columns: the three arrays.
        split, commit: the commits of the split and the stream when this was opened.
        committed_rows: the rows that the stream has for the split's rows.
        committed: their shards: number -> array -> the manifest's record.
        live_shards: numbers of the shards that have rows of committed tracks.
        finished: numbers of the shards that are not pending: committed, or accepted by the writer.
        files: the uncommitted shards of this plan.
        work: their pieces, and checkpoints.

    Raises CacheError when the split is missing, or the stream has another form.
    """

    def __init__(
        self,
        root: Root,
        split: str,
        stream: str,
        form: StreamForm,
        *,
        plan: Plan,
    ) -> None:
        layout.check_names(split, stream)
        self._form = form
        self.place = Place(store_at(root), split, stream)
        self.columns = form.columns(stream)
        refuse_unmounted_stream(self.place)
        stream_commit = Commit.load(self.place)  # None: the stream does not exist yet
        self.split = self._load_split()  # after the stream's commit, so that it is never older
        no_shards: dict[str, Any] = {name: {} for name in self.columns}
        self.commit = stream_commit or Commit.empty(
            self.place, {**self.own_facts(), "shards": no_shards}
        )
        self._refuse_other_form()
        self.committed_rows = OpenStream(self.commit, self.split)
        shards = self.commit.shards
        self.committed = {shard: shards[shard] for shard in self.committed_rows.shards}
        self.live_shards: list[int] = np.flatnonzero(self.split.live_by_shard).tolist()
        self.finished = set(self.committed)
        self.work = StagedWork(self.place, {"plan": plan, "form": str(form)})
        self.files = ShardFiles(self.place, self.columns, self.split.geometry, self.work)

    def _load_split(self) -> Commit:
        place = self.place
        split = Commit.load(Place(place.store, place.split))
        if split is None:
            refuse_missing(place.store, place.split)
            problem = f"no split {place.split!r}"
            raise MissingSplit(f"{place.store.root}: {problem}: convert it before its features")
        return split

    def own_facts(self) -> dict[str, Any]:
        """The entries of a manifest about the form of all rows."""
        return {
            "stream": self.place.stream,
            **self._form.as_json(),
            "geometry": self.split.manifest["geometry"],
        }

    def _refuse_other_form(self) -> None:
        """Raise CacheError if the stream has another row format or geometry."""
        committed = self.commit.manifest
        form = StreamForm.from_manifest(committed)
        if form != self._form or committed["geometry"] != self.split.manifest["geometry"]:
            location = self.place.store.location(self.place.manifest)
            do = "Choose another name for the stream, or replace it."
            raise CacheError.at(location, expected=str(form), found=str(self._form), do=do)

    @cached_property
    def _index(self) -> _KeyIndex | None:
        """Finds committed rows by their keys; None if all of them are rows of tracks: features can
        only be carried over from rows of replaced or removed tracks.
        """
        n_live = self.split.live_by_shard
        for shard in self.committed:
            is_gone = shard >= len(n_live) or not self.split.rows_record(shard)
            if is_gone or n_live[shard] < len(self.rows(shard)):
                return _KeyIndex(self.committed_rows)
        return None

    def rows(self, shard: int) -> range:
        """The rows of a shard, for all of which `stage` expects data. They include rows of replaced
        tracks, but no padding.
        """
        return self.split.shard_rows(shard)

    def live(self, shard: int) -> Bools:
        """Whether each of the shard's n `rows` belongs to a committed track (n,). Other rows need
        no features.
        """
        rows = self.rows(shard)
        return np.asarray(self.split.tables.track_of(np.arange(rows.start, rows.stop)) >= 0)

    def carried(self, keys: Keys) -> _FoundRows:
        """Find features to carry over: those that committed rows of the stream have with equal
        keys, (n, 2) uint64. Finds none if no committed shard has rows of replaced tracks.

        Returns (mask, features, ok): which rows have stored features (n,), the features (n, dim)
        and their flags (n,), both 0 for the other rows.
        """
        result = self._no_features(len(keys))
        if self._index is not None:
            rows = self._index.find(keys)
            stream = self.committed_rows
            result.mask[:] = rows >= 0
            result.ok[result.mask] = stream.read("_ok", rows[result.mask])[:, 0]
            has_features = result.mask & (result.ok != UNDECODABLE)
            result.features[has_features] = stream.read("", rows[has_features])[:, 0]
        return result

    def checkpoint(self, shard: int, rows: Ints, data: Array, ok: Flags, keys: Keys) -> None:
        """Store some rows of an incomplete shard durably, replacing its last checkpoint.

        Args:
            rows: (n,) indices within the shard.
            data, ok, keys: of these n rows, as for `StreamWriter.write`.
        """
        arrays: Arrays = {"rows": rows, "ok": ok, "keys": keys, "data": data}
        self.work.put(f"{ROWS}-{shard}", {}, arrays)

    def kept(self, shard: int, keys: Keys) -> _FoundRows:
        """Read features of a shard's rows from its checkpoint, where the keys (n, 2) are equal.
        Returns the same as `carried`.
        """
        n = len(keys)
        result = self._no_features(n)
        pieces = self.work.read([f"{ROWS}-{shard}"])
        if not pieces:  # it is missing or damaged
            return result
        ((_, saved),) = pieces.values()
        rows = saved["rows"]  # some may be beyond the shard, if the split was replaced since
        has_same_key = (saved["keys"] == keys[np.minimum(rows, n - 1)]).all(axis=1)
        # A shard must have finite values: compute the others again.
        is_finite = np.isfinite(saved["data"]).all(axis=1)
        is_valid = (rows < n) & has_same_key & is_finite
        valid_rows = rows[is_valid]
        result.mask[valid_rows] = True
        result.features[valid_rows] = saved["data"][is_valid]
        result.ok[valid_rows] = saved["ok"][is_valid]
        return result

    def _no_features(self, n: int) -> _FoundRows:
        """New arrays for n rows, for the caller to fill: none has features yet."""
        data = np.zeros((n, self._form.dim), self._form.dtype)
        return _FoundRows(np.zeros(n, bool), data, np.zeros(n, np.uint8))

    def list_staged(self) -> dict[int, StagedShard]:
        """Pending shards that are staged with this plan, by number; only those for the rows that
        the split has now. The pieces of accepted shards are not read again.
        """
        shards = {}
        pending = set(self.pending)
        # of a shard that is staged twice, the one whose files have final names comes last
        names = [*self.work.names(STAGED), *self.work.names(SHARD)]
        names = [name for name in names if int(name.split("-")[1]) in pending]
        for staged in self.files.read(names):
            if staged.entries["rows"] == self.split.rows_record(staged.number):
                shards[staged.number] = staged
        return shards

    def stage(
        self,
        shard: int,
        data: Array,
        ok: Array,
        keys: Keys,
        *,
        made: Mapping[str, Any] | None = None,
        token: str | None = None,
    ) -> StagedShard:
        """Write one shard durably, and remove its checkpoint. A writer with the same plan accepts
        it.

        Args:
            shard, data, ok, keys: as for `StreamWriter.write`.
            made: how the features are computed, such as {"network": "resnet50", "sha256":
                "1f2e..."}. A writer compares `sha256`, the digest of the weights.
            token: a part of the temporary names of its files (default: random). A writer gives
                FINAL, for their final names.

        Raises CacheError for a shard that is not pending, and for data of a wrong shape or value.
        """
        if shard not in self.pending:
            raise CacheError(
                f"{self.title(shard)}: is not pending; pending are {self.pending[:5]}..."
            )
        self._check_form(shard, data, ok, keys)
        arrays = self._make_arrays(shard, data, ok, keys)
        is_undecodable = arrays[f"{self.place.stream}_ok"] == UNDECODABLE
        is_pending = is_undecodable & (keys == NO_KEY).all(axis=1)
        entries = {
            "rows": self.split.rows_record(shard),
            "pending_rows": ranges_where(is_pending, self.rows(shard).start).tolist(),
            "made": dict(made or {}),
        }
        if token is None:
            token = secrets.token_hex(8)
        staged = self.files.stage(shard, arrays, entries, token)
        self.work.remove([f"{ROWS}-{shard}"])
        return staged

    @property
    def pending(self) -> list[int]:
        """Shards that have rows of committed tracks and no features yet: they are neither
        committed nor, by this writer or a killed one with the same plan, accepted.
        """
        return [shard for shard in self.live_shards if shard not in self.finished]

    def _check_form(self, shard: int, data: Array, ok: Array, keys: Keys) -> None:
        """Raise CacheError for wrong shapes, dtypes or flags of a shard's data."""
        n_rows = len(self.rows(shard))
        shapes = (np.shape(data), ok.shape, keys.shape, keys.dtype)
        dim = self._form.dim
        if shapes != ((n_rows, dim), (n_rows,), (n_rows, 2), np.dtype(np.uint64)):
            expected = f"features {(n_rows, dim)}, ok {(n_rows,)}, keys {(n_rows, 2)} uint64"
            raise CacheError(f"{self.title(shard)}: expected {expected}, found {shapes}")
        allowed = (UNDECODABLE, *HAS_VALUE)
        wrong_flags = ok[self.live(shard) & ~np.isin(ok, allowed)]
        if len(wrong_flags):
            found_flags = np.unique(wrong_flags).tolist()
            raise CacheError(
                f"{self.title(shard)}: expected ok flags of {allowed}, found {found_flags}"
            )

    def _make_arrays(self, shard: int, data: Array, ok: Array, keys: Keys) -> Arrays:
        """The arrays to store, by name, with fill values in rows without a track. Raises CacheError
        for features that are not finite.
        """
        live = self.live(shard)
        has_features = live & (ok != UNDECODABLE)
        arrays = {name: column.empty(len(live)) for name, column in self.columns.items()}
        features, stored_ok, stored_keys = arrays.values()
        stored_ok[live] = ok[live]
        stored_keys[live] = keys[live]
        # Numbers beyond the dtype's range become infinite, and are refused below.
        with np.errstate(over="ignore"):
            features[has_features] = data[has_features]
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1) & has_features)
        if len(bad):
            problem = f"features of {len(bad)} rows are not finite in {features.dtype}"
            raise CacheError(f"{self.title(shard)}: {problem}, first row {bad[0]}")
        return arrays

    def title(self, shard: int) -> str:
        return f"{self.place.split}: stream {self.place.stream}, shard {shard}"


class _KeyIndex:
    """Finds the committed rows of a stream by their keys. It holds a hash and the number of each
    row, 16 bytes, sorted by hash.
    """

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        hashes_of_shards = [np.empty(0, np.uint64)]
        rows_of_shards = [np.empty(0, np.int64)]
        for shard in stream.shards:
            rows = np.asarray(stream.commit.shard_rows(shard))
            keys = stream.read("_key", rows[:1], len(rows))[0]
            has_key = (keys != NO_KEY).any(axis=1)
            hashes_of_shards.append(_hash_keys(keys[has_key]))
            rows_of_shards.append(rows[has_key])
        hashes = np.concatenate(hashes_of_shards)
        order = np.argsort(hashes, kind="stable")  # the first of several rows with the same key
        self._hashes = hashes[order]
        self._rows = np.concatenate(rows_of_shards)[order]

    def find(self, keys: Keys) -> Ints:
        """The rows (n,) that have these keys (n, 2); -1 for keys that no row has."""
        rows = np.full(len(keys), -1, np.int64)
        hashes = _hash_keys(keys)
        first = np.searchsorted(self._hashes, hashes)
        after = np.searchsorted(self._hashes, hashes, side="right")
        # Only the first row with a hash is found. If it has another key, the other rows with this
        # hash are computed again.
        found = np.flatnonzero(first < after)
        candidates = self._rows[first[found]]
        stored = self._stream.read("_key", candidates)[:, 0]
        is_same = (stored == keys[found]).all(axis=1)
        rows[found[is_same]] = candidates[is_same]
        return rows


def _hash_keys(keys: Keys) -> Keys:
    """Hash keys (n, 2) to 64 bits (n,): both words are hashes. Different keys may have equal
    hashes: callers compare the keys, too.
    """
    return np.bitwise_xor(keys[:, 0], keys[:, 1])
