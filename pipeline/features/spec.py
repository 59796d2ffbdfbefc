"""A stream by its name, what it is, and how it is to be computed.  tracks -> [features] -> windows"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache import Split
from pipeline.errors import ConfigError
from pipeline.features.engine import Resources
from pipeline.features.pixel_sources import stored_crops
from pipeline.features.streams.base import Stream
from pipeline.features.streams.resnet50 import ResNet50


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream by its name, what it is, and how it is to be computed here."""

    name: str = ResNet50.kind
    stream: Stream = field(default_factory=ResNet50)
    crops: str = ""  # of this stream of crops in the cache, instead of the raw pictures
    resources: Resources = field(default_factory=Resources)
    raw: Path | None = None  # where the raw folder lies now; None: where it lay at conversion

    def __post_init__(self) -> None:
        if self.crops == self.name:
            raise ConfigError(f"stream {self.name!r} cannot be computed from itself: name it otherwise")

    def __str__(self) -> str:
        return f"{self.stream}, from the stream {self.crops!r}" if self.crops else str(self.stream)

    def at(self, raw: Path) -> StreamSpec:
        """The same stream, with the raw folder where it lies now."""
        return replace(self, raw=raw)

    def identity(self, split: Split | None = None) -> dict[str, Any]:
        """The stream's fingerprint beside its rows' own keys (pixels, frame, box, crop scale).

        `split`: where stored crops lie, which are part of it. Raises PipelineError where there are none.
        """
        found = self.stream.identity()
        if self.crops:
            found["crops"] = {} if split is None else stored_crops(split, self.crops)["identity"]
        return found
