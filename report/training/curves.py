"""How training went: losses, validation, learning rates, speed.  training -> report: [curves] -> page"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from report.figures import Plot, brief, duration, lines
from report.page import Section
from report.training.events import SCORE, VALIDATION, Curve
from report.training.run_folder import Run
from report.training.used_for import used_for
from vibe_model.metrics import ERRORS

MOST_POINTS: Final = 200  # of a plotted curve
MOST_TOGETHER: Final = 8  # runs in one plot: as many as there are colours


@dataclass(frozen=True, slots=True)
class Group:
    """Curves over the steps that are one plot."""

    key: str
    title: str
    caption: str
    unit: str
    prefix: str  # of their tags
    without: frozenset[str] = frozenset()  # tags
    log: bool = False
    scale: float = 1.0


GROUPS: Final = (
    Group("loss", "Loss", "Sum of all terms, each with its weight.", "loss", "train/total", log=True),
    Group(
        "terms",
        "Loss by term",
        "Each with its weight.",
        "loss",
        "train/",
        without=frozenset({"train/total", "train/skipped_steps"}),
        log=True,
    ),
    Group("gradient", "Gradient", "Norm over all weights of a network.", "norm", "gradient/", log=True),
    Group(
        "speed",
        "Speed",
        "Windows trained on in a second; a point stands for ten steps.",
        "windows a second",
        "speed/windows_per_second",
    ),
    Group(
        "waiting",
        "Waiting for data",
        "Share of the time in which training stood still for the next batch.",
        "%",
        "speed/waiting_for_data",
        scale=100.0,
    ),
)
NAMES: Final = {  # of curves, where their tags say it otherwise
    "gen_optimizer": "generator",
    "disc_motion_optimizer": "discriminator",
    "windows_per_second": "windows a second",
    "waiting_for_data": "waiting",
}

Series = dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True, slots=True)
class RunCurves:
    """One run's part of the section."""

    name: str
    folder: str
    facts: Mapping[str, str]
    problems: Sequence[str]
    plots: Sequence[Plot]


def curves_section(
    runs: Sequence[Run], ablation: Sequence[Run] = (), *, notes: Sequence[str] = (), splits: Sequence[str] = ()
) -> Section:
    """The runs' curves, each by itself, and validation of those shown together. ablation: only in the latter.

    splits: names of those in the cache, of which the page says what they are used for.
    """
    together = list(dict.fromkeys([*runs, *ablation]))
    header, uses = used_for(runs, splits)
    data = {
        "used_header": header,
        "used": uses,
        "together": list(_together(together[:MOST_TOGETHER])) if len(together) > 1 else [],
        "notes": notes,
        "left_out": [run.name for run in together[MOST_TOGETHER:]],
        "runs": [
            RunCurves(r.name, str(r.folder), _facts(r), r.problems, list(plots_of(r, i))) for i, r in enumerate(runs)
        ],
    }
    return Section("curves", "Training curves", "curves.html", data)


def plots_of(run: Run, number: int) -> Iterator[Plot]:
    """Every plot that the run has curves for. number: of the run on the page."""
    name = f"curves-{number}"
    yield from _validation(run, name)
    for group in GROUPS:
        found = {t: c for t, c in run.events.curves.items() if t.startswith(group.prefix) and t not in group.without}
        curves = {tag: curve for tag, curve in found.items() if any(curve.values)}
        if curves:
            series = {_short(tag): _thin(curve, group.scale) for tag, curve in curves.items()}
            idle = ", ".join(_short(tag) for tag in found if tag not in curves)
            said = [group.caption, _stands_for(curves.values()), f"Zero throughout: {idle}." if idle else ""]
            title = f"{run.name}: {group.title}"
            yield _plot(
                f"{name}-{group.key}", title, " ".join(filter(None, said)), series, "step", group.unit, log=group.log
            )
    rates = {t: c for t, c in run.events.curves.items() if t.startswith("learning_rate/") and c.steps}
    if rates:
        series = {_short(tag): _by_epoch(run, curve) for tag, curve in rates.items()}
        told = "After each epoch; it falls when validation no longer does."
        yield _plot(f"{name}-rate", f"{run.name}: Learning rate", told, series, _epochs(run), "learning rate", log=True)


def _validation(run: Run, name: str) -> Iterator[Plot]:
    for i, split in enumerate(run.events.splits()):
        for key, errors, unit in (
            ("joints", ("pa_mpjpe", "mpjpe", "pve"), "mm"),
            ("accel", ("accel", "accel_error"), "mm per frame²"),
            ("percent", ("pck", "auc", "pck_2d"), "%"),
        ):
            found = {e: run.events.curves.get(f"{VALIDATION}{split}/{e}", Curve()) for e in errors}
            series = {ERRORS[error]: _by_epoch(run, curve) for error, curve in found.items() if curve.steps}
            if series:
                told = f"Validation on {split} after each epoch, protocol “default”."
                title = f"{run.name}: {' and '.join(series)} on {split}"
                yield _plot(f"{name}-validation-{i}-{key}", title, told, series, _epochs(run), unit)


def _together(runs: Sequence[Run]) -> Iterator[Plot]:
    """Validation PA-MPJPE of all runs, a plot a split."""
    splits = dict.fromkeys(split for run in runs for split in run.events.splits())
    for i, split in enumerate(splits):
        tag = f"{VALIDATION}{split}{SCORE}"
        found = [run for run in runs if tag in run.events.curves]
        names = brief([run.name for run in found])
        series = {name: _by_epoch(run, run.events.curves[tag]) for name, run in zip(names, found, strict=True)}
        told = f"Validation on {split} after each epoch, protocol “default”; lower is better."
        title = f"PA-MPJPE on {split}: {_listed(names)}"
        yield _plot(f"curves-together-{i}", title, told, series, "epoch", "mm")


def _listed(names: Sequence[str]) -> str:
    """
    >>> _listed(["VIBE", "per frame"]), _listed(["a", "b", "c", "d", "e"])
    ('VIBE and per frame', 'a, b, c and 2 more')
    """
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _plot(
    name: str, title: str, caption: str, series: Series, x_label: str, y_label: str, *, log: bool = False
) -> Plot:
    """Lines; on a logarithmic scale where that is wanted and there is anything above zero."""
    log = log and any(y > 0 for _, values in series.values() for y in values)
    if log:
        series = {of: (x, [v if v > 0 else math.nan for v in y]) for of, (x, y) in series.items()}
    return lines(name, title, caption, series, x_label=x_label, y_label=y_label, log_y=log)


def _thin(curve: Curve, scale: float) -> tuple[list[float], list[float]]:
    """At most MOST_POINTS of a curve, each the mean over as many logged ones, at the last one's step."""
    each = math.ceil(len(curve.steps) / MOST_POINTS)
    parts = range(0, len(curve.steps), each)
    ends = [float(curve.steps[min(start + each, len(curve.steps)) - 1]) for start in parts]
    return ends, [scale * float(np.mean(curve.values[start : start + each])) for start in parts]


def _stands_for(curves: Iterable[Curve]) -> str:
    """What a point of a thinned curve is, in words; "" where all points are shown."""
    longest = max(curves, key=lambda curve: len(curve.steps))
    each = math.ceil(len(longest.steps) / MOST_POINTS)
    parts = [f"the mean of {each} logged ones"] if each > 1 else []
    parts += [f"of which only one in {longest.every} was read"] if longest.every > 1 else []
    return f"Each point is {', '.join(parts)}." if parts else ""


def _by_epoch(run: Run, curve: Curve) -> tuple[list[float], list[float]]:
    return [run.epoch_of(step) for step in curve.steps], list(curve.values)


def _epochs(run: Run) -> str:
    return "epoch" if run.config is not None else "step"


def _short(tag: str) -> str:
    """
    >>> _short("train/kp_2d"), _short("learning_rate/gen_optimizer")
    ('kp_2d', 'generator')
    """
    last = tag.rpartition("/")[2]
    return NAMES.get(last, last)


def _facts(run: Run) -> dict[str, str]:
    facts = {"State": run.state}
    best = run.metrics.get("best")
    if isinstance(best, Mapping) and isinstance(best.get("pa_mpjpe"), int | float):
        facts["Best epoch"] = f"{int(best.get('epoch', 0)) + 1}, validation PA-MPJPE {best['pa_mpjpe']:.1f} mm"
    elif (step := run.events.best_step()) is not None and run.config is not None:
        facts["Best epoch so far"] = f"{run.epoch_of(step):.0f}"
    if run.events.seconds:
        facts["Duration"] = duration(run.events.seconds)
    skipped = run.metrics.get("skipped_steps")
    if isinstance(skipped, int):
        facts["Steps skipped, without a finite loss"] = f"{skipped:,}"
    return facts
