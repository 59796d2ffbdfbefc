"""Counts and problems of a detection, and their text.  pixels -> [raw keypoints] -> tracks"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.cli.console import rate
from pipeline.cli.text import FEW, count
from pipeline.files.raw.files import PACK


@dataclass(slots=True)
class DetectionReport:
    """Counts and problems of a detection over clips."""

    done: int = 0  # clips computed
    up_to_date: int = 0
    renamed: dict[str, str] = field(default_factory=dict)  # clip -> its name when it was computed
    packed: int = 0  # files that are in their folder's PACK now
    orphans: list[str] = field(default_factory=list)  # files of deleted clips
    problems: dict[str, str] = field(default_factory=dict)  # clip -> why it has no file
    frames: int = 0  # computed in this run
    persons: int = 0
    # clip with lost frames -> its first remark
    damaged: dict[str, str] = field(default_factory=dict)
    decoding: float = 0.0  # s the network waited for frames
    seconds: float = 0.0

    @property
    def bottleneck(self) -> str:
        """The slower step, "decode" or "model"."""
        return "decode" if self.decoding > self.seconds / 2 else "model"

    def add(self, other: DetectionReport) -> None:
        """Add the counts of another process."""
        for name in ("done", "frames", "persons", "decoding"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems |= other.problems
        self.damaged |= other.damaged

    @property
    def doubts(self) -> list[str]:
        """Messages for the user, besides `problems`."""
        messages = [f"{clip}: {remark}" for clip, remark in self.damaged.items()]
        if self.orphans:
            first = ", ".join(self.orphans[:FEW]) + (", ..." if len(self.orphans) > FEW else "")
            files = f"{count(len(self.orphans), 'keypoint file')} of missing clips: {first}"
            messages.append(f"{files}. Restore the clips, or delete the files.")
        return messages

    @property
    def packed_text(self) -> str:
        """230 files now in detected.zip of their folders"""
        return f"{count(self.packed, 'file')} now in {PACK} of their folders"

    def __str__(self) -> str:
        """4 clips: 812 persons in 400 frames (31 frames/s, bottleneck: model)"""
        speed = (
            f"{rate(self.frames / max(self.seconds, 1e-3), 'frame')}, bottleneck: {self.bottleneck}"
        )
        people = f"{count(self.persons, 'person')} in {count(self.frames, 'frame')}"
        renamed = f", {len(self.renamed):,} renamed" if self.renamed else ""
        packed = f"; {self.packed_text}" if self.packed else ""
        return (
            f"{count(self.done, 'clip')}{renamed}: {people}"
            + (f" ({speed})" if self.frames else "")
            + packed
        )

    def as_dict(self) -> dict[str, Any]:
        """The report for --json."""
        rate = round(self.frames / max(self.seconds, 1e-3), 2) if self.frames else 0.0
        return asdict(self) | {
            "frames_a_second": rate,
            "bottleneck": self.bottleneck if self.frames else "",
        }
