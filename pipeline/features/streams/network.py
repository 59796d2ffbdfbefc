"""Streams of networks, each loaded once for all the splits that a process extracts.  crops -> [features]"""

from __future__ import annotations

import functools
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.base import Loaded

Precision = Literal["exact", "fast"]
MOST_NETWORKS: Final = 3  # that stay in memory: as many as are usually extracted together


def check_precision(precision: str) -> None:
    """Raise ConfigError for what is neither exact nor fast."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r}: expected exact or fast")


class NetworkStream(NumberStream):
    """What a network gives for a crop, `precision` as in `resnet50`, but that fast is refused where it is far off."""

    precision: Precision

    @abstractmethod
    def loaded(self) -> Loaded:
        """The network in fp32."""

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:
        """The network on its device. Another checkpoint of the same path is another network.

        Raises PipelineError where the rows that the stream has already were computed with other weights, and what
        `loaded` and `networks.run` raise.
        """
        network = _running(self, machine, json.dumps(self.identity()))
        before, now = (recorded or {}).get("sha256"), network.provenance["sha256"]
        if before not in (None, now):
            library = (recorded or {}).get("library")
            raise PipelineError(
                f"{network.provenance['network']}: the weights have sha256 {now[:12]}, but those that computed the "
                f"stream's rows have {before[:12]}, by {library}: another version of the library may have others under "
                "the same name. Name another stream, or --replace this one."
            )
        return network


@functools.lru_cache(maxsize=MOST_NETWORKS)
def _running(stream: NetworkStream, machine: Machine, content: str) -> Network:  # noqa: ARG001 - part of the key
    from pipeline.features import networks

    crop = {**asdict(stream.crop), "region": stream.crop.region and list(stream.crop.region)}

    def described() -> Loaded:
        network = stream.loaded()
        return replace(network, provenance={**network.provenance, "crop": crop})

    return networks.run(described, stream.precision, machine)
