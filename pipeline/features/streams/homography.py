"""Homographies between successive crops.  crops -> [homography] -> features

15 successive rows are the 135 numbers of the dynamic feature of "Uncertainty-Aware Human Mesh
Recovery from Video by Learning Part-Based 3D Dynamics" (Lee and Lee, ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.features.streams.base import PairStream, Provenance
from pipeline.files.pixels.frames import Image
from pipeline.people import homography
from pipeline.people.skeletons import Float32s

# How optical flow is computed and a homography fitted. This is part of the identity, because these
# were options once.
METHOD: Final = {
    "flow": "dis",
    "fit": "robust",
    "finest_scale": homography.FINEST_SCALE,
    "rounds": homography.ROUNDS,
}


@dataclass(frozen=True, kw_only=True)
class Homography(PairStream):
    """The homography H from the previous crop to the row's crop: the nine numbers of H - I.

    H maps points of the earlier crop to the later one, in coordinates of [-1, 1] across the crop,
    and has h33 = 1. A row is unknown if `pipeline.people.homography.between` finds no valid
    homography, or if a crop has a single colour.
    """

    kind: ClassVar[str] = "homography"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 9

    def __post_init__(self) -> None:
        if self.crop.region is not None:
            raise ConfigError(
                "crop: a homography needs the whole crop. Set the size without a region.", "crop"
            )
        if self.crop.size < homography.LEAST_SIDE:
            raise ConfigError(
                f"crop of {self.crop.size} px: too small to compute flow. Use at least "
                f"{homography.LEAST_SIDE} px.",
                "crop",
            )

    def identity(self) -> dict[str, Any]:
        return super().identity() | METHOD

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        """Make the stream of this identity; None if it was computed by another method."""
        if any(identity.get(name) != value for name, value in METHOD.items()):
            return None
        return super().from_identity(
            {name: value for name, value in identity.items() if name not in METHOD}
        )

    @property
    def provenance(self) -> Provenance:
        """OpenCV's version and CPU features, which can change the last digits but are not part of
        the identity.
        """
        import cv2

        return {
            "stand_in": False,
            "opencv": cv2.__version__,
            "cpu_features": cv2.getCPUFeaturesLine(),
        }

    def pair(self, previous: Image, current: Image) -> Float32s | None:
        has_one_colour = any(crop.min() == crop.max() for crop in (previous, current))
        if has_one_colour:
            return None
        matrix, is_known = homography.between(previous, current)
        if not is_known:
            return None
        return (matrix - np.eye(3)).astype(np.float32).ravel()
