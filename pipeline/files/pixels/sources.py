"""The pixel source that a line in the cache describes.  [pixels] -> crops -> features"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Frame, FrameSource, Pictures, Video, nothing
from pipeline.files.pixels.records import RecordPictures


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


SOURCES: Final[Mapping[str, Callable[[Path, str], FrameSource]]] = {
    "pictures": Pictures.from_spec,
    "turned": TurnedPictures.from_spec,
    "video": Video,
    "record": RecordPictures.from_spec,
}


def parse(root: Path, spec: str) -> FrameSource:
    """The source that `spec` describes. Raises PipelineError for another kind and for a path that leaves `root`.

    >>> parse(Path("raw"), "video:train/abseiling/x.mp4")
    Video(root=PosixPath('raw'), path='train/abseiling/x.mp4')
    """
    kind, _, rest = spec.partition(":")
    if kind not in SOURCES:
        raise PipelineError(
            f"pixel source {spec!r}: its kind is none of {', '.join(SOURCES)}. Convert the video again."
        )
    return SOURCES[kind](root, rest)
