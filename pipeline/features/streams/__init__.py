"""The registry of feature streams.  crops -> [streams] -> features

A package adds a stream by an entry point of the group "vibe_pipeline.streams", which has the
stream's kind as its name and the class as its value. A class is imported when it is used, and torch
only when the stream computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.features.streams.base import Stream
from pipeline.plug_ins import ClassRegistry

ENTRY_POINTS: Final = "vibe_pipeline.streams"

_REGISTRY: Final[ClassRegistry[Stream]] = ClassRegistry("stream", ENTRY_POINTS, Stream, "kind")
names = _REGISTRY.names
find = _REGISTRY.find
get = _REGISTRY.get
label = _REGISTRY.label
calling = _REGISTRY.calling


def of_identity(identity: Mapping[str, Any]) -> Stream | None:
    """Make a stream from the options in a manifest's identity; None if they are incomplete.

    The stream has the version of the current code, which may differ from the identity's. Raises
    PipelineError for a kind that is not installed, ConfigError for invalid options.
    """
    return find(str(identity.get("kind"))).from_identity(identity)
