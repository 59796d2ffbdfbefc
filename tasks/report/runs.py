"""Files and curves of training runs, finished or not.  training -> report: [runs] -> page

`read_run` reads a run's folder as a `TrainingRun`, which all sections about runs use; it reports
damaged files instead of raising. `curves_section` draws the curves that training logged.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli.console import duration
from pipeline.cli.text import command
from pipeline.errors import PipelineError
from tasks.report.page import PageSection, Plot, lines
from vibe_model import models, runs
from vibe_model.metrics import METRICS, MM_PER_FRAME2, SCORES, Metric, score_text
from vibe_model.runs import SEQUENCES, WORST_WINDOWS
from vibe_model.settings import VideoConfig, split_of

Metrics = Mapping[str, Any]

AGAIN: Final = (
    "Delete it and run the training command again: it resumes from the saved state and "
    "rewrites the file."
)
VALIDATION: Final = "validation/"

MOST_POINTS: Final = 200  # per plotted curve
MOST_RUNS: Final = 8  # per plot: the number of colours
ABOUT_VALIDATION: Final = "Validation on {} after each epoch, protocol “default”"


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
    problems: list[str] = field(default_factory=list)  # of reading them

    @property
    def scores(self) -> dict[str, _Curve]:
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
    file = folder / runs.CURVES
    if not file.exists():
        if any(folder.glob("events.out.tfevents.*")):
            again = command("--logdir", str(folder), module="tensorboard.main")
            logged.problems.append(
                f"{folder}: trained by an earlier version, without {runs.CURVES}. Curves: {again}"
            )
        return logged
    number = 1  # of the line, for the message
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                step, seconds, values = json.loads(line)
                for tag, value in values.items():
                    y = float(value)
                    curve = logged.curves.setdefault(str(tag), _Curve())
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
    worst_windows: Sequence[Mapping[str, Any]]
    problems: Sequence[str]  # of reading the folder

    @property
    def state(self) -> str:
        """The run's progress, for the page."""
        if not self.folder.is_dir():
            return "folder not found"
        if self.metrics and (self.folder / runs.BEST).is_file():
            return "finished"
        if self.metrics:
            return f"evaluated, but {runs.BEST} is missing"
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
        return {split: errors for split, errors in self.metrics.items() if "/" in split}

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

    def windows_of(self, split: str, most: int) -> list[Mapping[str, Any]]:
        """At most `most` of the worst windows of a split, the worst first."""
        return [row for row in self.worst_windows if row.get("split") == split][:most]


def read_run(folder: Path, name: str = "") -> TrainingRun:
    """Read a run's folder. Errors are reported in `problems`."""
    problems: list[str] = []
    metrics = read_json(folder / runs.METRICS, problems, AGAIN)
    for split, errors in metrics.items():
        if "/" in split and not (isinstance(errors, Mapping) and "baseline" in errors):
            problems.append(
                f"{folder / runs.METRICS}: {split}: expected metrics with a baseline. {AGAIN}"
            )
            metrics = {}
            break
    about = read_json(folder / runs.CONFIG, problems, "The run's settings cannot be shown.")
    not_installed = models.not_installed(about.get("of_model", "vibe"))
    if not_installed:
        problems.append(f"{folder}: run of {not_installed}: its settings cannot be shown.")
    again = AGAIN.replace("it and", f"it and {runs.METRICS} and", 1)
    sequences = read_json(folder / f"{SEQUENCES}.json", problems, again)
    worst_windows = read_json(folder / f"{WORST_WINDOWS}.json", problems, again)
    logged = read_curves(folder)
    problems += logged.problems
    return TrainingRun(
        name=name or folder.name,
        folder=folder,
        about=about,
        metrics=metrics,
        logged=logged,
        sequences=sequences.get(SEQUENCES, []),
        worst_windows=worst_windows.get(WORST_WINDOWS, []),
        problems=problems,
    )


def read_json(file: Path, problems: list[str], remedy: str) -> dict[str, Any]:
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


# --------------------------------------------------------------------------------------------------
# curves


class _CurveGroup(NamedTuple):
    """Curves over steps that share a plot."""

    key: str
    title: str
    caption: str
    unit: str
    prefix: str  # start of the curves' tags
    log: bool = False  # whether the y axis is logarithmic
    scale: float = 1.0  # factor of the values


SPEED: Final = "Windows trained per second; one point for ten steps."
WAITING: Final = "Share of the time in which training waited for the next batch."
GROUPS: Final = (
    _CurveGroup("loss", "Loss", "Weighted sum of all terms.", "loss", "train/total", log=True),
    _CurveGroup("terms", "Loss by term", "Each with its weight.", "loss", "train/", log=True),
    _CurveGroup(
        "gradient", "Gradient", "Norm over all weights of a network.", "norm", "gradient/", log=True
    ),
    _CurveGroup("speed", "Speed", SPEED, "windows per second", "speed/windows_per_second"),
    _CurveGroup("waiting", "Waiting for data", WAITING, "%", "speed/waiting_for_data", scale=100.0),
)
NO_TERMS: Final = ("train/total", "train/skipped_steps")  # in train/, but no terms of the loss
# Plots of a split's validation, one per unit: key of the plot -> unit
MEASURES: Final = {"joints": "mm", "accel": MM_PER_FRAME2, "percent": "%"}
NAMES: Final = {  # names of curves instead of their tags
    "gen_optimizer": "generator",
    "disc_motion_optimizer": "discriminator",
    "windows_per_second": "windows per second",
    "waiting_for_data": "waiting",
}
PARTS: Final = {  # part of the settings -> name on the page
    "datasets_2d": "training, 2D",
    "datasets_3d": "training, 3D",
    "motion": "real motion",
    "validation": "validation",
    "evaluation": "evaluation",
}


def curves_section(
    runs: Sequence[TrainingRun], ablation: Sequence[TrainingRun] = (), *, notes: Sequence[str] = ()
) -> PageSection:
    """The section of curves: validation of all runs in one plot, then each run's curves (not those
    of `ablation`).
    """
    all_runs = list(dict.fromkeys([*runs, *ablation]))
    compared = list[Plot]()
    if len(all_runs) > 1:
        compared += _comparison_plots(all_runs[:MOST_RUNS])
    data = {
        "together": compared,
        "notes": notes,
        "left_out": [run.name for run in all_runs[MOST_RUNS:]],
        "runs": [(run, _facts(run), list(plots_of(run, i))) for i, run in enumerate(runs)],
    }
    return PageSection("curves", "Training curves", "curves.html", data)


def plots_of(run: TrainingRun, number: int) -> Iterator[Plot]:
    """Yield all plots of a run. number: the run's number on the page."""
    name = f"curves-{number}"
    yield from _validation_plots(run, name)
    for group in GROUPS:
        yield from _plot_of(run, group, f"{name}-{group.key}")
    yield from _rate_plot(run, name)


def _validation_plots(run: TrainingRun, name: str) -> Iterator[Plot]:
    """Yield a plot for each validation split and unit of metrics."""
    epoch = "epoch" if run.config is not None else "step"
    logged = run.logged.curves
    for i, split in enumerate(run.logged.scores):
        about = f"{ABOUT_VALIDATION.format(split)}."
        for key, unit in MEASURES.items():
            series = {}
            for metric, described in {**SCORES, **METRICS}.items():
                tag = f"{VALIDATION}{split}/{metric}"
                if described.unit == unit and tag in logged:
                    series[described.title] = _by_epoch(run, logged[tag])
            if series:
                title = f"{run.name}: {' and '.join(series)} on {split}"
                plot = f"{name}-validation-{i}-{key}"
                yield lines(plot, title, about, series, x_label=epoch, y_label=unit)


def _rate_plot(run: TrainingRun, name: str) -> Iterator[Plot]:
    """Yield the plot of the learning rates, if they were logged."""
    series = {}
    for tag, curve in run.logged.curves.items():
        if tag.startswith("learning_rate/") and curve.steps:
            series[_short(tag)] = _by_epoch(run, curve)
    if series:
        epoch = "epoch" if run.config is not None else "step"
        yield lines(
            f"{name}-rate",
            f"{run.name}: Learning rate",
            "After each epoch; decreases when validation stops improving.",
            series,
            x_label=epoch,
            y_label="learning rate",
            log_y=True,
        )


def _plot_of(run: TrainingRun, group: _CurveGroup, key: str) -> Iterator[Plot]:
    """Yield the plot of a group's curves, if any of them is not zero throughout.

    Curves that are zero throughout are only named in the caption.
    """
    varying = dict[str, _Curve]()
    zero = list[str]()
    for tag, curve in run.logged.curves.items():
        is_term = group.key != "terms" or tag not in NO_TERMS
        if is_term and tag.startswith(group.prefix):
            if any(curve.values):
                varying[tag] = curve
            else:
                zero.append(_short(tag))
    if varying:
        series = {_short(tag): _thin(curve, group.scale) for tag, curve in varying.items()}
        captions = [group.caption]
        longest = max(len(curve.steps) for curve in varying.values())
        each = math.ceil(longest / MOST_POINTS)
        if each > 1:
            captions.append(f"Each point is the mean of {each} logged ones.")
        if zero:
            captions.append(f"Zero throughout: {', '.join(zero)}.")
        yield lines(
            key,
            f"{run.name}: {group.title}",
            " ".join(captions),
            series,
            x_label="step",
            y_label=group.unit,
            log_y=group.log,
        )


def _comparison_plots(runs: Sequence[TrainingRun]) -> Iterator[Plot]:
    """Yield a plot of all runs' validation score for each split."""
    splits = itertools.chain.from_iterable(run.logged.scores for run in runs)
    for i, split in enumerate(dict.fromkeys(splits)):
        validated = [run for run in runs if split in run.logged.scores]
        names = _brief([run.name for run in validated])
        series = {
            name: _by_epoch(run, run.logged.scores[split])
            for name, run in zip(names, validated, strict=True)
        }
        shown = names
        if len(names) > 4:
            shown = [*names[:3], f"{len(names) - 3} more"]
        score = _score_of(validated[0], split)
        title = f"{score.title} on {split}: {_join_names(shown)}"
        about = f"{ABOUT_VALIDATION.format(split)}; lower is better."
        yield lines(
            f"curves-together-{i}", title, about, series, x_label="epoch", y_label=score.unit
        )


def _score_of(run: TrainingRun, split: str) -> Metric:
    """The score that validated the run on the split."""
    for name, score in SCORES.items():
        if f"{VALIDATION}{split}/{name}" in run.logged.curves:
            return score
    raise KeyError(split)


def _brief(names: Sequence[str], most: int = 28) -> list[str]:
    """Unique names, shortened for a legend or an axis.

    >>> _brief(["vibe", "embedded-per-frame-093a0bc1a3f8fe92"])
    ['vibe', 'embedded-per-f…bc1a3f8fe92']
    """
    shown: list[str] = []
    for name in names:
        short = name  # of a long one, its beginning, and its end, which tells runs apart
        if len(name) > most:
            short = f"{name[: most // 2]}…{name[-(most // 2 - 3) :]}"
        if short in shown:
            short += f" ({len(shown) + 1})"
        shown.append(short)
    return shown


def _join_names(names: Sequence[str]) -> str:
    """Join names by commas and "and".

    >>> _join_names(["a"]), _join_names(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *others, last = names
    if not others:
        return last
    return f"{', '.join(others)} and {last}"


def _thin(curve: _Curve, scale: float) -> tuple[list[float], list[float]]:
    """Reduce a curve to at most MOST_POINTS points. Returns their steps and scaled values.

    A point is the mean of consecutive points of the curve, at the step of the last of them.
    """
    each = math.ceil(len(curve.steps) / MOST_POINTS)
    starts = range(0, len(curve.steps), each)
    ends = []
    means = []
    for start in starts:
        part = slice(start, start + each)
        ends.append(float(curve.steps[part][-1]))
        means.append(scale * float(np.mean(curve.values[part])))
    return ends, means


def _by_epoch(run: TrainingRun, curve: _Curve) -> tuple[list[float], list[float]]:
    """The curve's epochs and values; if the run's settings are unknown, its steps and values."""
    iterations = 1
    if run.config is not None:
        iterations = run.config.iterations
    return [step / iterations for step in curve.steps], list(curve.values)


def _short(tag: str) -> str:
    """The name of a curve in a legend, from its tag."""
    last = tag.rpartition("/")[2]
    return NAMES.get(last, last)


def _facts(run: TrainingRun) -> dict[str, str]:
    """Title -> text of what the page says about a run above its curves."""
    facts = {"State": run.state}
    best = run.metrics.get("best")
    if best:
        facts["Best epoch"] = f"{best['epoch'] + 1}, validation {score_text(best)}"
    if run.logged.seconds:
        facts["Duration"] = duration(run.logged.seconds)
    if "skipped_steps" in run.metrics:
        facts["Steps skipped because the loss was not finite"] = f"{run.metrics['skipped_steps']:,}"
    estimates = run.metrics.get("estimates", {})
    if estimates:
        splits = [f"{split} ({whose})" for split, whose in estimates.items()]
        facts["Trained on estimated bodies, no ground truth"] = ", ".join(splits)
    return facts


def split_uses(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Split -> its uses in the runs, with the runs' names if only some of them use it so."""
    names: dict[str, dict[str, list[str]]] = {}  # split -> use -> names of the runs
    configs = {run.name: run.config for run in runs if run.config is not None}
    for name, config in configs.items():
        for part, use in PARTS.items():
            if part in ("validation", "evaluation"):
                splits = getattr(config, part)
            else:
                splits = config.splits_of(part)
            for split in dict.fromkeys(map(split_of, splits)):
                names.setdefault(split, {}).setdefault(use, []).append(name)
    texts = dict[str, str]()
    for split, uses in names.items():
        described = list[str]()
        for use, run_names in uses.items():
            text = use
            if len(run_names) < len(configs):
                text += f" ({_join_names(run_names)})"
            described.append(text)
        texts[split] = ", ".join(described)
    return texts
