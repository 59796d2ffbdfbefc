"""BlazePose's joints in metres.  pixels -> [networks] -> features

The decoding processes compute this stream: each loads the networks at its first row. The networks
and their functions are those of the detector `blaze_pose`. As there, a person is a *circle*, an
array (2, 2) of two points in px: the centre, which is the middle of the hips, and the point of the
circle on the side of the head.

For each row, `_find_circle` finds the circle in a crop of the person, and
`_estimate_joints` computes the joints in the circle. Left and right follow the row's 2D joints,
whose sides were put right over the whole track (`_has_sides_swapped`).
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
    Pose,
    Weights,
    estimate_pose,
    find_people,
)
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Labels, Machine, Provenance, Reads, Stream
from pipeline.files.pixels.frames import Image
from pipeline.people.boxes import crop_affine, crop_person, normalise_keypoints
from pipeline.people.skeletons import (
    BLAZE,
    BLAZE_12,
    COCO_12,
    Float32s,
    Floats,
    convert,
    opposite_joints,
)

# px, side of the person's crop, in which the first network finds the circle around the person
CROP_SIDE: Final = FINDER_SIDE
# A person is too far away if the hips are farther than this from the middle, in sides of the crop.
MAX_DISTANCE: Final = 0.25
MIN_PRESENCE: Final = 0.5  # least probability that the second network sees a person

OTHER_SIDE: Final = opposite_joints(BLAZE)  # for each of the 33 joints, that of the other side
AS_INVISIBLE: Final = (1, 1, 1, 0)  # factors of x, y, z, visibility


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
            raise ConfigError(f"weights {self.weights!r}: expected {', '.join(FILES)}", "weights")

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
        """
        finder, landmarks = _cached_networks(self.weights)
        (frame,) = crops
        bbox = labels["bbox"]
        scale = float(labels["crop_scale"])
        circle = _find_circle(finder, frame, bbox, scale)
        pose = _estimate_joints(landmarks, frame, circle)
        joints = pose.joints
        in_crop = normalise_keypoints(pose.points, bbox, scale)  # as the row's kp_2d
        if _has_sides_swapped(in_crop, labels["kp_2d"]):
            joints = joints[OTHER_SIDE]
        if pose.presence < MIN_PRESENCE:
            joints = joints * AS_INVISIBLE
        return joints.reshape(-1).astype(np.float32)


@functools.lru_cache(1)
def _cached_networks(weights: Weights) -> tuple[Any, Any]:
    """The finder and the landmarks, loaded at the first row of this process."""
    return blaze_pose.load_networks(weights)


def _find_circle(finder: Any, frame: Image, bbox: Floats, scale: float) -> Doubles:
    """The circle (2, 2), px of the frame, of the person in the middle of a box (4,) cxcywh px.

    finder: the first network. It sees a crop of the frame, in which the box fills 1 / scale.
    """
    crop = crop_person(frame, bbox, scale, CROP_SIDE)
    # px of the frame -> px of the crop, without a rotation: zoom * xy + shift
    affine = crop_affine(bbox, scale, CROP_SIDE)
    zoom = affine[:, :2].diagonal()
    shift = affine[:, 2]
    return np.asarray((_find_nearest_circle(finder, crop) - shift) / zoom)


def _find_nearest_circle(finder: Any, crop: Image) -> Doubles:
    """The circle (2, 2), px of the crop, of the person whose hips are nearest to the crop's middle.
    If all are too far away (MAX_DISTANCE), the circle of a person who fills the crop.
    """
    middle = CROP_SIDE / 2
    nearest: Doubles | None = None
    least_distance = MAX_DISTANCE * CROP_SIDE
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


def _estimate_joints(landmarks: Any, frame: Image, circle: Doubles) -> Pose:
    """Compute the pose in a circle, and again in the better circle that the network returned with
    it. The second pose is used if the network is sure that there is a person, else the first.

    landmarks: the second network.
    """
    first = estimate_pose(landmarks, frame, circle)
    second = estimate_pose(landmarks, frame, first.circle)
    return second if second.presence >= MIN_PRESENCE else first


def _has_sides_swapped(points: Floats, kp_2d: Floats) -> bool:
    """Whether the limbs of the pose (33, 3) are those of the other side in the row's joints
    (49, 3): far nearer to them. From the side, left and right are too near to each other to tell.
    """
    coco = convert(kp_2d[None], source="spin49", target="coco")[0]
    limbs = coco[COCO_12]
    distance = _sum_distances(points, limbs)
    opposite_distance = _sum_distances(points[OTHER_SIDE], limbs)
    return opposite_distance < distance / 2


def _sum_distances(points: Floats, limbs: Floats) -> float:
    """Sum of the distances of the pose (33, 3) from the visible joints of the limbs (12, 3)."""
    distances = np.linalg.norm(points[BLAZE_12, :2] - limbs[:, :2], axis=-1)
    return float(distances[limbs[:, 2] > 0].sum())
