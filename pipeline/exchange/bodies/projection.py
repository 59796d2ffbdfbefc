"""Check that estimated bodies lie on the people: distances of projected joints from 2D joints.

`fit` compares each body of a person with each track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.cameras import project
from pipeline.exchange.bodies.estimate import BodyEstimate
from pipeline.skeletons import KEYPOINTS_13_OF_SPIN49, Bools, Doubles, Ints
from pipeline.track import FARTHEST_M

# distance, as a share of the box's height, beyond which a body is not imported
REFUSED: Final = 0.15
CONFIDENT: Final = 0.3  # least confidence of a 2D joint that is compared
LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
CLEARLY: Final = 0.5  # a closer track leaves at most this share of the distance
_NAMED, _OPENPOSE = KEYPOINTS_13_OF_SPIN49
# shoulders, hips, knees and ankles, by either name
COMPARED: Final = (*_NAMED[1:3], *_NAMED[7:], *_OPENPOSE[1:3], *_OPENPOSE[7:])


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionFit:
    """How well the N bodies of one person fit the 2D joints of each of T tracks."""

    # (T, N) in heights of the box; nan if there is no joint to compare, infinite for a body with a
    # compared joint that the camera cannot see, or over FARTHEST_M away
    distances: Doubles
    margin: float = 1.0  # the `margin` of `BodyEstimate.position` that fits better

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
    margins: tuple[float, ...] = (1.0,)
    if estimate.trans is None:
        margins = (LARGER_CROP, 1.0)
    compared = joints[:, COMPARED]
    # bodies of SMPL-X lack some
    has_joint = np.asarray(np.isfinite(compared[..., 0]).any(axis=0))
    camera = estimate.pixel_intrinsics(size)
    fits = []
    for margin in margins:
        projected = _project(compared, estimate.position(size, margin), camera)
        distances = [
            _distances(projected[:, has_joint], estimate.frames, track, has_joint)
            for track in tracks
        ]
        fits.append(ProjectionFit(np.reshape(distances, (len(tracks), len(joints))), margin))
    return min(fits, key=lambda fitted: fitted.distance)


def _project(joints: Doubles, trans: Doubles, camera: Doubles) -> Doubles:
    """Project joints (N, J, 3) m, moved by trans (N, 3) m, to (N, J, 2) px; NaN for bodies over
    FARTHEST_M away.
    """
    is_near = np.all(np.abs(trans) <= FARTHEST_M, axis=1)  # comparisons with NaN are false
    places = np.where(np.expand_dims(is_near, 1), trans, np.nan)
    return project(joints + places[:, None], camera)


def _distances(projected: Doubles, frames: Ints, track: Keypoints, has_joint: Bools) -> Doubles:
    """The distance (N,) of each body from a track: the median over the compared joints, as in
    `ProjectionFit`.

    projected: (N, K, 2) px. frames: (N,). has_joint: (J,) which K of the J COMPARED joints bodies
    have.
    """
    _, rows, rows_2d = np.intersect1d(frames, track.frame_index, return_indices=True)
    joints = track.kp_2d[rows_2d][:, COMPARED][:, has_joint]
    is_seen = joints[..., 2] >= CONFIDENT
    apart = np.linalg.norm(projected[rows] - joints[..., :2], axis=-1)
    of_joints = np.where(is_seen, apart / track.height[rows_2d, None], np.nan)
    is_lost = np.any(is_seen & ~np.isfinite(of_joints), axis=1)
    has_median = np.any(is_seen, axis=1) & ~is_lost
    medians = np.where(is_lost, np.inf, np.nan)
    medians[has_median] = np.nanmedian(of_joints[has_median], axis=1)
    distances = np.full(len(frames), np.nan)
    distances[rows] = medians
    return distances


def _median(distances: Doubles) -> float:
    """The median of the distances that are not nan; nan without any."""
    known = distances[~np.isnan(distances)]
    if not len(known):
        return np.nan
    return float(np.median(known))
