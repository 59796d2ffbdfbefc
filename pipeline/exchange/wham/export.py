"""A split as a file of WHAM's `dataset/parsed_data`.  tracks, features -> [files of other programs]

In comes a split of the cache, with its streams of features and contacts and, for some fields,
SMPL's files. Out goes the one file that WHAM expects for this split, which its code loads with
joblib. The file has one of three kinds: `videos`, training rows as tensors; `sequences`, evaluation
lists of tensors with one entry per track, whose first frame stands there twice; `motions`, AMASS's
motions as arrays. WHAM cuts its windows from all rows with one `vid`, so each segment of
consecutive frames has a number of its own. Fields that cannot be written are reported.

Shin et al.: WHAM: Reconstructing World-Grounded Humans with Accurate 3D Motion, CVPR 2024.
lib/data_utils/ writes these files, lib/data/datasets/ reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.exchange.formats import Exported, publish_with_provenance, require_new_file
from pipeline.exchange.pickled_arrays import Blocks, write_joblib
from pipeline.exchange.rows import (
    NO_EXTRINSICS,
    NO_FEATURES,
    NO_INTRINSICS,
    NO_JOINTS_3D,
    NO_RATE,
    NO_SIZE,
    NO_SMPL,
    NO_TRANS,
    RowCheck,
    Segments,
    SplitRows,
    absent_fields,
    array_of,
    counting,
    origin_of,
    recorded_stream,
    require_stream,
    segments_of,
    spans,
)
from pipeline.exchange.wham.fields import NO_GENDER, REGRESSOR_FILES, SMPL_FILES, Bodies, RowFields
from pipeline.exchange.wham.motions import MotionFields, find_motions
from pipeline.features.streams.network import ResNet50
from pipeline.features.streams.world import Hmr2, Stationary
from pipeline.files.raw import is_stand_in, refuse_mixture
from pipeline.skeletons import Array

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
    progress: Progress = silent,
    options: WhamOptions = WhamOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the split `name` in the cache `root` to the file `out`, or into the folder `out` under
    WHAM's name; and where it comes from to `<file>.provenance.json`. stream: of kind hmr2.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: WHAM has no file for the split; the stream is missing or out of date; no row
            can be exported; the file exists.
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
    require_new_file(file)
    notes = _stream_notes(split, layout, stream, options.stationary)
    stationary = None
    if "stationaries" in layout.fields and "stationaries" not in notes:
        stationary = options.stationary
    bodies = _bodies(split, layout, options)
    rows = SplitRows(split, stream)
    fields, absent = _fields(layout, rows, bodies, notes)
    checks = set[RowCheck]().union(*(field.checks for field in fields.values()))
    by_name = sorted(checks, key=lambda check: check.missing)
    segments = segments_of(rows, [*layout.all_rows, *by_name])
    content = _arrange(layout, rows, segments, stationary, bodies)
    content.segments.require_rows(split)

    entries = _entries(fields, content, layout, progress)
    reasons = {**absent, **notes}
    used = []
    if "features" in fields:
        used.append(stream)
    if stationary is not None:
        used.append(stationary)
    provenance = _provenance(split, bodies, used) | {
        "fields": sorted(entries),
        "rows": content.n_rows,
        "left_out": dict(content.segments.left_out),
        "absent": reasons,
    }
    write = functools.partial(write_joblib, entries=entries, tensors=layout.kind != "motions")
    publish_with_provenance(file, write, provenance)
    sequences = content.parts if layout.kind == "sequences" else content.segments.start
    summary = f"{count(content.n_rows, 'row')} in {count(len(sequences), 'sequence')}"
    left_out = content.segments.left_out
    return Exported(file, content.n_rows, summary, reasons, left_out, provenance["stand_in"])


def _file_of(out: Path, layout: _FileLayout) -> Path:
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


def _arrange(
    layout: _FileLayout,
    rows: SplitRows,
    segments: Segments,
    stationary: str | None,
    bodies: Bodies | None,
) -> _Content:
    """Decide in which parts the rows of the segments are written: of motions, in one array, each
    computed at once. stationary, bodies: as for `RowFields`.
    """
    if layout.kind != "motions":
        source = RowFields(rows, segments, stationary, bodies)
        return _Content(segments, _parts(layout, segments, rows), source)
    assert bodies is not None  # `_bodies` requires them for motions
    motions = find_motions(rows.split, segments)
    pieces = [range(number, number + 1) for number in range(len(motions.names))]
    parts = [_FilePart(pieces, int(motions.lengths.sum()), {})]
    return _Content(motions.segments, parts, MotionFields(motions, bodies))


def _provenance(split: cache.Split, bodies: Bodies | None, used: Sequence[str]) -> dict[str, Any]:
    """Where the content comes from, as `<file>.provenance.json` has it. used: streams."""
    digests = {}
    if bodies is not None:
        digests = bodies.digests()
    dataset = datasets.get(split.name.partition("/")[0])
    return {
        **origin_of(split, *used),
        "format": "wham",
        "streams": {stream: recorded_stream(split, stream) for stream in used},
        "body": digests,
        "kp2d": f"of the dataset: {dataset.labels.keypoints_from}",
    }


def _bodies(split: cache.Split, layout: _FileLayout, options: WhamOptions) -> Bodies | None:
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
    split: cache.Split, layout: _FileLayout, stream: str, stationary: str
) -> dict[str, str]:
    """Why `features` are absent and `stationaries` unknown. Raises PipelineError for a stream that
    is out of date, or for named features that are missing.
    """
    notes = {}
    for field, name, kind in (
        ("features", stream, Hmr2.kind),
        ("stationaries", stationary, Stationary.kind),
    ):
        if field not in layout.fields:
            continue
        of_kind = []
        for candidate in split.streams:
            if split.open_stream(candidate).identity.get("kind") == kind:
                of_kind.append(candidate)
        if name in of_kind:
            require_stream(split, name)
            continue
        existing = ", ".join(of_kind) or f"none; extract one with --kind {kind}"
        notes[field] = f"no stream of kind {kind} has the name {name!r} (existing ones: {existing})"
    if "features" in notes and stream != USUAL:
        raise PipelineError(f"{split.name}: {notes['features']}")
    if "stationaries" in notes:
        notes["stationaries"] = f"-1 (unknown) in all rows: {notes['stationaries']}"
    return notes


def _fields(
    layout: _FileLayout, rows: SplitRows, bodies: Bodies | None, notes: Mapping[str, str]
) -> tuple[dict[str, _WhamField], dict[str, str]]:
    """Fields of the layout to write; and why the others are absent. notes: of streams."""
    fields: dict[str, _WhamField] = {}
    absent: dict[str, str] = {}
    for name, field in layout.fields.items():
        if name == "features" and name in notes:
            absent[name] = notes[name]
        elif isinstance(field, _UnknownField):
            absent[name] = f"needs {field.needs}"
        elif field.needs is not None and (bodies is None or not bodies.has(field.needs)):
            absent[name] = f"needs {field.needs}: --body DIR"
        else:
            fields[name] = field
    absent |= absent_fields(rows, fields)
    return {name: field for name, field in fields.items() if name not in absent}, absent


class _FilePart(NamedTuple):
    """Content of an array, or of a list's entry."""

    pieces: Sequence[range]  # of rows or motions, each computed at once
    rows: int
    texts: Mapping[str, str]  # text entries


class _Content(NamedTuple):
    """What is written: the rows, in parts, and what computes their fields."""

    segments: Segments
    parts: Sequence[_FilePart]
    source: RowFields | MotionFields

    @property
    def n_rows(self) -> int:
        return sum(part.rows for part in self.parts)


def _parts(layout: _FileLayout, segments: Segments, rows: SplitRows) -> list[_FilePart]:
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
        pieces = [range(first, first + 1), *spans(start, stop)]
        # 3DPW: <sequence>_<person>, EMDB: <P0..9>_<sequence>.
        name = track.video if rows.dataset == "emdb" else track.name
        texts = {"vid": name.replace("/", "_"), "gender": track.gender}
        parts.append(_FilePart(pieces, 1 + int((stop - start).sum()), texts))
    return parts


def _entries(
    fields: Mapping[str, _WhamField], content: _Content, layout: _FileLayout, progress: Progress
) -> dict[str, Any]:
    """The file's entries by their names in it. Their numbers are computed when they are written."""
    add = counting(progress, len(fields) * content.n_rows)
    entries: dict[str, Any] = {}
    for name, field in fields.items():
        compute = functools.partial(field.compute, content.source)
        add_rows = functools.partial(add, name)
        items: list[Blocks | str] = []
        for part in content.parts:
            if name in part.texts:
                items.append(part.texts[name])
            else:
                items.append(array_of(compute, part.pieces, part.rows, field.dtype, add_rows))
        entries[name] = items if layout.kind == "sequences" else items[0]
    return entries


def _column(name: str) -> Callable[[SplitRows, range], Array]:
    """The function that reads a column of the cache."""
    return lambda split, rows: split.column(name, rows)


@dataclass(frozen=True)
class _WhamField:
    """One array or entry of WHAM's files."""

    # `RowFields` and rows -> their values; of motions: `MotionFields` and their numbers
    compute: Callable[[Any, range], Array]
    checks: tuple[RowCheck, ...] = ()  # that exported rows must pass
    columns: tuple[str, ...] = ()  # required columns of the cache, besides those of the checks
    needs: str | None = None  # files of the body, as `Bodies.has` names them
    dtype: str | None = "<f4"  # as written; None: as computed


@dataclass(frozen=True, slots=True)
class _UnknownField:
    """A field that no cache has."""

    needs: str


_Fields = Mapping[str, _WhamField | _UnknownField]  # by their names in the file


@dataclass(frozen=True, slots=True)
class _FileLayout:
    """One of WHAM's files: rows of all videos, or lists with one entry per sequence."""

    file: str
    fields: _Fields
    kind: Literal["videos", "motions", "sequences"] = "videos"
    all_rows: tuple[RowCheck, ...] = (NO_SIZE,)  # checks that all rows must pass


_GENDERED: Final = (NO_SMPL, NO_GENDER, NO_TRANS, NO_EXTRINSICS)

_BBOX: Final = _WhamField(RowFields.boxes, columns=("bbox",))
_POSE: Final = _WhamField(_column("pose"), (NO_SMPL,))
_BETAS: Final = _WhamField(_column("betas"), (NO_SMPL,))
_JOINTS_2D: Final = _WhamField(RowFields.labelled_joints_2d, columns=("kp_2d",))
_EXTRINSICS: Final = _WhamField(_column("extrinsics"), (NO_EXTRINSICS,))
_GENDER: Final = _WhamField(RowFields.are_female, (NO_GENDER,), dtype="<i8")
_FEATURES: Final = _WhamField(RowFields.features, (NO_FEATURES,))

_LABELS: Final[_Fields] = {
    "vid": _WhamField(RowFields.segment_numbers, dtype="<i8"),
    "frame_id": _WhamField(_column("frame_index"), dtype="<i8"),
    "bbox": _BBOX,
    "res": _WhamField(RowFields.resolutions),
    "pose": _POSE,
    "betas": _BETAS,
    "kp2d": _WhamField(RowFields.keypoints, columns=("kp_2d",)),
}
_REAL: Final[_Fields] = {
    **_LABELS,
    "joints3D": _WhamField(RowFields.labelled_joints, (NO_JOINTS_3D,)),
    "joints2D": _JOINTS_2D,
    "cam_poses": _EXTRINSICS,
    "features": _FEATURES,
    "stationaries": _WhamField(RowFields.contacts),
}
_PW3D: Final[_Fields] = {  # bodies of the people's gender
    **_LABELS,
    "transl": _WhamField(RowFields.body_places, _GENDERED, needs=SMPL_FILES),
    "joints3D": _WhamField(RowFields.body_joints, _GENDERED, needs=REGRESSOR_FILES),
    "joints2D": _WhamField(
        RowFields.project_joints, (*_GENDERED, NO_INTRINSICS), needs=REGRESSOR_FILES
    ),
    "cam_poses": _EXTRINSICS,
    "gender": _GENDER,
    "features": _FEATURES,
}
_INSTA: Final[_Fields] = {**_LABELS, "joints2D": _JOINTS_2D, "features": _FEATURES}
_BEDLAM: Final[_Fields] = {
    "vid": _LABELS["vid"],
    "pose": _POSE,
    "betas": _BETAS,
    "root": _WhamField(RowFields.world_roots, (NO_SMPL, NO_EXTRINSICS)),
    "w_trans": _WhamField(
        RowFields.world_places, (NO_SMPL, NO_TRANS, NO_EXTRINSICS), needs=SMPL_FILES
    ),
    "c_trans": _WhamField(_column("trans"), (NO_TRANS,)),
    "extrinsics": _EXTRINSICS,
    "intrinsics": _WhamField(RowFields.intrinsics, (NO_INTRINSICS,)),
    "bbox": _BBOX,
    "features": _FEATURES,
}
_AMASS: Final[_Fields] = {
    "vid": _WhamField(MotionFields.vid, dtype=None),
    "pose": _WhamField(MotionFields.pose, (NO_SMPL,)),
    "betas": _WhamField(MotionFields.betas, (NO_SMPL,)),
    "transl": _WhamField(MotionFields.transl, (NO_SMPL, NO_TRANS), needs=SMPL_FILES),
}
_FROM_MIRRORED: Final = _UnknownField("HMR2.0 on mirrored crops, which no stream contains")
_FROM_FIRST: Final = _UnknownField(
    "bodies from HMR2.0's heads on the first crop, which no stream contains"
)
_SEQUENCES: Final[_Fields] = {
    **_LABELS,
    "gender": _GENDER,
    "cam_poses": _EXTRINSICS,
    "features": _FEATURES,
    "flipped_bbox": _WhamField(RowFields.flipped_boxes, columns=("bbox",)),
    "flipped_kp2d": _WhamField(RowFields.flipped_keypoints, columns=("kp_2d",)),
    "flipped_features": _FROM_MIRRORED,
    "init_kp3d": _FROM_FIRST,
    "init_pose": _FROM_FIRST,
    "flipped_init_kp3d": _FROM_MIRRORED,
    "flipped_init_pose": _FROM_MIRRORED,
}


def _sequences(file: str) -> _FileLayout:
    return _FileLayout(file, _SEQUENCES, kind="sequences")


LAYOUTS: Final[Mapping[str, _FileLayout]] = {
    "3dpw/train": _FileLayout("3dpw_train_vit.pth", _PW3D),
    "mpi_inf_3dhp/train": _FileLayout("mpii3d_train_vit.pth", _REAL),
    "h36m/train": _FileLayout("human36m_train_vit.pth", _REAL),
    "insta_variety/train": _FileLayout("insta_train_vit.pth", _INSTA, all_rows=()),
    "bedlam/train": _FileLayout("bedlam_train_vit.pth", _BEDLAM, all_rows=(NO_RATE,)),
    "amass/train": _FileLayout("amass.pth", _AMASS, kind="motions", all_rows=()),
    "3dpw/validation": _sequences("3dpw_val_vit.pth"),
    "3dpw/test": _sequences("3dpw_test_vit.pth"),
    "emdb/emdb1": _sequences("emdb_1_vit.pth"),
    "emdb/emdb2": _sequences("emdb_2_vit.pth"),
}
