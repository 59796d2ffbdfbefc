"""A split as a database file that existing code reads.  tracks, features -> [database files]

Existing code cuts windows out of all rows of one `vid_name`, without looking at frame numbers: a window across a gap
would take frames for neighbours that are not. So each segment of a track whose frames follow one another gets a name of
its own. Arrays are streamed, a block of rows at a time, into a part file that is renamed when it is complete.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import cache
from cache.storage.atomic import publish
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.exchange.formats import Exported
from pipeline.exchange.vibe_db.joblib_files import Blocks, joblib_parts
from pipeline.exchange.vibe_db.layouts import (
    COMMON,
    FIELDS,
    NAMED,
    PICTURE,
    Layout,
    layout_of,
    names_of,
    usual_name,
    write_provenance,
)
from pipeline.features.plan import is_current
from pipeline.files.raw.files import whole_file_digest
from pipeline.skeletons import convert, joint_names

Array = NDArray[Any]
Rows = NDArray[np.int64]
Has = Callable[[int, int], NDArray[np.bool_]]  # which of the rows [start, stop) have something

BATCH: Final = 8192  # rows: of features 64 MB
FEATURES: Final = "no features"
JOINTS_3D: Final = "no 3D joints"
SMPL: Final = "no SMPL parameters"
NEEDS: Final = {"features": FEATURES, "joints3D": JOINTS_3D, "pose": SMPL, "shape": SMPL, "theta": SMPL}


@dataclass(frozen=True, slots=True)
class ExportedDatabase(Exported):
    """A database file that was written."""

    names: int  # different vid_names: tracks, or segments of them
    fields: tuple[str, ...]


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "resnet50",
    replace: bool = False,
    progress: Progress = silent,
) -> ExportedDatabase:
    """Write the split `name` of the cache `root` to the file `out`, or into the folder `out` under its usual name.

    Beside it comes `<file>.provenance.json`. Raises cache.CacheError when there is no such split, PipelineError when
    the stream is missing or stale, when nothing can be written, and when the file exists already without `replace`.
    """
    split = cache.open(root)[name]
    dataset, _, part = name.partition("/")
    layout = layout_of(dataset, part, split.columns)
    file = out / usual_name(layout, dataset, part) if out.is_dir() else out
    _check_file(file, layout, replace=replace)
    if "features" in layout.fields and stream not in split.streams:
        streams = ", ".join(split.streams) or "none"
        raise PipelineError(f"{name}: has no stream {stream!r}; there are: {streams}. Extract it first.")
    if "features" in layout.fields and not is_current(split, stream):
        raise PipelineError(f"{name}: the stream {stream!r} lags behind the tracks. Extract it first.")
    checks = _checks(split, layout, stream)
    absent = _absent_fields(split, layout, checks)
    if lost := [field for field in ("joints2D", "bbox", "theta") if field in absent]:
        raise PipelineError(f"{name}: cannot be exported without {lost[0]}: {absent[lost[0]]}")
    fields = tuple(field for field in layout.fields if field not in absent)
    needed = {NEEDS.get(field) for field in fields}
    segments = segments_of(split, {need: has for need, has in checks.items() if need in needed})
    if not segments.rows:
        why = ", ".join(f"{n:,} rows have {need}" for need, n in segments.left_out.items()) or "it has no tracks"
        raise PipelineError(f"{name}: nothing to export: {why}")
    arrays = _Fields(split, layout, segments, stream, progress).arrays(fields)
    temporary = file.with_name(f".{file.name}.part")
    try:
        digest = _write(temporary, layout, arrays)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    provenance = _provenance(split, layout, segments, arrays, stream) | {"absent": absent}
    stand_in = bool(split.manifest.get("stand_in", False) or (provenance["stream"] or {}).get("stand_in"))
    write_provenance(file, {**provenance, "file": file.name, "sha256": digest, "stand_in": stand_in})
    publish(temporary, file)  # last: a file of this name always has its provenance
    n_names = len(segments.start)
    summary = f"{count(segments.rows, 'row')} under {count(n_names, 'name')}"
    return ExportedDatabase(file, segments.rows, summary, absent, segments.left_out, stand_in, n_names, fields)


def _check_file(file: Path, layout: Layout, *, replace: bool) -> None:
    if not file.parent.is_dir():
        raise PipelineError(f"--out {file}: there is no folder {file.parent}. Create it, or name another.")
    if (layout.container == "hdf5") != (file.suffix in (".h5", ".hdf5")):
        kind = "HDF5: name it .h5" if layout.container == "hdf5" else "a joblib file: name it .pt"
        raise PipelineError(f"--out {file}: existing code reads this dataset from {kind}")
    if not replace and file.exists():
        raise PipelineError(f"--out {file}: exists already. Name another file, or add --replace.")


def _checks(split: cache.Split, layout: Layout, stream: str) -> dict[str, Has]:
    """For every kind of label: which rows have it. Existing code takes all labels for known."""

    def flag(name: str, start: int, stop: int) -> NDArray[np.bool_]:
        return np.asarray(split.rows(name, start, stop) == 1) if name in split.columns else np.ones(stop - start, bool)

    def joints_3d(start: int, stop: int) -> NDArray[np.bool_]:
        """Rows in which all joints are known that existing code takes for known."""
        joints = split.rows(layout.column_3d, start, stop)
        has = flag("has_3d", start, stop) & np.isfinite(joints).all(axis=(1, 2))
        if layout.column_3d == "kp_3d":
            has &= (joints[:, COMMON, 3] > 0).all(axis=1)
        return has

    def smpl(start: int, stop: int) -> NDArray[np.bool_]:
        finite = [np.isfinite(split.rows(name, start, stop)).all(axis=1) for name in ("pose", "betas")]
        return np.asarray(flag("has_smpl", start, stop) & finite[0] & finite[1])

    def features(start: int, stop: int) -> NDArray[np.bool_]:
        decoded: NDArray[np.bool_] = np.asarray(split.column(f"features/{stream}_ok")[start:stop]) == 1
        return decoded

    return {FEATURES: features, JOINTS_3D: joints_3d, SMPL: smpl}


def _absent_fields(split: cache.Split, layout: Layout, checks: Mapping[str, Has]) -> dict[str, str]:
    """Field of the layout that cannot be written -> why."""
    absent = {}
    for field in layout.fields:
        needed = NEEDS.get(field, FEATURES)
        columns = (layout.column_3d,) if field == "joints3D" else FIELDS[field].columns
        if missing := [name for name in columns if name not in split.columns]:
            absent[field] = f"the split has no {' and no '.join(missing)}"
        elif needed != FEATURES and not any(
            checks[needed](start, stop).any() for start, stop in spans(split.tracks.start, split.tracks.stop)
        ):
            absent[field] = f"in no row ({needed})"
        elif field == "img_name" and any(
            split.videos[video].source.partition(":")[0] not in NAMED
            for video in np.unique(split.tracks.video).tolist()
        ):
            absent[field] = "the pictures have no names of their own"
    return absent


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Runs of rows, ascending: [start, stop) of `track`, whose frames are one step apart."""

    start: Rows
    stop: Rows
    track: Rows  # number in the split's tracks
    last_frame: Rows  # index of its last frame
    left_out: Mapping[str, int]  # what rows lack -> how many are left out for it

    @property
    def rows(self) -> int:
        return int((self.stop - self.start).sum())


def spans(start: Rows, stop: Rows) -> Iterator[tuple[int, int]]:
    """Ascending ranges of rows -> the same rows in as few ranges as possible, of at most BATCH.

    >>> list(spans(np.array([0, 5, 9]), np.array([5, 7, 10])))
    [(0, 7), (9, 10)]
    """
    first = np.flatnonzero(np.r_[True, start[1:] != stop[:-1]]) if len(start) else np.zeros(0, np.int64)
    for a, b in zip(start[first], stop[np.r_[first[1:] - 1, len(stop) - 1]], strict=True) if len(first) else ():
        for first_row in range(int(a), int(b), BATCH):
            yield first_row, min(first_row + BATCH, int(b))


def segments_of(split: cache.Split, checks: Mapping[str, Has]) -> Segments:
    """The rows of committed tracks that pass all checks, cut where frames do not follow one another."""
    left_out = dict.fromkeys(checks, 0)
    rows, frames = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, stop in spans(split.tracks.start, split.tracks.stop):
        keep = np.ones(stop - start, bool)
        for need, has in checks.items():
            lacks = keep & ~has(start, stop)
            left_out[need] += int(lacks.sum())
            keep &= ~lacks
        rows.append(start + np.flatnonzero(keep))
        frames.append(split.rows("frame_index", start, stop)[keep])
    row, frame = np.concatenate(rows), np.concatenate(frames)
    track = split.track_of(row)
    step = split.tracks.step.astype(np.int64)[track]
    follows = (np.diff(row) == 1) & (np.diff(track) == 0) & (np.diff(frame) == step[1:])
    first = np.flatnonzero(np.r_[True, ~follows]) if len(row) else np.zeros(0, np.int64)
    last = np.r_[first[1:] - 1, len(row) - 1][: len(first)]
    return Segments(
        row[first], row[last] + 1, track[first], frame[last], {need: n for need, n in left_out.items() if n}
    )


class _Fields:
    """The arrays of one file, computed whenever they are read, in blocks of at most BATCH rows."""

    def __init__(self, split: cache.Split, layout: Layout, segments: Segments, stream: str, progress: Progress) -> None:
        self.split, self.layout, self.segments, self.stream = split, layout, segments, stream
        self.progress, self.done = progress, 0
        several = np.bincount(segments.track, minlength=len(split.tracks)) > 1
        within = np.arange(len(segments.track)) - np.searchsorted(segments.track, segments.track)
        names = split.tracks.names
        pairs = zip(segments.track.tolist(), within.tolist(), strict=True)
        self.names = [f"{names[t]}_seg{k}" if several[t] else names[t] for t, k in pairs]
        if len(set(self.names)) < len(self.names):
            raise PipelineError(f"{split.name}: two tracks would have one vid_name: rename the videos, convert again")

    def arrays(self, fields: Sequence[str]) -> dict[str, Blocks]:
        """Every field with its shape and type."""
        rows, n_rows, first = self.split.rows, self.segments.rows, int(self.segments.start[0])
        computed: dict[str, Callable[[int, int], Any]] = {
            "vid_name": self._vid_names,
            "img_name": self._img_names,
            "frame_id": functools.partial(rows, "frame_index"),
            "joints2D": self._joints_2d,
            "joints3D": lambda start, stop: rows(self.layout.column_3d, start, stop)[..., :3],
            "bbox": functools.partial(rows, "bbox"),
            "pose": functools.partial(rows, "pose"),
            "shape": functools.partial(rows, "betas"),
            "theta": lambda start, stop: np.concatenate([rows(n, start, stop) for n in ("pose", "betas")], axis=1),
            "valid": self._valid,
            "valid_i": lambda start, stop: self._valid(start, stop)[:, None],
            "features": self._features,
        }

        def blocks(field: str, dtype: np.dtype[Any]) -> Iterator[Array]:
            for start, stop in spans(self.segments.start, self.segments.stop):
                yield np.asarray(computed[field](start, stop)).astype(dtype, copy=False)
                self.done += stop - start
                self.progress(self.done, len(fields) * n_rows, field)

        described = {}
        for field in fields:
            dtype = np.dtype(self._text_type(field) if FIELDS[field].dtype == "U" else FIELDS[field].dtype)
            shape = (n_rows, *np.shape(computed[field](first, first + 1))[1:])
            described[field] = Blocks(shape, dtype, functools.partial(blocks, field, dtype))
        return described

    def _text_type(self, field: str) -> str:
        """HDF5's texts are bytes, which existing code decodes. A segment's last picture has its longest name."""
        last = self.names if field == "vid_name" else self._pictures(self.segments.track, self.segments.last_frame)
        return f"{'S' if self.layout.container == 'hdf5' else '<U'}{max(map(len, last))}"

    def _joints_2d(self, start: int, stop: int) -> Array:
        kp_2d = self.split.rows("kp_2d", start, stop)
        if self.layout.in_crops:
            bbox = self.split.rows("bbox", start, stop)
            side, annotated = bbox[:, None, 2:], kp_2d.any(axis=-1, keepdims=True)
            kp_2d[..., :2] = (kp_2d[..., :2] - (bbox[:, None, :2] - side / 2)) * (PICTURE / side)
            kp_2d = np.where(annotated, kp_2d, 0)
        return convert(kp_2d, source="spin49", target=self.layout.joints_2d)

    def _valid(self, start: int, stop: int) -> Array:
        if "valid" not in self.split.columns:
            return np.ones(stop - start, np.uint8)
        return np.asarray(self.split.rows("valid", start, stop) == 1)

    def _features(self, start: int, stop: int) -> Array:
        windows = np.stack([np.arange(start, stop), np.arange(start, stop) + 1], axis=1)
        read = self.split.read(windows, stream=self.stream, fields=["features"], dtype="float32")
        return np.asarray(read["features"][:, 0])

    def _segment(self, start: int, stop: int) -> Rows:
        return np.searchsorted(self.segments.start, np.arange(start, stop), side="right") - 1

    def _vid_names(self, start: int, stop: int) -> Array:
        names = [self.names[i] for i in self._segment(start, stop).tolist()]
        if self.layout.container == "hdf5" and (bad := [name for name in names if not name.isascii()]):
            raise PipelineError(f"vid_name {bad[0]!r}: existing code reads these names as ASCII. Rename the video.")
        return np.array(names)

    def _img_names(self, start: int, stop: int) -> list[str]:
        track = self.segments.track[self._segment(start, stop)]
        return list(self._pictures(track, self.split.rows("frame_index", start, stop)))

    def _pictures(self, track: Rows, frame: Array) -> Iterator[str]:
        """The name of the picture of each track's frame."""
        last, name_of = -1, None
        for video, index in zip(self.split.tracks.video[track].tolist(), frame.tolist(), strict=True):
            if video != last:
                last, name_of = video, names_of(self.split.videos[video].source)
            if name_of is None:
                raise PipelineError(f"{self.split.name}: the pictures of {self.split.videos[video].name} have no names")
            yield name_of(index)


def _write(file: Path, layout: Layout, arrays: Mapping[str, Blocks]) -> str:
    """Write all arrays to `file` and return its sha256."""
    if layout.container == "hdf5":
        with h5py.File(file, "w") as stored:
            for name, array in arrays.items():
                dataset, row = stored.create_dataset(name, array.shape, array.dtype), 0
                for block in array.blocks():
                    dataset[row : row + len(block)] = block
                    row += len(block)
        with file.open("rb") as complete:
            os.fsync(complete.fileno())
        return whole_file_digest(file)
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for part in joblib_parts(arrays):
            stream.write(part)
            digest.update(part)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _provenance(
    split: cache.Split, layout: Layout, segments: Segments, arrays: Mapping[str, Blocks], stream: str
) -> dict[str, Any]:
    scales = np.unique(split.tracks.crop_scale[segments.track]).tolist()
    skeletons = {"joints2D": layout.joints_2d, "joints3D": layout.joints_3d}
    source = None
    if "features" in arrays:
        manifest = split.stream_manifest(stream)
        recorded = {key: manifest.get(key) for key in ("identity", "backbone", "stand_in")}
        source = {"name": stream, "digest": manifest["digest"], **recorded}
    return {
        "format": "vibe",
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": split.name,
        "split_digest": split.manifest["digest"],
        "stream": source,
        "rows": segments.rows,
        "names": len(segments.start),
        "fields": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        "left_out": dict(segments.left_out),
        "crop_scale": scales[0] if len(scales) == 1 else None,
        "joints": {field: list(joint_names(skeletons[field])) for field in skeletons if field in arrays},
    }
