"""Streams whose numbers are a network's features.  crops -> [torchvision, timm, ...] -> features

A process loads a network once, for all splits and all streams that share it. The functions call
one after the other:

    NetworkStream.load             called by an extraction for each stream; refuses other weights
                                   than those of existing rows
    loaded_network                 the networks of this process; calls the next one for a new one
    NetworkStream.load_on_device   puts the network on CPU or GPU
    NetworkStream.load_network     loads it in fp32; most kinds of streams define only this
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, get_args

from cache import CropPolicy
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream, Provenance
from pipeline.features.weights import NetworkWeights, WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.backbones import LibraryNetwork
    from pipeline.features.networks.base import Loaded

Precision = Literal["exact", "fast"]
MOST_NETWORKS: Final = 3  # number of networks that stay in memory
UNTRAINED: Final = WeightsSpec("untrained", "0")


class NetworkStream(NumberStream):
    """The base of streams of features of a network. Precision "fast" means bf16, as in `resnet50`,
    but it is refused if its features are inexact.
    """

    # exact: fp32; fast: bf16 if the device has it, cosine with exact at least 0.9999
    precision: Precision

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast")

    @property
    def network_key(self) -> Self:
        """Key of the network; streams with equal keys share one instance."""
        return self

    def load(self, machine: Machine, recorded: Provenance | None) -> Network:
        """Return the network on its device. It is loaded only once, unless its checkpoint has
        changed.

        Raises PipelineError if existing rows (`recorded`) were computed with other weights, and
        what `load_on_device` raises.
        """
        before = recorded or {}
        key = self.network_key
        content = json.dumps([key.identity(), before.get("standardisation")])
        network = loaded_network(key, machine, _Origin(content, before))
        now = network.provenance["sha256"]
        if before.get("sha256", now) != now:
            raise PipelineError(
                f"{network.provenance['network']}: the stream was computed with different "
                f"weights (sha256 {before['sha256'][:12]} of "
                f"{before.get('library', 'torchvision')}, now {now[:12]}). Use another stream "
                "name (--stream NAME), or recompute it with --replace."
            )
        return network

    def load_on_device(self, machine: Machine, recorded: Provenance) -> Network:  # noqa: ARG002 - resnet50 reads it
        """Load the network on its device. `recorded`: provenance of existing rows, or {}."""
        from pipeline.features import networks

        crop = asdict(self.crop)
        if self.crop.region:
            crop["region"] = list(self.crop.region)

        def load_with_crop() -> Loaded:
            network = self.load_network()
            provenance = {**network.provenance, "crop": crop}
            return replace(network, provenance=provenance, columns=self.columns)

        return networks.run(load_with_crop, self.precision, machine)

    def load_network(self) -> Loaded:
        """Load the network in fp32. Define this, or override `load_on_device`."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Origin:
    """What a network is loaded from, besides its stream's options; equal if the content is."""

    # the stream's identity, which has the checkpoint's digest, and the standardisation, as JSON
    content: str
    recorded: Provenance = field(compare=False)  # provenance of existing rows, or {}


@functools.lru_cache(maxsize=MOST_NETWORKS)
def loaded_network(stream: NetworkStream, machine: Machine, origin: _Origin) -> Network:
    """A stream's network, which this process loads once for equal arguments."""
    return stream.load_on_device(machine, origin.recorded)


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
    def network_key(self) -> Self:
        """The stream with a crop that has neither jitter nor scale: streams that differ only in
        these share the network.
        """
        return replace(self, crop=CropPolicy(size=self.crop.size, region=self.crop.region))

    def load_on_device(self, machine: Machine, recorded: Provenance) -> Network:
        """Load the network on its device. Raises ConfigError for a missing device, and what
        `networks.backbones.load` raises.
        """
        from pipeline.features import networks

        return networks.load(self.weights, self.precision, machine, recorded, self.crop.shape)


@dataclass(frozen=True, kw_only=True)
class _LibraryStream(NetworkStream):
    """The base of streams of a library's networks. The features are the input of the network's
    classifier, `dim` numbers per crop.

    `dim` is an option here, which the identity records. If it is set, plans need neither the
    library nor torch; the number is checked when the network is loaded.
    """

    example: ClassVar[str]  # name of a network, for messages

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
            dim = self._library_network().dim()
            object.__setattr__(self, "dim", dim)  # the dataclass is frozen

    def __str__(self) -> str:
        return f"{self.network}, {self.weights}, {self.precision}{self._crop_shown}"

    @property
    def stand_in(self) -> bool:
        return self.weights.stand_in

    def load_network(self) -> Loaded:
        """Load the network in fp32. Raises ConfigError if `dim` is wrong, and what
        `networks.backbones.LibraryNetwork.load` raises.
        """
        network = self._library_network().load(self.weights)
        if network.dim != self.dim:
            raise ConfigError(
                f"dim {self.dim}: {self.kind} {self.network} gives {network.dim} numbers per crop"
            )
        return network

    def _library_network(self) -> LibraryNetwork:
        from pipeline.features.networks.backbones import LibraryNetwork

        return LibraryNetwork(self.kind, self.network, self.crop.shape)


@dataclass(frozen=True, kw_only=True)
class Torchvision(_LibraryStream):
    """A classification network of torchvision, up to the input of its last linear layer."""

    kind: ClassVar[str] = "torchvision"
    example: ClassVar[str] = "vit_b_16"


@dataclass(frozen=True, kw_only=True)
class Timm(_LibraryStream):
    """A network of timm, with its own pooling."""

    kind: ClassVar[str] = "timm"
    example: ClassVar[str] = "vit_small_patch14_dinov2"
