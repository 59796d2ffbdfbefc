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

Columns = Mapping[str, NDArray[Any]]

_ARMS: Final = ((0, 2), (1, 3), (2, 4), (3, 5))
_LEGS: Final = ((6, 8), (7, 9), (8, 10), (9, 11))
LIMBS: Final = _ARMS + _LEGS
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
        texts = []
        for text, number in zip(_TEXTS, self, strict=True):
            known = not math.isnan(number)
            texts.append(text.format(round(number, 3)) if known else "")
        parts = []
        for name, part in (("", texts[:1]), ("2D: ", texts[1:4]), ("3D: ", texts[4:])):
            if any(part):
                parts.append(name + ", ".join(filter(None, part)))
        return "; ".join(parts) or "no joints"

    def worse(self, other: Grade) -> Grade:
        """The worse of each number."""
        numbers = np.fmax(self, other)
        numbers[0] = np.fmin(self[0], other[0])
        return Grade(*numbers.tolist())


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
        third = np.diff(self.points, 3, axis=0)
        noise = np.abs(third) / self.size[3:, None, None]
        is_whole = self.frames[3:] - self.frames[:-3] == 3
        seen = self.seen
        is_seen = seen[3:] & seen[2:-1] & seen[1:-2] & seen[:-3]
        rows = is_whole[:, None] & is_seen
        enough = np.flatnonzero(rows.sum(axis=0) >= FEWEST)
        medians = [np.median(noise[rows[:, joint], joint]) for joint in enough]
        return NOISE * float(max(medians, default=math.nan))

    def limb_spread(self) -> float:
        spreads = []
        for a, b in LIMBS:
            rows = self.seen[:, a] & self.seen[:, b]
            limb = self.points[rows, a] - self.points[rows, b]
            length = np.linalg.norm(limb, axis=-1) / self.size[rows]
            if len(length) < FEWEST:
                continue
            mean = length.mean()
            if mean > 0:
                spreads.append(float(length.std() / mean))
        return max(spreads, default=math.nan)

    def skating(self, up: Doubles | None, rate: float, shots: Ints | None, contact: float) -> float:
        """Median speed of the lower foot across `up`, a second, while it is on the ground.

        shots: (T,) a number that differs between two rows if the camera moved between them.
        """
        from scipy.ndimage import minimum_filter1d  # takes 0.1 s

        if shots is None or up is None or not rate > 0:
            return math.nan
        k = max(1, round(SPAN * rate))
        if k >= len(self.frames):
            return math.nan
        ankles = self.points[:, ANKLES]
        height = np.where(self.seen[:, ANKLES], ankles @ up, LARGEST)
        lower = np.nan_to_num(height, nan=LARGEST).min(axis=1, keepdims=True)
        n_around = 2 * round(AROUND * rate) + 1
        ground = minimum_filter1d(lower, n_around, axis=0)
        is_lower_foot = height == lower
        is_seen = lower < LARGEST
        is_on_ground = lower - ground <= contact * self.size[:, None]
        stands = is_lower_foot & is_seen & is_on_ground

        is_evenly_timed = self.frames[k:] - self.frames[:-k] == k
        is_still = is_evenly_timed & (shots[k:] == shots[:-k])
        rows = stands[k:] & stands[:-k] & is_still[:, None]
        path = ankles[k:] - ankles[:-k]
        across = path - (path @ up)[..., None] * up
        length = np.linalg.norm(across, axis=-1) / self.size[k:, None]
        speed = (length * rate / k)[rows]
        if len(speed) < FEWEST:
            return math.nan
        return float(np.median(speed))


def grade(
    columns: Columns,
    fps: float = math.nan,
    source: FrameSource | None = None,
    clip: Mapping[str, Any] = MappingProxyType({}),
) -> Grade:
    """Grade a track by its T rows.

    columns: as in COLUMNS, (T, ...), and BLAZE_JOINTS. fps: of the video; nan: no speed. source:
    the images, whose file of `detect` says where the camera moved if there are no `extrinsics`.
    clip: `ClipRecord.as_dict`, for speeds by time where frames are uneven.
    """
    ticks = columns["frame_index"].astype(np.int64)
    shots, up = _camera_of(columns, ticks, source)
    record = record_from(clip)
    if record is not None and not record.is_even:
        ticks = record.clock()[ticks]
        fps *= record.usual_fps / record.fps
    step = 1
    steps, counts = np.unique(np.diff(ticks), return_counts=True)
    if len(steps):
        step = int(steps[counts.argmax()])
    frames = (ticks - ticks[0]) / step
    rate = fps / step

    numbers: dict[str, float] = {}
    kp_2d = columns.get("kp_2d")
    if kp_2d is not None and kp_2d[..., 2].any():
        kp = keypoints_13(kp_2d.astype(np.float64))[:, 1:]
        side = columns["bbox"][:, 2].astype(np.float64)
        joints = _Joints(frames, kp[..., :2], kp[..., 2] > 0, np.maximum(side, 1))
        up_2d = np.array([0.0, -1.0])
        speed = joints.skating(up_2d, rate, shots, CONTACT[0])
        numbers["visible_percent"] = 100 * float(joints.seen.mean())
        numbers["jitter_2d_percent"] = 100 * joints.jitter()
        numbers["limb_spread_2d_percent"] = 100 * joints.limb_spread()
        numbers["skating_2d_percent_s"] = 100 * speed
    kp, root = _joints_3d(columns)
    is_seen = kp[..., 3] > 0
    if is_seen.any():
        points = kp[..., :3]
        joints = _Joints(frames, points, is_seen, np.ones(len(kp)))
        in_place = joints._replace(points=points + root[:, None])
        speed = in_place.skating(up, rate, shots, CONTACT[1])
        numbers.setdefault("visible_percent", 100 * float(is_seen.mean()))
        numbers["jitter_3d_mm"] = 1000 * joints.jitter()
        numbers["limb_spread_3d_percent"] = 100 * joints.limb_spread()
        numbers["skating_3d_cm_s"] = 100 * speed
    return Grade(**numbers)


def _camera_of(
    columns: Columns, index: Ints, source: FrameSource | None
) -> tuple[Ints | None, Doubles | None]:
    """(T,) numbers that differ between two rows if the camera moved between them, and (3,) the
    direction up in it; None if unknown.
    """
    if "bbox" not in columns:  # motion without a camera
        return np.zeros(len(index), np.int64), np.array([0.0, 0.0, 1.0])
    if "extrinsics" in columns:
        camera = columns["extrinsics"].astype(np.float64)
        change = np.abs(np.diff(camera, axis=0)).max(axis=(1, 2))
        same = change <= MOVED  # nan: unknown
        shots = np.append(0, np.cumsum(~same))
        if "up" not in columns:
            return shots, None
        up = columns["up"].reshape(-1, 3)[0]
        return shots, camera[0, :3, :3] @ up
    if isinstance(source, Video):
        moved = moved_frames(source)
        if moved is not None:
            return np.searchsorted(moved, index, side="right"), None
    return None, None


def track_grade(
    split: cache.Split,
    track: cache.TrackRecord,
    source: FrameSource | None,
    clip: Mapping[str, Any] = MappingProxyType({}),
) -> Grade:
    """`grade` of a committed track. Raises CacheError if rows cannot be read."""
    first = track.start
    stop = track.stop
    columns: dict[str, NDArray[Any]] = {}
    for name in COLUMNS:
        if name in split.columns or name in split.extra:
            columns[name] = split.rows(name, first, stop)
    if BLAZE_JOINTS in split.streams:
        with contextlib.suppress(cache.CacheError):  # rows that are not extracted yet
            columns[BLAZE_JOINTS] = split.rows(f"features/{BLAZE_JOINTS}", first, stop)
    return grade(columns, track.fps, source, clip)


def _joints_3d(columns: Columns) -> tuple[Doubles, Doubles]:
    """(T, 12, 4) m and confidence, which is 0 without 3D joints; (T, 3) m, what moves them in
    place, nan if unknown.
    """
    n_frames = len(columns["frame_index"])
    unknown = np.full((n_frames, 3), np.nan)
    if "kp_3d" in columns:
        joints = columns["kp_3d"].astype(np.float64)
        joints[..., 3] *= columns["has_3d"][:, None] == 1
        root = columns.get("trans", unknown) - joints[:, PELVIS, :3]
        return keypoints_13(joints)[:, 1:], root

    blaze = columns.get(BLAZE_JOINTS, np.zeros((n_frames, 33, 4)))
    kp = blaze.reshape(n_frames, 33, 4)[:, BLAZE_12].astype(np.float64)
    kp[..., 3] *= kp[..., 3] >= VISIBLE
    return kp, unknown
