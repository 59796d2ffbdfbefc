"""Rows of a split in a file of arrays, by track and frame or by position.  [files] -> features

In comes a split, and a file with an array of numbers that other software computed, one row for each
frame of a person. Out goes, for each row of the split, the number of its row in the file. The
import of arrays opens the file as a `GivenArray`, the array of numbers and the arrays of track
names and frames, if the file has them, and matches its rows. The `Match` writes the stream.

If the file has track names and frames, each row of the file and of the split gets a key, its
track's number and its frame in one integer, and rows with equal keys belong together. Otherwise the
file's rows must be the split's in their order.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline.cli import pages
from pipeline.cli.progress import Progress
from pipeline.errors import RawDataError
from pipeline.extras.exchange.array_files import AGAIN, ArrayFile, StampedFile
from pipeline.extras.exchange.pickled_arrays import text_of
from pipeline.extras.exchange.rows import spans
from pipeline.files.formats.arrays import reading
from pipeline.people.skeletons import Array, Bools, Ints
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.identity import report_other_work

TEXTS: Final = "USO"  # kinds of dtypes; O of h5py's texts of any length
TRACKS: Final = ("track_name", "track", "vid_name")  # arrays of track names
FRAMES: Final = ("frame_index", "frame", "frame_id")
USUAL: Final = "features"  # the array to import if the file has several
# The key of a row is (track's number << _FRAME_BITS) + frame, at least 0.
_FRAME_BITS: Final = 40
# in place of the key of a file's row whose track the split does not have, or whose frame is
# negative or too large
NO_ROW: Final = -1
NO_FILE_ROW: Final = -1  # in Match.position: the file does not have the row
_LARGEST_EXACT: Final = 1 << 24  # integers up to it are exact in float32
_NO_ROWS: Final = np.zeros(0, np.int64)
OF_SPLIT: Final = "Name a file with rows of this split only."
BY_NAMES: Final = f"add arrays of track names and frames to the file ({pages.ARRAYS})."


class _KeyArrays(NamedTuple):
    """Names of the two arrays of a file that tell whose row each is."""

    tracks: str
    frames: str


class Match(NamedTuple):
    """An array of a file, and which of its rows are those of a split. Writes them as a stream."""

    arrays: ArrayFile
    array: str
    rows: Ints  # (n,) all rows of the split's tracks, ascending
    position: Ints  # (n,) the row in the file of each of them, or NO_FILE_ROW
    # Digest of the split's tracks and frames, if rows match by position: after a change of the
    # split, a position may be another row's. None if the file has tracks' names.
    digest: str | None

    def open_writer(
        self, root: cache.Root, name: str, stream: str, origin: str, dtype: str
    ) -> cache.StreamWriter:
        """The writer of the stream, with the shape of the array.

        origin: fingerprint of the import's origin.
        """
        plan = staging_plan(origin)
        report_other_work(root, name, stream, plan)
        dim = math.prod(self.arrays.open(self.array).shape[1:])
        form = cache.StreamForm(dim, dtype)
        return cache.StreamWriter(root, name, stream, form, plan=plan)

    def write_shards(
        self, writer: cache.StreamWriter, file_number: int, progress: Progress
    ) -> None:
        """Write the pending shards. A row's key is `file_number`, which stands for the file and the
        way it is imported, and the row in the file.
        """
        place = writer.place
        form = writer.shards.columns[str(place.stream)]
        stored = self.arrays.memory_map(self.array, place.store.folder(place.manifest_folder))
        stored = stored.reshape(len(stored), *form.shape)
        pending = writer.shards.pending
        for n_done, shard in enumerate(pending):
            progress(n_done, len(pending), "features")
            position = self._file_rows(writer.shards.rows(shard))
            data, ok = self._read_rows(stored, position, form.dtype)
            file_numbers = np.full(len(position), file_number, np.uint64)
            keys = np.stack([file_numbers, position.astype(np.uint64)], axis=1)
            writer.write(shard, data, ok, keys)

    def _file_rows(self, rows: range) -> Ints:
        """The row in the file of each of a shard's rows (n,), or NO_FILE_ROW."""
        first, last = np.searchsorted(self.rows, [rows.start, rows.stop])
        position = np.full(len(rows), NO_FILE_ROW, np.int64)
        position[self.rows[first:last] - rows.start] = self.position[first:last]
        return position

    def _read_rows(
        self, stored: Array, position: Ints, dtype: np.dtype[Any]
    ) -> tuple[Array, Array]:
        """Rows (n, dim) of the stored array in the stream's type, and (n,) whether they exist and
        are finite. position: (n,) rows in the file, or NO_FILE_ROW.
        """
        ok = position >= 0
        with reading(self.arrays.file, "numbers", key=self.array, do=AGAIN):
            read = stored[position[ok]]
        if read.dtype.kind in "iu":
            inexact = np.argwhere((read > _LARGEST_EXACT) | (read < -_LARGEST_EXACT))
            if inexact.size:
                row, column = inexact[0]
                actual = f"{read[row, column]} in row {position[ok][row]}"
                do = "Write it as floats, if these may be rounded."
                raise RawDataError(self.arrays.file, self.array, "integers up to 2^24", actual, do)
        data = np.zeros((len(position), stored.shape[1]), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            data[ok] = read
        ok &= np.isfinite(data).all(axis=1)
        data[~ok] = 0
        return data, ok


class GivenArray(NamedTuple):
    """The array to import, and how its rows are matched."""

    file: StampedFile
    arrays: ArrayFile
    name: str
    # None: its rows are those of the split in their order, and the file must have exactly these
    keys: _KeyArrays | None

    @classmethod
    def open(cls, file: Path, name: str | None) -> GivenArray:
        """Open a file of arrays, or the folder of a Parquet export. name: of the array; None: the
        only one, or `features`. Raises RawDataError for an invalid file.
        """
        if file.is_dir():
            file = file / "rows.parquet"
        stamped = StampedFile.stamp(file)
        arrays = stamped.open_arrays()
        return cls(stamped, arrays, _choose_array(arrays, name), _find_keys(arrays))

    @property
    def matched_by(self) -> str:
        return "rows" if self.keys is None else "tracks"

    def match(self, split: cache.Split) -> Match:
        """Find the row in the file of each row of the split. Raises RawDataError for a file with
        rows that do not belong there.
        """
        ranges = [*spans(split.tracks.start, split.tracks.stop)]
        rows = np.concatenate([_NO_ROWS, *map(np.asarray, ranges)])
        n_rows = self.arrays.open(self.name).shape[0]
        if self.keys is None and n_rows != len(rows):
            expected = f"{len(rows):,} rows as {split.name}"
            do = f"Name the file of this split, or {BY_NAMES}"
            raise RawDataError(self.arrays.file, "file", expected, f"{n_rows:,}", do)
        if n_rows > len(rows):  # each row is there once. Compressed rows may fill the memory
            expected = f"at most the {len(rows):,} rows of {split.name}"
            raise RawDataError(self.arrays.file, self.name, expected, f"{n_rows:,}", OF_SPLIT)

        frames = [split.rows("frame_index", part.start, part.stop) for part in ranges]
        split_keys = (split.track_of(rows) << _FRAME_BITS) + np.concatenate([_NO_ROWS, *frames])
        if self.keys is None:
            digest_of_keys = hashlib.sha256(split_keys.tobytes()).hexdigest()
            digest = cache.fingerprint({"tracks": split.tracks.names, "rows": digest_of_keys})
            return Match(self.arrays, self.name, rows, np.arange(len(rows)), digest)

        file_keys = _read_keys(self.arrays, self.keys, split.tracks.names, n_rows)
        # Keys of the split ascend, as its tracks ascend by row, and frames within a track. For a
        # row of the file that is in the split, `split_row` is the position of its row in `rows`.
        split_row = np.searchsorted(split_keys, file_keys)
        is_in_split = np.searchsorted(split_keys, file_keys, side="right") > split_row
        _require_rows_of(split.name, self.arrays, self.keys, file_keys, ~is_in_split)

        position = np.full(len(rows), NO_FILE_ROW, np.int64)
        position[split_row] = np.arange(len(file_keys))
        return Match(self.arrays, self.name, rows, position, None)


def _choose_array(arrays: ArrayFile, name: str | None) -> str:
    """The array to import: the named one; without a name, the only one, or `features`.

    Raises RawDataError if there is no such array, or if it does not hold numbers.
    """
    candidates = [array for array in arrays.names if array not in (*TRACKS, *FRAMES)]
    chosen = name or USUAL
    if name is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen not in arrays.names:
        actual = ", ".join(candidates[:20]) or "none"
        do = "Name one of them: --array NAME."
        raise RawDataError(arrays.file, "file", f"an array {chosen!r}", actual, do)
    dtype = arrays.open(chosen).dtype
    if dtype.kind not in "biuf":
        raise RawDataError(
            arrays.file, chosen, "numbers", str(dtype), "Name another: --array NAME."
        )
    return chosen


def _find_keys(arrays: ArrayFile) -> _KeyArrays | None:
    """The arrays of track names and frames; None if the file has neither, and rows match by
    position. Raises RawDataError for a single one.
    """
    tracks = [name for name in TRACKS if name in arrays.names]
    frames = [name for name in FRAMES if name in arrays.names]
    if tracks and frames:
        return _KeyArrays(tracks[0], frames[0])
    single = [*tracks, *frames][:1]
    if single:
        expected = f"track names ({', '.join(TRACKS)}) and frames ({', '.join(FRAMES)})"
        do = "Add what is missing; a file without both is matched by position."
        raise RawDataError(arrays.file, "file", expected, single[0], do)
    return None


def _require_rows_of(
    split_name: str,
    arrays: ArrayFile,
    keys: _KeyArrays,
    file_keys: Ints,
    is_foreign: Bools,
) -> None:
    """Raise RawDataError for the first row of the file that is foreign, or has the key of an
    earlier row. The error names the row's track and frame.

    file_keys: from `_read_keys`. is_foreign: whether the split does not have a row.
    """
    is_repeated = np.ones(len(file_keys), bool)
    is_repeated[np.unique(file_keys, return_index=True)[1]] = False  # where each key is first
    is_wrong = is_foreign | is_repeated
    if not is_wrong.any():
        return
    row = int(is_wrong.argmax())
    expected = f"a row of {split_name}" if is_foreign[row] else "every row once"
    track, frame = (np.concatenate([*arrays.blocks(name)])[row] for name in keys)
    actual = f"track {track}, frame {frame} in row {row}"
    raise RawDataError(arrays.file, keys.tracks, expected, actual, OF_SPLIT)


def _read_keys(arrays: ArrayFile, keys: _KeyArrays, names: list[str], n_rows: int) -> Ints:
    """The key (n_rows,) of each row of the file, or NO_ROW. names: of the split's tracks, in their
    order.
    """
    tracks = _read_tracks(arrays, keys.tracks, names, n_rows)
    _require_column(arrays, keys.frames, "iu", "frames", n_rows)
    frames = np.concatenate([*arrays.blocks(keys.frames)])
    is_row = (tracks >= 0) & (frames >= 0) & (frames < 1 << _FRAME_BITS)
    frames = frames.astype(np.int64)
    return np.where(is_row, (tracks << _FRAME_BITS) + frames, NO_ROW)


def _read_tracks(arrays: ArrayFile, name: str, names: list[str], n_rows: int) -> Ints:
    """The number of each row's track in the split, or NO_ROW."""
    _require_column(arrays, name, TEXTS, "track names", n_rows)
    number_of = {track: number for number, track in enumerate(names)}
    parts = []
    for block in arrays.blocks(name):
        texts, inverse = np.unique(block, return_inverse=True)
        numbers = [number_of.get(text_of(text), NO_ROW) for text in texts.tolist()]
        parts.append(np.array(numbers)[inverse])
    return np.concatenate(parts)


def _require_column(arrays: ArrayFile, name: str, kinds: str, content: str, n_rows: int) -> None:
    """Raise RawDataError unless the array has one value for each row, of these kinds of dtypes."""
    array = arrays.open(name)
    if array.shape != (n_rows,) or array.dtype.kind not in kinds:
        expected = f"{n_rows:,} {content}, one per row"
        raise RawDataError(arrays.file, name, expected, f"{array.dtype} {array.shape}", AGAIN)
