"""torchvision's ResNet-18, up to its global average pool.  crops -> [resnet18] -> features

This module imports no torch, because plans are made without it; the network is in `resnet18_network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.api import ConfigError, Machine, NumberStream

if TYPE_CHECKING:
    from resnet18_network import Network

WEIGHTS: Final = ("IMAGENET1K_V1", "untrained")


@dataclass(frozen=True, kw_only=True)
class ResNet18(NumberStream):
    """512 numbers per crop. `weights`: a name of torchvision's, or untrained: random ones, for trial runs."""

    weights: str = "IMAGENET1K_V1"

    kind: ClassVar[str] = "resnet18"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 512

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights {self.weights!r}: expected one of {', '.join(WEIGHTS)}")

    @property
    def stand_in(self) -> bool:
        return self.weights == "untrained"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:  # noqa: ARG002
        from resnet18_network import Network

        return Network(self.weights, machine)
