"""Which stream to extract, from which crops, with which resources of this machine.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as validated

from cache import CropPolicy, Split
from pipeline.cli.options import cores
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import BYTES, MOST_CROPS, Machine, Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.processes.devices import DeviceName, DeviceNames, device_names


@validated(frozen=True, config={"extra": "forbid", "defer_build": True})
class Resources:
    """The resources of an extraction on this machine: keys of [features], whose model inherits from this one."""

    device: DeviceName = "auto"
    devices: DeviceNames = None  # in the place of `device`
    batch_size: Annotated[int, Field(ge=0, le=MOST_CROPS, description="crops at once; 0: the best for the device")] = 0
    compile: Annotated[bool, Field(description="torch.compile, on CUDA")] = False
    workers: Annotated[NonNegativeInt, Field(description="processes that decode pictures; 0: one for each core")] = 0
    timeout: Annotated[PositiveFloat, Field(description="seconds without progress until a decoder is ended")] = 60

    @property
    def processes(self) -> tuple[str, ...]:
        """The devices with a process each; (): the calling process computes. Raises ConfigError."""
        return device_names(self.devices or "", self.device)

    def machine(self, process: str = "") -> Machine:
        """Return the device and its options. `process`: its process's device, which has a share of the cores."""
        threads = max(1, cores(0) // len(self.processes)) if process == "cpu" else 0
        return Machine(process or self.device, self.batch_size, threads, self.compile)

    def decoders(self, process: str = "") -> int:
        """Return the number of decoding processes. `process`: as for `machine`."""
        return max(1, cores(self.workers) // len(self.processes)) if process else cores(self.workers)


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream's name, its definition, and the source of its crops."""

    name: str = ResNet50.kind
    stream: Stream = field(default_factory=ResNet50)
    crops: str = ""  # compute from this stream of crops in the cache, instead of the raw pictures
    raw: Path | None = None  # where the raw folder is now; None: where it was at conversion

    def __post_init__(self) -> None:
        if self.crops and not self.stream.reads.crops:
            raise ConfigError(f"stream {self.name!r} is computed from labels, not from crops: leave out --crops")
        if self.crops == self.name:
            raise ConfigError(f"stream {self.name!r} cannot be computed from itself: give it another name")

    def __str__(self) -> str:
        return f"{self.stream}, from the stream {self.crops!r}" if self.crops else str(self.stream)

    def at(self, raw: Path | None) -> StreamSpec:
        """The same stream, with the raw folder where it is now."""
        return replace(self, raw=raw)

    def identity(self, split: Split | None = None) -> dict[str, Any]:
        """Return the identity of the whole stream. Its rows have their own keys (pixels, frame, box, crop scale).

        `split`: has the stored crops, whose identity is included. Raises PipelineError where it has none.
        """
        identity = self.stream.identity()
        if self.crops:
            identity["crops"] = {} if split is None else self._stored(split)
        return identity

    def _stored(self, split: Split) -> Mapping[str, Any]:
        """Return the identity of the stored crops. Raises PipelineError where their crop policy is another."""
        identity: Mapping[str, Any] = stored_crops(split, self.crops)["identity"]
        stored, policy = CropPolicy.from_dict(identity.get("crop", {})), self.stream.policy
        if stored != policy:
            raise PipelineError(
                f"{split.name}: the stream {self.name!r} needs crops of the policy {policy.as_dict() or 'default'}; "
                f"those of {self.crops!r} have {stored.as_dict() or 'default'}. Compute it from the pictures (without "
                f"--crops), or extract crops of that policy: --kind {Crops.kind} --set crop=..."
            )
        return identity


def stored_crops(split: Split, name: str) -> Mapping[str, Any]:
    """Return the manifest of a stream of crops. Raises PipelineError where no such stream exists."""
    extract = f"Extract it first: --stream {name} --kind {Crops.kind}"
    if name not in split.streams:
        raise PipelineError(f"{split.name}: there is no stream of crops {name!r}. {extract}")
    manifest = split.stream_manifest(name)
    if manifest["dtype"] != BYTES or manifest.get("identity", {}).get("kind") != Crops.kind:
        raise PipelineError(f"{split.name}: the stream {name!r} holds no crops. {extract}")
    return manifest
