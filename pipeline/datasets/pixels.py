"""Pictures, or a video, where a release has frames as either.  [raw pixels] -> tracks -> features -> windows

MPI-INF-3DHP and Human3.6M come as videos, and people extract pictures from them under names of their own. What is there
is found by names alone; how pictures are numbered is told by the names too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.errors import PipelineError, RawDataError
from pipeline.pixels.frames import Pictures, Video
from pipeline.raw.listing import listed

MIN_COMPARED: Final = 500  # frames; the releases' videos have more
MAX_RATIO: Final = 60  # one frame a second

# The last number before the extension counts the frames. Braces would be taken for a number in a pattern.
_NUMBERED: Final = re.compile(
    r"(?P<before>[^{}\\]*?)(?<![0-9])(?P<number>[0-9]{1,18})(?P<after>\.(?:jpe?g|png))", re.IGNORECASE
)


def inputs(
    raw: Path, folders: Sequence[Path], videos: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:  # fmt: skip
    """(files, folders) below `raw` that decide where the pixels are, for a `RawVideo`. Opens nothing.

    `folders` and `videos` are the candidates, the preferred one first. Video files do not count where a folder has
    pictures in it: these win, and a video's content is read for its digest.
    """
    there = tuple(folder for folder in folders if (raw / folder).is_dir())
    if any(has_pictures(raw / folder) for folder in there):
        return (), there
    return tuple(video for video in videos if (raw / video).is_file()), there


def has_pictures(folder: Path) -> bool:
    """Is there a numbered picture in the folder? What else lies there (Thumbs.db, ._ files) counts for nothing."""
    return any(_numbered(entry.name) for entry in listed(folder, {}))


def picture_pattern(raw: Path, folder: Path) -> Pictures | None:
    """The numbered pictures in `raw / folder`, however they are called; None where there are none.

    Of several manners of naming the one with most pictures counts, of equally many the first by name. Frame 0 is the
    smallest number there is, so that a missing picture in between shifts nothing.
    """
    manners: dict[tuple[str, str], list[str]] = {}
    for entry in listed(raw / folder, {}):
        if found := _numbered(entry.name):
            manners.setdefault((found["before"], found["after"]), []).append(found["number"])
    if not manners:
        return None
    (before, after), numbers = min(manners.items(), key=lambda item: (-len(item[1]), item[0]))
    digits = _digits(numbers)
    first = min(int(number) for number in numbers if len(str(int(number)).zfill(digits)) == len(number))
    try:
        return Pictures(raw, f"{folder.as_posix()}/{before}{{:0{digits}d}}{after}", first)
    except PipelineError as error:  # the folder's own name is one that no pattern can hold
        do = "Rename it."
        raise RawDataError(raw / folder, "name", expected="a plain name", found=str(error), do=do) from error


def pictures_or_video(
    raw: Path, folders: Sequence[Path], videos: Sequence[Path], account: VideoAccount
) -> Pictures | Video:
    """Where a video's frames are: the first of `folders` with pictures, else the first of `videos` that is there.

    All paths are below `raw`. What lies beside it and is not used is noted. Nothing is opened. Raises RawDataError
    (`no_picture`) when there is neither.
    """
    pictures = [found for folder in folders if (found := picture_pattern(raw, folder)) is not None]
    files = [video for video in videos if (raw / video).is_file()]
    beside = [found.place.relative_to(raw) for found in pictures] + files
    if not beside:
        wanted = " or ".join(path.as_posix() for path in (*folders, *videos))
        do = "Extract the pictures again, or unpack the videos."
        raise RawDataError(
            raw / folders[0] if folders else raw,
            "pictures",
            expected=f"numbered jpg or png files, or a video: {wanted}",
            found="neither",
            do=do,
            reason="no_picture",
        )
    account.notes.extend(f"{other.as_posix()} is not used: {beside[0].as_posix()} is" for other in beside[1:])
    return pictures[0] if pictures else Video(raw, files[0].as_posix())


def frames_there(source: Pictures | Video, n_labels: int, account: VideoAccount) -> NDArray[np.bool_]:
    """(n_labels,) whether a labelled frame's picture is there; of a video, whether its header says so.

    What differs between labels and pictures is noted, and nothing counted: that is the reader's to do. Raises
    RawDataError (`frame_count_mismatch`) when there are a half, a third, ... as many frames as labels, or twice, three
    times, ... as many: then they were extracted at another rate, and every frame but the first has another's label.
    """
    if isinstance(source, Pictures):
        there = source.indices()
        n_there, n_beyond = len(there), int((there >= n_labels).sum())
        n_reached = int(there.max(initial=-1)) + 1
        has_picture = np.isin(np.arange(n_labels), there)
    else:
        said = source.header().n_frames
        n_there = n_reached = n_labels if said is None else said
        n_beyond = max(n_there - n_labels, 0)
        has_picture = np.arange(n_labels) < n_there
    if other_rate(n_reached, n_labels):
        raise RawDataError(
            source.place,
            "frames",
            expected=f"one for each of {n_labels} labels",
            found=f"{n_reached}: frames at another rate",
            do="Extract every frame of the video, without a frame rate.",
            reason="frame_count_mismatch",
        )
    if n_beyond:
        account.notes.append(f"{n_labels} frames are labelled, {n_there} are there: the last {n_beyond} not used")
    if absent := int((~has_picture).sum()):
        first = int(np.argmin(has_picture))
        told = source.path(first).name if isinstance(source, Pictures) else f"frame {first}"
        account.notes.append(f"{absent} of {n_labels} labelled frames have no picture, the first is {told}")
    return has_picture


def other_rate(n_there: int, n_labels: int) -> bool:
    """Is one of two counts of frames a whole multiple of the other, give or take the last frame?

    Not told for short videos: by chance it would be so too often.
    """
    few, many = sorted((n_there, n_labels))
    if few == 0 or many < MIN_COMPARED:
        return False
    ratio = round(many / few)
    return 2 <= ratio <= MAX_RATIO and abs(few - many / ratio) <= 1


def _numbered(name: str) -> re.Match[str] | None:
    """The parts of a numbered picture's name; None for any other, hidden ones among them."""
    # What is not printable (bytes that are no UTF-8 among it) could not be written into a line of the cache.
    return _NUMBERED.fullmatch(name) if name.isprintable() and not name.startswith(".") else None


def _digits(numbers: Sequence[str]) -> int:
    """To how many digits numbers are padded, when most are to be written so: {:06d} writes 000001 and 1000000."""
    lengths = Counter(map(len, numbers))
    padded = [length for length in lengths if any(len(n) == length and n[0] == "0" and length > 1 for n in numbers)]
    return max(padded, key=lambda length: (lengths[length], -length)) if padded else min(lengths)
