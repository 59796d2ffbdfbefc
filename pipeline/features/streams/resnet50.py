"""The feature stream that VIBE is trained on: a ResNet-50's global average pool.  crops -> [resnet50] -> features"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.features.streams.base import Machine, NumberStream, region_of
from pipeline.features.streams.network import MOST_NETWORKS, Precision, check_precision
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
        # Another checkpoint of the same name is another network.
        content = json.dumps([self.weights.identity(), (recorded or {}).get("standardisation")])
        return _running(self.weights, self.precision, machine, region_of(self.crop), content)


@functools.lru_cache(maxsize=MOST_NETWORKS)
def _running(
    weights: WeightsSpec, precision: Precision, machine: Machine, region: tuple[int, int], content: str
) -> Network:
    from pipeline.features import networks

    return networks.load(weights, precision, machine, {"standardisation": json.loads(content)[1]}, region)
