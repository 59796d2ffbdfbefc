"""Streams whose numbers are a network's features.  crops -> [torchvision, timm, ...] -> features

A process loads a network once, for all splits and all streams that share it. These functions call
each other, from the first to the last:

    NetworkStream.load             Called by an extraction for each stream. Refuses other weights
                                   than those of existing rows.
    loaded_network                 A cache of the last MOST_NETWORKS networks of this process.
    NetworkStream.load_on_device   Called for a network that is not in the cache. Loads it on its
                                   device. ResNet50 overrides it.
    NetworkStream.load_network     Loads it in fp32. Other kinds of streams define only this.
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
        """Return the network on its device, from this process's cache if it is there.

        Raises PipelineError if existing rows (`recorded`) were computed with other weights, and
        what `load_on_device` raises.
        """
        recorded = recorded or {}
        key = self.network_key
        content = json.dumps([key.identity(), recorded.get("standardisation")])
        network = loaded_network(key, machine, _Source(content, recorded))
        digest = network.provenance["sha256"]
        if recorded.get("sha256", digest) != digest:
            raise PipelineError(
                f"{network.provenance['network']}: the stream was computed with different "
                f"weights (sha256 {recorded['sha256'][:12]} of "
                f"{recorded.get('library', 'torchvision')}, now {digest[:12]}). Use another stream "
                "name (--stream NAME), or recompute it with --replace."
            )
        return network

    def load_on_device(self, machine: Machine, recorded: Provenance) -> Network:  # noqa: ARG002 - resnet50 reads it
        """Load the network on its device. `recorded`: provenance of existing rows, or {}."""
        from pipeline.features import networks

        return networks.run(self._load_with_crop, self.precision, machine)

    def _load_with_crop(self) -> Loaded:
        """Load the network in fp32, with the stream's columns, and its crop in the provenance."""
        crop = asdict(self.crop)
        if self.crop.region:
            crop["region"] = list(self.crop.region)  # as JSON has it
        network = self.load_network()
        provenance = {**network.provenance, "crop": crop}
        return replace(network, provenance=provenance, columns=self.columns)

    def load_network(self) -> Loaded:
        """Load the network in fp32. Define this, or override `load_on_device`."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Source:
    """What a network is loaded from, besides the options of its stream.

    It is part of the cache's key in `loaded_network`, by its `content` alone. So a network is
    loaded again if its checkpoint was replaced by another file of the same name, or if existing
    rows have another standardisation, but not for another split.
    """

    # JSON of [the stream's identity, which has the checkpoint's SHA-256; the standardisation]
    content: str
    # Provenance of existing rows, or {}. It is only passed to `load_on_device`: a dict has no hash,
    # and most of it (device, licence, ...) does not change the network.
    recorded: Provenance = field(compare=False)


@functools.lru_cache(maxsize=MOST_NETWORKS)
def loaded_network(stream: NetworkStream, machine: Machine, source: _Source) -> Network:
    """A stream's network on its device. Equal arguments give the same network, while it is one of
    the last MOST_NETWORKS that were asked for.
    """
    return stream.load_on_device(machine, source.recorded)


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

    `dim` is an option here, not a class variable as in most streams. 0 is replaced by the library's
    number, so the identity always records the number itself. If it is set, plans need neither the
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
        super().__post_init__()
        if self.dim == 0:
            dim = self._library_network().dim()
            object.__setattr__(self, "dim", dim)  # the dataclass is frozen

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
        from pipeline.features.networks.backbones import NETWORKS

        return NETWORKS[self.kind](self.network, self.crop.shape)


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
