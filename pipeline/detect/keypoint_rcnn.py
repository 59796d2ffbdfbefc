"""Keypoint R-CNN with ResNet-50-FPN, of torchvision: 17 COCO joints a person.  [pixels -> keypoints] -> tracks

He et al.: Mask R-CNN, ICCV 2017. torchvision's published weights were trained on COCO's keypoints.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, keypointrcnn_resnet50_fpn

from pipeline.detect.base import Detect, Detector, People
from pipeline.errors import ConfigError, MissingAssets, RawDataError
from pipeline.pixels.frames import Image
from pipeline.raw.digests import whole_file_digest

PRETRAINED: Final = "pretrained"
# The network scores a joint by the highest logit of its heat map. Detectron, from which torchvision's network descends,
# draws joints above 2; that becomes 0.3, the confidence from which on our readers believe a joint.
VISIBLE_LOGIT: Final = 2.0
VISIBLE: Final = 0.3
CHECK: Final = "Check that --weights names a state dict of torchvision's keypointrcnn_resnet50_fpn."


@dataclass(frozen=True)
class KeypointRCNN(Detector):
    """`weights`: a file with a state dict, or "pretrained", which torchvision downloads once.

    `precision` fast is bfloat16 autocast on CUDA; on a CPU it is the same as exact.
    """

    weights: str = ""
    min_score: float = 0.7  # of a person
    precision: str = "fast"
    size: int = 800  # px: pictures are scaled to that shorter side

    name: ClassVar[str] = "keypoint_rcnn"

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError(f"{self.name}: name the network's weights, --weights FILE or --weights {PRETRAINED}")
        if not 0 <= self.min_score <= 1 or self.precision not in ("fast", "exact") or self.size < 32:
            raise ConfigError(
                f"min_score {self.min_score}, precision {self.precision}, size {self.size}: expected 0 to 1, fast or "
                "exact, and 32 px or more"
            )

    @property
    def batch_size(self) -> int:
        return 8 if torch.cuda.is_available() else 2

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": _digest(self.file())}

    def file(self) -> Path:
        """The weights. Raises MissingAssets where the file is missing and cannot be downloaded."""
        if self.weights != PRETRAINED:
            if not Path(self.weights).is_file():
                raise MissingAssets(f"weights {self.weights}: there is no such file. {CHECK}")
            return Path(self.weights)
        url: str = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not file.is_file():
            expected = file.stem.rpartition("-")[2]  # torchvision's names end in the beginning of their sha256
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(file), hash_prefix=expected, progress=False)
            except OSError as error:  # urllib's errors are too
                raise MissingAssets(
                    f"weights {PRETRAINED}: {url} cannot be downloaded ({getattr(error, 'reason', error)}). Fetch that "
                    f"file where there is a network, and put it at {file}; or name it where it is: --weights FILE."
                ) from error
            except RuntimeError as error:  # its hash is another
                raise MissingAssets(f"weights {PRETRAINED}: {url} is damaged: {error}. Try it again.") from error
        return file

    def load(self, device: str) -> Detect:
        where = torch.device(
            "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        )
        file = self.file()
        given = _read(file)
        network = keypointrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            min_size=self.size,
            max_size=round(self.size * 5 / 3),
            box_score_thresh=self.min_score,
        )
        network.load_state_dict(_checked(file, given, network.state_dict()))
        network = network.to(where).eval().requires_grad_(False)
        fast = self.precision == "fast" and where.type == "cuda"

        def detect(images: Sequence[Image]) -> list[People]:
            pictures = [torch.from_numpy(image).to(where).permute(2, 0, 1).float().div_(255) for image in images]
            with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=fast):
                return [_people(found) for found in network(pictures)]

        return detect


def _people(found: dict[str, torch.Tensor]) -> People:
    boxes, scores, joints, logits = (
        found[key].float().cpu().numpy() for key in ("boxes", "scores", "keypoints", "keypoints_scores")
    )
    keypoints = np.concatenate([joints[..., :2], confidence(logits)[..., None]], axis=-1)
    return People(boxes, scores, keypoints.astype(np.float32))


def confidence(logits: np.ndarray[Any, np.dtype[np.floating]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Logits -> 0..1: logistic, and VISIBLE at VISIBLE_LOGIT. Not calibrated: 0.8 does not mean right in 80 %."""
    shift = VISIBLE_LOGIT - np.log(VISIBLE / (1 - VISIBLE))
    return np.asarray(1 / (1 + np.exp(np.clip(shift - logits.astype(np.float64), -60, 60))), np.float64)


def _read(file: Path) -> dict[str, Any]:
    """What a file of weights holds. Loading runs no code of the file's."""
    try:
        given = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        found = str(error).partition("\n")[0][:200]
        raise _not_weights(file, "file", "a state dict of tensors", found) from error
    if not isinstance(given, dict):
        raise _not_weights(file, "file", "a state dict", type(given).__name__)
    return given


def _checked(file: Path, given: dict[str, Any], expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the network, out of the file's."""
    for name, tensor in expected.items():
        there = given.get(name)
        shape = tuple(there.shape) if isinstance(there, torch.Tensor) else None
        if shape != tuple(tensor.shape):
            raise _not_weights(file, name, f"a tensor {tuple(tensor.shape)}", "none" if shape is None else str(shape))
    return {name: given[name] for name in expected}


def _not_weights(file: Path, key: str, expected: str, found: str) -> RawDataError:
    return RawDataError(file, key, expected=expected, found=found, do=CHECK, reason="bad_checkpoint")


@functools.cache
def _digest(file: Path) -> str:
    return whole_file_digest(file)
