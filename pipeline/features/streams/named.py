"""Streams of networks by their names: torchvision's and timm's, pooled.  crops -> [torchvision, timm] -> features"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import ConfigError
from pipeline.features.streams.base import region_of
from pipeline.features.streams.network import NetworkStream, Precision, check_precision
from pipeline.features.weights import NetworkWeights

if TYPE_CHECKING:
    from pipeline.features.networks.base import Loaded
    from pipeline.features.networks.named import Named


@dataclass(frozen=True, kw_only=True)
class NamedNetwork(NetworkStream):
    """What a network gives to its classifier, `dim` numbers a crop.

    `network` is its name in the library. `dim` 0: the library is asked, which takes seconds; with the number, plans
    need neither the library nor torch, and it is checked when the network is loaded. `precision` is that of
    `resnet50`, but that fast is refused where a network in bf16 is too far from fp32.
    """

    network: str = ""
    weights: NetworkWeights = NetworkWeights("pretrained", "")  # noqa: RUF009 - it is frozen
    precision: Precision = "exact"
    dim: int = 0  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not self.network:
            raise ConfigError(f"{self.kind}: set network, the name of one of {self.kind}'s, as {self.example}")
        if not isinstance(self.weights, NetworkWeights):
            raise ConfigError(f"weights {self.weights}: expected {NetworkWeights.forms}")
        check_precision(self.precision)
        if self.dim < 0:
            raise ConfigError(f"dim {self.dim}: expected the numbers a crop that {self.network} gives, or 0")
        if self.dim == 0:
            object.__setattr__(self, "dim", self._named().dim())  # frozen

    example: ClassVar[str]

    def __str__(self) -> str:
        return f"{self.network}, {self.weights}, {self.precision}{self._crop_shown}"

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    def loaded(self) -> Loaded:
        """Raises ConfigError where `dim` is another number, and what `networks.named.Named.load` raises."""
        network = self._named().load(self.weights)
        if network.dim != self.dim:
            raise ConfigError(f"dim {self.dim}: {self.kind} {self.network} gives {network.dim} numbers a crop")
        return network

    def _named(self) -> Named:
        from pipeline.features.networks.named import Named

        return Named(self.kind, self.network, region_of(self.crop))


@dataclass(frozen=True, kw_only=True)
class Torchvision(NamedNetwork):
    """A classification network of torchvision, as vit_b_16, up to the input of its last linear layer."""

    kind: ClassVar[str] = "torchvision"
    example: ClassVar[str] = "vit_b_16"


@dataclass(frozen=True, kw_only=True)
class Timm(NamedNetwork):
    """A network of timm, as vit_small_patch14_dinov2, pooled as the network does."""

    kind: ClassVar[str] = "timm"
    example: ClassVar[str] = "vit_small_patch14_dinov2"
