"""The cache as readers see it: splits, tracks, windows, batches.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cache.crop_policy import CropPolicy
from cache.errors import CacheChanged, CacheError, MissingSplit
from cache.format import layout, manifest, tags
from cache.format.extra import FUNCTION, FindMirror, find_mirrors_by, mirror_finders
from cache.format.layout import FEATURES, HAS_VALUE, MANIFEST, UNDECODABLE, Geometry
from cache.format.manifest import Place
from cache.format.records import TrackTable, VideoTable
from cache.format.tables import live_by_shard, track_of
from cache.read.batches import USUAL, OpenSplit, StreamFields
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.storage.local import LocalStore
from cache.windows import Ranges, Tail, intersect, windows_of

if TYPE_CHECKING:
    import zarr

Array = NDArray[Any]


def open(root: Root, tag: str | None = None) -> FeatureCache:  # noqa: A001  it reads as cache.open
    """Open a cache for reading: a folder, or a URL as s3://bucket/prefix.

    tag: read exactly the state that was tagged by this name, whatever has been committed since.

    Raises CacheError when there is no cache, or no such tag.
    """
    return FeatureCache(require_cache(root).root, tag)


def require_cache(root: Root) -> Store:
    """The store of a cache that exists. Raises CacheError when there is none, and for a folder within a cache."""
    store = store_at(root)
    if not (store.exists("zarr.json") or FeatureCache(root)):  # where it is lost, `verify --repair` writes it again
        reason = "no zarr.json" if isinstance(store.root, str) or store.root.is_dir() else "no such folder"
        do = "Convert a dataset into it first."
        raise CacheError.at(store.location(""), expected="a feature cache", found=reason, do=do)
    if isinstance(store, LocalStore):
        folder = top = store.root.resolve()
        while (top.parent / "zarr.json").exists():
            top = top.parent
        if store.exists(MANIFEST) or (top != folder and not FeatureCache(root)):
            found = f"{folder.relative_to(top)} of one" if top != folder else "one split of one"
            do = f"Open the whole: cache.open({str(top)!r})." if top != folder else "Open the folder above."
            raise CacheError.at(store.location(""), expected="a feature cache", found=found, do=do)
    elif store.exists(MANIFEST):  # looking around would cost requests
        do = "Open the whole: the address up to <dataset>/<split>."
        raise CacheError.at(store.location(""), expected="a feature cache", found="one split of one", do=do)
    return store


class FeatureCache(Mapping[str, "Split"]):
    """All committed splits under one root, by "<dataset>/<split>". Each look-up opens the split's newest commit.

    With a tag, there are those that it names, in the states that it names.
    """

    def __init__(self, root: Root, tag: str | None = None) -> None:
        self.store = store_at(root)
        self.root = self.store.root
        self._tag = None if tag is None else tags.read_tag(self.store, tag)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the committed splits, sorted."""
        if self._tag is not None:
            return tuple(sorted(self._tag.splits))
        datasets = (name for name in self.store.list_names("") if layout.is_name(name))
        return tuple(
            f"{data}/{name}" for data in datasets for name in self.store.list_names(data) if f"{data}/{name}" in self
        )

    def __getitem__(self, name: str) -> Split:
        folder = "" if self._tag is None else self._tag.folder
        is_name = isinstance(name, str) and layout.is_split_name(name)
        commit = manifest.load(Place(self.store, name, tag=folder)) if is_name else None
        if commit is None:
            names = ", ".join(self.splits) or "none"
            of_tag = "" if self._tag is None else f" in the tag {self._tag.name}"
            raise MissingSplit(f"{self.root}: no committed split {name!r}{of_tag}; there are: {names}")
        return Split(commit)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __contains__(self, name: object) -> bool:
        if self._tag is not None:
            return name in self._tag.splits
        return isinstance(name, str) and layout.is_split_name(name) and self.store.exists(f"{name}/{MANIFEST}")

    def __repr__(self) -> str:
        return f"<FeatureCache {self.root}: {', '.join(self.splits) or 'empty'}>"


class Split(OpenSplit):
    """One committed state of the tracks of <dataset>/<split>: rows, tables, windows.

    It stays what it was when it was opened: later commits show when it is opened again. It can be pickled, into
    workers for instance, which open it again and raise CacheChanged if there has been a commit since.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        finders = mirror_finders() if any(c.mirror == FUNCTION for c in self.extra.values()) else ()
        return _reopen, (self.root, self.name, self._commit.digest, finders, self.tag)

    def __repr__(self) -> str:
        return f"<Split {self.name}: {self.manifest['rows']} rows, {self.manifest['tracks']} tracks>"

    @property
    def tag(self) -> str | None:
        """The name of the tag that it was opened by; None of what the cache holds now."""
        return tags.name_of(self.place())

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How this commit came about: time, host, software, and what was given to the writer. Empty when lost."""
        return manifest.note_of(self._commit)

    @property
    def tracks(self) -> TrackTable:
        """The committed tracks, ascending by row."""
        return TrackTable(self._tables)

    @property
    def videos(self) -> VideoTable:
        """Every raw video with what became of it, also those that gave no track."""
        return VideoTable(self._tables)

    def stream_shards(self, stream: str) -> list[int]:
        """The shards that a stream has for the rows of this split, ascending."""
        return self._stream(stream).shards

    def was_invalidated(self, stream: str) -> bool:
        """Whether the stream lacks rows of tracks since a repair took their damaged shards out of it."""
        live, has = self.rows_by_shard(), self.stream_shards(stream)
        taken: list[int] = self.stream_provenance(stream).get("invalidated", [])
        return any(shard < len(live) and live[shard] > 0 and shard not in has for shard in taken)

    def stream_manifest(self, stream: str) -> Mapping[str, Any]:
        """The manifest of a feature stream: what was given to its `commit`, and the shards it has."""
        return self._stream(stream).commit.manifest

    def crop_policy(self, stream: str) -> CropPolicy:
        """Which part of the picture the stream's network saw of each row. Raises CacheError for an unknown policy."""
        return self._stream(stream).crop

    def stream_provenance(self, stream: str) -> Mapping[str, Any]:
        """How the stream's commit came about, as `provenance` does for the split. Empty when lost."""
        return manifest.note_of(self._stream(stream).commit)

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
        runs that hold a window at all. Runs shorter than `seqlen` have none: where all are, a warning names the longest
        one, and the result is (0, 2), which `read` takes for a batch without windows.

        Raises ValueError unless seqlen and stride are whole numbers of at least 1 and tail is "drop" or "cover", and
        for both `stream` and `streams`.
        """
        names = [*StreamFields.of(stream, streams).numbers.values()]
        runs = self.runs_with(names)
        windows = windows_of(runs, seqlen=seqlen, stride=stride, tail=tail)
        if not len(windows) and len(self.runs):
            longest = f"the longest run of consecutive frames{' with ' * bool(names)}{', '.join(names)}"
            n_rows = np.diff(runs).max(initial=0)
            warnings.warn(f"{self.name}: no windows of {seqlen} frames: {longest} has {n_rows}", stacklevel=2)
        return windows

    def runs_with(self, streams: Sequence[str]) -> Ranges:
        """(R, 2) int64 of [start, stop) rows: the `runs`, cut where one of the streams has no numbers."""
        runs = self.runs
        for name in streams:
            runs = intersect(runs, self._stream(name).rows_with_flag(*HAS_VALUE))
        return runs

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
        return manifest.has_unfinished_commit(self.place(stream))

    def has_lost_manifest(self, stream: str) -> bool:
        """Whether the rest of a stream is there, which no writer goes on with: it can only be deleted."""
        return bool(manifest.lost_manifest(self.place(stream)))

    def column(self, name: str) -> zarr.Array[Any]:
        """A whole column, lazily: `kp_2d`, or of a stream `features/resnet50` (`_ok`, `_key`).

        Rows are the split's rows: those of no committed track hold fill values, or what a replaced track left. Reading
        it raises CacheError where a shard is missing, and CacheChanged when the split has been replaced.
        """
        from cache.read.lazy import open_lazily  # here: importing zarr is slow

        return open_lazily(*self._array(name))

    def rows(self, name: str, start: int, stop: int) -> Array:
        """(stop - start, ...) of one column as stored, checked: rows [start, stop), of replaced tracks too.

        Of a stream: `features/resnet50`, and with `_ok` or `_key` behind it. Raises CacheError for rows that it lacks.
        """
        array = name.removeprefix(f"{FEATURES}/")
        if array != name and layout.stream_of(array) == array:
            self._stream(array).require_numbers()
        rows: Array = self._read_rows(name, np.array([start]), stop - start)[0]
        return rows

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
            fields: only these: `features`, `kp_2d`, `kp_3d`, `theta`, `w_3d`, `w_smpl`, `valid`, `kp_3d_eval`; the name
                of any other column, as stored: `bbox`, `frame_index`, or one in `extra`; `gender` or `intrinsics`.
                None: the seven, and `kp_3d_eval` in splits that have it. With `streams`: their names, and these with
                `_ok`, in the place of `features`.
            dtype: of the features, or of each stream's by its name, float32 where that is not there: float16, float32
                or float64. Labels and flags are float32.
            out: buffers to fill, by field, of the right shape and type; they are in the answer.
            streams: several streams, in the place of `stream`; each is a field of its own name.
            history: of a stream of `streams`, how many rows before each window are read, too.

        Labels are expressed in the crop that the network of `stream`, or of the first of `streams`, saw: its box, and
        where that was mirrored, the mirrored person, also in `pose`, `trans` and `extra` columns. Without a stream,
        they are of the usual crop. Other columns are as stored.

        Returns:
            `features` (B, T, dim); `kp_2d` (B, T, 49, 3) x and y in [-1, 1] across the crop, confidence; `theta`
            (B, T, 85) = (1, 0, 0), pose, betas; `kp_3d` (B, T, 49, 3) m about the pelvis, in the order spin49 - but in
            evaluation splits (B, T, 14, 3) m about no joint, in the order common14, and there `kp_3d_eval`, too: the
            same numbers (without a buffer of its own, the same array);
            `w_3d`, `w_smpl`, `valid` (B, T). What is not known is 0 with weight 0. With `streams`: of each (B, h + T,
            dim) with a history of h rows, and its flags (B, h + T), named `<stream>_ok`: 1 where its numbers were
            computed from something, 0 elsewhere. The history of a window has the rows before it in the run of
            consecutive frames that it begins in, each one step after the other: 0 with flag 0 before that run, and in
            rows whose picture could not be decoded. What a track has once is repeated in each row: `gender` (B, T)
            uint8, its number in `cache.GENDERS`; `intrinsics` (B, T, 3, 3) float64 px, NaN where not known, or the
            dataset's own column of that name; `extra` columns of tracks (B, T, ...).

        Raises CacheError for rows outside a committed track, rows that a stream does not have, before a window too, and
        shards that are missing, short or damaged; ValueError for windows, fields, streams, dtypes or buffers of the
        wrong form.
        """
        chosen = StreamFields.of(stream, streams, history)
        return self._read(np.asarray(windows), chosen, fields, dtype, out)


def _reopen(root: Root, name: str, digest: str, finders: Sequence[FindMirror], tag: str | None) -> Split:
    for find in finders:
        find_mirrors_by(find)
    split = FeatureCache(root, tag)[name]
    if split.manifest["digest"] != digest:
        raise CacheChanged(f"{root}/{name}: there has been a commit since it was opened: open it again")
    return split
