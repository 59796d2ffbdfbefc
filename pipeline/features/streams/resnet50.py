"""The feature stream that VIBE is trained on: a ResNet-50's global average pool.  crops -> [resnet50] -> features"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, get_args

from cache import CropPolicy
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Machine, NumberStream, crop_identity, region_of
from pipeline.features.weights import WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network

Precision = Literal["exact", "fast"]

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
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast")

    def __str__(self) -> str:
        return f"{self.weights}, {self.precision}" + (f", crop {self.crop}" if self.crop.as_dict() else "")

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    def identity(self) -> dict[str, Any]:
        weights = self.weights.identity()
        options = {"weights": weights, "precision": self.precision, **crop_identity(self.crop)}
        return {"kind": self.kind, "version": self.version, **options}

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        weights = identity["weights"]
        if "argument" not in weights:
            return None  # only the digest of a checkpoint's file is known
        crop = CropPolicy.from_dict(identity.get("crop", {}))
        spec = WeightsSpec(weights["kind"], weights["argument"])
        return cls(weights=spec, precision=identity["precision"], crop=crop)

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
        """The network on its device, loaded once for all the splits that a process extracts.

        Raises ConfigError for a device that does not exist, and what `networks.backbones.load` raises.
        """
        standardisation = json.dumps((recorded or {}).get("standardisation"))
        content = json.dumps(self.weights.identity())
        return _load(self.weights, content, self.precision, machine, standardisation, region_of(self.crop))


@functools.lru_cache(maxsize=1)
def _load(
    weights: WeightsSpec,
    content: str,  # noqa: ARG001 - another checkpoint of the same name is another network
    precision: str,
    machine: Machine,
    standardisation: str,
    region: tuple[int, int],
) -> Network:
    from pipeline.features import networks

    return networks.load(weights, precision, machine, {"standardisation": json.loads(standardisation)}, region)
