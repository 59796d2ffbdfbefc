"""How the picture moved since the frame before: the homography between two crops.  crops -> [homography] -> features

The dynamic feature of "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D Dynamics" (Lee and
Lee, ICCV 2021): 15 successive rows of this stream are its 135 numbers. One homography for the whole crop, as there; or,
by the row's 2D keypoints, of the person alone, or one for each of five parts of the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import homography
from pipeline.errors import ConfigError
from pipeline.features.streams.base import PairStream
from pipeline.homography import Floats
from pipeline.pixels.frames import Image
from pipeline.skeletons import KEYPOINTS_13, keypoints_13

Region = Literal["crop", "person"]

# Torso, left and right leg, left and right arm: each by its bones, lines between two keypoints.
PARTS: Final = (
    ("lshoulder rshoulder", "lhip rhip", "lshoulder lhip", "rshoulder rhip", "lshoulder rhip", "rshoulder lhip",
     "nose lshoulder", "nose rshoulder"),
    ("lhip lknee", "lknee lankle"),
    ("rhip rknee", "rknee rankle"),
    ("lshoulder lelbow", "lelbow lwrist"),
    ("rshoulder relbow", "relbow rwrist"),
)  # fmt: skip
LINES: Final = tuple(tuple(tuple(map(KEYPOINTS_13.index, line.split())) for line in part) for part in PARTS)
DEVIATION: Final = 0.04  # of the Gaussian around a bone, in [-1, 1]: 4.5 px of 224
ENDS: Final = 3  # deviations from which on it is 0
OLDER_ROUNDS: Final = 3  # of streams whose identity does not name theirs


@dataclass(frozen=True, kw_only=True)
class Homography(PairStream):
    """H - I by rows, H from the earlier crop's points to the later one's, in [-1, 1] over the crop, h33 = 1.

    So 0 is "nothing moved". `flow`: dis or lk; `fit`: robust, or plain as You2Me has it; `finest_scale` of dis, 0 to 2;
    `rounds` of reweighting (`pipeline.homography.between`). `region` person: those points count that arrive near
    a bone, a line between two visible keypoints. `parts` 5: a homography each of torso, left leg, right leg, left arm
    and right arm, by the points that arrive nearest to its own bones, 45 numbers; 0 for a part that is not known.

    Not known, flag 0: what is degenerate there, of all parts, and a crop of one colour, as beside the picture, in which
    no motion would be seen.
    """

    flow: homography.Flow = "dis"
    fit: homography.Method = "robust"
    finest_scale: int = homography.FINEST_SCALE
    rounds: int = homography.ROUNDS
    region: Region = "crop"
    parts: int = 1

    kind: ClassVar[str] = "homography"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name, found, known in (
            ("flow", self.flow, get_args(homography.Flow)),
            ("fit", self.fit, get_args(homography.Method)),
            ("region", self.region, get_args(Region)),
            ("parts", self.parts, (1, len(PARTS))),
        ):
            if found not in known:
                raise ConfigError(f"{name} {found!r}: expected one of {', '.join(map(str, known))}")
        if self.flow != "dis" and self.finest_scale != homography.FINEST_SCALE:
            raise ConfigError(f"finest_scale {self.finest_scale}: is for flow dis; lk has none")
        if not 0 <= self.rounds <= 100:
            raise ConfigError(f"rounds {self.rounds}: expected 0 to 100")
        if self.fit == "plain" and (self.rounds != homography.ROUNDS or self.columns):
            raise ConfigError("fit plain: counts every point of the crop once: leave out rounds, region and parts")
        if self.parts > 1 and self.region != "crop":
            raise ConfigError(f"region {self.region}: parts = {self.parts} are the person's already: leave out region")
        try:
            least = homography.least_side(self.finest_scale)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if self.crop.region is not None:
            raise ConfigError("crop with a region: a homography is of the whole crop; give the size alone")
        if self.crop.size < least:
            raise ConfigError(
                f"crop of {self.crop.size} px: expected at least {least} px at finest_scale {self.finest_scale}, below "
                "which no flow is computed"
            )

    @property
    def dim(self) -> int:
        return 9 * self.parts

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.region == "crop" and self.parts == 1 else ("kp_2d",)

    def identity(self) -> dict[str, Any]:
        """Without the options that older streams did not have, where they are as these were."""
        older = {"rounds": OLDER_ROUNDS, "region": "crop", "parts": 1}
        return {name: value for name, value in super().identity().items() if older.get(name) != value}

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        return super().from_identity({"rounds": OLDER_ROUNDS, **identity})

    @property
    def provenance(self) -> Mapping[str, Any]:
        """OpenCV's version and CPU features: they may change the last digits, and are no part of the identity."""
        return {"stand_in": False, "opencv": cv2.__version__, "cpu_features": cv2.getCPUFeaturesLine()}

    def pair(self, previous: Image, current: Image, kp_2d: NDArray[Any] | None = None) -> NDArray[np.float32] | None:
        """`kp_2d`: (49, 3) of the later crop, in [-1, 1]; not needed for the whole crop."""
        if any(crop.min() == crop.max() for crop in (previous, current)):
            return None
        how: dict[str, Any] = {"flow": self.flow, "finest_scale": self.finest_scale, "rounds": self.rounds}
        if not self.columns:
            found, known = homography.between(previous, current, method=self.fit, **how)
            return (found - np.eye(3)).astype(np.float32).ravel() if known else None
        if kp_2d is None:
            raise ValueError("expected kp_2d, the keypoints of the later crop")
        labelled = keypoints_13(np.asarray(kp_2d, np.float64))
        points, visible = labelled[:, :2], labelled[:, 2] > 0

        def weights(at: Floats) -> Floats:
            return near_bones(at, points, visible, self.parts)

        several, known_of = homography.of_regions(previous, current, weights, **how)
        return (several - np.eye(3)).astype(np.float32).ravel() if known_of.any() else None


def near_bones(at: Floats, points: Floats, visible: NDArray[np.bool_], parts: int) -> Floats:
    """(P, 2) places, (13, 2) keypoints -> (parts, P): a Gaussian of the distance to the nearest bone; 0 to the others.

    Bones are the lines of PARTS whose two ends are visible. Of five parts, a place belongs to that of its nearest bone.
    """
    distance = np.full((len(LINES), len(at)), np.inf)
    for part, lines in enumerate(LINES):
        for start, end in lines:
            if visible[start] and visible[end]:
                along = points[end] - points[start]
                share = np.clip((at - points[start]) @ along / max(along @ along, np.finfo(float).tiny), 0, 1)
                off = np.linalg.norm(at - points[start] - share[:, None] * along, axis=1)
                np.minimum(distance[part], off, out=distance[part])
    if parts == 1:
        distance = distance.min(axis=0, keepdims=True)
    is_nearest = distance.argmin(axis=0) == np.arange(parts)[:, None]
    near = is_nearest & (distance < ENDS * DEVIATION)
    return np.where(near, np.exp(-np.square(distance / DEVIATION) / 2), 0)
