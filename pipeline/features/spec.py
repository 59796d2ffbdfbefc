"""A stream to extract, and the resources for it.  tracks -> [features] -> windows"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as validated

from pipeline.features.streams.base import MOST_CROPS, Machine, Stream
from pipeline.features.streams.network import ResNet50
from pipeline.processes import cores
from pipeline.processes.workers import DeviceName, DeviceNames, device_names


@validated(frozen=True, config={"extra": "forbid", "defer_build": True})
class Resources:
    """Resources of an extraction on this machine: keys of [features], whose class inherits from this one."""

    device: DeviceName = "auto"
    devices: DeviceNames = None  # Replaces device
    batch_size: Annotated[int, Field(ge=0, le=MOST_CROPS, description="Crops in a batch; 0: chosen by device")] = 0
    compile: Annotated[bool, Field(description="Use torch.compile (CUDA only)")] = False
    workers: Annotated[NonNegativeInt, Field(description="Number of decoding processes; 0: one per core")] = 0
    timeout: Annotated[PositiveFloat, Field(description="Seconds without progress until a decoder is ended")] = 60

    @property
    def processes(self) -> tuple[str, ...]:
        """Devices with a process each; (): the calling process computes. Raises ConfigError."""
        return device_names(self.devices or "", self.device)

    def machine(self, process: str = "") -> Machine:
        """The device and its options. process: a process's device, which has a share of the cores."""
        threads = max(1, cores(0) // len(self.processes)) if process == "cpu" else 0
        return Machine(process or self.device, self.batch_size, threads, self.compile)

    def decoders(self, process: str = "") -> int:
        """Number of decoding processes. process: as for `machine`."""
        return max(1, cores(self.workers) // len(self.processes)) if process else cores(self.workers)


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream's name, its definition, and where its raw files are."""

    name: str = ResNet50.kind
    stream: Stream = field(default_factory=ResNet50)
    raw: Path | None = None  # the raw folder now; None: as recorded
