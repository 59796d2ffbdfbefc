"""A stream by its name, what it is, and how it is computed here.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache import CropPolicy, Split
from pipeline.cli.options import cores
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import BYTES, Machine, Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50


@dataclass(frozen=True, slots=True)
class Resources:
    """What an extraction may take of this machine."""

    machine: Machine = field(default_factory=Machine)
    workers: int = 0  # decoding processes; 0: one a core
    timeout: float = 60.0  # s without progress after which one is ended
    devices: tuple[str, ...] = ()  # a process for each, in the place of the machine's device; see `device_names`

    def on(self, device: str) -> Resources:
        """What the process of one of `devices` may take: its share of the cores. All of it for ""."""
        if not device:
            return self
        n = len(self.devices)
        threads = self.machine.threads or (max(1, cores(0) // n) if device == "cpu" else 0)
        workers = max(1, cores(self.workers) // n)
        return Resources(replace(self.machine, device=device, threads=threads), workers, self.timeout)


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream by its name, what it is, and how it is computed here."""

    name: str = ResNet50.kind
    stream: Stream = field(default_factory=ResNet50)
    crops: str = ""  # compute from this stream of crops in the cache, instead of the raw pictures
    resources: Resources = field(default_factory=Resources)
    raw: Path | None = None  # where the raw folder is now; None: where it was at conversion

    def __post_init__(self) -> None:
        if self.crops and not self.stream.reads.crops:
            raise ConfigError(f"stream {self.name!r} is computed from labels, not from crops: leave out --crops")
        if self.crops == self.name:
            raise ConfigError(f"stream {self.name!r} cannot be computed from itself: give it another name")

    def __str__(self) -> str:
        return f"{self.stream}, from the stream {self.crops!r}" if self.crops else str(self.stream)

    def at(self, raw: Path) -> StreamSpec:
        """The same stream, with the raw folder where it is now."""
        return replace(self, raw=raw)

    def identity(self, split: Split | None = None) -> dict[str, Any]:
        """The stream's fingerprint beside its rows' own keys (pixels, frame, box, crop scale).

        `split`: where stored crops are, which are part of it. Raises PipelineError where there are none.
        """
        found = self.stream.identity()
        if self.crops:
            found["crops"] = {} if split is None else self._stored(split)
        return found

    def _stored(self, split: Split) -> Mapping[str, Any]:
        """The identity of the stored crops. Raises PipelineError where they are of another crop policy."""
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
    """The manifest of a stream of crops. Raises PipelineError where there is none of that name."""
    extract = f"Extract it first: --stream {name} --kind {Crops.kind}"
    if name not in split.streams:
        raise PipelineError(f"{split.name}: there is no stream of crops {name!r}. {extract}")
    found = split.stream_manifest(name)
    if found["dtype"] != BYTES or found.get("identity", {}).get("kind") != Crops.kind:
        raise PipelineError(f"{split.name}: the stream {name!r} holds no crops. {extract}")
    return found
