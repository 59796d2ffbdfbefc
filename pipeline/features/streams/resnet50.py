"""The feature stream of VIBE: a ResNet-50's global average pool.  crops -> [resnet50] -> features"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from cache import CropPolicy
from pipeline.features.streams.base import Machine, region_of
from pipeline.features.streams.network import NetworkStream, Precision
from pipeline.features.weights import WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network

UNTRAINED: Final = WeightsSpec("untrained", "0")


@dataclass(frozen=True, kw_only=True)
class ResNet50(NetworkStream):
    """2048 numbers per crop.

    `precision`: exact is plain fp32, equal to torch's layers to 1e-5, with the same bits on one kind of device. fast is
    bf16 if the device has it: cosine with exact at least 0.9999, before random weights are standardised.
    """

    weights: WeightsSpec = UNTRAINED  # Weights of the network; other weights need another stream
    precision: Precision = "fast"

    kind: ClassVar[str] = "resnet50"
    version: ClassVar[int] = 2
    dim: ClassVar[int] = 2048

    def __str__(self) -> str:
        return f"{self.weights}, {self.precision}{self._crop_shown}"

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    @property
    def same_network(self) -> Self:
        """Shared by all copies with jitter."""
        return replace(self, crop=CropPolicy(size=self.crop.size, region=self.crop.region))

    def running(self, machine: Machine, recorded: Mapping[str, Any]) -> Network:
        """Raises ConfigError for a missing device, and what `networks.backbones.load` raises."""
        from pipeline.features import networks

        return networks.load(self.weights, self.precision, machine, recorded, region_of(self.crop))
