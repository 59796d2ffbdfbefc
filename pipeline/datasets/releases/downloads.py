"""Problems of a download, found by names of files and folders alone.  [raw] -> tracks -> features
-> windows

`examination.examine` calls it, and `python -m pipeline doctor` shows the messages:

    incomplete_inputs   image folders that were unpacked only in part, and labels and images that
                        other videos have and one has not
    has_gaps            folders of keypoints that lack files of frames between others
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.text import count as count_of
from pipeline.datasets.base import Dataset, ImageFolders
from pipeline.errors import RawDataError
from pipeline.files.pixels.sources import match_numbered
from pipeline.files.raw import RawVideo, files
from pipeline.files.raw.files import VIDEOS
from pipeline.people.track import usual_step

# least share of a sequence's images; the releases' own counts differ by some frames
LEAST_IMAGES: Final = 0.9
SHOWN: Final = 5  # folders
_OPENPOSE: Final = re.compile(r"[^.].*_([0-9]{1,18})_keypoints\.json")


def incomplete_inputs(dataset: Dataset, raw: Path) -> list[str]:
    """Messages about image folders with too few images, and about missing files and folders."""
    images = dataset.release.image_folders
    if images is None:
        return []
    return _folders_in_part(dataset, raw, images) + _lost_inputs(dataset, raw, images)


def _folders_in_part(dataset: Dataset, raw: Path, images: ImageFolders) -> list[str]:
    """Messages about image folders with far fewer images than their sequence has. That is the
    largest of three numbers: what the labels state (`Dataset.stated_images`), what the sequence's
    other cameras have (`alike_by_camera`), and what there would be without gaps between the images'
    numbers; at least 1.

    The first SHOWN folders are named; one more message counts the others.
    """
    counts = dict[Path, tuple[int, int]]()  # folder -> number of images, expected number
    for split in dataset.splits:
        try:
            videos = dataset.videos(raw, split)
        except (RawDataError, OSError):  # other messages tell it: of a missing part, for example
            continue
        recordings = dict[Path, str | None]()  # folder -> its recording
        largest = dict[str | None, int]()  # recording -> the largest expected number of its folders
        for video in videos:
            for folder in (raw / path for path in video.folders):
                is_short = video.name in images.short
                if is_short or folder in counts or not files.is_folder_there(folder):
                    continue
                matches = map(match_numbered, files.scan_names(folder))
                numbers = sorted(int(match["number"]) for match in matches if match)
                stated = 0
                with contextlib.suppress(OSError):  # conversion reports the error
                    stated = dataset.stated_images(raw, video)
                expected = max(_count_without_gaps(numbers), stated, 1)
                counts[folder] = len(numbers), expected
                recording = recordings[folder] = dataset.origin(video.name).recording
                largest[recording] = max(largest.get(recording, 0), expected)
        if images.alike_by_camera:
            for folder, recording in recordings.items():
                counts[folder] = counts[folder][0], largest[recording]
    messages = [
        f"{folder} has {n:,} of {expected:,} images. Unpack the images again."
        for folder, (n, expected) in sorted(counts.items())
        if n < LEAST_IMAGES * expected
    ]
    n_more = len(messages) - SHOWN
    if n_more > 0:
        messages[SHOWN:] = [f"{n_more:,} more folders have too few images."]
    return messages


def _lost_inputs(dataset: Dataset, raw: Path, images: ImageFolders) -> list[str]:
    """Messages about files and folders of a video that are missing, while other videos of the split
    have theirs, and about cameras that other recordings have.
    """
    distinct = dict[str, None]()  # messages, each once: Penn Action lists its videos in both splits
    for split in dataset.splits:
        try:
            videos = dataset.videos(raw, split)
        except (RawDataError, OSError):  # other messages tell it
            continue
        distinct |= dict.fromkeys(_missing_paths(raw, videos))
        if images.alike_by_camera:
            distinct |= dict.fromkeys(
                f"{name} has no images, unlike other videos of {split}. Unpack them again."
                for name in _find_imageless(dataset, videos)
            )
    messages = [*distinct]
    n_more = len(messages) - SHOWN
    if n_more > 0:
        messages[SHOWN:] = [f"{n_more:,} more files, folders or videos are missing."]
    return messages


def _missing_paths(raw: Path, videos: Sequence[RawVideo]) -> Iterator[str]:
    """Yield a message for each missing path of a kind (a suffix) that other videos have."""
    kinds = set[str]()
    missing = dict[Path, list[str]]()  # path -> names of its videos
    is_there = functools.cache(lambda path: files.is_there(raw / path))
    for video in videos:
        for path in (*video.files, *video.folders):
            if is_there(path):
                kinds.add(path.suffix)
            else:
                missing.setdefault(path, []).append(video.name)
    for path, names in missing.items():
        if path.suffix in kinds:
            shown = names[0]
            if len(names) > 1:
                shown += f" and {count_of(len(names) - 1, 'other video')}"
            yield f"{raw / path} is missing, for {shown}. Unpack it again."


def _find_imageless(dataset: Dataset, videos: Sequence[RawVideo]) -> list[str]:
    """Names of the videos without images from cameras that have images of other recordings."""
    recordings = set[str]()
    cameras = set[str]()  # ends of the videos' names
    with_images = set[str]()
    for video in videos:
        recording = dataset.origin(video.name).recording or video.name
        recordings.add(recording)
        if video.folders or any(path.suffix.lower() in VIDEOS for path in video.files):
            cameras.add(video.name.removeprefix(recording))
            with_images.add(video.name)
    expected = {recording + camera for recording in recordings for camera in cameras}
    return sorted(expected - with_images)


def has_gaps(folder: Path) -> str:
    """A message if a folder lacks many of OpenPose's files between its first and last one; else "".

    OpenPose writes a file for each frame, also if nobody is in it.
    """
    matches = filter(None, map(_OPENPOSE.fullmatch, files.scan_names(folder)))
    numbers = sorted({int(match[1]) for match in matches})
    expected = _count_without_gaps(numbers)
    if len(numbers) >= LEAST_IMAGES * expected:
        return ""
    return f"{folder} has {len(numbers):,} of {expected:,} files of frames. Copy them again."


def _count_without_gaps(numbers: Sequence[int]) -> int:
    """How many images there would be from the first number to the last without gaps.

    The step between images is the most common difference of the numbers.
    """
    if not numbers:
        return 0
    step = max(usual_step(numbers), 1)
    return (numbers[-1] - numbers[0]) // step + 1
