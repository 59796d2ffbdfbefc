"""A database file's arrays, made block by block from a split's rows.  tracks, features -> [database files]"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.errors import PipelineError
from pipeline.skeletons import convert, joint_names
from pipeline.vibe_db.joblib_writer import Blocks
from pipeline.vibe_db.layouts import COMMON, PICTURE, Layout
from pipeline.vibe_db.picture_names import NAMED, Names, names_of
from pipeline.vibe_db.segments import AT_ONCE, Known, Segments, spans

Array = NDArray[Any]
Floats = NDArray[np.float32]

FEATURES: Final = "no features"
JOINTS_3D: Final = "no 3D joints"
SMPL: Final = "no SMPL parameters"
NEEDS: Final = {  # field -> what a row must have for it
    "features": FEATURES,
    "joints3D": JOINTS_3D,
    "pose": SMPL,
    "shape": SMPL,
    "theta": SMPL,
}
_COLUMNS: Final = {"joints2D": ("kp_2d",), "bbox": ("bbox",), "pose": ("pose",), "shape": ("betas",)}


def known_rows(split: cache.Split, layout: Layout, stream: str, fields: Collection[str]) -> Known:
    """For every kind of label among the fields: which rows have it. Existing code takes all labels for known."""
    checks = {
        FEATURES: lambda start, stop: np.asarray(split.column(f"features/{stream}_ok")[start:stop]) == 1,
        JOINTS_3D: lambda start, stop: _has_joints_3d(split, layout, start, stop),
        SMPL: lambda start, stop: _has_smpl(split, start, stop),
    }
    wanted = {NEEDS.get(field) for field in fields}
    return {what: check for what, check in checks.items() if what in wanted}


def has_anywhere(split: cache.Split, has: Callable[[int, int], NDArray[np.bool_]]) -> bool:
    """Does any row of a committed track have it?"""
    return any(has(start, stop).any() for start, stop in spans(split.tracks.start, split.tracks.stop))


def absent_fields(split: cache.Split, layout: Layout, stream: str) -> dict[str, str]:
    """Field of the layout that cannot be written -> why."""
    known = known_rows(split, layout, stream, layout.fields)
    absent = {}
    for field in layout.fields:
        needed = _columns(field, layout)
        if missing := [name for name in needed if name not in split.columns]:
            absent[field] = f"the split has no {' and no '.join(missing)}"
        elif (what := NEEDS.get(field, FEATURES)) != FEATURES and not has_anywhere(split, known[what]):
            absent[field] = f"in no row ({what})"
        elif field == "img_name" and not _has_names(split):
            absent[field] = "the pictures have no names of their own"
    return absent


def _columns(field: str, layout: Layout) -> tuple[str, ...]:
    if field == "joints3D":
        return ("kp_3d",) if layout.joints_3d == "spin49" else ("kp_3d_eval",)
    return ("pose", "betas") if field == "theta" else _COLUMNS.get(field, ())


def _has_names(split: cache.Split) -> bool:
    """Does every picture that a track shows have a name?"""
    videos = np.unique(split.tracks.video).tolist()
    return all(split.videos[video].source.partition(":")[0] in NAMED for video in videos)


def _has_joints_3d(split: cache.Split, layout: Layout, start: int, stop: int) -> NDArray[np.bool_]:
    """Rows in which all joints are known that existing code takes for known."""
    has = np.ones(stop - start, bool)
    if "has_3d" in split.columns:
        has &= split.rows("has_3d", start, stop) == 1
    if layout.joints_3d == "common14":
        has &= np.isfinite(split.rows("kp_3d_eval", start, stop)).all(axis=(1, 2))
        return has
    kp_3d = split.rows("kp_3d", start, stop)
    has &= (kp_3d[:, COMMON, 3] > 0).all(axis=1) & np.isfinite(kp_3d).all(axis=(1, 2))
    return has


def _has_smpl(split: cache.Split, start: int, stop: int) -> NDArray[np.bool_]:
    has = np.ones(stop - start, bool)
    has &= split.rows("has_smpl", start, stop) == 1
    for name in ("pose", "betas"):
        has &= np.isfinite(split.rows(name, start, stop)).all(axis=1)
    return has


class Fields:
    """The arrays of one file. Every one is made anew each time it is asked for, in blocks of at most 8,192 rows."""

    def __init__(self, split: cache.Split, layout: Layout, segments: Segments, stream: str) -> None:
        self.split, self.layout, self.segments, self.stream = split, layout, segments, stream
        self._names = segments.names(split.tracks)
        if len(set(self._names)) < len(self._names):
            raise PipelineError(f"{split.name}: two tracks would have one vid_name: rename the videos, convert again")
        self._pictures: dict[int, Names] = {}

    def arrays(self, fields: Sequence[str]) -> dict[str, Blocks]:
        """Every field with its shape and type."""
        return {name: self._field(name) for name in fields}

    def _field(self, name: str) -> Blocks:
        text = {"vid_name": self._vid_names, "img_name": self._img_names}
        if name in text:
            return self._text(text[name])
        trailing, dtype, make = self._numbers()[name]
        whole = (self.segments.rows, *trailing)
        return Blocks(whole, np.dtype(dtype), lambda: (make(*span).astype(dtype, copy=False) for span in self._spans()))

    def _numbers(self) -> dict[str, tuple[tuple[int, ...], str, Callable[[int, int], Array]]]:
        """Field -> what follows the rows, the type, and what makes rows [start, stop)."""
        rows = self.split.rows
        n_2d, n_3d = len(joint_names(self.layout.joints_2d)), len(joint_names(self.layout.joints_3d))
        return {
            "frame_id": ((), "<i8", lambda a, b: rows("frame_index", a, b)),
            "joints2D": ((n_2d, 3), "<f4", self._joints_2d),
            "joints3D": ((n_3d, 3), "<f4", self._joints_3d),
            "bbox": ((4,), "<f4", lambda a, b: rows("bbox", a, b)),
            "pose": ((72,), "<f4", lambda a, b: rows("pose", a, b)),
            "shape": ((10,), "<f4", lambda a, b: rows("betas", a, b)),
            "theta": ((82,), "<f4", lambda a, b: np.concatenate([rows("pose", a, b), rows("betas", a, b)], axis=1)),
            "valid": ((), "|u1", self._valid),
            "valid_i": ((1,), "<f4", lambda a, b: self._valid(a, b)[:, None]),
            "features": ((self._dim(),), "<f4", self._features),
        }

    def _dim(self) -> int:
        return int(self.split.stream_manifest(self.stream)["dim"]) if "features" in self.layout.fields else 0

    def _spans(self) -> Iterator[tuple[int, int]]:
        return spans(self.segments.start, self.segments.stop)

    def _joints_2d(self, start: int, stop: int) -> Floats:
        kp_2d = self.split.rows("kp_2d", start, stop)
        if self.layout.in_crops:
            bbox = self.split.rows("bbox", start, stop)
            side, there = bbox[:, None, 2:], kp_2d.any(axis=-1, keepdims=True)
            kp_2d[..., :2] = (kp_2d[..., :2] - (bbox[:, None, :2] - side / 2)) * (PICTURE / side)
            kp_2d = np.where(there, kp_2d, 0)
        return convert(kp_2d, source="spin49", target=self.layout.joints_2d)

    def _joints_3d(self, start: int, stop: int) -> Array:
        if self.layout.joints_3d == "common14":
            return self.split.rows("kp_3d_eval", start, stop)
        return self.split.rows("kp_3d", start, stop)[..., :3]

    def _valid(self, start: int, stop: int) -> Array:
        if "valid" not in self.split.columns:
            return np.ones(stop - start, np.uint8)
        valid: Array = self.split.rows("valid", start, stop) == 1
        return valid

    def _features(self, start: int, stop: int) -> Array:
        windows = np.stack([np.arange(start, stop), np.arange(start, stop) + 1], axis=1)
        read = self.split.read(windows, stream=self.stream, fields=["features"], dtype="float32")
        features: Array = read["features"][:, 0]
        return features

    def _text(self, make: Callable[[int, int, bool], list[str]]) -> Blocks:
        """Texts as existing code has them: each as wide as the longest; in HDF5 as bytes, which it decodes as ASCII."""
        longest = max((len(text) for span in self._spans() for text in make(*span, True)), default=1)
        dtype = np.dtype(f"{'S' if self.layout.container == 'hdf5' else '<U'}{longest}")
        return Blocks(
            (self.segments.rows,), dtype, lambda: (_texts(make(*span, False), dtype) for span in self._spans())
        )

    def _vid_names(self, start: int, stop: int, only_ends: bool) -> list[str]:
        segment = self.segments.of(np.arange(start, stop))
        return [self._names[i] for i in (np.unique(segment) if only_ends else segment).tolist()]

    def _img_names(self, start: int, stop: int, only_ends: bool) -> list[str]:
        """Of every row, or of each segment's last one, which is its longest."""
        segment = self.segments.of(np.arange(start, stop))
        frame = self.split.rows("frame_index", start, stop)
        if only_ends:
            ends = np.flatnonzero(np.r_[segment[1:] != segment[:-1], True])
            segment, frame = segment[ends], frame[ends]
        video = self.split.tracks.video[self.segments.track[segment]]
        return [self._named(v).of(f) for v, f in zip(video.tolist(), frame.tolist(), strict=True)]

    def _named(self, video: int) -> Names:
        if video not in self._pictures:
            if len(self._pictures) >= AT_ONCE:
                self._pictures.clear()
            names = names_of(self.split.videos[video].source)
            if names is None:
                raise PipelineError(f"{self.split.name}: the pictures of {self.split.videos[video].name} have no names")
            self._pictures[video] = names
        return self._pictures[video]


def _texts(texts: list[str], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "S" and (bad := [text for text in texts if not text.isascii()]):
        raise PipelineError(f"vid_name {bad[0]!r}: existing code reads these names as ASCII. Rename the video.")
    return np.array(texts, dtype)
