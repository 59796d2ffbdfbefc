"""Import of any array as a stream of an existing split.  [files] -> features

In comes a file with one row of numbers for each frame of a person, computed elsewhere; out goes a
stream of the split. Rows are matched by track and frame, or by position. Rows that the file does
not have, or whose numbers are not finite, have no features: windows leave them out.

The same file may be imported again, for tracks that the split got since. Another file replaces all
rows. The manifest records for each file that was ever imported the images of its videos then
(`_pixels_of`): a video with other images has no row in that file any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

import cache
from cache.format.tags import refuse_tagged
from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.extras.exchange.array_rows import BY_NAMES, NO_FILE_ROW, GivenArray, Match
from pipeline.features.committed import IMPORTED, is_current
from pipeline.features.streams.base import Reads, Stream
from pipeline.steps.extraction.stream_extraction import require_same_commit
from pipeline.steps.grading import announce_grades, store_grades

FORMAT: Final = "arrays"  # in the manifest of a stream that is of an imported array
VERSION: Final = 1  # raised whenever the same file would give different numbers
OTHER_NAME: Final = "Use another name (--as NAME)."


@dataclass(frozen=True, slots=True)
class _ImportedArray:
    """Result of an import."""

    rows: int  # of the split
    covered: int  # of them in the file
    without_features: int  # rows that are missing in the file, or not finite
    matched_by: str
    stand_in: bool  # random weights
    is_written: bool = True  # False: it was up to date
    replaced: tuple[str, ...] = ()  # videos with other images than at the file's first import


def import_array(
    file: Path,
    root: cache.Root,
    name: str,
    stream: str,
    *,
    array: str | None = None,
    progress: Progress = silent,
) -> _ImportedArray:
    """Write an array (n, ...) of the file as a stream of the split `name`: float16, else float32.

    An existing stream gets the rows of new tracks; another file replaces all of its rows.

    Args:
        file: npy, npz, safetensors, Parquet, joblib, HDF5, or the folder of a Parquet export.
        array: None: the only one, or `features`.

    Raises:
        RawDataError: the file is invalid; a row is missing, repeated or of no track.
        PipelineError: the stream is not of an array; the split has changed since the first import,
            and the file has no track names.
        cache.CacheError: the split is missing, or another process writes the stream.
    """
    source_array = GivenArray.open(file, array)
    split = cache.open(root)[name]
    identity = _identity(source_array)
    source = _source(source_array)

    # compared before rows are matched, which is slow: a stream that is up to date needs no match
    earlier = _EarlierImport.find(split, stream)
    is_same_origin = earlier.origin(source) == identity | source
    replaced = earlier.replaced_videos(split, source_array.file.sha256)
    names = tuple(split.videos[number].name for number in replaced)
    if is_same_origin and is_current(split, stream):
        store_grades(root, name, stream)  # of an import that was killed
        return replace(_result(split, stream), is_written=False, replaced=names)
    earlier.require_array(split, stream)

    match = source_array.match(split)
    earlier.require_same_rows(split, stream, match)
    if match.digest is not None:
        source["rows_digest"] = match.digest
    pixels = _leave_out(match, split, replaced)
    if earlier.manifest and not is_same_origin:
        refuse_tagged(split.place(stream))
        cache.invalidate(root, name, stream, split.open_stream(stream).shards)

    plan = cache.fingerprint(identity | source)
    with match.open_writer(root, name, stream, plan, _dtype_of(match)) as writer:
        require_same_commit(writer.shards, split)
        match.write_shards(writer, int(plan[:16], 16), progress)
        source_array.file.require_unchanged()
        source["files"] = earlier.merge_files(source_array.file.sha256, pixels)
        entries = _manifest_entries(split, match, identity, source)
        announce_grades(root, name, stream)
        writer.commit(entries, note={IMPORTED: str(source_array.arrays.file.resolve())})
    store_grades(root, name, stream, progress=progress)
    return replace(_result(cache.open(root)[name], stream), replaced=names)


def _identity(source_array: GivenArray) -> dict[str, Any]:
    """What names a stream of the array's file."""
    return {
        "kind": IMPORTED,
        "version": VERSION,
        "file_sha256": source_array.file.sha256,
        "weights": None,
    }


def _source(source_array: GivenArray) -> dict[str, Any]:
    """What else decides the stream's rows."""
    return {
        "format": FORMAT,
        "array": source_array.name,
        "matched_by": source_array.matched_by,
    }


def _dtype_of(match: Match) -> str:
    is_half = match.arrays.open(match.array).dtype.str[1:] == "f2"
    return "float16" if is_half else "float32"


class _EarlierImport(NamedTuple):
    """What a stream's manifest says of its imports; {} for a new stream."""

    manifest: Mapping[str, Any]

    @classmethod
    def find(cls, split: cache.Split, stream: str) -> _EarlierImport:
        if stream not in split.streams:
            return cls({})
        return cls(split.open_stream(stream).manifest)

    @property
    def source(self) -> Mapping[str, Any]:
        source: Mapping[str, Any] = self.manifest.get(IMPORTED, {})
        return source

    def origin(self, keys: Iterable[str]) -> dict[str, Any]:
        """The identity, and these entries of the source."""
        identity: dict[str, Any] = self.manifest.get("identity", {})
        return identity | {key: self.source.get(key) for key in keys}

    def _first_pixels(self, sha256: str) -> Mapping[str, str]:
        """The images (`_pixels_of`) of videos at the first import of a file."""
        pixels: Mapping[str, str] = self.source.get("files", {}).get(sha256, {})
        return pixels

    def merge_files(self, sha256: str, pixels: Mapping[str, str]) -> dict[str, Any]:
        """The source's entry "files", with the images of videos that a file is imported for now."""
        files = self.source.get("files", {})
        return {**files, sha256: {**pixels, **self._first_pixels(sha256)}}

    def replaced_videos(self, split: cache.Split, sha256: str) -> list[int]:
        """Numbers of the videos whose images are others than at a file's first import."""
        first_pixels = self._first_pixels(sha256)
        numbers = []
        for number, entry in enumerate(split.videos):
            pixels = _pixels_of(entry)
            if first_pixels.get(entry.name, pixels) != pixels:
                numbers.append(number)
        return numbers

    def require_array(self, split: cache.Split, stream: str) -> None:
        """Raise PipelineError for a stream that is not of an imported array."""
        if self.manifest and self.source.get("format") != FORMAT:
            raise PipelineError(
                f"{split.name}: stream {stream!r} was not imported from an array. {OTHER_NAME}"
            )

    def require_same_rows(self, split: cache.Split, stream: str, match: Match) -> None:
        """Raise PipelineError if rows match by position, and the split's have changed since the
        first import.
        """
        if self.manifest and match.digest not in (None, self.source.get("rows_digest")):
            raise PipelineError(
                f"{split.name}: the split has changed since {stream!r} was imported, and the file "
                f"has no track names. Match by them: {BY_NAMES}"
            )


def _leave_out(match: Match, split: cache.Split, replaced: Sequence[int]) -> dict[str, str]:
    """Give the rows of the replaced videos no row of the file. Returns the images (`_pixels_of`) of
    each video with rows in the file.
    """
    videos = split.tracks.video[split.track_of(match.rows)]
    match.position[np.isin(videos, replaced)] = NO_FILE_ROW
    covered = [split.videos[n] for n in np.unique(videos[match.position >= 0]).tolist()]
    return {entry.name: _pixels_of(entry) for entry in covered}


def _pixels_of(entry: cache.VideoEntry) -> str:
    """Fingerprint of a video's images, or of its raw files if it has none."""
    return (entry.pixels or entry.fingerprint)[:16]


def _manifest_entries(
    split: cache.Split,
    match: Match,
    identity: Mapping[str, Any],
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Entries of the stream's manifest."""
    arrays = match.arrays
    numbers = arrays.open(match.array)
    about = {
        "file": arrays.file.name,
        "container": arrays.format,
        "dtype": str(numbers.dtype),
        "shape": [*numbers.shape],
        "rows": len(match.rows),
        "covered": int((match.position >= 0).sum()),
    }
    is_demo = split.manifest["stand_in"]
    is_untrained = arrays.stand_in and not is_demo
    return {
        "identity": identity,
        IMPORTED: {**source, **about},
        "backbone": {"weights": None, "sha256": None, "stand_in": is_untrained},
        "stand_in": bool(arrays.stand_in or is_demo),
    }


def _result(split: cache.Split, stream: str) -> _ImportedArray:
    """The result, with the numbers of the stream's manifest."""
    recorded = split.open_stream(stream).manifest
    about = recorded[IMPORTED]
    return _ImportedArray(
        rows=about["rows"],
        covered=about["covered"],
        without_features=split.open_stream(stream).undecodable(),
        matched_by=about["matched_by"],
        stand_in=bool(recorded["backbone"]["stand_in"]),
    )


@dataclass(frozen=True, kw_only=True)
class Imported(Stream):
    """Numbers that `import` took from a file. Nothing computes them: plans refuse to extract
    missing rows.
    """

    dim: int = 2048  # type: ignore[misc]  # Numbers per row, at least 1

    kind: ClassVar[str] = IMPORTED
    uses: ClassVar[dict[str, int]] = {}
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
