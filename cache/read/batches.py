"""Read a batch of windows: fields from columns and streams, with labels in crop coordinates.
features -> [windows]

A batch is a dict of arrays (B, T, ...), by field, for B windows of T rows:

    {"features": (32, 16, 2048), "kp_2d": (32, 16, 49, 3), "valid": (32, 16), ...}

`Split.read` parses its arguments that choose streams with `StreamFields.parse`, and a `Batch` does
the rest:

    1. It checks the windows and the names of the fields.
    2. It makes a `_BatchField` for each name: read from a feature stream, computed from columns
       (labels), copied from a column or repeated from the track.
    3. It lets each field fill an array, the caller's or a new one.
    4. It mirrors the rows whose crops were mirrored, in the fields that this changes.

Names of fields. A name that fits several kinds is of the first of them:

    stream field   `features` with `stream=NAME`; `<stream>` and `<stream>_ok` with `streams=`
    label          `labels.FIELDS`, `kp_3d_eval`, `kp_3d_49`, `w_kp_3d` and `kp_2d_hands`, computed
                   from columns
    column         a value per row, as stored: `layout.COLUMNS`, and the dataset's extra ones
    track field    a value per track, repeated in its rows: TRACK_FIELDS, and extra ones
    `rows`         the rows' numbers in the split

A stream that `streams` names must not have the name of a label, column or extra column.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cache.arrays import Array, Flags, Floats, Ints
from cache.errors import CacheError, suggestion
from cache.format.layout import COLUMNS, COMPUTED, UNDECODABLE
from cache.read import labels
from cache.read.open_split import TRACK_FIELDS, DefaultStream, OpenSplit
from cache.read.rows import Rows
from cache.read.streams import OpenStream
from cache.read.window_rows import WindowRows

_FLOAT32: Final = np.dtype(np.float32)
_ROWS: Final = "rows"
_LABELS: Final = (
    *labels.FIELDS,
    *(labels.EVAL_JOINTS, labels.JOINTS_49, labels.JOINT_WEIGHTS, labels.HANDS),
)
FLOATS: Final = tuple(map(np.dtype, ("float16", "float32", "float64")))  # of read features


@dataclass(frozen=True, slots=True)
class _BatchField:
    """One field of a batch, ready to be read."""

    shape: tuple[int, ...]  # (B, T, ...)
    dtype: np.dtype[Any]
    fill: Callable[[Array], None]  # fills an array of this shape with the field, not mirrored


class StreamFields(NamedTuple):
    """The fields of a batch that come from streams.

    `read(stream="resnet50")` reads one stream as the field `features`, without flags:

        features={"features": "resnet50"}, flags={}, history={}

    `read(streams=("resnet50",), history={"resnet50": 4})` names each field after its stream:

        features={"resnet50": "resnet50"}
        flags={"resnet50_ok": "resnet50"}
        history={"resnet50": 4}

    `read(streams={"resnet50": "resnet50.j1"}, ...)` reads another stream, as fields of the same
    names.
    """

    features: Mapping[str, str]  # name of a field of features -> its stream
    flags: Mapping[str, str]  # name of a field `<name>_ok` -> the field of features
    history: Mapping[str, int]  # field of features -> number of rows to read before each window
    # the caller named no stream: without it, labels are relative to the tracks' boxes
    is_default: bool = False

    @classmethod
    def parse(
        cls,
        stream: str | DefaultStream | None,
        streams: Sequence[str] | Mapping[str, str] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> StreamFields:
        """Make the fields from the arguments of `Split.read` with the same names.

        Raises ValueError or TypeError when the arguments do not fit together.
        """
        if not isinstance(history, Mapping | None):
            raise TypeError(f"history: expected rows by stream as {{'a': 4}}, found {history!r}")
        history = history or {}
        if isinstance(stream, DefaultStream):
            if streams is None and not history:
                return cls({"features": stream.value}, {}, {}, is_default=True)
            stream = None
        names = [*(streams.values() if isinstance(streams, Mapping) else streams or ())]
        nameless = [name for name in (stream, *names) if not isinstance(name, str | None)]
        if nameless:
            raise TypeError(f"a stream is a name or None; found {nameless}")
        if streams is None and not history:
            return cls({} if stream is None else {"features": stream}, {}, {})
        if streams is None or isinstance(streams, str):
            raise TypeError(
                f"streams must be a sequence of names, also for history; found {streams!r}"
            )
        if stream is not None:
            raise ValueError(f"expected stream or streams, found both: {stream!r}, {names}")
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
        flags = {f"{name}_ok": name for name in streams}
        return cls(dict(zip(streams, names, strict=True)), flags, history)

    @property
    def streams(self) -> list[str]:
        """Names of the streams, in the given order."""
        return list(self.features.values())

    @property
    def names(self) -> list[str]:
        """Every field that comes from a stream."""
        return [*self.features, *self.flags]


class Batch:
    """A batch of B windows of T rows, to be read once.

    Args:
        windows: (B, 2) or (B, T), as for `Split.read`.
        chosen: the streams that it may read.

    Raises ValueError and CacheError for invalid windows.
    """

    def __init__(self, split: OpenSplit, windows: Array, chosen: StreamFields) -> None:
        self._split = split
        self._chosen = chosen
        self._windows = WindowRows.parse(windows, split.tables, split.name)
        if any(chosen.history.values()) and not self._windows.are_ranges:
            raise ValueError("history: expected windows as ranges (B, 2), found rows (B, T)")
        self._streams: dict[str, _StreamWindows] = {}  # by field of features, opened on first use
        track = self._windows.track
        crop_scale = split.tables["track_crop_scale"][track]
        # These do not refer to this object: so a split is closed as soon as its caller drops it.
        read_column = functools.partial(_read_if_stored, split, self._windows)
        find_crops = functools.partial(_find_crops, split, chosen, track)
        self._labels = labels.LabelFields(read_column, crop_scale, find_crops)

    def read(
        self, fields: Sequence[str] | None, dtype: DTypeLike, out: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        """Read the fields; `Split.read` describes the arguments and the result."""
        names = _check_fields(self._split, fields, self._chosen.names)
        feature_dtype = _float_dtype(dtype)
        buffers = out or {}
        strange = sorted(set(buffers) - set(names))
        if strange:
            raise ValueError(f"buffers for {strange}, which are not among the fields {names}")
        batch: dict[str, Array] = {}
        for name in names:
            field = self._make_field(name, feature_dtype, buffers)
            batch[name] = _buffer(buffers, name, field)
            field.fill(batch[name])
            self._mirror(name, batch[name])
        return batch

    def _make_field(
        self, name: str, feature_dtype: np.dtype[Any], buffers: Mapping[str, Array]
    ) -> _BatchField:
        """Make a field. Features have the dtype of the caller's buffer, or else `feature_dtype`."""
        split = self._split
        if name in self._chosen.features:
            reader = self._open_stream(name)
            if name in buffers and buffers[name].dtype in FLOATS:
                feature_dtype = buffers[name].dtype
            return _BatchField(reader.shape(reader.trailing), feature_dtype, reader.fill)
        if name in self._chosen.flags:
            reader = self._open_stream(self._chosen.flags[name])
            return _BatchField(reader.shape(()), _FLOAT32, reader.fill_flags)
        if name in _LABELS:
            fill = functools.partial(self._labels.fill, name)
            return _BatchField(self._shape(self._labels.trailing(name)), _FLOAT32, fill)
        if name in split.columns:
            rows = split.reader(name)
            fill = functools.partial(rows.read, self._windows.starts, self._windows.length)
            return _BatchField(self._shape(rows.trailing), rows.dtype, fill)
        if name == _ROWS:
            copy = functools.partial(np.copyto, src=self._windows.numbers)
            return _BatchField(self._shape(()), np.dtype(np.int64), copy)
        values = split.track_fields[name]

        def repeat(out: Array) -> None:
            out[...] = values[self._windows.track][:, None]

        return _BatchField(self._shape(values.shape[1:]), values.dtype, repeat)

    def _shape(self, trailing: Sequence[int]) -> tuple[int, ...]:
        return *self._windows.shape, *trailing

    def _open_stream(self, name: str) -> _StreamWindows:
        """The reader of a field of features."""
        if name not in self._streams:
            stream = self._split.open_stream(self._chosen.features[name])
            history = self._chosen.history.get(name, 0)
            run_starts = self._run_starts if history else self._windows.starts
            self._streams[name] = _StreamWindows(stream, self._windows, history, run_starts)
        return self._streams[name]

    @cached_property
    def _run_starts(self) -> Ints:
        """The first row of each window's run (B,), before which there is no history."""
        first_rows: Ints = self._split.tables["run_start"]
        return first_rows[np.searchsorted(first_rows, self._windows.starts, side="right") - 1]

    def _mirror(self, name: str, values: Array) -> None:
        """Mirror the rows of a field (B, T, ...) whose crops were mirrored, in place, if that
        changes the field.
        """
        extra = self._split.extra.get(name)
        changes = name in labels.IN_CROP if extra is None else bool(extra.mirror)
        if not changes:
            return
        mirrored = self._labels.mirrored_rows
        if not mirrored.any():
            return
        rows = values[mirrored]
        if extra is None:
            values[mirrored] = labels.mirror(name, rows)
        else:
            values[mirrored] = extra.mirrored(rows, self._split.name)


def mirror(batch: Mapping[str, Any], split: OpenSplit | None = None) -> dict[str, Any]:
    """The labels of a batch, or of an item, for the mirrored crops: left and right joints are
    swapped, and x changes its sign. Boxes and cameras stay those of the image.

    Args:
        batch: arrays or tensors by field, with the shape of the field last: of `Split.read` or
            `torch_windows`.
        split: needed for its extra columns.

    Returns new arrays or tensors; fields that mirroring does not change are returned themselves.
    Raises ValueError for other fields: mirrored features come from a stream with mirrored crops.
    """
    mirrored = dict(batch)
    for name, values in batch.items():
        if split is not None and name in split.extra:
            array = np.asarray(values)
            column = split.extra[name]
            rows = column.mirrored(array.reshape(-1, *column.shape), split.name)
            rows = rows.reshape(array.shape)
        elif name in labels.IN_CROP:
            rows = labels.mirror(name, np.asarray(values))
        elif name in (*_LABELS, *COLUMNS, *TRACK_FIELDS, _ROWS, "split"):
            continue
        else:
            raise ValueError(
                f"{name}: expected labels, columns or a split with this column. Mirrored features "
                "come from a stream with mirrored crops: leave the field out"
            )
        mirrored[name] = rows if isinstance(values, np.ndarray) else values.new_tensor(rows)
    return mirrored


class _StreamWindows:
    """Reads B windows of T rows of a stream, each with `history` rows before it.

    History that would be before the start of the window's run is filled with zeros.

    Args:
        stream: the stream to read.
        windows: ranges, if there is history.
        run_starts: (B,) first rows of the windows' runs; not used without history.

    Raises CacheError if the stream has no features for a row of a window, or lacks a shard of its
    history.
    """

    def __init__(
        self, stream: OpenStream, windows: WindowRows, history: int, run_starts: Ints
    ) -> None:
        self._stream = stream
        self._windows = windows
        self._history = history
        # rows before each stretch of rows
        self._before = np.minimum(windows.starts - run_starts, history)
        stream.require(windows.starts, windows.length, self._before)

    def shape(self, trailing: tuple[int, ...]) -> tuple[int, ...]:
        """(B, history + T, *trailing)."""
        n_windows, seqlen = self._windows.shape
        return n_windows, self._history + seqlen, *trailing

    @property
    def trailing(self) -> tuple[int, ...]:
        """Shape of a row's features."""
        return self._stream.part().trailing

    def fill(self, out: Array) -> None:
        """Fill `out` (B, history + T, ...) with features; 0 before the run, and in history rows
        whose frames could not be decoded.
        """
        self._read(self._stream.part(), out)
        if self._history:
            out[self._flags == UNDECODABLE] = 0

    def fill_flags(self, out: Floats) -> None:
        """Fill `out` (B, history + T) with 1 where features were computed, 0 elsewhere."""
        np.equal(self._flags, COMPUTED, out=out, casting="unsafe")

    @cached_property
    def _flags(self) -> Flags:
        """The stored `ok` flags (B, history + T); UNDECODABLE before the run."""
        flags = np.empty(self.shape(()), np.uint8)
        self._read(self._stream.part("_ok"), flags)
        return flags

    def _read(self, rows: Rows, out: Array) -> None:
        """Fill `out` (B, history + T, ...) with rows as stored; 0 before the run."""
        if not self._history:
            rows.read(self._windows.starts, self._windows.length, out)
            return
        # Windows with equally much history before them are read together. Mostly there is one such
        # group, since few windows are at the start of a run.
        for n_before in np.unique(self._before).tolist():
            windows = np.flatnonzero(self._before == n_before)
            n_missing = self._history - n_before
            n_rows = n_before + self._windows.length
            starts = self._windows.starts[windows] - n_before
            is_whole_batch = len(windows) == len(out)
            if not n_missing and is_whole_batch:
                rows.read(starts, n_rows, out)  # without a copy
                continue
            part = np.empty((len(windows), n_rows, *rows.trailing), out.dtype)
            rows.read(starts, n_rows, part)
            out[windows, :n_missing] = 0
            out[windows, n_missing:] = part


def _buffer(buffers: Mapping[str, Array], name: str, field: _BatchField) -> Array:
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


def _read_if_stored(split: OpenSplit, windows: WindowRows, name: str) -> Array | None:
    """The rows (B, T, ...) of a column as stored; None if the split has no such column."""
    if name not in split.manifest["shards"]:
        return None
    return windows.read(split.reader(name))


def _find_crops(split: OpenSplit, chosen: StreamFields, track: Ints) -> labels.StreamCrops | None:
    """How the crops of the first stream were cut, for windows of the tracks `track` (B,). None if
    there is no stream, or if its crops are the tracks' boxes.

    Raises CacheError if there is no stream of a name that the caller gave.
    """
    if not chosen.streams or (chosen.is_default and not split.has_default_stream):
        return None
    stream = split.open_stream(chosen.streams[0])
    if stream.crop.follows_box:
        return None
    return labels.StreamCrops(stream.crop, stream.jitter_seeds[track])


def _check_fields(
    split: OpenSplit, fields: Sequence[str] | None, stream_fields: Sequence[str]
) -> list[str]:
    """Names of the fields to read: `fields`, or the default ones of `Split.read`. The module's
    docstring has the kinds of names; `stream_fields` are those of the first kind.

    Raises ValueError, TypeError or CacheError for names that cannot be read.
    """
    unclear = sorted(split.extra.keys() & {*stream_fields})
    if unclear:
        raise ValueError(
            f"{split.name}: {unclear} are names of columns, too; read these streams by stream=NAME"
        )
    if fields is None:
        evaluation = [labels.EVAL_JOINTS] if labels.EVAL_JOINTS in split.columns else []
        return [*stream_fields, *labels.FIELDS, *evaluation]
    if isinstance(fields, str):
        raise TypeError(f"fields must be a sequence of names, not the text {fields!r}")
    for name in fields:
        if name == "features" and name not in stream_fields:
            hint = f"there are: {split.streams}"
            if stream_fields:
                hint = f"`streams` gives {', '.join(stream_fields)}"
            raise ValueError(f"{split.name}: features need a stream; {hint}")
        known = [*stream_fields, *labels.FIELDS, labels.JOINT_WEIGHTS, *split.columns]
        known += [*split.extra, *TRACK_FIELDS, _ROWS]
        if "kp_3d" in split.columns or labels.EVAL_JOINTS not in split.columns:
            known.append(labels.JOINTS_49)
        if name in known:
            continue
        hint = suggestion(name, known)
        there = ", ".join(dict.fromkeys(known))
        raise CacheError(f"{split.name}: no field or column {name!r}{hint} there are: {there}.")
    return list(fields)


def _float_dtype(given: DTypeLike) -> np.dtype[Any]:
    """The dtype of read features. Raises ValueError unless it is one of `FLOATS`."""
    with suppress(TypeError):
        dtype: np.dtype[Any] = np.dtype(given)
        if dtype in FLOATS:
            return dtype
    raise ValueError(f"dtype is {given!r}, expected float16, float32 or float64")
