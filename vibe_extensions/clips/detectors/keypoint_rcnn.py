"""Keypoint R-CNN with ResNet-50-FPN, of torchvision: 17 COCO joints a person.  [pixels -> keypoints] -> tracks

He et al.: Mask R-CNN, ICCV 2017. torchvision's published weights were trained on COCO's keypoints. Nothing here imports
torch before there are pictures.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pipeline.detect.base import PRETRAINED, Detect, Detector, downloaded, file_of
from pipeline.errors import ConfigError, MissingAssets
from pipeline.files.raw.files import whole_file_digest

URL: Final = "https://download.pytorch.org/models/keypointrcnn_resnet50_fpn_coco-fc266e95.pth"
PUBLISHED: Final = "fc266e95"  # the beginning of that file's sha256
CHECK: Final = "Check that --weights names a state dict of torchvision's keypointrcnn_resnet50_fpn."


@dataclass(frozen=True)
class KeypointRCNN(Detector):
    """`weights`: a file with a state dict, or "pretrained", which torchvision downloads once.

    `precision` fast is bfloat16 autocast on CUDA; on a CPU it is the same as exact.
    """

    weights: str = PRETRAINED
    min_score: float = 0.7  # of a person
    precision: str = "fast"
    size: int = 800  # px: pictures are scaled to that shorter side

    name: ClassVar[str] = "keypoint_rcnn"

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1 or self.precision not in ("fast", "exact") or self.size < 32:
            raise ConfigError(
                f"min_score {self.min_score}, precision {self.precision}, size {self.size}: expected 0 to 1, fast or "
                "exact, and 32 px or more"
            )

    @property
    def batch_size(self) -> int:
        return max(8, 2 * len(os.sched_getaffinity(0)))

    @property
    def downloads(self) -> bool:
        return self.weights == PRETRAINED and not file_of(URL).is_file()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": _digest(self.file())}

    def below(self, folder: Path) -> Self:
        return self if self.weights == PRETRAINED else replace(self, weights=str(folder / self.weights))

    def file(self) -> Path:
        """The weights. Raises MissingAssets where the file is missing and cannot be downloaded."""
        if self.weights != PRETRAINED:
            if not Path(self.weights).is_file():
                raise MissingAssets(f"weights {self.weights}: there is no such file. {CHECK}")
            return Path(self.weights)
        return downloaded(URL, "weights", PUBLISHED)

    def load(self, device: str) -> Detect:
        from vibe_extensions.clips.detectors import rcnn

        file = self.file()
        # Published weights were trained with batch norms whose eps is 0: torchvision sets it when it loads them.
        eps = 0.0 if _digest(file).startswith(PUBLISHED) else rcnn.EPS
        fast = self.precision == "fast"
        return rcnn.load(file, device, eps=eps, size=self.size, min_score=self.min_score, fast=fast, check=CHECK)


@functools.cache
def _digest(file: Path) -> str:
    return whole_file_digest(file)
