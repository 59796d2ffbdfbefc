"""A split as a database file that existing code reads.  tracks, features -> [database files]

Streamed: a block of rows of one field at a time, into a file beside, which gets its name when it is whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.features import extract
from pipeline.raw.digests import whole_file_digest
from pipeline.skeletons import joint_names
from pipeline.vibe_db.fields import Fields, absent_fields, known_rows
from pipeline.vibe_db.joblib_writer import Blocks, checked_blocks, write_joblib
from pipeline.vibe_db.layouts import Layout, layout_of, usual_name
from pipeline.vibe_db.provenance import beside, write_provenance
from pipeline.vibe_db.segments import Segments, segments_of


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    file: Path
    rows: int
    names: int  # different vid_names: tracks, or stretches of them
    fields: tuple[str, ...]
    absent: Mapping[str, str]  # field that existing code may look for -> why it is not there
    left_out: Mapping[str, int]  # what rows lack -> how many were left out for it
    stand_in: bool


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "resnet50",
    replace: bool = False,
    progress: Progress = silent,
) -> Exported:
    """Write the split `name` of the cache `root` to the file `out`, or into the folder `out` under its usual name.

    Beside it comes `<file>.provenance.json`. Raises cache.CacheError when the split is not there, PipelineError when
    the stream is not, or lags behind, when nothing can be written, and when there is a file already without `replace`.
    """
    split = cache.open(root)[name]
    dataset, _, part = name.partition("/")
    layout = layout_of(dataset, part, split.columns)
    file = out / usual_name(layout, dataset, part) if out.is_dir() else out
    _check_file(file, layout, replace=replace)
    if "features" in layout.fields:
        _check_stream(split, stream)
    absent = absent_fields(split, layout, stream)
    _check_labels(split, absent)
    fields = tuple(field for field in layout.fields if field not in absent)
    segments = segments_of(split, known_rows(split, layout, stream, fields))
    if not segments.rows:
        why = ", ".join(f"{n:,} rows have {what}" for what, n in segments.left_out.items()) or "it has no tracks"
        raise PipelineError(f"{name}: nothing to export: {why}")
    arrays = Fields(split, layout, segments, stream).arrays(fields)
    digest = _write(file, layout, arrays, progress)
    stand_in = bool(split.manifest.get("stand_in", False))
    told = _provenance(split, layout, segments, arrays, stream, absent)
    stand_in = stand_in or bool(told["stream"] and told["stream"]["stand_in"])
    write_provenance(file, {**told, "file": file.name, "sha256": digest, "stand_in": stand_in})
    _part(file).replace(file)  # last: a file of this name always has its provenance
    return Exported(file, segments.rows, len(segments.start), fields, absent, segments.left_out, stand_in)


def _check_file(file: Path, layout: Layout, *, replace: bool) -> None:
    if not file.parent.is_dir():
        raise PipelineError(f"--out {file}: there is no folder {file.parent}. Make it, or name another.")
    if (layout.container == "hdf5") != (file.suffix in (".h5", ".hdf5")):
        kind = "HDF5: name it .h5" if layout.container == "hdf5" else "a joblib file: name it .pt"
        raise PipelineError(f"--out {file}: existing code reads this dataset from {kind}")
    if not replace and file.exists():
        raise PipelineError(f"--out {file}: is there already. Name another file, or say --replace.")


def _check_stream(split: cache.Split, stream: str) -> None:
    if stream not in split.streams:
        there = ", ".join(split.streams) or "none"
        raise PipelineError(f"{split.name}: has no stream {stream!r}; there are: {there}. Extract it first.")
    if not extract.is_current(split, stream):
        raise PipelineError(f"{split.name}: the stream {stream!r} lags behind the tracks. Extract it first.")


def _check_labels(split: cache.Split, absent: Mapping[str, str]) -> None:
    if lost := [field for field in ("joints2D", "bbox", "theta") if field in absent]:
        raise PipelineError(f"{split.name}: cannot be exported without {lost[0]}: {absent[lost[0]]}")


def _part(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


def _write(file: Path, layout: Layout, arrays: Mapping[str, Blocks], progress: Progress) -> str:
    """Write everything beside the file; its sha256."""
    total, done = sum(array.shape[0] for array in arrays.values()), 0

    def written(field: str, rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total, field)

    part = _part(file)
    try:
        if layout.container == "hdf5":
            _write_hdf5(part, arrays, written)
            return whole_file_digest(part)
        with part.open("wb") as stream:
            hashed = _Hashed(stream)
            write_joblib(hashed, arrays, written)
            stream.flush()
            os.fsync(stream.fileno())
        return hashed.digest.hexdigest()
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, data: Any) -> None:
        self.stream.write(data)
        self.digest.update(data)


def _write_hdf5(file: Path, arrays: Mapping[str, Blocks], written: Callable[[str, int], None]) -> None:
    with h5py.File(file, "w") as stored:
        for name, array in arrays.items():
            dataset = stored.create_dataset(name, array.shape, array.dtype)
            at = 0
            for block in checked_blocks(name, array):
                dataset[at : at + len(block)] = block
                at += len(block)
                written(name, len(block))
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _provenance(
    split: cache.Split,
    layout: Layout,
    segments: Segments,
    arrays: Mapping[str, Blocks],
    stream: str,
    absent: Mapping[str, str],
) -> dict[str, Any]:
    scales = np.unique(split.tracks.crop_scale[segments.track]).tolist()
    told: dict[str, Any] = {
        "format": "vibe",
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": split.name,
        "split_digest": split.manifest["digest"],
        "stream": None,
        "rows": segments.rows,
        "names": len(segments.start),
        "fields": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        "absent": dict(absent),
        "left_out": dict(segments.left_out),
        "crop_scale": scales[0] if len(scales) == 1 else None,
    }
    skeletons = {"joints2D": layout.joints_2d, "joints3D": layout.joints_3d}
    told["joints"] = {field: list(joint_names(skeletons[field])) for field in skeletons if field in arrays}
    if "features" in arrays:
        manifest = split.stream_manifest(stream)
        kept = {key: manifest.get(key) for key in ("identity", "backbone", "stand_in")}
        told["stream"] = {"name": stream, "digest": manifest["digest"], **kept}
    return told


__all__ = ["Exported", "beside", "export"]
