"""Import of any array as a stream of an existing split.  [files] -> features

Rows are matched by track and frame, or by position. Rows that the file does not have, or whose
numbers are not finite, have no features: windows leave them out. A killed import continues with the
next shard. The manifest has the pixels' fingerprints of all videos at the first import of the file:
it has no numbers of a video that was replaced since.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.conversion.identity import describe, report_other_work
from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.array_files import AGAIN, Array, ArrayFile, open_arrays
from pipeline.exchange.rows import spans
from pipeline.exchange.vibe_db.joblib_files import text_of
from pipeline.features.plan import IMPORTED, is_current, missing_rows
from pipeline.features.streams.base import Reads, Stream
from pipeline.files.formats.arrays import reading, require_unchanged, state_of
from pipeline.files.raw.files import whole_file_digest
from pipeline.processes.software import staging_plan

Rows = NDArray[np.int64]

VERSION: Final = 1  # raised whenever the same file would give different numbers
TRACKS: Final = ("track_name", "track", "vid_name")  # arrays of track names
FRAMES: Final = ("frame_index", "frame", "frame_id")
USUAL: Final = "features"  # array that is taken of several
LARGEST_EXACT: Final = 1 << 24  # integers up to it are exact in float32
FRAME_BITS: Final = 40  # of a key; the rest is the track's number
NO_TRACK: Final = -2  # key of a row whose track name the split does not have
BY_NAMES: Final = "add arrays of track names and frames to the file (docs/features.md)."
OTHER_NAME: Final = "Use another name (--as NAME)."


@dataclass(frozen=True, slots=True)
class ImportedArray:
    """Result of an import. `why` is "" if everything was up to date."""

    rows: int  # of the split
    covered: int  # of them in the file
    without_features: int  # rows that are missing in the file, or not finite
    matched_by: str
    stand_in: bool  # random weights
    why: str
    left_out: int = 0  # rows of the file whose tracks the split does not have
    replaced: tuple[str, ...] = ()  # videos with other pixels than at the file's first import
    # rows of shards with rows of these videos, which have to be imported from another file
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """Options of an import, besides file, split and stream."""

    array: str = ""  # "": the only one, or `features`
    # "tracks" or "rows"; "": by tracks if the file has their names, and none may be missing
    match: str = ""
    weights_of: str | None = None  # description of the network that computed the numbers


class _Match(NamedTuple):
    """An array of a file, and its rows for a split."""

    arrays: ArrayFile
    array: str
    rows: Rows  # (n,) of the split, ascending
    position: Rows  # (n,) row of the file; -1: none
    left_out: int  # rows of the file whose tracks the split does not have
    digest: str  # of the split's tracks and frames if the file counts rows or tracks; else ""


def import_array(
    file: Path,
    root: cache.Root,
    name: str,
    stream: str,
    options: ArrayOptions | None = None,
    *,
    progress: Progress = silent,
) -> ImportedArray:
    """Write an array (n, ...) of the file as the stream `stream` of the split `name`: float16, or
    else float32.

    file: npy, npz, safetensors, Parquet, or the folder of a Parquet export. An existing stream gets
    the rows of new
        tracks; another file must have the earlier rows unchanged. Shards with rows of `replaced`
        videos are left out.

    Raises:
        RawDataError: the file is invalid, a row is not of the split, repeated or changed, or the
            number is wrong.
        PipelineError: the stream has another origin, or the file has no track names or no new
            tracks.
        cache.CacheError: the split is missing, or another process writes the stream.
    """
    options = options or ArrayOptions()
    if file.is_dir():
        file = file / "rows.parquet"
    state = state_of(file, do="Check the path.")
    with reading(file, "a file", do="Check the path."):
        digest = whole_file_digest(file)
    arrays = open_arrays(file)
    split = cache.open(root)[name]
    array = _choose(arrays, options.array)
    keys = _keys_of(arrays, options.match)
    identity, source = _origin_of(array, keys, digest, options)

    recorded = split.stream_manifest(stream) if stream in split.streams else {}
    before = _recorded_origin(recorded, source)
    is_same = before == identity | source
    if is_same and is_current(split, stream):
        return _result(split, stream, "")
    if recorded:
        _require_same_origin(split, stream, before, identity | source)
    match = _match(split, arrays, array, keys, options.match)
    if recorded:
        _require_same_rows(split, stream, recorded, match)
    if match.digest:
        source["rows_digest"] = match.digest
    videos = _pixels_by_video(split, match)
    imported_videos = {**videos, **_known_videos(recorded, digest)}
    replaced = tuple(video for video in videos if imported_videos[video] != videos[video])

    with _writer_of(root, name, stream, match, identity | source) as writer:
        _reopen(writer, split, match, options.match)
        held = _shards_of(split, replaced, writer)
        waiting = sum(int(writer.live(shard).sum()) for shard in held)
        is_refused = bool(held) and held.issuperset(writer.pending)
        if not is_refused:
            _write_shards(writer, held, None if is_same else split, match, progress)
            require_unchanged(file, state)
            source["videos"] = imported_videos
            entries = _entries(split, match, file.name, identity, source)
            writer.commit(entries, note={IMPORTED: str(file.resolve())})
    result = _result(cache.open(root)[name], stream, "refused" if is_refused else "imported")
    return replace(result, replaced=replaced, waiting=waiting)


def _origin_of(
    array: str, keys: tuple[str, str] | None, digest: str, options: ArrayOptions
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stream's identity, and where in the file its rows come from."""
    by_position = keys is None or options.match == "rows"
    identity = {
        "kind": IMPORTED,
        "version": VERSION,
        "file_sha256": digest,
        "weights": options.weights_of,
    }
    source = {
        "format": "arrays",
        "array": array,
        "matched_by": "rows" if by_position else "tracks",
    }
    return identity, source


def _recorded_origin(recorded: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The identity in a stream's manifest, and these entries of its source."""
    identity: dict[str, Any] = recorded.get("identity", {})
    source = recorded.get(IMPORTED, {})
    return identity | {key: source.get(key) for key in keys}


def _writer_of(
    root: cache.Root, name: str, stream: str, match: _Match, origin: Mapping[str, Any]
) -> cache.StreamWriter:
    """The writer of the stream, with the shape and type of the array."""
    plan = staging_plan(cache.fingerprint(origin))
    report_other_work(root, name, stream, plan)
    numbers = match.arrays.open(match.array)
    dim = math.prod(numbers.shape[1:])
    dtype = "float16" if numbers.dtype.str[1:] == "f2" else "float32"
    return cache.StreamWriter(root, name, stream, dim=dim, dtype=dtype, plan=plan)


def _reopen(writer: cache.StreamWriter, split: cache.Split, match: _Match, how: str) -> None:
    """Make an existing stream's shards with missing rows pending. how: as in ArrayOptions.match.

    Raises CacheChanged after another commit of the split, and PipelineError if the file has no new
    tracks.
    """
    if writer.split_digest != split.manifest["digest"]:
        raise cache.CacheChanged(
            f"{split.name}: another process has committed meanwhile. Run it again."
        )
    stream = str(writer.place.stream)
    if stream not in split.streams:
        return
    writer.reopen(missing_rows(split, stream).incomplete)
    if how != "tracks":
        _require_new_tracks(writer, split, match)


def _require_same_origin(
    split: cache.Split, stream: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    any_file = {key: now[key] for key in ("file_sha256", "array", "matched_by")}
    why = describe({**before, **any_file}, now)
    if why:
        raise PipelineError(
            f"{split.name}: stream {stream!r} has another origin ({why}). {OTHER_NAME}"
        )


def _require_same_rows(
    split: cache.Split, stream: str, recorded: Mapping[str, Any], match: _Match
) -> None:
    if match.digest not in ("", recorded[IMPORTED].get("rows_digest")):
        why = (
            f"the split has changed since {stream!r} was imported, and the file counts rows "
            "or tracks"
        )
        raise PipelineError(f"{split.name}: {why}. Match by track names: {BY_NAMES}")


def _known_videos(recorded: Mapping[str, Any], digest: str) -> Mapping[str, str]:
    """Fingerprints of the videos at the first import of a file with this digest; empty at that
    import.
    """
    if not recorded or recorded["identity"]["file_sha256"] != digest:
        return {}
    known: Mapping[str, str] = recorded[IMPORTED].get("videos", {})
    return known


def _pixels_by_video(split: cache.Split, match: _Match) -> dict[str, str]:
    """Fingerprint of each video with rows in the file: of its pixels, or of its raw files if it has
    none.
    """
    covered = match.rows[match.position >= 0]
    numbers = np.unique(split.tracks.video[split.track_of(covered)])
    entries = [split.videos[number] for number in numbers.tolist()]
    return {entry.name: (entry.pixels or entry.fingerprint)[:16] for entry in entries}


def _shards_of(split: cache.Split, videos: Sequence[str], writer: cache.StreamWriter) -> set[int]:
    """Pending shards with rows of these videos."""
    shards: set[int] = set()
    for track in split.tracks:
        if track.video in videos:
            first = track.start // writer.rows_per_shard
            shards.update(range(first, (track.stop - 1) // writer.rows_per_shard + 1))
    return shards.intersection(writer.pending)


def _entries(
    split: cache.Split,
    match: _Match,
    file: str,
    identity: Mapping[str, Any],
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Entries of the stream's manifest."""
    arrays = match.arrays
    numbers = arrays.open(match.array)
    about: dict[str, Any] = {"file": file, "container": arrays.format, "dtype": str(numbers.dtype)}
    about |= {"shape": [*numbers.shape], "rows": len(match.rows), "left_out": match.left_out}
    about["covered"] = int((match.position >= 0).sum())
    untrained = arrays.stand_in and not split.manifest["stand_in"]
    return {
        "identity": identity,
        IMPORTED: {**source, **about},
        "backbone": {"weights": identity["weights"], "sha256": None, "stand_in": untrained},
        "stand_in": bool(arrays.stand_in or split.manifest["stand_in"]),
    }


def _result(split: cache.Split, stream: str, why: str) -> ImportedArray:
    recorded = split.stream_manifest(stream)
    about = recorded[IMPORTED]
    untrained = bool(recorded["backbone"]["stand_in"])
    lost = split.undecodable(stream)
    return ImportedArray(
        about["rows"],
        about["covered"],
        lost,
        about["matched_by"],
        untrained,
        why,
        about.get("left_out", 0),
    )


def _choose(arrays: ArrayFile, name: str) -> str:
    """The array to import. Raises RawDataError if its name is unknown or missing."""
    others = [found for found in arrays.names if found not in (*TRACKS, *FRAMES)]
    chosen = name or (USUAL if USUAL in others else others[0] if len(others) == 1 else "")
    if chosen not in arrays.names:
        found = ", ".join(others[:20]) or "none"
        expected = f"an array {name!r}" if name else f"one array, or {USUAL!r}"
        raise RawDataError(
            arrays.file,
            "file",
            expected=expected,
            found=found,
            do="Name one of them: --array NAME.",
        )
    if (dtype := arrays.open(chosen).dtype).kind not in "biuf":
        raise RawDataError(
            arrays.file,
            chosen,
            expected="numbers",
            found=str(dtype),
            do="Name another: --array NAME.",
        )
    return chosen


def _keys_of(arrays: ArrayFile, match: str) -> tuple[str, str] | None:
    """The arrays of track names and frames, if the file has both. Raises RawDataError if one is
    missing.
    """
    found = [
        next((name for name in names if name in arrays.names), "") for names in (TRACKS, FRAMES)
    ]
    if all(found):
        return found[0], found[1]
    if match == "tracks" or (any(found) and match != "rows"):
        expected = f"track names ({', '.join(TRACKS)}) and frames ({', '.join(FRAMES)})"
        do = "Add the other array, or match by position: --match rows."
        raise RawDataError(
            arrays.file, "file", expected=expected, found="".join(found) or "neither", do=do
        )
    return None


def _match(
    split: cache.Split, arrays: ArrayFile, array: str, keys: tuple[str, str] | None, how: str
) -> _Match:
    """Match the split's rows and the file's.

    how: "rows": the file must have the split's rows in their order; "tracks": leave out rows of
    unknown tracks.
    """
    ranges = [*spans(split.tracks.start, split.tracks.stop)]
    rows = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(start, stop) for start, stop in ranges)]
    )
    n_rows = arrays.open(array).shape[0]
    by_rows = keys is None or how == "rows"
    if by_rows and n_rows != len(rows):
        expected = f"{len(rows):,} rows as {split.name}"
        do = f"Name the file of this split, or {BY_NAMES}"
        raise RawDataError(arrays.file, "file", expected=expected, found=f"{n_rows:,}", do=do)
    frames = [split.rows("frame_index", start, stop) for start, stop in ranges]
    own = (split.track_of(rows) << FRAME_BITS) + np.concatenate([np.zeros(0, np.int64), *frames])
    digest = cache.fingerprint(
        {"tracks": split.tracks.names, "rows": hashlib.sha256(own.tobytes()).hexdigest()}
    )
    if keys is None:
        return _Match(arrays, array, rows, np.arange(len(rows)), 0, digest)
    key = _read_keys(arrays, keys, split.tracks.names, n_rows)
    row = np.searchsorted(own, key)  # tracks ascend by row, frames within a track
    foreign = np.append(own, -3)[row] != key
    left_out = (key == NO_TRACK) & (how == "tracks")
    repeated = (
        np.isin(np.arange(n_rows), np.unique(key, return_index=True)[1], invert=True) & ~foreign
    )
    if (
        wrong := np.flatnonzero(
            foreign & ~left_out | repeated | (by_rows & (row != np.arange(n_rows)))
        )
    ).size:
        i = int(wrong[0])
        do = "Name the file of this split."
        expected = f"a row of {split.name}" if foreign[i] else "every row once"
        if key[i] == NO_TRACK and not by_rows:
            do = "Name the file of this split, or leave out rows of other tracks: --match tracks."
        elif not foreign[i] and not repeated[i]:
            expected = f"the order of {split.name}"
            do = "Match by keys: --match tracks."
        track, frame = (
            next(itertools.islice((v for b in arrays.blocks(k) for v in b), i, None)) for k in keys
        )
        found = f"track {track}, frame {frame} in row {i}"
        raise RawDataError(arrays.file, keys[0], expected=expected, found=found, do=do)
    position = np.full(len(rows), -1, np.int64)
    position[row[~foreign]] = np.flatnonzero(~foreign)
    digest = digest if arrays.open(keys[0]).dtype.kind in "iu" else ""
    return _Match(arrays, array, rows, position, int(left_out.sum()), digest)


def _read_keys(arrays: ArrayFile, keys: tuple[str, str], names: list[str], n_rows: int) -> Rows:
    """Keys (n_rows,) of track and frame, which ascend with the split's rows; else NO_TRACK, or -1.

    A track is its name, or its number in the split.
    """
    numbers = {name: number for number, name in enumerate(names)}
    parts = []
    for name, kinds in zip(keys, ("USiu", "iu"), strict=True):
        if (found := arrays.open(name)).shape != (n_rows,) or found.dtype.kind not in kinds:
            expected = f"{n_rows:,} {'frames' if kinds == 'iu' else 'track names'}, one per row"
            raise RawDataError(
                arrays.file, name, expected=expected, found=f"{found.dtype} {found.shape}", do=AGAIN
            )
        most = len(names) if "U" in kinds else 1 << FRAME_BITS
        part = []
        for block in arrays.blocks(name):
            if block.dtype.kind in "US":
                texts, which = np.unique(block, return_inverse=True)
                part.append(
                    np.array([numbers.get(text_of(text), NO_TRACK) for text in texts.tolist()])[
                        which
                    ]
                )
            else:
                part.append(np.where((block >= 0) & (block < most), block, -1).astype(np.int64))
        parts.append(np.concatenate(part))
    lowest: Rows = np.minimum(*parts)
    return np.where(lowest < 0, lowest, (parts[0] << FRAME_BITS) + parts[1])


def _require_new_tracks(writer: cache.StreamWriter, split: cache.Split, match: _Match) -> None:
    """Raise PipelineError if the file has no row of a track that an existing stream does not have
    yet.
    """
    is_new = np.isin(match.rows // writer.rows_per_shard, writer.pending)
    tracks = split.track_of(match.rows)
    if (missing := np.setdiff1d(tracks[is_new], tracks[match.position >= 0])).size:
        what = (
            f"no rows of {count(missing.size, 'new track')}, such as "
            f"{split.tracks.names[missing[0]]!r}"
        )
        do = (
            "Import a file with them and with all earlier rows, or leave them without "
            "features: --match tracks."
        )
        raise PipelineError(f"{match.arrays.file}: {what}. {do}")


def _write_shards(
    writer: cache.StreamWriter,
    held: set[int],
    committed: cache.Split | None,
    match: _Match,
    progress: Progress,
) -> None:
    """Write the pending shards that are not held.

    committed: raise RawDataError if the file has other numbers for the existing ones.
    """
    place = writer.place
    name = f"features/{writer.place.stream}"
    pending = {*writer.pending} - held
    existing = set[int]()  # shards of a killed import are neither pending nor committed
    if committed is not None and place.stream in committed.streams:
        existing = {*committed.stream_shards(str(place.stream))} - held
    stored = match.arrays.mapped(match.array, place.store.folder(place.home))
    form = writer.columns[str(place.stream)]
    for n_done, shard in enumerate(
        chosen := sorted(pending) if committed is None else writer.live_shards
    ):
        progress(n_done, len(chosen), "features")
        own = np.asarray(writer.rows(shard))
        at, (first, last) = (
            np.full(len(own), -1, np.int64),
            np.searchsorted(match.rows, [own[0], own[-1] + 1]),
        )
        at[match.rows[first:last] - own[0]] = match.position[first:last]
        data, ok = _rows_at(match, stored.reshape(len(stored), *form.trailing), at, form.dtype)
        if shard in pending:
            # A row's key: the plan's identity, which names the file, and the row number.
            assert isinstance(writer.plan, Mapping)
            key = np.full(len(at), int(writer.plan["identity"][:16], 16), np.uint64)
            writer.write(shard, data, ok, np.stack([key, at.astype(np.uint64)], axis=1))
        elif committed is not None and shard in existing:
            had = committed.rows(f"{name}_ok", own[0], own[-1] + 1) == 1
            differs = (ok != had) | (
                ok & (data != committed.rows(name, own[0], own[-1] + 1)).any(axis=1)
            )
            if (bad := own[differs & writer.live(shard)]).size:
                track = committed.tracks.names[int(committed.track_of(bad[0]))]
                expected = f"unchanged rows of tracks that {name} has"
                found = f"other numbers of track {track}"
                raise RawDataError(match.arrays.file, match.array, expected, found, OTHER_NAME)


def _rows_at(
    match: _Match, stored: Array, at: Rows, dtype: np.dtype[Any]
) -> tuple[Array, NDArray[np.bool_]]:
    """Rows (n, dim) of the stored array in the stream's type, and whether they exist and are
    finite.
    """
    with reading(match.arrays.file, "numbers", key=match.array, do=AGAIN):
        read = stored[at[at >= 0]]
    if (
        read.dtype.kind in "iu"
        and (bad := np.argwhere((read > LARGEST_EXACT) | (read < -LARGEST_EXACT))).size
    ):
        found = f"{read[tuple(bad[0])]} in row {at[at >= 0][bad[0, 0]]}"
        do = "Write it as floats, if these may be rounded."
        raise RawDataError(
            match.arrays.file, match.array, expected="integers up to 2^24", found=found, do=do
        )
    data = np.zeros((len(at), stored.shape[1]), dtype)
    ok = at >= 0
    with np.errstate(over="ignore", invalid="ignore"):
        data[ok] = read
    ok &= np.isfinite(data).all(axis=1)
    data[~ok] = 0
    return data, ok


@dataclass(frozen=True, kw_only=True)
class Imported(Stream):
    """Numbers that `import` took from a file. Nothing computes them: plans refuse to extract
    missing rows.
    """

    dim: int = 2048  # type: ignore[misc]  # Numbers per row

    kind: ClassVar[str] = IMPORTED
    dtype: ClassVar[str] = "float32"

    @property
    def reads(self) -> Reads:
        return Reads()

    @property
    def needs(self) -> tuple[str, ...]:
        return ("frame_index", "bbox")  # motion without images trains without features

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Imported:  # noqa: ARG003  which names a file, and no width
        return cls()
