"""Checks of the feature streams that a run reads.  features -> [training]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import DataError
from vibe_model.settings import VideoConfig

if TYPE_CHECKING:
    from cache import Split


class _StreamNetwork(NamedTuple):
    """A split's stream, and the identity of its network."""

    name: str  # 3dpw/train/resnet50
    identity: dict[str, Any]


def check_streams(config: VideoConfig, splits: Mapping[str, Split]) -> bool:
    """Check the streams that the run reads.

    Returns whether any of them comes from demo data or from a network with random weights.

    Raises DataError for features of a wrong size, and if streams that the same argument of the
    model reads come from different networks, according to the streams' `identity`. The argument
    "features" reads the streams of all splits and, if they are jittered, several of one split.
    """
    arguments = {reading.stream: name for name, reading in config.extra_streams.items()}
    first_networks: dict[str, _StreamNetwork] = {}  # argument -> that of its first stream
    stand_in = False
    for split, streams in config.streams.items():
        for stream in streams:
            opened = splits[split].open_stream(stream)
            stand_in |= bool(opened.manifest.get("stand_in", False))
            argument = arguments.get(stream, "features")
            size = config.feature_size
            do = f"Name another one, or set dim in [{stream}]."
            if stream in arguments:
                size = config.extra_streams[argument].size
                do = "Extract it with other options."
            if opened.form.dim != size:
                raise DataError(
                    f"{split}: stream {stream}: expected features of {size} numbers, found "
                    f"{opened.form.dim}. {do}"
                )
            if opened.manifest.get("identity") is not None:
                identity = _network_of(splits[split], stream)
                network = _StreamNetwork(f"{split}/{stream}", identity)
                _require_equal(first_networks.setdefault(argument, network), network)
    return stand_in


def _network_of(split: Split, stream: str) -> dict[str, Any]:
    """Identity of a stream's network, without the entries that may differ between splits."""
    opened = split.open_stream(stream)
    identity = dict(opened.manifest["identity"])
    # jittered copies may differ in their crops, imported streams in the file that each comes from
    identity["crop"] = replace(opened.crop, jitter=None)
    if identity.get("kind") == "imported":
        identity.pop("file_sha256", None)
    return identity


def _require_equal(first: _StreamNetwork, second: _StreamNetwork) -> None:
    """Raise DataError if two networks differ."""
    differences = []
    for key in sorted(first.identity.keys() | second.identity.keys()):
        one = first.identity.get(key)
        other = second.identity.get(key)
        if one != other:
            differences.append(f"{key} {one} and {other}")
    if differences:
        raise DataError(
            f"expected features of one network, found different ones in {first.name} "
            f"and {second.name}: {'; '.join(differences)}. Extract one of them again with the "
            "other's settings (--replace), or name another stream."
        )
