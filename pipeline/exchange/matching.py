"""Rows of a split in a file of arrays, by track and frame or by position.  [files] -> features"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.errors import RawDataError
from pipeline.exchange.array_files import AGAIN, ArrayFile
from pipeline.exchange.rows import spans
from pipeline.exchange.vibe_db.joblib_files import text_of

Rows = NDArray[np.int64]

TRACKS: Final = ("track_name", "track", "vid_name")  # arrays of track names
FRAMES: Final = ("frame_index", "frame", "frame_id")
USUAL: Final = "features"  # array that is taken of several
FRAME_BITS: Final = 40  # of a key; the rest is the track's number
NO_TRACK: Final = -2  # key of a row whose track name the split does not have
NO_ROWS: Final = np.zeros(0, np.int64)
BY_NAMES: Final = "add arrays of track names and frames to the file (docs/features.md)."


class Match(NamedTuple):
    """An array of a file, and its rows for a split."""

    arrays: ArrayFile
    array: str
    rows: Rows  # (n,) of the split, ascending
    position: Rows  # (n,) row of the file; -1: none
    left_out: int  # rows of the file whose tracks the split does not have
    digest: str  # of the split's tracks and frames if the file counts rows or tracks; else ""


def choose_array(arrays: ArrayFile, name: str) -> str:
    """The array to import. Raises RawDataError if its name is unknown or missing."""
    others = [other for other in arrays.names if other not in (*TRACKS, *FRAMES)]
    chosen = name
    expected = f"an array {name!r}"
    if not name:
        expected = f"one array, or {USUAL!r}"
        chosen = others[0] if len(others) == 1 else USUAL
    if chosen not in arrays.names:
        found = ", ".join(others[:20]) or "none"
        raise RawDataError(arrays.file, "file", expected, found, "Name one of them: --array NAME.")
    dtype = arrays.open(chosen).dtype
    if dtype.kind not in "biuf":
        do = "Name another: --array NAME."
        raise RawDataError(arrays.file, chosen, "numbers", str(dtype), do)
    return chosen


def find_keys(arrays: ArrayFile, match: str) -> tuple[str, str] | None:
    """The arrays of track names and frames, if the file has both. Raises RawDataError if one is
    missing.
    """
    tracks = [name for name in TRACKS if name in arrays.names]
    frames = [name for name in FRAMES if name in arrays.names]
    if tracks and frames:
        return tracks[0], frames[0]
    one = [*tracks, *frames][:1]
    if match == "tracks" or (one and match != "rows"):
        expected = f"track names ({', '.join(TRACKS)}) and frames ({', '.join(FRAMES)})"
        do = "Add the other array, or match by position: --match rows."
        raise RawDataError(arrays.file, "file", expected, "".join(one) or "neither", do)
    return None


def match_rows(
    split: cache.Split, arrays: ArrayFile, array: str, keys: tuple[str, str] | None, how: str
) -> Match:
    """Match the split's rows and the file's.

    how: "rows": the file must have the split's rows in their order; "tracks": leave out rows of
    unknown tracks.
    """
    ranges = [*spans(split.tracks.start, split.tracks.stop)]
    rows = np.concatenate([NO_ROWS, *(np.arange(start, stop) for start, stop in ranges)])
    n_rows = arrays.open(array).shape[0]
    by_position = keys is None or how == "rows"
    if by_position and n_rows != len(rows):
        expected = f"{len(rows):,} rows as {split.name}"
        do = f"Name the file of this split, or {BY_NAMES}"
        raise RawDataError(arrays.file, "file", expected, f"{n_rows:,}", do)

    frames = [split.rows("frame_index", start, stop) for start, stop in ranges]
    key_of_row = (split.track_of(rows) << FRAME_BITS) + np.concatenate([NO_ROWS, *frames])
    digest_of_rows = hashlib.sha256(key_of_row.tobytes()).hexdigest()
    digest = cache.fingerprint({"tracks": split.tracks.names, "rows": digest_of_rows})
    if keys is None:
        return Match(arrays, array, rows, np.arange(len(rows)), 0, digest)

    key = _read_keys(arrays, keys, split.tracks.names, n_rows)
    row = np.searchsorted(key_of_row, key)  # tracks ascend by row, frames within a track
    in_file = np.arange(n_rows)
    first = np.unique(key, return_index=True)[1]
    is_foreign = np.append(key_of_row, -3)[row] != key
    is_left_out = (key == NO_TRACK) & (how == "tracks")
    is_repeated = ~is_foreign & np.isin(in_file, first, invert=True)
    is_moved = by_position & (row != in_file)
    is_wrong = (is_foreign & ~is_left_out) | is_repeated | is_moved
    if is_wrong.any():
        i = int(is_wrong.argmax())
        do = "Name the file of this split."
        expected = f"a row of {split.name}" if is_foreign[i] else "every row once"
        if key[i] == NO_TRACK and not by_position:
            do = "Name the file of this split, or leave out rows of other tracks: --match tracks."
        elif not (is_foreign[i] or is_repeated[i]):
            expected = f"the order of {split.name}"
            do = "Match by keys: --match tracks."
        track, frame = (_read_value(arrays, name, i) for name in keys)
        found = f"track {track}, frame {frame} in row {i}"
        raise RawDataError(arrays.file, keys[0], expected, found, do)

    position = np.full(len(rows), -1, np.int64)
    position[row[~is_foreign]] = np.flatnonzero(~is_foreign)
    if arrays.open(keys[0]).dtype.kind not in "iu":
        digest = ""
    return Match(arrays, array, rows, position, int(is_left_out.sum()), digest)


def _read_value(arrays: ArrayFile, name: str, row: int) -> Any:
    values = itertools.chain.from_iterable(arrays.blocks(name))
    return next(itertools.islice(values, row, None))


def _read_keys(arrays: ArrayFile, keys: tuple[str, str], names: list[str], n_rows: int) -> Rows:
    """Keys (n_rows,) of track and frame, which ascend with the split's rows; else NO_TRACK, or -1.

    A track is its name, or its number in the split.
    """
    number_of = {name: number for number, name in enumerate(names)}
    tracks = _read_numbers(arrays, keys[0], "track names", number_of, len(names), n_rows)
    frames = _read_numbers(arrays, keys[1], "frames", None, 1 << FRAME_BITS, n_rows)
    lowest: Rows = np.minimum(tracks, frames)
    return np.where(lowest < 0, lowest, (tracks << FRAME_BITS) + frames)


def _read_numbers(
    arrays: ArrayFile,
    name: str,
    content: str,
    number_of: dict[str, int] | None,
    n_numbers: int,
    n_rows: int,
) -> Rows:
    """Numbers below `n_numbers`, or of texts by `number_of`; NO_TRACK for other texts, -1 for other
    numbers.
    """
    kinds = "iu" if number_of is None else "USiu"
    array = arrays.open(name)
    if array.shape != (n_rows,) or array.dtype.kind not in kinds:
        expected = f"{n_rows:,} {content}, one per row"
        raise RawDataError(arrays.file, name, expected, f"{array.dtype} {array.shape}", AGAIN)

    parts = []
    for block in arrays.blocks(name):
        if number_of is not None and block.dtype.kind in "US":
            texts, inverse = np.unique(block, return_inverse=True)
            numbers = [number_of.get(text_of(text), NO_TRACK) for text in texts.tolist()]
            parts.append(np.array(numbers)[inverse])
        else:
            is_valid = (block >= 0) & (block < n_numbers)
            parts.append(np.where(is_valid, block, -1).astype(np.int64))
    return np.concatenate(parts)
