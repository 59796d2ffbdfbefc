"""Kinetics-400: clips from YouTube, with keypoints of a detector.  [raw -> tracks] -> features ->
windows

Kay et al.: The Kinetics Human Action Video Dataset, 2017.

    <split>/<class>/<clip>.mp4, or <split>/<clip>.mp4
    keypoints/<split>/<clip>/                 folder of OpenPose's --write_json or of AlphaPose; or
    keypoints/<split>/<class>/<clip>.mp4.json `python -m pipeline detect`; other names:
        `pipeline.clips.labels.label_files`

`videos` lists clips and keypoints; `read` is that of all clips with a detector's labels
(`shared.clips.clip`).
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.accounting import Totals, VideoAccount
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_files import ClipLabels
from pipeline.clips.listing import list_clips
from pipeline.datasets.base import Mistake, Release, ReleasePart
from pipeline.datasets.shared.clips.by_clip import stated_order
from pipeline.datasets.shared.clips.clip import clip_tracks
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.datasets.shared.clips.people import Rules
from pipeline.errors import RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import RawVideo, RawVideos, VideoTexts
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

# if a clip has several files, the one with the first of these is used
EXTENSIONS: Final = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v")
MIN_FRAMES: Final = 25
DETECTOR: Final = "detect, OpenPose (--write_json) or AlphaPose"


def _parts(split: str, n_clips: int | None) -> tuple[ReleasePart, ...]:
    """The clips of a split and their keypoints. n_clips: in the full release; None: unknown."""
    clips = tuple(
        f"{split}/{folder}<clip>{{{','.join(EXTENSIONS)}}}" for folder in ("<class>/", "")
    )
    archives = f"the {split} archives of the CVDF mirror (k400_downloader.sh, k400_extractor.sh)"
    return (
        ReleasePart(f"clips of {split}", clips, archives, (split,), n_clips),
        ReleasePart(
            f"clips of {split} with keypoints",
            (f"keypoints/{split}/<clip>/", f"keypoints/{split}/<class>/<clip>.mp4.json"),
            f"your own: {DETECTOR}, run on the clips",
            (split,),
        ),
    )


@dataclass(frozen=True)
class Kinetics(ClipDataset):
    """One track per person, linked over time unless the detector has tracked people itself."""

    # order of the joints in files that do not name them, as coco or "val/*=h36m, coco"; unset: the
    # order that the file's format fixes, or else the usual one
    joints: str | None = None

    name = "kinetics"
    splits = ("train", "val")
    # 14: uneven clips: the rate of a track's own frames, `max_fps` by time; one thread decodes a
    # clip; wrong times; joint orders are stated or assumed, not searched; bad boxes, zeros,
    # places in a list
    # 15: linking under a moving camera; left and right by time
    version = 15
    release = Release(
        page="https://github.com/cvdfoundation/kinetics-dataset",
        access="videos are of YouTube",
        parts=(*_parts("train", None), *_parts("val", 19_906)),
        mistakes=(
            Mistake(
                "replacement/*",
                "is one of the clips that replace those of train that were published corrupted",
                "Move the clips in replacement/ over those of the same names in train/.",
            ),
        ),
        recording="video",
        totals={"val": Totals(videos=19_906)},  # rows of the release's list
    )
    by_clip = ("joints", *ClipDataset.by_clip)
    added: ClassVar[Mapping[str, Any]] = {**ClipDataset.added, "joints": None}

    def joint_order(self, clip: str) -> StatedOrder:
        return stated_order(self.full_split(clip), self.joints, clip)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        clips = raw / split
        detected = raw / "keypoints" / split
        if not clips.is_dir() and not detected.is_dir():
            expected = f"{split}/<class>/<clip>.mp4 and keypoints/{split}/<clip>/"
            do = (
                "Point the raw folder at the downloaded clips. For your own clips, use the "
                "dataset videos."
            )
            raise RawDataError(clips, "folder", expected, "no such folder", do)
        files: dict[str, tuple[str, ...]] = {}  # path without its suffix -> the clip's files
        for clip in list_clips(clips):
            is_deeper = clip.count("/") > 1  # than the folder of a class
            if clip.lower().endswith(EXTENSIONS) and not is_deeper:
                file = f"{split}/{clip}"
                stem = file.rpartition(".")[0]
                files[stem] = (*files.get(stem, ()), file)
        # names of clips and of their class folders
        stems = set(itertools.chain.from_iterable(name.split("/") for name in files))
        labels = _StemLabels(raw, stems)
        # Keypoints whose clip is missing are listed, too, so that the accounting counts them.
        for clip in labels.list_names(split).folders - stems:
            if not clip.lower().endswith(EXTENSIONS) or clip.rpartition(".")[0] not in stems:
                files[f"{split}/{clip}"] = ()
        return RawVideos(_video(labels, split, name, files.pop(name)) for name in sorted(files))

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        return clip_tracks(
            self,
            raw,
            split,
            video,
            account,
            Rules(MIN_FRAMES),
            find_clip=lambda: _find_clip(raw, video, account),
        )


class _StemLabels(ClipLabels):
    """Labels of clips that are known by their names without ending, and by those of their folders:
    a clip's labels may lie in several folders.
    """

    def __init__(self, raw: Path, stems: Container[str]) -> None:
        super().__init__(raw, ())
        self._stems = stems

    def is_of_a_clip(self, folder: str, name: str) -> bool:
        # a folder "a" or "a.mp4", a file "a.json" or "a.mp4.json"
        stem = name.rpartition(".")[0]
        candidates = (name, stem, stem.rpartition(".")[0])
        known = any(candidate in self._stems for candidate in candidates)
        return known or super().is_of_a_clip(folder, name)


def _video(labels: ClipLabels, split: str, name: str, clips: Sequence[str]) -> VideoTexts:
    """A clip with its labels, which are searched for its class folder, then for the split's."""

    def rank(file: str) -> tuple[int, str]:
        _, _, ending = file.rpartition(".")
        return EXTENSIONS.index(f".{ending.lower()}"), file

    files = sorted(clips, key=rank) if len(clips) > 1 else clips
    folder, _, stem = name.rpartition("/")
    clip = files[0].rpartition("/")[2] if files else f"{stem}{EXTENSIONS[0]}"
    found = labels.find(clip, folder) or labels.find(clip, split)
    if found is None and files:
        found = labels.find_similar(clip, folder)
    return labels.make_video(name, files, found)


def _find_clip(raw: Path, video: RawVideo, account: VideoAccount) -> Video:
    """The first file of a video, and a note about each other one. Raises RawDataError if none."""
    clips = [file for file in video.files if file.parts[0] != KEYPOINTS]
    if not clips:
        expected = f"{video.name} with one of {', '.join(EXTENSIONS)}"
        do = "Convert it to MP4, or download it again, if YouTube still has it."
        raise RawDataError(
            raw / video.name, "video", expected, "only keypoints", do, reason="video_missing"
        )
    first, *unused = clips
    account.notes.extend(
        f"{clip_file.name} is not used: {first.name} is the same clip" for clip_file in unused
    )
    return Video(raw, first.as_posix())
