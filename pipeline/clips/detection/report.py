"""Report of a detection: its counts and problems, as text and JSON.  pixels -> [raw keypoints] ->
tracks

`detection.run` fills it; workers send theirs, which are added up. `pipeline.commands.detect` prints
it, or `as_dict` as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pipeline.cli.console import rate
from pipeline.cli.text import FEW, count

# fields with another name in --json
_JSON_KEYS: Final = {"detected": "done", "decoding_seconds": "decoding"}


@dataclass(slots=True)
class DetectionReport:
    """Counts and problems of one run of detection."""

    detected: int = 0  # number of clips detected in this run
    up_to_date: int = 0  # number of clips whose file was up to date before
    renamed: dict[str, str] = field(default_factory=dict)  # clip -> its name when it was computed
    orphans: list[str] = field(default_factory=list)  # keypoint files of deleted clips
    problems: dict[str, str] = field(default_factory=dict)  # clip -> why it has no keypoint file
    frames: int = 0  # number of frames in which people were searched in this run
    persons: int = 0  # number of detections in these frames
    # clip with frames that cannot be decoded -> the first remark of its record
    damaged: dict[str, str] = field(default_factory=dict)
    decoding_seconds: float = 0.0  # for which the network waited for frames
    seconds: float = 0.0  # of the whole run

    @property
    def bottleneck(self) -> str:
        """The slower step: "decode" if the network waited for over half of the time, or "model"."""
        if self.decoding_seconds > self.seconds / 2:
            return "decode"
        return "model"

    def add(self, other: DetectionReport) -> None:
        """Add the counts and problems of a worker's report."""
        self.detected += other.detected
        self.frames += other.frames
        self.persons += other.persons
        self.decoding_seconds += other.decoding_seconds
        self.problems |= other.problems
        self.damaged |= other.damaged

    @property
    def doubts(self) -> list[str]:
        """Messages for the user, besides `problems`."""
        messages = [f"{clip}: {remark}" for clip, remark in self.damaged.items()]
        if self.orphans:
            names = self.orphans[:FEW]
            if len(self.orphans) > FEW:
                names.append("...")
            files = count(len(self.orphans), "keypoint file")
            messages.append(
                f"{files} of missing clips: {', '.join(names)}. Restore the clips, or delete the "
                "files."
            )
        return messages

    @property
    def _speed(self) -> float:
        """Frames a second."""
        return self.frames / max(self.seconds, 1e-3)

    def __str__(self) -> str:
        """Summary: "4 clips: 812 persons in 400 frames (31 frames/s, bottleneck: model)"."""
        text = count(self.detected, "clip")
        if self.renamed:
            text += f", {len(self.renamed):,} renamed"
        text += f": {count(self.persons, 'person')} in {count(self.frames, 'frame')}"
        if self.frames:
            text += f" ({rate(self._speed, 'frame')}, bottleneck: {self.bottleneck})"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The report for --json."""
        content = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        content |= {"frames_a_second": 0.0, "bottleneck": ""}
        if self.frames:
            content["frames_a_second"] = round(self._speed, 2)
            content["bottleneck"] = self.bottleneck
        return content
