"""Results of a detection: keypoint files, and its report.  pixels -> [raw keypoints] -> tracks

Each clip gets a keypoint file, in the format that `pipeline.clips.files` describes: `write_clip`
writes it, `rename_clip` moves it. Each part of a detection makes a
`DetectionTally`; those of all parts are added up, and `pipeline.commands.detect` prints the sum.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cache.storage.durable import make_folder, publish, temporary_file, write_synced
from pipeline.cli.text import count, rate
from pipeline.clips.decoders import OpenClip
from pipeline.clips.files import (
    END,
    MADE_BY,
    ClipFiles,
    read_info,
)
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.cuts import cuts
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import bones, coco_name, joint_names
from pipeline.processes.meter import Meter
from pipeline.steps.detection.plan import DetectionWork

UNDECODED_LISTED: Final = 1000  # most damaged frames that are listed in a clip's file


def write_clip(work: DetectionWork, clip: OpenClip, record: ClipRecord) -> None:
    """Write the keypoint file of a complete clip, and delete the record of an earlier failure."""
    width, height = clip.size
    info = {
        **work.about,
        "weights": list(work.weights),
        "clip": clip.files.clip,
        "clip_digest": clip.digest,
        "frames": clip.n_frames,
        "undecoded": clip.damaged_frames[:UNDECODED_LISTED],
        "persons": clip.n_persons,
        "cuts": cuts(clip.differences),
        "width": width,
        "height": height,
        "fps": record.fps if math.isfinite(record.fps) else None,
        "record": record.as_dict(),
    }
    _write_text(clip.files, _clip_text(clip, info))


def _write_text(files: ClipFiles, text: Iterator[bytes]) -> None:
    make_folder(files.file.parent)
    name = hashlib.sha256(files.clip.encode()).hexdigest()[:16]  # clips' names may be long
    temporary = temporary_file(files.file.with_name(name), shared=True)
    write_synced(temporary, text)
    publish(temporary, files.file)
    files.failed.unlink(missing_ok=True)


def rename_clip(files: ClipFiles, before: ClipFiles) -> None:
    """Move a clip's keypoint file from its earlier name; the bytes are as if it was computed again.

    before: the files of the clip under its earlier name.
    """
    info = read_info(before.file) | {"fingerprint": files.fingerprint, "clip": files.clip}
    _write_text(files, _renamed_text(before.file, before.clip, files.clip, info))
    before.file.unlink()


def _clip_text(clip: OpenClip, info: dict[str, Any]) -> Iterator[bytes]:
    """Yield the text of a clip's keypoint file in parts."""
    files = clip.files
    yield _first_line({"description": MADE_BY, "fingerprint": files.fingerprint} | info)
    yield b'"images": ['
    comma = b""
    for t in clip.decoded_frames:
        image = {
            "id": t + 1,  # COCO's begin with 1
            "frame_index": t,
            "file_name": f"{files.clip}/{t:09d}.jpg",
            "width": info["width"],
            "height": info["height"],
        }
        if t in clip.camera:
            image["camera"] = clip.camera[t]
        yield comma + b"\n" + json.dumps(image).encode()
        comma = b","
    yield b'\n],\n"annotations": ['
    clip.text.seek(0)
    clip.text.read(1)  # the first comma
    while text := clip.text.read(1 << 20):
        yield text
    yield b"\n],\n"
    person = {
        "id": 1,
        "name": "person",
        "keypoints": [coco_name(joint) for joint in joint_names("coco")],
        "skeleton": [[a + 1, b + 1] for a, b in bones("coco")],
    }
    yield f'"categories": [{json.dumps(person)}'.encode() + END[1:]


def _renamed_text(file: Path, before: str, clip: str, info: dict[str, Any]) -> Iterator[bytes]:
    """Yield a keypoint file's text with another `info`, and the clip's new name in image names."""
    old = _image_folder(before)
    new = _image_folder(clip)
    with open_regular(file) as stream:
        stream.readline()
        yield _first_line(info)
        for line in stream:
            yield line.replace(old, new, 1)


def _image_folder(clip: str) -> bytes:
    return json.dumps({"file_name": f"{clip}/"})[1:-2].encode()


def _first_line(info: dict[str, Any]) -> bytes:
    return f'{{"info": {json.dumps(info)},\n'.encode()


@dataclass(slots=True)
class DetectionTally:
    """Counts and problems of one run of detection."""

    detected: int = 0  # number of clips detected in this run
    up_to_date: int = 0  # number of clips whose file was up to date before
    renamed: dict[str, str] = field(default_factory=dict)  # clip -> its name when it was computed
    problems: dict[str, str] = field(default_factory=dict)  # clip -> why it has no keypoint file
    frames: int = 0  # number of frames in which people were searched in this run
    persons: int = 0  # number of detections in these frames
    # clip with frames that cannot be decoded -> the first remark of its record
    damaged: dict[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)  # where the time went

    def add(self, part: DetectionTally) -> None:
        """Add the counts and problems of a part."""
        self.detected += part.detected
        self.frames += part.frames
        self.persons += part.persons
        self.problems |= part.problems
        self.damaged |= part.damaged
        self.meter.include_part(part.meter)

    @property
    def _speed(self) -> float:
        """Frames a second."""
        return self.frames / self.meter.elapsed

    def __str__(self) -> str:
        """Summary: "4 clips: 812 persons in 400 frames (31 frames/s, bottleneck: model)"."""
        text = count(self.detected, "clip")
        if self.renamed:
            text += f", {len(self.renamed):,} renamed"
        text += f": {count(self.persons, 'person')} in {count(self.frames, 'frame')}"
        if self.frames:
            text += f" ({rate(self._speed, 'frame')}{self.meter.slowest})"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The report for --json."""
        return {
            "done": self.detected,
            "up_to_date": self.up_to_date,
            "renamed": self.renamed,
            "problems": self.problems,
            "frames": self.frames,
            "persons": self.persons,
            "damaged": self.damaged,
            "decoding": self.meter.seconds.get("decode", 0.0),
            "seconds": self.meter.elapsed,
            "frames_a_second": round(self._speed, 2),
            "bottleneck": self.meter.bottleneck if self.frames else "",
        }
