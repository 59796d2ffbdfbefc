"""One video that is no dataset's, with somebody's keypoints or boxes.  [raw -> tracks] -> features -> windows

    VIDEO                                            a video file, or a folder of numbered pictures
    KEYPOINTS/<any name>_<12 digits>_keypoints.json  OpenPose --write_json, a file for every frame from 0 on; or
    KEYPOINTS/<picture's name>_keypoints.json        the same of pictures (--image_dir); or
    KEYPOINTS                                        AlphaPose's results, one JSON file
    BOXES                                            CSV with a first line `track,frame,x,y,w,h`: frames from 0 on, x
                                                     and y of the upper left corner, px

A reader like those of the datasets, so that conversion and extraction take it as they take training data. It is in no
registry: whoever predicts on a video makes one with `NewVideo.of`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.pixels import picture_pattern
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.formats.detections import (
    Detections,
    openpose_files,
    persons,
    read_alphapose,
    read_openpose,
    rows_of,
    usable,
)
from pipeline.linking import MAX_GAP
from pipeline.pixels.frames import Pictures, Video
from pipeline.raw.digests import names_in
from pipeline.raw.files import read_regular
from pipeline.raw.stand_in import is_stand_in
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Ints = NDArray[np.int64]
Float32s = NDArray[np.float32]

KEYPOINTS: Final = "keypoints"
BOXES: Final = "boxes"  # the two splits: what tells where people are
BOX_COLUMNS: Final = ("track", "frame", "x", "y", "w", "h")
BOX_SCALE: Final = 1.1  # crop side / larger side of a detector's box, which holds the whole person with some air
MIN_FRAMES: Final = 5  # fewer are a detector's mistake more often than a person
MOST_OFF: Final = 2  # frames that a detector may have lost at the end
MAX_BYTES: Final = 1 << 28  # of a file of boxes
LAST: Final = 1 << 40  # a frame that no video has
RUN: Final = "Run the detector on this very file, on every frame of it, into an empty folder."
_OPENPOSE: Final = re.compile(r"(.+)_\d{12}_keypoints\.json", re.DOTALL)


@dataclass(frozen=True)
class NewVideo(Dataset):
    """One track a person. Paths other than the video's are whole ones: they may lie anywhere."""

    video: str  # below the raw folder
    keypoints: str = ""  # OpenPose's folder or AlphaPose's file
    boxes: str = ""
    min_frames: int = MIN_FRAMES
    max_gap: int = MAX_GAP  # missing frames of a person that are predicted too, with boxes in between
    box_scale: float = BOX_SCALE

    name: ClassVar[str] = "new_video"
    splits: ClassVar[tuple[str, ...]] = (KEYPOINTS, BOXES)
    version: ClassVar[int] = 1
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
        """The reader for a video that lies anywhere. Raises ConfigError, also where something is not there."""
        for what, path in (("video", video), ("--keypoints", keypoints), ("--boxes", boxes)):
            if path is not None and not path.exists():
                raise ConfigError(f"{what} {path}: there is no such file or folder. Check its name.")
        video = video.resolve()
        labels = {KEYPOINTS: keypoints, BOXES: boxes}
        told: dict[str, Any] = {what: str(path.resolve()) for what, path in labels.items() if path is not None}
        return cls(video.relative_to(raw_folder(video)).as_posix(), **told, **options)

    @property
    def split(self) -> str:
        """The one split that there is."""
        return KEYPOINTS if self.keypoints else BOXES

    def parameters(self) -> dict[str, Any]:
        # The files are the video's own.
        return {"min_frames": self.min_frames, "max_gap": self.max_gap, "box_scale": self.box_scale}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - no labels come from a body
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

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        source = self.source(raw)
        about: dict[str, Any] = {"dataset": self.name, "split": split, "video": video.name, "frames": source}
        about["fps"] = source.header().fps if isinstance(source, Video) else math.nan
        if isinstance(source, Video):
            source.require_decodable()
        if split == KEYPOINTS:
            return self._from_keypoints(Path(self.keypoints), source, account, about)
        return self._from_boxes(Path(self.boxes), source, account, about)

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
            expected, do = "numbered jpg or png files, or a video file", "Name the folder that they lie in."
            raise RawDataError(place, "pictures", expected=expected, found="none", do=do, reason="no_picture")
        return pictures

    def _from_keypoints(
        self, labels: Path, source: Pictures | Video, account: VideoAccount, about: dict[str, Any]
    ) -> list[Track]:
        detections = _openpose(labels, source, account) if labels.is_dir() else _alphapose(labels, source)
        account.found = detections.n_persons
        detections = usable(detections, account)
        tracks = []
        for person, members in persons(detections, account):
            rows = rows_of(detections, members, account, self.min_frames)
            if rows is not None:
                frame_index, bbox, kp_2d = self._bridged(*rows, account)
                name = f"{about['video']}/{person}"
                tracks.append(Track(name=name, frame_index=frame_index, bbox=bbox, kp_2d=kp_2d, **about))
        return tracks

    def _from_boxes(
        self, labels: Path, source: Pictures | Video, account: VideoAccount, about: dict[str, Any]
    ) -> list[Track]:
        by_track = read_boxes(labels)
        account.found = sum(len(frames) for frames, _ in by_track.values())
        last = max((int(frames[-1]) for frames, _ in by_track.values()), default=-1)
        _require_frames(labels, source, last)
        tracks = []
        for track, (frame_index, bbox) in by_track.items():
            if len(frame_index) < self.min_frames:
                account.drop_track("track_too_short", len(frame_index))
                continue
            account.keep_track(len(frame_index))
            name = f"{about['video']}/{track}"
            nothing = np.zeros((len(frame_index), 0, 3), np.float32)
            frame_index, bbox, _ = self._bridged(frame_index, bbox, nothing, account)
            tracks.append(Track(name=name, frame_index=frame_index, bbox=bbox, crop_scale=self.box_scale, **about))
        return tracks

    def _bridged(
        self, frame_index: Ints, bbox: Float32s, kp_2d: Float32s, account: VideoAccount
    ) -> tuple[Ints, Float32s, Float32s]:
        """A person without gaps of up to `max_gap` frames: there the box is interpolated, and no joint is seen.

        A detector misses a person now and then; the model would else see windows cut into pieces. Frames that are
        added count as found and kept, and are noted.
        """
        short = np.diff(frame_index) <= self.max_gap + 1
        between = [np.arange(a + 1, b) for a, b in zip(frame_index[:-1][short], frame_index[1:][short], strict=True)]
        added = np.concatenate([*between, np.empty(0, np.int64)]).astype(np.int64)
        if not len(added):
            return frame_index, bbox, kp_2d
        account.found += len(added)
        account.kept += len(added)
        account.notes.append(f"{len(added)} frames between detections are predicted with interpolated boxes")
        every = np.sort(np.concatenate([frame_index, added]))
        boxes = np.column_stack([np.interp(every, frame_index, column) for column in bbox.T]).astype(np.float32)
        keypoints = np.zeros((len(every), *kp_2d.shape[1:]), np.float32)
        keypoints[np.searchsorted(every, frame_index)] = kp_2d
        return every, boxes, keypoints


def raw_folder(video: Path) -> Path:
    """What stands for a dataset's raw folder: of a stand-in's video the one with its marker, else where it lies."""
    return next((folder for folder in video.resolve().parents if is_stand_in(folder)), video.resolve().parent)


def read_boxes(file: Path) -> dict[str, tuple[Ints, Float32s]]:
    """Track -> frames (T,) and boxes (T, 4) cxcywh px, square by the larger side; tracks in order of their names.

    Lines may come in any order, and columns besides BOX_COLUMNS are not looked at. Raises RawDataError.
    """
    do = f"Write a first line {','.join(BOX_COLUMNS)} and one line for each person in each frame."
    try:
        text = read_regular(file, MAX_BYTES).decode("utf-8-sig")
        lines = csv.DictReader(io.StringIO(text), strict=True)
        if missing := [name for name in BOX_COLUMNS if name not in (lines.fieldnames or ())]:
            found = f"{lines.fieldnames}, without {', '.join(missing)}"
            raise RawDataError(file, "line 1", expected=",".join(BOX_COLUMNS), found=found, do=do)
        by_track: dict[str, dict[int, list[float]]] = {}
        for line in lines:
            track, frame, box = _box(file, f"line {lines.line_num}", line)
            if by_track.setdefault(track, {}).setdefault(frame, box) is not box:
                found = f"track {track!r} a second time in frame {frame}"
                raise RawDataError(file, f"line {lines.line_num}", expected="one box a frame", found=found, do=do)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RawDataError(file, "file", expected="CSV, in UTF-8", found=str(error), do=do) from error
    return {
        track: (np.array(sorted(boxes), np.int64), np.array([boxes[frame] for frame in sorted(boxes)], np.float32))
        for track, boxes in sorted(by_track.items())
    }


def _box(file: Path, key: str, line: dict[str, str | None]) -> tuple[str, int, list[float]]:
    """A line's track, frame and box (cxcywh px, square)."""
    track, frame, *numbers = ((line[name] or "").strip() for name in BOX_COLUMNS)
    try:
        x, y, w, h = map(float, numbers)
    except ValueError:
        x = y = w = h = math.nan
    if not (track.isprintable() and 0 < len(track) <= 200 and frame.isdecimal() and len(frame) <= 12):
        found = f"track {track!r}, frame {frame!r}"
        do = "Count frames from 0 on, and give every person a name or a number."
        raise RawDataError(file, key, expected="a track and a whole number", found=found, do=do)
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
        found, do = ",".join(numbers), "Leave out frames in which the person is not seen."
        raise RawDataError(file, key, expected="numbers x, y, w, h in px, w and h above 0", found=found, do=do)
    side = max(w, h)
    return track, int(frame), [x + w / 2, y + h / 2, side, side]


def _openpose(folder: Path, source: Pictures | Video, account: VideoAccount) -> Detections:
    """OpenPose's files, one a frame. Raises RawDataError where they are not those of this video."""
    files = _of_pictures(folder, source) or _numbered(folder, source)
    if files and isinstance(source, Video) and not files[0][1].name.startswith(f"{source.place.stem}_"):
        account.notes.append(f"the keypoints are called {files[0][1].name}, the video {source.place.name}: theirs?")
    last = files[-1][0] if files else -1
    _require_frames(folder, source, last, every=True)
    if absent := last + 1 - len(files):
        account.notes.append(f"{absent} of {last + 1} frames have no file of keypoints in {folder}")
    return read_openpose(files)


def _of_pictures(folder: Path, source: Pictures | Video) -> list[tuple[int, Path]]:
    """Files that are called as the pictures are."""
    if not isinstance(source, Pictures):
        return []
    there = set(names_in(folder))
    named = ((int(i), folder / f"{source.path(int(i)).stem}_keypoints.json") for i in source.indices())
    return [(i, file) for i, file in named if file.name in there]


def _numbered(folder: Path, source: Pictures | Video) -> list[tuple[int, Path]]:
    """Files of the video's name, or of whatever name they share."""
    names = {found[1] for name in names_in(folder) if (found := _OPENPOSE.fullmatch(name))}
    own = source.place.stem
    if own not in names and len(names) != 1:
        those = f"those of {len(names)} videos, such as {', '.join(sorted(names)[:3])}" if names else "none"
        expected = f"{own}_<12 digits>_keypoints.json, a file for every frame"
        raise RawDataError(folder, "keypoints", expected=expected, found=those, do=RUN, reason="no_keypoints")
    return openpose_files(folder, own if own in names else names.pop())


def _alphapose(file: Path, source: Pictures | Video) -> Detections:
    """AlphaPose's results, which name only the frames with somebody in them."""
    detections = read_alphapose(file)
    _require_frames(file, source, int(max(detections.frame_index, default=-1)))
    return detections


def _require_frames(labels: Path, source: Pictures | Video, last: int, *, every: bool = False) -> None:
    """Raise RawDataError unless the labels, which reach to frame `last`, fit the video; `every`: and reach its end."""
    said = source.header().n_frames if isinstance(source, Video) else None
    if said is not None and (last + 1 == said if every else last < said):
        return  # else its frames are counted, since headers are often wrong
    there = n_frames(source)
    if last >= there + MOST_OFF or (every and last + 1 < there - MOST_OFF):
        expected = f"labels of the {there} frames of {source.place}"
        raise RawDataError(
            labels, "frames", expected=expected, found=f"{last + 1}", do=RUN, reason="frame_count_mismatch"
        )


def n_frames(source: Pictures | Video) -> int:
    """How many frames there are: of pictures up to the last one, of a video what can be decoded, whatever it says."""
    if isinstance(source, Pictures):
        return int(source.indices().max(initial=-1)) + 1
    tries = 0

    def count() -> None:
        nonlocal tries
        tries += 1

    next(source.read([LAST], alive=count))
    return max(tries - 1, 0)  # the last try finds the end
