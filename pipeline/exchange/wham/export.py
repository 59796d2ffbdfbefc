"""A split as a file of WHAM's `dataset/parsed_data`.  tracks, features -> [files of other programs]

In comes a split of the cache, with its streams of features and contacts and, for some fields,
SMPL's files. Out goes the one file that WHAM expects for this split, which its code loads with
joblib. The file has one of three kinds: `videos`, training rows as tensors; `sequences`, evaluation
lists of tensors with one entry per track, whose first frame stands there twice; `motions`, AMASS's
motions as arrays. WHAM cuts its windows from all rows with one `vid`, so each segment of
consecutive frames has a number of its own. Fields that cannot be written are reported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.exchange.formats import Exported, publish_with_provenance, require_new_file
from pipeline.exchange.rows import (
    Check,
    Segments,
    absent_fields,
    array_of,
    checks_of,
    counting,
    origin_of,
    recorded_stream,
    require_stream,
    segments_of,
    spans,
)
from pipeline.exchange.vibe_db.joblib_files import Blocks, write_joblib
from pipeline.exchange.wham.bodies import Bodies
from pipeline.exchange.wham.fields import Compute, RowFields
from pipeline.exchange.wham.layouts import (
    FIELDS,
    LAYOUTS,
    NOT_DERIVED,
    SMPL_FILES,
    WHAM_REGRESSOR,
    FileLayout,
    file_field,
)
from pipeline.exchange.wham.motions import MotionFields, find_motions
from pipeline.features.streams.network import ResNet50
from pipeline.features.streams.world import Hmr2, Stationary
from pipeline.files.raw import is_stand_in, refuse_mixture

USUAL: Final = ResNet50.kind  # default stream of `export`


@validated(frozen=True, config={"extra": "forbid"})
class WhamOptions:
    """Options: `body`, the folder of SMPL's files and J_regressor_wham.npy; `stationary`, the
    stream of contacts.
    """

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
    options: WhamOptions = WhamOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the split `name` in the cache `root` to the file `out`, or into the folder `out` under
    WHAM's name; and where it comes from to `<file>.provenance.json`. stream: of kind hmr2.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: WHAM has no file for the split; the stream is missing or out of date; no row
            can be exported; the file exists and `replace` is False.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: files are missing in the body's folder.
    """
    if name not in LAYOUTS:
        raise PipelineError(
            f"{name}: WHAM has no file for this split. Choose one of {', '.join(LAYOUTS)}."
        )
    layout = LAYOUTS[name]
    split = cache.open(root)[name]
    file = _file_of(out, layout)
    require_new_file(file, replace=replace)
    bodies = _bodies(split, layout, options)
    notes = _stream_notes(split, layout, stream, options.stationary)
    stationary = options.stationary
    if "stationaries" in notes:
        stationary = ""
    rows = RowFields(split, stream, stationary, bodies)
    absent, checks = _absent(split, layout, rows, stream, notes)
    fields = [field for field in layout.fields if field not in absent]
    content = _arrange(layout, rows, segments_of(split, checks))
    segments = content.segments
    segments.require_rows(split)

    entries = _entries(fields, content, layout, progress)
    reasons = {file_field(f): layout.reason(f, why) for f, why in {**absent, **notes}.items()}
    used = []
    if "features" in fields:
        used.append(stream)
    if "stationaries" in fields and stationary:
        used.append(stationary)
    provenance = _provenance(rows, used) | {
        "fields": sorted(entries),
        "rows": content.n_rows,
        "left_out": dict(segments.left_out),
        "absent": reasons,
    }
    write = functools.partial(write_joblib, entries=entries, tensors=layout.kind != "motions")
    publish_with_provenance(file, write, provenance)
    sequences = content.parts if layout.kind == "sequences" else segments.start
    summary = f"{count(content.n_rows, 'row')} in {count(len(sequences), 'sequence')}"
    stand_in = provenance["stand_in"]
    return Exported(file, content.n_rows, summary, reasons, segments.left_out, stand_in)


def _file_of(out: Path, layout: FileLayout) -> Path:
    """The file to write: `out`, or the file with WHAM's name in the folder `out`. Raises
    PipelineError for another suffix than WHAM's.
    """
    file = out
    if out.is_dir():
        file = out / layout.file
    if file.suffix != ".pth":
        raise PipelineError(
            f"--out {file}: WHAM's files have the suffix .pth. Name it {layout.file}."
        )
    return file


def _arrange(layout: FileLayout, rows: RowFields, segments: Segments) -> _Content:
    """Decide in which parts the rows of the segments are written, and how fields are computed."""
    if layout.kind == "motions":
        assert rows.bodies is not None  # `_bodies` requires them for motions
        motions = find_motions(rows.split, segments)
        fields = MotionFields(motions, rows.bodies)
        pieces = [(number, number + 1) for number in range(len(motions.names))]
        parts = [_FilePart(pieces, int(motions.lengths.sum()), {})]
        return _Content(motions.segments, parts, fields.computed)
    computed = {**rows.computed, "vid": segments.numbers}
    return _Content(segments, _parts(layout, segments, rows), computed)


def _provenance(rows: RowFields, used: Sequence[str]) -> dict[str, Any]:
    """Where the content comes from, as `<file>.provenance.json` has it. used: streams."""
    digests = {}
    if rows.bodies is not None:
        digests = rows.bodies.digests()
    return {
        **origin_of(rows.split, *used),
        "format": "wham",
        "streams": {stream: recorded_stream(rows.split, stream) for stream in used},
        "body": digests,
        "kp2d": f"of the dataset: {datasets.get(rows.dataset).labels.keypoints_from}",
    }


def _bodies(split: cache.Split, layout: FileLayout, options: WhamOptions) -> Bodies | None:
    """Load the bodies. Raises StandInMixed, and PipelineError for motions without a body."""
    if options.body is None:
        if layout.kind == "motions":
            do = "Name the folder of SMPL's files: --body DIR"
            raise PipelineError(
                f"{split.name}: motions need a body to place their lowest vertex on the ground. "
                f"{do}"
            )
        return None
    if not options.body.is_dir():
        raise PipelineError(f"--body: folder {options.body} not found")
    stand_in = bool(split.manifest.get("stand_in"))
    refuse_mixture(split.name, stand_in, options.body, is_stand_in(options.body), option="--body")
    return Bodies(options.body)


def _stream_notes(
    split: cache.Split, layout: FileLayout, stream: str, stationary: str
) -> dict[str, str]:
    """Why `features` are absent and `stationaries` unknown. Raises PipelineError for a stream that
    is out of date.
    """
    notes = {}
    if "features" in layout.fields:
        note = _missing_stream(split, stream, Hmr2.kind)
        if note:
            notes["features"] = note
            if stream != USUAL:
                raise PipelineError(f"{split.name}: {note}")
    if "stationaries" in layout.fields:
        note = _missing_stream(split, stationary, Stationary.kind)
        if note:
            notes["stationaries"] = f"-1 (unknown) in all rows: {note}"
    return notes


def _missing_stream(split: cache.Split, name: str, kind: str) -> str:
    """Why there is no stream of this name and kind; "" if there is one. Raises PipelineError if it
    is out of date.
    """
    of_kind = []
    for stream in split.streams:
        identity = split.stream_manifest(stream).get("identity") or {}
        if identity.get("kind") == kind:
            of_kind.append(stream)
    if name in of_kind:
        require_stream(split, name)
        return ""
    existing = ", ".join(of_kind) or f"none; extract one with --kind {kind}"
    return f"no stream of kind {kind} has the name {name!r} (existing ones: {existing})"


def _absent(
    split: cache.Split, layout: FileLayout, rows: RowFields, stream: str, notes: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Check]]:
    """Fields of the layout that cannot be written -> why; and the checks that rows must pass for
    the others.
    """
    absent = {field: why for field, why in notes.items() if field == "features"}
    for name in layout.fields:
        if name in NOT_DERIVED:
            absent[name] = f"needs {NOT_DERIVED[name]}"
    fields = {name: FIELDS[name] for name in layout.fields if name not in absent}
    missing = []
    if rows.bodies is None:
        missing = [SMPL_FILES, WHAM_REGRESSOR]
    elif rows.bodies.regressor is None:
        missing = [WHAM_REGRESSOR]
    for name, field in fields.items():
        if field.body in missing:
            absent[name] = f"needs {field.body}: --body DIR"

    checks = checks_of(split, "kp_3d", stream)
    for field in fields.values():
        for need in field.checks:
            checks.setdefault(need, functools.partial(rows.has, need))
    absent |= absent_fields(split, fields, checks)
    needs = set[str]()
    for name, field in fields.items():
        if name not in absent:
            needs.update(field.checks)
    always: dict[str, Check] = {}
    if layout.rows_with:
        always[layout.rows_with] = functools.partial(rows.has, layout.rows_with)
    return absent, always | {need: checks[need] for need in sorted(needs)}


class _FilePart(NamedTuple):
    """Content of an array, or of a list's entry."""

    # ranges [start, stop) of rows or motions, each computed at once
    pieces: Sequence[tuple[int, int]]
    rows: int
    texts: Mapping[str, str]  # text entries


class _Content(NamedTuple):
    """What is written: the rows, in parts, and how each field is computed from them."""

    segments: Segments
    parts: Sequence[_FilePart]
    computed: Mapping[str, Compute]

    @property
    def n_rows(self) -> int:
        return sum(part.rows for part in self.parts)


def _parts(layout: FileLayout, segments: Segments, rows: RowFields) -> list[_FilePart]:
    """One part with all rows; for evaluation lists, one per track, with its first row twice."""
    if layout.kind == "videos":
        return [_FilePart([*spans(segments.start, segments.stop)], segments.n_rows, {})]
    parts = []
    for number in np.unique(segments.track).tolist():
        track = rows.split.tracks[number]
        of_track = segments.track == number
        start = segments.start[of_track]
        stop = segments.stop[of_track]
        first = int(start[0])
        pieces = [(first, first + 1), *spans(start, stop)]
        # 3DPW: <sequence>_<person>, EMDB: <P0..9>_<sequence>.
        name = track.video if rows.dataset == "emdb" else track.name
        texts = {"vid": name.replace("/", "_"), "gender": track.gender}
        parts.append(_FilePart(pieces, 1 + int((stop - start).sum()), texts))
    return parts


def _entries(
    fields: Sequence[str], content: _Content, layout: FileLayout, progress: Progress
) -> dict[str, Any]:
    """The file's entries by their names in it. Their numbers are computed when they are written."""
    add = counting(progress, len(fields) * content.n_rows)
    entries: dict[str, Any] = {}
    for field in fields:
        dtype: str | None = FIELDS[field].dtype
        if (layout.kind, field) == ("motions", "vid"):
            dtype = None  # texts
        add_rows = functools.partial(add, field)
        items: list[Blocks | str] = []
        for part in content.parts:
            if field in part.texts:
                items.append(part.texts[field])
            else:
                compute = content.computed[field]
                items.append(array_of(compute, part.pieces, part.rows, dtype, add_rows))
        entries[file_field(field)] = items if layout.kind == "sequences" else items[0]
    return entries
