"""Implausible labels of tracks, by image, box, other labels and the posed body.  raw -> [tracks]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import MIN_SIDE_PX, extents
from pipeline.cameras import project
from pipeline.datasets.base import EXTRINSICS, UP, Dataset
from pipeline.errors import RawDataError
from pipeline.skeletons import add_confidence, convert
from pipeline.track import MOST, Track, column_problems, other_units

if TYPE_CHECKING:
    from pipeline.body import Body

Array = NDArray[Any]
# mistake -> (T,) whether a frame shows it, (T,) whether it was checked
Mistakes = dict[str, tuple[Array, Array]]

MAX_CROP_SCALE: Final = 10.0

# Implausible labels. Every release has some such frames; if most frames of a split are affected,
# the reader is wrong: it uses another unit or order of coordinates, box corners as centres, or
# missing joints as visible ones.
ONE_PLACE: Final = "all visible joints are within a pixel of each other"
OUTSIDE_IMAGE: Final = "most visible joints are outside the image"
OUTSIDE_BOX: Final = "most visible joints are outside the box"
ONE_QUARTER: Final = (
    "the visible joints are in one direction from the box's centre, as if that were a corner"
)
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
# share of frames that may show a mistake: clipping at the image's edges can put a joint at (0, 0)
FEW: Final = 0.01
NEARLY_ALL: Final = 0.9  # share of a frame's joints: a box from another source may cut off a hand
ENOUGH: Final = 6  # least number of joints of spin49, which has most joints of a release twice
# of the box's side, median over a frame's joints; correct readers of demo data stay below 0.005
FAR: Final = 0.15
ROUNDING_PX: Final = 1.0  # tight boxes end at a joint, and releases round
POSED: Final = 32  # frames per track to pose, which takes ms each
TURNED_DEG: Final = 25.0  # tolerance for skeletons with different joint positions; demo data has 0
# the same tolerance, mean over a frame's joints; another pose of the person is >= 0.2 away
MISPOSED_M: Final = 0.1

UPRIGHT, ASLANT = np.cos(np.radians((30.0, 60.0)))  # cosine between spine and `up`


class LabelMistakes:
    """For each mistake in labels, the number of frames of a split that show it, and the first of
    them.
    """

    def __init__(self) -> None:
        self._wrong: Counter[str] = Counter()
        self._checked: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def check(self, track: Track, dataset: Dataset, body: Body | None) -> None:
        """Check a track of the split; body: to check `pose`."""
        if track.kp_2d is not None:
            self._add(track, check_keypoints(track.kp_2d, track.bbox, _image_size(track)))
            self._add(track, _check_projection(track))
        self._add(track, check_extrinsics(track))
        if body is None:
            return
        sample = _sample_posed_frames(track)
        if sample is not None:
            self._add(sample, _check_pose(sample, _label_body(dataset, track, body)))

    def _add(self, track: Track, mistakes: Mistakes) -> None:
        for mistake, (shows, could) in mistakes.items():
            wrong = shows & could
            self._wrong[mistake] += int(wrong.sum())
            self._checked[mistake] += int(could.sum())
            if wrong.any():
                frame = track.frame_index[wrong.argmax()]
                self._first.setdefault(mistake, f"frame {frame} of {track.name}")

    def problems(self, split: str) -> Iterator[str]:
        for mistake, n in self._wrong.items():
            checked = self._checked[mistake]
            allowed = FEW if mistake == ORIGIN else MOST
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


def check_keypoints(kp_2d: Array, bbox: Array | None, size: tuple[int, int] | None) -> Mistakes:
    """Check 2D keypoints against image and box. Joints that are not finite count as unseen.

    Args:
        kp_2d: (T, 49, 3) px and confidence.
        bbox: (T, 4) px.
        size: (width, height) of the images in px.
    """
    points = kp_2d[..., :2].astype(np.float64)
    corners, any_seen = extents(kp_2d)
    visible = (kp_2d[..., 2] > 0) & np.isfinite(points).all(axis=-1)
    points[~visible] = 0

    def count(joints: Any) -> Array:
        """(T,) number of visible joints among these (T, 49)."""
        return np.asarray((visible & joints).sum(axis=1))

    n_seen = visible.sum(axis=1)
    enough = n_seen >= ENOUGH
    one_place = np.ptp(corners, axis=1).max(axis=1) < MIN_SIDE_PX
    is_origin = (points == 0).all(axis=-1)
    mistakes = {ONE_PLACE: (one_place, enough), ORIGIN: (count(is_origin) > 0, any_seen)}
    if size is not None:
        edge = np.array(size) - 0.5
        outside = ((points < -0.5) | (points > edge)).any(axis=-1)
        mistakes[OUTSIDE_IMAGE] = (count(outside) > MOST * n_seen, any_seen)
    if bbox is None or not np.isfinite(bbox).all():
        return mistakes

    from_centre = points - bbox[:, None, :2]
    reach = bbox[:, None, 2:] / 2 + ROUNDING_PX
    outside = (np.abs(from_centre) > reach).any(axis=-1)
    mistakes[OUTSIDE_BOX] = (count(outside) > MOST * n_seen, any_seen)
    n_beside = np.zeros_like(n_seen)
    for direction in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        is_in_quarter = (from_centre * direction >= 0).all(axis=-1)
        n_beside = np.maximum(n_beside, count(is_in_quarter))
    mistakes[ONE_QUARTER] = (n_beside >= NEARLY_ALL * n_seen, enough & ~one_place)
    return mistakes


def _camera_problem(intrinsics: Array) -> bool:
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        return True
    return bool(np.linalg.matrix_rank(intrinsics) < 3)


def _check_projection(
    track: Track,
    joints: Array | None = None,
    trans: Array | None = None,
    mistake: str = MISPROJECTED,
) -> Mistakes:
    """Check whether 3D joints project near the 2D joints. Finds mixed-up or mirrored joints, wrong
    axes or intrinsics.

    Args:
        joints: (T, 49, 4) m and confidence. None: the track's 3D joints.
        trans: (T, 3) m. None: the best translation of each frame, by least squares on the camera
            rays.
        mistake: Key of the result.

    Empty without intrinsics or 3D joints.
    """
    if joints is None:
        joints = track.kp_3d
    if joints is None and track.kp_3d_eval is not None:
        joints = convert(add_confidence(track.kp_3d_eval), source="common14", target="spin49")
    camera = track.intrinsics
    if joints is None or camera is None or _camera_problem(camera):
        return {}
    if track.kp_2d is None or track.bbox is None:
        return {}
    keypoints = track.kp_2d.astype(np.float64)
    used = _usable(joints) & _usable(keypoints)
    could = _enough_joints(track, used)
    used = used[could]
    points = joints[could, :, :3].astype(np.float64)
    keypoints = keypoints[could]
    points[~used] = 0
    keypoints[~used] = 0
    keypoints[..., 2] = 1
    if trans is None:
        rays = keypoints @ np.linalg.inv(camera).T
        points += _fit_translation(points, rays, used)
    else:
        points = points + trans[could, None]

    away = np.linalg.norm(project(points, camera) - keypoints[..., :2], axis=-1)
    away[np.isnan(away)] = np.inf  # behind the camera
    away[~used] = np.nan
    shows = np.zeros(len(could), np.bool_)
    shows[could] = np.nanmedian(away, axis=1) > FAR * track.bbox[could, 2]
    return {mistake: (shows, could)}


def _usable(joints: Array) -> Array:
    """(T, J) whether joints (T, J, C), the last number a confidence, are known and finite."""
    return np.asarray((joints[..., -1] > 0) & np.isfinite(joints).all(axis=-1))


def _enough_joints(track: Track, used: Array) -> Array:
    """Whether each frame has 3D labels and enough joints to compare, (T,). used: (T, J)."""
    enough = used.sum(axis=1) >= ENOUGH
    if track.has_3d is not None:
        enough &= track.has_3d.astype(np.bool_)
    return np.asarray(enough)


def _fit_translation(points: Array, rays: Array, used: Array) -> Array:
    """Translation (n, 1, 3) m that moves points (n, 49, 3) m nearest to camera rays (n, 49, 3), by
    least squares.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    ray_x, ray_y, _ = np.moveaxis(rays, -1, 0)
    ones = np.ones_like(x)
    zero = np.zeros_like(x)
    by_x = np.stack([ones, zero, -ray_x], -1)
    by_y = np.stack([zero, ones, -ray_y], -1)
    system = np.concatenate([by_x, by_y], axis=1)  # (n, 2 * 49, 3)
    residual = np.concatenate([ray_x * z - x, ray_y * z - y], axis=1)
    weight = np.tile(used, 2)[..., None]
    solution = np.linalg.pinv(system * weight) @ (residual[..., None] * weight)
    return np.asarray(solution.transpose(0, 2, 1))


def _check_pose(track: Track, body: Body) -> Mistakes:
    """Check the posed body of a track whose `pose` and `betas` are known in every frame.

    Compares its joints with the 3D joints after the best rotation about their mean. Compares its
    projection, moved by `trans` (or the best translation if the track has no 3D joints), with the
    2D joints.
    """
    if track.pose is None or track.betas is None:
        return {}
    spin49, common14 = body.posed_joints(track.pose, track.betas)
    posed = add_confidence(spin49)
    known = replace(track, has_3d=None)
    mistakes: Mistakes = {}
    if track.trans is not None:
        mistakes = _check_projection(known, posed, track.trans, MISPLACED)
    if track.kp_3d is not None:
        joints = track.kp_3d
        compared = spin49
    elif track.kp_3d_eval is not None:
        joints = add_confidence(track.kp_3d_eval)
        compared = common14
    else:
        return _check_projection(known, posed) | mistakes
    used = _usable(joints)
    could = _enough_joints(track, used)
    angle, apart = _fit_rotation(compared, joints[..., :3], used)
    is_misposed = apart > MISPOSED_M
    mistakes[MISPOSED] = (is_misposed, could)
    mistakes[TURNED] = ((angle > TURNED_DEG) & ~is_misposed, could)
    return mistakes


def check_extrinsics(track: Track) -> Mistakes:
    """Check whether the body stands along `up` only by the inverse camera.

    Finds nothing if the camera looks straight ahead in a world whose y axis points up.
    """
    extra = track.extra
    pose = track.pose
    if pose is None or not {EXTRINSICS.name, UP.name} <= extra.keys():
        return {}
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    rotation = extra[EXTRINSICS.name][:, :3, :3].astype(np.float64)
    could = _has_body(track, pose)
    root = np.where(could[:, None], pose[:, :3], 0)
    spine = Rotation.from_rotvec(root).apply([0.0, 1.0, 0.0])
    up = extra[UP.name]
    given = np.einsum("tij,j,ti->t", rotation, up, spine)
    inverse = np.einsum("tji,j,ti->t", rotation, up, spine)
    return {INVERTED: ((given < ASLANT) & (inverse > UPRIGHT), could)}


def _has_body(track: Track, body: Array) -> Array:
    """(T,) whether a frame has a body, and its parameters (T, C) are finite."""
    is_finite = np.isfinite(body).all(axis=1)
    if track.has_smpl is not None:
        is_finite &= track.has_smpl.astype(np.bool_)
    return np.asarray(is_finite)


def _sample_posed_frames(track: Track) -> Track | None:
    """At most `POSED` evenly spaced frames of a track whose pose and betas are known; None if there
    are none.
    """
    if track.pose is None or track.betas is None:
        return None
    is_labelled = _has_body(track, np.concatenate([track.pose, track.betas], axis=1))
    rows = np.flatnonzero(is_labelled)
    if not len(rows):
        return None
    spread = np.linspace(0, len(rows) - 1, POSED).astype(np.int64)
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


def _fit_rotation(joints: Array, target: Array, used: Array) -> tuple[Array, Array]:
    """Rotate joints to a target as well as possible: angle (T,) deg, and mean residual (T,) m.

    joints, target: (T, J, 3) m. used: (T, J), which joints count.
    """
    from pipeline.rotations import nearest_rotations  # loads torch

    n_used = np.maximum(used.sum(axis=1), 1)
    weight = (used / n_used[:, None])[..., None]
    target = np.where(used[..., None], target, 0).astype(np.float64)
    a = joints - (joints * weight).sum(axis=1, keepdims=True)
    b = target - (target * weight).sum(axis=1, keepdims=True)
    turn = nearest_rotations(np.swapaxes(a * weight, 1, 2) @ b)
    distance = np.linalg.norm(a @ turn - b, axis=-1, keepdims=True)
    residual = (distance * weight).sum(axis=(1, 2))
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), residual


def _image_size(track: Track) -> tuple[int, int] | None:
    """Width and height in px; None if no image can be read."""
    if track.frames is None:
        return None
    try:
        return track.frames.size()
    except RawDataError:
        return None
