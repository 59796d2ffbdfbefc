"""Files of `detect`: one file in COCO's JSON format per clip.  pixels -> [raw keypoints] -> tracks

    {"info": {...},                 on a line of its own: a fingerprint, the detector, the clip, its cuts, frame counts
     "images": [{"id", "frame_index", "file_name", "width", "height"}, ...],     every decoded frame, from 0; where the
                camera moves, "camera": 8 numbers of the `pipeline.homography` from the frame before
     "annotations": [{"id", "image_id", "category_id", "bbox" x y w h px, "keypoints" 17 x (x, y, v), "num_keypoints",
                      "score", "keypoint_scores" 17 x 0..1, "area", "iscrowd"}, ...],
     "categories": [...]}           COCO's person

v is 2 for a joint of confidence 0.3 or more, else 1. pycocotools reads these files, and here
`pipeline.files.formats.labels.detections`. `.provenance` has the speed of the run over the most frames, for forecasts.
`.detect/<fingerprint>` has the reason why a clip has no file.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import RawDataError

MADE_BY: Final = "python -m pipeline detect"
KEYPOINTS: Final = "keypoints"  # the folder beside clips in which the dataset `videos` looks for them
RECORDS: Final = ".detect"  # the lock, and why clips have no file
PROVENANCE: Final = ".provenance"
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
END: Final = b"}]}\n"  # of a file, and of nothing that is cut off: all lines before it end otherwise


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The file of one clip."""

    out: Path
    clip: str  # path below the raw folder
    fingerprint: str

    @property
    def file(self) -> Path:
        return self.out / f"{self.clip}.json"

    @property
    def failed(self) -> Path:
        """File with the reason why an earlier run, with the same fingerprint, gave the clip up."""
        return self.out / RECORDS / self.fingerprint

    def done(self) -> bool:
        """Whether the file is complete and has this fingerprint.

        Raises RawDataError for a file that `detect` did not write: it is never replaced.
        """
        if len(os.fsencode(self.file.name)) > LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, "File name too long. Rename the clip.", str(self.file))
        info = read_info(self.file)
        if info.get("description") != MADE_BY and self.file.exists():
            actual, do = "another one, which is left as it is", "Move it, or name another folder."
            expected = f"a file that `{MADE_BY}` has written"
            raise RawDataError(self.file, "description", expected=expected, found=actual, do=do)
        return info.get("fingerprint") == self.fingerprint and _is_whole(self.file)


def _is_whole(file: Path) -> bool:
    """Whether a file is complete."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(END), 0))
        return stream.read() == END


def _object(file: Path) -> dict[str, Any]:
    """A JSON object; empty if the file cannot be read."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_speed(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """`finished`, `host` and `measured` of the longest run; empty without one of this detector (`about`)."""
    note = _object(out / PROVENANCE)
    return note if note | json.loads(json.dumps(dict(about))) == note else {}


def read_info(file: Path) -> dict[str, Any]:
    """The first line's `info`; empty for a missing file or another format."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(1 << 20).rstrip()
        info = json.loads(line.removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}
