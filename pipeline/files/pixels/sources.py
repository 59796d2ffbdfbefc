"""The pixel source that a line in the cache describes.  [pixels] -> crops -> features"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import FrameSource, Pictures, Video
from pipeline.files.pixels.records import RecordPictures
from pipeline.files.pixels.turned import TurnedPictures

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
