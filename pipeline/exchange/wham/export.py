"""A split as a file of WHAM's `dataset/parsed_data`.  tracks, features -> [files of other programs]

WHAM's code loads them by joblib: training rows and evaluation lists as tensors, AMASS's motions as arrays. Windows are
cut out of all rows of one `vid`, so each segment whose frames follow one another has a number of its own. An evaluation
list has an entry a track, its first frame twice. What a file cannot have is named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError, StandInMixed
from pipeline.exchange.formats import Exported
from pipeline.exchange.rows import (
    Has,
    Segments,
    checks_of,
    publish_with_provenance,
    recorded_stream,
    require_new_file,
    require_stream,
    segments_of,
    spans,
)
from pipeline.exchange.vibe_db.joblib_files import Blocks, Entry, write_joblib
from pipeline.exchange.wham.bodies import Bodies
from pipeline.exchange.wham.fields import Motions, RowFields
from pipeline.exchange.wham.layouts import FIELDS, LAYOUTS, NOT_DERIVED, REGRESSOR, Layout, file_field
from pipeline.features.streams.hmr2 import Hmr2
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.streams.world import Stationary
from pipeline.files.raw.stand_in import is_stand_in

USUAL: Final = ResNet50.kind  # the stream that `export` has where none is named
FINITE: Final = ("trans", "extrinsics", "intrinsics")  # columns that may lack values in some rows


@validated(frozen=True, config={"extra": "forbid"})
class WhamOptions:
    """--set: `body`, the folder of SMPL's files, and of J_regressor_wham.npy; `stationary`, the stream of contacts."""

    body: Path | None = None
    stationary: str = Stationary.kind


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = USUAL,
    replace: bool = False,
    progress: Progress = silent,
    options: WhamOptions | None = None,
) -> Exported:
    """Write the split `name` of the cache `root` to the file `out`, or into the folder `out` under WHAM's name.

    `stream`: of kind hmr2. Beside the file comes `<file>.provenance.json`. Raises cache.CacheError when there is no
    such split; PipelineError when WHAM has no file of it, when the stream is missing or stale, when nothing can be
    written, and when the file exists already without `replace`; StandInMixed for a demo body of real data, or the
    reverse; MissingAssets for files that the body's folder lacks.
    """
    options = options or WhamOptions()
    if name not in LAYOUTS:
        raise PipelineError(f"{name}: WHAM has no file of it. It has {', '.join(LAYOUTS)}.")
    layout, split = LAYOUTS[name], cache.open(root)[name]
    file = out / layout.file if out.is_dir() else out
    if file.suffix != ".pth":
        raise PipelineError(f"--out {file}: WHAM's files are called .pth: name it {layout.file}")
    require_new_file(file, replace=replace)
    bodies = _bodies(split, layout, options)
    notes = _stream_notes(split, layout, stream, options.stationary)
    rows = RowFields(split, layout, stream, "" if "stationaries" in notes else options.stationary, bodies)
    absent, checks = _absent(split, layout, rows, stream, notes)
    fields = tuple(field for field in layout.fields if field not in absent)
    segments = segments_of(split, checks)
    if layout.kind == "motions" and bodies is not None:
        motions = Motions(split, segments, bodies)
        segments = motions.segments
        entries, n_names = _motions(motions, progress), len(segments.start)
    elif layout.kind == "sequences":
        entries, n_names = _sequences(segments, rows, fields, progress), len(np.unique(segments.track))
    else:
        entries, n_names = _videos(segments, rows, fields, progress), len(segments.start)
    if not segments.rows:
        why = ", ".join(f"{n:,} rows have {need}" for need, n in segments.left_out.items()) or "it has no tracks"
        raise PipelineError(f"{name}: nothing to export: {why}")
    used = [s for field, s in (("features", stream), ("stationaries", rows.stationary)) if field in fields and s]
    streams = {used_stream: recorded_stream(split, used_stream) for used_stream in used}
    demo = [split.manifest.get("stand_in", False), *(recorded["stand_in"] for recorded in streams.values())]
    n_rows = sum(array.shape[0] for array in _arrays(entries["pose" if "pose" in entries else "bbox"]))
    absent_in_file = {file_field(f): layout.reason(f, why) for f, why in {**absent, **notes}.items()}
    provenance = {
        "format": "wham",
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": split.name,
        "split_digest": split.manifest["digest"],
        "streams": streams,
        "body": bodies.digest if bodies else None,
        "kp2d": f"of the dataset: {datasets.get(name.partition('/')[0]).keypoints_from}",
        "fields": {field: _described(entry) for field, entry in entries.items()},
        "rows": n_rows,
        "left_out": dict(segments.left_out),
        "absent": absent_in_file,
        "stand_in": any(demo),
    }
    write = functools.partial(write_joblib, entries=entries, tensors=layout.kind != "motions")
    publish_with_provenance(file, write, provenance)
    summary = f"{count(n_rows, 'row')} in {count(n_names, 'sequence')}"
    return Exported(file, n_rows, summary, absent_in_file, segments.left_out, any(demo))


def _bodies(split: cache.Split, layout: Layout, options: WhamOptions) -> Bodies | None:
    """Raises StandInMixed, and PipelineError for motions without a body."""
    if options.body is None:
        if layout.kind == "motions":
            do = "--set body=DIR names the folder of SMPL's files"
            raise PipelineError(f"{split.name}: a motion begins with its lowest vertex on the ground: {do}")
        return None
    kinds = {True: "demo data", False: "real data"}
    of_split, of_body = bool(split.manifest.get("stand_in", False)), is_stand_in(options.body)
    if of_split != of_body:
        found = f"{split.name} is {kinds[of_split]}, but the body in {options.body} is {kinds[of_body]}"
        raise StandInMixed(f"--set body: {found}: joints made from both would mean nothing")
    return Bodies(options.body)


def _stream_notes(split: cache.Split, layout: Layout, stream: str, stationary: str) -> dict[str, str]:
    """Why `features` are absent, and `stationaries` not known. Raises PipelineError for a stream that lags behind."""
    kinds = {s: (split.stream_manifest(s).get("identity") or {}).get("kind") for s in split.streams}
    notes = {}
    if "features" in layout.fields and kinds.get(stream) != Hmr2.kind:
        if stream != USUAL and stream not in kinds:
            require_stream(split, stream)
        tokens = ", ".join(s for s in kinds if kinds[s] == Hmr2.kind) or f"none; extract one with --kind {Hmr2.kind}"
        notes["features"] = f"{stream!r} is no stream of kind {Hmr2.kind} (--stream); there are: {tokens}"
    elif "features" in layout.fields:
        require_stream(split, stream)
    if "stationaries" in layout.fields and kinds.get(stationary) != Stationary.kind:
        notes["stationaries"] = (
            f"-1, not known, in all rows: no stream of kind {Stationary.kind} is called {stationary!r}"
        )
    elif "stationaries" in layout.fields:
        require_stream(split, stationary)
    return notes


def _absent(
    split: cache.Split, layout: Layout, rows: RowFields, stream: str, notes: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Has]]:
    """Field of the layout that cannot be written -> why; and what rows must have for the others."""
    absent = {field: why for field, why in notes.items() if field == "features"}
    body, has_regressor = rows.bodies, rows.bodies is not None and rows.bodies.regressor is not None
    for field in layout.fields:
        if field in NOT_DERIVED:
            absent[field] = f"needs {NOT_DERIVED[field]}"
        elif missing := [c for c in FIELDS[field].columns if c not in (*split.columns, "intrinsics")]:
            absent[field] = f"the split has no {' and no '.join(missing)}"
        elif FIELDS[field].body and (body is None or (FIELDS[field].body == REGRESSOR and not has_regressor)):
            absent[field] = f"needs {FIELDS[field].body}: --set body=DIR"
    needs = {field: _needs(field) for field in layout.fields if field not in absent}
    labels = checks_of(split, "kp_3d", stream)
    checks = {need: labels.get(need) or rows.has(need) for need in sorted(set().union(*needs.values()))}
    for need in list(checks):
        parts = spans(split.tracks.start, split.tracks.stop)
        if len(split.tracks) and not any(checks[need](start, stop).any() for start, stop in parts):
            absent |= {field: f"in no row ({need})" for field in needs if need in needs[field]}
            del checks[need]
    used = set().union(*(needs[field] for field in needs if field not in absent))
    always = {layout.rows_with: rows.has(layout.rows_with)} if layout.rows_with else {}
    return absent, always | {need: has for need, has in checks.items() if need in used}


def _needs(field: str) -> set[str]:
    """What a row must have for a field."""
    return {*FIELDS[field].rows_with, *(f"no {column}" for column in FIELDS[field].columns if column in FINITE)}


def _videos(segments: Segments, rows: RowFields, fields: Sequence[str], progress: Progress) -> dict[str, Entry]:
    """Arrays of the rows of all segments; `vid` is the segment's number."""
    ranges, written = list(spans(segments.start, segments.stop)), _Counter(len(fields) * segments.rows, progress)

    def numbers(start: int, stop: int) -> NDArray[np.int64]:
        return np.searchsorted(segments.start, np.arange(start, stop), side="right") - 1

    computed = {**rows.computed, "vid": numbers}
    return {file_field(f): _blocks(f, computed[f], ranges, written) for f in fields} if ranges else {}


def _sequences(segments: Segments, rows: RowFields, fields: Sequence[str], progress: Progress) -> dict[str, Entry]:
    """Lists with an entry a track: its segments one behind the other, after its first frame once more."""
    entries: dict[str, list[Blocks | str]] = {field: [] for field in fields}
    written = _Counter(len(fields) * segments.rows, progress)
    for number in np.unique(segments.track).tolist():
        track, of = rows.split.tracks[number], segments.track == number
        first = int(segments.start[of][0])
        ranges = [(first, first + 1), *spans(segments.start[of], segments.stop[of])]
        # 3DPW's are <sequence>_<person>, EMDB's <P0..9>_<sequence>.
        name = track.video if rows.dataset == "emdb" else track.name
        texts = {"vid": name.replace("/", "_"), "gender": track.gender}
        for field in fields:
            text = texts.get(field)
            entries[field].append(_blocks(field, rows.computed[field], ranges, written) if text is None else text)
    return {**entries}


def _motions(motions: Motions, progress: Progress) -> dict[str, Entry]:
    """Arrays of the frames of all motions at 30 fps."""
    lengths = [len(motions.positions(number)) for number in range(len(motions.names))]
    written, texts = _Counter(4 * sum(lengths), progress), np.array(motions.names)
    computed: dict[str, tuple[Callable[[int], NDArray[Any]], np.dtype[Any], int]] = {
        "vid": (lambda number: np.repeat(texts[number], lengths[number]), texts.dtype, 0),
        "pose": (motions.pose, np.dtype("<f4"), 72),
        "betas": (motions.betas, np.dtype("<f4"), 10),
        "transl": (motions.transl, np.dtype("<f4"), 3),
    }

    def blocks(field: str) -> Iterator[NDArray[Any]]:
        compute, dtype, _ = computed[field]
        for number, length in enumerate(lengths):
            yield compute(number).astype(dtype, copy=False)
            written.add(length, field)

    return {
        field: Blocks((sum(lengths), *([width] if width else [])), dtype, functools.partial(blocks, field))
        for field, (_, dtype, width) in computed.items()
    }


class _Counter:
    """Reports how many rows of all fields are written."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def add(self, rows: int, field: str) -> None:
        self.done += rows
        self.progress(self.done, max(self.total, self.done), field)


def _blocks(
    field: str, compute: Callable[[int, int], Any], ranges: Sequence[tuple[int, int]], written: _Counter
) -> Blocks:
    """The rows of all ranges, one behind the other."""
    dtype, (first, _) = np.dtype(FIELDS[field].dtype), ranges[0]

    def blocks() -> Iterator[NDArray[Any]]:
        for start, stop in ranges:
            yield np.asarray(compute(start, stop)).astype(dtype, copy=False)
            written.add(stop - start, field)

    n_rows = sum(stop - start for start, stop in ranges)
    return Blocks((n_rows, *np.shape(compute(first, first + 1))[1:]), dtype, blocks)


def _arrays(entry: Entry) -> list[Blocks]:
    return [item for item in ([entry] if isinstance(entry, Blocks) else entry) if isinstance(item, Blocks)]


def _described(entry: Entry) -> list[Any]:
    """Type and shape of an array; of a list, its length and those of its first entry."""
    if isinstance(entry, Blocks):
        return [entry.dtype.str, list(entry.shape)]
    return [len(entry), *(_described(entry[0]) if isinstance(entry[0], Blocks) else ["text"])]
