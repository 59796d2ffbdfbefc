"""A ResNet-50 run on CPU or GPU, in batches and in several threads.  crops -> [network] -> features

Importing this imports torch: `pipeline.features.streams.resnet50` does so when there is something to compute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.resnet import ResNet

from pipeline.errors import ConfigError
from pipeline.features.networks import backbones
from pipeline.features.networks.cpu import CpuNetwork
from pipeline.features.networks.cuda import CudaNetwork
from pipeline.features.weights import WeightsSpec
from pipeline.synthetic import calibration_crops

__all__ = ["ResNet50Computer", "chosen_device", "compute", "load"]

DIM: Final = 2048
CALIBRATION_CROPS: Final = 96  # rendered crops from which an untrained network's output is standardised

Standardisation = Mapping[str, list[float]]  # "mean" and "std", DIM numbers each


class ResNet50Computer:
    """A network on its device as the `Computer` of a stream: its features, standardised where it is untrained."""

    def __init__(
        self, network: CpuNetwork | CudaNetwork, provenance: Mapping[str, Any], standardisation: Standardisation | None
    ) -> None:
        self.batch_size, self.lanes = network.batch_size, network.lanes
        self.adopt, self.release, self.copied = network.adopt, network.release, network.copied
        self._network, self._provenance = network, dict(provenance)
        scale = standardisation or {"mean": [0.0] * DIM, "std": [1.0] * DIM}
        self._mean, self._std = (np.array(scale[name], np.float32) for name in ("mean", "std"))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the weights come from, what they are, and the arithmetic in which they were used."""
        return dict(self._provenance)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, 224, 224, 3) RGB -> (batch_size, 2048)."""
        if crops.shape != (self.batch_size, 224, 224, 3) or crops.dtype != np.uint8:
            raise ValueError(f"expected ({self.batch_size}, 224, 224, 3) uint8, found {crops.shape} {crops.dtype}")
        return (self._network(crops) - self._mean) / self._std


def load(
    weights: WeightsSpec,
    *,
    precision: str,
    device: str = "auto",
    batch_size: int = 0,
    threads: int = 0,
    compile: bool = False,  # noqa: A002 - as the option is called
    recorded: Mapping[str, Any] | None = None,
    standardise: bool = True,
) -> ResNet50Computer:
    """The network on its device, as `streams.base.Machine` describes. `recorded`: provenance of existing rows, if any.

    An untrained network's features have a mean near 9 and vary by 0.25 over poses, so its output is standardised by
    statistics over rendered crops, or by the recorded ones. Real weights are never standardised. Precisions are
    compared without it (`standardise` false): bf16 features of an untrained network agree with exact ones to a cosine
    of 0.99999, but only of 0.99 once their large mean is subtracted from both.

    Raises ConfigError for a device that does not exist, and what `backbones.load` raises.
    """
    chosen = chosen_device(device)
    network, provenance = backbones.load(weights)
    standardisation = None
    if weights.stand_in and standardise:
        standardisation = (recorded or {}).get("standardisation") or _statistics(network)
        provenance["standardisation"] = dict(standardisation)
    fast = precision == "fast"
    running: CpuNetwork | CudaNetwork
    if chosen.type == "cuda":
        running = CudaNetwork(network, chosen, fast=fast, batch_size=batch_size, compiled=compile)
    else:
        running = CpuNetwork(network, fast=fast, batch_size=batch_size, threads=threads)
    provenance |= {"arithmetic": running.arithmetic, "device": running.device}
    return ResNet50Computer(running, provenance, standardisation)


def chosen_device(text: str) -> torch.device:
    """What `auto`, `cpu`, `cuda` or `cuda:1` means here. Raises ConfigError for a device that does not exist."""
    has_cuda = torch.cuda.is_available()
    if text == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    kind, _, number = text.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ConfigError(f"device {text!r}: expected auto, cpu, cuda, or one of several GPUs, as cuda:1")
    if kind == "cuda" and not has_cuda:
        raise ConfigError(f"device {text!r}: torch {torch.__version__} finds no CUDA device here. Use cpu or auto.")
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigError(f"device {text!r}: there are {torch.cuda.device_count()} CUDA devices here, from cuda:0")
    return torch.device(text)


def compute(computer: ResNet50Computer | CpuNetwork | CudaNetwork, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Any number of crops (N, 224, 224, 3), N > 0 -> (N, dim), in the computer's number of threads."""
    filled = np.zeros((-len(crops) % computer.batch_size + len(crops), *crops.shape[1:]), np.uint8)
    filled[: len(crops)] = crops
    with ThreadPoolExecutor(computer.lanes) as lanes:
        features = list(lanes.map(computer, np.split(filled, len(filled) // computer.batch_size)))
    return np.concatenate(features)[: len(crops)]


def _statistics(network: ResNet) -> Standardisation:
    """Mean and standard deviation of each feature over rendered crops, rounded: they read back exactly."""
    exact = CpuNetwork(network, fast=False, batch_size=0, threads=0)
    features = compute(exact, calibration_crops(CALIBRATION_CROPS)).astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1).clip(min=1e-4)
    return {"mean": [float(f"{x:.6g}") for x in mean], "std": [float(f"{x:.6g}") for x in std]}
