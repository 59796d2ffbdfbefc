"""The cache as readers see it: splits, tracks, windows, batches.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cache.crop_policy import CropPolicy
from cache.errors import CacheChanged, CacheError, MissingSplit
from cache.format import layout, manifest
from cache.format.layout import COLUMNS, FEATURES, HAS_VALUE, MANIFEST, UNDECODABLE, Geometry
from cache.format.manifest import Commit, Place, read_provenance
from cache.format.records import Tracks, Videos
from cache.format.tables import Tables, live_by_shard, track_of
from cache.read import labels
from cache.read.rows import Rows
from cache.read.stream_windows import StreamWindows
from cache.read.streams import OpenStream, StalenessCheck, open_column, open_lazily
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.windows import Ranges, Tail, intersect, windows_of

if TYPE_CHECKING:
    import zarr

Array = NDArray[Any]


class _Unnamed(str):
    """A stream that the caller has not named."""


USUAL: Final = _Unnamed("resnet50")


def open(root: Root) -> FeatureCache:  # noqa: A001  it reads as cache.open
    """Open a cache for reading: a folder, or a URL as s3://bucket/prefix. Raises CacheError when there is none."""
    return FeatureCache(require_cache(root).root)


def require_cache(root: Root) -> Store:
    """The store of a cache that exists. Raises CacheError when there is none."""
    store = store_at(root)
    if not store.exists("zarr.json"):
        found = "no zarr.json" if isinstance(store.root, str) or store.root.is_dir() else "no such folder"
        do = "Convert a dataset into it first."
        raise CacheError.at(store.location(""), expected="a feature cache", found=found, do=do)
    return store


class FeatureCache(Mapping[str, "Split"]):
    """All committed splits under one root, by "<dataset>/<split>". Each look-up opens the split's newest commit."""

    def __init__(self, root: Root) -> None:
        self.store = store_at(root)
        self.root = self.store.root

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the committed splits, sorted."""
        datasets = (name for name in self.store.list_names("") if layout.is_name(name))
        return tuple(
            f"{data}/{name}" for data in datasets for name in self.store.list_names(data) if f"{data}/{name}" in self
        )

    def __getitem__(self, name: str) -> Split:
        commit = manifest.load(Place.of(self.store, name)) if layout.is_split_name(name) else None
        if commit is None:
            known = ", ".join(self.splits) or "none"
            raise MissingSplit(f"{self.root}: no committed split {name!r}; there are: {known}")
        return Split(self.store, name, commit)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and layout.is_split_name(name) and self.store.exists(f"{name}/{MANIFEST}")

    def __repr__(self) -> str:
        return f"<FeatureCache {self.root}: {', '.join(self.splits) or 'empty'}>"


class Split:
    """One committed state of the tracks of <dataset>/<split>: rows, tables, windows.

    It stays what it was when it was opened: later commits show when it is opened again. It can be pickled, into
    workers for instance, which open it again and raise CacheChanged if there has been a commit since.
    """

    def __init__(self, store: Store, name: str, commit: Commit) -> None:
        self.store, self.root, self.name = store, store.root, name
        self._commit = commit
        self._tables = Tables.from_files(commit.files)
        self._check_current = StalenessCheck(commit)
        self._rows: dict[str, Rows] = {}
        self._streams: dict[str, OpenStream] = {}
        self._keys: dict[CropPolicy, NDArray[np.uint64]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.root, self.name, self._commit.digest)

    def __repr__(self) -> str:
        return f"<Split {self.name}: {self.manifest['rows']} rows, {self.manifest['tracks']} tracks>"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest: the cache's own entries and those that were given to `commit`."""
        return self._commit.manifest

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How this commit came about: time, host, software, and what was given to the writer. Empty when lost."""
        return _provenance(self._commit)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that this split has."""
        return tuple(name for name in COLUMNS if name in self.manifest["shards"])

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the committed feature streams, sorted."""
        home = f"{self.name}/{FEATURES}"
        names = (name for name in self.store.list_names(home) if layout.is_name(name))
        return tuple(name for name in names if self.store.exists(f"{home}/{name}/{MANIFEST}"))

    @property
    def tracks(self) -> Tracks:
        """The committed tracks, ascending by row."""
        return Tracks(self._tables)

    @property
    def videos(self) -> Videos:
        """Every raw video with what became of it, also those that gave no track."""
        return Videos(self._tables)

    def stream_shards(self, stream: str) -> list[int]:
        """The shards that a stream has for the rows of this split, ascending."""
        return self._stream(stream).shards

    def was_invalidated(self, stream: str) -> bool:
        """Whether the stream's commit was made by a repair that took damaged shards out of it."""
        return "invalidated" in self.stream_provenance(stream)

    def stream_manifest(self, stream: str) -> Mapping[str, Any]:
        """The manifest of a feature stream: what was given to its `commit`, and the shards it has."""
        return self._stream(stream).commit.manifest

    def crop_policy(self, stream: str) -> CropPolicy:
        """Which part of the picture the stream's network saw of each row. Raises CacheError for an unknown policy."""
        return self._stream(stream).crop

    def stream_provenance(self, stream: str) -> Mapping[str, Any]:
        """How the stream's commit came about, as `provenance` does for the split. Empty when lost."""
        return _provenance(self._stream(stream).commit)

    def track_of(self, rows: Array) -> NDArray[np.int64]:
        """Rows (any shape) -> the number of each row's track in `tracks`; -1 for rows of no committed track."""
        return track_of(self._tables, np.asarray(rows))

    def rows_by_shard(self) -> NDArray[np.int64]:
        """(shards,) how many rows of committed tracks each shard holds."""
        return live_by_shard(self._tables, Geometry(**self.manifest["geometry"]), int(self.manifest["extent"]))

    def windows(
        self,
        seqlen: int = 16,
        stride: int = 16,
        stream: str | None = None,
        tail: Tail = "drop",
        *,
        streams: Sequence[str] | None = None,
    ) -> Ranges:
        """(W, 2) int64 of [start, stop) rows: every window of `seqlen` frames, each one step after the other.

        Windows start at the start of each run of consecutive frames and every `stride` rows from there. With a stream,
        only rows that it has count; with several `streams`, those that all of them have. The last frames of a run,
        fewer than `stride`, are in none of them; `tail="cover"` adds the window that ends where the run ends, in all
        runs that hold a window at all.

        Raises ValueError unless seqlen and stride are at least 1 and tail is "drop" or "cover", and for both `stream`
        and `streams`.
        """
        runs = self.runs
        for name in _fields_of_streams(stream, streams, {}).values():
            runs = intersect(runs, self._stream(name).rows_with_flag(*HAS_VALUE))
        return windows_of(runs, seqlen=seqlen, stride=stride, tail=tail)

    def undecodable(self, stream: str) -> int:
        """How many rows of committed tracks the stream has no features for, since their pictures were not readable."""
        lost = intersect(self.runs, self._stream(stream).rows_with_flag(UNDECODABLE))
        return int((lost[:, 1] - lost[:, 0]).sum())

    @property
    def runs(self) -> Ranges:
        """(R, 2) int64 of [start, stop) rows, ascending: each run of frames one step after the other, in one track."""
        return np.stack([self._tables["run_start"], self._tables["run_stop"]], axis=1)

    def has_unfinished_commit(self, stream: str | None = None) -> bool:
        """Whether a writer was killed during a commit, or has left finished shards: the next one goes on from there."""
        return manifest.has_unfinished_commit(Place.of(self.store, self.name, stream))

    def column(self, name: str) -> zarr.Array[Any]:
        """A whole column, lazily: `kp_2d`, or of a stream `features/resnet50` (`_ok`, `_key`; of bytes `_at`).

        Rows are the split's rows: those of no committed track hold fill values, or what a replaced track left. Of a
        stream of bytes, `features/crops` is the bytes of all rows instead. Reading it raises CacheError where a shard
        is missing, and CacheChanged when the split has been replaced.
        """
        return open_lazily(*self._array(name))

    def rows(self, name: str, start: int, stop: int) -> Array:
        """(stop - start, ...) of one column as stored, checked: rows [start, stop), of replaced tracks too.

        Of a stream: `features/resnet50`, and with `_ok` or `_key` behind it. Raises CacheError for rows that it lacks,
        and for a stream of bytes, of which `blobs` reads the rows.
        """
        array = name.removeprefix(f"{FEATURES}/")
        if array != name and layout.stream_of(array) == array:
            self._stream(array).require_numbers()
        rows: Array = self._read_rows(name, np.array([start]), stop - start)[0]
        return rows

    def blobs(self, stream: str, rows: ArrayLike) -> list[bytes]:
        """What a stream of bytes holds for (N,) rows, in their order, checked; rows may be repeated.

        Rows that follow one on the other are read at once. Raises CacheError for rows that the stream does not have,
        for a stream of numbers, and for shards that are missing, short or damaged; ValueError for other than (N,)
        whole numbers.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.dtype.kind not in "iu" and len(wanted)):
            raise ValueError(f"rows are {wanted.dtype}{wanted.shape}, expected integers (N,)")
        return self._stream(stream).blobs(wanted.astype(np.int64))

    def read(
        self,
        windows: ArrayLike,
        stream: str | None = USUAL,
        fields: Sequence[str] | None = None,
        dtype: DTypeLike | Mapping[str, DTypeLike] = "float32",
        out: Mapping[str, Array] | None = None,
        *,
        streams: Sequence[str] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> dict[str, Array]:
        """One batch: B windows of T frames.

        Args:
            windows: (B, 2) of [start, stop) rows, all of one length T, each within one track.
            stream: where `features` come from; None: labels only. One that is named must exist where labels are read,
                even when `fields` leaves features out.
            fields: only these: `features`, `kp_2d`, `kp_3d`, `theta`, `w_3d`, `w_smpl`, `valid`, or the name of any
                other column, as stored. None: all of the seven. With `streams`: their names, and these with `_ok`, in
                the place of `features`.
            dtype: of the features, or of each stream's by its name, float32 where that is not there; labels and flags
                are float32.
            out: buffers to fill, by field, of the right shape and type; they are in the answer.
            streams: several streams, in the place of `stream`; each is a field of its own name.
            history: of a stream of `streams`, how many rows before each window are read, too.

        Labels are expressed in the crop that the network of `stream`, or of the first of `streams`, saw: its box, and
        where that was mirrored, the mirrored person. Without a stream, they are of the usual crop. Other columns are as
        they are stored.

        Returns:
            `features` (B, T, dim); `kp_2d` (B, T, 49, 3) x and y in [-1, 1] across the crop, confidence; `kp_3d`
            (B, T, 49, 3) m, or (B, T, 14, 3) in splits with kp_3d_eval; `theta` (B, T, 85) = (1, 0, 0), pose, betas;
            `w_3d`, `w_smpl`, `valid` (B, T). What is not known is 0 with weight 0. With `streams`: of each (B, h + T,
            dim) with a history of h rows, and its flags (B, h + T), named `<stream>_ok`: 1 where its numbers were
            computed from something, 0 elsewhere. The history of a window has the rows before it in the run of
            consecutive frames that it begins in, each one step after the other: 0 with flag 0 before that run, and in
            rows whose picture could not be decoded.

        Raises CacheError for rows outside a committed track, rows that a stream does not have, before a window too, and
        shards that are missing, short or damaged; ValueError for windows, fields, streams or buffers of the wrong form.
        """
        starts, seqlen, track = self._checked_windows(np.asarray(windows))
        history = history or {}
        numbers = _fields_of_streams(stream, streams, history)
        flags = {} if streams is None else {f"{name}_ok": name for name in numbers}
        wanted = self._checked_fields(fields, [*numbers, *flags])
        if out is not None and (strange := sorted(out.keys() - set(wanted))):
            raise ValueError(f"buffers for {strange}, which are not among the fields {wanted}")

        def buffer(name: str, trailing: Sequence[int], dtype: np.dtype[Any], n_before: int = 0) -> Array:
            """The caller's buffer when there is one, and it fits; a new array otherwise."""
            shape = (len(starts), n_before + seqlen, *trailing)
            if out is None or name not in out:
                return np.empty(shape, dtype)
            given = out[name]
            if given.shape != shape or given.dtype != dtype or not given.flags.writeable:
                raise ValueError(f"out[{name!r}] is {given.dtype}{given.shape}, expected writable {dtype}{shape}")
            return given

        columns = self.manifest["shards"]

        @cache
        def raw(name: str) -> Array | None:
            return self._read_rows(name, starts, seqlen) if name in columns else None

        run_starts = self._run_starts(starts) if history else starts
        sources = {**numbers, **flags}
        of_streams = {
            name: StreamWindows(self._stream(name), starts, seqlen, history.get(name, 0), run_starts)
            for name in dict.fromkeys(sources[field] for field in wanted if field in sources)
        }
        crop = None
        if not labels.IN_CROP.isdisjoint(wanted):
            crop = self._crop(next(iter(numbers.values()), None), track, unused=not of_streams)
        known = labels.Labels(raw, lambda: self._tables["track_crop_scale"][track], crop)
        found: dict[str, Array] = {}
        for name in wanted:
            if name in labels.FIELDS:
                shape = labels.field_shape(name, evaluation="kp_3d_eval" in columns)
                found[name] = buffer(name, shape, np.dtype(np.float32))
                known.fill(name, found[name])
            elif name in numbers:
                of = numbers[name]
                own: Any = dtype.get(of, "float32") if isinstance(dtype, Mapping) else dtype
                found[name] = buffer(name, of_streams[of].trailing, np.dtype(own), history.get(of, 0))
                of_streams[of].fill(found[name])
            elif name in flags:
                found[name] = buffer(name, (), np.dtype(np.float32), history.get(flags[name], 0))
                of_streams[flags[name]].fill_flags(found[name])
            else:
                reader = self._reader(name)
                found[name] = buffer(name, reader.trailing, reader.dtype)
                reader.read(starts, seqlen, found[name])
        return found

    def _read_rows(self, name: str, starts: NDArray[np.int64], seqlen: int) -> Array:
        """(B, seqlen, ...) of one array as stored."""
        reader = self._reader(name)
        out = np.empty((len(starts), seqlen, *reader.trailing), reader.dtype.newbyteorder("="))
        reader.read(starts, seqlen, out)
        return out

    def _checked_windows(self, windows: Array) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
        """(starts (B,), T, number of each window's track (B,)) of windows that are what they must be."""
        if windows.ndim != 2 or windows.shape[1] != 2 or (windows.dtype.kind not in "iu" and len(windows)):
            raise ValueError(f"windows are {windows.dtype}{windows.shape}, expected integers (B, 2)")
        starts, stops = windows.astype(np.int64).T
        if not len(starts):
            return starts, 0, starts
        seqlen = int(stops[0] - starts[0])
        if seqlen < 1 or np.count_nonzero(stops - starts != seqlen):
            raise ValueError("windows of one batch must all have the same length, of at least one row")
        after = np.searchsorted(self._tables["track_start"], starts, side="right")  # 0: before all tracks
        if np.count_nonzero(self._ends[after] < stops):
            bad = int(np.argmax(self._ends[after] < stops))
            window = [int(starts[bad]), int(stops[bad])]
            raise CacheError(f"{self.name}: rows {window} are in no committed track: take windows from windows()")
        return starts, seqlen, after - 1

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where each track stops; before them, a row before all rows."""
        return np.concatenate([[np.iinfo(np.int64).min], self._tables["track_stop"]])

    def _crop(self, stream: str | None, track: NDArray[np.int64], *, unused: bool) -> labels.Crop | None:
        """What a stream's network saw instead of the boxes of (B,) tracks; None: the boxes themselves.

        `unused`: none of the stream's own fields is read; it need not exist then, unless the caller has named it.
        """
        if stream is None or (unused and isinstance(stream, _Unnamed) and not self._has_usual_stream):
            return None
        policy = self._stream(stream).crop
        if policy.follows_box:
            return None
        scale = self._tables["track_crop_scale"][track][:, None]
        keys = self._jitter_keys(policy)[track][:, None]
        return lambda bbox, frame: policy.boxes(bbox, scale, keys, frame)

    @cached_property
    def _has_usual_stream(self) -> bool:
        return self.store.exists(Place.of(self.store, self.name, USUAL).manifest)

    def _jitter_keys(self, policy: CropPolicy) -> NDArray[np.uint64]:
        """(tracks,) from what each track's jitter is drawn: hashed once."""
        if policy.jitter is None:
            return np.zeros(len(self.tracks), np.uint64)
        if policy not in self._keys:
            self._keys[policy] = policy.keys(self.tracks.names)
        return self._keys[policy]

    def _run_starts(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) the first row of the run that each row is in."""
        first: NDArray[np.int64] = self._tables["run_start"]
        return first[np.searchsorted(first, starts, side="right") - 1]

    def _checked_fields(self, fields: Sequence[str] | None, of_streams: Sequence[str]) -> list[str]:
        if fields is None:
            return [*of_streams, *labels.FIELDS]
        if isinstance(fields, str):
            raise TypeError(f"fields must be a sequence of names, not the text {fields!r}")
        for name in fields:
            if name == "features" and name not in of_streams:
                named = f"`streams` gives {', '.join(of_streams)}" if of_streams else f"there are: {self.streams}"
                raise ValueError(f"{self.name}: features are asked for without a stream; {named}")
            if name not in (*of_streams, *labels.FIELDS, *self.columns):
                raise CacheError(f"{self.name}: no field or column {name!r}; columns: {', '.join(self.columns)}")
        return list(fields)

    def _reader(self, name: str) -> Rows:
        if name not in self._rows:
            self._rows[name] = open_column(*self._array(name))
        return self._rows[name]

    def _array(self, name: str) -> tuple[Commit, str, StalenessCheck]:
        """The commit that names a column's array, the array's name there, and what notices when it is replaced."""
        array = name.removeprefix(f"{FEATURES}/")
        if array != name:
            stream = self._stream(layout.stream_of(array))
            if array in stream.commit.manifest["shards"]:
                return stream.commit, array, stream.check_current
        elif name in self.columns:
            return self._commit, name, self._check_current
        raise CacheError(f"{self.name}: no column {name!r}; there are: {', '.join(self.columns)}")

    def _stream(self, stream: str) -> OpenStream:
        if stream not in self._streams:
            layout.check_names(self.name, stream)
            commit = manifest.load(Place.of(self.store, self.name, stream))
            if commit is None:
                known = ", ".join(self.streams) or "none"
                do = "Extract it first, or read labels only (stream=None)."
                raise CacheError(f"{self.name}: no feature stream {stream!r}; there are: {known}. {do}")
            self._check_current()  # a stream of a compacted split belongs to its rows, not to those of before
            self._streams[stream] = OpenStream(self.name, stream, commit, self.manifest)
        return self._streams[stream]


def _fields_of_streams(stream: str | None, streams: Sequence[str] | None, history: Mapping[str, int]) -> dict[str, str]:
    """Field -> the stream whose numbers it has. Raises ValueError for a choice of streams that is none."""
    if streams is None and not history:
        return {} if stream is None else {"features": stream}
    if streams is None or isinstance(streams, str):
        raise TypeError(f"streams must be a sequence of names, also for history; found {streams!r}")
    if not (stream is None or isinstance(stream, _Unnamed)):
        raise ValueError(f"expected stream or streams, found both: {stream!r}, {list(streams)}")
    if unclear := sorted({*streams} & {*labels.FIELDS, *COLUMNS}):
        raise ValueError(f"streams: {unclear} are names of labels, too; read these streams by stream=NAME")
    if strange := [f"{name}: {rows}" for name, rows in history.items() if name not in streams or rows < 0]:
        raise ValueError(f"history: expected 0 or more rows of some of {list(streams)}, found {strange}")
    return {name: name for name in streams}


def _provenance(commit: Commit) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_provenance(commit.place).get(commit.digest, {})
    return found


def _reopen(root: Root, name: str, digest: str) -> Split:
    split = FeatureCache(root)[name]
    if split.manifest["digest"] != digest:
        raise CacheChanged(f"{root}/{name}: there has been a commit since it was opened: open it again")
    return split
