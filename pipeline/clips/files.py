"""The keypoint files that `detect` writes for clips.  [pixels] -> raw keypoints -> tracks

`python -m pipeline detect` writes one file for each clip `<folders>/<clip>.mp4`:

    keypoints/<folders>/<clip>.mp4.json     the clip's keypoint file
    keypoints/.detect/<fingerprint>         why a clip has no keypoint file

`pipeline.clips.labels.label_files` finds a clip's labels among these files and those of other
tools. Keypoint
files have COCO's JSON format; pycocotools and `pipeline.clips.labels.detections` read them:

    {"info": {...},                 on a line of its own: a fingerprint, the detector, the clip, its
                                    cuts, frame counts
     "images": [{"id", "frame_index", "file_name", "width", "height"}, ...],
                                    every decoded frame, from 0; where the camera moves, "camera": 8
                                    numbers of the `pipeline.people.homography` from the frame
                                    before
     "annotations": [{"id", "image_id", "category_id", "bbox" x y w h px,
                      "keypoints" 17 x (x, y, v), "num_keypoints", "score",
                      "keypoint_scores" 17 x 0..1, "area", "iscrowd"}, ...],
     "categories": [...]}           COCO's person

v is 2 for a joint of confidence 0.3 or more, 1 for one of less, 0 for an unknown one.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import FileState
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import Ints

MADE_BY: Final = "python -m pipeline detect"
# the folder beside clips in which the dataset `videos` looks for them
KEYPOINTS: Final = "keypoints"
RECORDS: Final = ".detect"  # folder of the lock, and of the reasons why clips have no file
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
VERSION: Final = 2  # raised by hand whenever the same clip and detector would give another file
END: Final = b"}]}\n"  # only a complete file ends like this


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The keypoint file that `detect` writes for one clip into the folder `out`.

    The fingerprint depends on the clip's pixels, the detector and its options.
    """

    out: Path
    clip: str  # path below the raw folder
    fingerprint: str

    @property
    def file(self) -> Path:
        """The file to write."""
        return keypoint_file(self.out, self.clip)

    @property
    def failed(self) -> Path:
        """File with the reason why an earlier run with the same fingerprint gave the clip up."""
        return self.out / RECORDS / self.fingerprint

    def is_up_to_date(self) -> bool:
        """Whether the file is complete and has this fingerprint.

        Raises RawDataError for a file that `detect` did not write: it is never replaced.
        """
        if len(os.fsencode(self.file.name)) > LONGEST_NAME:
            raise OSError(
                errno.ENAMETOOLONG, "File name too long. Rename the clip.", str(self.file)
            )
        if not self.file.exists():
            return False
        detection = read_detection(self.file)
        if detection is None:
            expected = f"a file that `{MADE_BY}` has written"
            actual = "another one, which is left as it is"
            do = "Move it, or name another folder."
            raise RawDataError(self.file, "description", expected, actual, do)
        return detection.fingerprint == self.fingerprint and self.is_whole()

    def is_whole(self) -> bool:
        """Whether the file is complete. Raises OSError."""
        with self.file.open("rb") as stream:
            stream.seek(max(self.file.stat().st_size - len(END), 0))
            return stream.read() == END


def keypoint_file(out: Path, clip: str) -> Path:
    """Path of a clip's keypoint file."""
    return out / f"{clip}.json"


@dataclass(frozen=True, slots=True)
class _Detection:
    """How `detect` has made a keypoint file."""

    detector: str
    options: Mapping[str, Any]  # of the detector
    clip: str
    clip_digest: str | None
    fingerprint: str


def read_detection(file: Path) -> _Detection | None:
    """Read how a keypoint file was made; None if `detect` did not write it, or it is missing."""
    info = read_info(file)
    if info.get("description") != MADE_BY:
        return None
    return _Detection(
        detector=str(info.get("detector")),
        options=info.get("options") or {},
        clip=str(info.get("clip")),
        clip_digest=info.get("clip_digest"),
        fingerprint=str(info.get("fingerprint")),
    )


def read_info(file: Path) -> dict[str, Any]:
    """Read the `info` in a keypoint file's first line; {} for a missing file or another format."""
    try:
        with open_regular(file) as stream:
            line = stream.readline(1 << 20)
            if MADE_BY.encode() in line and not line.endswith(b"\n"):
                line += stream.readline()  # of a long clip with uneven times
        info = json.loads(line.rstrip().removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(info, dict):
        return {}
    return info


def moved_frames(clip: Video) -> Ints | None:
    """Numbers of frames, ascending, in which the camera moved since the frame before.

    Read from the clip's file of `detect`; None without such a file.
    """
    file = keypoint_file(clip.root / KEYPOINTS, clip.path)
    if not file.exists():
        return None
    return _read_moved_frames(file, FileState.read(file))


@functools.lru_cache(maxsize=1)  # tracks of one clip follow each other
def _read_moved_frames(file: Path, _state: FileState) -> Ints | None:
    if read_detection(file) is None:
        return None
    frames: list[int] = []
    with open_regular(file) as stream:
        for line in stream:  # one for each image; people follow
            if line.startswith(b"],"):
                break
            if b'"camera": ' in line:
                frames += map(int, re.findall(rb'"frame_index": (\d+)', line))
    return np.array(frames, np.int64)
