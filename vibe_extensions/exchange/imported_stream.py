"""The stream of an imported array, for luigi.cfg: its width.  arrays -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.features.plan import IMPORTED
from pipeline.features.streams.base import Reads, Stream


@dataclass(frozen=True, kw_only=True)
class Imported(Stream):
    """Numbers that `import` took from a file. Nothing computes them: plans refuse to extract missing rows."""

    dim: int = 2048  # type: ignore[misc]  # Numbers per row

    kind: ClassVar[str] = IMPORTED
    dtype: ClassVar[str] = "float32"

    @property
    def reads(self) -> Reads:
        return Reads()

    @property
    def needs(self) -> tuple[str, ...]:
        return ("frame_index", "bbox")  # motion without images trains without features

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Imported:  # noqa: ARG003  which names a file, and no width
        return cls()
