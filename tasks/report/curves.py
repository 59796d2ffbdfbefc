"""Curves that training runs logged, as the section of curves on the page.  training -> report:
[runs -> page]

`curves_section` draws the curves of `runs.TrainingRun`. A curve's name is its tag, which
`vibe_model.training.curves.Curves` has chosen:

    train/<term>, train/total                           by step: weighted losses and their sum
    train/skipped_steps                                 number of them so far, at a skipped step
    gradient/<network>                                  by step: norms
    speed/windows_per_second, speed/waiting_for_data    every ten steps
    learning_rate/<optimiser>                           after each epoch
    validation/<split>/<metric>                         after each epoch

A plot over steps shows the curves of a `_CurveGroup`. Plots over epochs show validation and the
learning rates. A `_Plot` is an SVG of Matplotlib, drawn when the page is rendered; dark mode
inverts its lightness. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, NamedTuple

# A notebook sets it for the commands that it starts, also to a backend that is not installed here.
os.environ.pop("MPLBACKEND", None)

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from pipeline.cli.text import duration
from tasks.report import PageSection
from tasks.report.runs import VALIDATION, TrainingRun
from vibe_model.metrics import METRICS, SCORES, score_text

MOST_POINTS: Final = 200  # per plotted curve
INK: Final = "#16181d"
FAINT: Final = "#565d69"
RULE: Final = "#c9ced6"
SERIES: Final = (
    "#1a6fe8",
    "#c2410c",
    "#15803d",
    "#a21caf",
    "#6b7280",
    "#b45309",
    "#0e7490",
    "#be123c",
)
DASHES: Final = ("-", "--", ":", "-.")
# entries that would differ from run to run are left out of an SVG
NO_DATES: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))
# Width of a plot in inches, each 72 SVG units: about that of a phone, on which texts of 11 points
# are then about 11 px high
WIDTH: Final = 4.6
_STYLE: Final[Any] = {  # Any: some versions of Matplotlib type the keys
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": RULE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names come from untrusted files
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


class _CurveGroup(NamedTuple):
    """Curves over steps that share a plot: those whose tags begin with `prefix`."""

    key: str
    title: str
    unit: str
    prefix: str
    excluded: tuple[str, ...] = ()  # tags that begin so, too, but are not in the plot
    log: bool = False  # whether the y axis is logarithmic
    scale: float = 1.0  # factor of the values


NO_TERMS: Final = ("train/total", "train/skipped_steps")
GROUPS: Final = (
    _CurveGroup("loss", "Loss, weighted sum of all terms", "loss", "train/total", log=True),
    _CurveGroup("terms", "Loss by weighted term", "loss", "train/", NO_TERMS, log=True),
    _CurveGroup("gradient", "Gradient of each network", "norm", "gradient/", log=True),
    _CurveGroup("speed", "Speed", "windows per second", "speed/windows_per_second"),
    _CurveGroup("waiting", "Waiting for data", "% of time", "speed/waiting_for_data", scale=100.0),
)


def curves_section(runs: Sequence[TrainingRun], notes: Sequence[str]) -> PageSection:
    """The section of curves: validation of all runs in one plot, then each run's curves."""
    data = {
        "together": [*_comparison_plots(runs)] if len(runs) > 1 else [],
        "notes": notes,
        # (run, title -> text of its facts, its plots)
        "runs": [(run, _facts(run), list(_plots_of(run, i))) for i, run in enumerate(runs)],
    }
    return PageSection("curves", "Training curves", data, "" if runs else "no run has begun")


def _plots_of(run: TrainingRun, number: int) -> Iterator[_Plot]:
    """Yield all plots of a run. number: the run's number on the page."""
    name = f"curves-{number}"
    yield from _validation_plots(run, name)
    for group in GROUPS:
        yield from _plot_of(run, group, f"{name}-{group.key}")
    yield from _rate_plot(run, name)


def _validation_plots(run: TrainingRun, name: str) -> Iterator[_Plot]:
    """Yield a plot for each validation split and unit of metrics."""
    for i, split in enumerate(run.logged.scores):
        by_unit = defaultdict[str, dict[str, Any]](dict)
        for metric, described in {**METRICS, **SCORES}.items():
            tag = f"{VALIDATION}{split}/{metric}"
            if tag in run.logged.curves:
                by_unit[described.unit][described.title] = _by_epoch(run, tag)
        for number, (unit, series) in enumerate(by_unit.items()):
            yield _Plot(
                name=f"{name}-validation-{i}-{number}",
                title=f"{run.name}: {' and '.join(series)} on {split}",
                series=series,
                x_label=_unit_of_time(run),
                y_label=unit,
            )


def _rate_plot(run: TrainingRun, name: str) -> Iterator[_Plot]:
    """Yield the plot of the learning rates, if they were logged."""
    series = {}
    for tag in run.logged.curves:
        if tag.startswith("learning_rate/"):
            series[_short(tag)] = _by_epoch(run, tag)
    if series:
        yield _Plot(
            name=f"{name}-rate",
            title=f"{run.name}: Learning rate",
            series=series,
            x_label=_unit_of_time(run),
            y_label="learning rate",
            log_y=True,
        )


def _plot_of(run: TrainingRun, group: _CurveGroup, key: str) -> Iterator[_Plot]:
    """Yield the plot of a group's curves, if there are any."""
    curves = run.logged.curves
    tags = [tag for tag in curves if tag.startswith(group.prefix) and tag not in group.excluded]
    if not tags:
        return

    series = {_short(tag): _thin(run, tag, group.scale) for tag in tags}
    longest = max(len(curves[tag].steps) for tag in tags)
    n_merged = math.ceil(longest / MOST_POINTS)
    caption = ""
    if n_merged > 1:
        caption = f"Each point is the mean of {n_merged} logged ones."
    yield _Plot(
        name=key,
        title=f"{run.name}: {group.title}",
        caption=caption,
        series=series,
        x_label="step",
        y_label=group.unit,
        log_y=group.log,
    )


def _comparison_plots(runs: Sequence[TrainingRun]) -> Iterator[_Plot]:
    """Yield a plot of all runs' validation score for each split."""
    splits = itertools.chain.from_iterable(run.logged.scores for run in runs)
    for i, split in enumerate(dict.fromkeys(splits)):
        validated = [run for run in runs if split in run.logged.scores]
        names = _brief([run.name for run in validated])
        series = {
            name: _by_epoch(run, run.logged.scores[split])
            for name, run in zip(names, validated, strict=True)
        }
        score = SCORES[validated[0].logged.scores[split].rpartition("/")[2]]
        yield _Plot(
            name=f"curves-together-{i}",
            title=f"{score.title} on {split}",
            caption=f"{score.direction}.",
            series=series,
            x_label="epoch",
            y_label=score.unit,
        )


def _brief(names: Sequence[str]) -> list[str]:
    """Unique names, shortened to 28 characters for a legend or an axis.

    >>> _brief(["vibe", "embedded-per-frame-093a0bc1a3f8fe92"])
    ['vibe', 'embedded-per-f…bc1a3f8fe92']
    """
    shown: list[str] = []
    for name in names:
        short = name  # of a long one, its beginning, and its end, which tells runs apart
        if len(name) > 28:
            short = f"{name[:14]}…{name[-11:]}"
        if short in shown:
            short += f" ({len(shown) + 1})"
        shown.append(short)
    return shown


def _thin(run: TrainingRun, tag: str, scale: float) -> _Series:
    """Reduce a curve to at most MOST_POINTS points, with scaled values.

    A point is the mean of consecutive points of the curve, at the step of the last of them.
    """
    curve = run.logged.curves[tag]
    n_merged = math.ceil(len(curve.steps) / MOST_POINTS)
    ends = []
    means = []
    for start in range(0, len(curve.steps), n_merged):
        part = slice(start, start + n_merged)
        ends.append(float(curve.steps[part][-1]))
        means.append(scale * float(np.mean(curve.values[part])))
    return _Series(ends, means)


def _by_epoch(run: TrainingRun, tag: str) -> _Series:
    """A curve by epoch; if the run's settings are unknown, by step."""
    curve = run.logged.curves[tag]
    iterations = 1
    if run.config is not None:
        iterations = run.config.iterations
    return _Series([step / iterations for step in curve.steps], list(curve.values))


def _unit_of_time(run: TrainingRun) -> str:
    """The unit of the points of `_by_epoch`."""
    return "step" if run.config is None else "epoch"


def _short(tag: str) -> str:
    """The name of a curve in a legend: the last part of its tag."""
    return tag.rpartition("/")[2].replace("_", " ")


def _facts(run: TrainingRun) -> dict[str, str]:
    """Title -> text of what the page says about a run above its curves."""
    facts = {"State": run.state}
    metrics = run.metrics
    if metrics is not None and metrics.best is not None:
        best = metrics.best
        facts["Best epoch"] = f"{best['epoch'] + 1}, validation {score_text(best)}"
    if run.logged.seconds:
        facts["Duration"] = duration(run.logged.seconds)
    if metrics is None:
        return facts
    if "skipped_steps" in metrics.content:
        n_skipped = metrics.content["skipped_steps"]
        facts["Steps skipped because the loss was not finite"] = f"{n_skipped:,}"
    if metrics.estimates:
        splits = [f"{split} ({source})" for split, source in metrics.estimates.items()]
        facts["Trained on estimated bodies, no ground truth"] = ", ".join(splits)
    return facts


class _Series(NamedTuple):
    """A curve of N points; a y that is not finite is a gap."""

    x: Sequence[float]
    y: Sequence[float]

    @property
    def is_alone(self) -> bool:
        """Whether it has a single point, through which there is no line."""
        return sum(map(math.isfinite, self.y)) == 1

    def above_zero(self) -> _Series:
        """The curve with gaps in place of the values that a logarithmic scale cannot show."""
        return _Series(self.x, [y if y > 0 else math.nan for y in self.y])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """Curves in different colours and dashes, with a title."""

    name: str  # seed of the SVG's ids
    title: str
    caption: str = ""  # more than the title
    series: Mapping[str, _Series]  # by label
    x_label: str
    y_label: str
    log_y: bool = False  # logarithmic scale if any y is above 0; other values are gaps

    @property
    def url(self) -> str:
        """The SVG as the source of an image."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg().encode()).decode()}"

    def svg(self) -> str:
        """Draw the plot."""
        series = self.series
        is_log = self.log_y and any((np.array(curve.y) > 0).any() for curve in series.values())
        if is_log:
            series = {label: curve.above_zero() for label, curve in series.items()}
        with mpl.rc_context():
            mpl.rcdefaults()  # ignore the user's matplotlibrc
            mpl.rcParams.update(_STYLE | {"svg.hashsalt": self.name})
            figure = _draw(series)
            (axes,) = figure.axes
            axes.set(xlabel=self.x_label, ylabel=self.y_label)
            if is_log:
                axes.set_yscale("log")
                # 0.01, not a power of ten
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
                # between few powers, too
                axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
            svg = io.StringIO()
            figure.savefig(svg, format="svg", transparent=True, metadata=NO_DATES)
        return svg.getvalue()


def _draw(series: Mapping[str, _Series]) -> Figure:
    """Draw the curves on a grid, with a legend below in two columns."""
    legend_rows = math.ceil(len(series) / 2)
    figure = Figure((WIDTH, 2.6 + 0.2 * legend_rows), layout="constrained")
    axes = figure.add_subplot()
    for (label, curve), color, dash in zip(
        series.items(), cycle(SERIES), cycle(DASHES), strict=False
    ):
        marker = "o" if curve.is_alone else ""
        axes.plot(*curve, color=color, linestyle=dash, marker=marker, markersize=4, label=label)
    if all((np.mod(curve.x, 1) == 0).all() for curve in series.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, axis="y", linewidth=0.5)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
