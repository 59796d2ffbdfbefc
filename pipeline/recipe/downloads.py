"""Problems of a download, found by names of files and folders alone.  [raw] -> tracks -> features
-> windows

`examination.examine` calls it, and `python -m pipeline doctor` shows the messages:

    misplaced_parts     folders of another name or one level off, broken links, other capitals
    incomplete_inputs   image folders that were unpacked only in part, and labels and images that
                        other videos have and one has not
    has_gaps            folders of keypoints that lack files of frames between others
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.text import count as count_of
from pipeline.datasets.base import Dataset, ImageFolders, ReleasePart, globs
from pipeline.errors import RawDataError
from pipeline.files.pixels.sources import match_numbered
from pipeline.files.raw import RawVideo, files
from pipeline.files.raw.files import VIDEOS
from pipeline.track import usual_step

# dataset -> other names that downloads give to its folder
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "h36m": ("Human36M", "human3.6m", "h3.6m"),
    "kinetics": ("k400",),
    "mpi_inf_3dhp": ("3dhp", "mpii3d"),
}
# least share of a sequence's images; the releases' own counts differ by some frames
LEAST_IMAGES: Final = 0.9
SHOWN: Final = 5  # folders
_OPENPOSE: Final = re.compile(r"[^.].*_([0-9]{1,18})_keypoints\.json")


# ------------------------------------------------------------------------------------------------
# paths and names


def misplaced_parts(
    raw: Path,
    parts: Sequence[ReleasePart],
    absent: Sequence[ReleasePart],
    names: Sequence[str],
) -> Iterator[str]:
    """Yield messages about required parts that are missing from `raw` but lie somewhere near it.

    parts: all parts; absent: the missing ones. names: other names of the dataset's folder.
    """
    has_broken_link = False
    patterns = _patterns(absent)
    names_in_raw = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns)
    fixed_paths = [raw / name for name in names_in_raw if not files.WILD.search(name)]
    for path in (raw, *fixed_paths):
        if path.is_symlink() and not files.is_there(path):
            has_broken_link = True
            link = _describe_broken_link(path)
            yield f"{path} is {link}. Mount its disk, or correct the link."
    if files.is_there(raw) and not files.is_folder_there(raw):
        yield f"{raw} is a file. Unpack it into a folder of this name."
    if has_broken_link or not absent:
        return

    elsewhere = _find_elsewhere(raw, patterns, names)
    if elsewhere is not None:
        missing = " and ".join(part.what for part in absent)
        yield f"{missing}: not in {raw} but in {elsewhere}. {_advise_move(raw, elsewhere)}"
        return

    misplaced: dict[Path, list[tuple[str, Path]]] = {}  # folder -> (part, expected folder)
    for part in absent:
        in_other_case: list[str] = []
        for glob in globs(part.patterns):
            in_other_case += files.find(raw, glob, {}, any_case=True)
        if in_other_case:
            yield (
                f"{part.what}: {min(in_other_case)} differs in capitals from {part.patterns[0]}. "
                "Rename it and its like."
            )
        else:
            other_folders = _fixed_folders(other for other in parts if other is not part)
            pair = _find_one_folder_off(raw, part, other_folders)
            if pair is not None:
                expected, found = pair
                misplaced.setdefault(found, []).append((part.what, expected))
    for found, wanted in misplaced.items():  # one line, also for files of several parts
        what = ", ".join(name for name, _ in wanted)
        folders = ", ".join(dict.fromkeys(str(expected) for _, expected in wanted))
        yield f"{what}: not in {folders} but in {found}. Move or rename them."


def _describe_broken_link(path: Path) -> str:
    """What a link leads to that leads nowhere, for messages: its target, or a circle of links."""
    why = "does not exist"
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        if error.errno == errno.ELOOP:
            why = "leads in a circle"
    return f"a link to {path.readlink()}, which {why}"


def _fixed_folders(parts: Iterable[ReleasePart]) -> set[str]:
    """The first folders of the parts' patterns, without wildcards: sequenceFiles/train."""
    folders = set[str]()
    for pattern in _patterns(parts):
        *above, _ = pattern.rstrip("/").split("/")
        fixed = itertools.takewhile(lambda name: not files.WILD.search(name), above)
        folders.add("/".join(fixed))
    return folders - {""}


def _find_one_folder_off(
    raw: Path, part: ReleasePart, others: set[str]
) -> tuple[Path, Path] | None:
    """The expected and the actual folder of a missing part's files that are in a folder of another
    name, or lie one level higher or deeper; None without any.

    others: folders of other parts, whose files these are not.
    """
    for pattern in globs(part.patterns):
        names = pattern.rstrip("/").split("/")
        end = pattern[len(pattern.rstrip("/")) :]
        for n, name in enumerate(names[:-1]):
            if files.WILD.search(name):
                continue
            expected_folder = "/".join(names[: n + 1])
            for there in (["*"], [name, "*"], []):
                glob = "/".join([*names[:n], *there, *names[n + 1 :]]) + end
                paths = [Path(path).relative_to(raw) for path in files.find(raw, glob, {})]
                own = [
                    path
                    for path in paths
                    if not any(map(path.is_relative_to, others)) and not path.match(expected_folder)
                ]
                if own:
                    found = raw.joinpath(*min(own).parts[: n + len(there)])
                    expected = raw.joinpath(*names[: n + 1])
                    return expected, found
    return None


def _patterns(parts: Iterable[ReleasePart]) -> list[str]:
    """The globs of parts, and of the parts of another layout that can replace them."""
    patterns: list[str] = []
    for part in parts:
        patterns += globs(part.patterns)
        if part.instead is not None:
            patterns += globs(part.instead.patterns)
    return patterns


def _find_elsewhere(raw: Path, patterns: Sequence[str], names: Sequence[str]) -> Path | None:
    """Find another folder than `raw` that has matches: below, beside or above it.

    Folders beside it must have a similar name. None if there is no such folder.
    """
    candidates = [
        folder for folder in files.list_folders(raw.parent) if _is_alike(folder, raw, names)
    ]
    if files.is_folder_there(raw):
        below = _find_nested_too_deep(raw, patterns)
        if below is not None:
            return below
    else:
        candidates += raw.parent, raw.parent.parent
    for folder in candidates:
        if files.has_match(folder, patterns):
            return folder
    return None


def _find_nested_too_deep(raw: Path, patterns: Sequence[str]) -> Path | None:
    """Find a folder, one or two levels below `raw`, in which a pattern matches: the data may have
    been unpacked there by mistake. None if there is none.
    """
    level = [raw]
    for _ in range(2):
        below = itertools.chain.from_iterable(map(files.list_folders, level))
        level = list(below)[: files.MOST_FOLDERS]
        for folder in level:
            if files.has_match(folder, patterns):
                return folder
    return None


def _is_alike(folder: Path, raw: Path, names: Sequence[str]) -> bool:
    """Whether a folder's name is one of `names`, or that of `raw` with a version: posetrack18."""
    if folder == raw:
        return False
    name = letters(folder.name)
    if name in map(letters, names):
        return True
    # bedlam2 is no bedlam
    is_version = re.fullmatch(rf"{re.escape(letters(raw.name))}([0-9]{{2,4}})?", name)
    return is_version is not None


def letters(name: str) -> str:
    """Small letters and digits of a name.

    >>> letters("Penn_Action"), letters("3DPW")
    ('pennaction', '3dpw')
    """
    return "".join(char for char in name.lower() if char.isalnum())


def _advise_move(raw: Path, elsewhere: Path) -> str:
    """Say how to move or rename a folder with the dataset's files, so that `raw` has them."""
    nested = elsewhere / elsewhere.name
    if files.is_folder_there(nested):
        return f"{nested} is a folder in one of the same name. Move its contents to {elsewhere}."

    if elsewhere in (raw.parent, raw.parent.parent):
        target = elsewhere.resolve()
        renamed = "" if target.name == raw.name else f", with {target.name}/ renamed to {raw.name}"
        return f"Name the folder above: --raw {target.parent}{renamed}."

    rename = "" if files.is_there(raw) else f", or rename it: mv {elsewhere} {raw}"
    return f"Move the contents of {elsewhere} to {raw}{rename}."


# ---------------------------------------------------------------------------------------------
# image folders in part


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
