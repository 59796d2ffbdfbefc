"""Features of a split's rows, added without touching the rest.  raw -> tracks -> [features] -> windows

A stream is a few arrays (features, `_ok`, `_key`; of bytes `_at` too) and a manifest of its own, which names the shards
of the split for which it has them. Shards never change, so a stream stays good for as long as its shards are; it may
lag behind the tracks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.references import remove_shards
from cache.storage.base import Root
from cache.write.base import Writer, invalidate_shards
from cache.write.stream_shards import Staged, StreamShards


class StreamWriter(StreamShards, Writer):
    """The one writer of a stream. Use as a context manager: write every pending shard, in any order, commit.

    Leaving without `commit` leaves the old state in force; shards written by then are kept for the next writer with the
    same `plan`, and removed by one with another. It is a `StreamShards` of the state that it began with.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream.
        dim: numbers per row; 0 of bytes.
        dtype: "float16", "float32" or "bytes".
        plan: names everything that the numbers depend on.
        provenance: goes to the stream's `provenance.json`, with time, host and versions.

    Raises CacheError when the split does not exist, when there is another writer, or when the stream has another `dim`
    or `dtype`.
    """

    own_entries = frozenset(
        {
            *("format", "digest", "stream", "dim", "dtype", "extent", "split_digest", "commits", "geometry"),
            *("shards", "rows", "files"),
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
        plan: str,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        StreamShards.__init__(self, root, split, stream, dim=dim, dtype=dtype, plan=plan)
        Writer.__init__(self, self.place, provenance)

    @property
    def pending(self) -> list[int]:
        """Shards with committed rows that the stream does not have, without those of a killed writer with this plan."""
        return [shard for shard in self.live_shards if shard not in self._records]

    def write(
        self, shard: int, data: NDArray[Any] | Sequence[bytes], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> None:
        """Write and journal the features of one pending shard. n is the number of its `rows`.

        What is given for rows of no committed track is not kept, nor are features where `ok` is UNDECODABLE.

        Args:
            data: (n, dim), rounded to the stream's dtype; of a stream of bytes, n times `bytes`.
            ok: (n,) COMPUTED (1, or True) where there are features, UNDECODABLE (0) where the picture could not be
                decoded, UNDEFINED (2) where there was nothing to compute from: what `data` has is stored then, too. A
                stream of bytes has no such rows.
            keys: (n, 2) uint64, a hash of all that the row's features depend on.

        Raises CacheError for a shard that is not pending, for other shapes or types, for other flags, for features
        that are not finite, or not within the dtype, where they are kept, and for bytes that do not fit into a shard.
        """
        self._require_pending(shard)
        arrays = self.checked(shard, data, ok, keys)
        self._lock.require()  # without it, this may be a shard that another writer has committed
        temporary = self.place.temporary
        self._keep(shard, self.put(arrays, lambda name: self._key(name, shard), lambda _: temporary))

    def accept(self, staged: Staged) -> None:
        """Take over and journal a shard that `StreamShards.stage` has written, in this process or in another.

        Raises CacheError when it is not pending, of other rows than the split has there now, of another form, or gone.
        """
        self._require_pending(staged.shard)
        do = "Compute it again, with StreamShards opened again."
        staged_form, own_form = (staged.rows, staged.form), (self.rows_record(staged.shard), self.form)
        if staged_form != own_form or staged.keys.keys() != self.columns.keys():
            title = self.title(staged.shard)
            raise CacheError(f"{title}: expected what is staged to be of {own_form}, found {staged_form}. {do}")
        for name, key in staged.keys.items():
            if not key.startswith(self.place.staged_shard) or not shards.has_size(
                self._store, key, staged.records[name]
            ):
                expected = f"{shards.size_of(staged.records[name])} bytes that were staged"
                raise CacheError.at(self._store.location(key), expected=expected, found="no such file", do=do)
        self._lock.require()
        for name, key in staged.keys.items():
            self._store.rename(key, self._key(name, staged.shard))
        self._keep(staged.shard, staged.records)

    def commit(self, entries: Mapping[str, Any], *, note: Mapping[str, Any] | None = None) -> None:
        """Make every shard written so far visible. A stream with shards still pending is committed as what it is.

        Args:
            entries: the caller's own part of the stream's manifest, under its own keys.
            note: goes to `provenance.json` beside `provenance`: how it went, how long it took.
        """
        self._refuse(entries)
        extent = int(self.split.manifest["extent"])
        files = {
            f"{name}/zarr.json": layout.column_metadata(spec, extent, self.geometry)
            for name, spec in self.columns.items()
        }
        # Which rows each shard is of, also where the split names it no longer: it may still be carried over.
        rows = {} if self._commit is None else dict(self._commit.manifest["rows"])
        new_shards = sorted(self._records.keys() - self.committed.keys())
        rows |= {str(shard): self.rows_record(shard) for shard in new_shards}
        body = {
            **entries,
            "stream": self._stream,
            "dim": self._dim,
            "dtype": self._dtype,
            "extent": extent,
            # With shards pending, the stream is not what belongs to any state of the split.
            "split_digest": "" if self.pending else self.split_digest,
            "commits": self.split.manifest["commits"],
            "geometry": self.split.manifest["geometry"],
            "shards": {
                name: {str(shard): records[name] for shard, records in sorted(self._records.items())}
                for name in self.columns
            },
            "rows": rows,
        }
        self._publish(body, files, note)
        self._journal.remove()
        self._remove_temporary(layout.CHECKPOINT)
        self._open()

    def _open(self) -> None:
        self._started = time.time()
        manifest.recover(self.place)
        self._read_state()  # under the lock
        if self._commit is not None and self.foreign:
            invalidate_shards(self.place, self._commit, self.foreign)
            self._read_state()
        self._records = dict(self.committed)
        head = {"plan": self.plan, "dim": self._dim, "dtype": self._dtype}
        journal = self._journal.resume(head)
        if journal is None:
            for name in self.columns:
                remove_shards(self._store, self.place.array(name), keep=self.committed)
            self._journal.start(head)
        for record in journal or ():  # a shard's rows never change: whatever was committed since, they are good
            shard, files = record["shard"], record["files"]
            if shard not in self.committed and record["rows"] == self.rows_record(shard):
                keys = {self._key(name, shard): text for name, text in files.items()}
                if all(shards.has_size(self._store, key, text) for key, text in keys.items()):
                    self._records[shard] = {name: str(text) for name, text in files.items()}
        if self._store.exclusive:
            self._accept_staged()
            self._remove_temporary(layout.STAGED_SHARD, layout.TEMPORARY_SHARD, ".")

    def _accept_staged(self) -> None:
        """Take over what a killed writer with this plan was about to accept."""
        for shard in self.pending:
            if "staged" in (held := self._checkpoint(shard)):
                with suppress(CacheError):  # it is computed again
                    self.accept(Staged(**json.loads(str(held["staged"]))))

    def _remove_temporary(self, *begins: str) -> None:
        names = [name for name in self._store.list_names(self.place.writing) if name.startswith(begins)]
        self._store.remove([f"{self.place.writing}/{name}" for name in names])

    def _require_pending(self, shard: int) -> None:
        if shard in self._records or shard not in self.live_shards:
            raise CacheError(f"{self.title(shard)}: is not pending; pending are {self.pending[:5]}...")

    def _keep(self, shard: int, records: Mapping[str, str]) -> None:
        """Journal the records of a shard whose files are in place."""
        self._journal.add({"shard": shard, "rows": self.rows_record(shard), "files": dict(records)})
        self._records[shard] = dict(records)
        self._store.remove([self.place.checkpoint(shard)])
