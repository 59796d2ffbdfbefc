"""Counts and problems of a detection, and their text.  pixels -> [raw keypoints] -> tracks"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.cli.console import rate
from pipeline.cli.text import FEW, count
from pipeline.files.raw.pack import PACK


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
        if self.decoding > self.seconds / 2:
            return "decode"
        return "model"

    def add(self, other: DetectionReport) -> None:
        """Add the counts of another process."""
        self.done += other.done
        self.frames += other.frames
        self.persons += other.persons
        self.decoding += other.decoding
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
    def packed_text(self) -> str:
        """230 files now in detected.zip of their folders"""
        return f"{count(self.packed, 'file')} now in {PACK} of their folders"

    @property
    def _speed(self) -> float:
        """Frames a second."""
        return self.frames / max(self.seconds, 1e-3)

    def __str__(self) -> str:
        """4 clips: 812 persons in 400 frames (31 frames/s, bottleneck: model)"""
        text = count(self.done, "clip")
        if self.renamed:
            text += f", {len(self.renamed):,} renamed"
        text += f": {count(self.persons, 'person')} in {count(self.frames, 'frame')}"
        if self.frames:
            text += f" ({rate(self._speed, 'frame')}, bottleneck: {self.bottleneck})"
        if self.packed:
            text += f"; {self.packed_text}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The report for --json."""
        texts = asdict(self) | {"frames_a_second": 0.0, "bottleneck": ""}
        if self.frames:
            texts["frames_a_second"] = round(self._speed, 2)
            texts["bottleneck"] = self.bottleneck
        return texts
