"""What `detect` writes: one file of COCO's JSON a clip.  pixels -> [raw keypoints] -> tracks

    {"info": {...},                 on a line of its own: a fingerprint, the detector, the clip, its cuts, frame counts
     "images": [{"id", "frame_index", "file_name", "width", "height"}, ...],     every frame that was decoded, from 0
     "annotations": [{"id", "image_id", "category_id", "bbox" x y w h px, "keypoints" 17 x (x, y, v), "num_keypoints",
                      "score", "keypoint_scores" 17 x 0..1, "area", "iscrowd"}, ...],
     "categories": [...]}           COCO's person

v is 2 for a joint of confidence 0.3 or more, 1 for any other that is found. pycocotools and whatever reads COCO's
keypoints reads it; `pipeline.files.formats.labels.detections` does here.

`.provenance` is how fast the run over the most frames was, when and where; `plan` forecasts by it.

`.detect/<fingerprint>` is why a clip has no file. A killed run begins with the clips again that it was in.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from cache.storage.atomic import make_folder, publish, write_atomic, write_synced
from pipeline.detect.base import People
from pipeline.errors import RawDataError
from pipeline.skeletons import bones, joint_names

MADE_BY: Final = "python -m pipeline detect"
KEYPOINTS: Final = "keypoints"  # the folder beside clips in which the dataset `videos` looks for them
RECORDS: Final = ".detect"  # the lock, and why clips have no file
PROVENANCE: Final = ".provenance"
SEEN: Final = 0.3
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
PLACES: Final = 2  # decimals of px
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
        """Why the clip has no file, as an earlier run found with these pixels, weights and settings."""
        return self.out / RECORDS / self.fingerprint

    def done(self) -> bool:
        """Whether the file is there to its end, and of these pixels, weights and settings.

        Raises RawDataError for a file that `detect` has not written: it is not replaced.
        """
        if len(os.fsencode(self.file.name)) > LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, "File name too long. Rename the clip.", str(self.file))
        info = read_info(self.file)
        if info.get("description") != MADE_BY and self.file.exists():
            raise RawDataError(
                self.file,
                "description",
                expected=f"a file that `{MADE_BY}` has written",
                found="another one, which is left as it is",
                do="Move it, or name another folder.",
            )
        return info.get("fingerprint") == self.fingerprint and _is_whole(self.file)

    def rename(self, before: ClipFiles) -> None:
        """Take the file of the same clip under the name that it had before: the same bytes as of computing it again."""
        info = read_info(before.file) | {"fingerprint": self.fingerprint, "clip": self.clip}
        self._write(_renamed(before, self.clip, info))
        before.file.unlink()

    def people(self) -> IO[bytes]:
        """The empty file for the text of the clip's people, in the order of the frames, with a comma before each."""
        make_folder(self.out)
        return tempfile.TemporaryFile(dir=self.out)

    def finish(self, info: dict[str, Any], frames: Sequence[int], people: IO[bytes]) -> None:
        """Make the clip's file: its decoded frames, and the text of its people."""
        self._write(self._text(info, frames, people))
        self.failed.unlink(missing_ok=True)

    def _write(self, text: Iterator[bytes]) -> None:
        make_folder(self.file.parent)
        temporary = self.file.with_name(
            f".{hashlib.sha256(self.clip.encode()).hexdigest()[:16]}.tmp"
        )  # names may be long
        write_synced(temporary, text)
        publish(temporary, self.file)

    def _text(self, info: dict[str, Any], frames: Sequence[int], people: IO[bytes]) -> Iterator[bytes]:
        yield _first_line({"description": MADE_BY, "fingerprint": self.fingerprint} | info)
        yield b'"images": ['
        comma = b""
        for t in frames:
            image = {"id": t + 1, "frame_index": t, "file_name": f"{self.clip}/{t:09d}.jpg"}  # COCO's ids begin with 1
            size = {"width": info["width"], "height": info["height"]}
            yield comma + b"\n" + json.dumps(image | size).encode()
            comma = b","
        yield b'\n],\n"annotations": ['
        people.seek(0)
        people.read(1)  # the first comma
        while text := people.read(1 << 20):
            yield text
        yield b"\n],\n"
        skeleton = [[a + 1, b + 1] for a, b in bones("coco")]
        side = {"l": "left", "r": "right"}  # as COCO itself calls the joints: left_eye
        names = [name if name == "nose" else f"{side[name[0]]}_{name[1:]}" for name in joint_names("coco")]
        person = {"id": 1, "name": "person", "keypoints": names, "skeleton": skeleton}
        yield f'"categories": [{json.dumps(person)}'.encode() + END[1:]


def _renamed(before: ClipFiles, clip: str, info: dict[str, Any]) -> Iterator[bytes]:
    """The text of a file with another `info`, and the clip's other name in those of its pictures."""
    old, new = (json.dumps({"file_name": f"{name}/"})[1:-2].encode() for name in (before.clip, clip))
    with before.file.open("rb") as stream:
        stream.readline()
        yield _first_line(info)
        for line in stream:
            yield line.replace(old, new, 1)


def _first_line(info: dict[str, Any]) -> bytes:
    return f'{{"info": {json.dumps(info)},\n'.encode()


def _is_whole(file: Path) -> bool:
    """Whether a file is not cut off."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(END), 0))
        return stream.read() == END


def _object(file: Path) -> dict[str, Any]:
    """A JSON object that was written here; empty where there is none."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_speed(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """`finished`, `host` and `measured` of the run over the most frames; empty where `about` differs or none is noted.

    about: the detector's name and options.
    """
    note = _object(out / PROVENANCE)
    return note if note | json.loads(json.dumps(dict(about))) == note else {}


def note_speed(out: Path, about: Mapping[str, Any], frames: int, seconds: float) -> None:
    """Note a run of this machine, unless an earlier one with the same detector was over more frames."""
    about = dict(about) | {"host": socket.gethostname()}
    before = read_speed(out, about).get("measured", {"rows": 0})
    if frames and frames >= before["rows"]:
        measured = {
            "seconds": round(seconds, 3),
            "rows": frames,
            "rows_a_second": round(frames / max(seconds, 1e-3), 2),
        }
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomic(out / PROVENANCE, json.dumps(about | {"finished": finished, "measured": measured}).encode())


def read_info(file: Path) -> dict[str, Any]:
    """The first line's `info`; empty where there is no such file, or one of another kind."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(1 << 20).rstrip()
        info = json.loads(line.removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}


def people_text(frame: int, people: People, n_before: int) -> bytes:
    """JSON of the people in a frame, with a comma before each; their ids count from those before."""
    text = b""
    for number, (box, score, joints) in enumerate(zip(*people, strict=True), n_before + 1):
        corner, side = box[:2].astype(np.float64), (box[2:] - box[:2]).astype(np.float64)
        visible = np.where(joints[:, 2] >= SEEN, 2, np.where(joints[:, 2] > 0, 1, 0))
        xy = np.where(visible[:, None] > 0, np.round(joints[:, :2].astype(np.float64), PLACES), 0)
        triples = zip(*xy.T.tolist(), visible.tolist(), strict=True)
        annotation = {
            "id": number,
            "image_id": frame + 1,
            "category_id": 1,
            "bbox": np.round([*corner, *side], PLACES).tolist(),
            "area": round(float(side.prod()), PLACES),
            "iscrowd": 0,
            "score": round(float(score), 4),
            "num_keypoints": int((visible > 0).sum()),
            "keypoints": [value for triple in triples for value in triple],
            "keypoint_scores": np.round(joints[:, 2].astype(np.float64), 4).tolist(),
        }
        text += b",\n" + json.dumps(annotation, separators=(",", ":")).encode()
    return text
