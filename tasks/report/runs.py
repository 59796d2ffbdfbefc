"""Files of training runs, finished or not.  training -> report: [runs] -> page

A `TrainingRun` is a run's folder, which all sections about runs use. `curves`
draws the curves that `_read_curves` has read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from pipeline.errors import PipelineError
from tasks.results import RunMetrics, SplitMetrics
from vibe_model import models
from vibe_model.metrics import SCORES
from vibe_model.runs import BEST, CONFIG, CURVES, METRICS, SEQUENCES
from vibe_model.settings import VideoConfig

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

    @property
    def scores(self) -> dict[str, Curve]:
        """Validation split -> its score, in the order of logging."""
        scores = {}
        for tag, curve in self.curves.items():
            split, _, name = tag.removeprefix(VALIDATION).rpartition("/")
            if tag.startswith(VALIDATION) and name in SCORES:
                scores[split] = curve
        return scores


def _read_curves(folder: Path) -> _LoggedCurves:
    """Read a run's curves, up to a line that is damaged or being written.

    A line of the file is [step, seconds of training, {tag: value}].
    """
    logged = _LoggedCurves()
    file = folder / CURVES
    if not file.exists():
        return logged
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                step, seconds, values = json.loads(line)
            except ValueError:
                break
            for tag, value in values.items():
                curve = logged.curves.setdefault(tag, Curve())
                curve.steps.append(step)
                curve.values.append(value)
            logged.seconds = seconds
    return logged


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """A training run."""

    name: str  # on the page
    folder: Path
    about: Mapping[str, Any]  # config.json; empty if there is none
    metrics: RunMetrics | None  # None: the run is not finished
    logged: _LoggedCurves
    sequences: Sequence[Mapping[str, Any]]  # results by track

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Read a run's folder. Raises PipelineError for a damaged file."""
        metrics = None
        if (folder / METRICS).exists():
            metrics = RunMetrics(_read_json(folder / METRICS))
        return cls(
            name=name,
            folder=folder,
            about=_read_json(folder / CONFIG),
            metrics=metrics,
            logged=_read_curves(folder),
            sequences=_read_json(folder / f"{SEQUENCES}.json").get(SEQUENCES, []),
        )

    @property
    def state(self) -> str:
        """The run's progress, for the page."""
        if not self.folder.is_dir():
            return "folder not found"
        if self.metrics is not None and (self.folder / BEST).is_file():
            return "finished"
        if self.metrics is not None:
            return f"evaluated, but {BEST} is missing"
        last_steps = [curve.steps[-1] for curve in self.logged.curves.values() if curve.steps]
        step = f"{max(last_steps, default=0):,}"
        if self.config is not None:
            step += f" of {self.config.epochs * self.config.iterations:,}"
        return f"not finished: step {step}, no results yet"

    @property
    def stand_in(self) -> bool:
        """Whether the run's files record training on demo data."""
        is_marked = self.metrics is not None and self.metrics.stand_in
        return is_marked or bool(self.about.get("stand_in"))

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
    def splits(self) -> dict[str, SplitMetrics]:
        """The metrics of each evaluated split."""
        return {} if self.metrics is None else self.metrics.splits

    def tracks_of(self, split: str) -> list[Mapping[str, Any]]:
        """Results of a split's tracks, the worst first: the largest PA-MPJPE; without 3D labels,
        the smallest PCK.
        """

        def badness(row: Mapping[str, Any]) -> tuple[float, str]:
            worst = float(row.get("pck_2d", 100.0))
            if "pa_mpjpe" in row:
                worst = -float(row["pa_mpjpe"])
            return worst, row["track"]

        tracks = [row for row in self.sequences if row["split"] == split]
        return sorted(tracks, key=badness)


def _read_json(file: Path) -> dict[str, Any]:
    """Read the object in a JSON file; {} if the file is missing. Raises PipelineError."""
    if not file.exists():
        return {}
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise PipelineError(
            f"{file}: expected JSON, found: {error}. Delete it and {METRICS}, and train again: "
            "training resumes from the saved state and writes both."
        ) from error
    return content
