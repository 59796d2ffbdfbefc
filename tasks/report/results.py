"""The report's section of results.  evaluation -> report: [results] -> page

`results_section` makes what templates/results.html shows, from the runs' metrics.json:

    splits     split -> a table for each protocol: a row for each run, for its smoothed predictions,
               for the mean body, and for published models
    dynamics   tables of past and future bodies, of runs that predict them
    ablation   tables of ablation.json
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from pipeline.cli.text import count
from tasks.evaluation import (
    MEAN_BODY,
    ResultRow,
    describe_labels,
    dynamics_of,
    metric_titles,
    published_row,
    rows_of_run,
    step_titles,
)
from tasks.report.page import PageSection
from tasks.report.runs import TrainingRun
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import LEFT_OUT, by_protocol, find, table_metrics
from vibe_model.metrics import PCK_2D_SHARE, PCK_THRESHOLD_MM, units_of
from vibe_model.runs import KEYPOINTS
from vibe_model.sections import learns_depth


class _ResultsTable(NamedTuple):
    """A table of results whose rows may be compared with each other."""

    title: str
    caption: str
    rows: Sequence[ResultRow]
    meaning: str = ""  # sentences about the protocol and the labels
    note: str = ""  # why the rows may not be compared with other tables

    @property
    def columns(self) -> dict[str, str]:
        """The errors that any row has -> their titles."""
        return metric_titles([row.errors for row in self.rows])

    @property
    def counted(self) -> bool:
        """Whether the number of frames is known for any row."""
        return any(row.frames is not None for row in self.rows)


class _DynamicsTable(NamedTuple):
    """Errors of one run on one split, of the bodies before and after a frame."""

    caption: str
    header: Sequence[str]  # of each step from the frame: "-5 frames", "now", ...
    rows: Mapping[str, Sequence[float]]  # model -> PA-MPJPE in mm at each step


def results_section(runs: Sequence[TrainingRun], ablation: Mapping[str, Any]) -> PageSection:
    """The section of results. ablation: the content of ablation.json, empty if there is none."""
    evaluated = [run for run in runs if run.splits]
    splits: dict[str, list[_ResultsTable]] = {}
    dynamics: list[_DynamicsTable] = []
    for run in evaluated:
        for split in run.splits:
            if split not in splits:
                splits[split] = tables_of(split, evaluated)
        dynamics += _dynamics(run)

    ablated = list(_ablation(ablation))
    tables = [*itertools.chain.from_iterable(splits.values()), *ablated]
    rows = itertools.chain.from_iterable(table.rows for table in tables)
    errors = [row.errors for row in rows]
    data = {
        "metrics": table_metrics(errors),
        "units": units_of(errors),
        "without_depth": [run.name for run in evaluated if not learns_depth(run.config)],
        "pck_mm": PCK_THRESHOLD_MM,
        "pck_2d_share": PCK_2D_SHARE,
        "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
        "splits": splits,
        "dynamics": dynamics,
        "ablation": ablated,
        "ablation_stand_in": bool(ablation.get("stand_in")),
    }
    return PageSection("results", "Results", "results.html", data)


def tables_of(split: str, runs: Sequence[TrainingRun]) -> list[_ResultsTable]:
    """A table for each protocol. For demo data, published figures are in a separate table."""
    runs = [run for run in runs if split in run.splits]
    is_demo = any(run.stand_in for run in runs)
    figures = _published_figures(split, runs)
    protocols: dict[str, None] = {}
    for run in runs:
        protocols |= dict.fromkeys(by_protocol(run.splits[split]))

    tables = list[_ResultsTable]()
    for protocol in protocols:
        rows = _model_rows(split, protocol, runs)
        if not is_demo:
            rows += [row for row in figures if row.protocol == protocol]
        sentences = [find(protocol).meaning]
        labels = [describe_labels(by_protocol(run.splits[split]).get(protocol, {})) for run in runs]
        sentences += [f"{text.capitalize()}." for text in dict.fromkeys(labels) if text]
        if not tables:
            left_out = dict[str, str]()
            for run in runs:
                left_out |= run.splits[split].get(LEFT_OUT, {})
            sentences += [f"Not evaluated by “{name}”: {why}." for name, why in left_out.items()]
        title = f"Protocol “{protocol}”"
        text = " ".join(filter(None, sentences))
        tables.append(_ResultsTable(title, split, rows, text))
    if is_demo and figures:
        note = "These figures are for real data, the tables above for demo data."
        caption = f"{split}, real data"
        table = _ResultsTable("Published figures", caption, figures, note=note)
        tables.append(table)
    return tables


def _dynamics(run: TrainingRun) -> Iterator[_DynamicsTable]:
    """PA-MPJPE of past, present and future bodies predicted from one frame
    (`vibe_model.hmmr.dynamics`).
    """
    for split, table in dynamics_of(run.metrics).items():
        errors_by_step = table["pa_mpjpe"]
        frames = count(table["frames"], "frame")
        tracks = count(table["tracks"], "track")
        yield _DynamicsTable(
            caption=f"{run.name}, {split}: {frames} of {tracks}",
            header=step_titles(next(iter(errors_by_step.values()))),
            rows={model: [*by_step.values()] for model, by_step in errors_by_step.items()},
        )


def _model_rows(split: str, protocol: str, runs: Sequence[TrainingRun]) -> list[ResultRow]:
    """Rows for each run, for its smoothed predictions, and for the mean body.

    The mean body is the same for all runs, so it has one row.
    """
    by_model: dict[str, ResultRow] = {}
    for run in runs:
        first = next(iter(by_protocol(run.splits[split])))
        for row in rows_of_run(split, run.splits[split], run.name):
            if row.model == run.name and protocol == first:
                row = row._replace(about=_describe_run(run, split))
            if row.protocol == protocol:
                by_model[row.model] = row
    return sorted(by_model.values(), key=lambda row: row.model == MEAN_BODY)


def _describe_run(run: TrainingRun, split: str) -> str:
    """Model size, training speed and inputs, as far as they are recorded."""
    parts: list[str] = []
    if "parameters" in run.metrics:
        parts.append(f"{run.metrics['parameters'] / 1e6:,.1f} M parameters")
    speed = run.logged.curves.get("speed/windows_per_second")
    if run.config is not None and speed is not None and speed.values:
        parts.append(f"{median(speed.values) / run.config.batch_size:.2g} steps/s")
    reads = run.metrics.get("reads", [])
    if reads:
        parts.append(f"reads {', '.join(reads)}")
    keypoints = run.splits[split].get(KEYPOINTS)
    if keypoints:
        parts.append(f"2D keypoints: {keypoints}")
    return "; ".join(parts)


def _published_figures(split: str, runs: Sequence[TrainingRun]) -> list[ResultRow]:
    """The row of each published model, with a note on models trained like the first run."""
    trained_alike = ""
    with_3dpw = None
    if runs and runs[0].config is not None:
        with_3dpw = "3dpw/train" in runs[0].config.training_splits
        word = "with" if with_3dpw else "without"
        trained_alike = f"; trained {word} 3DPW, as {runs[0].name} here"

    rows = []
    for figures in published.figures_of(split):
        row = published_row(figures)
        if figures.with_3dpw == with_3dpw:
            row = row._replace(about=row.about + trained_alike)
        rows.append(row)
    return rows


def _ablation(content: Mapping[str, Any]) -> Iterator[_ResultsTable]:
    """Yield a table for each split and protocol of ablation.json."""
    tables: dict[tuple[str, str], list[ResultRow]] = {}  # by split and protocol
    for row in content.get("rows", []):
        means = {name: value["mean"] for name, value in row["errors"].items()}
        name = row["model"]
        if row["seeds"] > 1:
            name += f" (mean of {row['seeds']} seeds)"
        place = (row["split"], row["protocol"])
        tables.setdefault(place, []).append(ResultRow(*place, name, means, row["frames"] or None))
    for (split, protocol), rows in tables.items():
        yield _ResultsTable(f"{split}, protocol “{protocol}”", split, rows)
