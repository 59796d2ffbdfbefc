"""Shards of a stream, staged by any process on any machine.  raw -> tracks -> [features] -> windows

`StreamShards` takes no lock and changes nothing that is committed; the one `StreamWriter` of the
stream accepts staged shards and commits them. A row's key is a hash of everything that its features
depend on. If a row is written again with the same key, for example after a label was corrected, its
features are carried over: they are copied from the old row and not computed again.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from cache.arrays import Array, Bools, Flags, Ints, Keys
from cache.errors import CacheError, MissingSplit
from cache.format import layout, manifest
from cache.format.layout import HAS_VALUE, NO_KEY, UNDECODABLE, Geometry, stream_columns
from cache.format.listing import refuse_missing
from cache.format.manifest import Commit, shard_rows
from cache.format.place import Place
from cache.format.shard import ShardLayout
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.staged import FILE, ROWS, STAGED, Plan, StagedWork

Arrays = Mapping[str, Array]  # the arrays of one shard, by name

# Odd numbers: multiplying by them maps 64-bit words one to one.
_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
SORTED_ROWS: Final = 1 << 22  # rows that are sorted in memory at once: 64 MiB


class FoundRows(NamedTuple):
    """Stored features for n rows."""

    mask: Bools  # (n,) which rows have stored features
    features: Any  # (n, dim); 0 for the other rows
    ok: Flags  # (n,) flags as stored; 0 for the other rows


@dataclass(frozen=True, slots=True)
class Staged:
    """A complete, uncommitted shard in the cache."""

    shard: int
    rows: str  # digest of the split's rows in this shard: `manifest.rows_record`
    form: str  # size and dtype of a row, such as "2048 numbers of float16"
    token: str  # random part of its temporary names
    keys: dict[str, str]  # array -> the key of its file in the store
    records: dict[str, str]  # array -> the manifest's record of the file: size and checksum
    made: dict[str, Any]  # `StreamShards.made`


class StreamShards:
    """One state of a split and its stream, for computing and staging shards. Threads may share it.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream, which need not exist yet.
        dim: numbers per row.
        dtype: "float16" or "float32".
        plan: the plan of the `StreamWriter`. Checkpoints of the same plan are used again, and its
            writer accepts staged shards. "": use none, and record none.

    Raises CacheError when the split is missing, or the stream has another `dim` or `dtype`.
    """

    split_digest: str
    """Digest of the split's manifest when this was opened."""
    rows_per_shard: int
    """Rows in a shard, of the split and the stream."""
    made: Mapping[str, Any] = MappingProxyType({})
    """How features are computed. The caller may set it; it is recorded with each staged shard, and
    a writer compares `sha256`, the digest of the weights."""

    def __init__(
        self,
        root: Root,
        split: str,
        stream: str,
        *,
        dim: int = 2048,
        dtype: str = "float16",
        plan: Plan = "",
    ) -> None:
        layout.check_names(split, stream)
        self._store = store_at(root)
        self._stream = stream
        self._dim = dim
        self._dtype = dtype
        self.plan = plan
        self.form = _form_of(dim, dtype)
        if dtype not in ("float16", "float32") or dim < 1:
            raise CacheError(
                f"stream {stream}: {self.form}: expected 1 or more of float16 or float32"
            )
        self.columns = stream_columns(stream, dim, dtype)
        self.place = Place(self._store, split, stream)
        self._work = StagedWork(self.place, {"plan": plan, "dim": dim, "dtype": dtype})
        self._read_state()

    def _read_state(self) -> None:
        self._commit = Commit.load(self.place)
        # Read after the stream's commit, so that it is never older.
        split = Commit.load(Place(self._store, self.place.split))
        if split is None:
            refuse_missing(self._store, self.place.split)
            problem = f"no committed split {self.place.split!r}"
            raise MissingSplit(f"{self._store.root}: {problem}: convert it before its features")
        self.split = split
        self.split_digest = split.digest
        self.geometry = Geometry(**split.manifest["geometry"])
        self.rows_per_shard = self.geometry.rows_per_shard
        self._tables = split.tables
        n_live = self._tables.live_by_shard(self.geometry, int(split.manifest["extent"]))
        self.live_shards = np.flatnonzero(n_live).tolist()
        self.foreign: list[int] = []  # shards that the stream has for other rows
        self.committed: dict[int, dict[str, str]] = {}  # shard -> the records of its arrays
        if self._commit is not None:
            stream = self._commit.manifest
            committed_form = _form_of(stream["dim"], stream["dtype"])
            if (committed_form, stream["geometry"]) != (self.form, split.manifest["geometry"]):
                location = self._store.location(self.place.manifest)
                do = "Choose another name for the stream, or replace it."
                raise CacheError.at(location, expected=committed_form, found=self.form, do=do)
            self.foreign = self._commit.foreign_shards(split.manifest)
            by_array = stream["shards"]
            numbers = {int(shard) for shard in by_array[self._stream]} - set(self.foreign)
            for shard in sorted(numbers):
                records = {name: by_array[name][str(shard)] for name in by_array}
                self.committed[shard] = records
        # Features can only be carried over from rows of replaced or removed tracks.
        self._has_replaced_rows = any(
            self._is_partly_replaced(shard, n_live) for shard in self.committed
        )
        self._index: _KeyIndex | None = None
        self._index_lock = threading.Lock()

    def _is_partly_replaced(self, shard: int, n_live: Ints) -> bool:
        """Whether a committed shard has rows without a track. `n_live`: the number of rows with a
        track, by shard.
        """
        is_gone = shard >= len(n_live) or not self.rows_record(shard)
        return is_gone or bool(n_live[shard] < len(self.rows(shard)))

    def rows(self, shard: int) -> range:
        """The rows of a shard, for all of which `stage` expects data. They include rows of replaced
        tracks, but no padding.
        """
        return shard_rows(self.split.manifest, shard)

    def live(self, shard: int) -> Bools:
        """Whether each of the shard's n `rows` belongs to a committed track (n,). Other rows need
        no features.
        """
        rows = self.rows(shard)
        return np.asarray(self._tables.track_of(np.arange(rows.start, rows.stop)) >= 0)

    def rows_record(self, shard: int) -> str:
        """The digest of the split's rows in a shard: see `manifest.rows_record`."""
        return manifest.rows_record(self.split.manifest, shard)

    def carried(self, keys: Keys) -> FoundRows:
        """Find features to carry over: those that committed rows of the stream have with equal
        keys, (n, 2) uint64. Finds none if no committed shard has rows of replaced tracks.
        """
        with self._index_lock:
            if self._index is None and self._has_replaced_rows and self._commit is not None:
                stream = OpenStream(self._commit, self.split.manifest)
                self._index = _KeyIndex(stream, self.committed)
        found = self._none_found(len(keys))
        if self._index is None:
            return found
        mask, data, ok = found
        rows = self._index.find(keys)
        stream = self._index.stream
        mask[:] = rows >= 0
        ok[mask] = stream.read("_ok", rows[mask])[:, 0]
        good = ok != UNDECODABLE
        data[good] = stream.read("", rows[good])[:, 0]
        return found

    def checkpoint(self, shard: int, rows: Ints, data: Array, ok: Flags, keys: Keys) -> None:
        """Store some rows of an incomplete shard durably, replacing its last checkpoint.

        Args:
            rows: (n,) indices within the shard.
            data, ok, keys: of these n rows, as for `StreamWriter.write`.
        """
        self._work.put(f"{ROWS}-{shard}", {}, {"rows": rows, "ok": ok, "keys": keys, "data": data})

    def kept(self, shard: int, keys: Keys) -> FoundRows:
        """Read features of a shard's rows from its checkpoint, where the keys (n, 2) are equal."""
        n = len(keys)
        found = self._none_found(n)
        mask, data, ok = found
        for _, saved in self._work.read([f"{ROWS}-{shard}"]).values():
            rows = saved["rows"]
            values = saved["data"]
            same = (rows < n) & (saved["keys"] == keys[np.minimum(rows, n - 1)]).all(axis=1)
            # A shard must have finite values: compute the others again.
            same &= np.isfinite(values).all(axis=1)
            mask[rows[same]] = True
            data[rows[same]] = values[same]
            ok[rows[same]] = saved["ok"][same]
        return found

    def _none_found(self, n: int) -> FoundRows:
        spec = self.columns[self._stream]
        data = np.zeros((n, *spec.trailing), spec.dtype)
        return FoundRows(np.zeros(n, bool), data, np.zeros(n, np.uint8))

    def list_staged(self) -> dict[int, Staged]:
        """Shards that any process has staged with this plan, by number; only those for the rows
        that the split has now.
        """
        shards = {}
        for head, _ in self._work.read(self._work.names(STAGED)).values():
            staged = Staged(**head["staged"])
            if staged.rows == self.rows_record(staged.shard):
                shards[staged.shard] = staged
        return shards

    def stage(self, shard: int, data: Array, ok: Array, keys: Keys) -> Staged:
        """Write one shard durably, under temporary names, for `StreamWriter.accept`. The arguments
        are those of `StreamWriter.write`.

        A later writer with the same plan accepts the shard by itself.

        Raises CacheError for a shard that is not pending, and for data of a wrong shape or value.
        """
        token = secrets.token_hex(8)
        staged = f"{self._work.folder}/{FILE}-{shard}-{token}"
        files = {name: f"{staged}-{name}" for name in self.columns}
        return self._write(shard, data, ok, keys, token, files, staged_piece(shard, token))

    def _write(
        self,
        shard: int,
        data: Array,
        ok: Array,
        keys: Keys,
        token: str,
        files: dict[str, str],
        piece: str,
    ) -> Staged:
        """Write a shard as `stage` does, to the keys `files` (by array), and record it in the piece
        of staged work named `piece`.
        """
        self._require_pending(shard)
        arrays = self.check_arrays(shard, data, ok, keys)
        temporary = {name: f"{self._work.folder}/.{shard}-{token}-{name}" for name in files}
        try:
            records = {}
            for name, spec in self.columns.items():
                file, record = ShardLayout(spec, self.geometry).encode(arrays[name])
                self._store.put(files[name], file, temporary=temporary[name])
                records[name] = record
            staged = Staged(
                shard=shard,
                rows=self.rows_record(shard),
                form=self.form,
                token=token,
                keys=files,
                records=records,
                made=dict(self.made),
            )
            if self.plan:
                self._put_piece(piece, staged)
        except BaseException:
            self._store.remove(temporary.values())
            folder = self._work.folder  # a file outside of it may be a committed one
            self._store.remove([path for path in files.values() if path.startswith(folder)])
            raise
        return staged

    def _require_pending(self, shard: int) -> None:
        if shard not in self.live_shards or shard in self.committed:
            raise CacheError(f"{self.title(shard)}: is not pending")

    def _put_piece(self, name: str, staged: Staged) -> None:
        """Record a shard whose files are written, and remove its checkpoint."""
        self._work.put(name, {"staged": asdict(staged)})
        self._work.remove([f"{ROWS}-{staged.shard}"])

    def check_arrays(self, shard: int, data: Array, ok: Array, keys: Keys) -> Arrays:
        """Check a shard's data, and convert them to the arrays to store, by name. Raises CacheError
        for wrong shapes, dtypes, flags or values.
        """
        n_rows = len(self.rows(shard))
        title = self.title(shard)
        shapes = (np.shape(data), ok.shape, keys.shape, keys.dtype)
        if shapes != ((n_rows, self._dim), (n_rows,), (n_rows, 2), np.dtype(np.uint64)):
            expected = f"features {(n_rows, self._dim)}, ok {(n_rows,)}, keys {(n_rows, 2)} uint64"
            raise CacheError(f"{title}: expected {expected}, found {shapes}")
        allowed = (UNDECODABLE, *HAS_VALUE)
        live = self.live(shard)
        allowed_flags = np.isin(ok, allowed)
        if not allowed_flags[live].all():
            found_flags = np.unique(ok[live & ~allowed_flags]).tolist()
            raise CacheError(f"{title}: expected ok flags of {allowed}, found {found_flags}")
        good = live & (ok != UNDECODABLE)

        def fill_rows(part: str, rows: Bools, values: Array) -> Array:
            spec = self.columns[f"{self._stream}{part}"]
            array = np.full((n_rows, *spec.trailing), spec.fill, spec.dtype)
            array[rows] = values[rows]
            return array

        # Numbers beyond the dtype's range become infinite, and are refused below.
        with np.errstate(over="ignore"):
            features = fill_rows("", good, data)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1) & good)
        if len(bad):
            problem = f"features of {len(bad)} rows are not finite in {features.dtype}"
            raise CacheError(f"{title}: {problem}, first row {bad[0]}")
        name = self._stream
        return {
            name: features,
            f"{name}_ok": fill_rows("_ok", live, ok),
            f"{name}_key": fill_rows("_key", live, keys),
        }

    def _key(self, name: str, shard: int) -> str:
        """The key of an array's shard under its final name."""
        return layout.shard_key(self.place.array_key(name), shard, self.columns[name].trailing)

    def title(self, shard: int) -> str:
        return f"{self.place.split}: stream {self._stream}, shard {shard}"


def staged_piece(shard: int, token: str) -> str:
    """The name of the piece that records a shard under temporary names."""
    return f"{STAGED}-{shard}-{token}"


def _form_of(dim: int, dtype: str) -> str:
    """A stream's row format, for messages: "2048 numbers of float16"."""
    return f"{dim} numbers of {dtype}"


class _KeyIndex:
    """Finds rows of a stream by their keys.

    It holds 64-bit hashes of the keys, sorted in parts; large parts are in temporary files that are
    memory-mapped.
    """

    def __init__(self, stream: OpenStream, shards: Iterable[int]) -> None:
        self.stream = stream
        self._sorted: list[Keys] = []  # parts of (2, n): ascending hashes, and their rows
        parts: list[Keys] = []
        for shard in sorted(shards):
            rows = np.asarray(shard_rows(stream.commit.manifest, shard))
            keys = stream.read("_key", rows[:1], len(rows))[0]
            has_key = (keys != NO_KEY).any(axis=1)
            parts.append(np.stack([_hash_keys(keys[has_key]), rows[has_key].astype(np.uint64)]))
            if sum(part.shape[1] for part in parts) >= SORTED_ROWS:
                self._sorted.append(self._map_file(_sort_by_hash(parts)))
                parts = []
        if parts:
            self._sorted.append(_sort_by_hash(parts))

    def find(self, keys: Keys) -> Ints:
        """The rows (n,) that have these keys (n, 2); -1 for keys that no row has."""
        rows = np.full(len(keys), -1, np.int64)
        hashes = _hash_keys(keys)
        for sorted_hashes, sorted_rows in self._sorted:
            if not len(sorted_hashes):
                continue
            position = np.searchsorted(sorted_hashes, hashes)
            position = np.minimum(position, len(sorted_hashes) - 1)
            # Only the first row with a hash is found. If another key has the same hash, its row is
            # computed again.
            hits = (sorted_hashes[position] == hashes) & (rows < 0)
            rows[hits] = sorted_rows[position[hits]]
        candidates = np.flatnonzero(rows >= 0)
        stored = self.stream.read("_key", rows[candidates])[:, 0]
        differs = (stored != keys[candidates]).any(axis=1)
        rows[candidates[differs]] = -1
        return rows

    def _map_file(self, entries: Keys) -> Keys:
        """Copy the entries into an unnamed temporary file and memory-map it. The file disappears
        when the map is deleted or the process ends.
        """
        place = self.stream.commit.place
        # In an object store, the folder is None: the system's temporary folder is used.
        with tempfile.TemporaryFile(dir=place.store.folder(place.manifest_folder)) as file:
            entries.tofile(file)
            return np.memmap(file, np.uint64, "r", shape=entries.shape)


def _hash_keys(keys: Keys) -> Keys:
    """Hash keys (n, 2) to 64 bits (n,). Different keys may have equal hashes: callers compare the
    keys, too.
    """
    mixed: Keys = (keys * _MIX).sum(axis=1, dtype=np.uint64)
    return mixed


def _sort_by_hash(parts: Sequence[Keys]) -> Keys:
    """Join entries (2, n), sorted by hash. The sort is stable, so that `find` returns the earliest
    of several rows with the same key.
    """
    entries = np.concatenate(parts, axis=1)
    return entries[:, np.argsort(entries[0], kind="stable")]
