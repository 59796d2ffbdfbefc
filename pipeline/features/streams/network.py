"""Streams of networks, which a process loads once for all splits.  crops -> [torchvision, timm,
...] -> features
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, get_args

from cache import CropPolicy
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream, Provenance
from pipeline.features.weights import NetworkWeights, WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.backbones import Named
    from pipeline.features.networks.base import Loaded

Precision = Literal["exact", "fast"]
MOST_NETWORKS: Final = 3  # that stay in memory
UNTRAINED: Final = WeightsSpec("untrained", "0")


class NetworkStream(NumberStream):
    """Features of a network. `precision` as in `resnet50`, but fast is refused if it is inexact."""

    # exact: fp32; fast: bf16 if the device has it, cosine with exact at least 0.9999
    precision: Precision

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast")

    @property
    def same_network(self) -> Self:
        """Key of the network; streams with equal keys share one instance."""
        return self

    def load_network(self) -> Loaded:
        """Load the network in fp32, for streams that do not override `running`."""
        raise NotImplementedError

    def running(self, machine: Machine, recorded: Provenance) -> Network:  # noqa: ARG002 - resnet50 reads it
        """The network on its device. recorded: the standardisation of existing rows, if any."""
        from pipeline.features import networks

        crop = {**asdict(self.crop), "region": self.crop.region and list(self.crop.region)}

        def load_with_crop() -> Loaded:
            network = self.load_network()
            return replace(
                network, provenance={**network.provenance, "crop": crop}, columns=self.columns
            )

        return networks.run(load_with_crop, self.precision, machine)

    def load(self, machine: Machine, recorded: Provenance | None) -> Network:
        """Load the network on its device; a changed checkpoint is another network.

        Raises PipelineError if existing rows were computed with other weights, and what `running`
        raises.
        """
        before = recorded or {}
        content = json.dumps([self.same_network.identity(), before.get("standardisation")])
        network = loaded_network(self.same_network, machine, content)
        now = network.provenance["sha256"]
        if before.get("sha256", now) != now:
            raise PipelineError(
                f"{network.provenance['network']}: the stream was computed with different "
                f"weights (sha256 {before['sha256'][:12]} of "
                f"{before.get('library', 'torchvision')}, now {now[:12]}). Use another stream "
                "name (--stream NAME), or recompute it with --replace."
            )
        return network


@functools.lru_cache(maxsize=MOST_NETWORKS)
def loaded_network(stream: NetworkStream, machine: Machine, content: str) -> Network:
    """A stream's network, loaded once in this process. content: what it is loaded from, as JSON."""
    return stream.running(machine, {"standardisation": json.loads(content)[1]})


@dataclass(frozen=True, kw_only=True)
class ResNet50(NetworkStream):
    """2048 numbers per crop.

    `precision`: exact is plain fp32, equal to torch's layers to 1e-5, with the same bits on one
    kind of device. fast is bf16 if the device has it: cosine with exact at least 0.9999, before
    random weights are standardised.
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

    def running(self, machine: Machine, recorded: Provenance) -> Network:
        """Raises ConfigError for a missing device, and what `networks.backbones.load` raises."""
        from pipeline.features import networks

        return networks.load(self.weights, self.precision, machine, recorded, self.crop.shape)


@dataclass(frozen=True, kw_only=True)
class _LibraryNetwork(NetworkStream):
    """Input of a network's classifier, `dim` numbers per crop.

    With `dim`, plans need neither the library nor torch; it is checked when the network is loaded.
    """

    network: str = ""  # Name in the library, for example vit_b_16 of torchvision
    # Weights of the network
    weights: NetworkWeights = NetworkWeights("pretrained", "")  # noqa: RUF009 - it is frozen
    precision: Precision = "exact"
    dim: int = 0  # type: ignore[misc]  # Numbers per crop; 0: ask the library, which takes seconds at each start

    def __post_init__(self) -> None:
        if not self.network:
            raise ConfigError(
                f"{self.kind}: set network to a name of {self.kind} such as {self.example}"
            )
        if not isinstance(self.weights, NetworkWeights):
            raise ConfigError(f"weights {self.weights}: expected {NetworkWeights.forms}")
        super().__post_init__()
        if self.dim < 0:
            raise ConfigError(
                f"dim {self.dim}: expected the numbers per crop of {self.network}, or 0"
            )
        if self.dim == 0:
            object.__setattr__(self, "dim", self._library_network().dim())  # frozen

    example: ClassVar[str]

    def __str__(self) -> str:
        return f"{self.network}, {self.weights}, {self.precision}{self._crop_shown}"

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    def load_network(self) -> Loaded:
        """Raises ConfigError if `dim` is wrong, and what `networks.backbones.Named.load` raises."""
        network = self._library_network().load(self.weights)
        if network.dim != self.dim:
            raise ConfigError(
                f"dim {self.dim}: {self.kind} {self.network} gives {network.dim} numbers per crop"
            )
        return network

    def _library_network(self) -> Named:
        from pipeline.features.networks.backbones import Named

        return Named(self.kind, self.network, self.crop.shape)


@dataclass(frozen=True, kw_only=True)
class Torchvision(_LibraryNetwork):
    """A classification network of torchvision, up to the input of its last linear layer."""

    kind: ClassVar[str] = "torchvision"
    example: ClassVar[str] = "vit_b_16"


@dataclass(frozen=True, kw_only=True)
class Timm(_LibraryNetwork):
    """A network of timm, with its own pooling."""

    kind: ClassVar[str] = "timm"
    example: ClassVar[str] = "vit_small_patch14_dinov2"
