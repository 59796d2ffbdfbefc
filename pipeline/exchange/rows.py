"""Rows of a split to export, and their arrays.  tracks, features -> [files]

Existing code cuts windows from all rows with one name and ignores frame numbers. Rows are therefore
exported in segments of consecutive frames. An export takes these steps:

    checks_of      checks that rows must pass to have a value in each field
    absent_fields  fields that cannot be written
    segments_of    the rows that pass the checks of the other fields
    array_of       an array for each field, which is computed when it is written

The name of a check is what a row that fails it has, for messages: "every row has no 3D joints".
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.estimates import recorded_estimates
from pipeline.exchange.vibe_db.joblib_files import Blocks
from pipeline.features.plan import missing_rows, weights_of
from pipeline.files.formats.arrays import Shape
from pipeline.skeletons import Array, Bools, Ints

Check = Callable[[int, int], Bools]  # start, stop -> (stop - start,) whether each row passes
Checks = Mapping[str, Check]  # name, such as NO_SMPL -> check

BATCH: Final = 8192  # rows; 64 MB of features
# names of the checks of `checks_of`
NO_FEATURES: Final = "no features"
NO_JOINTS_3D: Final = "no 3D joints"
NO_SMPL: Final = "no SMPL parameters"
COMMON: Final = slice(25, 39)  # the 14 of 49 joints that existing code expects in every row


class FileField(NamedTuple):
    """One array or entry of a file."""

    columns: tuple[str, ...] = ()  # required columns of the cache
    checks: tuple[str, ...] = ()  # names of the checks that exported rows must pass
    shapes: tuple[Shape, ...] = ()  # allowed shapes of a row
    body: str = ""  # which of SMPL's files it needs
    dtype: str = "<f4"  # as written; "U": texts


def require_stream(split: cache.Split, stream: str) -> None:
    """Raise PipelineError for a stream that is missing or out of date. Rows of lost videos may be
    missing.
    """
    if stream not in split.streams:
        streams = ", ".join(split.streams) or "none"
        raise PipelineError(
            f"{split.name}: stream {stream!r} is missing (existing streams: {streams}). Extract it."
        )
    if missing_rows(split, stream).shards:
        raise PipelineError(
            f"{split.name}: stream {stream!r} is older than the tracks. Extract it again."
        )


def recorded_stream(split: cache.Split, stream: str) -> dict[str, Any]:
    """The provenance entry of a stream."""
    manifest = split.stream_manifest(stream)
    recorded = {key: manifest.get(key) for key in ("identity", "backbone", "stand_in")}
    return {"name": stream, "digest": manifest["digest"], **recorded}


def origin_of(split: cache.Split, *streams: str) -> dict[str, Any]:
    """The provenance entry of a split and of the weights behind its exported streams.

    `stand_in`: it is demo data (`demo`), or a stream has random weights. `estimates`: of a split
    with estimated bodies.
    """
    manifests = [split.manifest, *map(split.stream_manifest, streams)]
    origin = {
        "split": split.name,
        "split_digest": split.manifest["digest"],
        "demo": bool(split.manifest.get("stand_in")),
        "stand_in": any(manifest.get("stand_in") for manifest in manifests),
        "weights": {stream: weights_of(split, stream) for stream in streams},
    }
    estimates = recorded_estimates(split)
    if estimates:
        origin["estimates"] = estimates
    return origin


def array_of(
    compute: Callable[[int, int], Any],
    pieces: Sequence[tuple[int, int]],
    n_rows: int,
    dtype: str | None,
    report_written: Callable[[int], None],
) -> Blocks:
    """Make an array (n_rows, ...) that is computed piece by piece when its file is written.

    Args:
        compute: Returns the array of the rows [start, stop). It is called once at first, for the
            shape of a row, and then for each piece.
        pieces: [start, stop) of each piece.
        dtype: None: the dtype of the computed rows.
        report_written: Called with the number of rows of each piece that has been written.
    """
    first = pieces[0][0]
    sample = np.asarray(compute(first, first + 1))
    kind = np.dtype(dtype or sample.dtype)

    def blocks() -> Iterator[Array]:
        for start, stop in pieces:
            block = np.asarray(compute(start, stop)).astype(kind, copy=False)
            yield block
            report_written(len(block))

    return Blocks((n_rows, *sample.shape[1:]), kind, blocks)


def counting(progress: Progress, total: int) -> Callable[[str, int], None]:
    """Return a function `add(field, rows)`, to be called when rows of a field have been written. It
    reports the rows of all fields so far, of `total`.
    """
    done = 0

    def add(field: str, rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total, field)

    return add


def absent_fields(
    split: cache.Split, fields: Mapping[str, FileField], checks: Checks
) -> dict[str, str]:
    """Field that cannot be written -> why: a column is missing, or no row passes a check of it.

    A check that is not in `checks` makes no field absent.
    """
    ranges = [*spans(split.tracks.start, split.tracks.stop)]

    @functools.cache  # fields share checks
    def some_row_passes(check: str) -> bool:
        return any(checks[check](start, stop).any() for start, stop in ranges)

    absent = {}
    for name, field in fields.items():
        missing = [column for column in field.columns if column not in split.columns]
        if missing:
            absent[name] = f"the split has no {' and no '.join(missing)}"
            continue
        for check in field.checks:
            if ranges and check in checks and not some_row_passes(check):
                absent[name] = f"every row has {check}"
                break
    return absent


def checks_of(split: cache.Split, column_3d: str, stream: str) -> dict[str, Check]:
    """Checks whether rows have features, 3D joints (`column_3d`: kp_3d or kp_3d_eval) and SMPL
    parameters, which existing code expects in every row.
    """

    def are_valid(flag: str, columns: Sequence[str], start: int, stop: int) -> Bools:
        """Whether the flag, if there is one, is set, and the columns are finite."""
        mask = np.ones(stop - start, bool)
        if flag in split.columns:
            mask = np.asarray(split.rows(flag, start, stop) == 1)
        for name in columns:
            is_finite = np.isfinite(split.rows(name, start, stop))
            mask &= is_finite.all(axis=tuple(range(1, is_finite.ndim)))
        return mask

    def joints_3d(start: int, stop: int) -> Bools:
        mask = are_valid("has_3d", [column_3d], start, stop)
        if column_3d == "kp_3d":
            mask &= (split.rows(column_3d, start, stop)[:, COMMON, 3] > 0).all(axis=1)
        return mask

    def smpl(start: int, stop: int) -> Bools:
        return are_valid("has_smpl", ["pose", "betas"], start, stop)

    def features(start: int, stop: int) -> Bools:
        return np.asarray(split.column(f"features/{stream}_ok")[start:stop] == 1)

    return {NO_FEATURES: features, NO_JOINTS_3D: joints_3d, NO_SMPL: smpl}


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

    def numbers(self, start: int, stop: int) -> Ints:
        """The segment of each of the rows [start, stop)."""
        return np.searchsorted(self.start, np.arange(start, stop), side="right") - 1

    def read_column(self, split: cache.Split, column: str, number: int) -> Array:
        """A segment's rows of a column."""
        return split.rows(column, int(self.start[number]), int(self.stop[number]))

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


def _find_runs(n: int, is_break: Bools) -> tuple[Ints, Ints]:
    """Number of the first and of the last item of each run of n items.

    is_break: (n - 1,) whether a run ends between an item and the next one; (0,) for n = 0.

    >>> [numbers.tolist() for numbers in _find_runs(4, np.array([False, True, False]))]
    [[0, 2], [1, 3]]
    """
    first = np.append(0, np.flatnonzero(is_break) + 1)[:n]
    last = np.append(first, n)[1:] - 1
    return first, last


def spans(start: Ints, stop: Ints) -> Iterator[tuple[int, int]]:
    """Merge ascending ranges of rows into as few ranges of at most BATCH rows as possible.

    >>> list(spans(np.array([0, 5, 9]), np.array([5, 7, 10])))
    [(0, 7), (9, 10)]
    """
    first, last = _find_runs(len(start), start[1:] != stop[:-1])
    for begin, end in zip(start[first].tolist(), stop[last].tolist(), strict=True):
        for row in range(begin, end, BATCH):
            yield row, min(row + BATCH, end)


def segments_of(split: cache.Split, checks: Checks) -> Segments:
    """The rows of committed tracks that pass all checks, in segments of consecutive frames."""
    row, frame, left_out = _select_rows(split, checks)
    track = split.track_of(row)
    step = split.tracks.step.astype(np.int64)[track]
    is_next_row = np.diff(row) == 1
    is_same_track = np.diff(track) == 0
    is_next_frame = np.diff(frame) == step[1:]
    first, last = _find_runs(len(row), ~(is_next_row & is_same_track & is_next_frame))
    return Segments(row[first], row[last] + 1, track[first], frame[last], left_out)


def _select_rows(split: cache.Split, checks: Checks) -> tuple[Ints, Ints, dict[str, int]]:
    """The rows (n,) that pass all checks, their frames (n,), and the number of the other rows by
    the first check that they fail.
    """
    n_failed = Counter[str]()
    rows = [np.zeros(0, np.int64)]
    frames = [np.zeros(0, np.int64)]
    for start, stop in spans(split.tracks.start, split.tracks.stop):
        passes = np.ones(stop - start, bool)
        for name, check in checks.items():
            fails = passes & ~check(start, stop)
            n_failed[name] += int(fails.sum())
            passes &= ~fails
        rows.append(start + np.flatnonzero(passes))
        frames.append(split.rows("frame_index", start, stop)[passes])
    return np.concatenate(rows), np.concatenate(frames), dict(+n_failed)
