"""Read a batch of windows: fields from columns and streams, with labels in crop coordinates.
features -> [windows]

A batch is a dict of arrays (B, T, ...), by field, for B windows of T rows. A field is read from a
feature stream, computed from columns (labels), copied from a column, or repeated from the track.
Where the network saw a mirrored crop, fields are mirrored, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cache.arrays import Array, Ints, Keys
from cache.crop_policy import CropPolicy
from cache.errors import CacheError
from cache.format import layout
from cache.format.extra import ExtraColumn
from cache.format.layout import COLUMNS, FEATURES, GENDERS, MANIFEST
from cache.format.manifest import Commit, Place
from cache.format.tables import TrackTable
from cache.read import labels
from cache.read.rows import Rows
from cache.read.streams import OpenStream, StalenessCheck, StreamWindows, open_column

# Fields of a window's track, repeated in each row. A dataset's own column of the same name replaces
# them.
OF_TRACKS: Final = ("gender", "intrinsics", "image_size", "crop_scale")


class _DefaultName(str):
    """The default of `stream`, distinct from the same name passed by the caller."""


USUAL: Final = _DefaultName("resnet50")
_FLOAT32: Final = np.dtype(np.float32)
_FLOATS: Final = (np.dtype("float16"), _FLOAT32, np.dtype("float64"))  # dtypes of read features


class StreamFields(NamedTuple):
    """The fields of a batch that come from streams."""

    numbers: Mapping[str, str]  # name of a field of features -> its stream
    flags: Mapping[str, str]  # name of a field `<stream>_ok` -> its stream
    history: Mapping[str, int]  # stream -> number of rows to read before each window

    @classmethod
    def parse(
        cls,
        stream: str | None,
        streams: Sequence[str] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> StreamFields:
        """Make the fields from the arguments of `Split.read` with the same names.

        Raises ValueError or TypeError when the arguments do not fit together.
        """
        history = history or {}
        names = (stream, *(streams or ()))
        nameless = [name for name in names if not isinstance(name, str | None)]
        if nameless:
            raise TypeError(f"a stream is a name or None; found {nameless}")
        if streams is None and not history:
            return cls({} if stream is None else {"features": stream}, {}, {})
        if streams is None or isinstance(streams, str):
            raise TypeError(
                f"streams must be a sequence of names, also for history; found {streams!r}"
            )
        if not (stream is None or isinstance(stream, _DefaultName)):
            raise ValueError(f"expected stream or streams, found both: {stream!r}, {list(streams)}")
        unclear = sorted({*streams} & {*labels.FIELDS, *COLUMNS})
        if unclear:
            raise ValueError(
                f"streams: {unclear} are names of labels, too; read these streams by stream=NAME"
            )
        strange = []
        for name, rows in history.items():
            is_count = isinstance(rows, int | np.integer) and rows >= 0
            if name not in streams or not is_count:
                strange.append(f"{name}: {rows!r}")
        if strange:
            raise ValueError(
                f"history: expected 0 or more rows of some of {list(streams)}, found {strange}"
            )
        numbers = {name: name for name in streams}
        flags = {f"{name}_ok": name for name in streams}
        return cls(numbers, flags, history)

    @property
    def sources(self) -> dict[str, str]:
        """Every field that comes from a stream -> that stream."""
        return {**self.numbers, **self.flags}


def _dtypes(
    dtype: DTypeLike | Mapping[str, DTypeLike], streams: Sequence[str]
) -> dict[str, np.dtype[Any]]:
    """The dtype of each stream's features, from one dtype for all or a dict (default: float32).

    Raises ValueError for a dtype that is no float, and for a stream that is not in `streams`.
    """
    if not isinstance(dtype, Mapping):
        return dict.fromkeys(streams, _float_dtype(dtype))
    strange = sorted(dtype.keys() - set(streams))
    if strange:
        raise ValueError(f"dtype of {strange}, which are not among the streams {list(streams)}")
    dtypes = {name: _float_dtype(given) for name, given in dtype.items()}
    return {**dict.fromkeys(streams, _FLOAT32), **dtypes}


def _float_dtype(given: Any) -> np.dtype[Any]:
    with suppress(TypeError):
        dtype: np.dtype[Any] = np.dtype(given)
        if dtype in _FLOATS:
            return dtype
    raise ValueError(f"dtype is {given!r}, expected float16, float32 or float64")


class _Windows(NamedTuple):
    """B checked windows of T rows."""

    starts: Ints  # (B,) first rows
    seqlen: int  # T
    track: Ints  # (B,) number of each window's track

    def shape(self, trailing: Sequence[int], n_before: int = 0) -> tuple[int, ...]:
        """(B, T, *trailing), with `n_before` more rows before each window."""
        return len(self.starts), n_before + self.seqlen, *trailing


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a batch, ready to be read."""

    shape: tuple[int, ...]  # (B, T, ...)
    dtype: np.dtype[Any]
    fill: Callable[[Array], None]  # fills an array of this shape with the field
    # values (N, ...) -> the values in mirrored crops; None: mirroring does not change them
    mirror: Callable[[Array], Array] | None = None


def _buffer(buffers: Mapping[str, Array], name: str, field: _Field) -> Array:
    """The caller's buffer for a field, or a new array.

    Raises ValueError for a buffer that is not writable, or has another shape or dtype.
    """
    if name not in buffers:
        return np.empty(field.shape, field.dtype)
    buffer = buffers[name]
    has_form = buffer.shape == field.shape and buffer.dtype == field.dtype
    if not has_form or not buffer.flags.writeable:
        expected = f"expected writable {field.dtype}{field.shape}"
        raise ValueError(f"out[{name!r}] is {buffer.dtype}{buffer.shape}, {expected}")
    return buffer


class OpenSplit:
    """One commit of a split: its tables, columns and streams, each opened on first use.

    This is the base of `Split`, with the code that reads a batch.
    """

    def __init__(self, commit: Commit) -> None:
        self.store = commit.place.store
        self.name = commit.place.split
        self._commit = commit
        self.root = self.store.root
        self.manifest: Mapping[str, Any] = commit.manifest
        """The cache's own entries and those that were given to `commit`."""
        self._tables = commit.tables
        self._check_current = StalenessCheck(commit)
        self._rows: dict[str, Rows] = {}
        self._streams: dict[str, OpenStream] = {}
        self._seeds: dict[CropPolicy, Keys] = {}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with a value per row, including extra columns."""
        usual = [name for name in COLUMNS if name in self.manifest["shards"]]
        extra = [name for name, column in self.extra.items() if column.per == "row"]
        return (*usual, *extra)

    @cached_property
    def known_columns(self) -> frozenset[str]:
        """`columns`, and those track fields that are known for every track. `image_size` and
        `intrinsics`, for example, may be unknown.
        """
        known = {name for name, values in self._track_fields.items() if np.isfinite(values).all()}
        if "image_size" not in self.extra and (self._track_fields["image_size"] == 0).any():
            known.remove("image_size")
        return frozenset({*self.columns, *known})

    @cached_property
    def extra(self) -> dict[str, ExtraColumn]:
        """Extra columns of rows and tracks, by name."""
        return ExtraColumn.from_manifest(self.manifest)

    @cached_property
    def _track_fields(self) -> dict[str, Array]:
        """The values (N, ...) of N tracks, by field: OF_TRACKS and the dataset's extra track
        columns. A field is left out if there is a column per row of that name.
        """
        tables = self._tables
        genders = tables.utf8_texts("track_gender")
        gender = np.zeros(len(genders), np.uint8)
        for number, name in enumerate(GENDERS):
            gender[genders == name.encode()] = number
        size = np.stack([tables["video_width"], tables["video_height"]], axis=1)
        fields = {
            "gender": gender,
            "intrinsics": tables["track_intrinsics"],
            "image_size": size[tables["track_video"]],
            "crop_scale": tables["track_crop_scale"],
        }
        for name, column in self.extra.items():
            if column.per == "track":
                fields[name] = tables[column.array]
        return {name: values for name, values in fields.items() if name not in self.columns}

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the committed feature streams, sorted."""
        home = f"{self._commit.place.arrays_folder}/{FEATURES}"
        streams = []
        for name in self.store.list_names(home):
            if layout.is_name(name) and self.store.etag(f"{home}/{name}/{MANIFEST}") is not None:
                streams.append(name)
        return tuple(streams)

    def place(self, stream: str | None = None) -> Place:
        """The `Place` of this split, or of one of its streams."""
        return replace(self._commit.place, stream=stream)

    def _read_if_stored(self, cut: _Windows, name: str) -> Array | None:
        """The rows (B, T, ...) of a column as stored; None if the split has no such column."""
        if name not in self.manifest["shards"]:
            return None
        return self._read_rows(name, cut.starts, cut.seqlen)

    def _read_rows(self, name: str, starts: Ints, seqlen: int) -> Array:
        reader = self._reader(name)
        rows = np.empty((len(starts), seqlen, *reader.trailing), reader.dtype.newbyteorder("="))
        reader.read(starts, seqlen, rows)
        return rows

    def _reader(self, name: str) -> Rows:
        """The reader of a column, or of a stream's array `features/<stream>`, with `_ok` or `_key`.

        Raises CacheError if there is none of that name.
        """
        if name not in self._rows:
            self._rows[name] = open_column(*self._array(name))
        return self._rows[name]

    def _array(self, name: str) -> tuple[Commit, str, StalenessCheck]:
        """Find the array of a column or stream. Returns the commit that has it (the split's or the
        stream's), its name in that commit, and the commit's staleness check.
        """
        array = name.removeprefix(f"{FEATURES}/")
        if array != name:
            stream = self._stream(layout.stream_of(array))
            if array in stream.commit.manifest["shards"]:
                return stream.commit, array, stream.check_current
        elif name in self.columns:
            return self._commit, name, self._check_current
        columns = ", ".join(self.columns)
        raise CacheError(f"{self.name}: no column {name!r} of rows; there are: {columns}")

    def _stream(self, stream: str) -> OpenStream:
        """A committed stream. Raises CacheError when there is none of that name."""
        if stream not in self._streams:
            layout.check_names(self.name, stream)
            commit = Commit.load(self.place(stream))
            if commit is None:
                names = ", ".join(self.streams) or "none"
                do = "Extract it first, or read labels only (stream=None)."
                raise CacheError(
                    f"{self.name}: no feature stream {stream!r}; there are: {names}. {do}"
                )
            # If the split was replaced, the stream belongs to the new rows: this raises.
            self._check_current()
            self._streams[stream] = OpenStream(commit, self.manifest)
        return self._streams[stream]

    def _read(
        self,
        windows: Array,
        chosen: StreamFields,
        fields: Sequence[str] | None,
        dtype: DTypeLike | Mapping[str, DTypeLike],
        out: Mapping[str, Array] | None,
    ) -> dict[str, Array]:
        """Read a batch; `Split.read` describes the arguments and the result."""
        cut = self._checked_windows(windows)
        names = self._checked_fields(fields, [*chosen.sources])
        dtypes = _dtypes(dtype, [*chosen.numbers.values()])
        buffers = out or {}
        strange = sorted(buffers.keys() - set(names))
        if strange:
            raise ValueError(f"buffers for {strange}, which are not among the fields {names}")
        of_streams = self._stream_fields(chosen, dtypes, names, cut)
        crop = None
        if any(map(self._mirror_of, names)):
            crop = self._crop([*chosen.numbers.values()], cut.track, unused=not of_streams)
        raw = functools.cache(functools.partial(self._read_if_stored, cut))
        of_labels = labels.LabelFields(raw, self._tables["track_crop_scale"][cut.track], crop)
        batch: dict[str, Array] = {}
        for name in names:
            if name == labels.EVAL_JOINTS and "kp_3d" in batch and name not in buffers:
                batch[name] = batch["kp_3d"]  # the same joints
                continue
            field = of_streams.get(name) or self._field(name, cut, of_labels)
            batch[name] = _buffer(buffers, name, field)
            field.fill(batch[name])
            if field.mirror is None:
                continue
            rows = of_labels.mirrored_rows
            if rows.any():
                batch[name][rows] = field.mirror(batch[name][rows])
        return batch

    def _stream_fields(
        self,
        chosen: StreamFields,
        dtypes: Mapping[str, np.dtype[Any]],
        names: Sequence[str],
        cut: _Windows,
    ) -> dict[str, _Field]:
        """The fields among `names` that come from streams, by name."""
        run_starts = cut.starts
        opened = dict[str, StreamWindows]()
        fields = dict[str, _Field]()
        if chosen.history:  # history does not reach beyond the first row of a window's run
            first: Ints = self._tables["run_start"]
            run_starts = first[np.searchsorted(first, cut.starts, side="right") - 1]
        sources = chosen.sources
        for name in names:
            if name not in sources:
                continue
            stream = sources[name]
            n_before = chosen.history.get(stream, 0)
            if stream not in opened:
                source = self._stream(stream)
                opened[stream] = StreamWindows(source, cut.starts, cut.seqlen, n_before, run_starts)
            windows = opened[stream]
            if name in chosen.numbers:
                shape = cut.shape(windows.trailing, n_before)
                fields[name] = _Field(shape, dtypes[stream], windows.fill)
            else:
                fields[name] = _Field(cut.shape((), n_before), _FLOAT32, windows.fill_flags)
        return fields

    def _field(self, name: str, cut: _Windows, of_labels: labels.LabelFields) -> _Field:
        """A field that comes from no stream: a label, a column as stored, or a field of tracks."""
        mirror = self._mirror_of(name)
        if name in (*labels.FIELDS, labels.EVAL_JOINTS):
            shape = cut.shape(of_labels.trailing(name))
            return _Field(shape, _FLOAT32, functools.partial(of_labels.fill, name), mirror)
        if name in self.columns:
            reader = self._reader(name)
            fill = functools.partial(reader.read, cut.starts, cut.seqlen)
            return _Field(cut.shape(reader.trailing), reader.dtype, fill, mirror)
        values = self._track_fields[name]

        def repeat(out: Array) -> None:
            out[...] = values[cut.track][:, None]

        return _Field(cut.shape(values.shape[1:]), values.dtype, repeat, mirror)

    def _mirror_of(self, name: str) -> Callable[[Array], Array] | None:
        """The function that mirrors values (N, ...) of a field; None if mirroring does not change
        them.
        """
        if name in self.extra and self.extra[name].mirror:
            return functools.partial(self.extra[name].mirrored, split=self.name)
        if name in labels.IN_CROP:
            return functools.partial(labels.mirror, name)
        return None

    def _checked_windows(self, windows: Array) -> _Windows:
        """Check windows (B, 2), and find their tracks.

        Raises ValueError for windows of a wrong shape, dtype or unequal lengths, CacheError for a
        window that is not within one committed track.
        """
        has_pairs = windows.ndim == 2 and windows.shape[1] == 2
        if not has_pairs or (len(windows) and windows.dtype.kind not in "iu"):
            raise ValueError(
                f"windows are {windows.dtype}{windows.shape}, expected integers (B, 2)"
            )
        starts, stops = windows.astype(np.int64).T
        if not len(starts):
            return _Windows(starts, 0, starts)
        seqlen = int(stops[0] - starts[0])
        if seqlen < 1 or np.count_nonzero(stops - starts != seqlen):
            raise ValueError(
                "windows of one batch must all have the same length, of at least one row"
            )
        # number of tracks that start at or before each window: 0 if the window is before all tracks
        after = np.searchsorted(self._tables["track_start"], starts, side="right")
        is_beyond = self._ends[after] < stops
        if is_beyond.any():
            window = windows[is_beyond][0].tolist()
            raise CacheError(
                f"{self.name}: rows {window} are in no committed track: take windows from windows()"
            )
        return _Windows(starts, seqlen, after - 1)

    @cached_property
    def _ends(self) -> Ints:
        """Ends of the tracks, after a first entry for windows before all tracks."""
        return np.concatenate([[np.iinfo(np.int64).min], self._tables["track_stop"]])

    def _crop(self, streams: Sequence[str], track: Ints, *, unused: bool) -> labels.Crop | None:
        """The function that computes the crop boxes of the first stream, for windows of `track`
        (B,); None if the crops are the tracks' boxes.

        `unused`: no field of a stream is read, so the default stream may be missing.
        """
        if not streams:
            return None
        may_be_missing = unused and isinstance(streams[0], _DefaultName)
        if may_be_missing and not self._has_usual_stream:
            return None
        policy = self._stream(streams[0]).crop
        if policy.follows_box:
            return None
        scale = self._tables["track_crop_scale"][track][:, None]
        seeds = self._jitter_seeds(policy)[track][:, None]
        return lambda bbox, frame: policy.boxes(bbox, scale, seeds, frame)

    @cached_property
    def _has_usual_stream(self) -> bool:
        return self.store.exists(self.place(USUAL).manifest)

    def _jitter_seeds(self, policy: CropPolicy) -> Keys:
        """The random seed of each track's jitter (n_tracks,), computed once per policy."""
        tracks = TrackTable(self._tables)
        if policy.jitter is None:
            return np.zeros(len(tracks), np.uint64)
        if policy not in self._seeds:
            self._seeds[policy] = policy.seeds(tracks.names)
        return self._seeds[policy]

    def _checked_fields(
        self, fields: Sequence[str] | None, stream_fields: Sequence[str]
    ) -> list[str]:
        """Names of the fields to read: `fields`, or the default ones of `Split.read`.

        Raises ValueError, TypeError or CacheError for names that cannot be read.
        """
        unclear = sorted(self.extra.keys() & {*stream_fields})
        if unclear:
            raise ValueError(
                f"{self.name}: {unclear} are names of columns, too; read these streams by "
                "stream=NAME"
            )
        if fields is None:
            evaluation = [labels.EVAL_JOINTS] if labels.EVAL_JOINTS in self.columns else []
            return [*stream_fields, *labels.FIELDS, *evaluation]
        if isinstance(fields, str):
            raise TypeError(f"fields must be a sequence of names, not the text {fields!r}")
        for name in fields:
            if name == "features" and name not in stream_fields:
                given = f"there are: {self.streams}"
                if stream_fields:
                    given = f"`streams` gives {', '.join(stream_fields)}"
                raise ValueError(f"{self.name}: features need a stream; {given}")
            if name in (*stream_fields, *labels.FIELDS, *self.columns, *self.extra, *OF_TRACKS):
                continue
            if name in self.streams:
                do = (
                    f"Read it by stream={name!r}, as the field 'features', or by "
                    f"streams=[{name!r}]."
                )
                raise CacheError(f"{self.name}: {name!r} is a stream, no field or column. {do}")
            columns = ", ".join(dict.fromkeys((*self.columns, *self.extra)))
            raise CacheError(f"{self.name}: no field or column {name!r}; columns: {columns}.")
        return list(fields)
