"""A ResNet-50 on the CPU: a batch a core.  crops -> [network] -> features"""

from __future__ import annotations

import os
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.resnet import ResNet

from pipeline.features.networks import fused
from pipeline.features.networks.lanes import Lanes
from pipeline.features.networks.resnet import PlainNetwork

BATCH_SIZE: Final = 16  # no larger one is faster, and what is between two layers still fits the caches


class CpuNetwork:
    """`threads` batches at a time (0: one a core), each computed by one thread: bits depend on neither.

    `fast` takes bf16 where the CPU has it. Otherwise fp32, in batches of one size, whatever is asked for.
    """

    device: Final = "cpu"

    def __init__(self, network: ResNet, *, fast: bool, batch_size: int, threads: int) -> None:
        self.batch_size = (batch_size if fast else 0) or BATCH_SIZE
        self._lanes = Lanes(threads or len(os.sched_getaffinity(0)))
        self.lanes = self._lanes.number
        self._forward: fused.FusedNetwork | PlainNetwork
        if fused.available():
            dtype = torch.bfloat16 if fast and fused.bf16_is_native() else torch.float32
            self._forward = fused.FusedNetwork(network, dtype, self.batch_size)
            self.arithmetic = f"{'bf16' if dtype == torch.bfloat16 else 'fp32'}, oneDNN's fused convolutions"
        else:
            self._forward = PlainNetwork(network, torch.float32, channels_last=True)
            self.arithmetic = "fp32, layer by layer"

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """A CPU reads crops wherever they lie."""

    def release(self) -> None:
        """Nothing was taken."""

    def copied(self) -> float:
        """Nothing is copied."""
        return 0.0

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, 224, 224, 3) RGB -> (batch_size, 2048)."""
        return self._lanes(self._compute, crops)

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._forward(torch.from_numpy(crops)).numpy()
        return features
