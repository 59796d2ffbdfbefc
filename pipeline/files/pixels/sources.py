"""Pixel sources from a line of the cache, or from a folder's file names.  [pixels] -> crops -> features"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Frame, FrameSource, Pictures, Video
from pipeline.files.pixels.records import RecordPictures
from pipeline.files.raw.listing import scan_folder

# The last number before the extension counts the frames. Braces would be taken for a number in a pattern.
NUMBERED: Final = re.compile(
    r"(?P<before>[^{}\\]*?)(?<![0-9])(?P<number>[0-9]{1,18})(?P<after>\.(?:jpe?g|png))", re.IGNORECASE
)


class TurnedPictures(Pictures):
    """Images stored on their side: frames are rotated by 90 degrees clockwise, and so is `size`."""

    __slots__ = ()

    @property
    def spec(self) -> str:
        return f"turned:{self.pattern}+{self.first}"

    def size(self) -> tuple[int, int]:
        width, height = Pictures.size(self)
        return height, width

    def digest(self) -> str:
        return hashlib.sha256(f"turned:{Pictures.digest(self)}".encode()).hexdigest()

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        for frame in Pictures.read(self, frame_index):
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
        raise PipelineError(f"pixel source {spec!r}: expected one of {', '.join(SOURCES)}. Convert the video again.")
    return SOURCES[kind](root, rest)


def picture_pattern(raw: Path, folder: Path) -> Pictures | None:
    """The numbered images in `raw / folder`, by any naming; None if there are none.

    The most common naming is used, of equally common ones the first by name. The smallest number is frame 0, so missing
    images shift nothing.
    """
    numbers_of: dict[tuple[str, str], list[str]] = {}
    for entry in scan_folder(raw / folder, {}):
        if found := match_numbered(entry.name):
            numbers_of.setdefault((found["before"], found["after"]), []).append(found["number"])
    if not numbers_of:
        return None
    (before, after), numbers = min(numbers_of.items(), key=lambda item: (-len(item[1]), item[0]))
    # The digits to which most numbers are padded: {:06d} gives 000001 and 1000000.
    lengths = Counter(map(len, numbers))
    padded = [length for length in lengths if any(len(n) == length and n[0] == "0" and length > 1 for n in numbers)]
    digits = max(padded, key=lambda length: (lengths[length], -length)) if padded else min(lengths)
    first = min(int(number) for number in numbers if len(str(int(number)).zfill(digits)) == len(number))
    return Pictures(raw, f"{folder.as_posix()}/{before}{{:0{digits}d}}{after}", first)


def n_frames(source: Pictures | Video) -> int:
    """Number of frames: of images up to the last one, of a video those that decode."""
    return source.n_decodable() if isinstance(source, Video) else int(source.indices().max(initial=-1)) + 1


def match_numbered(name: str) -> re.Match[str] | None:
    """The parts of a numbered image's name; None for others and hidden files."""
    # A name that is not printable (bytes that are no UTF-8 among it) could not be a line of the cache.
    return NUMBERED.fullmatch(name) if name.isprintable() and not name.startswith(".") else None
