"""Where a video's frames are: numbered pictures, or a video file.  [raw pixels] -> tracks -> features -> windows

MPI-INF-3DHP and Human3.6M come as videos, from which people extract pictures under names of their own. Which pictures
there are, and how they are numbered, is decided by their names alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.errors import RawDataError
from pipeline.pixels.frames import Pictures, Video
from pipeline.pixels.numbered import n_frames, numbered, picture_pattern
from pipeline.raw.listing import listed

MIN_COMPARED: Final = 500  # frames; the releases' videos have more
MAX_RATIO: Final = 60  # one frame a second


def inputs(
    raw: Path, folders: Sequence[Path], videos: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:  # fmt: skip
    """(files, folders) below `raw` that decide where the pixels are, for a `RawVideo`. Opens nothing.

    `folders` and `videos` are the candidates, the preferred one first. Video files do not count where a folder has
    pictures in it: pictures are preferred, and the digest of a video takes long.
    """
    there = tuple(folder for folder in folders if (raw / folder).is_dir())
    if any(numbered(entry.name) for folder in there for entry in listed(raw / folder, {})):
        return (), there
    return tuple(video for video in videos if (raw / video).is_file()), there


def pictures_or_video(
    raw: Path, folders: Sequence[Path], videos: Sequence[Path], account: VideoAccount
) -> Pictures | Video:
    """Where a video's frames are: the first of `folders` with pictures, else the first of `videos` that is there.

    All paths are below `raw`. Whatever else is there is noted as not used. Nothing is opened. Raises RawDataError
    (`no_picture`) when there is neither.
    """
    pictures = [found for folder in folders if (found := picture_pattern(raw, folder)) is not None]
    files = [video for video in videos if (raw / video).is_file()]
    if not pictures and not files:
        places = " or ".join(path.as_posix() for path in (*folders, *videos))
        raise RawDataError(
            raw / folders[0] if folders else raw,
            "pictures",
            expected=f"numbered jpg or png files, or a video: {places}",
            found="neither",
            do="Extract the pictures again, or unpack the videos.",
            reason="no_picture",
        )
    used, *others = [found.place.relative_to(raw) for found in pictures] + files
    account.notes.extend(f"{other.as_posix()} is not used: {used.as_posix()} is" for other in others)
    return pictures[0] if pictures else Video(raw, files[0].as_posix())


def frames_there(
    source: Pictures | Video, n_labels: int, account: VideoAccount, *, extracted: bool = True
) -> NDArray[np.bool_]:
    """(n_labels,) which labelled frames have a picture; of a video, the frames that its header states.

    Differences are noted; counting them is up to the reader. Raises RawDataError: `no_picture` when there is none of
    the pictures; `frame_count_mismatch` when there are a half, a third, ... as many frames as labels, or twice, three
    times, ... as many. Then they were extracted at another rate, and every label but the first would belong to another
    frame. With `extracted` False, for pictures that are part of the release, that is not checked.
    """
    if isinstance(source, Pictures):
        there = source.indices()
        n_there, n_beyond = len(there), int((there >= n_labels).sum())
        n_reached = n_frames(source)
        has_picture = np.isin(np.arange(n_labels), there)
    else:
        stated = source.header().n_frames
        n_there = n_reached = n_labels if stated is None else stated
        n_beyond = max(n_there - n_labels, 0)
        has_picture = np.arange(n_labels) < n_there
    if not n_there:
        raise RawDataError(
            source.place,
            "pictures",
            expected=f"{n_labels} pictures",
            found="none",
            do="Unpack the pictures again.",
            reason="no_picture",
        )
    if extracted and _other_rate(n_reached, n_labels):
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
        name = source.path(first).name if isinstance(source, Pictures) else f"frame {first}"
        account.notes.append(f"{absent} of {n_labels} labelled frames have no picture, the first is {name}")
    return has_picture


def _other_rate(n_there: int, n_labels: int) -> bool:
    """Is one of two counts of frames a whole multiple of the other, give or take the last frame?

    False for short videos: there it happens too often by chance.
    """
    few, many = sorted((n_there, n_labels))
    if few == 0 or many < MIN_COMPARED:
        return False
    ratio = round(many / few)
    return 2 <= ratio <= MAX_RATIO and abs(few - many / ratio) <= 1
