"""Rows of a split in a file of arrays, by track and frame or by position.  [files] -> features

In comes a split, and a file with an array of numbers that other software computed, one row for each
frame of a person. Out goes, for each row of the split, the number of its row in the file. If the
file also has arrays of track names and frames, they tell whose row each is: track and frame make
one number, the row's key, which is looked up among the keys of the split's rows. Otherwise the
file's rows must be the split's in their order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
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
# A key is the track's number << FRAME_BITS, plus the frame. These are no keys of a split's rows:
FRAME_BITS: Final = 40
OUT_OF_RANGE: Final = -1  # of a row whose track's number or frame cannot be
NO_TRACK: Final = -2  # of a row whose track name the split does not have
PAST_END: Final = -3  # of no row at all: it stands after the split's last key
NO_FILE_ROW: Final = -1  # position of a row that the file does not have
NO_ROWS: Final = np.zeros(0, np.int64)
BY_NAMES: Final = "add arrays of track names and frames to the file (docs/features.md)."


class _KeyArrays(NamedTuple):
    """Names of the two arrays of a file that tell whose row each is."""

    tracks: str
    frames: str


class Match(NamedTuple):
    """An array of a file, and which of its rows are those of a split."""

    arrays: ArrayFile
    array: str
    rows: Rows  # (n,) all rows of the split's tracks, ascending
    position: Rows  # (n,) the row in the file of each of them, or NO_FILE_ROW
    left_out: int  # rows of the file whose tracks the split does not have
    digest: str  # of the split's tracks and frames if the file counts rows or tracks; else ""


def choose_array(arrays: ArrayFile, name: str) -> str:
    """The array to import: the named one; without a name, the only one, or `features`.

    Raises RawDataError if there is no such array, or if it does not hold numbers.
    """
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


def find_keys(arrays: ArrayFile, how: str) -> _KeyArrays | None:
    """The arrays of track names and frames; None if the file has none, and rows match by position.

    how: as in `match_rows`. Raises RawDataError if rows are to match by tracks, or one of the two
    arrays is there, and an array is missing.
    """
    tracks = [name for name in TRACKS if name in arrays.names]
    frames = [name for name in FRAMES if name in arrays.names]
    if tracks and frames:
        return _KeyArrays(tracks[0], frames[0])
    one = [*tracks, *frames][:1]
    if how == "tracks" or (one and how != "rows"):
        expected = f"track names ({', '.join(TRACKS)}) and frames ({', '.join(FRAMES)})"
        do = "Add the other array, or match by position: --match rows."
        raise RawDataError(arrays.file, "file", expected, "".join(one) or "neither", do)
    return None


def match_rows(
    split: cache.Split, arrays: ArrayFile, array: str, keys: _KeyArrays | None, how: str
) -> Match:
    """Find the row in the file of each row of the split. Raises RawDataError for a file with rows
    that do not belong there.

    how:
        "rows": by position. The file must have exactly the split's rows, in their order, and its
            keys, if there are any, must agree.
        "tracks": by keys. Rows of tracks that the split does not have are left out.
        "": by keys, and such rows are an error; as "rows" without keys.
    """
    ranges = [*spans(split.tracks.start, split.tracks.stop)]
    rows = np.concatenate([NO_ROWS, *(np.arange(start, stop) for start, stop in ranges)])
    n_rows = arrays.open(array).shape[0]
    is_by_position = keys is None or how == "rows"
    if is_by_position and n_rows != len(rows):
        expected = f"{len(rows):,} rows as {split.name}"
        do = f"Name the file of this split, or {BY_NAMES}"
        raise RawDataError(arrays.file, "file", expected, f"{n_rows:,}", do)

    key_of_row = _split_keys(split, rows, ranges)
    digest_of_rows = hashlib.sha256(key_of_row.tobytes()).hexdigest()
    digest = cache.fingerprint({"tracks": split.tracks.names, "rows": digest_of_rows})
    if keys is None:
        return Match(arrays, array, rows, np.arange(len(rows)), 0, digest)

    # Of each row in the file: its key, and the split's row with this key, if there is one. Keys of
    # the split ascend, as its tracks ascend by row, and frames within a track.
    key = _read_keys(arrays, keys, split.tracks.names, n_rows)
    split_row = np.searchsorted(key_of_row, key)
    is_foreign = np.append(key_of_row, PAST_END)[split_row] != key
    is_left_out = (key == NO_TRACK) & (how == "tracks")
    file_row = np.arange(n_rows)
    first = np.unique(key, return_index=True)[1]
    is_repeated = ~is_foreign & np.isin(file_row, first, invert=True)
    is_moved = is_by_position & (split_row != file_row)
    is_wrong = (is_foreign & ~is_left_out) | is_repeated | is_moved
    if is_wrong.any():
        wrong = int(is_wrong.argmax())
        do = "Name the file of this split."
        if is_foreign[wrong]:
            expected = f"a row of {split.name}"
        elif is_repeated[wrong]:
            expected = "every row once"
        else:
            expected = f"the order of {split.name}"
            do = "Match by keys: --match tracks."
        if key[wrong] == NO_TRACK and not is_by_position:
            do = "Name the file of this split, or leave out rows of other tracks: --match tracks."
        raise _row_error(arrays, keys, wrong, expected, do)

    position = np.full(len(rows), NO_FILE_ROW, np.int64)
    position[split_row[~is_foreign]] = np.flatnonzero(~is_foreign)
    if arrays.open(keys.tracks).dtype.kind not in "iu":
        digest = ""
    return Match(arrays, array, rows, position, int(is_left_out.sum()), digest)


def _split_keys(split: cache.Split, rows: Rows, ranges: Sequence[tuple[int, int]]) -> Rows:
    """The keys (n,) of a split's rows. ranges: the same rows, as [start, stop)."""
    frames = [split.rows("frame_index", start, stop) for start, stop in ranges]
    keys: Rows = (split.track_of(rows) << FRAME_BITS) + np.concatenate([NO_ROWS, *frames])
    return keys


def _row_error(
    arrays: ArrayFile, keys: _KeyArrays, row: int, expected: str, do: str
) -> RawDataError:
    """The error for a wrong row of the file, which names its track and frame."""
    track = _read_value(arrays, keys.tracks, row)
    frame = _read_value(arrays, keys.frames, row)
    found = f"track {track}, frame {frame} in row {row}"
    return RawDataError(arrays.file, keys.tracks, expected, found, do)


def _read_value(arrays: ArrayFile, name: str, row: int) -> Any:
    """One value of a long array, which is read block by block."""
    values = itertools.chain.from_iterable(arrays.blocks(name))
    return next(itertools.islice(values, row, None))


def _read_keys(arrays: ArrayFile, keys: _KeyArrays, names: list[str], n_rows: int) -> Rows:
    """The key (n_rows,) of each row of the file; NO_TRACK or OUT_OF_RANGE for a row that can be
    none of the split's.

    names: of the split's tracks, in their order.
    """
    tracks = _read_tracks(arrays, keys.tracks, names, n_rows)
    frames = _read_frames(arrays, keys.frames, n_rows)
    lowest: Rows = np.minimum(tracks, frames)
    return np.where(lowest < 0, lowest, (tracks << FRAME_BITS) + frames)


def _read_tracks(arrays: ArrayFile, name: str, names: list[str], n_rows: int) -> Rows:
    """The number of each row's track in the split. The array has the tracks' names, or their
    numbers.
    """
    _require_column(arrays, name, "USiu", "track names", n_rows)
    number_of = {track: number for number, track in enumerate(names)}
    parts = []
    for block in arrays.blocks(name):
        if block.dtype.kind in "US":
            texts, inverse = np.unique(block, return_inverse=True)
            numbers = [number_of.get(text_of(text), NO_TRACK) for text in texts.tolist()]
            parts.append(np.array(numbers)[inverse])
        else:
            parts.append(_numbers_below(len(names), block))
    return np.concatenate(parts)


def _read_frames(arrays: ArrayFile, name: str, n_rows: int) -> Rows:
    """The frame of each row."""
    _require_column(arrays, name, "iu", "frames", n_rows)
    largest = 1 << FRAME_BITS
    return np.concatenate([_numbers_below(largest, block) for block in arrays.blocks(name)])


def _require_column(arrays: ArrayFile, name: str, kinds: str, content: str, n_rows: int) -> None:
    """Raise RawDataError unless the array has one value for each row, of these kinds of dtypes."""
    array = arrays.open(name)
    if array.shape != (n_rows,) or array.dtype.kind not in kinds:
        expected = f"{n_rows:,} {content}, one per row"
        raise RawDataError(arrays.file, name, expected, f"{array.dtype} {array.shape}", AGAIN)


def _numbers_below(stop: int, numbers: NDArray[Any]) -> Rows:
    """The numbers from 0 to below `stop`; OUT_OF_RANGE in the place of others."""
    is_valid = (numbers >= 0) & (numbers < stop)
    return np.where(is_valid, numbers, OUT_OF_RANGE).astype(np.int64)
