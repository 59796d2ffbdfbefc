"""Pictures by name, as database files have them, and by pixel source, as the cache has them.  tracks <-> [img_name]

A source is a pattern with one number; a file has every name in full. A frame of a video file has no name of its own:
it is written as `<path of the video>#<frame>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.pixels import sources
from pipeline.pixels.frames import Pictures, Video

NAMED: Final = ("pictures", "video")  # kinds of source whose frames have names
_FRAME_OF_A_VIDEO: Final = 6  # digits
_LAST_NUMBER: Final = re.compile(r"([0-9]{1,18})([^0-9/]*)\Z")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a video's frames: `before`, the frame's index + `first` with `digits` digits, `after`."""

    before: str
    digits: int
    after: str
    first: int

    def of(self, frame: int) -> str:
        return f"{self.before}{frame + self.first:0{self.digits}d}{self.after}"


def names_of(source: str) -> Names | None:
    """How the frames of a pixel source are named in a file; None where they have no names.

    >>> names_of("pictures:frames/0001/{:06d}.jpg+1").of(0), names_of("video:train/x.mp4").of(12)
    ('frames/0001/000001.jpg', 'train/x.mp4#000012')
    """
    if source.partition(":")[0] not in NAMED:
        return None
    match sources.parse(Path(), source):
        case Pictures(_, pattern, first):
            before, digits, after = re.split(r"\{:0(\d+)d\}", pattern)
            return Names(before, int(digits), after, first)
        case Video(_, path):
            return Names(f"{path}#", _FRAME_OF_A_VIDEO, "", 0)
    return None


def numbers_in(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """The last number in each text; None when one has none: "frame_000012" and "frames/0001/000012.jpg" are 12."""
    found = [_LAST_NUMBER.search(text) for text in texts]
    if not all(found):
        return None
    return np.array([int(match[1]) for match in found if match], np.int64)


def source_of(names: Sequence[str], frame_index: NDArray[np.int64]) -> str:
    """The pixel source whose frames have these names; "" when there is none below a raw folder.

    >>> source_of(["a/000007.jpg", "a/000009.jpg"], np.array([6, 8]))
    'pictures:a/{:06d}.jpg+1'
    >>> source_of(["/elsewhere/000007.jpg"], np.array([6]))
    ''
    """
    numbers = numbers_in(names)
    match = _LAST_NUMBER.search(names[0]) if len(names) else None
    if numbers is None or match is None or len(set((numbers - frame_index).tolist())) > 1:
        return ""
    first = int(numbers[0] - frame_index[0])
    before, after = names[0][: match.start()], match[2]
    if before.endswith("#") and not after and first == 0:
        candidate = f"video:{before[:-1]}"
    else:
        shown = [name[len(before) : len(name) - len(after)] for name in names]
        digits = next((len(text) for text in shown if text.startswith("0")), 1)
        candidate = f"pictures:{before}{{:0{digits}d}}{after}+{first}"
    try:
        told = names_of(candidate)
    except (PipelineError, ValueError):  # an absolute path, or one with '..'
        return ""
    same = told is not None and all(told.of(int(i)) == name for i, name in zip(frame_index, names, strict=True))
    return candidate if same else ""


__all__ = ["NAMED", "Names", "names_of", "numbers_in", "source_of"]
