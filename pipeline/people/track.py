"""A track: one person in one video, the record that all later steps read.  raw -> [tracks] ->
features -> windows -> training

Two functions check the arrays of a track, by column name:

    other_units         values in another unit, which come from wrong raw files: a reader refuses
                        such a video
    column_problems     wrong types, NaN, flags without labels, which come from an error in a
                        reader's code: tests and imports check them
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.people.cameras import is_rigid
from pipeline.people.skeletons import HIP, Array, Bools, Doubles, Floats, corners_of

if TYPE_CHECKING:
    from pipeline.files.pixels.frames import FrameSource

# Side of the crop / side of the box, unless a dataset has its own. Pixels and labels read it from
# the track.
CROP_SCALE: Final = 1.3

# The cache's columns that hold yes or no, and those that hold floats.
FLAGS: Final = tuple(name for name, column in cache.COLUMNS.items() if column.dtype == np.uint8)
FLOATS: Final = tuple(name for name in cache.COLUMNS if name not in ("frame_index", *FLAGS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class Track:
    """One person in one video: T frames. None means "not annotated", never zeros.

    Checked where it is read (`Dataset.tracks`) and where its rows are written
    (`cache.check_track`).
    """

    dataset: str  # a name in the registry, e.g. "penn_action"
    split: str
    name: str  # <video>/<person>, unique within the split
    video: str  # unique within the dataset
    fps: float  # of the video's own frames during the track; nan where the release does not give it
    # (T,) int64, strictly increasing, the video's own count from 0
    frame_index: NDArray[np.integer]
    # (T, 4) float32 cxcywh, px of the full image, square; None without images (AMASS)
    bbox: Floats | None = None
    kp_2d: Floats | None = None  # (T, 49, 3) float32 x px, y px, confidence 0..1
    kp_2d_hands: Floats | None = None  # (T, 42, 3) likewise; left hand, then right: `hands.HANDS`
    # (T, 49, 4) float32 m m m confidence, camera axes, pelvis (joint 39) at 0
    kp_3d: Floats | None = None
    kp_3d_eval: Floats | None = None  # (T, 14, 3) float32 m, camera axes, in common14 order
    # (T, 72) float32 SMPL axis-angle, rad, global orientation in the camera
    pose: Floats | None = None
    betas: Floats | None = None  # (T, 10) float32 SMPL shape
    trans: Floats | None = None  # (T, 3) float32 m
    has_3d: Bools | None = None  # (T,) kp_3d is known in this frame
    has_smpl: Bools | None = None  # (T,) pose and betas are known in this frame
    valid: Bools | None = None  # (T,) evaluation may use this frame; None: all
    gender: str = "neutral"  # of the annotated body: neutral, male or female
    crop_scale: float = CROP_SCALE
    intrinsics: Floats | None = None  # (3, 3) px, where known
    frames: FrameSource | None = None  # where the pixels are; None without images
    # values of `Dataset.extra_columns`: (T, ...), or one value for the track
    extra: Mapping[str, Array] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Array]:
        """The track's per-frame arrays, (T, ...), by the cache's column names (`cache.COLUMNS`)."""
        arrays = {name: getattr(self, name) for name in cache.COLUMNS}
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def step(self) -> int:
        """The most common difference between frame numbers; of equally common ones, the smallest.

        1 for a single frame.
        """
        return usual_step(self.frame_index)

    def take(self, rows: NDArray[np.integer], extra: Collection[cache.ExtraColumn]) -> Track:
        """The track with some of its rows, in order. extra: declarations of its extra columns."""
        of_track = {column.name for column in extra if column.per == "track"}
        extra_rows = {
            name: value if name in of_track else value[rows] for name, value in self.extra.items()
        }
        columns = {name: array[rows] for name, array in self.columns.items()}
        return replace(self, **columns, extra=extra_rows)

    @property
    def rows(self) -> cache.TrackRows:
        """The track as it is written to the cache."""
        return cache.TrackRows(
            name=self.name,
            video=self.video,
            step=self.step,
            fps=self.fps,
            crop_scale=self.crop_scale,
            gender=self.gender,
            intrinsics=self.intrinsics,
            columns=self.columns,
            extra=self.extra,
        )


def free_name(name: str, separator: str, k: int, taken: set[str]) -> str:
    """Name the k-th part of a person: `name` for k = 0, else `name`, `separator` and a number.

    The number is k, or the next one whose name is not in `taken`. Adds the new name to `taken`.
    """
    if k == 0:
        return name
    while f"{name}{separator}{k}" in taken:
        k += 1
    numbered = f"{name}{separator}{k}"
    taken.add(numbered)
    return numbered


# column of labels -> the flag that marks the rows in which they are known
_FLAG_OF: Final = {
    "kp_3d": "has_3d",
    "kp_3d_eval": "has_3d",
    "pose": "has_smpl",
    "betas": "has_smpl",
    "trans": "has_smpl",
}


def usual_step(numbers: Sequence[int] | NDArray[np.integer]) -> int:
    """The most common difference of successive numbers; of equally common ones, the smallest.

    1 for a single number.
    """
    if len(numbers) < 2:
        return 1
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    # np.unique sorts, argmax takes the first: ties go to the smaller
    return int(steps[counts.argmax()])


def _known_rows(columns: Mapping[str, Array], name: str) -> Array:
    """The rows of a column that its flag marks as known; all if it has no flag."""
    rows = columns[name]
    flag = columns.get(_FLAG_OF.get(name, ""))
    if flag is not None:
        rows = rows[flag.astype(bool)]
    return rows


# Values are in another unit, such as mm or degrees, if more than this share of a track's frames is
# beyond a bound, or of a short track more than this number; a single wild frame proves nothing.
MAX_SHARE_BEYOND: Final = 0.1
MAX_BEYOND: Final = 1
# longest side of the box around the 3D joints: rolled up 0.5, with raised arms 2.6
EXTENT_M: Final = (0.3, 3.0)
MIN_BODY_JOINTS: Final = 12  # of a whole body; fewer may be a hand or a face
# rad: fits reach little more than one turn; in degrees, any pose exceeds 13
MAX_ANGLE: Final = 4 * math.pi
# If all joints are this near to the corner, they are shares of an image or crop, which reach from 0
# or -1 to 1.
NORMALISED_PX: Final = 2.0
CONFIDENCE_ROUNDING: Final = 1e-3  # confidences may be this far outside [0, 1]
# largest distance of camera or person from the origin: the longest walks are half of it, and files
# in mm exceed it after 1 m
FARTHEST_M: Final = 1000.0


def other_units(columns: Mapping[str, Array]) -> Iterator[tuple[str, str, str]]:
    """Yield (column, expected, found) for columns whose values are in another unit.

    Checks the size of 3D joints, angles, translations, the range of 2D joints, confidences outside
    [0, 1], boxes that are corners, and cameras that are not rigid. NaN passes, except in boxes and
    cameras.
    """
    for name, check in _CHECKS:
        if name not in columns:
            continue
        rows = _known_rows(columns, name)
        if len(rows):
            mistake = check(rows)
            if mistake:
                yield name, *mistake


def _are_many(is_beyond: Bools) -> bool:
    """Whether frames beyond a bound, (N,), prove another unit: many are, or all."""
    n_beyond = int(is_beyond.sum())
    many = max(MAX_BEYOND, MAX_SHARE_BEYOND * len(is_beyond))
    return n_beyond > many or 0 < n_beyond == len(is_beyond)


# (expected, found), parts of a message: ("a confidence within [0, 1]", "1.7"); None: no mistake
_Mistake = tuple[str, str] | None


def _check_boxes(boxes: Array) -> _Mistake:
    width = boxes[:, 2]
    height = boxes[:, 3]
    wrong = (width <= 0) | (width != height)
    if not wrong.any():
        return None
    return "square boxes in px: cx, cy, side, side", str(boxes[wrong][0].tolist())


def _check_size(joints: Array) -> _Mistake:
    extent = _extents(joints)
    low, high = EXTENT_M
    other_size = (extent < low) | (extent > high)
    if not _are_many(other_size):
        return None
    return f"bodies of {low:g} to {high:g} m", f"{np.nanmedian(extent[other_size]):.3g} m"


def _check_angles(pose: Array) -> _Mistake:
    rotvecs = pose.reshape(len(pose), -1, 3)
    with np.errstate(over="ignore"):  # infinity is another unit, too
        angle = np.linalg.norm(rotvecs, axis=-1).max(axis=1)
    is_beyond = angle > MAX_ANGLE
    if not _are_many(is_beyond):
        return None
    actual = f"{np.nanmedian(angle[is_beyond]):.3g} rad"
    return "rotations in rad, of two turns at most", actual


def _check_translation(trans: Array) -> _Mistake:
    distance = _far_distance(trans)
    if distance:
        return f"a person at most {FARTHEST_M:,.0f} m from the origin", f"{distance:,.0f} m"
    return None


def _check_confidence(joints: Array) -> _Mistake:
    confidence = joints[..., -1]
    wrong = (confidence < -CONFIDENCE_ROUNDING) | (confidence > 1 + CONFIDENCE_ROUNDING)
    if not wrong.any():
        return None
    return "a confidence within [0, 1]", f"{confidence[wrong][0]:.4g}"


def _check_pixels(joints: Array) -> _Mistake:
    is_seen = joints[..., 2] > 0
    points = joints[is_seen][:, :2]
    if len(points) < MIN_BODY_JOINTS:
        return None
    reach = float(np.abs(points).max())
    if reach <= NORMALISED_PX:
        return "pixels of the image", f"all joints within {reach:.3g} px of its corner"
    return None


def _check_camera(extrinsics: Array) -> _Mistake:
    if extrinsics.shape[1:] != (4, 4):
        return None
    wrong = ~is_rigid(extrinsics)
    if wrong.any():
        return "rows R t and 0 0 0 1, R a rotation", str(extrinsics[wrong][0].tolist())
    distance = _far_distance(extrinsics[:, :3, 3])
    if distance:
        limit = f"{FARTHEST_M:,.0f} m"
        return f"a camera at most {limit} from its world's origin", f"{distance:,.0f} m"
    return None


# (column, its check), in the order of the messages
_CHECKS: Final = (
    ("bbox", _check_boxes),
    ("kp_3d", _check_size),
    ("kp_3d_eval", _check_size),
    ("pose", _check_angles),
    ("trans", _check_translation),
    ("kp_2d", _check_confidence),
    ("kp_2d_hands", _check_confidence),
    ("kp_3d", _check_confidence),
    ("kp_2d", _check_pixels),
    ("extrinsics", _check_camera),
)


def column_problems(columns: Mapping[str, Array]) -> Iterator[str]:
    """Yield a sentence for each way in which a track's arrays violate docs/cache-format.md."""
    for name in FLOATS:
        if name not in columns:
            continue
        dtype = columns[name].dtype
        if dtype != np.float32:
            yield f"{name} is {dtype}, not float32"
        if not np.isfinite(_known_rows(columns, name)).all():
            yield f"{name} holds NaN or infinity"
    index_type = columns["frame_index"].dtype
    if index_type.kind not in "iu":
        yield f"frame_index is {index_type}"
    for name in FLAGS:
        if name in columns and not np.isin(columns[name], (0, 1)).all():
            yield f"{name} is neither true nor false everywhere"
    if "kp_2d" in columns:
        is_seen = columns["kp_2d"][..., 2] > 0
        if not is_seen.any(axis=1).all():
            yield "kp_2d has a frame without a visible joint"
    if "kp_3d" in columns:
        pelvis = _known_rows(columns, "kp_3d")[:, HIP, :3]
        if pelvis.any():
            yield "kp_3d has its pelvis (joint 39, hip) elsewhere than at 0"
    for flag, labels in (("has_3d", ("kp_3d", "kp_3d_eval")), ("has_smpl", ("pose", "betas"))):
        has_labels = not columns.keys().isdisjoint(labels)
        if (flag in columns) != has_labels:
            yield f"{flag} goes with {' or '.join(labels)}: one is there without the other"


def _far_distance(points: Array) -> float:
    """Median distance of the points (N, 3) that are too far from the origin; 0 if they are few."""
    distances = np.linalg.norm(points.astype(np.float64), axis=1)
    is_beyond = distances > FARTHEST_M
    if not _are_many(is_beyond):
        return 0.0
    return float(np.median(distances[is_beyond]))


def _extents(joints: Array) -> Doubles:
    """Longest side of the box around each frame's joints, (F,), in the joints' unit.

    joints: (T, J, 3), or (T, J, 4) with confidence. Only the F frames with MIN_BODY_JOINTS or more
    seen joints are measured.
    """
    is_seen = np.ones(joints.shape[:2], np.bool_)
    if joints.shape[-1] == 4:
        is_seen = joints[..., 3] > 0
    is_whole = is_seen.sum(axis=1) >= MIN_BODY_JOINTS
    points = joints[is_whole, :, :3].astype(np.float64)
    sides = np.ptp(corners_of(points, is_seen[is_whole]), axis=1)
    return np.asarray(sides.max(axis=-1))
