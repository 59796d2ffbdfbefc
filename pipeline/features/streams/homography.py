"""How the picture moved since the frame before: the homography between two crops.  crops -> [homography] -> features

The dynamic feature of "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D Dynamics" (Lee and
Lee, ICCV 2021): 15 successive rows of this stream are its 135 numbers. One homography for the whole crop, as there;
neither one for each part of the body nor a weight by where the person is, which would need keypoints beside pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import homography
from pipeline.errors import ConfigError
from pipeline.features.streams.base import PairStream
from pipeline.pixels.frames import Image


@dataclass(frozen=True, kw_only=True)
class Homography(PairStream):
    """H - I by rows, H from the earlier crop's points to the later one's, in [-1, 1] over the crop, h33 = 1.

    So 0 is "nothing moved". `flow`: dis or lk; `fit`: robust, or plain as You2Me has it; `finest_scale` of dis, 0 to 2
    (`pipeline.homography.between`). Not known, flag 0: what is degenerate there, and a crop of one colour, as beside
    the picture, in which no motion would be seen.
    """

    flow: homography.Flow = "dis"
    fit: homography.Method = "robust"
    finest_scale: int = homography.FINEST_SCALE

    kind: ClassVar[str] = "homography"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 9

    def __post_init__(self) -> None:
        for name, found, known in (
            ("flow", self.flow, get_args(homography.Flow)),
            ("fit", self.fit, get_args(homography.Method)),
        ):
            if found not in known:
                raise ConfigError(f"{name} {found!r}: expected one of {', '.join(known)}")
        if self.flow != "dis" and self.finest_scale != homography.FINEST_SCALE:
            raise ConfigError(f"finest_scale {self.finest_scale}: is for flow dis; lk has none")
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
    def provenance(self) -> Mapping[str, Any]:
        """OpenCV's version and CPU features: they may change the last digits, and are no part of the identity."""
        return {"stand_in": False, "opencv": cv2.__version__, "cpu_features": cv2.getCPUFeaturesLine()}

    def pair(self, previous: Image, current: Image) -> NDArray[np.float32] | None:
        if any(crop.min() == crop.max() for crop in (previous, current)):
            return None
        found, known = homography.between(
            previous, current, flow=self.flow, method=self.fit, finest_scale=self.finest_scale
        )
        return (found - np.eye(3)).astype(np.float32).ravel() if known else None
