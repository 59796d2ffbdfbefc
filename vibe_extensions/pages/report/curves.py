"""Training curves: losses, validation, learning rates, speed.  training -> report: [curves] -> page"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from pipeline.cli.console import duration
from vibe_extensions.pages.report.page import PageSection, Plot, brief, lines
from vibe_extensions.pages.report.runs import VALIDATION, Curve, TrainingRun
from vibe_model.metrics import METRICS, MM_PER_FRAME2, SCORES, score_text
from vibe_model.settings import split_of

MOST_POINTS: Final = 200  # per plotted curve
MOST_TOGETHER: Final = 8  # runs per plot: the number of colours
ABOUT_VALIDATION: Final = "Validation on {} after each epoch, protocol “default”"


class CurveGroup(NamedTuple):
    """Curves over steps that share a plot."""

    key: str
    title: str
    caption: str
    unit: str
    prefix: str  # of their tags
    log: bool = False
    scale: float = 1.0


SPEED: Final = "Windows trained per second; one point for ten steps."
WAITING: Final = "Share of the time in which training waited for the next batch."
GROUPS: Final = (
    CurveGroup("loss", "Loss", "Weighted sum of all terms.", "loss", "train/total", log=True),
    CurveGroup("terms", "Loss by term", "Each with its weight.", "loss", "train/", log=True),
    CurveGroup("gradient", "Gradient", "Norm over all weights of a network.", "norm", "gradient/", log=True),
    CurveGroup("speed", "Speed", SPEED, "windows per second", "speed/windows_per_second"),
    CurveGroup("waiting", "Waiting for data", WAITING, "%", "speed/waiting_for_data", scale=100.0),
)
NO_TERMS: Final = ("train/total", "train/skipped_steps")
MEASURES: Final = {"joints": "mm", "accel": MM_PER_FRAME2, "percent": "%"}  # of validation: one plot per unit
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
    """The section of curves: validation of all runs in one plot, then each run's curves (not those of `ablation`)."""
    together = list(dict.fromkeys([*runs, *ablation]))
    data = {
        "together": list(_together(together[:MOST_TOGETHER])) if len(together) > 1 else [],
        "notes": notes,
        "left_out": [run.name for run in together[MOST_TOGETHER:]],
        "runs": [(run, _facts(run), [*plots_of(run, i)]) for i, run in enumerate(runs)],
    }
    return PageSection("curves", "Training curves", "curves.html", data)


def plots_of(run: TrainingRun, number: int) -> Iterator[Plot]:
    """Yield all plots of a run. number: the run's number on the page."""
    name, epoch = f"curves-{number}", "epoch" if run.config is not None else "step"
    logged, measured = run.events.curves, {**SCORES, **METRICS}.items()
    for i, split in enumerate(run.events.scores):
        about = f"{ABOUT_VALIDATION.format(split)}."
        for key, unit in MEASURES.items():
            tags = {m.title: f"{VALIDATION}{split}/{metric}" for metric, m in measured if m.unit == unit}
            series = {title: _by_epoch(run, logged[tag]) for title, tag in tags.items() if tag in logged}
            if series:
                title = f"{run.name}: {' and '.join(series)} on {split}"
                yield lines(f"{name}-validation-{i}-{key}", title, about, series, x_label=epoch, y_label=unit)
    for group in GROUPS:
        curves = {
            tag: curve
            for tag, curve in logged.items()
            if tag.startswith(group.prefix) and (group.key != "terms" or tag not in NO_TERMS)
        }
        if varying := {tag: curve for tag, curve in curves.items() if any(curve.values)}:
            series = {_short(tag): _thin(curve, group.scale) for tag, curve in varying.items()}
            zero = ", ".join(_short(tag) for tag in curves if tag not in varying)
            each = math.ceil(max(len(curve.steps) for curve in varying.values()) / MOST_POINTS)
            thinned = f"Each point is the mean of {each} logged ones." if each > 1 else ""
            about = " ".join(filter(None, [group.caption, thinned, f"Zero throughout: {zero}." if zero else ""]))
            labels = {"x_label": "step", "y_label": group.unit}
            yield lines(f"{name}-{group.key}", f"{run.name}: {group.title}", about, series, **labels, log_y=group.log)
    if rates := {tag: curve for tag, curve in logged.items() if tag.startswith("learning_rate/") and curve.steps}:
        series = {_short(tag): _by_epoch(run, curve) for tag, curve in rates.items()}
        about, title = "After each epoch; decreases when validation stops improving.", f"{run.name}: Learning rate"
        yield lines(f"{name}-rate", title, about, series, x_label=epoch, y_label="learning rate", log_y=True)


def _together(runs: Sequence[TrainingRun]) -> Iterator[Plot]:
    """Yield a plot of all runs' validation score for each split."""
    for i, split in enumerate(dict.fromkeys(split for run in runs for split in run.events.scores)):
        validated = [run for run in runs if split in run.events.scores]
        names = brief([run.name for run in validated])
        series = {name: _by_epoch(run, run.events.scores[split]) for name, run in zip(names, validated, strict=True)}
        shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
        logged = validated[0].events.curves
        score = next(score for name, score in SCORES.items() if f"{VALIDATION}{split}/{name}" in logged)
        title = f"{score.title} on {split}: {join_names(shown)}"
        about = f"{ABOUT_VALIDATION.format(split)}; lower is better."
        yield lines(f"curves-together-{i}", title, about, series, x_label="epoch", y_label=score.unit)


def join_names(names: Sequence[str]) -> str:
    """
    >>> join_names(["a"]), join_names(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _thin(curve: Curve, scale: float) -> tuple[list[float], list[float]]:
    """Reduce a curve to at most MOST_POINTS, each the mean of consecutive points, at the last one's step."""
    each = math.ceil(len(curve.steps) / MOST_POINTS)
    starts = range(0, len(curve.steps), each)
    ends = [float(curve.steps[min(start + each, len(curve.steps)) - 1]) for start in starts]
    return ends, [scale * float(np.mean(curve.values[start : start + each])) for start in starts]


def _by_epoch(run: TrainingRun, curve: Curve) -> tuple[list[float], list[float]]:
    return [run.epoch_of(step) for step in curve.steps], list(curve.values)


def _short(tag: str) -> str:
    last = tag.rpartition("/")[2]
    return NAMES.get(last, last)


def _facts(run: TrainingRun) -> dict[str, str]:
    facts = {"State": run.state}
    if best := run.metrics.get("best"):
        facts["Best epoch"] = f"{best['epoch'] + 1}, validation {score_text(best)}"
    if run.events.seconds:
        facts["Duration"] = duration(run.events.seconds)
    if "skipped_steps" in run.metrics:
        facts["Steps skipped because the loss was not finite"] = f"{run.metrics['skipped_steps']:,}"
    return facts


def split_uses(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Split -> its uses in the runs, with the runs' names if only some of them use it so."""
    names: dict[str, dict[str, list[str]]] = {}
    configs = {run.name: run.config for run in runs if run.config is not None}
    for name, config in configs.items():
        for part, words in PARTS.items():
            splits = getattr(config, part) if part in ("validation", "evaluation") else config.part(part)
            for split in dict.fromkeys(map(split_of, splits)):
                names.setdefault(split, {}).setdefault(words, []).append(name)
    return {
        split: ", ".join(w if len(used) == len(configs) else f"{w} ({join_names(used)})" for w, used in uses.items())
        for split, uses in names.items()
    }
