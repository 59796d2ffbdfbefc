"""What a detector is: pictures -> people with 17 keypoints.  [pixels -> raw keypoints] -> tracks"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.files.pixels.frames import Image


class People(NamedTuple):
    """The P people that are found in one picture."""

    boxes: NDArray[np.float32]  # (P, 4) x y of the upper left and of the lower right corner, px
    scores: NDArray[np.float32]  # (P,) 0..1
    keypoints: NDArray[np.float32]  # (P, 17, 3) px, px, confidence 0..1; COCO's joints, in COCO's order


Detect = Callable[[Sequence[Image]], list[People]]  # (H, W, 3) uint8 RGB, of one size in a call; one `People` each


@dataclass(frozen=True)
class Detector(ABC):
    """A detector, not loaded yet. Subclasses are frozen dataclasses whose fields are its options."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised by hand whenever the same pictures would give other people
    stand_in: ClassVar[bool] = False  # it is for demo data alone, and finds no one in real pictures

    @property
    def batch_size(self) -> int:
        """Pictures at once that `load`'s function is best given."""
        return 8

    @property
    def downloads(self) -> bool:
        """Whether `identity` and `load` download weights first: `plan` does not call them then."""
        return False

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, besides `version`: part of the fingerprint of what it writes.

        Weights by digest, never by path: override it where an option names a file. Raises MissingAssets where that is
        missing.
        """
        return asdict(self)

    def below(self, folder: Path) -> Self:  # noqa: ARG002
        """The same, with relative paths in its options taken from `folder`: of luigi.cfg."""
        return self

    @abstractmethod
    def load(self, device: str) -> Detect:
        """The function that detects. `device`: "auto", "cpu", "cuda", "cuda:1", ... Raises what loading does."""
