"""A stream to extract, and the resources for it.  tracks -> [features] -> windows

Commands and Luigi tasks make a `StreamSpec` from the settings (`pipeline.settings.sections`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cache import Split
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Stream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import FORMS


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream to extract: its name, its definition, and where the raw files are."""

    name: str = ResNet50.kind  # in the cache
    stream: Stream = field(default_factory=ResNet50)  # its kind and options
    raw: Path | None = None  # the raw folder now; None: as recorded

    def missing_columns(self, committed: Split) -> str:
        """A message that the split lacks columns that the stream reads; "" if it has all of them,
        or if the split has no boxes.
        """
        missing = committed.unknown_columns(self.stream.needs)
        if not missing or "bbox" not in committed.columns:
            return ""
        return (
            f"{committed.name}: stream {self.name!r} reads {', '.join(missing)}, which this "
            "split does not have for every track. Use another stream or other splits."
        )

    @staticmethod
    def readable(specs: Iterable[StreamSpec], columns: Collection[str]) -> tuple[StreamSpec, ...]:
        """Select the streams for a split with these columns: crops need boxes."""
        has_boxes = "bbox" in columns
        return tuple(spec for spec in specs if has_boxes or not spec.stream.reads.crops)

    def refuse_random_weights(self, data: str, setting: str) -> None:
        """Raise ConfigError if the stream is only fit for demo data.

        Args:
            data: the name or folder of real data, for which it would be computed.
            setting: where the weights are named, for the message.
        """
        if self.stream.stand_in:
            # another package's stream may have no option `weights`, or one of another type
            weights = getattr(self.stream, "weights", self.stream)
            forms = getattr(weights, "forms", FORMS)
            raise ConfigError(
                f"{setting} = {weights}: random weights are for demo data, and {data} is real "
                f"data. Name trained weights: {forms}. For a trial run: extract --weights "
                "untrained:0."
            )
