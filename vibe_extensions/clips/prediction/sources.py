"""Where people to predict come from: clips and photos, in which they are found, or which come with their keypoints.

Clips anywhere become one raw folder of the dataset `videos` by links; photos become clips without loss. Detection,
conversion, extraction and drawing then know nothing but clips.

    <out>/raw/<clip>                  a link
    <out>/raw/<photo>.avi             a photo, as a clip of one frame
    <out>/raw/keypoints/<clip>.json   what `detect` writes, or a link to the user's
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.datasets.videos import FOLDERS, OwnVideos
from pipeline.detect.base import DetectionResources, Detector
from pipeline.detect.clips import EXTENSIONS, clips_in
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.run import DetectionReport, detect_clips
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.raw.files import whole_file_digest
from pipeline.files.raw.stand_in import MARKER, is_stand_in
from pipeline.linking import MAX_GAP
from vibe_extensions.pages.video_file import DEFAULT_FPS, opencv_writer
from vibe_model import runs

RAW: Final = "raw"
PHOTOS: Final = (".jpg", ".jpeg", ".png")
MIN_FRAMES: Final = 5  # fewer are a detector's mistake more often than a person
SPLIT: Final = "train"  # of `videos`: where clips are unless they say otherwise


@dataclass(frozen=True)
class ClipsToPredict:
    """A raw folder of clips, and the reader of it."""

    named: Path  # by the user; of several the first
    reader: OwnVideos
    raw: Path
    people: Mapping[str, Any]  # who found them, for the files that are written
    problems: Mapping[str, str] = field(default_factory=dict)  # what is no clip -> why

    @property
    def split(self) -> str:
        """Its name in a cache."""
        return f"{self.reader.name}/{SPLIT}"


def of_clips(
    named: Sequence[Path],
    out: Path,
    *,
    keypoints: Path | None = None,
    min_frames: int | None = None,
    max_gap: int = MAX_GAP,
) -> ClipsToPredict:
    """Clips, photos, folders of either: the raw folder `out`/raw of them, and of no other.

    keypoints: of the one clip, a file or folder in any format of `pipeline.files.formats.labels.detections`.
    min_frames: None: of photos 1, else 5. Raises ConfigError for what is none of these, where photos and clips come
    together, and for keypoints of several clips; StandInMixed; RawDataError where every photo is damaged.
    """
    clips = _named_clips(named)
    photos = [path for path in clips.values() if path.suffix.lower() in PHOTOS]
    if 0 < len(photos) < len(clips):
        raise ConfigError(f"{photos[0]}: expected photos alone or clips alone, found both. Predict them one by one.")
    if keypoints is not None and len(clips) > 1:
        raise ConfigError(f"--keypoints: expected the one video that it is of, found {count(len(clips), 'video')}")
    if keypoints is not None and not keypoints.exists():
        raise ConfigError(f"--keypoints {keypoints}: there is no such file or folder. Check its name.")
    demo = runs.one_kind({str(path): is_stand_in(raw_folder(path)) for path in clips.values()})
    raw = out / RAW
    raw.mkdir(parents=True, exist_ok=True)
    for old in clips_in(raw):
        if old not in clips and not old.startswith(f"{KEYPOINTS}/"):
            (raw / old).unlink()
    problems = {}
    for name, path in clips.items():
        try:
            _put(raw / name, path)
        except RawDataError as error:
            problems[name] = str(error)
            if len(problems) == len(clips):
                raise
        _put_labels(raw / KEYPOINTS, name, keypoints)
    (raw / MARKER).unlink(missing_ok=True)
    if demo:
        shutil.copyfile(raw_folder(next(iter(clips.values()))) / MARKER, raw / MARKER)
    fewest = min_frames or (1 if photos else MIN_FRAMES)
    # Training wants less: nothing is split, and only who never shows more than a face is left out.
    reader = OwnVideos(min_frames=fewest, max_gap=max_gap, max_frames=10**9, face_only=1.0, bridge=True)
    people = {} if keypoints is None else {"from": KEYPOINTS, "named": keypoints.name}
    return ClipsToPredict(named[0], reader, raw, people, problems)


def detected(
    source: ClipsToPredict, detector: Detector, *, device: str, progress: Progress
) -> tuple[ClipsToPredict, DetectionReport]:
    """The clips with the people that are found in them. Raises what `detect_clips` does."""
    report = detect_clips(
        source.raw, source.raw / KEYPOINTS, detector, DetectionResources(device=device), progress=progress
    )
    people = {"from": f"detector {detector.name}", "named": KEYPOINTS}
    return replace(source, people=people, problems={**source.problems, **report.problems}), report


def raw_folder(video: Path) -> Path:
    """What stands for a dataset's raw folder: of demo data the one with its marker, else the video's own folder."""
    own = video.parent.resolve()
    return next((folder for folder in video.resolve().parents if is_stand_in(folder)), own)


def _named_clips(named: Iterable[Path]) -> dict[str, Path]:
    """Path below the raw folder -> clip or photo."""
    paths = list(dict.fromkeys(Path(os.path.abspath(path)) for each in named for path in _clips_of(each)))  # noqa: PTH100
    top = os.path.commonpath([path.parent for path in paths])
    clips: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(top)
        if name.parts[0].lower() in (*FOLDERS, KEYPOINTS) and len(name.parts) > 1:  # `videos` takes it for a split
            name = Path("clips", name)
        if path.suffix.lower() in PHOTOS:
            short = name.with_suffix(".avi")
            name = name.with_name(f"{name.name}.avi") if short.as_posix() in clips else short
        clips[name.as_posix()] = path
    return clips


def _clips_of(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder. Check its name.")
    if not path.is_dir():
        if path.suffix.lower() not in (*EXTENSIONS, *PHOTOS):
            endings = ", ".join((*EXTENSIONS, *PHOTOS))
            raise ConfigError(
                f"{path}: expected a clip, a photo or a folder of clips: {endings}; found {path.suffix!r}"
            )
        yield path
    elif clips := clips_in(path):
        yield from (path / clip for clip in clips)
    else:
        expected = f"clips ({', '.join(EXTENSIONS)})"
        do = "Name another folder, or photos by their names; make a clip of numbered pictures first."
        raise ConfigError(f"{path}: expected {expected}, found none. {do}")


def _put(clip: Path, path: Path) -> None:
    """Have a clip of these frames at `clip`: nothing is written where that is so already."""
    clip.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in EXTENSIONS:
        _link(clip, path)
        return
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)  # turned as its EXIF header says
    if bgr is None:
        do = "Save it again as JPEG or PNG."
        raise RawDataError(path, "photo", expected="a picture", found="what OpenCV cannot decode", do=do)
    part = clip.with_name(f".{clip.name}.part.avi")
    try:
        with opencv_writer(part, "MPNG", DEFAULT_FPS, bgr.shape[1], bgr.shape[0]) as write:  # the same bytes each time
            write(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))
        if not clip.is_file() or whole_file_digest(clip) != whole_file_digest(part):
            part.replace(clip)
    finally:
        part.unlink(missing_ok=True)


def _put_labels(folder: Path, clip: str, keypoints: Path | None) -> None:
    """Link the user's keypoints of a clip; without any, leave no link of an earlier command to be read."""
    if keypoints is None:
        for link in (path for path in folder.rglob("*") if path.is_symlink()):
            link.unlink()
        return
    if folder.exists():
        shutil.rmtree(folder)
    suffix = "" if keypoints.is_dir() else keypoints.suffix.lower() or ".json"
    (folder / clip).parent.mkdir(parents=True, exist_ok=True)
    _link(folder / f"{clip}{suffix}", keypoints.resolve())


def _link(place: Path, target: Path) -> None:
    if not (place.is_symlink() and place.readlink() == target):
        place.unlink(missing_ok=True)
        place.symlink_to(target)
