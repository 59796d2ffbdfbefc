"""How the picture moved since the frame before: the homography between two crops.  crops -> [homography] -> features

The dynamic feature of "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D Dynamics" (Lee and
Lee, ICCV 2021): 15 successive rows of this stream are its 135 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import homography
from pipeline.errors import ConfigError
from pipeline.features.streams.base import PairStream
from pipeline.files.pixels.frames import Image

# How the flow is computed and fitted, which once were options: rows that were computed otherwise are another stream.
METHOD: Final = {
    "flow": "dis",
    "fit": "robust",
    "finest_scale": homography.FINEST_SCALE,
    "rounds": homography.ROUNDS,
}


@dataclass(frozen=True, kw_only=True)
class Homography(PairStream):
    """H - I by rows, H from the earlier crop's points to the later one's, in [-1, 1] over the crop, h33 = 1.

    So 0 is "nothing moved". Not known, flag 0: what is degenerate in `pipeline.homography.between`, and a crop of one
    colour, as beside the picture, in which no motion would be seen.
    """

    kind: ClassVar[str] = "homography"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 9

    def __post_init__(self) -> None:
        if self.crop.region is not None:
            raise ConfigError("crop with a region: a homography is of the whole crop; give the size alone")
        if self.crop.size < homography.LEAST_SIDE:
            raise ConfigError(
                f"crop of {self.crop.size} px: expected at least {homography.LEAST_SIDE} px, below which no flow is "
                "computed"
            )

    def identity(self) -> dict[str, Any]:
        return super().identity() | METHOD

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        """None for rows of another method, of an earlier version."""
        if any(identity.get(name) != value for name, value in METHOD.items()):
            return None
        return super().from_identity({name: value for name, value in identity.items() if name not in METHOD})

    @property
    def provenance(self) -> Mapping[str, Any]:
        """OpenCV's version and CPU features: they may change the last digits, and are no part of the identity."""
        return {"stand_in": False, "opencv": cv2.__version__, "cpu_features": cv2.getCPUFeaturesLine()}

    def pair(self, previous: Image, current: Image) -> NDArray[np.float32] | None:
        if any(crop.min() == crop.max() for crop in (previous, current)):
            return None
        matrix, known = homography.between(previous, current)
        return (matrix - np.eye(3)).astype(np.float32).ravel() if known else None
