"""Run networks on CPU or GPU, in batches and threads.  crops -> [network] -> features

Importing this imports torch, so streams import it when they compute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CROP_SIZE
from pipeline.demo import calibration_crops
from pipeline.errors import ConfigError
from pipeline.features.networks import backbones
from pipeline.features.networks.backbones import fold_batch_norms
from pipeline.features.networks.base import Loaded, Network, Normalisation, chosen_device, compute
from pipeline.features.networks.cpu import CpuNetwork, OneByOne, bf16_is_native
from pipeline.features.networks.cuda import CudaNetwork, multiplies_bf16
from pipeline.features.streams.base import Machine
from pipeline.features.weights import WeightsSpec

__all__ = ["Network", "chosen_device", "compute", "load", "run"]

CALIBRATION_CROPS: Final = 96  # rendered crops that standardise a ResNet-50 with random weights
COMPARED_CROPS: Final = 4  # rendered crops that compare fast features with exact ones
LEAST_COSINE: Final = 0.9999  # of fast and exact features


def load(
    weights: WeightsSpec,
    precision: str,
    machine: Machine,
    recorded: Mapping[str, Any] | None,
    region: tuple[int, int] = (CROP_SIZE, CROP_SIZE),
) -> Network:
    """Load a ResNet-50 on its device, for crops of `region` (height, width) px. recorded: provenance of existing rows.

    With random weights, features have a mean near 9 and vary by 0.25 over poses, so they are standardised by statistics
    over rendered crops, or by the recorded ones. Real weights are never standardised.

    Raises ConfigError for a missing device, and what `backbones.load` raises.
    """
    device, fast = chosen_device(machine.device), precision == "fast"
    network, provenance = backbones.load(weights)

    def fold() -> Loaded:
        return Loaded(fold_batch_norms(network), provenance, region, Normalisation(region[1]), dim=2048)

    statistics: Mapping[str, list[float]] | None = None
    if weights.stand_in:  # before the network is loaded: one at a time in memory
        statistics = (recorded or {}).get("standardisation") or _statistics(fold())
        provenance["standardisation"] = dict(statistics)
    running: Network
    if device.type == "cuda":
        running = CudaNetwork(fold(), device, machine, fast=fast and multiplies_bf16(device))
    else:
        running = CpuNetwork(fold(), machine, fast=fast)
    if statistics is not None:
        running.mean, running.std = (np.array(statistics[name], np.float32) for name in ("mean", "std"))
    return running


def run(load: Callable[[], Loaded], precision: str, machine: Machine) -> Network:
    """Load any other network on its device, in fp32, or in bf16 if `precision` is fast and the device has it.

    Raises what `load` raises, and ConfigError for a missing device, for fast with columns, and if the cosine of fast
    and exact features is below 0.9999 for a rendered crop.
    """
    device = chosen_device(machine.device)
    on_cuda, loaded = device.type == "cuda", load()
    if precision == "fast" and loaded.columns:
        raise ConfigError(
            f"precision fast: {loaded.provenance['network']} reads {', '.join(loaded.columns)}, which bf16 rounds to "
            "three digits. Set precision = exact."
        )
    fast = precision == "fast" and (multiplies_bf16(device) if on_cuda else bf16_is_native())

    def on_device(loaded: Loaded, *, fast: bool) -> Network:
        return CudaNetwork(loaded, device, machine, fast=fast) if on_cuda else OneByOne(loaded, machine, fast=fast)

    running = on_device(loaded, fast=False)
    if fast:
        exact, loaded = running, replace(loaded, network=copy.deepcopy(loaded.network).cpu())
        running = on_device(loaded, fast=True)
        _check_fast(exact, running, str(loaded.provenance["network"]))
    return running


def _render_crops(n: int, region: tuple[int, int]) -> NDArray[np.uint8]:
    """`calibration_crops` (n, height, width, 3), resized to the longer side and cut at the centre."""
    (height, width), side, crops = region, max(region), calibration_crops(n)
    if side != crops.shape[1]:
        crops = np.stack([cv2.resize(crop, (side, side)) for crop in crops]).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    return np.ascontiguousarray(crops[:, top : top + height, left : left + width])


def _check_fast(exact: Network, fast: Network, name: str) -> None:
    crops = _render_crops(COMPARED_CROPS, exact.region)
    a, b = (compute(network, crops).astype(np.float64) for network in (exact, fast))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    least = float(((a * b).sum(axis=1) / lengths).min())
    if not least >= LEAST_COSINE:
        raise ConfigError(
            f"precision fast: {name} in bf16 differs too much from fp32: the smallest cosine over {COMPARED_CROPS} "
            f"rendered crops is {least:.6f}, expected at least {LEAST_COSINE}. Set precision = exact."
        )


def _statistics(loaded: Loaded) -> dict[str, list[float]]:
    """Mean and standard deviation of each feature over rendered crops, rounded so that JSON is exact."""
    exact = CpuNetwork(loaded, Machine(), fast=False)
    features = compute(exact, _render_crops(CALIBRATION_CROPS, loaded.region)).astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0, ddof=1).clip(min=1e-4)
    return {"mean": [float(f"{x:.6g}") for x in mean], "std": [float(f"{x:.6g}") for x in std]}
