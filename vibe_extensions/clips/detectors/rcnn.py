"""The network of `vibe_extensions.clips.detectors.keypoint_rcnn` on CPU or GPU.  [pixels -> keypoints] -> tracks

Importing this imports torch. On CPUs, the same function as torchvision's layers takes about half of the work:

- Batch norms are folded into their convolutions; bias, residual sum and ReLU take no pass of their own (oneDNN).
- 3 x 3 convolutions of many channels are Winograd's F(4 x 4, 3 x 3) (Lavin and Gray, CVPR 2016): 2.25 products for 9.
- RoIAlign (He et al. 2017) is a weighted sum of 16 pixels a bin over features with the channels last, as
  `embedding_bag` computes it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.ops.poolers import LevelMapper

from pipeline.detect.base import Detect, People
from pipeline.errors import ConfigError
from pipeline.files.formats.checkpoints import load_checkpoint, not_a_checkpoint
from pipeline.files.pixels.frames import Image
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
            return [_people(output) for output in network(pictures)]

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
        (output,) = network([torch.from_numpy(image).permute(2, 0, 1).float().div_(255)])
        return _people(output)

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
            shape_text = "none" if shape is None else str(shape)
            raise not_a_checkpoint(file, name, f"a tensor {tuple(tensor.shape)}", shape_text, check)
    return {name: given[name] for name in expected}


TILE: Final = 4  # px of the output
TILES: Final = 200  # at once: what is between two steps fits the cache
LEAST_CHANNELS: Final = 256  # for which Winograd's is faster than oneDNN's own
BINS, SAMPLES = 7, 2  # of a box, and in a bin, along an axis
# F(4 x 4, 3 x 3): output = A (G w G' * B d B') A' of a tile d of 6 x 6.
_B = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_B += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # times 24
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def faster(network: KeypointRCNN) -> KeypointRCNN:
    """The network, changed in place, for one picture at a time. Outputs differ by rounding alone."""
    body: Any = network.backbone.body
    body.conv1, body.bn1, body.relu = _Convolution(body.conv1, body.bn1), nn.Identity(), nn.Identity()
    for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
        for number, block in enumerate(layer):
            layer[number] = _Block(block)
    for parent in list(network.modules()):  # outside of the body
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and _suits(layer):
                setattr(parent, name, _Winograd(layer, layer.weight, layer.bias))
    heads: Any = network.roi_heads
    heads.box_roi_pool = _RoIAlign()
    weight = heads.box_head.fc6.weight  # (1024, channels * bins) -> (1024, bins * channels)
    weight.data = weight.unflatten(1, (-1, BINS * BINS)).transpose(1, 2).flatten(1).contiguous()
    return network.to(memory_format=torch.channels_last)


def _suits(layer: nn.Conv2d) -> bool:
    usual = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.padding == (1, 1)
    return usual and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS


class _Convolution(nn.Module):
    """A convolution with the batch norm behind it, and a ReLU unless `relu` is false. Folded in float64."""

    def __init__(self, layer: Any, norm: Any, *, relu: bool = True) -> None:
        super().__init__()
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight, bias = layer.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        self.weight, self.bias = (nn.Parameter(one.float(), requires_grad=False) for one in (weight, bias))
        self._how = [layer.padding, layer.stride, layer.dilation, layer.groups]
        self._after: list[Any] = ["relu" if relu else "none", [], ""]

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            pixels, self.weight, self.bias, *self._how, *self._after
        )
        return result

    def onto(self, other: Tensor, pixels: Tensor) -> Tensor:
        """ReLU(other + convolution of pixels), in the memory of `other`."""
        how = [*self._how, "add", 1.0, "relu", [], ""]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(other, pixels, self.weight, self.bias, *how)
        return result


class _Block(nn.Module):
    """A bottleneck of the ResNet."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.first, self.last = _Convolution(block.conv1, block.bn1), _Convolution(block.conv3, block.bn3)
        self.second: nn.Module = _Convolution(block.conv2, block.bn2)
        if _suits(block.conv2):
            self.second = _Winograd(block.conv2, self.second.weight, self.second.bias, relu=True)
        down = block.downsample
        self.shortcut = None if down is None else _Convolution(down[0], down[1], relu=False)

    def forward(self, pixels: Tensor) -> Tensor:
        inner = self.second(self.first(pixels))
        # No other layer reads what a block without a shortcut was given.
        return self.last.onto(pixels if self.shortcut is None else self.shortcut(pixels), inner)


class _Winograd(nn.Module):
    """(N, C, H, W) -> (N, O, H, W), channels last: a 3 x 3 convolution with padding 1, and a ReLU if `relu`."""

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> None:
        super().__init__()
        a, b, g = (torch.tensor(rows, dtype=torch.float64) for rows in (_A, _B, _G))
        filters = torch.einsum("xa,yb,oiab->xyio", g / 24, g / 24, weight.detach().double())
        self._filters = filters.reshape(36, layer.in_channels, layer.out_channels).float().contiguous()
        self._before, self._after = torch.kron(b, b).float(), torch.kron(a, a).float()
        self._bias = torch.zeros(layer.out_channels) if bias is None else bias.detach()
        self._relu = relu

    def forward(self, pixels: Tensor) -> Tensor:
        n, _, height, width = pixels.shape
        down, across = -(-height // TILE), -(-width // TILE)
        around = (0, 0, 1, TILE * across + 1 - width, 1, TILE * down + 1 - height)
        padded = functional.pad(pixels.permute(0, 2, 3, 1), around)
        tiles = padded.unfold(1, 6, TILE).unfold(2, 6, TILE).permute(4, 5, 0, 1, 2, 3)  # (6, 6, N, down, across, C)
        out = padded.new_empty(n, down, TILE, across, TILE, self._filters.shape[2])
        rows = max(1, TILES // across)
        some = max(1, rows // down)
        for i in range(0, n, some):
            for r in range(0, down, rows):
                part = tiles[:, :, i : i + some, r : r + rows]
                inner = torch.bmm((self._before @ part.reshape(36, -1)).view(36, -1, part.shape[-1]), self._filters)
                done = (self._after @ inner.view(36, -1)).view(TILE, TILE, *part.shape[2:5], -1).add_(self._bias)
                done = done.relu_() if self._relu else done
                out[i : i + some, r : r + rows].copy_(done.permute(2, 3, 0, 4, 1, 5))
        whole = out.view(n, TILE * down, TILE * across, out.shape[-1])[:, :height, :width]
        return whole.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class _RoIAlign(nn.Module):
    """Features of R boxes of one picture: (R, 49 * channels), from the level of the pyramid that suits a box's size."""

    def __init__(self) -> None:
        super().__init__()
        self._levels = LevelMapper(2, 5)  # of strides 4, 8, 16 and 32

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], _sizes: object) -> Tensor:
        (corners,) = boxes
        level_of: Tensor = self._levels(boxes)
        out = corners.new_empty(len(corners), BINS * BINS * features["0"].shape[1])
        for level in range(4):
            rows = torch.nonzero(level_of == level)[:, 0]
            _, channels, height, width = features[str(level)].shape
            x, y = (_samples(corners[rows][:, k::2] / (4 << level), side) for k, side in ((0, width), (1, height)))
            # (R, bin y, bin x, sample y, sample x, pixel y, pixel x)
            at = (y[0] * width)[:, :, None, :, None, :, None] + x[0][:, None, :, None, :, None, :]
            share = y[1][:, :, None, :, None, :, None] * x[1][:, None, :, None, :, None, :] / SAMPLES**2
            table = features[str(level)].permute(0, 2, 3, 1).reshape(-1, channels)
            bags = functional.embedding_bag(
                at.flatten(3).flatten(0, 2), table, mode="sum", per_sample_weights=share.flatten(3).flatten(0, 2)
            )
            out[rows] = bags.view(len(rows), out.shape[1])
        return out


def _samples(spans: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Where boxes are sampled along an axis of `side` px: pixels and their shares, each (R, BINS, SAMPLES, 2).

    spans: (R, 2) first and last coordinate. Samples over a pixel outside of the picture count as 0.
    """
    step = (spans[:, 1:] - spans[:, :1]).clamp(min=1) / (BINS * SAMPLES)
    at = spans[:, :1] + (torch.arange(BINS * SAMPLES) + 0.5) * step
    inside = (at >= -1) & (at <= side)
    at = at.clamp(0, side - 1)
    low = at.floor()
    pixels = torch.stack([low, (low + 1).clamp(max=side - 1)], -1).long()
    shares = torch.stack([1 - (at - low), at - low], -1) * inside[..., None]
    shape = (len(spans), BINS, SAMPLES, 2)
    return pixels.view(shape), shares.view(shape)
