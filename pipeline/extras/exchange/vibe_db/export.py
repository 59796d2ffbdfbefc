"""Write a split as a database file of VIBE or TCMR.  tracks, features -> [database files]

`export` follows the steps of `pipeline.extras.exchange.rows`: it leaves out the fields that the
split cannot fill, then the rows without a value in one of the other fields, and writes the
remaining rows in segments of consecutive frames. Each segment gets its own `vid_name`, by which
existing code cuts
windows:

    vid_name      frame_id   joints2D   features
    walk/0_seg0   0          (49, 3)    (2048,)
    walk/0_seg0   1          ...
    walk/0_seg1   7          ...         frames 2 to 6 have no features

The arrays are larger than memory: a block of rows at a time is computed and written to a part file,
which is renamed when it is complete.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.extras.exchange.formats import Exported, publish_with_provenance, require_new_file
from pipeline.extras.exchange.pickled_arrays import Blocks, write_joblib
from pipeline.extras.exchange.rows import (
    NAMED,
    NO_FEATURES,
    NO_JOINTS_3D,
    NO_JOINTS_3D_EVAL,
    NO_SMPL,
    RowCheck,
    Segments,
    SplitRows,
    array_of,
    counting,
    origin_of,
    recorded_stream,
    require_stream,
    spans,
)
from pipeline.extras.exchange.vibe_db.database import (
    PICTURE,
    REQUIRED,
    DatabaseField,
    DatabaseLayout,
)
from pipeline.people.skeletons import Array, convert, joint_names

# a row that fails several is counted for the first one
_CHECKS: Final = (NO_FEATURES, NO_JOINTS_3D, NO_JOINTS_3D_EVAL, NO_SMPL)


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "resnet50",
    progress: Progress = silent,
) -> Exported:
    """Write the split `name` in the cache `root` to the file `out`, or into the folder `out` under
    its usual name.

    Also writes `<file>.provenance.json`.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: the stream is missing or out of date; no row can be exported; the file
            exists.
    """
    split = cache.open(root)[name]
    dataset, _, split_name = name.partition("/")
    layout = DatabaseLayout.find(dataset, split_name, split.columns)
    file = out
    if out.is_dir():
        file = out / layout.usual_name(dataset, split_name)
    _require_file_kind(file, layout)
    require_new_file(file)
    if "features" in layout.fields:
        require_stream(split, stream)

    rows = SplitRows(split, stream)
    absent = _absent_fields(rows, layout)
    usual = layout.fields_to_write()
    fields = {name: field for name, field in usual.items() if name not in absent}
    needed = set[RowCheck]().union(*(field.checks for field in fields.values()))
    segments = rows.select_segments([check for check in _CHECKS if check in needed])
    segments.require_rows(split)

    arrays = _Fields(rows, layout, segments).arrays(fields, progress)
    provenance = _provenance(split, layout, segments, arrays, stream) | {"absent": absent}
    write = _write_hdf5 if layout.is_hdf5 else write_joblib
    publish_with_provenance(file, lambda part_file: write(part_file, arrays), provenance)
    n_rows = segments.n_rows
    summary = f"{count(n_rows, 'row')} of {count(len(segments.start), 'segment')} (vid_name)"
    return Exported(file, n_rows, summary, absent, segments.left_out, provenance["stand_in"])


def _require_file_kind(file: Path, layout: DatabaseLayout) -> None:
    """Raise PipelineError if the file's name does not end like the layout's kind of file."""
    if layout.is_hdf5 == (file.suffix in (".h5", ".hdf5")):
        return
    kind = "HDF5: name it .h5" if layout.is_hdf5 else "a joblib file: name it .pt"
    raise PipelineError(f"--out {file}: VIBE's code reads this dataset from {kind}")


def _absent_fields(rows: SplitRows, layout: DatabaseLayout) -> dict[str, str]:
    """Field that cannot be written -> why.

    Rows without features never make `features` absent: they are left out. Raises PipelineError if
    a REQUIRED field is absent.
    """
    split = rows.split
    labels = layout.fields_to_write()
    labels.pop("features", None)
    absent = rows.absent_fields(labels)
    videos = [split.videos[number] for number in np.unique(split.tracks.video).tolist()]
    sources = {video.source.partition(":")[0] for video in videos}
    if "img_name" in labels and not sources <= {*NAMED}:
        absent["img_name"] = (
            "some frames have no image file, or their image is rotated after reading"
        )
    for field in REQUIRED:
        if field in absent:
            raise PipelineError(
                f"{split.name}: cannot be exported without {field}: {absent[field]}"
            )
    return absent


class _Fields(SplitRows):
    """The arrays of one file.

    `arrays` only prepares them. While a file is written, it calls the methods below: each computes
    a field for rows of the split, at most BATCH rows that are all exported.
    """

    def __init__(self, rows: SplitRows, layout: DatabaseLayout, segments: Segments) -> None:
        super().__init__(rows.split, rows.stream)
        self.layout = layout
        self.segments = segments
        # `vid_name` of each segment
        self.names = segments.names(self.split, self.split.tracks.names)

    def arrays(self, fields: Mapping[str, DatabaseField], progress: Progress) -> dict[str, Blocks]:
        """Each field's array, whose `blocks()` are computed one by one when they are read."""
        n_rows = self.segments.n_rows
        computed: dict[str, Callable[[range], Any]] = {
            "vid_name": self._vid_names,
            "img_name": self._img_names,
            "frame_id": functools.partial(self.column, "frame_index"),
            "joints2D": self._joints_2d,
            "joints3D": self._joints_3d,
            "bbox": functools.partial(self.column, "bbox"),
            "pose": functools.partial(self.column, "pose"),
            "shape": functools.partial(self.column, "betas"),
            "theta": self._theta,
            "valid": self._valid,
            "valid_i": lambda rows: self._valid(rows)[:, None],
            "features": self.features,
        }
        arrays = {}
        row_ranges = [*spans(self.segments.start, self.segments.stop)]
        add_progress = counting(progress, len(fields) * n_rows)
        for name, field in fields.items():
            dtype = field.dtype
            if dtype == "U":
                dtype = self._text_type(name)
            add_rows = functools.partial(add_progress, name)
            arrays[name] = array_of(computed[name], row_ranges, n_rows, dtype, add_rows)
        return arrays

    def _text_type(self, field: str) -> str:
        """dtype of texts; bytes in HDF5. A segment's last frame has its longest image name."""
        names: Iterable[str] = self.names
        if field == "img_name":
            names = self.image_names(self.segments.track, self.segments.last_frame)
        kind = "S" if self.layout.is_hdf5 else "<U"
        return f"{kind}{max(map(len, names))}"

    def _joints_2d(self, rows: range) -> Array:
        kp_2d = self.column("kp_2d", rows)
        if self.layout.in_crops:
            kp_2d = to_crop_pixels(kp_2d, self.column("bbox", rows))
        return convert(kp_2d, source="spin49", target=self.layout.joints_2d)

    def _joints_3d(self, rows: range) -> Array:
        return self.column(self.layout.column_3d, rows)[..., :3]

    def _theta(self, rows: range) -> Array:
        """Pose and betas (n, 82), without the camera that VIBE's theta has before them."""
        pose = self.column("pose", rows)
        return np.hstack([pose, self.column("betas", rows)])

    def _valid(self, rows: range) -> Array:
        if "valid" not in self.split.columns:
            return np.ones(len(rows), np.uint8)
        return np.asarray(self.column("valid", rows) == 1)

    def _vid_names(self, rows: range) -> Array:
        names = [self.names[i] for i in self.segments.numbers(rows).tolist()]
        for name in names:
            if self.layout.is_hdf5 and not name.isascii():
                raise PipelineError(
                    f"vid_name {name!r}: VIBE's code reads these names as ASCII. Rename the video."
                )
        return np.array(names)

    def _img_names(self, rows: range) -> list[str]:
        track = self.segments.track[self.segments.numbers(rows)]
        return list(self.image_names(track, self.column("frame_index", rows)))


def to_crop_pixels(kp_2d: Array, bbox: Array) -> Array:
    """Convert keypoints (n, 49, 3) px to pixels of their boxes, (n, 4), scaled to 224 x 224."""
    side = bbox[:, None, 2:]
    corner = bbox[:, None, :2] - side / 2
    xy = (kp_2d[..., :2] - corner) * (PICTURE / side)
    is_annotated = kp_2d.any(axis=-1, keepdims=True)
    return np.where(is_annotated, np.concatenate([xy, kp_2d[..., 2:]], axis=-1), 0)


def _write_hdf5(file: Path, arrays: Mapping[str, Blocks]) -> None:
    """Write arrays block by block. Raises PipelineError if the disk is full."""
    try:
        with h5py.File(file, "w") as stored:
            for name, array in arrays.items():
                dataset = stored.create_dataset(name, array.shape, array.dtype)
                row = 0
                for block in array.blocks():
                    dataset[row : row + len(block)] = block
                    row += len(block)
    except RuntimeError as error:  # h5py's error for a full disk
        raise PipelineError(
            f"{file}: HDF5 cannot write it ({error}). Fix this, and retry."
        ) from error


def _provenance(
    split: cache.Split,
    layout: DatabaseLayout,
    segments: Segments,
    arrays: Mapping[str, Blocks],
    stream: str,
) -> dict[str, Any]:
    scales = np.unique(split.tracks.crop_scale[segments.track]).tolist()
    skeletons = {"joints2D": layout.joints_2d, "joints3D": layout.joints_3d}
    origin = origin_of(split)
    recorded = None
    if "features" in arrays:
        origin = origin_of(split, stream)
        recorded = recorded_stream(split, stream)
    return {
        **origin,
        "format": "vibe",
        "stream": recorded,
        "rows": segments.n_rows,
        "names": len(segments.start),
        "fields": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        "left_out": dict(segments.left_out),
        "crop_scale": scales[0] if len(scales) == 1 else None,
        "joints": {
            field: list(joint_names(skeleton))
            for field, skeleton in skeletons.items()
            if field in arrays
        },
    }
