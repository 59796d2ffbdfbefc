"""Which rows of a split go into a file of other programs, as which arrays.  tracks, features -> [files]

Existing code cuts windows out of all rows of one name, without looking at frame numbers: a window across a gap would
take frames for neighbours that are not. So rows are cut into segments whose frames follow one another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current
from pipeline.files.formats.arrays import Shape
from vibe_extensions.exchange.vibe_db.joblib_files import Blocks

Rows = NDArray[np.int64]
Has = Callable[[int, int], NDArray[np.bool_]]  # which of the rows [start, stop) have something

BATCH: Final = 8192  # rows: of features 64 MB
FEATURES: Final = "no features"
JOINTS_3D: Final = "no 3D joints"
SMPL: Final = "no SMPL parameters"
COMMON: Final = slice(25, 39)  # the 14 joints of the 49 that existing code takes for known in every row


class FileField(NamedTuple):
    """One array, or entry, of a file."""

    dtype: str  # as it is written; "U": texts
    columns: tuple[str, ...] = ()  # of the cache, without which it cannot be written
    rows_with: tuple[str, ...] = ()  # checks: rows that pass these alone are written
    shapes: tuple[Shape, ...] = ()  # of a row, any of them
    body: str = ""  # what of SMPL's files it needs


def require_stream(split: cache.Split, stream: str) -> None:
    """Raise PipelineError for a stream that the split does not have, or that does not have all of its rows."""
    if stream not in split.streams:
        streams = ", ".join(split.streams) or "none"
        raise PipelineError(f"{split.name}: has no stream {stream!r}; there are: {streams}. Extract it first.")
    if not is_current(split, stream):
        raise PipelineError(f"{split.name}: the stream {stream!r} lags behind the tracks. Extract it first.")


def recorded_stream(split: cache.Split, stream: str) -> dict[str, Any]:
    """What a provenance has of a stream."""
    manifest = split.stream_manifest(stream)
    recorded = {key: manifest.get(key) for key in ("identity", "backbone", "stand_in")}
    return {"name": stream, "digest": manifest["digest"], **recorded}


def origin_of(split: cache.Split, *streams: str) -> dict[str, Any]:
    """What a provenance has of a split; `stand_in`: it is demo data (`demo`), or a stream of `streams` is untrained."""
    manifests = [split.manifest, *map(split.stream_manifest, streams)]
    stand_in = any(manifest.get("stand_in") for manifest in manifests)
    demo = bool(split.manifest.get("stand_in"))
    return {"split": split.name, "split_digest": split.manifest["digest"], "demo": demo, "stand_in": stand_in}


def array_of(
    compute: Callable[[int, int], Any],
    pieces: Sequence[tuple[int, int]],
    n_rows: int,
    dtype: str | None,
    add: Callable[[int], None],
) -> Blocks:
    """The array (n_rows, ...) whose rows `compute` makes of each piece [start, stop), when it is written.

    dtype: None: that of what `compute` gives. add: called with the number of rows after each piece.
    """
    sample = np.asarray(compute(pieces[0][0], pieces[0][0] + 1))
    kind = np.dtype(dtype or sample.dtype)

    def blocks() -> Iterator[NDArray[Any]]:
        for start, stop in pieces:
            block = np.asarray(compute(start, stop)).astype(kind, copy=False)
            yield block
            add(len(block))

    return Blocks((n_rows, *sample.shape[1:]), kind, blocks)


def counting(progress: Progress, total: int) -> Callable[[str, int], None]:
    """(field, rows that are written of it now): `progress` of all fields together."""
    done = 0

    def add(field: str, rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total, field)

    return add


def absent_fields(split: cache.Split, fields: Mapping[str, FileField], checks: Mapping[str, Has]) -> dict[str, str]:
    """Which of the fields cannot be written -> why: a column is missing, or no row passes one of `checks`."""

    @functools.cache
    def in_no_row(need: str) -> bool:
        ranges = [*spans(split.tracks.start, split.tracks.stop)]
        return bool(ranges) and not any(checks[need](start, stop).any() for start, stop in ranges)

    absent = {}
    for name, field in fields.items():
        if missing := [column for column in field.columns if column not in split.columns]:
            absent[name] = f"the split has no {' and no '.join(missing)}"
        elif need := next((need for need in field.rows_with if need in checks and in_no_row(need)), ""):
            absent[name] = f"in no row ({need})"
    return absent


def checks_of(split: cache.Split, column_3d: str, stream: str) -> dict[str, Has]:
    """For every kind of label: which rows have it. Existing code takes all labels for known.

    column_3d: the column of 3D joints, kp_3d or kp_3d_eval.
    """

    def flag(name: str, start: int, stop: int) -> NDArray[np.bool_]:
        return np.asarray(split.rows(name, start, stop) == 1) if name in split.columns else np.ones(stop - start, bool)

    def joints_3d(start: int, stop: int) -> NDArray[np.bool_]:
        """Rows in which all joints are known that existing code takes for known."""
        joints = split.rows(column_3d, start, stop)
        has = flag("has_3d", start, stop) & np.isfinite(joints).all(axis=(1, 2))
        if column_3d == "kp_3d":
            has &= (joints[:, COMMON, 3] > 0).all(axis=1)
        return has

    def smpl(start: int, stop: int) -> NDArray[np.bool_]:
        finite = [np.isfinite(split.rows(name, start, stop)).all(axis=1) for name in ("pose", "betas")]
        return np.asarray(flag("has_smpl", start, stop) & finite[0] & finite[1])

    def features(start: int, stop: int) -> NDArray[np.bool_]:
        decoded: NDArray[np.bool_] = np.asarray(split.column(f"features/{stream}_ok")[start:stop]) == 1
        return decoded

    return {FEATURES: features, JOINTS_3D: joints_3d, SMPL: smpl}


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

    def numbers(self, start: int, stop: int) -> Rows:
        """Which segment each of their rows [start, stop) is in."""
        return np.searchsorted(self.start, np.arange(start, stop), side="right") - 1

    def require_rows(self, split: cache.Split) -> None:
        """Raise PipelineError, with what the rows lack, where there are none."""
        if not self.rows:
            why = ", ".join(f"{n:,} rows have {need}" for need, n in self.left_out.items()) or "it has no tracks"
            raise PipelineError(f"{split.name}: nothing to export: {why}")

    def names(self, split: cache.Split, of: Sequence[str]) -> list[str]:
        """A name for each, made of its track's in `of`, with `_seg0`, `_seg1`, ... where the track has several.

        Raises PipelineError where two have one name.
        """
        several = np.bincount(self.track, minlength=len(of)) > 1
        within = np.arange(len(self.track)) - np.searchsorted(self.track, self.track)
        pairs = zip(self.track.tolist(), within.tolist(), strict=True)
        names = [f"{of[t]}_seg{k}" if several[t] else of[t] for t, k in pairs]
        if len(set(names)) < len(names):
            raise PipelineError(f"{split.name}: two tracks would have one name: rename the videos, convert again")
        return names


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
