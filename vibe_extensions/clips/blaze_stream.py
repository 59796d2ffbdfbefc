"""BlazePose's joints in metres.  crops -> [networks] -> features"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Labels, Machine, Reads, Stream
from pipeline.files.pixels.frames import Image
from vibe_extensions.clips.detectors import blaze_pose
from vibe_extensions.clips.detectors.blaze_pose import BODY, FILES, MARGIN, SIDES, SURE, Weights, find, look

CROP: Final = CropPolicy(size=SIDES[1])
FAR: Final = 0.25  # sides of the crop between its middle and the hips of its person

_networks = functools.lru_cache(1)(blaze_pose.load_networks)


@dataclass(frozen=True, kw_only=True)
class BlazeJoints(Stream):
    """33 joints, each x, y, z in m about the middle of the hips, and visible, 0 to 1; by rows of (33, 4).

    The axes are the image's: x right, y down, z away from the camera. The network sees the person upright; its joints
    are turned back. A crop without a person has joints that are not visible: 0.
    """

    weights: Weights = "full"  # lite, full or heavy, as of the detector
    crop: CropPolicy = CROP  # part of the image that is seen; size:256 or more, and no region

    kind: ClassVar[str] = "blaze_joints"
    dtype: ClassVar[str] = "float32"
    dim: ClassVar[int] = BODY * 4

    def __post_init__(self) -> None:
        if self.weights not in FILES or self.crop.size < SIDES[1] or self.crop.region:
            expected = f"{', '.join(FILES)}, size:{SIDES[1]} or more, and no region"
            raise ConfigError(f"weights {self.weights}, crop {self.crop}: expected {expected}")

    @property
    def reads(self) -> Reads:
        return Reads(crops=1)

    @property
    def provenance(self) -> Mapping[str, Any]:
        about = {"stand_in": False, "network": f"BlazePose {self.weights}", "library": "ai-edge-litert"}
        return about | blaze_pose.terms(self.weights)[1] | {"device": "cpu"}

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> None:  # noqa: ARG002
        """Check that decoding processes can load the networks. Raises MissingAssets, or ConfigError without LiteRT."""
        blaze_pose.load_networks(self.weights)

    def computed(self, crops: Sequence[Image], labels: Labels) -> NDArray[np.float32]:  # noqa: ARG002
        """(132,) numbers of the person in the crop's middle, seen twice: the second time in the circle of the first."""
        finder, landmarks = _networks(self.weights)
        crop, side = crops[-1], len(crops[-1])
        small: Any = cv2.resize(crop, (SIDES[0], SIDES[0]), interpolation=cv2.INTER_AREA)
        circles = [circle * (side / SIDES[0]) for _, circle in find(finder, small)]
        circles = [circle for circle in circles if np.linalg.norm(circle[0] - side / 2) < FAR * side]
        upright = side / 2 - np.array([[0, 0], [0, side / (2 * MARGIN)]])  # a person who fills the crop
        circle = min(circles, key=lambda circle: float(np.linalg.norm(circle[0] - side / 2)), default=upright)
        poses = [look(landmarks, crop, circle)]
        poses.append(look(landmarks, crop, poses[0].circle))
        joints = next((pose.joints for pose in poses[::-1] if pose.presence >= SURE), poses[0].joints * [1, 1, 1, 0])
        return joints.reshape(-1).astype(np.float32)
