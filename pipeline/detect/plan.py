"""Which clips of a folder have no keypoints yet, or of other pixels, weights or settings.  [pixels] -> raw keypoints"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cache.fingerprint import fingerprint
from pipeline.detect.base import Detector
from pipeline.detect.clips import EXTENSIONS, clips_in
from pipeline.detect.files import ClipFiles
from pipeline.errors import ConfigError, PipelineError
from pipeline.pixels.frames import Video
from pipeline.raw.stand_in import is_stand_in

VERSION: Final = 2  # raised by hand whenever the same clip and detector would give another file


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What `pipeline.detect.run.detect` is to do. It can be pickled."""

    raw: Path
    out: Path
    detector: Detector
    about: Mapping[str, Any]  # the part of a file's `info` that all clips share
    missing: Sequence[ClipFiles]  # clips without a file of these pixels, weights and settings
    failed: Mapping[ClipFiles, str]  # clips that an earlier run gave up, and why
    done: int  # clips that have their file
    refused: Mapping[str, str]  # clips that cannot have one, and why

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to do, but to try clips once more that were given up."""
        return not self.missing

    @property
    def problems(self) -> dict[str, str]:
        """Clip -> why it has no file."""
        return dict(self.refused) | {files.clip: why for files, why in self.failed.items()}


def plan_detection(raw: Path, out: Path, detector: Detector) -> DetectionPlan:
    """Compare the clips below `raw` with what is in `out`. Writes nothing; reads the clips as far as digests need.

    Raises ConfigError for a folder without clips and for a stand-in detector on real data, MissingAssets where weights
    are missing.
    """
    clips = clips_in(raw)
    if not clips:
        found = "no clip is below it" if raw.is_dir() else "there is no such folder"
        raise ConfigError(f"{raw}: {found}. Name a folder with files that end in {', '.join(EXTENSIONS)}.")
    demo = is_stand_in(raw)
    if detector.stand_in and not demo:
        raise ConfigError(
            f"{detector.name} finds people in demo data alone, and {raw} is none: take another detector, or "
            "bring the output of another tool (docs/datasets/videos.md)"
        )
    options = detector.identity()
    identity = {"version": VERSION, "detector": detector.name, "options": options}
    missing, failed, done = [], {}, 0
    refused: dict[str, str] = {}
    for clip in clips:
        try:
            files = ClipFiles(out, clip, fingerprint(identity | {"pixels": Video(raw, clip).digest()}))
            is_done = files.done()
        except (PipelineError, OSError) as error:
            refused[clip] = str(error)
            continue
        if is_done:
            done += 1
        elif why := files.failure():
            failed[files] = why
        else:
            missing.append(files)
    about = {"detector": detector.name, "options": options, "stand_in": demo}
    return DetectionPlan(raw, out, detector, about, missing, failed, done, refused)
