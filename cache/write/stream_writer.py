"""Features of a split's rows, added without touching the rest.  raw -> tracks -> [features] -> windows

A stream is a few arrays (features, `_ok`, `_key`; of bytes `_at` too) and a manifest of its own, which names the shards
of the split for which it has them. Shards never change, so a stream stays good for as long as its shards are; it may
lag behind the tracks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.manifest import Place, callers_entries
from cache.format.provenance import add_provenance
from cache.format.references import remove_shards
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import Writer, invalidate_shards
from cache.write.key_index import Carried
from cache.write.stream_shards import Staged, StreamShards, committed_split

STREAM_ENTRIES: Final = frozenset(
    {
        *("format", "digest", "stream", "dim", "dtype", "extent", "split_digest", "commits", "geometry"),
        *("shards", "rows", "files"),
    }
)


class StreamWriter(Writer):
    """The one writer of a stream. Use as a context manager: write every pending shard, in any order, commit.

    Leaving without `commit` leaves the old state in force; shards written by then are kept for the next writer with the
    same `plan`, and removed by one with another.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream.
        dim: numbers per row; 0 of bytes.
        dtype: "float16", "float32" or "bytes".
        plan: names everything that the numbers depend on.
        provenance: goes to the stream's `provenance.json`, with time, host and versions.

    `shards` is what the writer goes by, as `StreamShards`; threads may stage by it what this writer then accepts.

    Raises CacheError when the split does not exist, when there is another writer, or when the stream has another `dim`
    or `dtype`.
    """

    shards: StreamShards

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
        layout.check_names(split, stream)
        layout.check_form(stream, dim, dtype)
        super().__init__(Place.of_stream(store_at(root), split, stream))
        self._split, self._stream = split, stream
        self._dim, self._dtype, self._plan = dim, dtype, plan
        self._provenance = dict(provenance or {})

    def __enter__(self) -> Self:
        committed_split(self._store, self._split)  # first: no folder is made for a stream of no split
        return super().__enter__()

    @property
    def split_digest(self) -> str:
        """Of the split's manifest that this writer goes by."""
        return self.shards.split_digest

    @property
    def pending(self) -> list[int]:
        """Shards with committed rows that the stream does not have, without those of a killed writer with this plan."""
        return [shard for shard in self.shards.live_shards if shard not in self._records]

    @property
    def rows_per_shard(self) -> int:
        return self.shards.rows_per_shard

    def rows(self, shard: int) -> range:
        """The split's rows that `write` takes for a shard: without padding, with rows of replaced tracks."""
        return self.shards.rows(shard)

    def live(self, shard: int) -> NDArray[np.bool_]:
        """(n,) whether each of the shard's `rows` belongs to a committed track. The others need no features."""
        return self.shards.live(shard)

    def carried(self, keys: NDArray[np.uint64]) -> Carried:
        """What the stream has already for rows with these keys: see `StreamShards.carried`."""
        return self.shards.carried(keys)

    @property
    def entries(self) -> dict[str, Any]:
        """The caller's own part of the manifest in force; empty when there is none."""
        return {} if self.shards.commit is None else callers_entries(self.shards.commit.manifest, STREAM_ENTRIES)

    def write(
        self, shard: int, data: NDArray[Any] | Sequence[bytes], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> None:
        """Write and journal the features of one pending shard. n is the number of its `rows`.

        What is given for rows of no committed track is not kept, nor are features where `ok` is 0.

        Args:
            data: (n, dim), rounded to the stream's dtype; of a stream of bytes, n times `bytes`.
            ok: (n,) 1 where there are features, 0 where the picture could not be decoded.
            keys: (n, 2) uint64, a hash of all that the row's features depend on.

        Raises CacheError for a shard that is not pending, for other shapes or types, for features that are not finite,
        or not within the dtype, where `ok` is 1, and for bytes that do not fit into a shard.
        """
        self._require_pending(shard)
        arrays = self.shards.checked(shard, data, ok, keys)
        self._lock.require()  # without it, this may be a shard that another writer has committed
        temporary = self._place.temporary
        self._keep(shard, self.shards.put(arrays, lambda name: self.shards.key(name, shard), lambda _: temporary))

    def accept(self, staged: Staged) -> None:
        """Take over and journal a shard that `StreamShards.stage` has written, in this process or in another.

        Raises CacheError when it is not pending, of other rows than the split has there now, of another form, or gone.
        """
        self._require_pending(staged.shard)
        title, do = self.shards.title(staged.shard), "Compute it again, with StreamShards opened again."
        theirs, ours = (staged.rows, staged.form), (self.shards.rows_record(staged.shard), self.shards.form)
        if theirs != ours or staged.keys.keys() != self.shards.columns.keys():
            raise CacheError(f"{title}: expected what is staged to be of {ours}, found {theirs}. {do}")
        for name, key in staged.keys.items():
            if not key.startswith(self._place.staged_shard) or not shards.has_size(
                self._store, key, staged.records[name]
            ):
                expected = f"{shards.size_of(staged.records[name])} bytes that were staged"
                raise CacheError.at(self._store.location(key), expected=expected, found="no such file", do=do)
        self._lock.require()
        for name, key in staged.keys.items():
            self._store.rename(key, self.shards.key(name, staged.shard))
        self._keep(staged.shard, staged.records)

    def commit(self, entries: Mapping[str, Any], *, note: Mapping[str, Any] | None = None) -> None:
        """Make every shard written so far visible. A stream with shards still pending is committed as what it is.

        Args:
            entries: the caller's own part of the stream's manifest, under its own keys.
            note: goes to `provenance.json` beside `provenance`: how it went, how long it took.
        """
        if taken := sorted(entries.keys() & STREAM_ENTRIES):
            raise CacheError(f"{self._split}: {taken} in the manifest are the cache's own; choose other keys")
        split, columns, current = self.shards.split, self.shards.columns, self.shards.commit
        extent = int(split.manifest["extent"])
        files = {
            f"{name}/zarr.json": layout.column_metadata(spec, extent, self.shards.geometry)
            for name, spec in columns.items()
        }
        # Which rows each shard is of, also where the split names it no longer: it may still be carried over.
        rows = {} if current is None else dict(current.manifest.get("rows", {}))
        new_shards = sorted(self._records.keys() - self.shards.committed.keys())
        rows |= {str(shard): self.shards.rows_record(shard) for shard in new_shards}
        new = manifest.with_digest(
            {
                **entries,
                "stream": self._stream,
                "dim": self._dim,
                "dtype": self._dtype,
                "extent": extent,
                # With shards pending, the stream is not what belongs to any state of the split.
                "split_digest": "" if self.pending else split.digest,
                "commits": split.manifest["commits"],
                "geometry": split.manifest["geometry"],
                "shards": {
                    name: {str(shard): records[name] for shard, records in sorted(self._records.items())}
                    for name in columns
                },
                "rows": rows,
                "files": {name: manifest.sha256(data) for name, data in files.items()},
            }
        )
        if current is None or new["digest"] != current.digest:
            self._lock.require()
            add_provenance(self._place, new["digest"], {**self._provenance, **(note or {})}, self._started)
            manifest.publish(self._place, new, files, expected=None if current is None else current.etag)
        self._journal.remove()
        self._open()

    def _open(self) -> None:
        self._started = time.time()
        if self._store.exclusive:
            staged = [f"{self._place.writing}/{name}" for name in self._store.list_names(self._place.writing)]
            staged = [key for key in staged if key.startswith(self._place.staged_shard)]
            self._store.remove([self._place.temporary, *staged])
        manifest.recover(self._place)
        self.shards = self._current_shards()  # under the lock, which keeps a compaction out
        if self.shards.commit is not None and self.shards.foreign:
            invalidate_shards(self._place, self.shards.commit, self.shards.foreign)
            self.shards = self._current_shards()
        self._records = dict(self.shards.committed)
        head = {"plan": self._plan, "dim": self._dim, "dtype": self._dtype}
        journal = self._journal.resume(head)
        if journal is None:
            for name in self.shards.columns:
                remove_shards(self._store, self._place.array(name), keep=self.shards.committed)
            self._journal.start(head)
        for record in journal or ():  # a shard's rows never change: whatever was committed since, they are good
            shard, files = record["shard"], record["files"]
            if shard not in self.shards.committed and record["rows"] == self.shards.rows_record(shard):
                keys = {self.shards.key(name, shard): text for name, text in files.items()}
                if all(shards.has_size(self._store, key, text) for key, text in keys.items()):
                    self._records[shard] = {name: str(text) for name, text in files.items()}

    def _current_shards(self) -> StreamShards:
        return StreamShards(self._store, self._split, self._stream, dim=self._dim, dtype=self._dtype)

    def _require_pending(self, shard: int) -> None:
        if shard in self._records or shard not in self.shards.live_shards:
            raise CacheError(f"{self.shards.title(shard)}: is not pending; pending are {self.pending[:5]}...")

    def _keep(self, shard: int, records: Mapping[str, str]) -> None:
        """Journal the records of a shard whose files are in place."""
        self._journal.add({"shard": shard, "rows": self.shards.rows_record(shard), "files": dict(records)})
        self._records[shard] = dict(records)
