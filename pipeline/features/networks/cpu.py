"""Networks on the CPU, a batch per core; a ResNet-50 by oneDNN's fused convolutions.  crops -> [network] -> features

Bias, residual sum and ReLU take one pass over the memory. torch's compiler uses the same operators, but needs a C++
compiler and a minute.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.features.networks.base import Loaded, Network, PlainNetwork
from pipeline.features.streams.base import Machine
from pipeline.processes import cores

BATCH_SIZE: Final = 16  # larger ones are not faster, and intermediate results still fit the caches
SMALL_BATCH: Final = 8  # of networks that compute a crop at a time, which may take seconds


class CpuNetwork(Network):
    """ResNet-50 in `threads` threads (0: one per core), with a batch each. Bits do not depend on their number.

    fast: bf16 if the CPU has it; else fp32, in batches of one size on all machines.
    """

    device = "cpu"

    def __init__(self, loaded: Loaded, machine: Machine, *, fast: bool) -> None:
        super().__init__(loaded, (machine.batch_size if fast else 0) or BATCH_SIZE, cores(machine.threads))
        self._forward: FusedNetwork | PlainNetwork
        if fused_available():
            fast = fast and bf16_is_native()
            self._forward = FusedNetwork(loaded, fast=fast, batch_size=self.batch_size)
            self.arithmetic = f"{'bf16' if fast else 'fp32'}, oneDNN's fused convolutions"
        else:
            self._forward = PlainNetwork(loaded, fast=False)
            self.arithmetic = "fp32, layer by layer"

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> NDArray[np.float32]:  # noqa: ARG002
        features: NDArray[np.float32] = self._forward(torch.from_numpy(crops)).numpy()
        return features


class OneByOne(Network):
    """Any network in `threads` threads (0: one per core), crop by crop: a row's bits depend only on its own input."""

    device = "cpu"

    def __init__(self, loaded: Loaded, machine: Machine, *, fast: bool) -> None:
        super().__init__(loaded, machine.batch_size or SMALL_BATCH, cores(machine.threads))
        self.arithmetic = f"{'bf16' if fast else 'fp32'}, layer by layer"
        self._forward = PlainNetwork(loaded, fast=fast)

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> NDArray[np.float32]:
        rows = [{name: values[i : i + 1] for name, values in labels.items()} for i in range(len(crops))]
        pairs = zip(crops, rows, strict=True)
        return np.concatenate([self._forward(torch.from_numpy(crop[None]), **row).numpy() for crop, row in pairs])


_OPERATORS: Final = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")

Shape = tuple[int, int, int, int]


def fused_available() -> bool:
    """Whether this torch has the operators."""
    has_onednn = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]
    return has_onednn and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


def bf16_is_native() -> bool:
    """Whether the CPU multiplies bf16; oneDNN's emulation is slower than fp32."""
    if not (hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(hasattr(torch.cpu, name) and getattr(torch.cpu, name)() for name in instructions)


class FusedNetwork:
    """Folded ResNet: uint8 crops (batch_size, height, width, 3) RGB -> features (batch_size, 2048) float32."""

    def __init__(self, loaded: Loaded, *, fast: bool, batch_size: int) -> None:
        self._dtype = torch.bfloat16 if fast else torch.float32
        network: Any = loaded.network.to(self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalisation, self._mean = loaded.normalisation, network.avgpool
        self._first = _FusedConvolution(network.conv1, (batch_size, 3, *loaded.region))
        self._pool = network.maxpool
        shape = _output_shape(network.maxpool, self._first.output)
        self._blocks: list[_FusedBottleneck] = []
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            for bottleneck in layer:
                self._blocks.append(_FusedBottleneck(bottleneck, shape))
                shape = self._blocks[-1].output

    def __call__(self, crops: Tensor) -> Tensor:
        pixels = self._normalisation(crops).to(self._dtype)
        features = self._pool(self._first(pixels, "relu"))
        for block in self._blocks:
            features = block(features)
        pooled: Tensor = self._mean(features)
        return pooled


class _FusedConvolution:
    """One convolution, with its weights reordered for inputs of this shape."""

    def __init__(self, layer: nn.Conv2d, shape: Shape) -> None:
        where = [list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups]
        weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.detach(), *where, list(shape))
        self._rest = [weight, layer.bias if layer.bias is None else layer.bias.detach(), *where]
        self.output = (shape[0], layer.out_channels, *_output_shape(layer, shape)[2:])

    def __call__(self, pixels: Tensor, activation: str) -> Tensor:
        """`activation`: "relu" or "none"."""
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(pixels, *self._rest, activation, [], "")
        return result

    def onto(self, other: Tensor, pixels: Tensor) -> Tensor:
        """ReLU(other + convolution of pixels), in the memory of `other`."""
        how = ["add", 1.0, "relu", [], ""]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(other, pixels, *self._rest, *how)
        return result


class _FusedBottleneck:
    def __init__(self, layers: Any, shape: Shape) -> None:
        self._first = _FusedConvolution(layers.conv1, shape)
        self._second = _FusedConvolution(layers.conv2, self._first.output)
        self._last = _FusedConvolution(layers.conv3, self._second.output)
        self._shortcut = None if layers.downsample is None else _FusedConvolution(layers.downsample[0], shape)
        self.output = self._last.output

    def __call__(self, features: Tensor) -> Tensor:
        inner = self._second(self._first(features, "relu"), "relu")
        return self._last.onto(features if self._shortcut is None else self._shortcut(features, "none"), inner)


def _output_shape(layer: Any, shape: Shape) -> Shape:
    """Output shape of a square convolution or pooling, with the input's channels."""
    kernel, stride, padding, dilation = (
        value[0] if isinstance(value, tuple) else int(value)
        for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    height, width = ((side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in shape[2:])
    return (*shape[:2], height, width)
