"""Tell by the images' numbers which frame each one is.  [raw pixels] -> tracks -> features

A release numbers its images from a constant, which its reader states as `Pictures.first`. Images
that users extract from a video have numbers from 0 or from 1 (`number_from_0_or_1`). The smallest
number in a folder tells neither: the first image may be missing.

`require_numbers` refuses images that have other numbers than the labels' frames, and `require_rate`
images at another rate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.errors import RawDataError, refuse
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures

MAX_RATIO: Final = 60  # largest ratio of two frame rates: one frame a second from 60 fps
# images for each unit of a ratio; the number of fewer images is near some multiple by chance
FEWEST_OF_RATIO: Final = 4
LEAST_SHARE: Final = 0.9  # least share of labelled frames that other files of a sequence must have

FROM_0_OR_1: Final = (
    "Rename the images: the number of an image is that of its frame, counted from 0 "
    "(ffmpeg: -start_number 0)."
)
OWN_NUMBERS: Final = (
    "An image outside of these numbers shows that the others may have the numbers of other frames, "
    "too. Unpack the images again, under their own names."
)


def number_from_0_or_1(pictures: Pictures, n_labels: int) -> Pictures:
    """Tell whether extracted images are numbered from 0 or from 1, and return them with this start.

    They are numbered from 0 if there is an image 0, and from 1 if there are images from 1 to the
    number of labels. Refuses others (`frame_count_mismatch`): of images 1 to 99 for 100 labels, the
    first or the last one may be missing.

    Args:
        pictures: Images whose `first` is 0.
        n_labels: Number of frames that the release has of the video.
    """
    numbers = pictures.indices()
    if not len(numbers) or numbers[0] == 0:
        return pictures
    renumbered = replace(pictures, first=int(numbers[0]))
    if numbers[0] != 1 or numbers[-1] < n_labels:
        require_rate(renumbered, n_labels, whole=True)
        actual = _describe(pictures, int(numbers[0]), int(numbers[-1]))
        expected = f"images numbered from 0, or from 1 to at least {n_labels}"
        refuse(frame_mismatch(pictures.place, expected, actual, FROM_0_OR_1))
    return renumbered


def require_numbers(pictures: Pictures, first: int, last: int, *, spare: int | None = None) -> None:
    """Refuse images that have other numbers than the labels' frames (`frame_count_mismatch`).

    These are images with a number before frame 0, or more than `spare` after the last frame; and
    images that end after the last frame, but do not begin with the first one.

    Args:
        first, last: The first and the last frame of the labels.
        spare: Number of images that the release may have after the last frame; None: unknown.
    """
    frames = replace(pictures, first=0).indices() - pictures.first
    if not len(frames):
        return
    is_shifted = frames[0] > first and frames[-1] > last
    is_beyond = spare is not None and frames[-1] > last + spare
    if frames[0] < 0 or is_shifted or is_beyond:
        expected = f"{_describe(pictures, first, last)}, for {last + 1 - first} labelled frames"
        actual = _describe(pictures, int(frames[0]), int(frames[-1]))
        refuse(frame_mismatch(pictures.place, expected, actual, OWN_NUMBERS))


def require_rate(source: Pictures | Video, n_labels: int, *, whole: bool = False) -> None:
    """Refuse frames that were extracted at another rate than the labels' (`frame_count_mismatch`).

    Such frames are numbered without gaps, so each would get the label of another time. One number
    of frames is then a multiple of the other, up to one frame.

    Args:
        source: Its number of frames, up to the last one, is compared.
        n_labels: Number of frames up to the last labelled one.
        whole: Also refuse frames without a gap that end before `LEAST_SHARE` of the labels.
    """
    n_reached = source.count_frames()
    problem = "frames at another rate"
    do = "Extract every frame of the video, without a frame rate"
    if _has_other_rate(n_reached, n_labels):
        do += "."
    else:
        if not whole or n_reached >= LEAST_SHARE * n_labels:
            return
        has_gaps = isinstance(source, Pictures) and len(source.indices()) < n_reached
        if has_gaps:  # so images keep their own numbers
            return
        problem += ", or not all of them"
        do += "; or unpack the rest."
    expected = f"one for each of {n_labels} labels"
    refuse(frame_mismatch(source.place, expected, f"{n_reached}: {problem}", do))


def _has_other_rate(n_frames: int, n_labels: int) -> bool:
    """Whether one number is a multiple of the other, up to one frame. False for few frames.

    >>> _has_other_rate(240, 1201), _has_other_rate(50, 100), _has_other_rate(1190, 1201)
    (True, True, False)
    """
    few, many = sorted((n_frames, n_labels))
    if few == 0:
        return False
    ratio = round(many / few)
    is_ratio = 2 <= ratio <= min(MAX_RATIO, few / FEWEST_OF_RATIO)
    return is_ratio and abs(few - many / ratio) <= 1


def frame_mismatch(place: Path, expected: str, found: str, do: str) -> RawDataError:
    """The error for labels of other frames than those of the video or the images at `place`."""
    return RawDataError(place, "frames", expected, found, do, reason="frame_count_mismatch")


def _describe(pictures: Pictures, first: int, last: int) -> str:
    return f"images from {pictures.path(first).name} to {pictures.path(last).name}"
