"""Open caches and splits; read windows.  tracks -> features -> [windows] -> training

    split = cache.open(root)["3dpw/train"]  # FeatureCache -> Split
    windows = split.windows(16, 16, "resnet50")
    batch = split.read(windows[:32], "resnet50")

`FeatureCache` finds the splits, and `Split` has one commit of a split for users: tables, windows,
rows and batches. Its base `OpenSplit` (`cache/read/open_split.py`) opens columns and streams;
what is known of one stream is in the `OpenStream` that `Split.open_stream` returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cache.arrays import Array, Ints
from cache.errors import AccessDenied, CacheError, MissingSplit, suggestion
from cache.format import extra, layout
from cache.format.extra import FUNCTION, FindMirror, find_mirrors_by
from cache.format.folders import possible_splits
from cache.format.layout import HAS_VALUE, MANIFEST
from cache.format.listing import listed_splits, refuse_missing, refuse_unmounted
from cache.format.manifest import Commit, has_unfinished_commit
from cache.format.place import Place
from cache.format.tags import find_tag
from cache.format.track_tables import TrackTable, VideoTable
from cache.read.batches import Batch, StreamFields
from cache.read.open_split import DEFAULT_STREAM, TRACK_FIELDS, DefaultStream, OpenSplit
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.windows import (
    LEAST_STEP,
    Ranges,
    Tail,
    intersect,
    join_adjacent,
    timed_windows,
    windows_of,
)

if TYPE_CHECKING:
    import zarr


def open(  # noqa: A001  it reads as cache.open
    root: Root, at: str | None = None, pin: Root | Store | None = None
) -> FeatureCache:
    """Open a cache for reading. A later change of the current folder has no effect.

    Args:
        root: a folder, or a URL such as s3://bucket/prefix.
        at: name of a tag (`cache.tag`): read the splits and streams as they were when it was made.
        pin: folder or URL of a pin (cache/format/pins.py) to read in place of the tag.

    Raises CacheError if there is no cache, and if it has no such tag.
    """
    store = require_cache(root)
    folder = store.folder()
    if folder is not None:
        store = store_at(folder.absolute())
    if at is not None:
        pin = pin or find_tag(store, at)
    return FeatureCache(store, pin)


def require_cache(root: Root) -> Store:
    """The store of an existing cache.

    Raises CacheError if there is none, and if `root` is a folder within a cache.
    """
    store = store_at(root)
    # A cache with splits may have lost its zarr.json; `verify --repair` writes it again.
    if not (store.exists("zarr.json") or FeatureCache(root)):
        reason = "no zarr.json"
        folder = store.folder()
        if folder is not None and not folder.is_dir():
            reason = "a file" if folder.exists() else "no such folder"
        do = "Convert a dataset into it first, or mount its disk."
        raise CacheError.at(store.location(""), expected="a feature cache", found=reason, do=do)
    _refuse_inner_folder(store, root)
    return store


def _refuse_inner_folder(store: Store, root: Root) -> None:
    """Raise CacheError if the root is a split, or another folder within a cache that has no splits
    itself. In an object store, only a split is noticed: looking further would cost requests.
    """
    folder = store.folder()
    is_inner = store.exists(MANIFEST)
    if folder is not None and not is_inner:
        # each folder of a cache has a zarr.json
        is_inner = (folder.resolve().parent / "zarr.json").exists() and not FeatureCache(root)
    if is_inner:
        do = "Open the whole: the folder or URL that holds <dataset>/<split>."
        location = store.location("")
        raise CacheError.at(location, expected="a feature cache", found="a part of one", do=do)


class FeatureCache(Mapping[str, "Split"]):
    """All splits of a cache, by name "<dataset>/<split>". Each look-up opens the newest commit.

    A split that the cache's list names but that is missing, for example because its disk is not
    mounted, is among the names; looking it up raises MissingSplit.

    pin: folder or URL of a pin (cache/format/pins.py). The splits and their streams are then those
    of the pin, with the shards of this cache.
    """

    def __init__(self, root: Root | Store, pin: Root | Store | None = None) -> None:
        self.store = store_at(root)
        self.root = self.store.root
        self.pin = None if pin is None else store_at(pin)
        self._home = self.pin or self.store  # of the manifests
        self._roots = (self.root, self._home.root)

    @property
    def splits(self) -> tuple[str, ...]:
        """Sorted names of committed and listed splits. A dataset's folder that the user may not
        read is included as "<dataset>", in place of its splits.
        """
        committed = {name for name in possible_splits(self._home) if self.is_committed(name)}
        names = set(committed)
        for name in listed_splits(self._home):
            if name.partition("/")[0] not in committed:
                names.add(name)
        return tuple(sorted(names))

    def __getitem__(self, name: str) -> Split:
        commit = None
        try:
            if not isinstance(name, str):
                raise TypeError(f"expected a split's name such as '3dpw/train', found {name!r}")
            if layout.is_split_name(name):
                commit = Commit.load(Place(self.store, name, pin=self.pin))
            if commit is None and self.is_committed(name):
                # It may be that its folder may not be read: this raises the PermissionError.
                self._home.list_names(name)
        except PermissionError as error:
            raise AccessDenied.from_error(error) from error
        if commit is None:
            require_cache(self.root)  # it may have been moved
            refuse_missing(self._home, name)
            # without this split, which may have been committed in the meantime
            others = [split for split in self.splits if split != name]
            hint = suggestion(str(name), others)
            names = ", ".join(others) or "none"
            raise MissingSplit(f"{self.root}: no split {name!r}{hint} there are: {names}")
        return Split(commit)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureCache) and self._roots == other._roots

    def __hash__(self) -> int:
        return hash(self._roots)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return self.is_committed(name) or name in listed_splits(self._home)

    def is_committed(self, name: str) -> bool:
        """Whether the split has a manifest, or may not be read; opening it reports the latter."""
        try:
            if layout.is_name(name):
                self._home.list_names(name)
            return layout.is_split_name(name) and self._home.etag(f"{name}/{MANIFEST}") is not None
        except PermissionError:
            return True

    def refuse_unmounted(self, name: str) -> None:
        """Raise MissingSplit if a listed split's disk, or its dataset's, seems to be unmounted."""
        refuse_unmounted(self.store, name)

    def __repr__(self) -> str:
        return f"cache.open({str(self.root)!r})"


class Split(OpenSplit):
    """One committed state of <dataset>/<split>: read its tracks, rows and windows.

    To see later commits, open the split again. It and its pickled copies, as in workers, stay
    readable after later commits, until `gc` or a replaced stream: then they raise CacheChanged.

    `read` returns these fields for B windows of T rows:

    - `features` (B, T, dim)
    - `kp_2d` (B, T, 49, 3): x and y in [-1, 1] over the crop, confidence
    - `kp_2d_hands` (B, T, 42, 3) of splits with hands: likewise, the left hand before the right
    - `theta` (B, T, 85): (1, 0, 0), pose, betas
    - `kp_3d` (B, T, 49, 3): m, relative to the pelvis, in the order spin49
    - `kp_3d_eval` (B, T, 14, 3) of evaluation splits: m, not centred, in the order common14. In
      these splits, `kp_3d` is the same
    - `kp_3d_49` (B, T, 49, 3): the 49 joints, also in evaluation splits that have them
    - `w_3d` and `w_smpl` (B, T): 1 where `kp_3d` or `theta` is known. Of `kp_3d`, all of the joints
      25 to 38 must be known
    - `w_kp_3d` (B, T, 49): 1 for each of the 49 joints that is known, also in rows that lack some
    - `valid` (B, T): 1 if evaluation may use the row
    - `gender` (B, T) uint8: index in `cache.GENDERS`
    - `intrinsics` (B, T, 3, 3) float64: px, NaN if unknown; or the dataset's own column
    - `image_size` (B, T, 2) int32: width and height in px, 0 without images
    - `crop_scale` (B, T) float64: side of the crop / side of the box
    - `rows` (B, T) int64: numbers of the rows in the split
    - other columns as stored (B, T, ...): `bbox`, `frame_index`, `extra` columns of rows or tracks
    - with `streams`: `<stream>` (B, h + T, dim), for a history of h rows, and flags `<stream>_ok`
      (B, h + T): 1 if computed. History before the window's run of consecutive frames, and rows of
      undecodable frames, are 0 with flag 0
    """

    def __reduce__(self) -> tuple[Any, ...]:
        finders: tuple[FindMirror, ...] = ()
        if any(column.mirror == FUNCTION for column in self.extra.values()):
            finders = tuple(extra.FINDERS)
        streams = {name: stream.commit for name, stream in self._streams.items()}
        return _restore, (self.commit, streams, finders)

    def __repr__(self) -> str:
        counts = f"{self.manifest['rows']:,} rows of {len(self.tracks):,} tracks"
        return f"Split {self.name}: {counts}, {len(self.videos):,} videos"

    @property
    def tracks(self) -> TrackTable:
        """The committed tracks, sorted by row."""
        return TrackTable(self.tables)

    @property
    def videos(self) -> VideoTable:
        """Every raw video, including those without tracks, with its account of frames."""
        return VideoTable(self.tables)

    def track_of(self, rows: Array) -> Ints:
        """The number in `tracks` of each row's track (same shape as `rows`); -1 for rows without a
        committed track.
        """
        return self.tables.track_of(np.asarray(rows))

    @property
    def rows_per_shard(self) -> int:
        """Number of rows of a complete shard."""
        return self.commit.geometry.rows_per_shard

    def rows_by_shard(self) -> Ints:
        """How many rows of committed tracks each shard has (number of shards,)."""
        return self.commit.live_by_shard

    def windows(
        self,
        seqlen: int | None = None,
        stride: int | None = None,
        stream: str | DefaultStream | None = None,
        tail: Tail = "drop",
        *,
        streams: Sequence[str] | None = None,
        seconds: float | None = None,
        rate: float | None = None,
    ) -> Ranges:
        """Windows of `seqlen` (default 16) consecutive frames: (W, 2) int64 of [start, stop) rows;
        or, by `seconds` and `rate`, of T = round(seconds * rate) times: (W, T) int64 rows.

        Windows start at the start of each run of consecutive frames and every `stride` rows
        (default 16) from there. With `stream`, windows contain only rows that have features in that
        stream; with `streams`, only rows that have features in all of them. `tail="cover"` adds a
        window that ends where the run ends; "drop" leaves the last frames out. Runs shorter than
        `seqlen` have no window. If there is no window at all, a warning names the longest run, and
        the result is (0, 2).

        Of a `rate`, a window has the row that is nearest to each of T times, 1 / rate s apart, and
        `stride` (default T) counts these times. A row is up to half a frame from its time, which
        second differences show; of a clip of uneven times, by its mean rate. Tracks below 0.98
        `rate`, or of unknown rate, have no window, nor is there one that would have a row twice: a
        warning counts them.

        Raises ValueError unless seqlen and stride are integers of at least 1 and tail is "drop" or
        "cover"; if both `stream` and `streams`, or `seqlen` and `seconds`, are given; and for
        `seconds` and `rate` that are no positive numbers, one without the other, or T below 3.
        Raises CacheError for a stream that does not exist.
        """
        names = StreamFields.parse(stream, streams).streams
        runs = self.runs_with(names)
        if seconds is not None or rate is not None:
            n_times = _count_times(seqlen, seconds, rate)
            stride = n_times if stride is None else stride
            return self._windows_in_time(runs, n_times, stride, tail, float(rate or 0))
        seqlen = 16 if seqlen is None else seqlen
        stride = 16 if stride is None else stride
        windows = windows_of(runs, seqlen=seqlen, stride=stride, tail=tail)
        if not len(windows) and len(self.runs):
            longest = "the longest run of consecutive frames"
            if names:
                longest += f" with {', '.join(names)}"
            n_rows = np.diff(runs).max(initial=0)
            problem = f"no windows of {seqlen} frames: {longest} has {n_rows}"
            warnings.warn(f"{self.name}: {problem}", stacklevel=2)
        return windows

    def _windows_in_time(
        self, runs: Ranges, n_times: int, stride: int, tail: Tail, rate: float
    ) -> Ints:
        """Windows of a rate: (W, n_times) rows. Warns of tracks and windows that are left out."""
        tables = self.tables
        steps = tables["track_fps"] / tables["track_step"] / rate
        track = self.track_of(runs[:, 0])
        timed = timed_windows(runs, steps[track], seqlen=n_times, stride=stride, tail=tail)
        n_unknown = int(np.isnan(steps).sum())
        n_slow = int((steps < LEAST_STEP).sum())
        repeating = track[timed.repeating]
        if n_unknown or n_slow or len(repeating) or not len(timed.rows):
            warnings.warn(
                f"{self.name}: {len(timed.rows):,} windows of {n_times} rows, {rate:g} a second; "
                f"left out: {n_unknown:,} tracks of unknown rate, {n_slow:,} tracks of less than "
                f"{LEAST_STEP:.0%} of the rate, {len(repeating):,} windows, of "
                f"{len(np.unique(repeating)):,} tracks, with a row twice",
                stacklevel=3,
            )
        return timed.rows

    def runs_with(self, streams: Sequence[str]) -> Ranges:
        """The `runs` without the rows for which one of the streams has no features: (R, 2) int64 of
        [start, stop) rows.
        """
        runs = self.runs
        for name in streams:
            runs = intersect(runs, self.open_stream(name).rows_with_flag(*HAS_VALUE))
        return runs

    @property
    def runs(self) -> Ranges:
        """Runs of consecutive frames, each in one track: (R, 2) int64 of [start, stop) rows,
        ascending.
        """
        return self.tables.run_rows

    def has_unfinished_commit(self, stream: str | None = None) -> bool:
        """Whether a killed writer of the split or stream has left work that the next writer will
        finish or remove.
        """
        return has_unfinished_commit(self.place(stream))

    def column(self, name: str) -> zarr.Array[Any]:
        """A whole column as a lazy Zarr array: `kp_2d`, or `features/resnet50` (also with `_ok` or
        `_key`) for a stream.

        Rows without a committed track have fill values or a replaced track's values: `live` leaves
        them out. Reading raises CacheError for a missing shard, and CacheChanged when the split has
        been replaced.
        """
        from cache.read.lazy import open_lazily  # here: importing zarr is slow

        return open_lazily(*self.find_array(name))

    def live(self, name: str) -> Array:
        """Read the rows of committed tracks of a `column`, in the order of `tracks`: (number of
        these rows, ...), as stored. All of them are in memory.

        Rows that a stream does not have are NaN (`_ok`: 255). Raises CacheError for a shard that is
        missing, short or damaged, and CacheChanged when the split has been replaced.
        """
        opened, array = self.find_array(name)
        shards = set(opened.shards)
        size = self.rows_per_shard
        values = opened.commit.columns[array].empty(self.manifest["rows"])
        n_done = 0
        # one shard at a time, so that a store's bytes are not all held beside the result
        spans = np.arange(0, self.commit.extent, size)[:, None] + np.array([0, size])
        for start, stop in intersect(join_adjacent(self.tables.track_rows), spans).tolist():
            done = n_done + stop - start
            if start // size in shards:
                values[n_done:done] = self.rows(name, start, stop)
            n_done = done
        return values

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Read rows [start, stop) of one column as stored: (stop - start, ...).

        `name` is a column, also `features/resnet50` (with `_ok` or `_key`) for a stream; or a value
        of tracks, repeated in each of their rows: `image_size` (width, height) px, 0 without
        images; `intrinsics`, `crop_scale`, `gender`, `extra` columns. Checksums are compared. Rows
        of replaced tracks can be read, except for values of tracks. Raises CacheError for missing
        rows.
        """
        if start > stop:
            raise ValueError(f"{name}: expected rows [start, stop), found [{start}, {stop})")
        if name in (*TRACK_FIELDS, *self.extra) and name not in self.columns:
            track = self.track_of(np.arange(start, stop))
            if (track < 0).any():
                raise CacheError(
                    f"{self.name}: {name} of rows [{start}, {stop}): some are in no track"
                )
            return self.track_fields[name][track]
        opened, array = self.find_array(name)
        reader = opened.reader(array)
        rows: Array = reader.read_windows(np.array([start]), stop - start)[0]
        reader.forget(start, stop)  # a pass over a long split would map all of it
        return rows

    def read(
        self,
        windows: ArrayLike,
        stream: str | DefaultStream | None = DEFAULT_STREAM,
        fields: Sequence[str] | None = None,
        dtype: DTypeLike = "float32",
        out: Mapping[str, Array] | None = None,
        *,
        streams: Sequence[str] | Mapping[str, str] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> dict[str, Array]:
        """Read a batch: B windows of T frames.

        Args:
            windows: (B, 2) of [start, stop) rows, all of one length T, or (B, T) rows; each window
                within one track.
            stream: stream of `features`; None: labels only. A named stream must exist even if
                `fields` omits features.
            fields: the fields to read, listed at `Split`. None: `features`, `kp_2d`, `kp_3d`,
                `theta`, `w_3d`, `w_smpl`, `valid`, and `kp_3d_eval` if the split has it. With
                `streams`, the fields `<stream>` and `<stream>_ok` take the place of `features`.
            dtype: dtype of features: float16, float32 (default) or float64. Labels and flags are
                float32.
            out: buffers to fill and return, by field, with the right shapes and dtypes. For
                features, a buffer of another of these dtypes may be given in place of `dtype`.
            streams: several streams instead of `stream`, each as a field of its own name; or field
                -> stream, for fields of other names.
            history: number of rows to read before each window of (B, 2), by field of `streams`.

        Labels are relative to the crop that the network of `stream`, or of the first of `streams`,
        saw; without a stream, to the crop of the track's box. Where that crop was mirrored, labels,
        `pose`, `trans` and `extra` columns are mirrored, too.

        Returns:
            Arrays (B, T, ...) by field. Unknown labels are 0 with weight 0.

        Raises CacheError for rows outside a committed track, rows that a stream does not have,
        fields and streams that do not exist, and shards that are missing, short or damaged;
        ValueError for windows, dtypes and buffers of a wrong form, and features without a stream.
        """
        chosen = StreamFields.parse(stream, streams, history)
        return Batch(self, np.asarray(windows), chosen).read(fields, dtype, out)


def _count_times(seqlen: int | None, seconds: float | None, rate: float | None) -> int:
    """The number of times in a window of `seconds` at `rate`. Raises ValueError as
    `Split.windows`.
    """
    if seqlen is not None:
        raise ValueError(f"expected seqlen, or seconds and rate; found both: {seqlen}, {seconds}")
    for name, value in (("seconds", seconds), ("rate", rate)):
        if not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
            raise ValueError(f"{name}: expected a number above 0, found {value!r}")
    n_times = round(float(seconds or 0) * float(rate or 0))
    if n_times < 3:  # (W, 2) are ranges
        raise ValueError(
            f"seconds * rate: expected at least 3 rows in a window, found {n_times}: "
            f"{seconds} s at {rate} a second"
        )
    return n_times


def _restore(commit: Commit, streams: Mapping[str, Commit], finders: Sequence[FindMirror]) -> Split:
    """A pickled split with its open streams. Registers its functions that find mirror functions.
    Reads no file: in a worker, errors are those of the first read.
    """
    for find in finders:
        find_mirrors_by(find)
    split = Split(commit)
    for name, stream in streams.items():
        split._streams[name] = OpenStream(stream, commit)
    return split
