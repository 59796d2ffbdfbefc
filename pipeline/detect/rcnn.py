"""The network of `pipeline.detect.keypoint_rcnn` on CPU or GPU.  [pixels -> keypoints] -> tracks

Importing this imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torchvision.models import resnet50
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d

from pipeline.detect.base import Detect, People
from pipeline.detect.rcnn_on_cpu import faster
from pipeline.errors import ConfigError
from pipeline.formats.checkpoints import load_checkpoint, not_a_checkpoint
from pipeline.pixels.frames import Image
from pipeline.processes.threads import Threads

EPS: Final = 1e-5  # of batch norms
# The network scores a joint by the highest logit of its heat map. Detectron, from which torchvision's network descends,
# draws joints above 2; that becomes 0.3, the confidence from which on our readers believe a joint.
VISIBLE_LOGIT: Final = 2.0
VISIBLE: Final = 0.3


def load(file: Path, device: str, *, eps: float, size: int, min_score: float, fast: bool, check: str) -> Detect:
    """The function that detects, with weights from a file. `fast`: bfloat16 autocast on CUDA.

    Only tensors are read: no code of the file's runs. Raises RawDataError for a file that holds others than the
    network's, `check` is what to do then; and ConfigError for a GPU that there is not.
    """
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device}: there is no such GPU here. Take cpu, or auto.")
    network = plain(size, min_score)
    network.load_state_dict(_checked(file, load_checkpoint(file, do=check), network.state_dict(), check))
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = eps
    network.eval().requires_grad_(False)
    if where.type == "cpu":
        return _on_cpu(network)
    network = network.to(where)
    fast = fast and torch.cuda.get_device_capability(where) >= (8, 0)  # older GPUs emulate bfloat16, or refuse it

    def detect(images: Sequence[Image]) -> list[People]:
        pictures = [torch.from_numpy(image).to(where).permute(2, 0, 1).float().div_(255) for image in images]
        with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=fast):
            return [_people(found) for found in network(pictures)]

    return detect


def plain(size: int, min_score: float) -> KeypointRCNN:
    """torchvision's network with random weights, for pictures whose shorter side is scaled to `size` px."""
    backbone = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), 0)
    sizes = {"min_size": size, "max_size": round(size * 5 / 3)}
    return KeypointRCNN(backbone, 2, num_keypoints=17, box_score_thresh=min_score, **sizes)


def _on_cpu(network: KeypointRCNN) -> Detect:
    """A picture a core: a picture's numbers depend on it alone."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if has_onednn and hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        network = faster(network)
    threads = Threads(len(os.sched_getaffinity(0)))

    @torch.inference_mode()
    def one(image: Image) -> People:
        (found,) = network([torch.from_numpy(image).permute(2, 0, 1).float().div_(255)])
        return _people(found)

    return lambda images: threads.map(one, images)


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


def _checked(
    file: Path, given: dict[str, Any], expected: dict[str, torch.Tensor], check: str
) -> dict[str, torch.Tensor]:
    """The tensors of the network, out of the file's."""
    for name, tensor in expected.items():
        there = given.get(name)
        shape = tuple(there.shape) if isinstance(there, torch.Tensor) else None
        if shape != tuple(tensor.shape):
            found = "none" if shape is None else str(shape)
            raise not_a_checkpoint(file, name, f"a tensor {tuple(tensor.shape)}", found, check)
    return {name: given[name] for name in expected}
