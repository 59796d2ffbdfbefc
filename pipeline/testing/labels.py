"""Implausible labels of tracks, by image, box, other labels and the posed body.  raw -> [tracks]

Every release has some implausible frames. If most frames of a split are, the reader is wrong: it
uses another unit or order of coordinates, box corners as centres, or missing joints as visible
ones. So `pipeline.testing.datasets` shows each track of a split to a `LabelMistakes`, which checks
its frames and counts those with each mistake:

    2D joints against the box          ORIGIN, OUTSIDE_BOX
    3D joints against 2D joints        MISPROJECTED
    camera against `up`                INVERTED
    posed body against joints          MISPLACED, MISPOSED, TURNED, MISPROJECTED

At the end it reports the mistakes of too many frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.smpl import EXTRINSICS, UP
from pipeline.people.cameras import project
from pipeline.people.skeletons import Array, add_confidence, convert
from pipeline.people.track import Track, column_problems, other_units

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smplx_body import SmplxBody


# Mistakes, as messages name them.
OUTSIDE_BOX: Final = "most visible joints are outside the box"
ORIGIN: Final = "a joint at exactly (0, 0) is visible: give missing joints confidence 0"
MISPROJECTED: Final = (
    "3D joints project far from the 2D joints with the same names, with any translation"
)
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
MISPLACED: Final = (
    "the body of `pose` and `betas`, moved by `trans`, projects far from the 2D joints"
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
MIN_JOINTS: Final = 6  # to compare, of spin49, which has most joints of a release twice
ROUNDING_PX: Final = 1.0  # tight boxes end at a joint, and releases round
# between projected and 2D joints, of the box's side, median over the joints; correct readers of
# demo data stay below 0.005
MAX_DISTANCE: Final = 0.15
MAX_ANGLE_DEG: Final = 25.0  # allows for skeletons with other joint positions; demo data has 0
# mean over the joints, allows for the same; another pose of the person is >= 0.2 away
MAX_RESIDUAL_M: Final = 0.1
UPRIGHT: Final = np.cos(np.radians(30.0))  # cosine between spine and `up`
ASLANT: Final = np.cos(np.radians(60.0))


class _CheckedFrames(NamedTuple):
    """The frames of a track that show a mistake, among those that could be checked for it."""

    mistake: str
    wrong: Array  # (T,) bool; of no meaning where not checked
    checked: Array  # (T,) bool


class LabelMistakes:
    """Counts the frames of a split that show each mistake, and remembers the first of them."""

    def __init__(self) -> None:
        self._wrong: Counter[str] = Counter()  # mistake -> number of frames, see `_CheckedFrames`
        self._checked: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # mistake -> the first wrong frame, as messages name it

    def check(self, track: Track, dataset: Dataset, body: Body | SmplxBody | None) -> None:
        """Check a track of the split. body: SMPL's, neutral; another: `pose` is not checked."""
        if track.kp_2d is not None:
            self._add(track, _check_keypoints(track.kp_2d, track.bbox))
            self._add(track, _check_labelled_joints(track))
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


def _check_keypoints(kp_2d: Array, bbox: Array | None) -> Iterator[_CheckedFrames]:
    """Check 2D keypoints (T, 49, 3), px and confidence, against the box (T, 4) px. Joints that are
    not finite count as invisible.
    """
    points = kp_2d[..., :2].astype(np.float64)
    is_visible = (kp_2d[..., 2] > 0) & np.isfinite(points).all(axis=-1)
    points[~is_visible] = 0
    n_visible = is_visible.sum(axis=1)
    has_any = n_visible > 0
    is_origin = is_visible & (points == 0).all(axis=-1)
    yield _CheckedFrames(ORIGIN, is_origin.any(axis=1), has_any)
    if bbox is None or not np.isfinite(bbox).all():
        return

    from_centre = points - bbox[:, None, :2]
    reach = bbox[:, None, 2:] / 2 + ROUNDING_PX
    is_outside = is_visible & (np.abs(from_centre) > reach).any(axis=-1)
    yield _CheckedFrames(OUTSIDE_BOX, is_outside.sum(axis=1) > MOST * n_visible, has_any)


def _camera_problem(intrinsics: Array) -> bool:
    """Whether intrinsics are no finite, invertible 3 x 3 matrix."""
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        return True
    return bool(np.linalg.matrix_rank(intrinsics) < 3)


def _check_labelled_joints(track: Track) -> Iterator[_CheckedFrames]:
    """Check whether the track's 3D joints, moved by any translation, project near its 2D joints."""
    joints = track.kp_3d
    if joints is None and track.kp_3d_eval is not None:
        joints = convert(add_confidence(track.kp_3d_eval), source="common14", target="spin49")
    if joints is not None:
        yield from _check_projection(track, joints, None, MISPROJECTED)


def _check_projection(
    track: Track, joints: Array, trans: Array | None, mistake: str
) -> Iterator[_CheckedFrames]:
    """Check whether 3D joints project near the 2D joints. Finds mixed-up or mirrored joints, wrong
    axes or intrinsics. Checks nothing without 2D joints or intrinsics.

    Args:
        joints: (T, 49, 4) m and confidence.
        trans: (T, 3) m. None: the best translation of each frame, by least squares on the camera
            rays.
        mistake: What the result is called.
    """
    camera = track.intrinsics
    if camera is None or _camera_problem(camera):
        return
    if track.kp_2d is None or track.bbox is None:
        return
    keypoints = track.kp_2d.astype(np.float64)
    is_used = _are_known(joints) & _are_known(keypoints)
    checked = _have_enough_joints(track, is_used)
    is_used = is_used[checked]
    points = joints[checked, :, :3].astype(np.float64)
    keypoints = keypoints[checked]
    points[~is_used] = 0
    keypoints[~is_used] = 0
    keypoints[..., 2] = 1
    if trans is None:
        rays = keypoints @ np.linalg.inv(camera).T
        points += _fit_translation(points, rays, is_used)
    else:
        points = points + trans[checked, None]

    distance = np.linalg.norm(project(points, camera) - keypoints[..., :2], axis=-1)
    distance[np.isnan(distance)] = np.inf  # behind the camera
    distance[~is_used] = np.nan
    wrong = np.zeros(len(checked), np.bool_)
    wrong[checked] = np.nanmedian(distance, axis=1) > MAX_DISTANCE * track.bbox[checked, 2]
    yield _CheckedFrames(mistake, wrong, checked)


def _are_known(joints: Array) -> Array:
    """(T, J) whether joints (T, J, C), the last number a confidence, are known and finite."""
    return np.asarray((joints[..., -1] > 0) & np.isfinite(joints).all(axis=-1))


def _have_enough_joints(track: Track, is_used: Array) -> Array:
    """(T,) whether frames have 3D labels and enough joints to compare, of (T, J)."""
    has_enough = is_used.sum(axis=1) >= MIN_JOINTS
    if track.has_3d is not None:
        has_enough &= track.has_3d.astype(np.bool_)
    return np.asarray(has_enough)


def _fit_translation(points: Array, rays: Array, is_used: Array) -> Array:
    """Translation (n, 1, 3) m that moves points (n, 49, 3) m nearest to camera rays (n, 49, 3), by
    least squares.

    A point p, moved by t, is on the ray (x, y, 1) if p_x + t_x = x (p_z + t_z), and so for y: two
    linear equations for t from each used point, such as t_x - x t_z = x p_z - p_x.
    """
    point_x, point_y, point_z = np.moveaxis(points, -1, 0)
    ray_x, ray_y, _ = np.moveaxis(rays, -1, 0)
    ones = np.ones_like(ray_x)
    zero = np.zeros_like(ray_x)
    factors_x = np.stack([ones, zero, -ray_x], -1)
    factors_y = np.stack([zero, ones, -ray_y], -1)
    factors = np.concatenate([factors_x, factors_y], axis=1)  # (n, 2 * 49, 3)
    values = np.concatenate([ray_x * point_z - point_x, ray_y * point_z - point_y], axis=1)
    weight = np.tile(is_used, 2)[..., None]
    solution = np.linalg.pinv(factors * weight) @ (values[..., None] * weight)
    return np.asarray(solution.transpose(0, 2, 1))


def _check_pose(track: Track, body: Body) -> Iterator[_CheckedFrames]:
    """Check the posed body of a track whose `pose` and `betas` are known in every frame.

    Compares its joints with the 3D joints after the best rotation about their mean. Compares its
    projection, moved by `trans` (or the best translation if the track has no 3D joints), with the
    2D joints.
    """
    if track.pose is None or track.betas is None:
        return
    spin49, common14 = body.posed_joints(track.pose, track.betas)
    posed = add_confidence(spin49)
    all_3d = replace(track, has_3d=None)  # the posed body is known in every frame
    if track.trans is not None:
        yield from _check_projection(all_3d, posed, track.trans, MISPLACED)
    if track.kp_3d is not None:
        labelled = track.kp_3d
        compared = spin49
    elif track.kp_3d_eval is not None:
        labelled = add_confidence(track.kp_3d_eval)
        compared = common14
    else:
        yield from _check_projection(all_3d, posed, None, MISPROJECTED)
        return
    is_used = _are_known(labelled)
    checked = _have_enough_joints(track, is_used)
    angle, residual = _fit_rotation(compared, labelled[..., :3], is_used)
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
