"""Layouts of WHAM's files: their fields, and how rows are arranged.  tracks, features -> [files of
other programs]

`LAYOUTS` has the file of each split. Its class arranges the rows: `_VideoTensors`, training rows as
tensors; `_SequenceLists`, evaluation lists of tensors with one entry per track, whose first frame
stands there twice; `_MotionArrays`, AMASS's motions as arrays.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Generic, NamedTuple, TypeVar

import numpy as np

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.extras.exchange.pickled_arrays import Blocks, Entry
from pipeline.extras.exchange.rows import (
    NO_EXTRINSICS,
    NO_FEATURES,
    NO_INTRINSICS,
    NO_JOINTS_3D,
    NO_RATE,
    NO_SIZE,
    NO_SMPL,
    NO_TRANS,
    ExportField,
    RowCheck,
    Segments,
    SplitRows,
    array_of,
    counting,
    require_stream,
    spans,
)
from pipeline.extras.exchange.wham.fields import (
    NO_GENDER,
    REGRESSOR_FILES,
    SMPL_FILES,
    Bodies,
    RowFields,
)
from pipeline.extras.exchange.wham.motions import ResampledMotion, WhamMotion
from pipeline.extras.streams.world import Hmr2, Stationary
from pipeline.features.streams.network import ResNet50
from pipeline.files.raw import refuse_mixture
from pipeline.people.skeletons import Array
from pipeline.steps.conversion_record import ConversionRecord

_FROM_MIRRORED: Final = "needs HMR2.0 on mirrored crops, which no stream contains"
_FROM_FIRST: Final = "needs bodies from HMR2.0's heads on the first crop, which no stream contains"
# fields that are read from streams
USUAL: Final = ResNet50.kind  # default stream of `export`
FEATURES: Final = "features"
CONTACTS: Final = "stationaries"
S = TypeVar("S")  # what computes the fields: RowFields or all motions


class _Sources(NamedTuple):
    """What fields are computed from, besides the columns of the tracks."""

    bodies: Bodies | None
    streams: Mapping[str, str]  # field -> the stream that it is read from
    missing: Mapping[str, str]  # need of a field that is not there -> why


@dataclass(frozen=True)
class _Field(ExportField, Generic[S]):
    """One array or entry of WHAM's files."""

    # rows -> their values; for motions: numbers of motions -> their values
    compute: Callable[[S, range], Array]
    needs: str | None = None  # FEATURES, or files of the body as `Bodies.has` names them
    dtype: str | None = "<f4"  # as written; None: as computed


class _FilePart(NamedTuple):
    """Content of an array, or of a list's entry."""

    pieces: Sequence[range]  # of rows or motions, each computed at once
    rows: int
    texts: Mapping[str, str]  # text entries


class _Arrangement(NamedTuple, Generic[S]):
    """The rows that are written, in parts, and what computes their fields."""

    segments: Segments
    parts: Sequence[_FilePart]
    n_sequences: int
    source: S


class FileContent(NamedTuple):
    """The content of a file. The numbers of its entries are computed when they are written."""

    entries: Mapping[str, Entry]
    n_rows: int
    n_sequences: int
    left_out: Mapping[str, int]  # reason -> number of rows not exported
    absent: Mapping[str, str]  # field -> why it is missing or unknown
    streams: Sequence[str]  # that its entries are read from
    body: Mapping[str, str]  # gender -> digest of the body's files


@dataclass(frozen=True)
class _Layout(ABC, Generic[S]):
    """One of WHAM's files."""

    file: str
    fields: Mapping[str, _Field[S]]  # by their names in the file
    all_rows: tuple[RowCheck, ...] = (NO_SIZE,)  # checks that all rows must pass

    as_tensors: ClassVar[bool] = True
    never: ClassVar[Mapping[str, str]] = {}  # further field, which no cache has -> why

    def open_bodies(self, split: cache.Split, folder: Path | None) -> Bodies | None:
        """Open the bodies in `folder`, if one is named. Raises StandInMixed, and PipelineError for
        a folder that is missing.
        """
        if folder is None:
            return None
        if not folder.is_dir():
            raise PipelineError(f"--body: folder {folder} not found")
        is_demo = ConversionRecord(split).is_stand_in
        refuse_mixture(split.name, folder, is_demo=is_demo, option="--body")
        return Bodies(folder)

    def content(
        self,
        split: cache.Split,
        stream: str,
        stationary: str,
        body: Path | None,
        progress: Progress,
    ) -> FileContent:
        """What is written of a split.

        stream, stationary: of the features and the contacts. body: folder of SMPL's files. Raises
        PipelineError if no row can be exported, and what `_find_sources` raises.
        """
        sources = self._find_sources(split, stream, stationary, body)
        rows = SplitRows(split, stream)
        absent = {}
        for name, field in self.fields.items():
            if field.needs is not None and field.needs in sources.missing:
                absent[name] = sources.missing[field.needs]
        absent |= self.never
        absent |= rows.absent_fields(self._remaining_fields(absent))
        written = self._remaining_fields(absent)
        checks = set[RowCheck]().union(*(field.checks for field in written.values()))
        by_name = sorted(checks, key=lambda check: check.missing)
        segments = rows.select_segments([*self.all_rows, *by_name])
        arrangement = self._arrange(rows, segments, sources)
        arrangement.segments.require_rows(rows.split)
        n_rows = sum(part.rows for part in arrangement.parts)
        if CONTACTS in sources.missing:
            absent[CONTACTS] = f"-1 (unknown) in all rows: {sources.missing[CONTACTS]}"
        return FileContent(
            self._entries(written, arrangement, counting(progress, len(written) * n_rows)),
            n_rows,
            arrangement.n_sequences,
            arrangement.segments.left_out,
            absent,
            [name for field, name in sources.streams.items() if field in written],
            sources.bodies.digests() if sources.bodies is not None else {},
        )

    def _find_sources(
        self, split: cache.Split, stream: str, stationary: str, body: Path | None
    ) -> _Sources:
        """Find what the fields are computed from. Raises PipelineError for a stream that is out of
        date, or for named features that are missing, and what `open_bodies` raises.
        """
        streams = {}
        missing = {}
        for field, name, kind in (
            (FEATURES, stream, Hmr2.kind),
            (CONTACTS, stationary, Stationary.kind),
        ):
            if field not in self.fields:
                continue
            of_kind = [
                stream
                for stream in split.streams
                if split.open_stream(stream).identity.get("kind") == kind
            ]
            if name in of_kind:
                require_stream(split, name)
                streams[field] = name
            else:
                existing = ", ".join(of_kind) or f"none; extract one with --kind {kind}"
                missing[field] = (
                    f"no stream of kind {kind} has the name {name!r} (existing ones: {existing})"
                )
        if FEATURES in missing and stream != USUAL:
            raise PipelineError(f"{split.name}: {missing[FEATURES]}")
        bodies = self.open_bodies(split, body)
        needs = {field.needs for field in self.fields.values()}
        for files in {SMPL_FILES, REGRESSOR_FILES} & needs:
            if bodies is None or not bodies.has(files):
                missing[files] = f"needs {files}: --body DIR"
        return _Sources(bodies, streams, missing)

    def _remaining_fields(self, absent: Collection[str]) -> dict[str, _Field[S]]:
        return {name: field for name, field in self.fields.items() if name not in absent}

    @abstractmethod
    def _arrange(self, rows: SplitRows, segments: Segments, sources: _Sources) -> _Arrangement[S]:
        """Decide in which parts the rows of the segments are written."""

    def _entries(
        self,
        fields: Mapping[str, _Field[S]],
        arrangement: _Arrangement[S],
        add: Callable[[str, int], None],
    ) -> dict[str, Entry]:
        """The file's entries by their names in it. add: called with a field and its number of rows
        when they are written.
        """
        entries: dict[str, Entry] = {}
        for name, field in fields.items():
            compute = functools.partial(field.compute, arrangement.source)
            add_rows = functools.partial(add, name)
            items: list[Blocks | str] = []
            for part in arrangement.parts:
                if name in part.texts:
                    items.append(part.texts[name])
                else:
                    items.append(array_of(compute, part.pieces, part.rows, field.dtype, add_rows))
            entries[name] = self._join(items)
        return entries

    def _join(self, items: Sequence[Blocks | str]) -> Entry:
        """The entry of a field. items: of the parts."""
        (item,) = items
        return item


class _VideoTensors(_Layout[RowFields]):
    """Rows of all videos, one tensor per field."""

    def _arrange(
        self, rows: SplitRows, segments: Segments, sources: _Sources
    ) -> _Arrangement[RowFields]:
        pieces = [*spans(segments.start, segments.stop)]
        part = _FilePart(pieces, segments.n_rows, {})
        source = RowFields(rows, segments, sources.streams.get(CONTACTS), sources.bodies)
        return _Arrangement(segments, [part], len(segments.start), source)


class _SequenceLists(_Layout[RowFields]):
    """A list per field, with one entry per track, whose first row is there twice."""

    never: ClassVar = {
        "flipped_features": _FROM_MIRRORED,
        "init_kp3d": _FROM_FIRST,
        "init_pose": _FROM_FIRST,
        "flipped_init_kp3d": _FROM_MIRRORED,
        "flipped_init_pose": _FROM_MIRRORED,
    }

    def _arrange(
        self, rows: SplitRows, segments: Segments, sources: _Sources
    ) -> _Arrangement[RowFields]:
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
        source = RowFields(rows, segments, sources.streams.get(CONTACTS), sources.bodies)
        return _Arrangement(segments, parts, len(parts), source)

    def _join(self, items: Sequence[Blocks | str]) -> Entry:
        return items


class _MotionArrays(_Layout[Sequence[WhamMotion]]):
    """AMASS's motions, one array per field. Each motion is computed at once."""

    as_tensors = False

    def open_bodies(self, split: cache.Split, folder: Path | None) -> Bodies | None:
        if folder is None:
            do = "Name the folder of SMPL's files: --body DIR"
            raise PipelineError(
                f"{split.name}: motions need a body to place their lowest vertex on the ground. "
                f"{do}"
            )
        return super().open_bodies(split, folder)

    def _arrange(
        self, rows: SplitRows, segments: Segments, sources: _Sources
    ) -> _Arrangement[Sequence[WhamMotion]]:
        assert sources.bodies is not None  # `open_bodies` requires them
        found, segments = ResampledMotion.find(rows.split, segments)
        names = np.array([motion.name for motion in found], np.str_)
        motions = [WhamMotion(motion, sources.bodies, names.dtype) for motion in found]
        pieces = [range(number, number + 1) for number in range(len(motions))]
        part = _FilePart(pieces, sum(len(motion.positions) for motion in found), {})
        return _Arrangement(segments, [part], len(motions), motions)


def _column(name: str) -> Callable[[RowFields, range], Array]:
    """The function that reads a column of the cache."""
    return lambda split, rows: split.column(name, rows)


def _compute_per_motion(
    compute: Callable[[WhamMotion], Array],
) -> Callable[[Sequence[WhamMotion], range], Array]:
    """The function that computes an array of the one motion of a range."""
    return lambda motions, numbers: compute(motions[numbers.start])


_RowFields = Mapping[str, _Field[RowFields]]  # by their names in the file

_GENDERED: Final = (NO_SMPL, NO_GENDER, NO_TRANS, NO_EXTRINSICS)

_BBOX: Final = _Field(RowFields.boxes, columns=("bbox",))
_POSE: Final = _Field(_column("pose"), checks=(NO_SMPL,))
_BETAS: Final = _Field(_column("betas"), checks=(NO_SMPL,))
_JOINTS_2D: Final = _Field(RowFields.labelled_joints_2d, columns=("kp_2d",))
_EXTRINSICS: Final = _Field(_column("extrinsics"), checks=(NO_EXTRINSICS,))
_GENDER: Final = _Field(RowFields.are_female, checks=(NO_GENDER,), dtype="<i8")
_FEATURES: Final[_Field[RowFields]] = _Field(
    RowFields.features, checks=(NO_FEATURES,), needs=FEATURES
)

_LABELS: Final[_RowFields] = {
    "vid": _Field(RowFields.segment_numbers, dtype="<i8"),
    "frame_id": _Field(_column("frame_index"), dtype="<i8"),
    "bbox": _BBOX,
    "res": _Field(RowFields.resolutions),
    "pose": _POSE,
    "betas": _BETAS,
    "kp2d": _Field(RowFields.keypoints, columns=("kp_2d",)),
}
_REAL: Final[_RowFields] = {
    **_LABELS,
    "joints3D": _Field(RowFields.labelled_joints, checks=(NO_JOINTS_3D,)),
    "joints2D": _JOINTS_2D,
    "cam_poses": _EXTRINSICS,
    FEATURES: _FEATURES,
    CONTACTS: _Field(RowFields.contacts),
}
_PW3D: Final[_RowFields] = {  # bodies of the people's gender
    **_LABELS,
    "transl": _Field(RowFields.body_places, checks=_GENDERED, needs=SMPL_FILES),
    "joints3D": _Field(RowFields.body_joints, checks=_GENDERED, needs=REGRESSOR_FILES),
    "joints2D": _Field(
        RowFields.project_joints, checks=(*_GENDERED, NO_INTRINSICS), needs=REGRESSOR_FILES
    ),
    "cam_poses": _EXTRINSICS,
    "gender": _GENDER,
    FEATURES: _FEATURES,
}
_INSTA: Final[_RowFields] = {**_LABELS, "joints2D": _JOINTS_2D, FEATURES: _FEATURES}
_BEDLAM: Final[_RowFields] = {
    "vid": _LABELS["vid"],
    "pose": _POSE,
    "betas": _BETAS,
    "root": _Field(RowFields.world_roots, checks=(NO_SMPL, NO_EXTRINSICS)),
    "w_trans": _Field(
        RowFields.world_places, checks=(NO_SMPL, NO_TRANS, NO_EXTRINSICS), needs=SMPL_FILES
    ),
    "c_trans": _Field(_column("trans"), checks=(NO_TRANS,)),
    "extrinsics": _EXTRINSICS,
    "intrinsics": _Field(RowFields.intrinsics, checks=(NO_INTRINSICS,)),
    "bbox": _BBOX,
    FEATURES: _FEATURES,
}
_AMASS: Final[Mapping[str, _Field[Sequence[WhamMotion]]]] = {
    "vid": _Field(_compute_per_motion(WhamMotion.names), dtype=None),
    "pose": _Field(_compute_per_motion(WhamMotion.poses), checks=(NO_SMPL,)),
    "betas": _Field(_compute_per_motion(WhamMotion.betas), checks=(NO_SMPL,)),
    "transl": _Field(
        _compute_per_motion(WhamMotion.translations), checks=(NO_SMPL, NO_TRANS), needs=SMPL_FILES
    ),
}
_SEQUENCES: Final[_RowFields] = {
    **_LABELS,
    "gender": _GENDER,
    "cam_poses": _EXTRINSICS,
    FEATURES: _FEATURES,
    "flipped_bbox": _Field(RowFields.flipped_boxes, columns=("bbox",)),
    "flipped_kp2d": _Field(RowFields.flipped_keypoints, columns=("kp_2d",)),
}
FileLayout = _Layout[RowFields] | _Layout[Sequence[WhamMotion]]
LAYOUTS: Final[Mapping[str, FileLayout]] = {
    "3dpw/train": _VideoTensors("3dpw_train_vit.pth", _PW3D),
    "mpi_inf_3dhp/train": _VideoTensors("mpii3d_train_vit.pth", _REAL),
    "h36m/train": _VideoTensors("human36m_train_vit.pth", _REAL),
    "insta_variety/train": _VideoTensors("insta_train_vit.pth", _INSTA, all_rows=()),
    "bedlam/train": _VideoTensors("bedlam_train_vit.pth", _BEDLAM, all_rows=(NO_RATE,)),
    "amass/train": _MotionArrays("amass.pth", _AMASS, all_rows=()),
    "3dpw/validation": _SequenceLists("3dpw_val_vit.pth", _SEQUENCES),
    "3dpw/test": _SequenceLists("3dpw_test_vit.pth", _SEQUENCES),
    "emdb/emdb1": _SequenceLists("emdb_1_vit.pth", _SEQUENCES),
    "emdb/emdb2": _SequenceLists("emdb_2_vit.pth", _SEQUENCES),
}
