"""Clips of one's own, with people whom a detector found.  [raw -> tracks] -> features -> windows

    <any folders>/<clip>.mp4                    mp4, mov, mkv, avi, webm, m4v, in any capitals
    keypoints/<any folders>/<clip>.mp4.json     `python -m pipeline detect`
    keypoints/<any folders>/<clip>.json         COCO's JSON, or a list of results: AlphaPose's, COCO's
    keypoints/<any folders>/<clip>/             OpenPose --write_json, AlphaPose's own folder

Who is who is linked over time unless the detector tracked, never over a cut to another scene, and cleaned as HMMR's
authors cleaned InstaVariety and VLOG-people (`pipeline.cleaning`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.accounting import VideoAccount
from pipeline.cleaning import Cleaning
from pipeline.datasets.base import Dataset
from pipeline.datasets.people import confident, people
from pipeline.datasets.pixels import DETECTED_OUTSIDE, require_frames, require_in_picture
from pipeline.detect.clips import EXTENSIONS, clips_in
from pipeline.detect.files import KEYPOINTS, read_info
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.formats.labels.detections import (
    ALPHAPOSE_NAMES,
    Detections,
    openpose_files,
    read_openpose,
    read_results,
)
from pipeline.pixels.cuts import cuts_of
from pipeline.pixels.frames import Video
from pipeline.pixels.numbered import n_frames
from pipeline.raw import RawVideo
from pipeline.raw.digests import file_digest
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

FOLDERS: Final = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # name of a top folder -> split
MAX_GAP: Final = 12  # missing frames of a person that are bridged
UNEVEN: Final = 1.5  # times the usual time between two frames: the rate varies
TIMED: Final = 300  # frames at a clip's start whose times are compared


@dataclass(frozen=True)
class Videos(Dataset):
    """One track a person and uninterrupted stretch in which he or she can be seen.

    `val` and `test` are the percentages of clips in these splits, drawn by a hash of `seed` and the clip's path; clips
    in a top folder of a split's name belong there whatever the hash. The other options are those of
    `pipeline.cleaning.Cleaning` that depend on the clips.
    """

    val: int = 0
    test: int = 0
    seed: int = 0
    max_gap: int = MAX_GAP
    min_frames: int = 40
    max_frames: int = 500
    face_only: float = 0.4

    name: ClassVar[str] = "videos"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    version: ClassVar[int] = 1
    page: ClassVar[str] = ""
    harmless: ClassVar[frozenset[str]] = frozenset({"no_keypoints"})  # the detector need not have run on every clip

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test <= 100):
            raise ConfigError(f"videos: val {self.val}, test {self.test}: expected percentages, 100 together at most")
        if self.max_gap < 0:
            raise ConfigError(f"videos: max_gap is {self.max_gap}; expected 0 or more")
        self.cleaning()

    def cleaning(self) -> Cleaning:
        """The filter. Raises ConfigError."""
        return Cleaning(min_frames=self.min_frames, max_frames=self.max_frames, face_only=self.face_only)

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        clips = clips_in(raw)
        if not clips:
            found = "none" if raw.is_dir() else "no such folder"
            expected = f"files that end in {', '.join(EXTENSIONS)}"
            raise RawDataError(raw, "folder", expected=expected, found=found, do="Name the folder of the clips.")
        return [self._raw_video(raw, clip) for clip in clips if self.split_of(clip) == split]

    def split_of(self, clip: str) -> str:
        """The split of a clip, from its path below the raw folder alone."""
        top, slash, _ = clip.partition("/")
        if slash and top.lower() in FOLDERS:
            return FOLDERS[top.lower()]
        drawn = (
            int.from_bytes(hashlib.sha256(f"{self.seed}\0{clip}".encode(errors="surrogateescape")).digest()[:8]) % 100
        )
        return "test" if drawn < self.test else "val" if drawn < self.test + self.val else "train"

    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        labels = raw / next(iter((*video.files[1:], *video.label_folders)), Path())
        if labels == raw:
            message = f"{raw / video.name}: no keypoints in {raw / KEYPOINTS}: run `python -m pipeline detect` on it"
            account.reject("no_keypoints", message)
            return []
        source = _source(raw, video)
        info = {} if labels.is_dir() else read_info(labels)
        if "clip_digest" in info and info["clip_digest"] != file_digest(source.place):
            expected, do = f"keypoints of {source.place}", "Run `python -m pipeline detect` again."
            raise RawDataError(
                labels, "clip_digest", expected=expected, found="another clip's, or an older one's", do=do
            )
        detections = _detections(labels, PurePosixPath(video.name).stem)
        account.found = detections.n_persons
        header = source.header()
        source.require_decodable()
        require_frames(labels, source, detections.frames, account)
        require_in_picture(labels, confident(detections), source.size(), DETECTED_OUTSIDE)
        _note_rate(source, account)
        found = people(
            detections,
            account,
            self.min_frames,
            max_gap=self.max_gap,
            cuts=_cuts(info, source, account),
            cleaning=self.cleaning(),
        )
        return [self.track(split, video, fps=header.fps, frames=source, **person._asdict()) for person in found]

    @staticmethod
    def _raw_video(raw: Path, clip: str) -> RawVideo:
        path = Path(KEYPOINTS, clip)
        names = path.with_name(f"{path.name}.json"), path.with_suffix(".json")
        files = [file for file in names if (raw / file).is_file()]
        folder = path.with_suffix("")
        folders = (folder,) if not files and (raw / folder).is_dir() else ()
        return RawVideo(clip, files=(Path(clip), *files[:1]), label_folders=folders)


def _source(raw: Path, video: RawVideo) -> Video:
    try:
        return Video(raw, video.files[0].as_posix())
    except PipelineError as error:  # a backslash in its name
        expected, do = "a plain name", "Rename it."
        raise RawDataError(raw / video.files[0], "name", expected=expected, found=str(error), do=do) from error


def _detections(labels: Path, stem: str) -> Detections:
    """By what is there: one file of results, or a folder of OpenPose's or AlphaPose's."""
    if not labels.is_dir():
        return read_results(labels)
    if files := openpose_files(labels, stem):
        return read_openpose(files)
    results = [labels / name for name in (f"{stem}.json", *ALPHAPOSE_NAMES) if (labels / name).is_file()]
    if not results:
        expected = f"{stem}_<12 digits>_keypoints.json or {ALPHAPOSE_NAMES[0]}"
        raise RawDataError(labels, "keypoints", expected=expected, found="neither", do="Run the detector again.")
    return read_results(results[0])


def _cuts(info: Mapping[str, Any], source: Video, account: VideoAccount) -> list[int]:
    """Frames that begin another scene: `detect` has found them (`info`); else the clip is decoded once more."""
    known = info.get("cuts")
    if isinstance(known, list) and all(type(cut) is int for cut in known):
        found = known
    else:
        found = cuts_of(source, n_frames(source))
    if found:
        first = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        account.notes.append(f"{len(found) + 1} scenes, from the frames 0, {first}: no one is linked across")
    return found


def _note_rate(source: Video, account: VideoAccount) -> None:
    steps = source.steps(TIMED)
    if len(steps) and steps.max() > UNEVEN * steps.mean():
        account.notes.append(
            f"the frame rate varies: from {steps.min():.0f} to {steps.max():.0f} ms a frame. Frames are taken one "
            "after the other, and fps is the file's average"
        )
