"""Check that estimated bodies lie on the people: distances of projected joints from 2D joints.

`fit` compares each body of a person with each track. If most bodies are far from all tracks, it
corrects each mistake that tools and settings are known to make, and names the one whose correction
helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pipeline.cameras import project
from pipeline.exchange.bodies.estimate import BodyEstimate
from pipeline.skeletons import KEYPOINTS_13_OF_SPIN49, PELVIS, Bools, Doubles, Ints
from pipeline.track import FARTHEST_M

# Distances of bodies, as shares of the box's height:
NOTED: Final = 0.05  # beyond it, a note is written
REFUSED: Final = 0.15  # beyond it, a body is not imported
CONFIDENT: Final = 0.3  # least confidence of a 2D joint that is compared
_LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
CLEARLY: Final = 0.5  # a likely cause, or another track, leaves at most this share of the distance
_NAMED, _OPENPOSE = KEYPOINTS_13_OF_SPIN49
# shoulders, hips, knees and ankles, by either name
COMPARED: Final = (*_NAMED[1:3], *_NAMED[7:], *_OPENPOSE[1:3], *_OPENPOSE[7:])
SHIFTS: Final = (-2, -1, 1, 2)  # frames by which a tool's frame numbers may be off
RATES: Final = (0.5, 5 / 6, 1.2, 2.0)  # shares of the clip's rate at which a tool may have read it
SMPLX_PELVIS: Final = np.array([0.0, -0.12, -0.02])  # m, about: SMPL-X's rest pelvis minus SMPL's


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionFit:
    """How well the N bodies of one person fit the 2D joints of each of T tracks."""

    # (T, N) in heights of the box; nan if there is no joint to compare, infinite for a body with a
    # compared joint that the camera cannot see, or over FARTHEST_M away
    distances: Doubles
    margin: float = 1.0  # the `margin` of `BodyEstimate.position` that fits better
    cause: str = ""  # likeliest cause of a distance beyond NOTED

    @property
    def medians(self) -> Doubles:
        """The median distance (T,) from each track; nan for one without a body to compare."""
        return np.array([_median(distances) for distances in self.distances])

    @property
    def distance(self) -> float:
        """The median distance from the closest track; nan without a body to compare."""
        return float(np.fmin.reduce(self.medians, initial=np.nan))

    @property
    def closest(self) -> Doubles:
        """The distance (N,) of each body from the track that is closest to it."""
        return np.asarray(np.fmin.reduce(self.distances, axis=0, initial=np.nan))

    def find_rows_of_track(self, track: int) -> Ints:
        """The bodies that lie on a track, and on no other one clearly more closely."""
        distances = self.distances[track]
        is_closest = self.closest >= CLEARLY * distances
        return np.flatnonzero(is_closest & (distances <= REFUSED))


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """2D joints of one person: frame_index (T,), kp_2d (T, 49, 3) px px confidence, height (T,) px
    of the box.
    """

    frame_index: Ints
    kp_2d: Doubles
    height: Doubles


def fit(
    estimate: BodyEstimate,
    joints: Doubles,
    tracks: Sequence[Keypoints],
    size: tuple[int, int],
) -> ProjectionFit:
    """Compare projected bodies with the 2D joints of tracks, in the frames that both have.

    joints: Joints of the bodies in spin49, (N, 49, 3) m without translation. size: width, height px
    of the clip.
    """
    comparisons = [_JointComparison(joints, estimate, track, size) for track in tracks]
    margins: tuple[float, ...] = (1.0,)
    if estimate.trans is None:
        margins = (_LARGER_CROP, 1.0)
    fits = []
    for margin in margins:
        trans = estimate.position(size, margin)
        distances = [comparison.distances(trans) for comparison in comparisons]
        fits.append(ProjectionFit(np.reshape(distances, (len(tracks), len(joints))), margin))
    best = min(fits, key=lambda fitted: fitted.distance)
    if not NOTED < best.distance < np.inf:
        return best

    trans = estimate.position(size, best.margin)
    causes = []
    for comparison in comparisons:
        for cause, remaining in comparison.try_causes(trans):
            causes.append((np.nan_to_num(remaining, nan=np.inf), cause))
    remaining, likeliest = min(causes)
    if remaining > CLEARLY * best.distance:
        likeliest = "no known cause"
    return replace(best, cause=likeliest)


@dataclass(frozen=True, slots=True, eq=False)
class _JointComparison:
    """Posed joints (N, 49, 3) m of an estimate, and the 2D joints that they are compared with."""

    joints: Doubles
    estimate: BodyEstimate
    keypoints: Keypoints
    size: tuple[int, int]

    def distances(self, trans: Doubles, frames: Ints | None = None) -> Doubles:
        """The distance (N,) of each body, as in `ProjectionFit`. frames: (N,) other ones than the
        estimate's.
        """
        if frames is None:
            frames = self.estimate.frames
        rows, rows_2d = self._common_rows(frames)
        projected = self._project(trans, self.estimate.pixel_intrinsics(self.size))
        distances = np.full(len(trans), np.nan)
        distances[rows] = self._row_distances(projected[rows], rows_2d)
        return distances

    def distance(self, trans: Doubles, frames: Ints | None = None) -> float:
        """The median of the distances; nan without any."""
        return _median(self.distances(trans, frames))

    def try_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """Yield (cause, distance if it is corrected) for each known cause of a distance."""
        pelvis = self.joints[:, PELVIS]
        yield "the mid-hip's place is taken for a translation", self.distance(trans - pelvis)
        if self.estimate.is_smplx:
            yield "a body of SMPL is taken for SMPL-X's", self.distance(trans - SMPLX_PELVIS)
        else:
            yield "a body of SMPL-X is taken for SMPL's", self.distance(trans + SMPLX_PELVIS)
        frames = self.estimate.frames
        for shift in SHIFTS:
            yield f"frames are shifted by {shift:+d}", self.distance(trans, frames + shift)
        for rate in RATES:
            in_clip = np.floor(frames / rate).astype(np.int64)
            cause = f"the clip was read at {rate:.2g} of its rate"
            yield cause, self.distance(trans, in_clip)
        yield from self._try_image_causes(trans)

    def _try_image_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """The same for causes in the camera, and in images other than the clip's."""
        rows, rows_2d = self._common_rows(self.estimate.frames)
        keypoints, is_seen = self._compared_keypoints(rows_2d)
        camera = self.estimate.pixel_intrinsics(self.size)
        projected = self._project(trans, camera)[rows]
        center = camera[:2, 2]
        ratio = _scale(projected - center, keypoints - center, is_seen)
        if ratio > 0:
            zoomed = (projected - center) * ratio + center
            yield f"the focal length is {1 / ratio:.2f} of it", self._distance(zoomed, rows_2d)
        resize = _scale(projected, keypoints, is_seen)
        if resize > 0:
            cause = f"pictures had {1 / resize:.2f} of the size"
            yield cause, self._distance(projected * resize, rows_2d)
        width, height = self.size
        # in images that are on their side, width and height are exchanged
        rotated = self._project(trans, self.estimate.pixel_intrinsics((height, width)))[rows]
        x = rotated[..., 0]
        y = rotated[..., 1]
        clockwise = self._distance(np.stack([width - y, x], axis=-1), rows_2d)
        counterclockwise = self._distance(np.stack([y, height - x], axis=-1), rows_2d)
        cause = "pictures were turned: the tool ignored the clip's rotation flag"
        yield cause, min(clockwise, counterclockwise)

    def _common_rows(self, frames: Ints) -> tuple[Ints, Ints]:
        """Rows of the bodies and of the 2D joints in common frames."""
        _, rows, rows_2d = np.intersect1d(frames, self.keypoints.frame_index, return_indices=True)
        return rows, rows_2d

    def _project(self, trans: Doubles, camera: Doubles) -> Doubles:
        """Project the COMPARED joints, (N, J, 2) px; NaN for bodies over FARTHEST_M away."""
        is_near = np.all(np.abs(trans) <= FARTHEST_M, axis=1)  # comparisons with NaN are false
        places = np.where(np.expand_dims(is_near, 1), trans, np.nan)
        return project(self.joints[:, COMPARED] + places[:, None], camera)

    def _compared_keypoints(self, rows_2d: Ints) -> tuple[Doubles, Bools]:
        """The COMPARED 2D joints (n, J, 2) px, and (n, J) whether they are confident and the bodies
        have them.
        """
        joints = self.keypoints.kp_2d[rows_2d][:, COMPARED]
        has_joint = np.isfinite(self.joints[:, COMPARED, 0]).any(axis=0)
        return joints[..., :2], (joints[..., 2] >= CONFIDENT) & has_joint

    def _row_distances(self, projected: Doubles, rows_2d: Ints) -> Doubles:
        """The distance (n,) of each row of projected joints (n, J, 2) px: the median over the
        compared ones, as in `ProjectionFit`.
        """
        keypoints, is_seen = self._compared_keypoints(rows_2d)
        height = self.keypoints.height[rows_2d]
        of_joints = np.linalg.norm(projected - keypoints, axis=-1) / height[:, None]
        is_lost = np.any(is_seen & ~np.isfinite(of_joints), axis=1)
        distances = np.where(is_lost, np.inf, np.nan)
        has_median = np.any(is_seen, axis=1) & ~is_lost
        compared = np.where(is_seen, of_joints, np.nan)[has_median]
        distances[has_median] = np.nanmedian(compared, axis=1)
        return distances

    def _distance(self, projected: Doubles, rows_2d: Ints) -> float:
        """The median distance of rows of projected joints (n, J, 2) px; nan without any."""
        return _median(self._row_distances(projected, rows_2d))


def _median(distances: Doubles) -> float:
    """The median of the distances that are not nan; nan without any."""
    finite = distances[~np.isnan(distances)]
    if not len(finite):
        return np.nan
    return float(np.median(finite))


def _scale(projected: Doubles, seen: Doubles, is_seen: Bools) -> float:
    """The factor by which projected points come closest to the seen ones, by least squares; 1
    without any.
    """
    used = is_seen & np.isfinite(projected).all(axis=-1)
    projected = projected[used]
    length = float((projected**2).sum())
    if not length:
        return 1.0
    return float((projected * seen[used]).sum()) / length
