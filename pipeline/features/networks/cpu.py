"""Networks on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.arrays import Floats
from pipeline.features.networks import arithmetic
from pipeline.features.networks.base import Loaded, Network, PlainNetwork
from pipeline.features.streams.base import Machine, Precision
from pipeline.processes import cores

# crops in a batch: larger batches are not faster, and results of layers fit the caches
BATCH_SIZE: Final = 16
SMALL_BATCH: Final = 8  # for networks that compute one crop at a time, which may take seconds


class CpuNetwork(Network):
    """A network on a CPU, in several threads (`machine.threads`; 0: one per core), each with a
    batch.

    A folded ResNet computes a batch at once: in fp32, or, in precision fast, in bf16 if the CPU has
    it. Its bits do not depend on the number of threads; those of precision exact are of batches of
    the same size on all machines. Other networks compute crops one by one, so that a row's bits
    depend only on its own input.
    """

    def __init__(self, loaded: Loaded, machine: Machine, precision: Precision) -> None:
        size = machine.batch_size or SMALL_BATCH
        if loaded.is_folded:
            size = BATCH_SIZE
            if precision == "fast":
                size = machine.batch_size or BATCH_SIZE
        dtype = torch.float32
        name = "fp32, layer by layer"
        if precision == "fast" and arithmetic.has_bf16(torch.device("cpu")):
            dtype = torch.bfloat16
            name = "bf16, layer by layer"
        super().__init__(loaded, size, cores(machine.threads), device="cpu", arithmetic=name)
        self._at_once = size if loaded.is_folded else 1
        self._forward: nn.Module
        if dtype == torch.bfloat16 and loaded.is_folded:
            self._forward = _ReorderedNetwork(loaded)
        else:
            self._forward = PlainNetwork(loaded, dtype, torch.channels_last)

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> Floats:
        features = []
        for first in range(0, len(crops), self._at_once):
            part = slice(first, first + self._at_once)
            of_part = {name: values[part] for name, values in labels.items()}
            features.append(self._forward(torch.from_numpy(crops[part]), **of_part).numpy())
        return np.concatenate(features)


class _ReorderedNetwork(nn.Module):
    """A folded ResNet in bf16 on a CPU, by torch's layers for oneDNN: their weights are reordered
    once, where other layers do it for each batch, which takes 8% of the time.
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.normalisation = loaded.normalisation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these layers of torch use TorchScript: deprecated
            from torch.utils.mkldnn import to_mkldnn

            self.network = to_mkldnn(loaded.network, torch.bfloat16)  # type: ignore[no-untyped-call]

    def forward(self, crops: Tensor) -> Tensor:
        pixels = self.normalisation(crops).contiguous().to_mkldnn(torch.bfloat16)
        features: Tensor = self.network(pixels)
        return features
