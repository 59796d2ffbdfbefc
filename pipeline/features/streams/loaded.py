"""Networks that streams have loaded, each once for all the splits that a process extracts.  crops -> [features]"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.base import Loaded

Precision = Literal["exact", "fast"]
KEPT: Final = 3  # networks that stay in memory: as many as are usually extracted together

_NETWORKS: Final[dict[Hashable, Network]] = {}


def check_precision(precision: str) -> None:
    """Raise ConfigError for what is neither exact nor fast."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r}: expected exact or fast")


def kept(key: Hashable, load: Callable[[], Network]) -> Network:
    """What `load` gives; that of the same key is given again while it is one of the last few."""
    if key not in _NETWORKS and len(_NETWORKS) == KEPT:
        del _NETWORKS[next(iter(_NETWORKS))]  # the one that was asked for longest ago
    found = _NETWORKS.pop(key, None) or load()
    _NETWORKS[key] = found
    return found


def loaded(
    stream: NumberStream,
    precision: str,
    load: Callable[[], Loaded],
    machine: Machine,
    recorded: Mapping[str, Any] | None,
) -> Network:
    """The stream's network on its device. Another checkpoint of the same path is another network.

    Raises PipelineError where the rows that the stream has already were computed with other weights, and what
    `networks.run` raises.
    """
    from pipeline.features import networks

    def described() -> Loaded:
        crop = {**asdict(stream.crop), "region": stream.crop.region and list(stream.crop.region)}
        found = load()
        return replace(found, provenance={**found.provenance, "crop": crop})

    key = json.dumps(stream.identity()), machine
    network = kept(key, lambda: networks.run(described, precision, machine))
    before, now = (recorded or {}).get("sha256"), network.provenance["sha256"]
    if before not in (None, now):
        by = (recorded or {}).get("library")
        raise PipelineError(
            f"{network.provenance['network']}: the weights have sha256 {now[:12]}, but those that computed the "
            f"stream's rows have {before[:12]}, by {by}: another version of the library may have others under the "
            "same name. Name another stream, or --replace this one."
        )
    return network
