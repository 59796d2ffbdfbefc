"""Report of a detection: its counts and problems, as text and JSON.  pixels -> [raw keypoints] ->
tracks

Each part of a detection makes one; those of all parts are added up. `pipeline.commands.detect`
prints it, or `as_dict` as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.text import count, rate
from pipeline.processes.meter import Meter


@dataclass(slots=True)
class DetectionReport:
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

    def add(self, part: DetectionReport) -> None:
        """Add the counts and problems of a part."""
        self.detected += part.detected
        self.frames += part.frames
        self.persons += part.persons
        self.problems |= part.problems
        self.damaged |= part.damaged
        self.meter.include_part(part.meter)

    @property
    def doubts(self) -> list[str]:
        """Messages for the user, besides `problems`."""
        return [f"{clip}: {remark}" for clip, remark in self.damaged.items()]

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
            text += f" ({rate(self._speed, 'frame')}, bottleneck: {self.meter.bottleneck})"
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
