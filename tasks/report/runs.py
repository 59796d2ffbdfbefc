"""Files of training runs, finished or not.  training -> report: [runs] -> page

A `TrainingRun` is a run's folder, which all sections about runs use. `curves`
draws the curves that `_read_curves` has read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from pipeline.errors import PipelineError
from tasks.results import RunMetrics, SplitMetrics
from vibe_model import models
from vibe_model.metrics import SCORES
from vibe_model.runs import BEST, CONFIG, CURVES, METRICS, SEQUENCES
from vibe_model.settings import VideoConfig

VALIDATION: Final = "validation/"  # start of the tags validation/<split>/<metric>


@dataclass(slots=True)
class _Curve:
    """One number over the steps at which it was logged."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class _LoggedCurves:
    """Content of a run's curves."""

    curves: dict[str, _Curve] = field(default_factory=dict)  # by tag, such as train/total
    seconds: float = 0.0  # of training

    @property
    def scores(self) -> dict[str, str]:
        """Validation split -> tag of its score, in the order of logging."""
        scores = {}
        for tag in self.curves:
            split, _, name = tag.removeprefix(VALIDATION).rpartition("/")
            if tag.startswith(VALIDATION) and name in SCORES:
                scores[split] = tag
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
                curve = logged.curves.setdefault(tag, _Curve())
                curve.steps.append(step)
                curve.values.append(value)
            logged.seconds = seconds
    return logged


class _TrackResult(NamedTuple):
    """A track of an evaluated split: entries of a row of sequences.json."""

    split: str
    track: str
    first_frame: int
    last_frame: int
    predictions: str | None  # file within the run's folder; None: not written
    pa_mpjpe: float | None  # mm; None without 3D labels
    pck_2d: float | None  # %; None without 2D labels

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Order of tracks, the worst first: by PA-MPJPE; then those without 3D labels, by PCK."""
        if self.pa_mpjpe is None:
            return True, 100.0 if self.pck_2d is None else self.pck_2d, self.track
        return False, -self.pa_mpjpe, self.track


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """A training run."""

    name: str  # on the page
    folder: Path
    config: VideoConfig | None  # None: the settings are missing, or from an incompatible version
    stand_in: bool  # whether its files record training on demo data
    metrics: RunMetrics | None  # None: the run is not finished
    logged: _LoggedCurves
    tracks: Sequence[_TrackResult]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Read a run's folder. Raises PipelineError for a damaged file."""
        about = _read_json(folder / CONFIG)
        metrics = None
        if (folder / METRICS).exists():
            metrics = RunMetrics(_read_json(folder / METRICS))
        is_marked = metrics is not None and metrics.stand_in
        rows = _read_json(folder / f"{SEQUENCES}.json").get(SEQUENCES, [])
        return cls(
            name=name,
            folder=folder,
            config=_read_config(about),
            stand_in=is_marked or bool(about.get("stand_in")),
            metrics=metrics,
            logged=_read_curves(folder),
            tracks=[_TrackResult(*map(row.get, _TrackResult._fields)) for row in rows],
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
    def splits(self) -> dict[str, SplitMetrics]:
        """The metrics of each evaluated split."""
        return {} if self.metrics is None else self.metrics.splits

    def tracks_of(self, split: str) -> list[_TrackResult]:
        """A split's tracks, the worst first."""
        return sorted(
            (track for track in self.tracks if track.split == split), key=lambda track: track.rank
        )


def _read_config(about: Mapping[str, Any]) -> VideoConfig | None:
    """The settings in config.json."""
    settings = about.get("config")
    if not isinstance(settings, dict):
        return None
    try:
        return models.find(str(about.get("of_model", "vibe"))).config.from_dict(settings)
    except (TypeError, PipelineError):  # a TypeError for a path that is no text
        return None


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
