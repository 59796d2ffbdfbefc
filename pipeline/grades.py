"""Grades of a track without a target: shaking joints, changing limbs, sliding feet.  raw ->
[tracks] -> features

Third differences of noise are sqrt(20) times as large as the noise; those of smooth motion are
small. The page docs/datasets/videos.md describes the numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.clips.files import moved_frames
from pipeline.files.pixels.clip_record import record_from
from pipeline.files.pixels.frames import FrameSource, Video
from pipeline.skeletons import JOINTS, LARGEST, Bools, Doubles, Ints, keypoints_13

# upper and lower arms and legs
LIMBS: Final = ((0, 2), (1, 3), (2, 4), (3, 5), (6, 8), (7, 9), (8, 10), (9, 11))
COLUMNS: Final = ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "trans", "extrinsics", "up")
ANKLES: Final = [10, 11]
PELVIS: Final = JOINTS["spin49"].index("OP MidHip")  # where `trans` is
BLAZE_JOINTS: Final = "blaze_joints"  # a stream (33, 4): m m m visibility
BLAZE_12: Final = [*range(11, 17), *range(23, 29)]
VISIBLE: Final = 0.5  # of BlazePose's visibility
NOISE: Final = 1.4826 / math.sqrt(20)  # median of absolute third differences -> standard deviation
FEWEST: Final = 10  # numbers in a statistic
SPAN: Final = 0.2  # s over which a foot's speed is measured
AROUND: Final = 0.5  # s before and after in which the lowest place of a foot is the ground
MOVED: Final = 1e-5  # of extrinsics
CONTACT: Final = (0.03, 0.05)  # of the box's side, m: above the ground


class Grade(NamedTuple):
    """Numbers of a track; nan where it has no such joints."""

    visible_percent: float = math.nan  # of the 12 joints from shoulders to ankles
    # standard deviation of the worst joint's noise, of the box's side
    jitter_2d_percent: float = math.nan
    # standard deviation of the worst limb's length, of its mean
    limb_spread_2d_percent: float = math.nan
    # median speed of the foot on the ground, along x, of the box's side
    skating_2d_percent_s: float = math.nan
    jitter_3d_mm: float = math.nan
    limb_spread_3d_percent: float = math.nan
    skating_3d_cm_s: float = math.nan

    def __str__(self) -> str:
        """
        >>> print(str(Grade(91.4, limb_spread_2d_percent=12.3)).partition("; ")[2])
        2D: the worst limb's length varies by 12 % (with foreshortening)
        """
        texts = [
            text.format(round(x, 3)) if not math.isnan(x) else ""
            for text, x in zip(_TEXTS, self, strict=True)
        ]
        parts = (("", texts[:1]), ("2D: ", texts[1:4]), ("3D: ", texts[4:]))
        return (
            "; ".join(name + ", ".join(filter(None, part)) for name, part in parts if any(part))
            or "no joints"
        )

    def worse(self, other: Grade) -> Grade:
        """The worse of each number."""
        return Grade(float(np.fmin(self[0], other[0])), *np.fmax(self[1:], other[1:]).tolist())


_TEXTS: Final = (
    "{:.0f} % of 12 joints visible",
    "the worst joint shakes by {:.2g} % of the box",
    "the worst limb's length varies by {:.2g} % (with foreshortening)",
    "feet slide by {:.2g} % of the box a second",
    "the worst joint shakes by {:.2g} mm",
    "the worst limb's length varies by {:.2g} %",
    "feet slide by {:.2g} cm a second",
)


class _Joints(NamedTuple):
    """The 12 joints in T rows, with lengths in units of `size`."""

    frames: Doubles  # (T,) in steps
    points: Doubles  # (T, 12, C)
    seen: Bools  # (T, 12)
    size: Doubles  # (T,)

    def jitter(self) -> float:
        third = np.abs(np.diff(self.points, 3, axis=0)) / self.size[3:, None, None]
        whole = (self.frames[3:] - self.frames[:-3] == 3)[:, None]
        rows = whole & self.seen[3:] & self.seen[2:-1] & self.seen[1:-2] & self.seen[:-3]
        enough = np.flatnonzero(rows.sum(axis=0) >= FEWEST)
        return NOISE * float(
            max((np.median(third[rows[:, j], j]) for j in enough), default=math.nan)
        )

    def limb_spread(self) -> float:
        spreads = []
        for a, b in LIMBS:
            rows = self.seen[:, a] & self.seen[:, b]
            length = (
                np.linalg.norm(self.points[rows, a] - self.points[rows, b], axis=-1)
                / self.size[rows]
            )
            if len(length) >= FEWEST and (mean := length.mean()) > 0:
                spreads.append(float(length.std() / mean))
        return max(spreads, default=math.nan)

    def skating(self, up: Doubles | None, rate: float, shots: Ints | None, contact: float) -> float:
        """Median speed of the lower foot across `up`, a second, while it is on the ground.

        shots: (T,) a number that differs between two rows if the camera moved between them.
        """
        from scipy.ndimage import minimum_filter1d  # takes 0.1 s

        k = max(1, round(SPAN * rate)) if rate > 0 else len(self.frames)
        if shots is None or up is None or k >= len(self.frames):
            return math.nan
        height = np.where(self.seen[:, ANKLES], self.points[:, ANKLES] @ up, LARGEST)
        lower = np.nan_to_num(height, nan=LARGEST).min(axis=1, keepdims=True)
        ground = minimum_filter1d(lower, 2 * round(AROUND * rate) + 1, axis=0)
        stands = (
            (height == lower) & (lower < LARGEST) & (lower - ground <= contact * self.size[:, None])
        )
        still = (self.frames[k:] - self.frames[:-k] == k) & (shots[k:] == shots[:-k])
        way = self.points[k:, ANKLES] - self.points[:-k, ANKLES]
        speed = (
            np.linalg.norm(way - (way @ up)[..., None] * up, axis=-1)
            / self.size[k:, None]
            * rate
            / k
        )
        speed = speed[stands[k:] & stands[:-k] & still[:, None]]
        return float(np.median(speed)) if len(speed) >= FEWEST else math.nan


def grade(
    columns: Mapping[str, NDArray[Any]],
    fps: float = math.nan,
    source: FrameSource | None = None,
    clip: Mapping[str, Any] = MappingProxyType({}),
) -> Grade:
    """Grade a track by its T rows.

    columns: as in COLUMNS, (T, ...), and BLAZE_JOINTS. fps: of the video; nan: no speed. source:
    the images, whose file of `detect` says where the camera moved if there are no `extrinsics`.
    clip: `ClipRecord.as_dict`, for speeds by time where frames are uneven.
    """
    index = columns["frame_index"].astype(np.int64)
    found = np.full(len(Grade._fields), math.nan)
    ticks = index
    record = record_from(clip)
    if record is not None and not record.is_even:
        ticks = record.clock()[index]
        fps *= record.usual_fps / record.fps
    steps, counts = np.unique(np.diff(ticks), return_counts=True)
    step = int(steps[counts.argmax()]) if len(steps) else 1
    frames = (ticks - ticks[0]) / step
    rate = fps / step
    shots = None
    up = None
    if "bbox" not in columns:  # motion without a camera
        shots = np.zeros(len(index), np.int64)
        up = np.array([0.0, 0.0, 1.0])
    elif "extrinsics" in columns:
        camera = columns["extrinsics"].astype(np.float64)
        same = np.abs(np.diff(camera, axis=0)).max(axis=(1, 2)) <= MOVED  # nan: unknown
        shots = np.append(0, np.cumsum(~same))
        up = camera[0, :3, :3] @ columns["up"].reshape(-1, 3)[0] if "up" in columns else None
    elif isinstance(source, Video) and (moved := moved_frames(source)) is not None:
        shots = np.searchsorted(moved, index, side="right")
    if "kp_2d" in columns and columns["kp_2d"][..., 2].any():
        kp = keypoints_13(columns["kp_2d"].astype(np.float64))[:, 1:]
        joints = _Joints(
            frames,
            kp[..., :2],
            kp[..., 2] > 0,
            np.maximum(columns["bbox"][:, 2].astype(np.float64), 1),
        )
        speed = joints.skating(np.array([0.0, -1.0]), rate, shots, CONTACT[0])
        found[:4] = 100 * np.array(
            [joints.seen.mean(), joints.jitter(), joints.limb_spread(), speed]
        )
    kp, root = _joints_3d(columns)
    if (kp[..., 3] > 0).any():
        joints = _Joints(frames, kp[..., :3], kp[..., 3] > 0, np.ones(len(kp)))
        speed = joints._replace(points=joints.points + root[:, None]).skating(
            up, rate, shots, CONTACT[1]
        )
        found[4:] = 1000 * joints.jitter(), 100 * joints.limb_spread(), 100 * speed
        found[0] = 100 * joints.seen.mean() if math.isnan(found[0]) else found[0]
    return Grade(*found.tolist())


def track_grade(
    split: cache.Split,
    track: cache.TrackRecord,
    source: FrameSource | None,
    clip: Mapping[str, Any] = MappingProxyType({}),
) -> Grade:
    """`grade` of a committed track. Raises CacheError if rows cannot be read."""
    names = (name for name in COLUMNS if name in {*split.columns, *split.extra})
    columns: dict[str, NDArray[Any]] = {
        name: split.rows(name, track.start, track.stop) for name in names
    }
    if BLAZE_JOINTS in split.streams:
        with contextlib.suppress(cache.CacheError):  # rows that are not extracted yet
            columns[BLAZE_JOINTS] = split.rows(f"features/{BLAZE_JOINTS}", track.start, track.stop)
    return grade(columns, track.fps, source, clip)


def _joints_3d(columns: Mapping[str, NDArray[Any]]) -> tuple[Doubles, Doubles]:
    """(T, 12, 4) m and confidence, which is 0 without 3D joints; (T, 3) m, what moves them in
    place, nan if unknown.
    """
    shape = (len(columns["frame_index"]), 33, 4)
    if "kp_3d" not in columns:
        kp = (
            columns.get(BLAZE_JOINTS, np.zeros(shape))
            .reshape(shape)[:, BLAZE_12]
            .astype(np.float64)
        )
        kp[..., 3] *= kp[..., 3] >= VISIBLE
        return kp, np.full((len(kp), 3), np.nan)
    every = columns["kp_3d"].astype(np.float64)
    every[..., 3] *= columns["has_3d"][:, None] == 1
    return keypoints_13(every)[:, 1:], columns.get(
        "trans", np.full((len(every), 3), np.nan)
    ) - every[:, PELVIS, :3]
