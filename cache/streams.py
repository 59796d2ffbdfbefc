"""Features of a split's rows, added without touching the rest.  raw -> tracks -> [features] -> windows

A stream is three arrays (features, `_ok`, `_key`) and a manifest of its own, which says for which shards of the split
it has them. Shards never change, so a stream stays good for as long as its shards are; it may lag behind the tracks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from cache import layout, manifest, shards
from cache.errors import CacheError, MissingSplit
from cache.folders import discard_shards
from cache.keys import KeyIndex
from cache.layout import Geometry, stream_columns
from cache.manifest import Commit, Place, foreign_shards, own_part, shard_rows
from cache.provenance import add_provenance
from cache.stores import Root, store_at
from cache.tables import Tables, live_rows, live_shards

STREAM_ENTRIES: Final = frozenset(
    {
        *("format", "digest", "stream", "dim", "dtype", "extent", "split_digest", "commits", "geometry"),
        *("shards", "rows", "files"),
    }
)


class StreamWriter:
    """The one writer of a feature stream. Use as a context manager: write every pending shard, in any order, commit.

    Leaving without `commit` leaves the old state in force; shards written by then are kept for the next run with the
    same `plan`, and discarded by a run with another.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream.
        dim: numbers per row.
        dtype: "float16" or "float32".
        plan: names everything that the numbers depend on.
        provenance: goes to the stream's `provenance.json`, with time, host and versions.

    Raises CacheError when the split is not there, when another writer is at work, or when the stream is there with
    another `dim` or `dtype`.
    """

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
        if dtype not in ("float16", "float32") or dim < 1:
            raise CacheError(f"stream {stream}: {dim} numbers of {dtype}: expected 1 or more, of float16 or float32")
        self._store, self._split, self._stream = store_at(root), split, stream
        self._dim, self._dtype, self._plan = dim, dtype, plan
        self._provenance = dict(provenance or {})
        self._columns = stream_columns(stream, dim, dtype)
        self._place = Place.of_stream(self._store, split, stream)
        self._journal = self._store.journal(self._place.writing)
        self._index: KeyIndex | None = None

    def __enter__(self) -> Self:
        self._committed_split()  # before a folder is made for a stream of nothing
        self._store.make_home(self._place.home)
        self._lock = self._store.lock(self._place.writing)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._lock.release()

    @property
    def split_digest(self) -> str:
        """Of the split's manifest that this writer goes by."""
        return self._split_commit.digest

    @property
    def pending(self) -> list[int]:
        """Shards with committed rows that the stream does not have, those of a killed run with this plan aside."""
        return [shard for shard in self._live_shards if shard not in self._records]

    @property
    def rows_per_shard(self) -> int:
        return self._geometry.rows_per_shard

    def rows(self, shard: int) -> range:
        """The split's rows that `write` takes for a shard: without padding, with rows of replaced tracks."""
        return shard_rows(self._split_commit.manifest, shard)

    def live(self, shard: int) -> NDArray[np.bool_]:
        """(n,) whether each of the shard's `rows` belongs to a committed track. The others need no features."""
        rows = self.rows(shard)
        return live_rows(self._tables, rows.start, rows.stop)

    def write(self, shard: int, features: NDArray[Any], ok: NDArray[Any], keys: NDArray[np.uint64]) -> None:
        """Write and journal the features of one pending shard. n is the number of its `rows`.

        What is given for rows of no committed track is not kept, nor are features where `ok` is 0.

        Args:
            features: (n, dim), rounded to the stream's dtype.
            ok: (n,) 1 where there are features, 0 where the picture could not be decoded.
            keys: (n, 2) uint64, a hash of all that the row's features depend on.

        Raises CacheError for a shard that is not pending, for other shapes, and for features that are not finite, or
        not within the dtype, where `ok` is 1.
        """
        where = f"{self._split}: stream {self._stream}, shard {shard}"
        if shard not in self.pending:
            raise CacheError(f"{where}: is not pending; pending are {self.pending[:5]}...")
        n_rows = len(self.rows(shard))
        given = (features.shape, ok.shape, keys.shape, keys.dtype)
        if given != ((n_rows, self._dim), (n_rows,), (n_rows, 2), np.dtype(np.uint64)):
            expected = f"features {(n_rows, self._dim)}, ok {(n_rows,)}, keys {(n_rows, 2)} uint64"
            raise CacheError(f"{where}: expected {expected}, found {given}")
        live = self.live(shard)
        flags = np.asarray(ok) != 0
        arrays = self._shard_arrays(features, flags, keys, live)
        if bad := np.flatnonzero(~np.isfinite(arrays[self._stream]).all(axis=1) & flags & live).tolist():
            raise CacheError(
                f"{where}: features of {len(bad)} rows are not finite in {self._dtype}, first row {bad[0]}"
            )
        self._lock.require()  # without it, this may be a shard that somebody else has committed
        written = {}
        for name, spec in self._columns.items():
            data = shards.encode(arrays[name], spec, self._geometry)
            key = self._shard_key(name, shard)
            written[name] = shards.write(self._store, key, data, self._geometry, by_way_of=self._place.temporary)
        self._journal.add({"shard": shard, "rows": self._rows_record(shard), "files": written})
        self._records[shard] = written

    def carried(
        self, keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]], NDArray[np.uint8]]:
        """What the stream holds already for rows with these keys, in this commit's shards or in those of replaced rows.

        Args:
            keys: (n, 2) uint64.

        Returns:
            mask (n,), features (n, dim) and ok (n,): meaningful where the mask is True, elsewhere 0.
        """
        if self._index is None:
            spill = self._store.spill(self._place.writing)
            self._index = KeyIndex.build(
                self._store, self._place.base, self._columns, self._geometry, self._earlier, spill
            )
        return self._index.look_up(keys)

    def commit(self, entries: Mapping[str, Any]) -> None:
        """Make every shard written so far visible. A stream with shards still pending is committed as what it is.

        Args:
            entries: the caller's own part of the stream's manifest, under its own keys.
        """
        if taken := sorted(entries.keys() & STREAM_ENTRIES):
            raise CacheError(f"{self._split}: {taken} in the manifest are the cache's own; choose other keys")
        extent = int(self._split_commit.manifest["extent"])
        new_shards = self._records.keys() - self._earlier.keys()
        files = {
            f"{name}/zarr.json": layout.column_metadata(spec, extent, self._geometry)
            for name, spec in self._columns.items()
        }
        new = manifest.seal(
            {
                **entries,
                "stream": self._stream,
                "dim": self._dim,
                "dtype": self._dtype,
                "extent": extent,
                # With shards pending, the stream is not what belongs to any state of the split.
                "split_digest": "" if self.pending else self._split_commit.digest,
                "commits": self._split_commit.manifest["commits"],
                "geometry": self._split_commit.manifest["geometry"],
                "shards": {
                    name: {str(shard): files[name] for shard, files in sorted(self._records.items())}
                    for name in self._columns
                },
                "rows": {**self._rows_of_earlier(), **{str(k): self._rows_record(k) for k in sorted(new_shards)}},
                "files": {name: manifest.sha256(data) for name, data in files.items()},
            }
        )
        if self._commit is None or new["digest"] != self._commit.digest:
            self._lock.require()
            add_provenance(self._place, new["digest"], self._provenance, self._started)
            expected = None if self._commit is None else self._commit.tag
            manifest.publish(self._place, new, files, expected=expected)
        self._journal.remove()
        self._open()

    @property
    def entries(self) -> dict[str, Any]:
        """The caller's own part of the manifest in force; empty when there is none."""
        return {} if self._commit is None else own_part(self._commit.manifest, STREAM_ENTRIES)

    def _committed_split(self) -> Commit:
        split = manifest.load(Place.of_split(self._store, self._split))
        if split is None:
            raise MissingSplit(
                f"{self._store.root}: no committed split {self._split!r}: convert it before its features"
            )
        return split

    def _open(self) -> None:
        self._started = time.time()
        if self._store.exclusive:
            self._store.remove([self._place.temporary])
        current = manifest.read_manifest(self._place)
        manifest.roll_forward(self._place, None if current is None else current[0])
        self._commit = manifest.load(self._place)
        # Under the lock, which keeps a compaction out, and after the stream: never a split older than its stream.
        split = self._split_commit = self._committed_split()
        self._geometry = Geometry(**split.manifest["geometry"])
        self._tables = Tables.from_files(split.files)
        self._live_shards = live_shards(self._tables, self._geometry)
        self._commit = self._of_these_rows(self._commit)
        self._earlier = self._checked_records(self._commit)
        self._records = dict(self._earlier)
        self._index = None
        self._take_over()

    def _of_these_rows(self, commit: Commit | None) -> Commit | None:
        """The stream without the shards that it has for other rows: those of a split that has been made anew since."""
        if commit is None:
            return None
        others = foreign_shards(commit.manifest, self._split_commit.manifest)
        if not others:
            return commit
        _forget(self._place, commit, others)
        return manifest.load(self._place)

    def _rows_of_earlier(self) -> dict[str, str]:
        """Also of shards that the split names no longer, since no track has rows there: they may be carried over."""
        return {} if self._commit is None else dict(self._commit.manifest.get("rows", {}))

    def _rows_record(self, shard: int) -> str:
        return manifest.rows_record(self._split_commit.manifest, shard)

    def _checked_records(self, commit: Commit | None) -> dict[int, dict[str, str]]:
        """The records of the committed shards, by shard and array."""
        if commit is None:
            return {}
        held = (commit.manifest["dim"], commit.manifest["dtype"], commit.manifest["geometry"])
        if held != (self._dim, self._dtype, self._split_commit.manifest["geometry"]):
            do = "Choose another name for the stream, or replace it."
            found = f"{self._dim} numbers of {self._dtype}"
            where = self._store.where(self._place.manifest)
            raise CacheError.at(where, expected=f"{held[0]} numbers of {held[1]}", found=found, do=do)
        by_array = commit.manifest["shards"]
        return {int(shard): {name: by_array[name][shard] for name in by_array} for shard in by_array[self._stream]}

    def _take_over(self) -> None:
        """Keep the journalled shards of a killed run with the same plan; discard those of any other."""
        head = {
            "plan": self._plan,
            "dim": self._dim,
            "dtype": self._dtype,
        }
        records = self._journal.resume(head)
        if records is None:
            for name in self._columns:
                discard_shards(self._store, self._place.array(name), keep=self._earlier)
            self._journal.start(head)
            return
        for record in records:  # a shard's rows never change: whatever was committed since, they are good
            if record["shard"] in self._earlier or record["rows"] != self._rows_record(record["shard"]):
                continue
            files = {name: str(text) for name, text in record["files"].items()}
            sizes = {self._shard_key(name, record["shard"]): text for name, text in files.items()}
            if all(shards.has_size(self._store, key, text) for key, text in sizes.items()):
                self._records[record["shard"]] = files

    def _shard_key(self, name: str, shard: int) -> str:
        return layout.shard_key(self._place.array(name), shard, self._columns[name].trailing)

    def _shard_arrays(
        self, features: NDArray[Any], ok: NDArray[np.bool_], keys: NDArray[np.uint64], live: NDArray[np.bool_]
    ) -> dict[str, NDArray[Any]]:
        """The three arrays of a shard in their own types, fill values where there is nothing."""
        arrays = {
            name: np.full((len(live), *spec.trailing), spec.fill, spec.dtype) for name, spec in self._columns.items()
        }
        good = live & ok
        with np.errstate(over="ignore"):  # beyond the dtype becomes infinite, which `write` refuses
            arrays[self._stream][good] = features[good]
        arrays[f"{self._stream}_ok"][live] = ok[live]
        arrays[f"{self._stream}_key"][live] = keys[live]
        return arrays


def discard(root: Root, split: str, stream: str) -> None:
    """Remove a stream, committed or not. Nothing happens when there is none.

    Raises CacheError when a writer is at work on it.
    """
    layout.check_names(split, stream)
    store = store_at(root)
    place = Place.of_stream(store, split, stream)
    if not store.below(place.home):
        return
    lock = store.lock(place.writing)
    try:
        store.remove([f"{place.home}/{layout.COPY}"])  # without it, the manifest is not missed
        store.remove([place.manifest])  # from here on, no reader takes the rest for a stream
        # The folder with the lock last: without it, the next writer could begin while its arrays are removed.
        store.remove([place.array(name) for name in reversed(stream_columns(stream, 1, "float16"))])
    finally:
        lock.release()


def forget(root: Root, split: str, stream: str, numbers: Collection[int]) -> None:
    """Let a committed stream name these shards no longer: they are pending again, and their files nobody's.

    Raises CacheError when there is no such stream, or a writer is at work on it.
    """
    layout.check_names(split, stream)
    place = Place.of_stream(store_at(root), split, stream)
    lock = place.store.lock(place.writing)
    try:
        commit = manifest.load(place)
        if commit is None:
            raise CacheError(f"{place.store.where(place.home)}: no committed stream: there is nothing to forget")
        manifest.roll_forward(place, commit.manifest)
        _forget(place, commit, numbers)
    finally:
        lock.release()


def _forget(place: Place, commit: Commit, numbers: Collection[int]) -> None:
    gone = {str(shard) for shard in numbers}
    named = {
        array: {shard: record for shard, record in records.items() if shard not in gone}
        for array, records in commit.manifest["shards"].items()
    }
    rows = {shard: record for shard, record in commit.manifest.get("rows", {}).items() if shard not in gone}
    body = own_part(commit.manifest, {"digest", "format", "split_digest", "shards", "rows"})
    new = manifest.seal({**body, "split_digest": "", "shards": named, "rows": rows})
    add_provenance(place, new["digest"], {"forgot": sorted(numbers)}, time.time())
    files = {name: bytes(data) for name, data in commit.files.items()}
    if new["digest"] != commit.digest:
        manifest.publish(place, new, files, expected=commit.tag, journal_stays=True)
