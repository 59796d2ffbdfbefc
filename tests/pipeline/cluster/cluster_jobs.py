"""What the tests of the cluster have workers do. They import it, beside made_up.py."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.features.streams.base import LabelStream


def logged(folder: Path) -> list[str]:
    """A line for each item that was begun."""
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


@dataclass(frozen=True)
class Doubled:
    """A slow job."""

    folder: Path
    seconds: float = 0.0

    def __call__(self, item: int) -> int:
        with (self.folder / "log").open("ab", buffering=0) as file:  # one line, whole, also when other processes write
            file.write(b"begun\n")
        time.sleep(self.seconds)
        return 2 * item


@dataclass(frozen=True, kw_only=True)
class Boxes(LabelStream):
    """The rows' boxes: numbers from labels."""

    kind: ClassVar[str] = "boxes"
    dim: ClassVar[int] = 4
    columns: ClassVar[tuple[str, ...]] = ("bbox",)
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": True}

    def __call__(self, labels: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return labels["bbox"].astype(np.float32), np.ones(len(labels["bbox"]), bool)
