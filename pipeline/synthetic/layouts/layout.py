"""What one file of this folder has to offer for a dataset: shots, and how they are written.  pixels and labels -> [raw]

Adding a dataset is adding such a file and its line in `LAYOUTS` (`pipeline.synthetic`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.synthetic.scene.scene import Shot, Take

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a dataset is made, against the default."""

    videos: float
    frames: float


SIZES: Final = {"tiny": Size(0.2, 0.7), "default": Size(1, 1), "large": Size(4, 1.5)}


@dataclass(frozen=True, slots=True)
class Request:
    """Seed and amount. `n_videos` (in a split) and `n_frames` (in a video) overrule `size`."""

    seed: int = 0
    size: str = "default"
    n_videos: int | None = None
    n_frames: int | None = None

    def videos(self, usual: int) -> int:
        """Videos of a split that usually has `usual`."""
        return self.n_videos if self.n_videos is not None else max(1, round(usual * SIZES[self.size].videos))

    def frames(self, rng: np.random.Generator, low: int, high: int, *, least: int = 1) -> int:
        """Frames of a video that usually has `low` to `high`; fewer than `least` only when asked for."""
        drawn = int(rng.integers(low, high + 1))
        return self.n_frames if self.n_frames is not None else max(least, round(drawn * SIZES[self.size].frames))


def _nothing_more(folder: Path, shots: Sequence[Shot]) -> None:
    """Of a release whose videos stand for themselves."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the official release of one dataset is written."""

    name: str
    what: str  # one sentence for the marker file
    shots: Callable[[Request], list[Shot]]
    record: Callable[[SmplArrays, Shot, Path], Take]  # writes one video below the dataset's folder; tells the truth
    finish: Callable[[Path, Sequence[Shot]], None] = _nothing_more  # writes what is about all videos
