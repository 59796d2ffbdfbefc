"""One video of the user's own, with keypoints or boxes of the people in it.  [raw -> tracks] -> features -> windows

    VIDEO                                            a video file, or a folder of numbered pictures
    KEYPOINTS/<any name>_<12 digits>_keypoints.json  OpenPose --write_json, a file for every frame from 0 on; or
    KEYPOINTS/<picture's name>_keypoints.json        the same of pictures (--image_dir); or
    KEYPOINTS                                        AlphaPose's results, one JSON file
    BOXES                                            CSV with a first line `track,frame,x,y,w,h`: frames from 0 on, x
                                                     and y of the upper left corner, px

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
from pipeline.datasets.people import bridged, confident, people, with_bridges
from pipeline.datasets.pixels import DETECTED_OUTSIDE, SAME_VIDEO, require_frames, require_in_picture
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.formats.labels.boxes_csv import read_boxes
from pipeline.formats.labels.detections import Detections, openpose_files, read_alphapose, read_openpose
from pipeline.linking import MAX_GAP
from pipeline.pixels.frames import Pictures, Video
from pipeline.pixels.numbered import picture_pattern
from pipeline.raw import RawVideo
from pipeline.raw.digests import names_in
from pipeline.raw.stand_in import is_stand_in
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Ints = NDArray[np.int64]
Float32s = NDArray[np.float32]

KEYPOINTS: Final = "keypoints"
BOXES: Final = "boxes"  # the two splits: what shows where people are
BOX_SCALE: Final = 1.1  # crop side / larger side of a detector's box, which holds the whole person with some air
MIN_FRAMES: Final = 5  # fewer are a detector's mistake more often than a person


@dataclass(frozen=True)
class NewVideo(Dataset):
    """One track a person. Paths other than the video's are absolute: the files may be anywhere."""

    video: str  # below the raw folder
    keypoints: str = ""  # OpenPose's folder or AlphaPose's file
    boxes: str = ""
    min_frames: int = MIN_FRAMES
    max_gap: int = MAX_GAP  # missing frames of a person that are predicted too, with boxes in between
    box_scale: float = BOX_SCALE

    name: ClassVar[str] = "videos"
    splits: ClassVar[tuple[str, ...]] = (KEYPOINTS, BOXES)
    version: ClassVar[int] = 2
    page: ClassVar[str] = ""

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
        labels = Path(self.keypoints or self.boxes)
        tracks = []
        if split == KEYPOINTS:
            detections = _openpose(labels, source, account) if labels.is_dir() else _alphapose(labels, source, account)
            account.found = detections.n_persons
            require_in_picture(labels, confident(detections), source.size(), DETECTED_OUTSIDE)
            for person in people(detections, account, self.min_frames):
                bridges = with_bridges(person, self.max_gap, account)
                tracks.append(self.track(split, video, **bridges._asdict(), **about))
            return tracks
        by_track = read_boxes(labels)
        account.found = sum(len(frames) for frames, _ in by_track.values())
        frames = sorted({int(frame) for frames, _ in by_track.values() for frame in frames})
        require_frames(labels, source, frames, account)
        require_in_picture(labels, _corners([boxes for _, boxes in by_track.values()]), source.size())
        for name, (frame_index, boxes) in by_track.items():
            if len(frame_index) < self.min_frames:
                account.drop_track("track_too_short", len(frame_index))
                continue
            account.keep_track(len(frame_index))
            every, bbox = bridged(frame_index, boxes, self.max_gap, account)
            tracks.append(
                self.track(split, video, name, frame_index=every, bbox=bbox, crop_scale=self.box_scale, **about)
            )
        return tracks

    def source(self, raw: Path) -> Pictures | Video:
        """Where the frames are. Raises RawDataError for a folder without numbered pictures and for an odd name."""
        place = raw / self.video
        try:
            if not place.is_dir():
                return Video(raw, self.video)
            pictures = picture_pattern(raw, Path(self.video))
        except RawDataError:
            raise
        except PipelineError as error:  # a backslash in its name
            raise RawDataError(place, "name", expected="a plain name", found=str(error), do="Rename it.") from error
        if pictures is None:
            expected, do = "numbered jpg or png files, or a video file", "Name the folder that they are in."
            raise RawDataError(place, "pictures", expected=expected, found="none", do=do, reason="no_picture")
        return pictures


def raw_folder(video: Path) -> Path:
    """What stands for a dataset's raw folder: of demo data the one with its marker, else the video's own folder."""
    own = video.parent.resolve()
    return next((folder for folder in video.resolve().parents if is_stand_in(folder)), own)


def _openpose(folder: Path, source: Pictures | Video, account: VideoAccount) -> Detections:
    """OpenPose's files, one a frame. Raises RawDataError where they are not those of this video."""
    files = _of_pictures(folder, source) or _numbered(folder, source)
    if files and isinstance(source, Video) and not files[0][1].name.startswith(f"{source.place.stem}_"):
        account.notes.append(f"the keypoints are called {files[0][1].name}, the video {source.place.name}: theirs?")
    numbers = [number for number, _ in files]
    require_frames(folder, source, numbers, account, every=True)
    last = numbers[-1] if numbers else -1
    if absent := last + 1 - len(files):
        account.notes.append(f"{absent} of {last + 1} frames have no file of keypoints in {folder}")
    return read_openpose(files)


def _of_pictures(folder: Path, source: Pictures | Video) -> list[tuple[int, Path]]:
    """Files that are named as the pictures are."""
    if not isinstance(source, Pictures):
        return []
    there = set(names_in(folder))
    named = ((int(i), folder / f"{source.path(int(i)).stem}_keypoints.json") for i in source.indices())
    return [(i, file) for i, file in named if file.name in there]


def _numbered(folder: Path, source: Pictures | Video) -> list[tuple[int, Path]]:
    """Files of the video's name, or of whatever name they share."""
    own = source.place.stem
    files = openpose_files(folder, own)
    if not files:
        expected = f"{own}_<12 digits>_keypoints.json, a file for every frame"
        raise RawDataError(folder, "keypoints", expected=expected, found="none", do=SAME_VIDEO, reason="no_keypoints")
    before = _before(source, [number for number, _ in files])
    return [(number - before, file) for number, file in files]


def _alphapose(file: Path, source: Pictures | Video, account: VideoAccount) -> Detections:
    """AlphaPose's results, which name only the frames with a person in them."""
    detections = read_alphapose(file)
    if before := _before(source, detections.frames):
        frames = [frame - before for frame in detections.frames]
        detections = replace(detections, frames=frames, frame_index=detections.frame_index - before)
    require_frames(file, source, detections.frames, account)
    return detections


def _before(source: Pictures | Video, numbers: Sequence[int]) -> int:
    """What is to be subtracted from labels' numbers: of pictures they are the pictures' own, unless one is smaller."""
    first = source.first if isinstance(source, Pictures) else 0
    return first if min(numbers, default=0) >= first else 0


def _corners(boxes: Sequence[Float32s]) -> NDArray[np.float32]:
    """(N, 2, 3) the upper left and lower right corners of all boxes, as joints with confidence 1."""
    rows = np.concatenate([*boxes, np.empty((0, 4), np.float32)])
    ends = [np.column_stack([rows[:, :2] + sign * rows[:, 2:] / 2, np.ones(len(rows))]) for sign in (-1, 1)]
    return np.stack(ends, axis=1).astype(np.float32)
