"""torchvision's ResNet-18, loaded and on its device.  crops -> [network] -> features"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import get_weight, resnet18

from pipeline.api import Machine, Normalisation, chosen_device


class Network:
    """One batch at a time, in float32."""

    lanes = 1

    def __init__(self, weights: str, machine: Machine) -> None:
        self.batch_size = machine.batch_size or 32
        self.provenance: Mapping[str, Any] = {
            "weights": weights,
            "stand_in": weights == "untrained",
            "network": "torchvision ResNet-18, global average pool",
        }
        self._device = chosen_device(machine.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the seed of random weights
            network = resnet18(weights=None if weights == "untrained" else get_weight(f"ResNet18_Weights.{weights}"))
        network.add_module("fc", torch.nn.Identity())  # the feature is the input of the classifier
        self._network = torch.nn.Sequential(Normalisation(), network).eval().to(self._device)

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Do nothing: crops are copied."""

    def release(self) -> None:
        """Do nothing."""

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, 224, 224, 3) RGB -> (batch_size, 512)."""
        features: NDArray[np.float32] = self._network(torch.from_numpy(crops).to(self._device)).cpu().numpy()
        return features
