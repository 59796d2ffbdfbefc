"""Write features of a split's rows.  raw -> tracks -> [features] -> windows

A stream has arrays (features, `_ok`, `_key`) and a manifest with the shards that it covers. Rows of
a shard never change: after a new commit of the split, the stream stays valid and only misses the
new shards.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import NO_KEY, PENDING_ROWS, UNDECODABLE
from cache.format.manifest import Commit
from cache.format.shard import ShardFile, ShardLayout
from cache.format.tables import Tables
from cache.read.streams import OpenStream
from cache.storage.base import Root
from cache.windows import Ranges, intersect, join_adjacent, ranges_where
from cache.write.base import Writer, follow_manifest, invalidate_shards
from cache.write.staged import ROWS, SHARD, STAGED, Plan
from cache.write.stream_shards import Staged, StreamShards


class StreamWriter(StreamShards, Writer):
    """The one writer of a stream. Use as a context manager: write every pending shard, in any
    order, commit.

    Leaving without `commit` changes nothing for readers. The next writer with the same `plan`
    continues with the written shards; another one removes them. As a `StreamShards`, it shows the
    state at entry or last commit.

    Args:
        root, split, stream, dim, dtype: as for `StreamShards`.
        plan: names everything that the numbers depend on.
        provenance: goes to the stream's `provenance.json`, with time, host and versions.

    Raises CacheError as `StreamShards`, and when there is another writer.
    """

    own_entries = frozenset(
        {
            *(
                "format",
                "digest",
                "stream",
                "dim",
                "dtype",
                "extent",
                "split_digest",
                "commits",
                "geometry",
            ),
            *("shards", "rows", PENDING_ROWS),
        }
    )

    def __init__(
        self,
        root: Root,
        split: str,
        stream: str,
        *,
        dim: int = 2048,
        dtype: str = "float16",
        plan: Plan,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        StreamShards.__init__(self, root, split, stream, dim=dim, dtype=dtype, plan=plan)
        Writer.__init__(self, self.place, provenance)
        self.refused: list[str] = []
        """Why staged shards were not accepted at entry: they are pending."""
        self.varying: set[str] = set()
        """Entries of `made` that differ between the uncommitted shards."""

    @property
    def pending(self) -> list[int]:
        """Shards with committed rows that are not written yet, by this writer or a killed one with
        the same plan.
        """
        return [shard for shard in self.live_shards if shard not in self._records]

    def write(
        self, shard: int, data: NDArray[Any], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> None:
        """Write the features of one pending shard with n `rows`, durably.

        Args:
            data: (n, dim), rounded to the stream's dtype; not stored for rows without a track or
                UNDECODABLE rows.
            ok: (n,) COMPUTED (1 or True), UNDECODABLE (0), or UNDEFINED (2): there was nothing to
                compute from.
            keys: (n, 2) uint64, a hash of all that the row's features depend on; NO_KEY for an
                UNDECODABLE row that could not be computed now: the manifest lists it in
                `pending_rows`, until `reopen`.

        Raises CacheError for a shard that is not pending, for wrong shapes, types or flags, and for
        features that are not finite or exceed the dtype's range.
        """
        self.accept(self.stage(shard, data, ok, keys))

    def stage(
        self, shard: int, data: NDArray[Any], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> Staged:
        """As `StreamShards.stage`, under the shard's final names."""
        self._lock.require()  # without it, this may be a shard that another writer has committed
        return super().stage(shard, data, ok, keys)

    def accept(self, staged: Staged) -> None:
        """Accept a shard that `StreamShards.stage` has written in any process.

        Raises CacheError when the shard is not pending, its rows or row format differ by now, a
        file is missing, or it was computed with other weights than the shards before.
        """
        self._require_pending(staged.shard)
        self._check(staged)
        self._lock.require()
        final = self._new_files(staged.shard, staged.token)
        if staged.keys != final:
            for name, key in staged.keys.items():
                self._store.rename(key, final[name])
            self._record(replace(staged, keys=final))
            self._work.remove([f"{STAGED}-{staged.shard}-{staged.token}"])
        self._take(staged)

    def _check(self, staged: Staged) -> None:
        """Raise CacheError unless a shard's weights, rows and files are those of this stream."""
        do = "Compute it again, with StreamShards opened again."
        weights = staged.made.get("sha256")
        own_weights = self.made.get("sha256")
        if self.made and staged.made and weights != own_weights:
            what = f"expected weights {own_weights}, as of other shards, found {weights}"
            raise CacheError(f"{self.title(staged.shard)}: {what}. {do}")
        staged_form = (staged.rows, staged.form)
        own_form = (self.rows_record(staged.shard), self.form)
        if staged_form != own_form or staged.keys.keys() != self.columns.keys():
            title = self.title(staged.shard)
            raise CacheError(
                f"{title}: expected what is staged to be of {own_form}, found {staged_form}. {do}"
            )
        final = self._new_files(staged.shard, staged.token)
        for name, key in staged.keys.items():
            encoding = ShardLayout(self.columns[name], self.geometry)
            n_rows = len(self.rows(staged.shard))
            file = ShardFile(name, key, staged.shard, staged.records[name], n_rows, encoding)
            is_staged = key == final[name] or key.startswith(f"{self.place.staged}/")
            if not is_staged or file.problem(self._store, fast=True):
                expected = f"{file.size} bytes that were staged"
                found = "no such file, or a damaged one"
                raise CacheError.at(
                    self._store.location(key), expected=expected, found=found, do=do
                )

    def _take(self, staged: Staged) -> None:
        self._note_made(staged.made)
        self._records[staged.shard] = dict(staged.records)

    def _new_files(self, shard: int, token: str) -> dict[str, str]:  # noqa: ARG002  of other names
        return {name: self._key(name, shard) for name in self.columns}

    def _record(self, staged: Staged) -> None:
        self._work.put(f"{SHARD}-{staged.shard}", {"staged": asdict(staged)})
        self._work.remove([f"{ROWS}-{staged.shard}"])

    def reopen(self, shards: Collection[int]) -> None:
        """Make those of the shards that are committed pending again. `kept` returns their computed
        rows.
        """
        shards = [shard for shard in shards if shard in self.committed]
        if self._commit is None or not shards:
            return
        stream = OpenStream(self._commit, self.split.manifest)
        for shard in shards:
            n_rows = len(self.rows(shard))
            first = np.array([self.rows(shard).start])
            data, ok, keys = (stream.read(part, first, n_rows)[0] for part in ("", "_ok", "_key"))
            data[ok == UNDECODABLE] = 0
            computed = np.flatnonzero(self.live(shard) & (keys != NO_KEY).any(axis=1))
            self.checkpoint(shard, computed, data[computed], ok[computed], keys[computed])
        invalidate_shards(self.place, self._commit, shards)
        self._open()

    def commit(self, entries: Mapping[str, Any], *, note: Mapping[str, Any] | None = None) -> None:
        """Commit every shard written so far; others stay pending.

        Args:
            entries: the caller's own entries of the stream's manifest.
            note: additional entries of `provenance.json`.

        Raises CacheError when a key is one of the manifest's own.
        """
        self._refuse(entries)
        self.place.create_groups()  # the folder of all features may have been deleted by hand
        extent = int(self.split.manifest["extent"])
        # The identity of each shard's rows, also of shards that the split dropped: their features
        # may be carried over.
        rows = {} if self._commit is None else dict(self._commit.manifest["rows"])
        new_shards = sorted(self._records.keys() - self.committed.keys())
        rows |= {str(shard): self.rows_record(shard) for shard in new_shards}
        body = {
            **entries,
            "stream": self._stream,
            "dim": self._dim,
            "dtype": self._dtype,
            "extent": extent,
            # "" while shards are pending: the stream does not match any state of the split.
            "split_digest": "" if self.pending else self.split_digest,
            "commits": self.split.manifest["commits"],
            "geometry": self.split.manifest["geometry"],
            "shards": {
                name: {
                    str(shard): records[name] for shard, records in sorted(self._records.items())
                }
                for name in self.columns
            },
            "rows": rows,
        }
        pending_rows = self._find_pending_rows(body, new_shards)
        if len(pending_rows):
            body[PENDING_ROWS] = pending_rows.tolist()
        self._publish(body, Tables(), note)
        # Without a lock, shards of other plans may be those of a running writer.
        self._remove_unfinished(self._work.folder)
        self._open()

    def _find_pending_rows(self, body: Mapping[str, Any], new_shards: Collection[int]) -> Ranges:
        """Rows without a key: in earlier shards as recorded, in new ones as written. body: of the
        next manifest.
        """
        recorded = [] if self._commit is None else self._commit.manifest.get(PENDING_ROWS, [])
        shards = np.array(sorted(self.committed), np.int64)[:, None]
        spans = np.concatenate([shards, shards + 1], axis=1) * self.rows_per_shard
        found = [intersect(np.reshape(np.array(recorded, np.int64), (-1, 2)), spans)]
        written = {
            name: {str(k): self._records[k][name] for k in new_shards} for name in self.columns
        }
        etag = None if self._commit is None else self._commit.etag
        stream = OpenStream(
            Commit(self.place, {**body, "shards": written}, Tables(), etag), self.split.manifest
        )
        for start, stop in stream.rows_with_flag(UNDECODABLE).tolist():
            keys = stream.read("_key", np.array([start]), stop - start)[0]
            found.append(ranges_where((keys == NO_KEY).all(axis=1), start))
        ranges = np.concatenate(found)
        return join_adjacent(ranges[np.argsort(ranges[:, 0])])

    def _open(self) -> None:
        self._started = time.time()
        self._read_state()  # under the lock
        if self._commit is not None:
            follow_manifest(self._commit)
            if self.foreign:
                invalidate_shards(self.place, self._commit, self.foreign)
                self._read_state()
        self._records = dict(self.committed)
        names = self._work.names(SHARD)
        if not names and self._store.exclusive:
            self._work.remove_shards()
            for name in self.columns:
                self._remove_shards(name, keep=self.committed)
        # valid after any later commit of the split: a shard's rows never change
        for head, _ in self._work.read(names).values():
            staged = Staged(**head["staged"])
            if staged.shard in self.pending:
                with suppress(CacheError, FileNotFoundError):  # it is computed again
                    self._check(staged)
                    self._take(staged)
        self.refused = []
        pending = set(self.pending)
        for shard, staged in self.list_staged().items():
            if shard not in pending:
                continue
            try:
                self.accept(staged)
            except (CacheError, FileNotFoundError) as error:  # it is computed again
                self.refused.append(str(error))

    def _note_made(self, made: Mapping[str, Any]) -> None:
        self.made = self.made or made
        if made:
            both = self.made.keys() | made.keys()
            self.varying |= {name for name in both if made.get(name) != self.made.get(name)}

    def _require_pending(self, shard: int) -> None:
        if shard in self._records or shard not in self.live_shards:
            raise CacheError(
                f"{self.title(shard)}: is not pending; pending are {self.pending[:5]}..."
            )
