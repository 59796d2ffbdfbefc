"""A run's folder as the report shows it, whole or not.  training -> evaluation -> report: [run_folder] -> results"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from report.training.events import Events, read_events
from vibe_model import runs
from vibe_model.errors import ConfigError
from vibe_model.metrics import ERRORS
from vibe_model.runs import SEQUENCES, WORST_WINDOWS
from vibe_model.settings.config import TrainConfig

Metrics = Mapping[str, Any]
CONFIG: Final = "config.json"
AGAIN: Final = "Remove it and run the training command again: it goes on from the saved state and writes it anew."


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One training run, with what could be read of it."""

    name: str  # as the page calls it
    folder: Path
    about: Mapping[str, Any]  # config.json; empty where there is none
    metrics: Metrics  # metrics.json; empty while the run is not finished
    events: Events
    sequences: Sequence[Mapping[str, Any]]  # results by track
    worst_windows: Sequence[Mapping[str, Any]]
    problems: Sequence[str]  # what could not be read, in words

    @property
    def state(self) -> str:
        """How far it came, in words."""
        if not self.folder.is_dir():
            return "there is no such folder"
        if self.metrics and (self.folder / runs.BEST).is_file():
            return "finished"
        if self.metrics:
            return f"evaluated, but {runs.BEST} is gone"
        step, epochs = self.events.last_step(), 0 if self.config is None else self.config.epochs
        of = f" of {epochs * self.config.iterations:,}" if self.config is not None else ""
        return f"not finished: step {step:,}{of}, no results yet"

    @property
    def stand_in(self) -> bool:
        """Was it trained on stand-ins, as far as it says?"""
        return bool(self.about.get("stand_in") or self.metrics.get("stand_in"))

    @cached_property
    def config(self) -> TrainConfig | None:
        """Its settings; None where they are not there, or of a version of this project that had others."""
        try:
            return TrainConfig.from_dict(self.about["config"])
        except (KeyError, TypeError, AttributeError, ConfigError):
            return None

    @property
    def splits(self) -> dict[str, Metrics]:
        """The metrics of each split that it was evaluated on."""
        return {name: of for name, of in self.metrics.items() if "/" in name}

    def epoch_of(self, step: int) -> float:
        """The number of epochs that are over after a step; without the settings, the step itself."""
        return step / self.config.iterations if self.config is not None else step


def read_run(folder: Path, name: str = "") -> Run:
    """All that can be read of a run's folder. What cannot, is said in `problems`; nothing is raised for it."""
    problems: list[str] = []
    metrics = read_json(folder / runs.METRICS, problems, AGAIN)
    if wrong := metrics_problem(metrics):
        problems.append(f"{folder / runs.METRICS}: {wrong}. {AGAIN}")
        metrics = {}
    about = read_json(folder / CONFIG, problems, "The run's settings cannot be shown.")
    tables = {}
    for table in (SEQUENCES, WORST_WINDOWS):
        rows = read_json(folder / f"{table}.json", problems, AGAIN.replace("it and", f"it and {runs.METRICS} and"))
        tables[table] = _rows(rows.get(table))
    events = read_events(folder)
    return Run(
        name=name or folder.name,
        folder=folder,
        about=about,
        metrics=metrics,
        events=events,
        sequences=tables[SEQUENCES],
        worst_windows=tables[WORST_WINDOWS],
        problems=[*problems, *events.problems],
    )


def read_json(file: Path, problems: list[str], do: str) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file, or, told in `problems`, something else in it."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{file}: expected JSON, found: {error}. {do}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{file}: expected an object, found {type(content).__name__}. {do}")
        return {}
    return content


def metrics_problem(metrics: Metrics) -> str:
    """What is wrong with the content of a metrics.json, in words; "" for a sound one."""
    for split, of in metrics.items():
        if "/" not in split:
            continue
        if not isinstance(of, Mapping):
            return f"{split}: expected metrics by name, found {type(of).__name__}"
        for protocol, found in (("default", of), ("published", of.get("published"))):
            baseline = found.get("baseline") if isinstance(found, Mapping) else None
            if not isinstance(found, Mapping) or not isinstance(baseline, Mapping):
                return f"{split}: expected metrics and a baseline by protocol {protocol!r}, found none"
            if wrong := [name for name, value in found.items() if name in ERRORS and not _is_number(value)]:
                return f"{split}: {wrong[0]}: expected a number, found {found[wrong[0]]!r}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rows(found: Any) -> list[Mapping[str, Any]]:
    """The rows of a table that are rows."""
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
