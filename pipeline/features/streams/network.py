"""Streams whose numbers are a network's features.  crops -> [torchvision, timm, ...] -> features

A process loads a network once, for all splits and all streams that share it. A new kind of stream
derives from `NetworkStream`, and defines `load_network`.
"""

from __future__ import annotations

import functools
import json
from abc import abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Self, get_args

from cache import CropPolicy
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import (
    Machine,
    NumberStream,
    Precision,
    Provenance,
    Standardisation,
)
from pipeline.features.weights import NetworkWeights, WeightsSpec

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.backbones import HeadlessNetwork, LibraryNetwork
    from pipeline.features.networks.base import Loaded

# `Stream.uses` of networks, also of those that other modules load
NETWORKS: Final[dict[str, int]] = {"networks": 1}
MOST_NETWORKS: Final = 3  # number of networks that stay in memory
UNTRAINED: Final = WeightsSpec("untrained", "0")


class _NetworkSource(NamedTuple):
    """All that a network is loaded from."""

    stream: _SharedNetworkStream  # its `network_key`
    identity: str  # of this stream, as JSON: with the SHA-256 of its file, which may be replaced
    machine: Machine
    standardisation: Standardisation | None  # of existing rows


@functools.lru_cache(maxsize=MOST_NETWORKS)
def _loaded_network(source: _NetworkSource) -> Network:
    """The network of a source. Equal sources give the same network, while it is one of the last
    MOST_NETWORKS that were asked for.
    """
    return source.stream.load_on_device(source)


class _SharedNetworkStream(NumberStream):
    """A stream whose network is shared with other streams and splits."""

    uses: ClassVar[dict[str, int]] = NumberStream.uses | NETWORKS

    # exact: fp32; fast: bf16 if the device has it, cosine with exact at least 0.9999
    precision: Precision

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast", "precision")

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
        standardisation = None
        statistics = recorded.get("standardisation")
        if statistics:
            standardisation = Standardisation(tuple(statistics["mean"]), tuple(statistics["std"]))
        source = _NetworkSource(key, json.dumps(key.identity()), machine, standardisation)
        network = _loaded_network(source)
        digest = network.provenance["sha256"]
        if recorded.get("sha256", digest) != digest:
            raise PipelineError(
                f"{network.provenance['network']}: the stream was computed with different "
                f"weights (sha256 {recorded['sha256'][:12]} of "
                f"{recorded.get('library', 'torchvision')}, now {digest[:12]}). Use another stream "
                "name (--stream NAME), or recompute it with --replace."
            )
        return network

    @abstractmethod
    def load_on_device(self, source: _NetworkSource) -> Network:
        """Load the network on its device. `source.stream` is this stream."""


class NetworkStream(_SharedNetworkStream):
    """The base of streams of features of a network. Precision "fast" means bf16, as in `resnet50`,
    but it is refused if its features are inexact: their cosine with exact ones is below 0.9999.
    """

    @abstractmethod
    def load_network(self) -> Loaded:
        """Load the network in fp32."""

    def load_on_device(self, source: _NetworkSource) -> Network:
        """Load the network on its device, with the stream's columns, and its crop in the
        provenance. Raises what `networks.network_on_device` raises.
        """
        from pipeline.features import networks

        crop = asdict(self.crop)
        if self.crop.region:
            crop["region"] = list(self.crop.region)  # as JSON has it

        def load() -> Loaded:
            network = self.load_network()
            provenance = {**network.provenance, "crop": crop}
            return replace(network, provenance=provenance, columns=self.columns)

        return networks.network_on_device(load, self.precision, source.machine)


@dataclass(frozen=True, kw_only=True)
class ResNet50(_SharedNetworkStream):
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

    def load_on_device(self, source: _NetworkSource) -> Network:
        """Load the network on its device. Raises ConfigError for a missing device, and what
        `networks.backbones.load` raises.
        """
        from pipeline.features import networks

        return networks.resnet50_on_device(
            self.weights,
            self.precision,
            source.machine,
            source.standardisation,
            self.crop.shape,
        )


@dataclass(frozen=True, kw_only=True)
class LibraryStream(NetworkStream):
    """The base of streams of a library's networks. The features are the input of the network's
    classifier, `dim` numbers per crop. A library is a class with `ask`, in a file
    here, and a line of `pipeline.table`.

    `dim` is an option here, not a class variable as in most streams. 0 is replaced by the library's
    number, so the identity always records the number itself. If it is set, plans need neither the
    library nor torch; the number is checked when the network is loaded.
    """

    package: ClassVar[str]  # whose version is recorded
    example: ClassVar[str]  # name of a network, for messages

    network: str = ""  # Name in the library, for example vit_b_16 of torchvision
    # Weights of the network
    weights: NetworkWeights = NetworkWeights("pretrained", "")  # noqa: RUF009 - it is frozen
    precision: Precision = "exact"
    dim: int = 0  # type: ignore[misc]  # Numbers per crop, at least 1; 0: ask the library, which takes seconds at each start

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.network:
            raise ConfigError(
                f"{self.kind}: set network to a name of {self.kind} such as {self.example}",
                "network",
            )
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
        network = self._library_network()
        dim = network.dim()
        if dim != self.dim:
            raise ConfigError(
                f"dim {self.dim}: {self.kind} {self.network} gives {dim} numbers per crop"
            )
        return network.load(self.weights)

    def _library_network(self) -> LibraryNetwork:
        from pipeline.features.networks.backbones import LibraryNetwork

        label = f"{self.kind} {self.network}"
        return LibraryNetwork(label, self.package, self.crop.shape, self.ask)

    @abstractmethod
    def ask(self, pretrained: WeightsSpec | None) -> HeadlessNetwork:
        """Ask the library for the network without its classifier; import the library here.

        pretrained: weights to download; None: random ones, which a checkpoint's may replace. Raises
        ConfigError for an unknown name, MissingAssets for a missing download; other errors of the
        library become ConfigErrors.
        """
