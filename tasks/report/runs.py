"""Files of training runs, finished or not.  training -> report: [runs] -> page

`read_run` reads a run's folder as a `TrainingRun`, which all sections about runs use; it reports
damaged files instead of raising. `curves` draws the curves that `read_curves` has read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pipeline.errors import PipelineError
from tasks.training import splits_of
from vibe_model import models
from vibe_model.metrics import SCORES
from vibe_model.runs import BEST, CONFIG, CURVES, METRICS, SEQUENCES
from vibe_model.settings import VideoConfig

Metrics = Mapping[str, Any]

# advice about a damaged file; {}: the files to delete
REWRITE: Final = (
    "Delete {} and run the training command again: it resumes from the saved state and "
    "rewrites the file."
)
VALIDATION: Final = "validation/"  # start of the tags validation/<split>/<metric>


@dataclass(slots=True)
class Curve:
    """One number over the steps at which it was logged."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class _LoggedCurves:
    """Content of a run's curves."""

    curves: dict[str, Curve] = field(default_factory=dict)  # by tag, such as train/total
    seconds: float = 0.0  # of training
    problems: list[str] = field(default_factory=list)  # of reading them

    @property
    def scores(self) -> dict[str, Curve]:
        """Validation split -> its score, in the order of logging."""
        scores = {}
        for tag, curve in self.curves.items():
            split, _, name = tag.removeprefix(VALIDATION).rpartition("/")
            if tag.startswith(VALIDATION) and name in SCORES:
                scores[split] = curve
        return scores


def read_curves(folder: Path) -> _LoggedCurves:
    """Read a run's curves. `problems` reports a damaged file, which is read in part.

    A line of the file is [step, seconds of training, {tag: value}].
    """
    logged = _LoggedCurves()
    file = folder / CURVES
    if not file.exists():
        return logged
    number = 1  # of the line, for the message
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                step, seconds, values = json.loads(line)
                for tag, value in values.items():
                    y = float(value)
                    curve = logged.curves.setdefault(str(tag), Curve())
                    curve.steps.append(step)
                    curve.values.append(y)
                logged.seconds = float(seconds)
                number += 1
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        logged.problems.append(
            f"{file}, line {number}: {error}. The file is damaged or being written. The curves "
            "end there."
        )
    return logged


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """A training run."""

    name: str  # on the page
    folder: Path
    about: Mapping[str, Any]  # config.json; empty if there is none
    metrics: Metrics  # metrics.json; empty if the run is not finished
    logged: _LoggedCurves
    sequences: Sequence[Mapping[str, Any]]  # results by track
    problems: Sequence[str]  # of reading the folder

    @property
    def state(self) -> str:
        """The run's progress, for the page."""
        if not self.folder.is_dir():
            return "folder not found"
        if self.metrics and (self.folder / BEST).is_file():
            return "finished"
        if self.metrics:
            return f"evaluated, but {BEST} is missing"
        last_steps = [curve.steps[-1] for curve in self.logged.curves.values() if curve.steps]
        step = f"{max(last_steps, default=0):,}"
        if self.config is not None:
            step += f" of {self.config.epochs * self.config.iterations:,}"
        return f"not finished: step {step}, no results yet"

    @property
    def stand_in(self) -> bool:
        """Whether the run's files record training on demo data."""
        return bool(self.about.get("stand_in") or self.metrics.get("stand_in"))

    @cached_property
    def config(self) -> VideoConfig | None:
        """The run's settings; None if they are missing or from an incompatible version."""
        try:
            return models.find(self.about.get("of_model", "vibe")).config.from_dict(
                self.about["config"]
            )
        except (KeyError, TypeError, AttributeError, PipelineError):
            return None

    @property
    def splits(self) -> dict[str, Metrics]:
        """The metrics of each evaluated split."""
        return {split: self.metrics[split] for split in splits_of(self.metrics)}

    def tracks_of(self, split: str) -> list[Mapping[str, Any]]:
        """Results of a split's tracks, the worst first: the largest PA-MPJPE; without 3D labels,
        the smallest PCK.
        """

        def badness(row: Mapping[str, Any]) -> tuple[float, str]:
            worst = float(row.get("pck_2d", 100.0))
            if "pa_mpjpe" in row:
                worst = -float(row["pa_mpjpe"])
            return worst, str(row.get("track"))

        tracks = [row for row in self.sequences if row.get("split") == split]
        return sorted(tracks, key=badness)


def read_run(folder: Path, name: str = "") -> TrainingRun:
    """Read a run's folder. Errors are reported in `problems`."""
    problems: list[str] = []
    rewrite_metrics = REWRITE.format("it")
    metrics = _read_json(folder / METRICS, problems, rewrite_metrics)
    for split in splits_of(metrics):
        errors = metrics[split]
        if not (isinstance(errors, Mapping) and "baseline" in errors):
            problems.append(
                f"{folder / METRICS}: {split}: expected metrics with a baseline. {rewrite_metrics}"
            )
            metrics = {}
            break
    about = _read_json(folder / CONFIG, problems, "The run's settings cannot be shown.")
    not_installed = models.not_installed(about.get("of_model", "vibe"))
    if not_installed:
        problems.append(f"{folder}: run of {not_installed}: its settings cannot be shown.")
    # a run with metrics.json is finished: training does not resume it
    rewrite = REWRITE.format(f"it and {METRICS}")
    sequences = _read_json(folder / f"{SEQUENCES}.json", problems, rewrite)
    logged = read_curves(folder)
    problems += logged.problems
    return TrainingRun(
        name=name or folder.name,
        folder=folder,
        about=about,
        metrics=metrics,
        logged=logged,
        sequences=sequences.get(SEQUENCES, []),
        problems=problems,
    )


def _read_json(file: Path, problems: list[str], remedy: str) -> dict[str, Any]:
    """Read the object in a JSON file; {} if the file is missing or invalid.

    An invalid file is added to `problems`, with the remedy.
    """
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
