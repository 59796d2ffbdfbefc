"""Run networks on CPU or GPU, in batches and threads.  crops -> [network] -> features

Streams call `resnet50_on_device`, or `network_on_device` for any other network. Both return a
`Network`, which computes batches:

    cuda.CudaNetwork   on a GPU; it computes one batch while it copies the next
    cpu.CpuNetwork     on a CPU, one batch per core; other networks than a ResNet-50 crop by crop

All use torch's layers; those of the ResNet-50 have its batch norms folded in. On a GPU, fast
networks are compiled. On a CPU the compiler makes bf16 14% faster, but it takes a minute, the time
of 10,000 crops, and needs a C++ compiler.

Importing this package imports torch, so streams import it only when they compute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch

from pipeline.errors import ConfigError
from pipeline.features.networks import arithmetic, backbones, calibration
from pipeline.features.networks.backbones import fold_batch_norms
from pipeline.features.networks.base import Loaded
from pipeline.features.networks.base import Network as Network
from pipeline.features.networks.base import chosen_device as chosen_device
from pipeline.features.networks.cpu import CpuNetwork
from pipeline.features.networks.cuda import CudaNetwork
from pipeline.features.streams.base import Machine, Precision, Standardisation
from pipeline.features.weights import WeightsSpec
from pipeline.people.boxes import CROP_SIZE


def resnet50_on_device(
    weights: WeightsSpec,
    precision: Precision,
    machine: Machine,
    recorded: Standardisation | None,
    region: tuple[int, int] = (CROP_SIZE, CROP_SIZE),
) -> Network:
    """Load a ResNet-50 on its device, for crops of `region` (height, width) px.

    Random weights give features with a mean near 9 that vary by only 0.25 over poses. So these
    features are standardised, by the statistics of existing rows (`recorded`), or else by new ones
    over rendered crops. Features of real weights are never standardised.

    Raises ConfigError for a missing device, and what `backbones.load` raises.
    """
    device = chosen_device(machine.device)
    loaded = backbones.load(weights, region)
    # first, so that only one folded copy of the network is in memory at a time
    if weights.stand_in:
        statistics = recorded or calibration.statistics(loaded)
        as_json = {name: list(numbers) for name, numbers in statistics._asdict().items()}
        provenance = {**loaded.provenance, "standardisation": as_json}
        loaded = replace(loaded, provenance=provenance, standardisation=statistics)
    return _on_device(fold_batch_norms(loaded), device, machine, precision)


def network_on_device(
    load: Callable[[], Loaded], precision: Precision, machine: Machine
) -> Network:
    """Load any network except the ResNet-50 on its device, by calling `load`. It runs in fp32, or
    in bf16 if `precision` is fast and the device has bf16.

    Raises what `load` raises, and ConfigError for a missing device, for precision fast with a
    network that reads columns, and if fast features are inexact: their cosine with exact ones is
    below 0.9999 for a rendered crop.
    """
    device = chosen_device(machine.device)
    loaded = load()
    if precision == "fast" and loaded.columns:
        raise ConfigError(
            f"precision fast: {loaded.provenance['network']} reads {', '.join(loaded.columns)}, "
            "which bf16 rounds to three digits. Set precision = exact."
        )
    if precision == "exact" or not arithmetic.has_bf16(device):
        return _on_device(loaded, device, machine, "exact")

    # A network on its device takes over the layers that were loaded.
    copied = replace(loaded, network=copy.deepcopy(loaded.network))
    exact = _on_device(loaded, device, machine, "exact")
    fast = _on_device(copied, device, machine, "fast")
    calibration.require_close(exact, fast, str(loaded.provenance["network"]))
    return fast


def _on_device(
    loaded: Loaded, device: torch.device, machine: Machine, precision: Precision
) -> Network:
    """Put a network on its device, which takes it over. A device without bf16 computes exactly."""
    if device.type == "cpu":
        return CpuNetwork(loaded, machine, precision)
    if not arithmetic.has_bf16(device):
        precision = "exact"
    return CudaNetwork(loaded, device, machine, precision)
