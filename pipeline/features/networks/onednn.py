"""The ResNet-50 on a CPU, with oneDNN's fused convolutions.  crops -> [network] -> features

A fused convolution adds the bias and the shortcut, and applies ReLU, in one pass over the memory;
torch's layers take one pass for each. `cudnn.py` has the same for GPUs.

The operators are private ones of torch, which its compiler uses, too: `is_there` tells whether this
torch has them.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from pipeline.features.networks.base import Loaded

_OPERATORS: Final = (
    "_reorder_convolution_weight",
    "_convolution_pointwise",
    "_convolution_pointwise_",
)

Shape = tuple[int, int, int, int]  # (B, channels, height, width)


def is_there() -> bool:
    """Whether this version of torch has oneDNN's fused operators."""
    has_onednn = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]
    return has_onednn and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


class FusedResNet:
    """A ResNet with fused convolutions, whose batch norms must be folded: uint8 crops (batch_size,
    height, width, 3) RGB -> features (batch_size, 2048) float32. It computes in bf16 if `fast`.
    """

    def __init__(self, loaded: Loaded, *, fast: bool, batch_size: int) -> None:
        self._dtype = torch.bfloat16 if fast else torch.float32
        network: Any = loaded.network.to(self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalisation = loaded.normalisation
        self._mean = network.avgpool
        self._first = _Convolution(network.conv1, (batch_size, 3, *loaded.region))
        self._pool = network.maxpool
        shape = _output_shape(network.maxpool, self._first.output_shape)
        self._blocks: list[_Bottleneck] = []
        for layers in (*network.layer1, *network.layer2, *network.layer3, *network.layer4):
            block = _Bottleneck(layers, shape)
            self._blocks.append(block)
            shape = block.output_shape

    def __call__(self, crops: Tensor) -> Tensor:
        pixels = self._normalisation(crops).to(self._dtype)
        features = self._pool(self._first(pixels, "relu"))
        for block in self._blocks:
            features = block(features)
        pooled: Tensor = self._mean(features)
        return pooled


class _Convolution:
    """One fused convolution. Its weights are reordered once, for inputs of this shape."""

    def __init__(self, layer: nn.Conv2d, shape: Shape) -> None:
        options = [list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups]
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight.detach(), *options, list(shape)
        )
        bias = layer.bias
        if bias is not None:
            bias = bias.detach()
        self._arguments = [weight, bias, *options]
        self.output_shape = (shape[0], layer.out_channels, *_output_shape(layer, shape)[2:])

    def __call__(self, pixels: Tensor, activation: str) -> Tensor:
        """activation(convolution of pixels + bias); `activation` is "relu" or "none"."""
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            pixels, *self._arguments, activation, [], ""
        )
        return result

    def add_to(self, other: Tensor, pixels: Tensor) -> Tensor:
        """ReLU(other + convolution of pixels + bias), in the memory of `other`."""
        sum_and_activation = ["add", 1.0, "relu", [], ""]  # 1.0: the factor of `other`
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, pixels, *self._arguments, *sum_and_activation
        )
        return result


class _Bottleneck:
    """A bottleneck block of a ResNet: three convolutions and a shortcut."""

    def __init__(self, layers: Any, shape: Shape) -> None:
        self._first = _Convolution(layers.conv1, shape)
        self._second = _Convolution(layers.conv2, self._first.output_shape)
        self._last = _Convolution(layers.conv3, self._second.output_shape)
        self._shortcut: _Convolution | None = None
        if layers.downsample is not None:
            self._shortcut = _Convolution(layers.downsample[0], shape)
        self.output_shape = self._last.output_shape

    def __call__(self, features: Tensor) -> Tensor:
        inner = self._second(self._first(features, "relu"), "relu")
        if self._shortcut is not None:
            features = self._shortcut(features, "none")
        return self._last.add_to(features, inner)


def _output_shape(layer: Any, shape: Shape) -> Shape:
    """The output shape of a square convolution or pooling, except for the number of channels, which
    is the input's. As in torch: (size + 2 padding - dilation (kernel - 1) - 1) / stride + 1.
    """
    window = _side(layer.dilation) * (_side(layer.kernel_size) - 1) + 1
    padded = 2 * _side(layer.padding) - window
    stride = _side(layer.stride)
    height = (shape[2] + padded) // stride + 1
    width = (shape[3] + padded) // stride + 1
    return (*shape[:2], height, width)


def _side(value: Any) -> int:
    """The value of a square layer's option, which is a number or a pair of equal numbers."""
    if isinstance(value, tuple):
        value = value[0]
    return int(value)
