"""Networks run on CPU or GPU, in batches and in several threads.  crops -> [network] -> features

Importing this imports torch: `pipeline.features.streams` do so when there is something to compute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from torchvision.models.resnet import ResNet

from pipeline.errors import ConfigError
from pipeline.features.networks import backbones
from pipeline.features.networks.backbones import Loaded
from pipeline.features.networks.base import Network, PlainNetwork, chosen_device, compute
from pipeline.features.networks.cpu import CpuNetwork, OneByOne, bf16_is_native
from pipeline.features.networks.cuda import CudaNetwork
from pipeline.features.networks.resnet import folded
from pipeline.features.streams.base import Machine
from pipeline.features.weights import WeightsSpec
from pipeline.synthetic import calibration_crops

__all__ = ["Network", "chosen_device", "compute", "load", "run"]

CALIBRATION_CROPS: Final = 96  # rendered crops from which an untrained ResNet-50's output is standardised
COMPARED_CROPS: Final = 4  # rendered crops of which fast features are compared with exact ones
LEAST_COSINE: Final = 0.9999  # of fast and exact features


def load(weights: WeightsSpec, precision: str, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
    """A ResNet-50 on its device. `recorded`: provenance of the rows that the stream has already, if any.

    An untrained network's features have a mean near 9 and vary by 0.25 over poses, so its output is standardised by
    statistics over rendered crops, or by the recorded ones. Real weights are never standardised.

    Raises ConfigError for a device that does not exist, and what `backbones.load` raises.
    """
    device, fast = chosen_device(machine.device), precision == "fast"
    network, provenance = backbones.load(weights)
    running: Network
    if device.type == "cuda":
        found = folded(network)
        running = CudaNetwork(found, device, fast=fast, batch_size=machine.batch_size, compiled=machine.compile)
    else:
        running = CpuNetwork(network, fast=fast, batch_size=machine.batch_size, threads=machine.threads)
    if weights.stand_in:
        statistics = (recorded or {}).get("standardisation") or _statistics(network)
        running.mean, running.std = (np.array(statistics[name], np.float32) for name in ("mean", "std"))
        provenance["standardisation"] = dict(statistics)
    running.provenance = {**provenance, "arithmetic": running.arithmetic, "device": running.device}
    return running


def run(load: Callable[[], Loaded], precision: str, machine: Machine) -> Network:
    """Any other network on its device: fp32 where `precision` is exact, bf16 where it is fast and the device has it.

    Raises what `load` does, and ConfigError for a device that does not exist and for a network whose fast features do
    not point where the exact ones do: a cosine of at least 0.9999 over a few rendered crops.
    """
    device = chosen_device(machine.device)
    loaded = load()
    fast = precision == "fast" and (device.type == "cuda" or bf16_is_native())
    running = _on_device(loaded, device, machine, fast=False)
    if fast:
        exact, loaded = running, replace(loaded, network=copy.deepcopy(loaded.network).cpu())
        running = _on_device(loaded, device, machine, fast=True)
        _check_fast(exact, running, str(loaded.provenance["network"]))
    running.provenance = {**loaded.provenance, "arithmetic": running.arithmetic, "device": running.device}
    return running


def _on_device(loaded: Loaded, device: torch.device, machine: Machine, *, fast: bool) -> Network:
    size, region = machine.batch_size, loaded.region
    if device.type == "cuda":
        compiled, normalisation = machine.compile, copy.deepcopy(loaded.normalisation)
        return CudaNetwork(
            loaded.network,
            device,
            fast=fast,
            batch_size=size,
            compiled=compiled,
            region=region,
            normalisation=normalisation,
        )
    dtype = torch.bfloat16 if fast else torch.float32
    network = PlainNetwork(loaded.network, dtype, channels_last=True, normalisation=loaded.normalisation)
    return OneByOne(network, region, batch_size=size, threads=machine.threads)


def _check_fast(exact: Network, fast: Network, name: str) -> None:
    height, width = exact.region
    side = max(height, width)
    crops = np.stack([cv2.resize(crop, (side, side)) for crop in calibration_crops(COMPARED_CROPS)])
    top, left = (side - height) // 2, (side - width) // 2
    crops = np.ascontiguousarray(crops[:, top : top + height, left : left + width], np.uint8)
    a, b = (compute(network, crops).astype(np.float64) for network in (exact, fast))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    least = float(((a * b).sum(axis=1) / lengths).min())
    if not least >= LEAST_COSINE:
        raise ConfigError(
            f"precision fast: {name} in bf16 differs too much from fp32: the smallest cosine over {COMPARED_CROPS} "
            f"rendered crops is {least:.6f}, expected at least {LEAST_COSINE}. Set precision = exact."
        )


def _statistics(network: ResNet) -> dict[str, list[float]]:
    """Mean and standard deviation of each feature over rendered crops, rounded: they read back exactly."""
    exact = CpuNetwork(network, fast=False, batch_size=0, threads=0)
    features = compute(exact, calibration_crops(CALIBRATION_CROPS)).astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1).clip(min=1e-4)
    return {"mean": [float(f"{x:.6g}") for x in mean], "std": [float(f"{x:.6g}") for x in std]}
