"""Check that estimated bodies lie on the people: distances of projected joints from 2D joints.

`fit` compares a person with a track. If the distance is large, it corrects each mistake that tools
and settings are known to make, and names the one whose correction helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.cameras import project
from pipeline.exchange.bodies.estimate import BodyEstimate
from pipeline.skeletons import JOINTS, KEYPOINTS_13_OF_SPIN49, Bools, Doubles, Ints

# Median distances, as shares of the box's height:
NOTED: Final = 0.05  # beyond it, a note is written
REFUSED: Final = 0.15  # beyond it, the bodies are not imported
CONFIDENT: Final = 0.3  # least confidence of a 2D joint that is compared
LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
CLEARLY: Final = 0.5  # correcting a likely cause must leave at most this share of the distance
_NAMED, _OPENPOSE = KEYPOINTS_13_OF_SPIN49
# shoulders, hips, knees and ankles, by either name
COMPARED: Final = (*_NAMED[1:3], *_NAMED[7:], *_OPENPOSE[1:3], *_OPENPOSE[7:])
SHIFTS: Final = (-2, -1, 1, 2)  # frames by which a tool's frame numbers may be off
RATES: Final = (0.5, 5 / 6, 1.2, 2.0)  # shares of the clip's rate at which a tool may have read it
SMPLX_PELVIS: Final = np.array([0.0, -0.12, -0.02])  # m, about: SMPL-X's rest pelvis minus SMPL's


@dataclass(frozen=True, slots=True)
class ProjectionFit:
    """How well the bodies of one person fit the 2D joints of one track."""

    distance: float  # median, in heights of the box; nan without a joint to compare
    cause: str = ""  # likeliest cause of a distance beyond NOTED
    remaining: float = 0.0  # distance that is left if the cause is corrected
    margin: float = 1.0  # the `margin` of `BodyEstimate.position` that fits better


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """2D joints of one person: frame_index (T,), kp_2d (T, 49, 3) px px confidence, height (T,) px
    of the box.
    """

    frame_index: Ints
    kp_2d: Doubles
    height: Doubles


def fit(
    estimate: BodyEstimate, joints: Doubles, keypoints: Keypoints, size: tuple[int, int]
) -> ProjectionFit:
    """Compare projected bodies with 2D joints, in the frames that both have.

    joints: Joints of the bodies in spin49, (N, 49, 3) m without translation. size: width, height px
    of the clip.
    """
    comparison = _JointComparison(joints, estimate, keypoints, size)
    margins: tuple[float, ...] = (1.0,)
    if estimate.trans is None:
        margins = (LARGER_CROP, 1.0)
    distances = [comparison.distance(estimate.position(size, margin)) for margin in margins]
    if np.isnan(distances).all():
        return ProjectionFit(np.nan)

    best = int(np.nanargmin(distances))
    distance = distances[best]
    margin = margins[best]
    if distance <= NOTED:
        return ProjectionFit(distance, margin=margin)

    causes = dict(comparison.try_causes(estimate.position(size, margin)))
    likeliest = min(causes, key=lambda cause: np.nan_to_num(causes[cause], nan=np.inf))
    if causes[likeliest] > CLEARLY * distance:
        return ProjectionFit(distance, "no known cause", distance, margin)
    return ProjectionFit(distance, likeliest, causes[likeliest], margin)


@dataclass(frozen=True, slots=True, eq=False)
class _JointComparison:
    """Posed joints (N, 49, 3) m of an estimate, and the 2D joints that they are compared with."""

    joints: Doubles
    estimate: BodyEstimate
    keypoints: Keypoints
    size: tuple[int, int]

    def distance(self, trans: Doubles, frames: Ints | None = None) -> float:
        """Median distance in heights of the box; nan without a confident joint in a common
        frame. frames: (N,) other ones than the estimate's.
        """
        if frames is None:
            frames = self.estimate.frames
        rows, rows_2d = self._common_rows(frames)
        projected = self._project(trans, self.estimate.pixel_intrinsics(self.size))
        return self._distance(projected[rows], rows_2d)

    def try_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """Yield (cause, distance if it is corrected) for each known cause of a distance."""
        pelvis = self.joints[:, JOINTS["spin49"].index("OP MidHip")]
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
        seen, is_seen = self._compared_keypoints(rows_2d)
        camera = self.estimate.pixel_intrinsics(self.size)
        projected = self._project(trans, camera)[rows]
        center = camera[:2, 2]
        ratio = _scale(projected - center, seen - center, is_seen)
        if ratio > 0:
            zoomed = (projected - center) * ratio + center
            yield f"the focal length is {1 / ratio:.2f} of it", self._distance(zoomed, rows_2d)
        resize = _scale(projected, seen, is_seen)
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
        """Project the COMPARED joints, (N, J, 2) px."""
        return project(self.joints[:, COMPARED] + trans[:, None], camera)

    def _compared_keypoints(self, rows_2d: Ints) -> tuple[Doubles, Bools]:
        """The COMPARED 2D joints (n, J, 2) px, and (n, J) whether they are confident."""
        joints = self.keypoints.kp_2d[rows_2d][:, COMPARED]
        return joints[..., :2], joints[..., 2] >= CONFIDENT

    def _distance(self, projected: Doubles, rows_2d: Ints) -> float:
        """Median distance in heights of the box of projected joints (n, J, 2) px; nan without a
        confident joint.
        """
        seen, is_seen = self._compared_keypoints(rows_2d)
        height = self.keypoints.height[rows_2d]
        distances = np.linalg.norm(projected - seen, axis=-1) / height[:, None]
        compared = distances[is_seen & np.isfinite(distances)]
        if not len(compared):
            return np.nan
        return float(np.median(compared))


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
