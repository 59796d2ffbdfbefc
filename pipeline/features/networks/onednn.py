"""The ResNet-50 on a CPU, with oneDNN's fused convolutions.  crops -> [network] -> features

A fused convolution adds the bias and the shortcut, and applies ReLU, in one pass over the memory;
torch's layers take one pass for each. `cudnn.py` has the same for GPUs.

    OneDnnResNet   called by `_FusedOnCpu` of this package for each batch
    _Bottleneck    one block of it: three convolutions and a shortcut
    _Convolution   one fused convolution, a call of an operator of `torch.ops.mkldnn`

The operators are private ones of torch, which its compiler uses, too: `is_there` tells whether this
torch has them. They are called by position, as the names of their parameters may change.
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


class OneDnnResNet:
    """A ResNet with fused convolutions, whose batch norms must be folded: uint8 crops (batch_size,
    height, width, 3) RGB -> features (batch_size, 2048) float32. It computes in bf16 if `fast`.
    """

    def __init__(self, loaded: Loaded, *, fast: bool, batch_size: int) -> None:
        self._dtype = torch.bfloat16 if fast else torch.float32
        # a torchvision ResNet
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
        batch, _, height, width = _output_shape(layer, shape)
        self.output_shape = (batch, layer.out_channels, height, width)

    def __call__(self, pixels: Tensor, activation: str) -> Tensor:
        """activation(convolution of pixels + bias); `activation` is "relu" or "none"."""
        # the activation, its numbers and its algorithm: neither relu nor none has the last two
        after = [activation, [], ""]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(pixels, *self._arguments, *after)
        return result

    def add_into(self, other: Tensor, pixels: Tensor) -> Tensor:
        """ReLU(other + convolution of pixels + bias), in the memory of `other`."""
        # add 1.0 * `other`; then the activation, as in `__call__`
        after = ["add", 1.0, "relu", [], ""]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, pixels, *self._arguments, *after
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
        return self._last.add_into(features, inner)


def _output_shape(layer: Any, shape: Shape) -> Shape:
    """The output shape of a square convolution or pooling, except for the number of channels, which
    is the input's.

    As in torch, a side is (side + 2 padding - window) // stride + 1, with the window
    dilation (kernel - 1) + 1.
    """
    padding = _side(layer.padding)
    stride = _side(layer.stride)
    window = _side(layer.dilation) * (_side(layer.kernel_size) - 1) + 1
    batch, channels, *sides = shape
    height, width = [(side + 2 * padding - window) // stride + 1 for side in sides]
    return (batch, channels, height, width)


def _side(value: Any) -> int:
    """The value of a square layer's option, which is a number or a pair of equal numbers."""
    if isinstance(value, tuple):
        value = value[0]
    return int(value)
