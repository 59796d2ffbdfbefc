"""One video of the user's own, with keypoints or boxes of the people in it.  [raw -> tracks] -> features -> windows

    VIDEO                       a video file, or a folder of numbered pictures
    KEYPOINTS                   a file or folder in any format of `files.formats.labels.detections`; of pictures also
                                OpenPose's <picture's name>_keypoints.json
    BOXES                       the same, for people of whom only boxes are to be used

A reader like those of the datasets, so that conversion and extraction treat the video as they treat training data. It
is in no registry: `predict` makes one with `NewVideo.of`. Its splits are of the dataset `videos`, as one's own clips
are, so that commands that only look into the cache know them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.datasets.people import BOX_SCALE, confident, info_of, people, scene_cuts, with_bridges
from pipeline.datasets.pixels import DETECTED_OUTSIDE, MOST_OUTSIDE, SAME_VIDEO, require_frames, require_in_picture
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.formats.labels.detections import Detections, numbered_files, read_detections, read_frames
from pipeline.files.pixels.frames import Pictures, Video
from pipeline.files.pixels.numbered import picture_pattern
from pipeline.files.raw import RawVideo
from pipeline.files.raw.digests import names_in
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.linking import MAX_GAP
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Ints = NDArray[np.int64]
Float32s = NDArray[np.float32]

KEYPOINTS: Final = "keypoints"
BOXES: Final = "boxes"  # the two splits: what shows where people are
MIN_FRAMES: Final = 5  # fewer are a detector's mistake more often than a person


@dataclass(frozen=True)
class NewVideo(Dataset):
    """One track a person. Paths other than the video's are absolute: the files may be anywhere."""

    video: str  # below the raw folder
    keypoints: str = ""  # a detector's folder or file
    boxes: str = ""
    min_frames: int = MIN_FRAMES
    max_gap: int = MAX_GAP  # missing frames of a person that are predicted too, with boxes in between
    box_scale: float = BOX_SCALE

    name: ClassVar[str] = "videos"
    splits: ClassVar[tuple[str, ...]] = (KEYPOINTS, BOXES)
    version: ClassVar[int] = 4
    page: ClassVar[str] = ""
    keypoints_from: ClassVar[str] = "detected"

    def __post_init__(self) -> None:
        if bool(self.keypoints) == bool(self.boxes):
            raise ConfigError(f"{self.video}: expected keypoints or boxes, found {'both' if self.boxes else 'neither'}")
        if self.min_frames < 1 or self.max_gap < 0 or not 0 < self.box_scale < math.inf:
            raise ConfigError(
                f"min_frames {self.min_frames}, max_gap {self.max_gap}, box_scale {self.box_scale}: expected 1 or "
                "more, 0 or more, and more than 0"
            )

    @classmethod
    def of(cls, video: Path, *, keypoints: Path | None = None, boxes: Path | None = None, **options: Any) -> Self:
        """The reader for a video anywhere. Raises ConfigError, also where a file or folder is missing."""
        for what, path in (("video", video), ("--keypoints", keypoints), ("--boxes", boxes)):
            if path is not None and not path.exists():
                raise ConfigError(f"{what} {path}: there is no such file or folder. Check its name.")
        target = video.resolve()  # a link keeps its own name, but demo data stay what they are behind one
        video = target if is_stand_in(raw_folder(target)) else video.parent.resolve() / video.name
        labels = {KEYPOINTS: keypoints, BOXES: boxes}
        given: dict[str, Any] = {what: str(path.resolve()) for what, path in labels.items() if path is not None}
        return cls(video.relative_to(raw_folder(video)).as_posix(), **given, **options)

    @property
    def split(self) -> str:
        """The one split that there is."""
        return KEYPOINTS if self.keypoints else BOXES

    def parameters(self) -> dict[str, Any]:
        # The files are the video's own.
        return {"min_frames": self.min_frames, "max_gap": self.max_gap, "box_scale": self.box_scale}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index", "bbox", "kp_2d") if split == KEYPOINTS else ("frame_index", "bbox")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        self.check_split(split)
        video, labels = Path(self.video), Path(self.keypoints or self.boxes)
        pictures, folder = (raw / video).is_dir(), labels.is_dir()
        return [
            RawVideo(
                video.stem,
                files=(*(() if pictures else (video,)), *(() if folder else (labels,))),
                folders=(video,) if pictures else (),
                label_folders=(labels,) if folder else (),
            )
        ]

    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        source = self.source(raw)
        about: dict[str, Any] = {"frames": source, "fps": math.nan}
        if isinstance(source, Video):
            about["fps"] = source.header().fps
            source.require_decodable()
        labels, tracks = Path(self.keypoints or self.boxes), []
        outside, gap = (DETECTED_OUTSIDE, MAX_GAP) if split == KEYPOINTS else (MOST_OUTSIDE, self.max_gap)
        found = _detections(labels, source, account)
        account.found = found.n_persons
        require_in_picture(labels, confident(found), source.size(), outside, boxes=found.boxes_alone)
        if split == BOXES and found.identity is not None:  # who has one keeps it, however long he or she is missing
            gap = max(found.frames)
        cuts: Sequence[int] = ()
        if isinstance(source, Video):  # a person whom the labels themselves name stays one person behind a cut
            info = info_of(labels, source)
            cuts = scene_cuts(info, source, account, decode=found.identity is None)
        persons = people(found, account, self.min_frames, max_gap=gap, cuts=cuts)
        for person in with_bridges(persons, self.max_gap, account):
            fields = person._asdict()
            if split == BOXES:
                fields["crop_scale"] = self.box_scale
                del fields["kp_2d"]
            tracks.append(self.track(split, video, **fields, **about))
        return tracks

    def source(self, raw: Path) -> Pictures | Video:
        """Where the frames are. Raises RawDataError for a folder without numbered pictures and for an odd name."""
        place = raw / self.video
        if not place.is_dir():
            return Video(raw, self.video)
        pictures = picture_pattern(raw, Path(self.video))
        if pictures is None:
            expected, do = "numbered jpg or png files, or a video file", "Name the folder that they are in."
            raise RawDataError(place, "pictures", expected=expected, found="none", do=do, reason="no_picture")
        return pictures


def raw_folder(video: Path) -> Path:
    """What stands for a dataset's raw folder: of demo data the one with its marker, else the video's own folder."""
    own = video.parent.resolve()
    return next((folder for folder in video.resolve().parents if is_stand_in(folder)), own)


def _detections(labels: Path, source: Pictures | Video, account: VideoAccount) -> Detections:
    """Everybody found, in frames of `source`. Raises RawDataError where the labels are not those of this video."""
    stem = source.place.stem
    files = _of_pictures(labels, source) if labels.is_dir() else []
    found = read_frames(files, source.size) if files else read_detections(labels, stem, source.size, account.notes)
    if found is None:
        expected = f"{stem}_<12 digits>_keypoints.json, a file for every frame"
        raise RawDataError(labels, "keypoints", expected=expected, found="none", do=SAME_VIDEO, reason="no_keypoints")
    first = source.first if isinstance(source, Pictures) and found.by_number and not files else 0
    if first and min(found.frames, default=0) >= first:  # labels' numbers are the pictures' own, unless one is smaller
        frames = [frame - first for frame in found.frames]
        found = replace(found, frames=frames, frame_index=found.frame_index - first)
    if labels.is_dir() and not files and isinstance(source, Video):
        (_, one), *_ = numbered_files(labels, stem) or [(0, labels / stem)]
        if not one.name.startswith(stem):
            account.notes.append(
                f"the keypoints are called {one.name}, the video {source.place.name}: check that they belong together"
            )
    require_frames(labels, source, found.frames, account, every=found.complete)
    if found.complete and (absent := max(found.frames, default=-1) + 1 - len(found.frames)):
        count = max(found.frames) + 1
        account.notes.append(f"{absent} of {count} frames have no file of keypoints in {labels}")
    return found


def _of_pictures(folder: Path, source: Pictures | Video) -> list[tuple[int, Path]]:
    """OpenPose's files that are named as the pictures are."""
    if not isinstance(source, Pictures):
        return []
    there = set(names_in(folder))
    named = ((int(i), folder / f"{source.path(int(i)).stem}_keypoints.json") for i in source.indices())
    return [(i, file) for i, file in named if file.name in there]
