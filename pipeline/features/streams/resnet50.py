"""The feature stream that VIBE is trained on: a ResNet-50's global average pool.  crops -> [resnet50] -> features"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.features.streams.base import Machine, NumberStream, region_of
from pipeline.features.streams.loaded import Precision, check_precision, kept
from pipeline.features.weights import WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network

UNTRAINED: Final = WeightsSpec("untrained", "0")


@dataclass(frozen=True, kw_only=True)
class ResNet50(NumberStream):
    """2048 numbers a crop.

    `precision`: exact is plain fp32, equal to torch's own layers to 1e-5, and the same bits on one kind of device.
    fast is bf16 where the device has it: cosine at least 0.9999 with exact, before an untrained network is
    standardised.
    """

    weights: WeightsSpec = UNTRAINED
    precision: Precision = "fast"

    kind: ClassVar[str] = "resnet50"
    version: ClassVar[int] = 2
    dim: ClassVar[int] = 2048

    def __post_init__(self) -> None:
        check_precision(self.precision)

    def __str__(self) -> str:
        return f"{self.weights}, {self.precision}{self._crop_shown}"

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
        """The network on its device, loaded once for all the splits that a process extracts.

        Raises ConfigError for a device that does not exist, and what `networks.backbones.load` raises.
        """
        from pipeline.features import networks

        region, standardisation = region_of(self.crop), (recorded or {}).get("standardisation")
        # Another checkpoint of the same name is another network.
        content = json.dumps([self.weights.identity(), standardisation])

        def load() -> Network:
            return networks.load(self.weights, self.precision, machine, {"standardisation": standardisation}, region)

        return kept((self.weights, content, self.precision, machine, region), load)
