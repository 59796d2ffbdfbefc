"""Streams that cost nothing to compute: what of an extraction's memory is its own shows with them.

They also are what a feature stream at its smallest looks like: docs/adding-a-stream.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.features.streams.base import Computer, Machine, NumberStream


@dataclass(frozen=True, kw_only=True)
class MeanColours(NumberStream):
    """Three numbers a crop: its mean red, green and blue."""

    kind: ClassVar[str] = "mean_colours"
    dim: ClassVar[int] = 3

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer:  # noqa: ARG002
        return _Means(machine, self.dim)


@dataclass(frozen=True, kw_only=True)
class AsManyAsResNet50(MeanColours):
    """The same three, repeated to as many numbers as a ResNet-50 gives."""

    kind: ClassVar[str] = "mean_colours_2048"
    dim: ClassVar[int] = 2048


class _Means:
    lanes = 1

    def __init__(self, machine: Machine, dim: int) -> None:
        self.batch_size, self._dim = machine.batch_size or 16, dim

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"stand_in": True, "device": "cpu"}

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Crops are read where they lie."""

    def release(self) -> None:
        """Nothing was taken."""

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        means = crops[:, ::16, ::16].reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32)
        return np.resize(means.T, (self._dim, len(crops))).T
