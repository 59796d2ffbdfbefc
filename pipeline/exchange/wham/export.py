"""A split as a file of WHAM's `dataset/parsed_data`.  tracks, features -> [files of other programs]

WHAM's code loads these files with joblib: training rows and evaluation lists as tensors, AMASS's
motions as arrays. It cuts windows from all rows with one `vid`, so each segment of consecutive
frames has its own number. An evaluation list has one entry per track, with the first frame twice.
Missing fields are reported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.exchange.formats import Exported, publish_with_provenance, require_new_file
from pipeline.exchange.rows import (
    Has,
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
from pipeline.exchange.vibe_db.joblib_files import Blocks, Entry, write_joblib
from pipeline.exchange.wham.fields import Bodies, Compute, Motions, RowFields
from pipeline.exchange.wham.layouts import (
    FIELDS,
    LAYOUTS,
    NOT_DERIVED,
    PELVIS,
    REGRESSOR,
    FileLayout,
    file_field,
)
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
    options: WhamOptions | None = None,
) -> Exported:
    """Write the split `name` in the cache `root` to the file `out`, or into the folder `out` under
    WHAM's name.

    Also writes `<file>.provenance.json`. stream: of kind hmr2.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: WHAM has no file for the split; the stream is missing or out of date; no row
            can be exported; the file exists and `replace` is False.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: files are missing in the body's folder.
    """
    options = options or WhamOptions()
    if name not in LAYOUTS:
        raise PipelineError(
            f"{name}: WHAM has no file for this split. Choose one of {', '.join(LAYOUTS)}."
        )
    layout = LAYOUTS[name]
    split = cache.open(root)[name]
    file = out / layout.file if out.is_dir() else out
    if file.suffix != ".pth":
        raise PipelineError(
            f"--out {file}: WHAM's files have the suffix .pth. Name it {layout.file}."
        )
    require_new_file(file, replace=replace)
    bodies = _bodies(split, layout, options)
    notes = _stream_notes(split, layout, stream, options.stationary)
    rows = RowFields(split, stream, "" if "stationaries" in notes else options.stationary, bodies)
    absent, checks = _absent(split, layout, rows, stream, notes)
    fields = tuple(field for field in layout.fields if field not in absent)
    segments = segments_of(split, checks)
    motions = (
        Motions(split, segments, bodies)
        if layout.kind == "motions" and bodies is not None
        else None
    )
    segments = segments if motions is None else motions.segments
    segments.require_rows(split)
    parts = _parts(layout, segments, rows, motions)
    computed = {**rows.computed, "vid": segments.numbers} if motions is None else motions.computed
    entries = _entries(fields, parts, layout, computed, progress)
    absent_in_file = {
        file_field(f): layout.reason(f, why) for f, why in {**absent, **notes}.items()
    }
    used = [
        s
        for field, s in (("features", stream), ("stationaries", rows.stationary))
        if field in fields and s
    ]
    n_rows = sum(part.rows for part in parts)
    provenance = {
        **origin_of(split, *used),
        "format": "wham",
        "streams": {used_stream: recorded_stream(split, used_stream) for used_stream in used},
        "body": bodies.digests() if bodies else {},
        "kp2d": f"of the dataset: {datasets.get(name.partition('/')[0]).keypoints_from}",
        "fields": sorted(entries),
        "rows": n_rows,
        "left_out": dict(segments.left_out),
        "absent": absent_in_file,
    }
    write = functools.partial(write_joblib, entries=entries, tensors=motions is None)
    publish_with_provenance(file, write, provenance)
    n_sequences = len(parts if layout.kind == "sequences" else segments.start)
    summary = f"{count(n_rows, 'row')} in {count(n_sequences, 'sequence')}"
    return Exported(
        file, n_rows, summary, absent_in_file, segments.left_out, provenance["stand_in"]
    )


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
    kinds = {s: (split.stream_manifest(s).get("identity") or {}).get("kind") for s in split.streams}
    notes = {}
    for field, kind, name in (
        ("features", Hmr2.kind, stream),
        ("stationaries", Stationary.kind, stationary),
    ):
        if field not in layout.fields:
            continue
        if kinds.get(name) == kind:
            require_stream(split, name)
            continue
        existing = (
            ", ".join(s for s in kinds if kinds[s] == kind)
            or f"none; extract one with --kind {kind}"
        )
        notes[field] = f"no stream of kind {kind} has the name {name!r} (existing ones: {existing})"
        if field == "stationaries":
            notes[field] = f"-1 (unknown) in all rows: {notes[field]}"
        elif stream != USUAL:
            raise PipelineError(f"{split.name}: {notes[field]}")
    return notes


def _absent(
    split: cache.Split, layout: FileLayout, rows: RowFields, stream: str, notes: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Has]]:
    """Fields of the layout that cannot be written -> why; and the checks that rows must pass for
    the others.
    """
    absent = {field: why for field, why in notes.items() if field == "features"}
    absent |= {
        field: f"needs {NOT_DERIVED[field]}" for field in layout.fields if field in NOT_DERIVED
    }
    fields = {field: FIELDS[field] for field in layout.fields if field not in absent}
    missing = [] if rows.bodies is not None else [PELVIS]
    missing += [] if rows.bodies is not None and rows.bodies.regressor is not None else [REGRESSOR]
    absent |= {
        name: f"needs {field.body}: --body DIR"
        for name, field in fields.items()
        if field.body in missing
    }
    labels = checks_of(split, "kp_3d", stream)
    needs = sorted({need for field in fields.values() for need in field.rows_with})
    checks = {need: labels.get(need) or functools.partial(rows.has, need) for need in needs}
    absent |= absent_fields(split, fields, checks)
    used = {
        need for name, field in fields.items() if name not in absent for need in field.rows_with
    }
    always = (
        {layout.rows_with: functools.partial(rows.has, layout.rows_with)}
        if layout.rows_with
        else {}
    )
    return absent, always | {need: has for need, has in checks.items() if need in used}


class _FilePart(NamedTuple):
    """Content of an array, or of a list's entry."""

    # ranges [start, stop) of rows or motions, each computed at once
    pieces: Sequence[tuple[int, int]]
    rows: int
    texts: Mapping[str, str]  # text entries


def _parts(
    layout: FileLayout, segments: Segments, rows: RowFields, motions: Motions | None
) -> list[_FilePart]:
    """One part with all rows or motions; for evaluation lists, one per track, with its first row
    twice.
    """
    if motions is not None:
        return [
            _FilePart(
                [(number, number + 1) for number in range(len(motions.lengths))],
                sum(motions.lengths),
                {},
            )
        ]
    if layout.kind == "videos":
        return [_FilePart([*spans(segments.start, segments.stop)], segments.rows, {})]
    parts = []
    for number in np.unique(segments.track).tolist():
        track = rows.split.tracks[number]
        same = segments.track == number
        first = int(segments.start[same][0])
        start = segments.start[same]
        stop = segments.stop[same]
        # 3DPW: <sequence>_<person>, EMDB: <P0..9>_<sequence>.
        name = track.video if rows.dataset == "emdb" else track.name
        texts = {"vid": name.replace("/", "_"), "gender": track.gender}
        parts.append(
            _FilePart(
                [(first, first + 1), *spans(start, stop)], 1 + int((stop - start).sum()), texts
            )
        )
    return parts


def _entries(
    fields: Sequence[str],
    parts: Sequence[_FilePart],
    layout: FileLayout,
    computed: Mapping[str, Compute],
    progress: Progress,
) -> dict[str, Entry]:
    """The file's entries, computed on writing."""
    add = counting(progress, len(fields) * sum(part.rows for part in parts))

    def array(field: str, part: _FilePart) -> Blocks:
        # texts there
        dtype = None if (layout.kind, field) == ("motions", "vid") else FIELDS[field].dtype
        return array_of(
            computed[field], part.pieces, part.rows, dtype, functools.partial(add, field)
        )

    entries: dict[str, Entry] = {}
    for field in fields:
        items = [part.texts[field] if field in part.texts else array(field, part) for part in parts]
        entries[file_field(field)] = items if layout.kind == "sequences" else items[0]
    return entries
