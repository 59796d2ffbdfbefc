"""Implausible labels of tracks, by image, box, other labels and the posed body.  raw -> [tracks]

Every release has some implausible frames. If most frames of a split are, the reader is wrong: it
uses another unit or order of coordinates, box corners as centres, or missing joints as visible
ones. So `pipeline.testing.datasets` shows each track of a split to a `LabelMistakes`, which checks
its frames and counts those with each mistake:

    what is stated twice               `pipeline.datasets.shared.contradictions`
    2D joints                          ORIGIN
    camera against `up`                INVERTED
    posed body against joints          MISPOSED, TURNED

At the end it reports the mistakes of too many frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.contradictions import (
    MIN_JOINTS,
    are_known,
    joints_about_root,
    measure,
)
from pipeline.datasets.shared.smpl import EXTRINSICS, UP
from pipeline.people.skeletons import HIP, Array, add_confidence
from pipeline.people.track import Track, column_problems, other_units

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smplx_body import SmplxBody


# Mistakes, as messages name them.
ORIGIN: Final = "a joint at exactly (0, 0) is visible: give missing joints confidence 0"
TURNED: Final = (
    "`pose` is rotated relative to the 3D joints: is its global orientation in camera axes "
    "in every frame?"
)
INVERTED: Final = (
    "people stand upright along the world's `up` only if `extrinsics` are inverted: are "
    "they world to camera?"
)
MISPOSED: Final = (
    "the joints of `pose` and `betas` differ from the 3D joints, even after the best rotation"
)

# Limits of a split.
# share of frames with ORIGIN: clipping at the image's edges can put a joint at (0, 0)
MAX_ORIGIN_SHARE: Final = 0.01
# share of frames with any other mistake; and of a frame's visible joints that may be outside
MOST: Final = 0.5

# Limits of a track.
MAX_CROP_SCALE: Final = 10.0
N_POSED: Final = 32  # frames to pose, which takes ms each

# Limits of a frame.
MAX_ANGLE_DEG: Final = 25.0  # allows for skeletons with other joint positions; demo data has 0
# mean over the joints, allows for the same; another pose of the person is >= 0.2 away
MAX_RESIDUAL_M: Final = 0.1
UPRIGHT: Final = np.cos(np.radians(30.0))  # cosine between spine and `up`
ASLANT: Final = np.cos(np.radians(60.0))


class _CheckedFrames(NamedTuple):
    """The frames of a track that show a mistake, among those that could be checked for it."""

    mistake: str
    wrong: Any  # (T,) bool; of no meaning where not checked
    checked: Any  # (T,) bool


class LabelMistakes:
    """Counts the frames of a split that show each mistake, and remembers the first of them."""

    def __init__(self) -> None:
        self._wrong: Counter[str] = Counter()  # mistake -> number of frames, see `_CheckedFrames`
        self._checked: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # mistake -> the first wrong frame, as messages name it

    def check(self, track: Track, dataset: Dataset, body: Body | SmplxBody | None) -> None:
        """Check a track of the split. body: SMPL's, neutral; another: `pose` is not checked."""
        if track.kp_2d is not None:
            self._add(track, _check_origin(track.kp_2d))
        self._add(track, _check_twice(track))
        self._add(track, _check_extrinsics(track))
        if body is None:
            return
        from pipeline.people.body import Body  # loads torch

        if not isinstance(body, Body):
            return
        sample = _sample_posed_frames(track)
        if sample is not None:
            self._add(sample, _check_pose(sample, _label_body(dataset, track, body)))

    def _add(self, track: Track, checked_frames: Iterable[_CheckedFrames]) -> None:
        for frames in checked_frames:
            mistake = frames.mistake
            wrong = frames.wrong & frames.checked
            self._wrong[mistake] += int(wrong.sum())
            self._checked[mistake] += int(frames.checked.sum())
            if wrong.any():
                frame = track.frame_index[wrong.argmax()]
                self._first.setdefault(mistake, f"frame {frame} of {track.name}")

    def problems(self, split: str) -> Iterator[str]:
        """Yield a message for each mistake that too many frames show."""
        for mistake, n in self._wrong.items():
            checked = self._checked[mistake]
            allowed = MAX_ORIGIN_SHARE if mistake == ORIGIN else MOST
            if n > checked * allowed:
                first = self._first[mistake]
                yield f"{split}: {mistake}: in {n:,} of {checked:,} frames, the first is {first}"


def track_problems(track: Track) -> list[str]:
    """Problems of a track that reading and writing do not reject."""
    columns = track.columns
    problems = []
    if not 0 < track.crop_scale < MAX_CROP_SCALE:
        problems.append(f"crop_scale is {track.crop_scale}")
    if not isinstance(track.fps, float | int):
        problems.append(f"fps is {track.fps!r}: expected a number")
    elif track.fps <= 0 or np.isinf(track.fps):
        problems.append(f"fps is {track.fps}: use nan if the release does not state it")
    if track.intrinsics is not None and _camera_problem(track.intrinsics):
        problems.append(f"intrinsics are {track.intrinsics!r}")
    if (track.frames is None) != (track.bbox is None):
        problems.append("has boxes without images, or images without boxes")
    for name, expected, actual in other_units(columns | dict(track.extra)):
        problems.append(f"{name} is in the wrong unit: expected {expected}, found {actual}")
    has_body = track.has_smpl is None or track.has_smpl.any()
    if track.trans is not None and has_body and not track.trans.any():
        problems.append("trans is 0 in every frame: leave the column out if it is unknown")
    return [f"{track.name}: {problem}" for problem in (*problems, *column_problems(columns))]


def _check_twice(track: Track) -> Iterator[_CheckedFrames]:
    """Compare what is stated twice."""
    for check, values in measure(track).items():
        yield _CheckedFrames(check.text, values > check.limit, np.isfinite(values))


def _check_origin(kp_2d: Array) -> Iterator[_CheckedFrames]:
    """Check 2D keypoints (T, 49, 3), px and confidence."""
    is_visible = are_known(kp_2d)
    is_origin = is_visible & ~kp_2d[..., :2].any(axis=-1)
    yield _CheckedFrames(ORIGIN, is_origin.any(axis=1), is_visible.any(axis=1))


def _camera_problem(intrinsics: Array) -> bool:
    """Whether intrinsics are no finite, invertible 3 x 3 matrix."""
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        return True
    return bool(np.linalg.matrix_rank(intrinsics) < 3)


def _check_pose(track: Track, body: Body) -> Iterator[_CheckedFrames]:
    """Check the posed body of a track whose `pose` and `betas` are known in every frame.

    Compares its joints with the 3D joints after the best rotation about their mean, or in place of
    3D joints with what else is stated.
    """
    if track.pose is None or track.betas is None:
        return
    posed, _ = body.posed_joints(track.pose, track.betas)
    labelled = joints_about_root(track)
    if labelled is None:
        about_hip = add_confidence(posed - posed[:, HIP : HIP + 1])
        is_posed = np.ones(len(posed), np.bool_)
        yield from _check_twice(replace(track, kp_3d=about_hip, has_3d=is_posed))
        return
    is_used = are_known(labelled)
    checked = (is_used.sum(axis=1) >= MIN_JOINTS) & (track.has_3d == 1)
    angle, residual = _fit_rotation(posed, labelled[..., :3], is_used)
    is_misposed = residual > MAX_RESIDUAL_M
    yield _CheckedFrames(MISPOSED, is_misposed, checked)
    yield _CheckedFrames(TURNED, (angle > MAX_ANGLE_DEG) & ~is_misposed, checked)


def _check_extrinsics(track: Track) -> Iterator[_CheckedFrames]:
    """Check whether the body stands along `up` only by the inverse camera.

    Finds nothing if the camera looks straight ahead in a world whose y axis points up.
    """
    extra = track.extra
    pose = track.pose
    if pose is None or not {EXTRINSICS.name, UP.name} <= extra.keys():
        return
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    rotation = extra[EXTRINSICS.name][:, :3, :3].astype(np.float64)
    up = extra[UP.name]
    checked = _has_body(track, pose)
    root = np.where(checked[:, None], pose[:, :3], 0)
    spine = Rotation.from_rotvec(root).apply([0.0, 1.0, 0.0])
    # cosine between the spine, in camera axes, and `up`, turned by the camera or by its inverse
    as_given = np.einsum("tij,j,ti->t", rotation, up, spine)
    inverted = np.einsum("tji,j,ti->t", rotation, up, spine)
    wrong = (as_given < ASLANT) & (inverted > UPRIGHT)
    yield _CheckedFrames(INVERTED, wrong, checked)


def _has_body(track: Track, body: Array) -> Array:
    """(T,) whether a frame has a body, and its parameters (T, C) are finite."""
    is_finite = np.isfinite(body).all(axis=1)
    if track.has_smpl is not None:
        is_finite &= track.has_smpl.astype(np.bool_)
    return np.asarray(is_finite)


def _sample_posed_frames(track: Track) -> Track | None:
    """At most `N_POSED` evenly spaced frames with known pose and betas; None if there are none."""
    if track.pose is None or track.betas is None:
        return None
    is_labelled = _has_body(track, np.concatenate([track.pose, track.betas], axis=1))
    rows = np.flatnonzero(is_labelled)
    if not len(rows):
        return None
    spread = np.linspace(0, len(rows) - 1, N_POSED).astype(np.int64)
    rows = rows[np.unique(spread)]
    columns: dict[str, Any] = {name: array[rows] for name, array in track.columns.items()}
    return replace(track, **columns)


def _label_body(dataset: Dataset, track: Track, body: Body) -> Body:
    """The body of the gender that a track's labels use (`Dataset.genders`)."""
    if dataset.genders == ("neutral",):
        return body
    if track.gender in dataset.genders:
        return body.of(track.gender)
    return body.of(dataset.genders[0])


def _fit_rotation(joints: Array, target: Array, is_used: Array) -> tuple[Array, Array]:
    """Rotate joints to a target as well as possible: angle (T,) deg, and mean residual (T,) m.

    joints, target: (T, J, 3) m. is_used: (T, J), which joints count.
    """
    from pipeline.people.rotations import nearest_rotations  # loads torch

    n_used = np.maximum(is_used.sum(axis=1), 1)
    weight = (is_used / n_used[:, None])[..., None]
    target = np.where(is_used[..., None], target, 0).astype(np.float64)
    centred = joints - (joints * weight).sum(axis=1, keepdims=True)
    centred_target = target - (target * weight).sum(axis=1, keepdims=True)
    covariance = np.swapaxes(centred * weight, 1, 2) @ centred_target
    rotation = nearest_rotations(covariance)  # of row vectors: centred @ rotation
    distance = np.linalg.norm(centred @ rotation - centred_target, axis=-1, keepdims=True)
    residual = (distance * weight).sum(axis=(1, 2))
    cosine = (np.trace(rotation, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), residual
