"""The user's own clips, with people found by a detector.  [raw -> tracks] -> features -> windows

    <any folders>/<clip>.mp4                    mp4, mov, mkv, avi, webm, m4v, mpg, mpeg or flv
    keypoints/<any folders>/<clip>.mp4.json     `python -m pipeline detect`, or another detector

`pipeline.clips.labels.label_files` has the names of label files, `pipeline.clips.labels.detections`
their formats. People are linked over time unless the detector has tracked them, never across a
scene cut. Tracks are cleaned as HMMR's authors cleaned InstaVariety and VLOG-people
(`pipeline.clips.tracks.linking`).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator

from pipeline.accounting import VideoAccount
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_files import ClipLabels
from pipeline.clips.listing import ENDINGS, describe_others, list_clips
from pipeline.clips.tracks.cleaning import Cleaning
from pipeline.datasets.base import Licence, Release
from pipeline.datasets.shared.clips.by_clip import stated_order, value_of_clip
from pipeline.datasets.shared.clips.clip import clip_tracks
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.datasets.shared.clips.people import Rules
from pipeline.errors import ConfigError, RawDataError, require_options
from pipeline.files.pixels.video import MAX_FPS
from pipeline.files.raw import RawVideo, RawVideos
from pipeline.grades.words import VERSION
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

LONGEST_GAP: Final = 10.0  # s: larger numbers are of frames
# name of a top folder -> split
FOLDERS: Final = {"train": "train", "val": "val", "validation": "val", "test": "test"}
# names of top folders that are not taken for a split -> the split that the user probably means
LIKE_A_SPLIT: Final = {
    **dict.fromkeys(("training", "trainset", "train_set"), "train"),
    **dict.fromkeys(("valid", "validate", "valset", "val_set", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "tests", "testset", "test_set"), "test"),
}


def _refuse_fraction(value: str) -> str:
    """Return a percentage as given. Raises ValueError for 0.1, which is probably meant as 10."""
    try:
        is_fraction = 0 < float(value) < 1
    except ValueError:
        return value  # the type reports it
    if is_fraction:
        raise ValueError(f"per cent: {round(100 * float(value))} for {value}")
    return value


Percent = Annotated[int, BeforeValidator(_refuse_fraction)]


@dataclass(frozen=True)
class OwnVideos(ClipDataset):
    """One track per person and uninterrupted stretch of visibility.

    A clip in a folder with a split's name belongs to that split. The others are drawn for `val` and
    `test` by a hash of `seed` and their path.
    """

    # Splits

    val: Percent = 0  # per cent of the clips to draw for val, 0 to 100
    test: Percent = 0  # per cent of the clips to draw for test, 0 to 100; with val at most 100
    seed: int = 0  # whole number; another one draws other clips

    # Linking

    # seconds that a person may be missing and still be the same person, 0 to 10
    max_gap: float = 1.0
    # stretches of a person with fewer frames are left out; 1 to half of `max_frames`
    min_frames: int = 40
    max_frames: int = 500  # stretches with more frames are split; at least 2
    # stretches with this share of frames that show only face and shoulders are left out; over 0, at
    # most 1
    face_only: float = 0.4
    # for prediction: add frames in which a person was missed, up to `max_gap` in a row, with
    # interpolated boxes
    bridge: bool = False
    # end all tracks at scene cuts; false: for clips in which fast pans or sharp key frames are
    # mistaken for scene cuts
    cuts: bool = True

    # put left and right of joints right where a detector has exchanged them (`clips.tracks.sides`);
    # unset: of keypoints by `python -m pipeline detect`, not of other tools
    put_sides_right: bool | None = None
    # cut tracks where they continue on another person (`clips.tracks.switches`); unset: of
    # keypoints by `python -m pipeline detect`, not of other tools
    cut_at_switches: bool | None = None

    # Limits of `pipeline.grades`

    # drop people with a joint that shakes more, in % of their box, over 0; unset: none
    max_jitter: float | None = None
    # drop people with a limb whose length varies more, in %, over 0; unset: none
    max_limb_spread: float | None = None
    # drop people whose grade is worse: doubtful drops the bad ones, good the doubtful ones, too;
    # unset: none
    min_grade: Literal["doubtful", "good"] | None = None
    # rates of the camera, frames a second, as 240 or "slow/*=240, a.mp4=120"; unset: those of the
    # files
    fps: str | None = None
    # order of the joints in files that do not name them, as coco or "lab/*=h36m, coco"; unset: the
    # order that the file's format fixes, or else the usual one
    joints: str | None = None

    name = "videos"
    splits = ("train", "val", "test")
    # 11: uneven clips: the rate of a track's own frames, `max_fps` by time; one thread decodes a
    # clip; wrong times; joint orders are stated or assumed, not searched; bad boxes, zeros,
    # places in a list
    # 12: linking under a moving camera; left and right by time
    version = 12
    release = Release(
        licence=Licence("the terms of your clips"),
        optional_splits=frozenset({"val", "test"}),  # used if a folder or a setting says so
        recording="video",
    )
    by_clip = ("fps", "joints", *ClipDataset.by_clip)
    added: ClassVar[Mapping[str, Any]] = {
        **ClipDataset.added,
        "cuts": True,
        "max_jitter": None,
        "max_limb_spread": None,
        "min_grade": None,
        "fps": None,
        "joints": None,
        "put_sides_right": None,
        "cut_at_switches": None,
    }

    def __post_init__(self) -> None:
        require_options(self)
        if min(self.val, self.test) < 0 or self.val + self.test > 100:
            expected = "percentages, 100 together at most"
            raise ConfigError(
                f"videos: val {self.val}, test {self.test}: expected {expected}", "val", "test"
            )
        if not 0 <= self.max_gap <= LONGEST_GAP:
            expected = f"expected seconds, from 0 to {LONGEST_GAP:g}"
            raise ConfigError(f"videos: max_gap is {self.max_gap:g}; {expected}", "max_gap")
        for limit in (self.max_jitter, self.max_limb_spread):
            if limit is not None and not limit > 0:
                raise ConfigError(
                    f"videos: max_jitter or max_limb_spread is {limit:g}; expected more than 0 %",
                    "max_jitter",
                    "max_limb_spread",
                )
        # these raise ConfigError for invalid options
        self.cleaning()
        self.filmed_fps("")
        super().__post_init__()

    def versions(self) -> dict[str, int]:
        """With that of grades, if these decide which tracks are dropped."""
        return self.uses | {"grades": VERSION} if self.min_grade else self.uses

    def filmed_fps(self, clip: str) -> float:
        """The rate that the option `fps` states for a clip; nan if it states none.

        clip: its path below the raw folder. Raises ConfigError for an invalid option.

        >>> OwnVideos(fps="slow/*=240, 60").filmed_fps("slow/a.mp4")
        240.0
        """

        def to_rate(number: str) -> float:
            with contextlib.suppress(ValueError):
                if 0 < float(number) <= MAX_FPS:
                    return float(number)
            expected = 'a number above 0, or "slow/*=240, a.mp4=120" by clips'
            raise ConfigError(f"videos: fps is {self.fps!r}; expected {expected}", "fps")

        if re.search(r"\d,\d+\s*(,|$)", self.fps or ""):
            expected = "a decimal point, or a blank behind a comma between entries"
            raise ConfigError(f"videos: fps is {self.fps!r}; expected {expected}", "fps")
        stated = value_of_clip(self.full_split(clip), clip, "fps", self.fps, to_rate)
        return math.nan if stated is None else stated

    def full_split(self, clip: str) -> str:
        return f"{self.name}/{self.split_of(clip)}"

    def joint_order(self, clip: str) -> StatedOrder:
        return stated_order(self.full_split(clip), self.joints, clip)

    def cleaning(self) -> Cleaning:
        """The options of cleaning. Raises ConfigError for invalid ones."""
        return Cleaning(
            min_frames=self.min_frames, max_frames=self.max_frames, face_only=self.face_only
        )

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        clips = [clip for clip in list_clips(raw) if not clip.startswith(f"{KEYPOINTS}/")]
        if not clips:
            actual = "a file" if raw.is_file() else "no such folder"
            if raw.is_dir():
                actual = describe_others(raw) or "none"
            expected = f"files that end in {ENDINGS}"
            raise RawDataError(raw, "folder", expected, actual, "Name the folder of the clips.")
        labels = ClipLabels(raw, clips)
        return RawVideos(labels.video(clip) for clip in clips if self.split_of(clip) == split)

    def label_note(self, raw: Path, split: str) -> str:
        return describe_others(raw) if split == self.splits[0] else ""

    def split_of(self, clip: str) -> str:
        """The split of a clip, by its path below the raw folder."""
        top, slash, _ = clip.partition("/")
        if slash and top.lower() in FOLDERS:
            return FOLDERS[top.lower()]
        digest = hashlib.sha256(f"{self.seed}\0{clip}".encode(errors="surrogateescape")).digest()
        drawn = int.from_bytes(digest[:8]) % 100
        if drawn < self.test:
            return "test"
        if drawn < self.test + self.val:
            return "val"
        return "train"

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        top, slash, _ = video.name.partition("/")
        likely = LIKE_A_SPLIT.get(top.lower(), split)
        if slash and likely != split:
            account.note(
                f"{top}/ names no split, so its clips belong to {split}: rename it to {likely}/"
            )
        rules = Rules(
            min_frames=self.min_frames,
            max_gap=self.max_gap,
            cleaning=self.cleaning(),
            bridge=self.bridge,
            cuts=self.cuts,
            max_jitter=self.max_jitter,
            max_limb_spread=self.max_limb_spread,
            min_grade=self.min_grade,
            filmed_fps=self.filmed_fps(video.name),
            put_sides_right=self.put_sides_right,
            cut_at_switches=self.cut_at_switches,
        )
        return clip_tracks(self, raw, split, video, account, rules)
