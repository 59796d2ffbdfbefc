"""Where people to predict come from: clips and photos, in which they are found; or a labelled video.

Clips anywhere become one raw folder of the dataset `videos` by links; pictures become clips without loss. Detection,
conversion, extraction and drawing then know nothing but clips.

    <out>/raw/<clip>                  a link
    <out>/raw/<photo>.avi             a photo, or a folder of numbered pictures
    <out>/raw/keypoints/<clip>.json   what `detect` writes
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pipeline.cli.progress import Progress
from pipeline.datasets.base import Dataset
from pipeline.datasets.new_video import MIN_FRAMES, NewVideo, raw_folder
from pipeline.datasets.videos import FOLDERS, Videos
from pipeline.detect.base import Detector
from pipeline.detect.clips import EXTENSIONS, clips_in
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.run import Machine, Report, detect_clips
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.pixels.frames import Image, Video
from pipeline.files.pixels.numbered import picture_pattern
from pipeline.files.raw.digests import whole_file_digest
from pipeline.files.raw.stand_in import MARKER, is_stand_in
from pipeline.linking import MAX_GAP
from tasks.prediction.overlay import DEFAULT_FPS
from tasks.prediction.video_file import opencv_writer
from vibe_model import runs

RAW: Final = "raw"
PICTURES: Final = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Source:
    """A raw folder, and the reader of the one split that is predicted."""

    named: Path  # by the user; of several the first
    reader: Dataset
    split: str
    raw: Path
    people: Mapping[str, Any]  # who found them, for the files that are written
    problems: Mapping[str, str] = field(default_factory=dict)  # what is no clip -> why


def labelled(video: Path, labels: Mapping[str, Any]) -> Source:
    """One video with keypoints or boxes. labels: what `NewVideo.of` takes.

    Raises ConfigError, and RawDataError for what is no video.
    """
    reader, raw = NewVideo.of(video, **labels), raw_folder(video)
    source = reader.source(raw.resolve())
    if isinstance(source, Video):
        source.require_decodable()  # before anything is reported about what fits the model
    named = Path(reader.keypoints or reader.boxes)
    return Source(video, reader, reader.split, raw, {"from": reader.split, "named": named.name})


def of_clips(
    named: Sequence[Path], out: Path, *, min_frames: int | None = None, max_gap: int = MAX_GAP, fps: float | None = None
) -> Source:
    """Clips, photos, folders of either: the raw folder `out`/raw of them, and of no other.

    min_frames: None: of photos 1, else 5. fps: of numbered pictures. Raises ConfigError for what is none of these, and
    where photos and clips come together; StandInMixed; RawDataError where every photo is damaged.
    """
    places = _named_clips(named)
    photos = [path for path in places.values() if path.suffix.lower() in PICTURES]
    if 0 < len(photos) < len(places):
        raise ConfigError(f"{photos[0]}: expected photos alone or clips alone, found both. Predict them one by one.")
    demo = runs.one_kind({str(path): is_stand_in(raw_folder(path)) for path in places.values()})
    raw = out / RAW
    raw.mkdir(parents=True, exist_ok=True)
    for old in clips_in(raw):
        if old not in places:
            (raw / old).unlink()
    problems = {}
    for name, path in places.items():
        try:
            _put(raw / name, path, fps or DEFAULT_FPS)
        except RawDataError as error:
            problems[name] = str(error)
            if len(problems) == len(places):
                raise
    (raw / MARKER).unlink(missing_ok=True)
    if demo:
        shutil.copyfile(raw_folder(next(iter(places.values()))) / MARKER, raw / MARKER)
    least = min_frames or (1 if photos else MIN_FRAMES)
    # Training wants less: nothing is split, and only who never shows more than a face is left out.
    reader = Videos(min_frames=least, max_gap=max_gap, max_frames=10**9, face_only=1.0, bridge=True)
    return Source(named[0], reader, "train", raw, {}, problems)


def detected(source: Source, detector: Detector, *, device: str, progress: Progress) -> tuple[Source, Report]:
    """The source with the people that are found in it. Raises what `detect_clips` does."""
    report = detect_clips(source.raw, source.raw / KEYPOINTS, detector, Machine(device), progress=progress)
    people = {"from": f"detector {detector.name}", "named": KEYPOINTS}
    return replace(source, people=people, problems={**source.problems, **report.problems}), report


def _named_clips(named: Iterable[Path]) -> dict[str, Path]:
    """Path below the raw folder -> clip, photo, or folder of numbered pictures."""
    found = list(dict.fromkeys(Path(os.path.abspath(path)) for each in named for path in _clips_of(each)))  # noqa: PTH100
    top = os.path.commonpath([path.parent for path in found])
    places = {}
    for path in found:
        name = path.relative_to(top)
        if name.parts[0].lower() in (*FOLDERS, KEYPOINTS) and len(name.parts) > 1:  # `videos` takes it for a split
            name = Path("clips", name)
        places[name.as_posix() if path.suffix.lower() in EXTENSIONS else f"{name.as_posix()}.avi"] = path
    return places


def _clips_of(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder. Check its name.")
    if not path.is_dir():
        if path.suffix.lower() not in (*EXTENSIONS, *PICTURES):
            known = ", ".join((*EXTENSIONS, *PICTURES))
            raise ConfigError(f"{path}: expected a clip, a photo or a folder of clips: {known}; found {path.suffix!r}")
        yield path
    elif clips := clips_in(path):
        yield from (path / clip for clip in clips)
    elif picture_pattern(path.parent.resolve(), Path(path.resolve().name)) is not None:
        yield path
    else:
        expected = f"clips ({', '.join(EXTENSIONS)}), or numbered jpg or png files"
        raise ConfigError(f"{path}: expected {expected}, found none. Name another folder, or photos by their names.")


def _put(place: Path, path: Path, fps: float) -> None:
    """Have a clip of these frames at `place`: nothing is written where that is so already."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in EXTENSIONS and path.is_file():
        if not (place.is_symlink() and place.readlink() == path):
            place.unlink(missing_ok=True)
            place.symlink_to(path)
        return
    images = _numbered(path) if path.is_dir() else iter([_photo(path)])
    part = place.with_name(f".{place.name}.part.avi")
    try:
        first = next(images)
        with opencv_writer(part, "MPNG", fps, first.shape[1], first.shape[0]) as write:  # the same bytes of the same
            for image in itertools.chain([first], images):
                write(image)
        if place.is_file() and whole_file_digest(place) == whole_file_digest(part):
            return
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _photo(path: Path) -> Image:
    """Turned as its EXIF header says."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        do = "Save it again as JPEG or PNG."
        raise RawDataError(path, "photo", expected="a picture", found="what OpenCV cannot decode", do=do)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _numbered(folder: Path) -> Iterator[Image]:
    """Every picture from the first number to the last; one that is missing or damaged is black."""
    pictures = picture_pattern(folder.parent.resolve(), Path(folder.resolve().name))
    assert pictures is not None
    width, height = pictures.size()
    for frame in pictures.read(range(int(pictures.indices().max()) + 1)):
        fits = frame.image is not None and frame.image.shape[:2] == (height, width)
        yield frame.image if frame.image is not None and fits else np.zeros((height, width, 3), np.uint8)
