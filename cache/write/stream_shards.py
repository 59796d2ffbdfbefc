"""Shards of a stream, written by anybody, anywhere.  raw -> tracks -> [features] -> windows

`StreamShards` takes no lock and changes nothing that is committed. Any number of threads, processes and machines that
see the cache may write shards by it; the one `StreamWriter` of the stream accepts them. What nobody accepts is a
left-over.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, MissingSplit
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.layout import ColumnSpec, Geometry, stream_columns
from cache.format.manifest import Commit, Place, foreign_shards, shard_rows
from cache.format.tables import Tables, live_by_shard, live_shards, track_of
from cache.read.ragged import RaggedShard, places_of
from cache.storage.base import Root, Store, store_at
from cache.write.key_index import KeyIndex, nothing_held

Arrays = Mapping[str, NDArray[Any] | Sequence[bytes]]  # of one shard, by name


@dataclass(frozen=True, slots=True)
class Staged:
    """A shard that lies whole in the cache, under names of its own. Small; `Staged(**dataclasses.asdict(s)) == s`."""

    shard: int
    rows: str  # which rows it is of: `manifest.rows_record`
    form: str  # what its rows are: `layout.form_of`
    keys: dict[str, str]  # array -> where its file lies, below the cache
    records: dict[str, str]  # array -> what the manifest is to keep of it


class StreamShards:
    """One state of a split and its stream, to compute shards for and to stage them. Threads may share it.

    Args:
        root, split: a committed split of a cache.
        stream: name of the stream, which need not be there yet.
        dim: numbers per row; 0 of bytes.
        dtype: "float16", "float32" or "bytes".

    Raises CacheError when the split is not there, or the stream is there with another `dim` or `dtype`.
    """

    def __init__(self, root: Root | Store, split: str, stream: str, *, dim: int = 2048, dtype: str = "float16") -> None:
        layout.check_names(split, stream)
        layout.check_form(stream, dim, dtype)
        self._store, self._split, self._stream = store_at(root), split, stream
        self.form, self.columns = layout.form_of(dim, dtype), stream_columns(stream, dim, dtype)
        self._trailing = () if dtype == layout.BYTES else (dim,)
        self.place = Place.of_stream(self._store, split, stream)
        self.commit = manifest.load(self.place)
        self.split = committed_split(self._store, split)  # after the stream: never older than what the stream is of
        self.geometry = Geometry(**self.split.manifest["geometry"])
        self._tables = Tables.from_files(self.split.files)
        self.live_shards = live_shards(self._tables, self.geometry)
        self.foreign = [] if self.commit is None else foreign_shards(self.commit.manifest, self.split.manifest)
        self.committed = self._committed_records()
        self._index: KeyIndex | None = None
        self._lock = threading.Lock()

    @property
    def split_digest(self) -> str:
        """Of the split's manifest that this goes by."""
        return self.split.digest

    @property
    def rows_per_shard(self) -> int:
        return self.geometry.rows_per_shard

    def rows(self, shard: int) -> range:
        """The split's rows that `stage` takes for a shard: without padding, with rows of replaced tracks."""
        return shard_rows(self.split.manifest, shard)

    def live(self, shard: int) -> NDArray[np.bool_]:
        """(n,) whether each of the shard's `rows` belongs to a committed track. The others need no features."""
        rows = self.rows(shard)
        return np.asarray(track_of(self._tables, np.arange(rows.start, rows.stop)) >= 0)

    def rows_record(self, shard: int) -> str:
        """Which rows a shard is of."""
        return manifest.rows_record(self.split.manifest, shard)

    def carried(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Any, NDArray[np.uint8]]:
        """What the stream holds already for rows with these keys, once tracks have been replaced: nothing before that.

        Args:
            keys: (n, 2) uint64.

        Returns:
            mask (n,), features (n, dim) or n `bytes`, and ok (n,): meaningful where the mask is True, elsewhere 0 or
            empty.
        """
        with self._lock:
            if not self._has_of_replaced:
                return nothing_held(len(keys), self.columns)
            assert self.commit is not None
            if self._index is None:
                spill = self._store.spill(self.place.writing)
                self._index = KeyIndex.build(self.commit, self.columns, self.committed, spill)
        return self._index.look_up(keys)

    @cached_property
    def _has_of_replaced(self) -> bool:
        """Whether the stream has rows of tracks that have gone or come anew: if not, there is nothing to carry over."""
        if self.commit is None:
            return False
        live = live_by_shard(self._tables, self.geometry, int(self.split.manifest["extent"]))
        return any(shard >= len(live) or live[shard] < self._written(shard) for shard in self.committed)

    def _written(self, shard: int) -> int:
        """How many rows a committed shard was written with."""
        return len(self.rows(shard)) if self.rows_record(shard) else self.geometry.rows_per_shard

    def stage(
        self, shard: int, data: NDArray[Any] | Sequence[bytes], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> Staged:
        """Write one shard into the cache, durably, for a `StreamWriter` to accept. Arguments as for its `write`.

        Raises CacheError for a shard that has no rows, or is committed already, and for data that do not fit.
        """
        if shard not in self.live_shards or shard in self.committed:
            raise CacheError(f"{self.where(shard)}: is not pending")
        arrays = self.checked(shard, data, ok, keys)
        mark = secrets.token_hex(8)
        there = {name: f"{self.place.staged}{name}-{shard}-{mark}" for name in self.columns}
        try:
            records = self.put(arrays, there.__getitem__, lambda name: f"{there[name]}.tmp")
        except BaseException:
            self._store.remove([*there.values(), *(f"{key}.tmp" for key in there.values())])
            raise
        return Staged(shard, self.rows_record(shard), self.form, there, records)

    def checked(
        self, shard: int, data: NDArray[Any] | Sequence[bytes], ok: NDArray[Any], keys: NDArray[np.uint64]
    ) -> Arrays:
        """The arrays of a shard in their own types, fill values where nothing is. Raises CacheError as `stage` does."""
        n_rows, of_bytes = len(self.rows(shard)), not self._trailing
        given = (_form_given(data), ok.shape, keys.shape, keys.dtype)
        form = f"{n_rows} times bytes" if of_bytes else str((n_rows, *self._trailing))
        if given != (form, (n_rows,), (n_rows, 2), np.dtype(np.uint64)):
            expected = f"features {form}, ok {(n_rows,)}, keys {(n_rows, 2)} uint64"
            raise CacheError(f"{self.where(shard)}: expected {expected}, found {given}")
        live, flags = self.live(shard), np.asarray(ok) != 0
        good = live & flags
        arrays: dict[str, NDArray[Any] | Sequence[bytes]] = {
            f"{self._stream}_ok": self._filled("_ok", live, flags),
            f"{self._stream}_key": self._filled("_key", live, keys),
        }
        if isinstance(data, np.ndarray):
            arrays[self._stream] = self._numbers(shard, data, good)
        else:
            lengths = np.fromiter(map(len, data), np.int64, n_rows)
            arrays[self._stream] = [data[row] for row in np.flatnonzero(good).tolist()]
            arrays[f"{self._stream}_at"] = self._places(shard, lengths, good)
        return arrays

    def put(self, arrays: Arrays, key: Callable[[str], str], by_way_of: Callable[[str], str]) -> dict[str, str]:
        """Write the files of a shard's arrays, each under the key that it has by its name. Returns their records."""
        written = {}
        for name, spec in self.columns.items():
            geometry, array = spec.cut(self.geometry), arrays[name]
            if isinstance(array, np.ndarray):
                data = shards.encode(array, spec, geometry)
                written[name] = shards.write(self._store, key(name), data, geometry, by_way_of=by_way_of(name))
            else:
                pieces = RaggedShard(array, geometry)
                self._store.put(key(name), pieces, by_way_of=by_way_of(name))
                written[name] = pieces.record
        return written

    def key(self, name: str, shard: int) -> str:
        """Where a shard of an array belongs."""
        return layout.shard_key(self.place.array(name), shard, self.columns[name].trailing)

    def where(self, shard: int) -> str:
        return f"{self._split}: stream {self._stream}, shard {shard}"

    def _filled(self, part: str, where: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
        spec: ColumnSpec = self.columns[f"{self._stream}{part}"]
        array = np.full((len(where), *spec.trailing), spec.fill, spec.dtype)
        array[where] = values[where]
        return array

    def _numbers(self, shard: int, features: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # beyond the dtype becomes infinite, which is refused
            array = self._filled("", good, features)
        if bad := np.flatnonzero(~np.isfinite(array).all(axis=1) & good).tolist():
            raise CacheError(
                f"{self.where(shard)}: features of {len(bad)} rows are not finite in {array.dtype}, first row {bad[0]}"
            )
        return array

    def _places(self, shard: int, lengths: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
        room = self.columns[self._stream].cut(self.geometry).rows_per_shard
        if (total := int(lengths[good].sum())) > room:
            raise CacheError(
                f"{self.where(shard)}: expected at most {room} bytes, {layout.ROOM} for each of {self.rows_per_shard} "
                f"rows, found {total}. Store less of each row, as pictures of lower quality."
            )
        return places_of(lengths, good, shard * room)

    def _committed_records(self) -> dict[int, dict[str, str]]:
        """The records of the committed shards that are of these rows, by shard and array."""
        if self.commit is None:
            return {}
        of = self.commit.manifest
        held, geometry = layout.form_of(of["dim"], of["dtype"]), of["geometry"]
        if (held, geometry) != (self.form, self.split.manifest["geometry"]):
            where = self._store.where(self.place.manifest)
            do = "Choose another name for the stream, or replace it."
            raise CacheError.at(where, expected=held, found=self.form, do=do)
        by_array, others = of["shards"], set(self.foreign)
        numbers = [int(shard) for shard in by_array[self._stream] if int(shard) not in others]
        return {shard: {name: by_array[name][str(shard)] for name in by_array} for shard in numbers}


def committed_split(store: Store, split: str) -> Commit:
    """The split in force. Raises MissingSplit when there is none."""
    found = manifest.load(Place.of_split(store, split))
    if found is None:
        raise MissingSplit(f"{store.root}: no committed split {split!r}: convert it before its features")
    return found


def _form_given(data: NDArray[Any] | Sequence[bytes]) -> str:
    """What was given, in the words for what is expected."""
    if isinstance(data, np.ndarray):
        return str(data.shape)
    others = {type(row).__name__ for row in data} - {"bytes"}
    return f"{len(data)} times {' and '.join(sorted(others)) or 'bytes'}"
