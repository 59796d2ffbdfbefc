"""Streams of networks of torchvision.  crops -> [features]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.features.streams.network import LibraryStream

if TYPE_CHECKING:
    from pipeline.features.networks.backbones import HeadlessNetwork
    from pipeline.features.weights import WeightsSpec


@dataclass(frozen=True, kw_only=True)
class Torchvision(LibraryStream):
    """A classification network of torchvision, up to the input of its last linear layer."""

    kind: ClassVar[str] = "torchvision"
    package: ClassVar[str] = "torchvision"
    example: ClassVar[str] = "vit_b_16"

    def ask(self, pretrained: WeightsSpec | None) -> HeadlessNetwork:
        """Ask torchvision for the network (`backbones.from_torchvision`)."""
        from pipeline.features.networks.backbones import from_torchvision

        return from_torchvision(self.network, self.crop.shape, pretrained)
