"""BlazePose's joints in metres.  pixels -> [networks] -> features

The decoding processes compute this stream: each loads the networks at its first row. The networks
and their functions are those of the detector `blaze_pose`. As there, a person is a *circle*, an
array (2, 2) of two points in px: the centre, which is the middle of the hips, and the point of the
circle on the side of the head.

For each row, `BlazeJoints.computed` crops the person from the frame, finds the circle in the crop
(`_find_circle`), and converts it to the frame. There, `estimate_pose` computes the joints in the
circle. Left and right follow the row's 2D joints, whose sides were put right over the whole track.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from cache.arrays import Doubles
from pipeline.clips.detectors import blaze_pose
from pipeline.clips.detectors.blaze_pose import (
    FILES,
    FINDER_SIDE,
    MARGIN,
    N_POINTS,
    Weights,
    estimate_pose,
    find_people,
)
from pipeline.crops import crop_affine, crop_person
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Labels, Machine, Provenance, Reads, Stream
from pipeline.files.pixels.frames import Image
from pipeline.skeletons import BLAZE_12, COCO_12, Float32s, Floats, convert

# px, side of the person's crop, in which the first network finds the circle around the person
SIDE: Final = FINDER_SIDE
# A person is too far away if the hips are farther than this from the middle, in sides of the crop.
FAR: Final = 0.25
LEAST_PRESENCE: Final = 0.5  # least probability that the second network sees a person

# for each of the 33 joints, that of the other side
OTHER_SIDE: Final = [
    0,
    4,
    5,
    6,
    1,
    2,
    3,
    8,
    7,
    10,
    9,
    *np.arange(11, N_POINTS).reshape(-1, 2)[:, ::-1].flat,
]

networks_of = functools.lru_cache(1)(blaze_pose.load_networks)


@dataclass(frozen=True, kw_only=True)
class BlazeJoints(Stream):
    """33 joints per row: x, y, z in m relative to the middle of the hips, and a visibility from 0
    to 1. A row is a flattened (33, 4) array.

    The axes are the image's: x right, y down, z away from the camera. The network sees the person
    turned upright, and its joints are turned back. If no person is found in a row, the visibility
    of its joints is 0.
    """

    weights: Weights = "full"  # lite, full or heavy, as of the detector

    kind: ClassVar[str] = "blaze_joints"
    version: ClassVar[int] = 3  # the sides are those of the row's 2D joints
    dtype: ClassVar[str] = "float32"
    dim: ClassVar[int] = N_POINTS * 4

    def __post_init__(self) -> None:
        if self.weights not in FILES:
            raise ConfigError(f"weights {self.weights!r}: expected {', '.join(FILES)}")

    @property
    def reads(self) -> Reads:
        return Reads(crops=1, labels=("bbox", "crop_scale", "kp_2d"), is_whole=True)

    @property
    def provenance(self) -> Provenance:
        about = {
            "stand_in": False,
            "network": f"BlazePose {self.weights}",
            "library": "ai-edge-litert",
        }
        _, terms_of_landmarks = blaze_pose.terms(self.weights)
        return about | terms_of_landmarks | {"device": "cpu"}

    def load(self, machine: Machine, recorded: Provenance | None) -> None:  # noqa: ARG002
        """Check that the networks can be loaded; decoding processes will do so. Raises
        MissingAssets for a missing file, ConfigError without LiteRT.
        """
        blaze_pose.load_networks(self.weights)

    def computed(self, crops: Sequence[Image], labels: Labels) -> Float32s:
        """Compute the numbers (132,) of the person in the middle of the row's box. crops: one
        image, the whole frame.

        The first network finds the person's circle. The second one computes the joints from it, and
        then again from the better circle that it has returned the first time. The second result is
        used if it is sure that there is a person, else the first; if neither is, no joint is
        visible.
        """
        finder, landmarks = networks_of(self.weights)
        (frame,) = crops
        bbox = labels["bbox"]
        scale = float(labels["crop_scale"])
        circle_in_crop = _find_circle(finder, crop_person(frame, bbox, scale, SIDE))

        # px of the frame -> px of the crop, without a rotation: zoom * xy + shift
        affine = crop_affine(bbox, scale, SIDE)
        zoom = affine[:, :2].diagonal()
        shift = affine[:, 2]
        circle = (circle_in_crop - shift) / zoom

        first = estimate_pose(landmarks, frame, circle)
        second = estimate_pose(landmarks, frame, first.circle)
        pose = second if second.presence >= LEAST_PRESENCE else first
        joints = pose.joints
        in_crop = (pose.points[:, :2] - bbox[:2]) / (bbox[2:] * scale / 2)  # as kp_2d is
        if _is_exchanged(in_crop, labels["kp_2d"]):
            joints = joints[OTHER_SIDE]
        is_present = pose.presence >= LEAST_PRESENCE
        if not is_present:
            joints = joints * [1, 1, 1, 0]  # x, y, z, visibility
        return joints.reshape(-1).astype(np.float32)


def _is_exchanged(points: Doubles, kp_2d: Floats) -> bool:
    """Whether the limbs of the pose (33, 2) are those of the other side in the row's joints
    (49, 3): far nearer to them. From the side, left and right are too near to each other to tell.
    """
    row = convert(kp_2d[None], source="spin49", target="coco")[0, COCO_12]
    distance, opposite_distance = (
        np.linalg.norm(points[order][BLAZE_12] - row[:, :2], axis=-1)[row[:, 2] > 0].sum()
        for order in (range(N_POINTS), OTHER_SIDE)
    )
    return bool(opposite_distance < distance / 2)


def _find_circle(finder: Any, crop: Image) -> Doubles:
    """The circle (2, 2), px of the crop, of the person whose hips are nearest to the crop's middle.
    If all are too far away (FAR), the circle of a person who fills the crop.

    finder: the first network.
    """
    middle = SIDE / 2
    nearest: Doubles | None = None
    least_distance = FAR * SIDE
    for _, circle in find_people(finder, crop):
        distance = float(np.linalg.norm(circle[0] - middle))
        if distance < least_distance:
            nearest = circle
            least_distance = distance
    if nearest is not None:
        return nearest
    # The second network sees a square of side MARGIN times the diameter: here, the crop.
    radius = middle / MARGIN
    return np.array([[middle, middle], [middle, middle - radius]])
