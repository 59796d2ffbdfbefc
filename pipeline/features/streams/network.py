"""Streams of networks, each loaded once for all splits that a process extracts; those named by libraries.  crops ->
[torchvision, timm, ...] -> features
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, get_args

from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream, region_of
from pipeline.features.weights import NetworkWeights

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.base import Loaded
    from pipeline.features.networks.named import Named

Precision = Literal["exact", "fast"]
MOST_NETWORKS: Final = 3  # that stay in memory: as many as are usually extracted together


class NetworkStream(NumberStream):
    """What a network gives for a crop, `precision` as in `resnet50`, but that fast is refused where it is far off."""

    precision: Precision  # exact: fp32; fast: bf16 where the device has it, cosine with exact at least 0.9999

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast")

    @property
    def same_network(self) -> Self:
        """The stream by which its network is known: equal of all streams that share it."""
        return self

    def loaded(self) -> Loaded:
        """The network in fp32, of a stream that has no `running` of its own."""
        raise NotImplementedError

    def running(self, machine: Machine, recorded: Mapping[str, Any]) -> Network:  # noqa: ARG002 - resnet50 reads it
        """The network on its device. `recorded`: the standardisation of the rows that the stream has, if any."""
        from pipeline.features import networks

        crop = {**asdict(self.crop), "region": self.crop.region and list(self.crop.region)}

        def described() -> Loaded:
            network = self.loaded()
            return replace(network, provenance={**network.provenance, "crop": crop})

        return networks.run(described, self.precision, machine)

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
        """The network on its device. Another checkpoint of the same path is another network.

        Raises PipelineError where the rows that the stream has already were computed with other weights, and what
        `running` raises.
        """
        before = recorded or {}
        content = json.dumps([self.same_network.identity(), before.get("standardisation")])
        network = _running(self.same_network, machine, content)
        now = network.provenance["sha256"]
        if before.get("sha256", now) != now:
            raise PipelineError(
                f"{network.provenance['network']}: the weights have sha256 {now[:12]}, but those that computed the "
                f"stream's rows have {before['sha256'][:12]}, by {before.get('library', 'torchvision')}: another "
                "version of the library may have others under the same name. Name another stream, or --replace this "
                "one."
            )
        return network


@functools.lru_cache(maxsize=MOST_NETWORKS)
def _running(stream: NetworkStream, machine: Machine, content: str) -> Network:
    return stream.running(machine, {"standardisation": json.loads(content)[1]})


@dataclass(frozen=True, kw_only=True)
class NamedNetwork(NetworkStream):
    """What a network gives to its classifier, `dim` numbers a crop.

    `network` is its name in the library. `dim` 0: the library is asked, which takes seconds; with the number, plans
    need neither the library nor torch, and it is checked when the network is loaded. `precision` is that of
    `resnet50`, but that fast is refused where a network in bf16 is too far from fp32.
    """

    network: str = ""  # a name of the library, for example vit_b_16 of torchvision
    weights: NetworkWeights = NetworkWeights("pretrained", "")  # of the network  # noqa: RUF009 - it is frozen
    precision: Precision = "exact"
    dim: int = 0  # type: ignore[misc]  # numbers per crop; 0: ask the library, which takes seconds at each start

    def __post_init__(self) -> None:
        if not self.network:
            raise ConfigError(f"{self.kind}: set network, the name of one of {self.kind}'s, as {self.example}")
        if not isinstance(self.weights, NetworkWeights):
            raise ConfigError(f"weights {self.weights}: expected {NetworkWeights.forms}")
        super().__post_init__()
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
