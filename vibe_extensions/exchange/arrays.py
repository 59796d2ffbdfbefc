"""Import of any array as a stream of an existing split.  [files] -> features

Rows are matched by track and frame, or by position. Rows that the file does not have, or whose numbers are not finite,
have no features: windows leave them out. A killed import continues with the next shard.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache.storage.local import LocalStore
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.identity import describe
from pipeline.errors import PipelineError, RawDataError
from pipeline.features.plan import IMPORTED, is_current
from pipeline.files.formats.arrays import reading
from pipeline.files.raw.files import whole_file_digest
from vibe_extensions.exchange.array_files import AGAIN, Array, ArrayFile, open_arrays
from vibe_extensions.exchange.rows import spans
from vibe_extensions.exchange.vibe_db.joblib_files import text_of

Rows = NDArray[np.int64]

VERSION: Final = 1  # raised whenever the same file would give different numbers
TRACKS: Final = ("track_name", "track", "vid_name")  # arrays of track names
FRAMES: Final = ("frame_index", "frame", "frame_id")
MATCHES: Final = ("tracks", "rows")
USUAL: Final = "features"  # array that is taken of several
LARGEST_EXACT: Final = 1 << 24  # integers up to it are exact in float32
FRAME_BITS: Final = 40  # of a key; the rest is the track's number


@dataclass(frozen=True, slots=True)
class ImportedArray:
    """Result of an import. `why` is "" if everything was up to date."""

    rows: int  # of the split
    covered: int  # of them in the file
    without_features: int  # rows that are missing in the file, or not finite
    matched_by: str
    stand_in: bool  # random weights
    why: str


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """Options of an import, besides file, split and stream."""

    array: str = ""  # "": the only one, or `features`
    match: str = ""  # one of MATCHES; "": by tracks if the file has their names
    weights_of: str | None = None  # description of the network that computed the numbers


def import_array(
    file: Path,
    root: cache.Root,
    name: str,
    stream: str,
    options: ArrayOptions | None = None,
    *,
    progress: Progress = silent,
) -> ImportedArray:
    """Write an array (n, ...) of the file as the stream `stream` of the split `name`: float16, or else float32.

    file: npy, npz, safetensors, Parquet, or the folder of a Parquet export.

    Raises:
        RawDataError: the file is invalid, a row is not of the split or repeated, or the number of rows is wrong.
        PipelineError: the stream exists and has another origin.
        cache.CacheError: the split is missing, or another process writes the stream.
    """
    options = options or ArrayOptions()
    file = file / "rows.parquet" if file.is_dir() else file
    with reading(file, "a file", do="Check the path."):
        digest = whole_file_digest(file)
    arrays, split = open_arrays(file), cache.open(root)[name]
    array, keys = _choose(arrays, options.array), _keys_of(arrays, options.match)
    matched_by = MATCHES[not keys or options.match == "rows"]
    identity = {"kind": IMPORTED, "version": VERSION, "file_sha256": digest, "weights": options.weights_of}
    source = {"format": "arrays", "array": array, "matched_by": matched_by}
    if stream in split.streams:
        recorded = split.stream_manifest(stream)
        before = {**recorded.get("identity", {}), **{key: recorded.get(IMPORTED, {}).get(key) for key in source}}
        if why := describe(before, {**identity, **source}):
            raise PipelineError(f"{name}: stream {stream!r} has another origin ({why}). Use another name (--as NAME).")
        if is_current(split, stream):
            return _result(split, stream, "")
    numbers = arrays.open(array)
    if numbers.dtype.kind not in "biuf":
        raise RawDataError(file, array, expected="numbers", found=str(numbers.dtype), do="Name another: --array NAME.")
    rows, position = _match(split, arrays, numbers.shape[0], keys, by_rows=matched_by == "rows")
    dim, dtype = math.prod(numbers.shape[1:]), "float16" if numbers.dtype == np.float16 else "float32"
    plan = cache.fingerprint({**identity, **source})
    with cache.StreamWriter(root, name, stream, dim=dim, dtype=dtype, plan=plan) as writer:
        if writer.split_digest != split.manifest["digest"]:
            raise cache.CacheChanged(f"{name}: another process has committed meanwhile. Run it again.")
        _write_shards(writer, arrays, array, rows, position, progress)
        about: dict[str, Any] = {"file": file.name, "container": arrays.format, "dtype": str(numbers.dtype)}
        about |= {"shape": [*numbers.shape], "rows": len(rows), "covered": int((position >= 0).sum())}
        untrained = arrays.stand_in and not split.manifest["stand_in"]
        entries = {
            "identity": identity,
            IMPORTED: {**source, **about},
            "backbone": {"weights": options.weights_of, "sha256": None, "stand_in": untrained},
            "stand_in": bool(arrays.stand_in or split.manifest["stand_in"]),
        }
        writer.commit(entries, note={IMPORTED: str(file.resolve())})
    return _result(cache.open(root)[name], stream, "imported")


def _result(split: cache.Split, stream: str, why: str) -> ImportedArray:
    recorded = split.stream_manifest(stream)
    about, untrained = recorded[IMPORTED], bool(recorded["backbone"]["stand_in"])
    lost = split.undecodable(stream)
    return ImportedArray(about["rows"], about["covered"], lost, about["matched_by"], untrained, why)


def _choose(arrays: ArrayFile, name: str) -> str:
    """The array to import. Raises RawDataError if its name is unknown or missing."""
    others = [found for found in arrays.names if found not in (*TRACKS, *FRAMES)]
    chosen = name or (USUAL if USUAL in others else others[0] if len(others) == 1 else "")
    if chosen not in arrays.names:
        found = ", ".join(others[:20]) or "none"
        expected = f"an array {name!r}" if name else f"one array, or {USUAL!r}"
        raise RawDataError(arrays.file, "file", expected=expected, found=found, do="Name one of them: --array NAME.")
    return chosen


def _keys_of(arrays: ArrayFile, match: str) -> tuple[str, str] | None:
    """The arrays of track names and frames, if the file has both. Raises RawDataError if one is missing."""
    found = [next((name for name in names if name in arrays.names), "") for names in (TRACKS, FRAMES)]
    if all(found):
        return found[0], found[1]
    if match == "tracks" or (any(found) and match != "rows"):
        expected = f"track names ({', '.join(TRACKS)}) and frames ({', '.join(FRAMES)})"
        do = "Add the other array, or match by position: --match rows."
        raise RawDataError(arrays.file, "file", expected=expected, found="".join(found) or "neither", do=do)
    return None


def _match(
    split: cache.Split, arrays: ArrayFile, n_rows: int, keys: tuple[str, str] | None, *, by_rows: bool
) -> tuple[Rows, Rows]:
    """The rows (n,) of the split's tracks, ascending, and the row of the file for each: -1 if it has none.

    by_rows: the file must have the split's rows in their order.
    """
    ranges = [*spans(split.tracks.start, split.tracks.stop)]
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(start, stop) for start, stop in ranges)])
    if by_rows and n_rows != len(rows):
        do = "Name the file of this split, or add arrays of track names and frames (docs/features.md)."
        expected = f"{len(rows):,} rows as {split.name}"
        raise RawDataError(arrays.file, "file", expected=expected, found=f"{n_rows:,}", do=do)
    if keys is None:
        return rows, np.arange(len(rows))
    frames = [split.rows("frame_index", start, stop) for start, stop in ranges]
    own = (split.track_of(rows) << FRAME_BITS) + np.concatenate([np.zeros(0, np.int64), *frames])
    key = _read_keys(arrays, keys, split.tracks.names, n_rows)
    row = np.searchsorted(own, key)  # tracks ascend by row, frames within a track
    foreign = np.append(own, -2)[row] != key
    repeated = np.isin(np.arange(n_rows), np.unique(row, return_index=True)[1], invert=True) & ~foreign
    if (wrong := np.flatnonzero(foreign | repeated | (by_rows & (row != np.arange(n_rows))))).size:
        i, do = int(wrong[0]), "Name the file of this split."
        expected = f"a row of {split.name}" if foreign[i] else "every row once"
        if not foreign[i] and not repeated[i]:
            expected, do = f"the order of {split.name}", "Match by keys: --match tracks."
        track, frame = (next(itertools.islice((v for b in arrays.blocks(k) for v in b), i, None)) for k in keys)
        found = f"track {track}, frame {frame} in row {i}"
        raise RawDataError(arrays.file, keys[0], expected=expected, found=found, do=do)
    position = np.full(len(rows), -1, np.int64)
    position[row] = np.arange(n_rows)
    return rows, position


def _read_keys(arrays: ArrayFile, keys: tuple[str, str], names: list[str], n_rows: int) -> Rows:
    """Keys (n_rows,) of track and frame, which ascend with the split's rows; -1 for an unknown track.

    A track is its name, or its number in the split.
    """
    numbers, parts = {name: number for number, name in enumerate(names)}, []
    for name, kinds in zip(keys, ("USiu", "iu"), strict=True):
        if (found := arrays.open(name)).shape != (n_rows,) or found.dtype.kind not in kinds:
            expected = f"{n_rows:,} {'frames' if kinds == 'iu' else 'track names'}, one per row"
            raise RawDataError(arrays.file, name, expected=expected, found=f"{found.dtype} {found.shape}", do=AGAIN)
        most, part = len(names) if "U" in kinds else 1 << FRAME_BITS, []
        for block in arrays.blocks(name):
            if block.dtype.kind in "US":
                texts, which = np.unique(block, return_inverse=True)
                block = np.array([numbers.get(text_of(text), -1) for text in texts.tolist()])[which]
            part.append(np.where((block >= 0) & (block < most), block, -1).astype(np.int64))
        parts.append(np.concatenate(part))
    return np.where(np.minimum(*parts) < 0, -1, (parts[0] << FRAME_BITS) + parts[1])


def _write_shards(
    writer: cache.StreamWriter, arrays: ArrayFile, array: str, rows: Rows, position: Rows, progress: Progress
) -> None:
    """Write the pending shards. position (n,): the row of the file for each of the split's rows (n,), ascending."""
    place = writer.place
    stored = arrays.mapped(array, place.store.path(place.home) if isinstance(place.store, LocalStore) else None)
    form = writer.columns[str(place.stream)]
    for n_done, shard in enumerate(pending := writer.pending):
        progress(n_done, len(pending), "features")
        own = np.asarray(writer.rows(shard))
        at, (first, last) = np.full(len(own), -1, np.int64), np.searchsorted(rows, [own[0], own[-1] + 1])
        at[rows[first:last] - own[0]] = position[first:last]
        data, ok = _rows_at(arrays, array, stored.reshape(len(stored), *form.trailing), at, form.dtype)
        # A row's key: the plan, which names the file, and the row number.
        key = np.full(len(at), int(writer.plan[:16], 16), np.uint64)
        writer.write(shard, data, ok, np.stack([key, at.astype(np.uint64)], axis=1))


def _rows_at(
    arrays: ArrayFile, array: str, stored: Array, at: Rows, dtype: np.dtype[Any]
) -> tuple[Array, NDArray[np.bool_]]:
    """Rows (n, dim) of the stored array in the stream's type, and whether they exist and are finite."""
    with reading(arrays.file, "numbers", key=array, do=AGAIN):
        read = stored[at[at >= 0]]
    if read.dtype.kind in "iu" and (bad := np.argwhere((read > LARGEST_EXACT) | (read < -LARGEST_EXACT))).size:
        found = f"{read[tuple(bad[0])]} in row {at[at >= 0][bad[0, 0]]}"
        do = "Write it as floats, if these may be rounded."
        raise RawDataError(arrays.file, array, expected="integers up to 2^24", found=found, do=do)
    data, ok = np.zeros((len(at), stored.shape[1]), dtype), at >= 0
    with np.errstate(over="ignore", invalid="ignore"):
        data[ok] = read
    ok &= np.isfinite(data).all(axis=1)
    data[~ok] = 0
    return data, ok
