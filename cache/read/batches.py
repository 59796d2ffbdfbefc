"""Read a batch of windows: fields from columns and streams, with labels in crop coordinates.
features -> [windows]

A batch is a dict of arrays (B, T, ...), by field, for B windows of T rows:

    {"features": (32, 16, 2048), "kp_2d": (32, 16, 49, 3), "valid": (32, 16), ...}

`Split.read` parses its arguments with `StreamFields.parse`, and `OpenSplit._read` does the rest:

    1. It checks the windows and the names of the fields.
    2. It makes a `_Field` for each name: read from a feature stream (`_make_stream_fields`), or
       computed from columns (labels), copied from a column or repeated from the track
       (`_make_field`).
    3. It lets each field fill an array, the caller's or a new one.
    4. It mirrors the rows whose crops were mirrored, in the fields that this changes.

Names of fields. A name that fits several kinds is of the first of them:

    stream field   `features` with `stream=NAME`; `<stream>` and `<stream>_ok` with `streams=`
    label          `labels.FIELDS` and `kp_3d_eval`, computed from columns
    column         a value per row, as stored: `layout.COLUMNS`, and the dataset's extra ones
    track field    a value per track, repeated in its rows: TRACK_FIELDS, and extra ones

A stream that `streams` names must not have the name of a label, column or extra column.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cache.arrays import Array, Bools, Ints, Keys
from cache.crop_policy import CropPolicy
from cache.errors import CacheError
from cache.format import layout
from cache.format.extra import ExtraColumn
from cache.format.layout import COLUMNS, FEATURES, GENDERS, MANIFEST
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.track_tables import TrackTable
from cache.read import labels
from cache.read.arguments import DEFAULT_STREAM, FLOATS, DefaultName, StreamFields, float_dtype
from cache.read.rows import Rows
from cache.read.streams import OpenStream, StalenessCheck, StreamWindows, open_column

# Fields of a window's track, repeated in each row. A dataset's own column of the same name replaces
# them.
TRACK_FIELDS: Final = ("gender", "intrinsics", "image_size", "crop_scale")

_FLOAT32: Final = np.dtype(np.float32)


class _Windows(NamedTuple):
    """B checked windows of T rows."""

    starts: Ints  # (B,) first rows
    seqlen: int  # T
    track: Ints  # (B,) number of each window's track

    def shape(self, trailing: Sequence[int], n_before: int = 0) -> tuple[int, ...]:
        """(B, T, *trailing), with `n_before` more rows before each window."""
        return len(self.starts), n_before + self.seqlen, *trailing


class _CommittedArray(NamedTuple):
    """The arguments of `open_column` and `open_lazily`, which open an array."""

    commit: Commit  # the split's or the stream's
    name: str  # in that commit, such as "resnet50_ok"
    check_current: StalenessCheck  # the commit's


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a batch, ready to be read."""

    shape: tuple[int, ...]  # (B, T, ...)
    dtype: np.dtype[Any]
    fill: Callable[[Array], None]  # fills an array of this shape with the field, not mirrored


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

    This is the base of `Split`, with the code that opens arrays (up to `open_stream`) and reads a
    batch (from `_read` on).
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
        # filled on first use
        self._readers: dict[str, Rows] = {}  # by name: see `_reader`
        self._streams: dict[str, OpenStream] = {}  # by name
        self._seeds: dict[CropPolicy, Keys] = {}  # see `_jitter_seeds`

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
        """The values (N, ...) of N tracks, by field: TRACK_FIELDS and the dataset's extra track
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

    def _read_if_stored(self, windows: _Windows, name: str) -> Array | None:
        """The rows (B, T, ...) of a column as stored; None if the split has no such column."""
        if name not in self.manifest["shards"]:
            return None
        return self._reader(name).stored(windows.starts, windows.seqlen)

    def _reader(self, name: str) -> Rows:
        """The reader of a column, or of a stream's array `features/<stream>`, with `_ok` or `_key`.

        Raises CacheError if there is none of that name.
        """
        if name not in self._readers:
            self._readers[name] = open_column(*self._find_array(name))
        return self._readers[name]

    def _find_array(self, name: str) -> _CommittedArray:
        """Find the array of a column, or of a stream as "features/<stream>" with "_ok" or "_key".

        Raises CacheError if there is none of that name.
        """
        if name.startswith(f"{FEATURES}/"):
            array = name.removeprefix(f"{FEATURES}/")
            stream = self.open_stream(layout.stream_of(array))
            if array in stream.commit.manifest["shards"]:
                return _CommittedArray(stream.commit, array, stream.check_current)
        elif name in self.columns:
            return _CommittedArray(self._commit, name, self._check_current)
        columns = ", ".join(self.columns)
        raise CacheError(f"{self.name}: no column {name!r} of rows; there are: {columns}")

    def open_stream(self, stream: str) -> OpenStream:
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
        dtype: DTypeLike,
        out: Mapping[str, Array] | None,
    ) -> dict[str, Array]:
        """Read a batch; `Split.read` describes the arguments and the result."""
        checked = self._check_windows(windows)
        names = self._check_fields(fields, [*chosen.stream_by_field])
        feature_dtype = float_dtype(dtype)
        buffers = out or {}
        strange = sorted(set(buffers) - set(names))
        if strange:
            raise ValueError(f"buffers for {strange}, which are not among the fields {names}")

        dtypes = {name: array.dtype for name, array in buffers.items() if array.dtype in FLOATS}
        for name in chosen.features:
            dtypes.setdefault(name, feature_dtype)
        stream_fields = self._make_stream_fields(chosen, dtypes, names, checked)
        crops = None  # only needed for labels in the crop
        if any(map(self._changes_in_mirror, names)):
            crops = self._stream_crops(chosen.streams, checked.track)
        read_column = functools.partial(self._read_if_stored, checked)
        crop_scale = self._tables["track_crop_scale"][checked.track]
        label_fields = labels.LabelFields(read_column, crop_scale, crops)

        batch: dict[str, Array] = {}
        for name in names:
            # In a split with this column, `kp_3d` is the same field: they share an array.
            if name == labels.EVAL_JOINTS and "kp_3d" in batch and name not in buffers:
                batch[name] = batch["kp_3d"]
                continue
            field = stream_fields.get(name) or self._make_field(name, checked, label_fields)
            batch[name] = _buffer(buffers, name, field)
            field.fill(batch[name])
            if self._changes_in_mirror(name):
                self._mirror(name, batch[name], label_fields.mirrored_rows)
        return batch

    def _make_stream_fields(
        self,
        chosen: StreamFields,
        dtypes: Mapping[str, np.dtype[Any]],
        names: Sequence[str],
        windows: _Windows,
    ) -> dict[str, _Field]:
        """The fields among `names` that come from streams, by name. `dtypes`: of features, by
        field.
        """
        starts = windows.starts
        run_starts = starts
        if chosen.history:  # it does not reach before the run of each window
            first_rows: Ints = self._tables["run_start"]
            run_starts = first_rows[np.searchsorted(first_rows, starts, side="right") - 1]
        readers = dict[str, StreamWindows]()
        fields = dict[str, _Field]()
        for name, stream in chosen.stream_by_field.items():
            if name not in names:
                continue
            n_before = chosen.history.get(stream, 0)
            if stream not in readers:
                opened = self.open_stream(stream)
                readers[stream] = StreamWindows(
                    opened, starts, windows.seqlen, n_before, run_starts
                )
            reader = readers[stream]
            if name in chosen.features:
                shape = windows.shape(reader.trailing, n_before)
                fields[name] = _Field(shape, dtypes[name], reader.fill)
            else:
                fields[name] = _Field(windows.shape((), n_before), _FLOAT32, reader.fill_flags)
        return fields

    def _make_field(self, name: str, windows: _Windows, label_fields: labels.LabelFields) -> _Field:
        """A field that comes from no stream: a label, a column as stored, or a field of tracks."""
        if name in (*labels.FIELDS, labels.EVAL_JOINTS):
            shape = windows.shape(label_fields.trailing(name))
            return _Field(shape, _FLOAT32, functools.partial(label_fields.fill, name))
        if name in self.columns:
            reader = self._reader(name)
            fill = functools.partial(reader.read, windows.starts, windows.seqlen)
            return _Field(windows.shape(reader.trailing), reader.dtype, fill)
        values = self._track_fields[name]

        def repeat(out: Array) -> None:
            out[...] = values[windows.track][:, None]

        return _Field(windows.shape(values.shape[1:]), values.dtype, repeat)

    def _changes_in_mirror(self, name: str) -> bool:
        """Whether a field has other values where the network saw a mirrored crop."""
        if name in self.extra:
            return bool(self.extra[name].mirror)
        return name in labels.IN_CROP

    def _mirror(self, name: str, values: Array, mirrored: Bools) -> None:
        """Mirror the rows of a field (B, T, ...) where `mirrored` (B, T) is True, in place."""
        if not mirrored.any():
            return
        rows = values[mirrored]
        if name in self.extra:
            values[mirrored] = self.extra[name].mirrored(rows, self.name)
        else:
            values[mirrored] = labels.mirror(name, rows)

    def _check_windows(self, windows: Array) -> _Windows:
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
        track = self._tables.track_of(starts)
        is_outside = (track < 0) | (track != self._tables.track_of(stops - 1))
        if is_outside.any():
            window = windows[is_outside][0].tolist()
            raise CacheError(
                f"{self.name}: rows {window} are in no committed track: take windows from windows()"
            )
        return _Windows(starts, seqlen, track)

    def _stream_crops(self, streams: Sequence[str], track: Ints) -> labels.StreamCrops | None:
        """How the crops of the first stream were cut, for windows of the tracks `track` (B,). None
        if there is no stream, or if its crops are the tracks' boxes.

        Raises CacheError if the caller named a stream that does not exist. The default stream
        (`DefaultName`) may be missing: then labels are relative to the tracks' boxes.
        """
        if not streams:
            return None
        name = streams[0]
        is_optional = isinstance(name, DefaultName) and name not in self._streams
        if is_optional and not self._has_default_stream:
            return None
        policy = self.open_stream(name).crop
        if policy.follows_box:
            return None
        return labels.StreamCrops(policy, self._jitter_seeds(policy)[track])

    @cached_property
    def _has_default_stream(self) -> bool:
        return self.store.exists(self.place(DEFAULT_STREAM).manifest)

    def _jitter_seeds(self, policy: CropPolicy) -> Keys:
        """The random seed of each track's jitter (n_tracks,), computed once per policy."""
        tracks = TrackTable(self._tables)
        if policy.jitter is None:
            return np.zeros(len(tracks), np.uint64)
        if policy not in self._seeds:
            self._seeds[policy] = policy.seeds(tracks.names)
        return self._seeds[policy]

    def _check_fields(
        self, fields: Sequence[str] | None, stream_fields: Sequence[str]
    ) -> list[str]:
        """Names of the fields to read: `fields`, or the default ones of `Split.read`. The module's
        docstring has the kinds of names; `stream_fields` are those of the first kind.

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
            if name in (*stream_fields, *labels.FIELDS, *self.columns, *self.extra, *TRACK_FIELDS):
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
