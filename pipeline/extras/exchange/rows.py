"""Rows of a split to export, and their arrays.  tracks, features -> [files]

Existing code cuts windows from all rows with one name and ignores frame numbers. Rows are therefore
exported in segments of consecutive frames. An export takes these steps:

    SplitRows.absent_fields    fields that cannot be written
    SplitRows.select_segments  the rows that pass the checks of the other fields
    array_of                   an array for each field, which is computed when it is written
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache.read.labels import COMMON_JOINTS
from cache.windows import join_adjacent
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.extras.exchange.pickled_arrays import Blocks
from pipeline.features.committed import MissingRows, weights_of
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.people.estimates import recorded_estimates
from pipeline.people.skeletons import Array, Bools, Doubles, Ints
from pipeline.steps.conversion_record import ConversionRecord

BATCH: Final = 8192  # rows; 64 MB of features
FPS: Final = 30.0  # of WHAM's and GVHMR's files
RATE_NOISE: Final = 0.1  # treats 29.97 as 30


class SplitRows:
    """Reads ranges of n rows of a split, and what their tracks and videos have for each row.

    Chooses the fields and rows that can be exported.
    """

    def __init__(self, split: cache.Split, stream: str | None = None) -> None:
        """stream: of the features to export; None to export none."""
        self.split = split
        self.stream = stream
        self.dataset = split.name.partition("/")[0]

    def column(self, name: str, rows: range) -> Array:
        """A column of the cache, (n, ...)."""
        return self.split.rows(name, rows.start, rows.stop)

    def features(self, rows: range) -> Array:
        """Features (n, dim)."""
        return self.column(f"features/{self.stream}", rows)

    def resolutions(self, rows: range) -> Array:
        """Width and height px of the images, (n, 2)."""
        return self.column("image_size", rows)

    def intrinsics(self, rows: range) -> Doubles:
        """Intrinsics (n, 3, 3) px of the row (if the camera zooms), else of the track."""
        stored = self.split.tracks.tables["track_intrinsics"]  # NaN if unknown
        track_cameras: Doubles = stored[self.tracks(rows)]
        if "intrinsics" not in self.split.columns:
            return track_cameras
        row_cameras = self.column("intrinsics", rows)
        return np.where(np.isfinite(row_cameras), row_cameras, track_cameras)

    def rates(self, rows: range) -> Doubles:
        """Rows per second, (n,)."""
        tracks = self.tracks(rows)
        return np.asarray(self.split.tracks.fps[tracks] / self.split.tracks.step[tracks])

    def genders(self, rows: range) -> NDArray[np.str_]:
        """(n,) male, female or neutral."""
        names: NDArray[np.str_] = np.array(cache.GENDERS)
        return names[self.column("gender", rows)]

    def tracks(self, rows: range) -> Ints:
        """The number of each row's track, (n,)."""
        return self.split.track_of(np.asarray(rows))

    def image_names(self, track: Ints, frame: Array) -> Iterator[str]:
        """Yield the name of the image of each row, from its track (n,) and frame (n,).

        The videos must have names of frames (NAMED).
        """

        @functools.lru_cache(1)  # neighbouring rows are of one video
        def name_of(video: int) -> Callable[[int], str]:
            return names_of(self.split.videos[video].source)

        videos = self.split.tracks.video[track].tolist()
        for video, index in zip(videos, frame.tolist(), strict=True):
            yield name_of(video)(index)

    def absent_fields(self, fields: Mapping[str, ExportField]) -> dict[str, str]:
        """Field that cannot be written -> why: a column is missing, or no row passes a check of
        it.
        """
        split = self.split
        ranges = [*spans(split.tracks.start, split.tracks.stop)]

        @functools.cache  # fields share checks
        def some_row_passes(check: RowCheck) -> bool:
            return any(check.passes(self, rows).any() for rows in ranges)

        absent = {}
        for name, field in fields.items():
            needed = dict.fromkeys(field.columns)
            for check in field.checks:
                needed |= dict.fromkeys(check.columns)
            missing = [column for column in needed if column not in split.columns]
            if missing:
                absent[name] = f"the split has no {' and no '.join(missing)}"
                continue
            for check in field.checks:
                if ranges and not some_row_passes(check):
                    absent[name] = f"every row has {check.missing}"
                    break
        return absent

    def select_segments(self, checks: Iterable[RowCheck]) -> Segments:
        """The rows of committed tracks that pass all checks, in segments of consecutive frames."""
        row, frame, left_out = self._select(checks)
        track = self.split.track_of(row)
        step = self.split.tracks.step.astype(np.int64)[track]
        is_next_row = np.diff(row) == 1
        is_same_track = np.diff(track) == 0
        is_next_frame = np.diff(frame) == step[1:]
        is_break = ~(is_next_row & is_same_track & is_next_frame)
        first = np.append(0, np.flatnonzero(is_break) + 1)[: len(row)]
        last = np.append(first, len(row))[1:] - 1
        return Segments(row[first], row[last] + 1, track[first], frame[last], left_out)

    def _select(self, checks: Iterable[RowCheck]) -> tuple[Ints, Ints, dict[str, int]]:
        """The rows (n,) that pass all checks, their frames (n,), and the number of the other rows
        by the first check that they fail.
        """
        checks = [*checks]
        n_failed = Counter[str]()
        chosen = [np.zeros(0, np.int64)]
        frames = [np.zeros(0, np.int64)]
        for rows in spans(self.split.tracks.start, self.split.tracks.stop):
            passes = np.ones(len(rows), bool)
            for check in checks:
                fails = passes & ~check.passes(self, rows)
                n_failed[check.missing] += int(fails.sum())
                passes &= ~fails
            chosen.append(rows.start + np.flatnonzero(passes))
            frames.append(self.column("frame_index", rows)[passes])
        return np.concatenate(chosen), np.concatenate(frames), dict(+n_failed)


@dataclass(frozen=True, slots=True)
class RowCheck:
    """What exported rows must have."""

    missing: str  # in rows that fail, for messages: "every row has no 3D joints"
    columns: tuple[str, ...] = ()  # that must be finite
    flag: str | None = None  # column that must be 1, if the split has it
    test: Callable[[Any, range], Bools] | None = None  # of `SplitRows` and rows

    def passes(self, split: SplitRows, rows: range) -> Bools:
        """(n,) whether each row passes."""
        mask = np.ones(len(rows), bool)
        if self.flag is not None and self.flag in split.split.columns:
            mask &= split.column(self.flag, rows) == 1
        for name in self.columns:
            mask &= _are_finite(split.column(name, rows))
        if self.test is not None:
            mask &= self.test(split, rows)
        return mask


def _are_finite(values: Array) -> Bools:
    """Whether the numbers of each row of (n, ...) are finite, (n,)."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


NO_FEATURES: Final = RowCheck(
    "no features",
    test=lambda split, rows: (
        split.split.column(f"features/{split.stream}_ok")[rows.start : rows.stop] == 1
    ),
)
NO_JOINTS_3D: Final = RowCheck(
    "no 3D joints",
    ("kp_3d",),
    "has_3d",
    lambda split, rows: (split.column("kp_3d", rows)[:, COMMON_JOINTS, 3] > 0).all(axis=1),
)
NO_JOINTS_3D_EVAL: Final = RowCheck("no 3D joints", ("kp_3d_eval",), "has_3d")
NO_SMPL: Final = RowCheck("no SMPL parameters", ("pose", "betas"), "has_smpl")
NO_TRANS: Final = RowCheck("no trans", ("trans",))
NO_SMPLX: Final = RowCheck("no smplx_pose", ("smplx_pose",))
NO_EXTRINSICS: Final = RowCheck("no extrinsics", ("extrinsics",))
NO_INTRINSICS: Final = RowCheck(
    "no intrinsics", test=lambda split, rows: _are_finite(split.intrinsics(rows))
)
NO_SIZE: Final = RowCheck(
    "no image size", test=lambda split, rows: (split.resolutions(rows) > 0).all(axis=1)
)
NO_RATE: Final = RowCheck(
    "no rate of 30 frames per second",
    test=lambda split, rows: np.abs(split.rates(rows) - FPS) < RATE_NOISE,
)


@dataclass(frozen=True, kw_only=True)
class ExportField:
    """One array or entry of a file."""

    checks: tuple[RowCheck, ...] = ()  # that exported rows must pass
    columns: tuple[str, ...] = ()  # required columns of the cache, besides those of the checks


NAMED: Final = ("pictures", "video")  # kinds of source whose frames have names


def names_of(source: str) -> Callable[[int], str]:
    """Function from a frame of a pixel source, of a kind in NAMED, to the name of its image.

    >>> names_of("pictures:frames/0001/{:06d}.jpg+1")(0), names_of("video:train/x.mp4")(12)
    ('frames/0001/000001.jpg', 'train/x.mp4#000012')
    """
    parsed = sources.parse(Path(), source)
    if isinstance(parsed, Pictures):
        return lambda frame: parsed.pattern.format(frame + parsed.first)
    assert isinstance(parsed, Video)
    return lambda frame: f"{parsed.path}#{frame:06d}"


def require_stream(split: cache.Split, stream: str) -> None:
    """Raise PipelineError for a stream that is missing or out of date. Rows of lost videos may be
    missing.
    """
    if stream not in split.streams:
        streams = ", ".join(split.streams) or "none"
        raise PipelineError(
            f"{split.name}: stream {stream!r} is missing (existing streams: {streams}). Extract it."
        )
    if MissingRows.find(split, stream).shards:
        raise PipelineError(
            f"{split.name}: stream {stream!r} is older than the tracks. Extract it again."
        )


def recorded_stream(split: cache.Split, stream: str) -> dict[str, Any]:
    """The provenance entry of a stream."""
    manifest = split.open_stream(stream).manifest
    recorded = {key: manifest.get(key) for key in ("identity", "backbone", "stand_in")}
    return {"name": stream, "digest": manifest["digest"], **recorded}


def origin_of(split: cache.Split, *streams: str) -> dict[str, Any]:
    """The provenance entry of a split and of the weights behind its exported streams.

    `stand_in`: it is demo data (`demo`), or a stream has random weights. `estimates`: of a split
    with estimated bodies.
    """
    manifests = [split.manifest]
    manifests += [split.open_stream(name).manifest for name in streams]
    origin = {
        "split": split.name,
        "split_digest": split.manifest["digest"],
        "demo": ConversionRecord(split).is_stand_in,
        "stand_in": any(manifest.get("stand_in") for manifest in manifests),
        "weights": {stream: weights_of(split, stream) for stream in streams},
    }
    estimates = recorded_estimates(split)
    if estimates:
        origin["estimates"] = estimates
    return origin


def array_of(
    compute: Callable[[range], Any],
    pieces: Sequence[range],
    n_rows: int,
    dtype: str | None,
    report_written: Callable[[int], None],
) -> Blocks:
    """Make an array (n_rows, ...) that is computed piece by piece when its file is written.

    Args:
        compute: Returns the array of a range of rows. It is called once at first, for the shape of
            a row, and then for each piece.
        pieces: Ranges of rows.
        dtype: None: the dtype of the computed rows.
        report_written: Called with the number of rows of each piece that has been written.
    """
    sample = np.asarray(compute(pieces[0][:1]))
    kind = np.dtype(dtype or sample.dtype)

    def blocks() -> Iterator[Array]:
        for piece in pieces:
            block = np.asarray(compute(piece)).astype(kind, copy=False)
            yield block
            report_written(len(block))

    return Blocks((n_rows, *sample.shape[1:]), kind, blocks)


def counting(progress: Progress, total: int) -> Callable[[str, int], None]:
    """Return a function `add(field, rows)`, to be called when rows of a field have been written. It
    reports the rows of all fields so far, of `total`.
    """
    n_written = 0

    def add(field: str, rows: int) -> None:
        nonlocal n_written
        n_written += rows
        progress(n_written, total, field)

    return add


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Ascending runs of rows [start, stop) of `track`, whose frames are one step apart."""

    start: Ints
    stop: Ints
    track: Ints  # number of the track in the split
    last_frame: Ints  # index of the last frame
    left_out: Mapping[str, int]  # reason -> number of rows not exported

    @property
    def n_rows(self) -> int:
        return int((self.stop - self.start).sum())

    def rows(self, number: int) -> range:
        """The rows of a segment."""
        return range(int(self.start[number]), int(self.stop[number]))

    def numbers(self, rows: range) -> Ints:
        """The segment of each row."""
        return np.searchsorted(self.start, np.asarray(rows), side="right") - 1

    def only(self, chosen: Bools, reason: str) -> Segments:
        """The chosen segments, of (n,) flags; the rows of the others are left out for `reason`."""
        left_out = dict(self.left_out)
        n = int((self.stop - self.start)[~chosen].sum())
        if n:
            left_out[reason] = left_out.get(reason, 0) + n
        return Segments(
            self.start[chosen],
            self.stop[chosen],
            self.track[chosen],
            self.last_frame[chosen],
            left_out,
        )

    def require_rows(self, split: cache.Split) -> None:
        """Raise PipelineError, with the failed checks, if no rows are left."""
        if not self.n_rows:
            reasons = [f"{n:,} rows have {reason}" for reason, n in self.left_out.items()]
            why = ", ".join(reasons) or "it has no tracks"
            raise PipelineError(f"{split.name}: nothing to export: {why}")

    def names(self, split: cache.Split, track_names: Sequence[str]) -> list[str]:
        """Segment names: the track's name, with `_seg0`, `_seg1`, ... if the track has several
        segments.

        Raises PipelineError for a duplicate.
        """
        tracks = self.track.tolist()
        n_segments = Counter(tracks)
        n_named = Counter[int]()  # segments so far, by track
        names = []
        for track in tracks:
            name = track_names[track]
            if n_segments[track] > 1:
                name += f"_seg{n_named[track]}"
                n_named[track] += 1
            names.append(name)
        if len(set(names)) < len(names):
            raise PipelineError(
                f"{split.name}: two tracks have the same name. Rename the videos, and convert "
                "again."
            )
        return names


def spans(start: Ints, stop: Ints) -> Iterator[range]:
    """Merge ascending ranges of rows into as few ranges of at most BATCH rows as possible.

    >>> list(spans(np.array([0, 5, 9]), np.array([5, 7, 10])))
    [range(0, 7), range(9, 10)]
    """
    for begin, end in join_adjacent(np.stack([start, stop], axis=1)).tolist():
        for row in range(begin, end, BATCH):
            yield range(row, min(row + BATCH, end))
