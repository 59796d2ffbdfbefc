"""The ResNet-50 with precision fast on an NVIDIA GPU, with cuDNN's fused convolutions.  crops ->
[network] -> features

torch's layers write a convolution's result to memory and read it again for the bias, the shortcut
and ReLU. cuDNN's fused convolutions do all three before they write, which gives twice as many crops
per second (benchmarks/gpu_check.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import ResNet


def is_there() -> bool:
    """Whether this torch was built with NVIDIA's cuDNN, not with AMD's replacement."""
    available: bool = torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]
    return available and torch.version.hip is None


class CudnnResNet(nn.Module):
    """A ResNet of bottlenecks with fused convolutions: pixels (B, 3, height, width), channels last
    and in the layers' dtype -> (B, 2048) float32.

    It uses the layers of `network`, whose batch norms must be folded into its convolutions.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.first = network.conv1
        self.pool = network.maxpool
        blocks = (*network.layer1, *network.layer2, *network.layer3, *network.layer4)
        self.bottlenecks = nn.Sequential(*map(_CudnnBottleneck, blocks))
        self.mean = network.avgpool

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.pool(_convolve(self.first, pixels))
        pooled: Tensor = self.mean(self.bottlenecks(features))
        return pooled


class _CudnnBottleneck(nn.Module):
    """ReLU(shortcut + three convolutions). The bias of the shortcut's convolution is added to that
    of the last convolution, so that cuDNN adds both at once.
    """

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.first = layers.conv1
        self.second = layers.conv2
        self.last = layers.conv3
        self.shortcut: nn.Module = nn.Identity()
        if layers.downsample is not None:
            (convolution,) = layers.downsample
            self.last.bias = nn.Parameter(self.last.bias + convolution.bias)
            convolution.bias = None
            self.shortcut = convolution

    def forward(self, features: Tensor) -> Tensor:
        inner = _convolve(self.second, _convolve(self.first, features))
        return _convolve_onto(self.shortcut(features), self.last, inner)


def _convolve(layer: Any, pixels: Tensor) -> Tensor:
    """ReLU(convolution + bias)."""
    return torch.cudnn_convolution_relu(
        pixels,
        layer.weight,
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )


def _convolve_onto(other: Tensor, layer: Any, pixels: Tensor) -> Tensor:
    """ReLU(convolution + bias + other)."""
    return torch.cudnn_convolution_add_relu(
        pixels,
        layer.weight,
        other,
        1.0,
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
