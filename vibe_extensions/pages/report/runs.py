"""Files and curves of a training run, finished or not.  training -> report: [runs]

Events that a killed run logged after the state from which it resumed are dropped, as in TensorBoard.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2

from pipeline.errors import PipelineError
from vibe_model import models, runs
from vibe_model.metrics import SCORES
from vibe_model.runs import SEQUENCES, WORST_WINDOWS
from vibe_model.settings import VideoConfig

Metrics = Mapping[str, Any]

AGAIN: Final = "Delete it and run the training command again: it resumes from the saved state and rewrites the file."
PATTERN: Final = "events.out.tfevents.*"
VALIDATION: Final = "validation/"
_FRAME: Final = 16  # bytes around each record


@dataclass(slots=True)
class Curve:
    """One number over the steps at which it was logged."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def cut(self, first: int) -> None:
        """Drop the points from step `first` on."""
        while self.steps and self.steps[-1] >= first:
            self.steps.pop()
            self.values.pop()


@dataclass(slots=True)
class LoggedEvents:
    """Content of a run's event files."""

    curves: dict[str, Curve] = field(default_factory=dict)  # by tag, such as train/total
    seconds: float = 0.0  # sum over files of the time from the first to the last event
    problems: list[str] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, Curve]:
        """Validation split -> its score, in the order of logging."""
        tags = {tag: tag.removeprefix(VALIDATION).rpartition("/") for tag in self.curves if tag.startswith(VALIDATION)}
        return {split: self.curves[tag] for tag, (split, _, name) in tags.items() if name in SCORES}

    def last_step(self) -> int:
        """The last logged step; 0 if there is none."""
        return max((curve.steps[-1] for curve in self.curves.values() if curve.steps), default=0)

    def add(self, event: Any) -> None:
        """Add an event."""
        if event.HasField("session_log"):  # the run resumed here
            for curve in self.curves.values():
                curve.cut(event.step)
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                curve = self.curves.setdefault(value.tag, Curve())
                curve.steps.append(event.step)
                curve.values.append(value.simple_value)


def read_events(folder: Path) -> LoggedEvents:
    """Read a run's event files in the order of writing. `problems` reports damaged ones, which are read in part."""
    events = LoggedEvents()
    # By time; within a second by length, since a process numbers its files and ...9 precedes ...10.
    files = sorted(folder.glob(PATTERN), key=lambda file: (file.name.split(".")[3], len(file.name), file.name))
    for file in files:
        size, read = file.stat().st_size, 0
        times: list[float] = []
        try:
            for record in RawEventFileLoader(str(file)).Load():
                event = event_pb2.Event.FromString(record)
                events.add(event)
                read += len(record) + _FRAME
                times = [*times[:1], event.wall_time]  # the first and the last
        except (OSError, DecodeError) as error:
            events.problems.append(f"{file}: {error}")
        if times:
            events.seconds += max(times[-1] - times[0], 0.0)
        if read < size:
            events.problems.append(
                f"{file}: its last {size - read:,} of {size:,} bytes cannot be read: the file is damaged or being "
                "written. The curves end there."
            )
    return events


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """A training run."""

    name: str  # on the page
    folder: Path
    about: Mapping[str, Any]  # config.json; empty if there is none
    metrics: Metrics  # metrics.json; empty if the run is not finished
    events: LoggedEvents
    sequences: Sequence[Mapping[str, Any]]  # results by track
    worst_windows: Sequence[Mapping[str, Any]]
    problems: Sequence[str]  # of reading

    @property
    def state(self) -> str:
        """The run's progress, for the page."""
        if not self.folder.is_dir():
            return "folder not found"
        if self.metrics:
            return "finished" if (self.folder / runs.BEST).is_file() else f"evaluated, but {runs.BEST} is missing"
        total = "" if self.config is None else f" of {self.config.epochs * self.config.iterations:,}"
        return f"not finished: step {self.events.last_step():,}{total}, no results yet"

    @property
    def stand_in(self) -> bool:
        """Whether the run's files record training on demo data."""
        return bool(self.about.get("stand_in") or self.metrics.get("stand_in"))

    @cached_property
    def config(self) -> VideoConfig | None:
        """The run's settings; None if they are missing or from an incompatible version."""
        try:
            return models.find(self.about.get("of_model", "vibe")).config.from_dict(self.about["config"])
        except (KeyError, TypeError, AttributeError, PipelineError):
            return None

    @property
    def splits(self) -> dict[str, Metrics]:
        """The metrics of each evaluated split."""
        return {split: errors for split, errors in self.metrics.items() if "/" in split}

    def epoch_of(self, step: int) -> float:
        """The number of epochs completed after a step; without settings, the step itself."""
        return step / self.config.iterations if self.config is not None else step


def read_run(folder: Path, name: str = "") -> TrainingRun:
    """Read a run's folder. Errors are reported in `problems`."""
    problems: list[str] = []
    metrics = read_json(folder / runs.METRICS, problems, AGAIN)
    for split, errors in metrics.items():
        if "/" in split and not (isinstance(errors, Mapping) and "baseline" in errors):
            problems.append(f"{folder / runs.METRICS}: {split}: expected metrics with a baseline. {AGAIN}")
            metrics = {}
            break
    about = read_json(folder / runs.CONFIG, problems, "The run's settings cannot be shown.")
    if not_installed := models.not_installed(about.get("of_model", "vibe")):
        problems.append(f"{folder}: run of {not_installed}: its settings cannot be shown.")
    again = AGAIN.replace("it and", f"it and {runs.METRICS} and", 1)
    sequences, worst_windows = (
        read_json(folder / f"{table}.json", problems, again).get(table, []) for table in (SEQUENCES, WORST_WINDOWS)
    )
    events = read_events(folder)
    problems += events.problems
    return TrainingRun(
        name=name or folder.name,
        folder=folder,
        about=about,
        metrics=metrics,
        events=events,
        sequences=sequences,
        worst_windows=worst_windows,
        problems=problems,
    )


def read_json(file: Path, problems: list[str], remedy: str) -> dict[str, Any]:
    """Read the object in a JSON file; empty for a missing file, or an invalid one, which is added to `problems`."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{file}: expected JSON, found: {error}. {remedy}")
        return {}
    if isinstance(content, dict):
        return content
    problems.append(f"{file}: expected an object, found {type(content).__name__}. {remedy}")
    return {}


def select_split(rows: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """Rows of sequences.json or worst_windows.json of one split."""
    return [row for row in rows if row.get("split") == split]


def badness(row: Mapping[str, Any]) -> tuple[float, str]:
    """Sort key of such rows: the largest PA-MPJPE first; without 3D labels, the smallest 2D PCK."""
    worst = -float(row["pa_mpjpe"]) if "pa_mpjpe" in row else float(row.get("pck_2d", 100.0))
    return worst, str(row.get("track"))
