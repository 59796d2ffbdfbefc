"""Networks that streams have loaded, each once for all the splits that a process extracts.  crops -> [features]"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Machine, NumberStream

if TYPE_CHECKING:
    from pipeline.features.networks import Network
    from pipeline.features.networks.backbones import Loaded

Precision = Literal["exact", "fast"]
KEPT: Final = 2  # networks that stay in memory: as many as may be extracted together


def check_precision(precision: str) -> None:
    """Raise ConfigError for what is neither exact nor fast."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r}: expected exact or fast")


def loaded(
    stream: NumberStream,
    precision: str,
    load: Callable[[], Loaded],
    machine: Machine,
    recorded: Mapping[str, Any] | None,
) -> Network:
    """The stream's network on its device.

    Raises PipelineError where the rows that the stream has already were computed with other weights, and what
    `networks.run` raises.
    """
    crop = {**asdict(stream.crop), "region": stream.crop.region and list(stream.crop.region)}
    network = _run(_Load(load, crop, json.dumps(stream.identity())), precision, machine)
    before, now = (recorded or {}).get("sha256"), network.provenance["sha256"]
    if before not in (None, now):
        by = (recorded or {}).get("library")
        raise PipelineError(
            f"{network.provenance['network']}: the weights have sha256 {now[:12]}, but those that computed the "
            f"stream's rows have {before[:12]}, by {by}: another version of the library may have others under the "
            "same name. Name another stream, or --replace this one."
        )
    return network


@dataclass(frozen=True, eq=False)
class _Load:
    """Compared by the stream's identity: another checkpoint of the same path is another network."""

    load: Callable[[], Loaded]
    crop: Mapping[str, Any]
    identity: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Load) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __call__(self) -> Loaded:
        found = self.load()
        return replace(found, provenance={**found.provenance, "crop": self.crop})


@functools.lru_cache(maxsize=KEPT)
def _run(load: _Load, precision: str, machine: Machine) -> Network:
    from pipeline.features import networks

    return networks.run(load, precision, machine)
