"""Whether estimated bodies lie on the people: distances of projected joints from 2D joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.cameras import project
from pipeline.exchange.bodies.tools import LARGER_CROP, Estimate
from pipeline.skeletons import JOINTS, Bools, Doubles, Ints

if TYPE_CHECKING:
    from pipeline.body import Body

NOTED: Final = 0.05  # of the box's height: median distances beyond it get a note
REFUSED: Final = 0.15  # and beyond it, the bodies are not taken
CONFIDENT: Final = 0.3
CLEARLY: Final = 0.5  # a cause must leave at most this part of the distance
COMPARED: Final = tuple(
    JOINTS["spin49"].index(side + joint)
    for joint in ("shoulder", "hip", "knee", "ankle")
    for side in "lr"
)
SHIFTS: Final = (-2, -1, 1, 2)  # frames
LOW_FOCAL: Final = 0.4
HIGH_FOCAL: Final = 2.5
SMPLX_PELVIS: Final = np.array([0.0, -0.12, -0.02])  # m, SMPL-X's at rest from SMPL's: about


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the bodies of one person fit the 2D joints of one track."""

    distance: float  # median, in heights of the box; nan without a joint to compare
    cause: str = ""  # the likeliest one of a distance beyond NOTED
    margin: float = 1.0  # of `Estimate.position`


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """2D joints of one person: frame_index (T,), kp_2d (T, 49, 3) px px confidence, height (T,) px
    of the box.
    """

    frame_index: Ints
    kp_2d: Doubles
    height: Doubles


def fit(estimate: Estimate, keypoints: Keypoints, body: Body, size: tuple[int, int]) -> Fit:
    """Compare SMPL bodies with 2D joints in common frames. size: width, height px of the clip."""
    joints = body.posed_joints(estimate.pose, estimate.betas)[0]  # (N, 49, 3) m
    scene = _Scene(joints, estimate, keypoints, size)
    margins = (1.0,) if estimate.trans is not None else (LARGER_CROP, 1.0)
    distances = [scene.distance(estimate.position(size, margin)) for margin in margins]
    if np.isnan(distances).all():
        return Fit(float("nan"))
    best = int(np.nanargmin(distances))
    distance = distances[best]
    if distance <= NOTED:
        return Fit(distance, margin=margins[best])
    trans = estimate.position(size, margins[best])
    causes = dict(scene.without_causes(trans))
    likeliest = min(causes, key=lambda cause: np.nan_to_num(causes[cause], nan=np.inf))
    is_clear = causes[likeliest] <= CLEARLY * distance
    return Fit(distance, likeliest if is_clear else "no known cause", margins[best])


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """Posed joints (N, 49, 3) m of an estimate, and the 2D joints that they are compared with."""

    joints: Doubles
    estimate: Estimate
    keypoints: Keypoints
    size: tuple[int, int]

    def distance(self, trans: Doubles, *, shift: int = 0) -> float:
        """Median distance in heights of the box; nan without a confident joint in a common
        frame.
        """
        projected, rows, of_track = self._pairs(trans, shift)
        return self._distance(projected[rows], of_track)

    def without_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """(cause, distance without it) of each known cause."""
        pelvis = self.joints[:, JOINTS["spin49"].index("OP MidHip")]
        yield "the mid-hip's place is taken for SMPL's translation", self.distance(trans - pelvis)
        yield "a body of SMPL-X is taken for SMPL's", self.distance(trans + SMPLX_PELVIS)
        for shift in SHIFTS:
            yield f"frames are shifted by {shift:+d}", self.distance(trans, shift=shift)
        projected, rows, of_track = self._pairs(trans, 0)
        projected = projected[rows]
        seen, clear = self._compared(of_track)
        center = self.estimate.camera(self.size)[:2, 2]
        ratio = _scale(projected - center, seen - center, clear)
        if LOW_FOCAL < ratio < HIGH_FOCAL:
            focal = (projected - center) * ratio + center
            yield f"the focal length is {1 / ratio:.2f} of it", self._distance(focal, of_track)
        resize = _scale(projected, seen, clear)
        yield (
            f"pictures had {1 / resize:.2f} of the size",
            self._distance(projected * resize, of_track),
        )

    def _pairs(self, trans: Doubles, shift: int) -> tuple[Doubles, Ints, Ints]:
        """Projected joints (N, 8, 2) px, and the rows of both in common frames."""
        camera = self.estimate.camera(self.size)
        points = self.joints[:, COMPARED] + trans[:, None]
        frames = self.estimate.frames + shift
        _, rows, of_track = np.intersect1d(frames, self.keypoints.frame_index, return_indices=True)
        return project(points, camera), rows, of_track

    def _compared(self, of_track: Ints) -> tuple[Doubles, Bools]:
        joints = self.keypoints.kp_2d[of_track][:, COMPARED]
        return joints[..., :2], joints[..., 2] >= CONFIDENT

    def _distance(self, projected: Doubles, of_track: Ints) -> float:
        seen, clear = self._compared(of_track)
        apart = np.linalg.norm(projected - seen, axis=-1) / self.keypoints.height[of_track, None]
        compared = apart[clear & np.isfinite(apart)]
        return float(np.median(compared)) if len(compared) else float("nan")


def _scale(projected: Doubles, seen: Doubles, clear: Bools) -> float:
    """The scale of projected points that is closest to the seen ones; 1 without any."""
    used = clear & np.isfinite(projected).all(axis=-1)
    length = float((projected[used] ** 2).sum())
    return float((projected[used] * seen[used]).sum()) / length if length else 1.0
