"""Where pixels come from: numbered pictures or a video file.  [pixels] -> crops -> features"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB


class Frame(NamedTuple):
    """One decoded frame, or why it could not be: exactly one of `image` and `problem` is None."""

    index: int
    image: Image | None
    problem: str | None


class FrameSource(Protocol):
    """Small, picklable, hashable. `spec` says all of it in one line below the raw folder, and is kept in the cache."""

    root: Path  # the dataset's raw folder

    @property
    def spec(self) -> str: ...

    def size(self) -> tuple[int, int]:
        """(width, height) px, from the first readable picture's or the video's header."""
        ...

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        """Decode the given frames (strictly increasing), each once, in order. A bad frame is yielded with its problem."""
        ...
