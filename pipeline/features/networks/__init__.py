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
from pipeline.features.networks.resnet import Network
from pipeline.features.streams.base import Machine
from pipeline.features.weights import WeightsSpec
from pipeline.synthetic import calibration_crops

__all__ = ["Network", "chosen_device", "compute", "load"]

CALIBRATION_CROPS: Final = 96  # rendered crops from which an untrained network's output is standardised


def load(weights: WeightsSpec, precision: str, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
    """The network on its device. `recorded`: provenance of the rows that the stream has already, if any.

    An untrained network's features have a mean near 9 and vary by 0.25 over poses, so its output is standardised by
    statistics over rendered crops, or by the recorded ones. Real weights are never standardised.

    Raises ConfigError for a device that does not exist, and what `backbones.load` raises.
    """
    device, fast = chosen_device(machine.device), precision == "fast"
    network, provenance = backbones.load(weights)
    running: Network
    if device.type == "cuda":
        running = CudaNetwork(network, device, fast=fast, batch_size=machine.batch_size, compiled=machine.compile)
    else:
        running = CpuNetwork(network, fast=fast, batch_size=machine.batch_size, threads=machine.threads)
    if weights.stand_in:
        statistics = (recorded or {}).get("standardisation") or _statistics(network)
        running.mean, running.std = (np.array(statistics[name], np.float32) for name in ("mean", "std"))
        provenance["standardisation"] = dict(statistics)
    running.provenance = {**provenance, "arithmetic": running.arithmetic, "device": running.device}
    return running


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


def compute(computer: Network, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Any number of crops (N, 224, 224, 3), N > 0 -> (N, dim), in the computer's number of threads."""
    filled = np.zeros((-len(crops) % computer.batch_size + len(crops), *crops.shape[1:]), np.uint8)
    filled[: len(crops)] = crops
    with ThreadPoolExecutor(computer.lanes) as lanes:
        features = list(lanes.map(computer, np.split(filled, len(filled) // computer.batch_size)))
    return np.concatenate(features)[: len(crops)]


def _statistics(network: ResNet) -> dict[str, list[float]]:
    """Mean and standard deviation of each feature over rendered crops, rounded: they read back exactly."""
    exact = CpuNetwork(network, fast=False, batch_size=0, threads=0)
    features = compute(exact, calibration_crops(CALIBRATION_CROPS)).astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1).clip(min=1e-4)
    return {"mean": [float(f"{x:.6g}") for x in mean], "std": [float(f"{x:.6g}") for x in std]}
