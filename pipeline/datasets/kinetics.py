"""Kinetics-400: clips from YouTube, with keypoints of a detector.  [raw -> tracks] -> features -> windows

Kay et al.: The Kinetics Human Action Video Dataset, 2017.

    <split>/<class>/<clip>.mp4, or <split>/<clip>.mp4
    keypoints/<split>/<clip>/<clip>_<12 digits>_keypoints.json    OpenPose --write_json, or
    keypoints/<split>/<clip>/<clip>.json                          AlphaPose
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pipeline.accounting import Totals, VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.datasets.people import confident, people
from pipeline.datasets.pixels import DETECTED_OUTSIDE, require_frames, require_in_picture
from pipeline.datasets.release import Mistake, Part
from pipeline.errors import RawDataError
from pipeline.formats.labels.detections import (
    ALPHAPOSE_NAMES,
    Detections,
    openpose_files,
    read_alphapose,
    read_openpose,
)
from pipeline.pixels.frames import Video
from pipeline.raw import RawVideo
from pipeline.raw.files import is_folder
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

EXTENSIONS: Final = (
    ".mp4",
    ".avi",
    ".mkv",
    ".webm",
    ".mov",
    ".m4v",
)  # the order in which one is chosen, where a clip has several
MIN_FRAMES: Final = 25
DETECTOR: Final = "OpenPose (--write_json) or AlphaPose"


def _parts(split: str, n_clips: int | None) -> tuple[Part, ...]:
    clips = tuple(f"{split}/{folder}<clip>{{{','.join(EXTENSIONS)}}}" for folder in ("<class>/", ""))
    archives = f"the {split} archives of the CVDF mirror (k400_downloader.sh, k400_extractor.sh)"
    return (
        Part(f"clips of {split}", clips, archives, (split,), n_clips),
        Part(
            f"clips of {split} with keypoints",
            (f"keypoints/{split}/<clip>/",),
            f"your own: {DETECTOR}, run on the clips",
            (split,),
        ),
    )


@dataclass(frozen=True)
class Kinetics(Dataset):
    """One track a person; people are linked over time here where the detector did not track them."""

    name: ClassVar[str] = "kinetics"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    version: ClassVar[int] = 4
    page: ClassVar[str] = "https://github.com/cvdfoundation/kinetics-dataset"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_keypoints"})  # the detector need not have run on every clip
    parts: ClassVar[tuple[Part, ...]] = (*_parts("train", None), *_parts("val", 19_906))
    mistakes: ClassVar[tuple[Mistake, ...]] = (
        Mistake(
            "replacement/*",
            "is one of the clips that replace those of train that were published corrupted",
            "Move the clips in replacement/ over those of the same names in train/.",
        ),
    )
    totals: ClassVar[Mapping[str, Totals]] = {"val": Totals(videos=19_906)}  # rows of the release's list

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        clips, detected = raw / split, raw / "keypoints" / split
        if not clips.is_dir() and not detected.is_dir():
            expected = f"{split}/<class>/<clip>.mp4 and keypoints/{split}/<clip>/"
            do = "Point the raw folder at the downloaded clips."
            raise RawDataError(clips, "folder", expected=expected, found="no such folder", do=do)
        with_keypoints = {entry.name for entry in _entries(detected) if is_folder(entry)}
        files: dict[str, list[Path]] = {}
        for file in _clips(clips, Path(split)):
            files.setdefault(file.with_suffix("").as_posix(), []).append(file)
        for clip in with_keypoints - {name.rpartition("/")[2] for name in files}:
            files[f"{split}/{clip}"] = []  # keypoints without a video are a video too, so that they are counted
        return [_raw_video(split, name, files[name], with_keypoints) for name in sorted(files)]

    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        clip = video.name.rpartition("/")[2]
        detections = _detections(raw / video.label_folders[0], clip, account) if video.label_folders else None
        if detections is None:
            message = f"{raw / 'keypoints' / split / clip}: no keypoints of this video. Run {DETECTOR} on it."
            account.reject("no_keypoints", message)
            return []
        account.found = detections.n_persons
        source = _source(raw, video, account)
        header = source.header()
        source.require_decodable()
        labels = raw / video.label_folders[0]
        require_frames(labels, source, detections.frames, account)
        require_in_picture(labels, confident(detections), source.size(), DETECTED_OUTSIDE)
        return [
            self.track(split, video, fps=header.fps, frames=source, **person._asdict())
            for person in people(detections, account, MIN_FRAMES)
        ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder except hidden things (of a Mac: ._<clip>.mp4), by name; nothing when it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _clips(folder: Path, below: Path) -> Iterator[Path]:
    """Video files in a split's folder and in its class folders."""
    for entry in _entries(folder):
        if is_folder(entry):
            inner = (below / entry.name / file.name for file in _entries(folder / entry.name))
            yield from (file for file in inner if file.suffix.lower() in EXTENSIONS)
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            yield below / entry.name


def _raw_video(split: str, name: str, clips: list[Path], with_keypoints: set[str]) -> RawVideo:
    clip = name.rpartition("/")[2]
    files = sorted(clips, key=lambda file: (EXTENSIONS.index(file.suffix.lower()), file.name))
    keypoints = (Path("keypoints", split, clip),) if clip in with_keypoints else ()
    return RawVideo(name, files=tuple(files), label_folders=keypoints)


def _source(raw: Path, video: RawVideo, account: VideoAccount) -> Video:
    if not video.files:
        split, _, clip = video.name.partition("/")
        there = sorted(_files_by_stem(raw / split).get(clip, ()))
        do = "Convert it to MP4." if there else "Download it again, if YouTube still has it."
        raise RawDataError(
            raw / video.name,
            "video",
            expected=f"{video.name} with one of {', '.join(EXTENSIONS)}",
            found=", ".join(there) or "keypoints alone",
            do=do,
            reason="video_missing",
        )
    first, *others = video.files
    account.notes.extend(f"{other.name} is not used: {first.name} is the same clip" for other in others)
    return Video(raw, first.as_posix())


@functools.lru_cache(maxsize=1)
def _files_by_stem(folder: Path) -> dict[str, list[str]]:
    """All files in a split's folders by their names without suffix, for messages about clips that are not there."""
    found: dict[str, list[str]] = {}
    for _, _, names in os.walk(folder):
        for name in names:
            found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def _detections(folder: Path, clip: str, account: VideoAccount) -> Detections | None:
    """OpenPose's files, or else AlphaPose's; None when there are neither."""
    files = openpose_files(folder, clip)
    results = [folder / name for name in (f"{clip}.json", *ALPHAPOSE_NAMES)]
    alphapose = next((file for file in results if file.is_file()), None)
    if files:
        if alphapose is not None and all(alphapose != file for _, file in files):  # of a video called 0001
            account.notes.append(f"{alphapose.name} is not used: OpenPose's files are")
        return read_openpose(files)
    return None if alphapose is None else read_alphapose(alphapose)
