"""Numbered pictures that are stored on their side.  [pixels] -> crops -> features"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipeline.files.pixels.frames import Frame, Pictures, nothing


class TurnedPictures(Pictures):
    """Pictures that are stored on their side: frames are turned 90 degrees clockwise, and `size` is the turned one."""

    __slots__ = ()

    @property
    def spec(self) -> str:
        return f"turned:{self.pattern}+{self.first}"

    def size(self) -> tuple[int, int]:
        width, height = Pictures.size(self)
        return height, width

    def digest(self) -> str:
        return hashlib.sha256(f"turned:{Pictures.digest(self)}".encode()).hexdigest()

    def read(self, frame_index: Iterable[int], *, alive: Callable[[], None] = nothing) -> Iterator[Frame]:
        for frame in Pictures.read(self, frame_index, alive=alive):
            if frame.image is None:
                yield frame
            else:
                yield Frame(frame.index, np.ascontiguousarray(np.rot90(frame.image, -1)), None)
