"""A stream to extract, and the resources for it.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as validated

from cache import Split
from pipeline.errors import ConfigError
from pipeline.features import streams
from pipeline.features.streams.base import MOST_CROPS, Machine, Stream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import FILES, FORMS, WeightsSpec
from pipeline.files.raw import is_stand_in
from pipeline.processes import DeviceName, DeviceNames, cores, device_names


@validated(frozen=True, config={"extra": "forbid", "defer_build": True})
class Resources:
    """Resources of an extraction on this machine: keys of [features], whose class inherits from
    this one.
    """

    device: DeviceName = "auto"
    devices: DeviceNames = None  # Replaces device
    batch_size: Annotated[
        int, Field(ge=0, le=MOST_CROPS, description="Crops in a batch; 0: chosen by device")
    ] = 0
    compile: Annotated[bool, Field(description="Use torch.compile (CUDA only)")] = False
    workers: Annotated[
        NonNegativeInt, Field(description="Number of decoding processes; 0: one per core")
    ] = 0
    timeout: Annotated[
        PositiveFloat, Field(description="Seconds without progress until a decoder is ended")
    ] = 60

    @property
    def processes(self) -> tuple[str, ...]:
        """Devices with a process each; (): the calling process computes. Raises ConfigError."""
        return device_names(self.devices or "", self.device)

    def machine(self, process: str = "") -> Machine:
        """The device and its options. process: a process's device, which has a share of the
        cores.
        """
        threads = 0
        if process == "cpu":
            threads = max(1, cores(0) // len(self.processes))
        return Machine(process or self.device, self.batch_size, threads, self.compile)

    def decoders(self, process: str = "") -> int:
        """Number of decoding processes. process: as for `machine`."""
        n = cores(self.workers)
        if process:
            n = max(1, n // len(self.processes))
        return n


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream's name, its definition, and where its raw files are."""

    name: str = ResNet50.kind
    stream: Stream = field(default_factory=ResNet50)
    raw: Path | None = None  # the raw folder now; None: as recorded

    @classmethod
    def from_manifest(
        cls,
        committed: Split,
        stream: str,
        *,
        raw: Path | None = None,
        weights: WeightsSpec | None = None,
    ) -> StreamSpec | None:
        """A stream as recorded in its manifest; None if its weights are missing.

        The manifest has only the digest of a weights file: `weights`, else the file in
        provenance.json, is tried.
        """
        own = dict(committed.stream_manifest(stream).get("identity", {}))
        # crops: stored ones, of an earlier version
        if "crops" in own or own.get("kind") not in streams.names():
            return None
        found = streams.of_identity(own)
        weights = weights or _weights_file(committed, stream)
        if found is None and weights is not None and "weights" in own:
            found = streams.of_identity({**own, "weights": asdict(weights)})
        if found is None:
            return None
        return cls(stream, found, raw=raw)

    def missing_columns(self, committed: Split) -> str:
        """Message that a split with boxes does not have a column of the stream; "" if it has all,
        or no boxes.
        """
        missing = sorted(set(self.stream.needs) - committed.known_columns)
        if not missing or "bbox" not in committed.columns:
            return ""
        return (
            f"{committed.name}: stream {self.name!r} reads {', '.join(missing)}, which this "
            "split does not have for every track. Use another stream or other splits."
        )

    def refuse_untrained(self, raw: Path, setting: str) -> None:
        """Raise ConfigError for random weights on real data. setting: the line that names the
        weights.
        """
        if self.stream.stand_in and not is_stand_in(raw):
            weights = getattr(self.stream, "weights", self.stream)
            raise ConfigError(
                f"{setting} = {weights}: random weights are for demo data, and {raw} is real "
                f"data. Name trained weights: {getattr(weights, 'forms', FORMS)}."
            )


def _weights_file(committed: Split, stream: str) -> WeightsSpec | None:
    """The weights file of a stream; None if it is not recorded, or has changed."""
    recorded = committed.stream_provenance(stream).get("weights_file")
    own = committed.stream_manifest(stream).get("identity", {}).get("weights")
    if not isinstance(recorded, str) or not isinstance(own, Mapping):
        return None
    if not Path(recorded).is_file():
        return None
    weights = WeightsSpec(str(own.get("kind")), recorded)
    is_same = weights.kind in FILES and weights.identity() == own
    return weights if is_same else None
