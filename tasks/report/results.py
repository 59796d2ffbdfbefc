"""Results of the models, baselines and published figures.  evaluation -> report: [results] ->
page
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from pipeline.cli.text import command, count
from tasks.report.page import PageSection
from tasks.report.runs import TrainingRun
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import LEFT_OUT, by_protocol, meaning, table_metrics
from vibe_model.metrics import PCK_2D_SHARE, PCK_THRESHOLD_MM, UNITS
from vibe_model.runs import KEYPOINTS, LABEL_BODY, NEUTRAL_BODY, csv_text

MOST_SEQUENCES: Final = 20  # per split
MOST_WINDOWS: Final = 10
MEAN_BODY: Final = "mean body"
Errors = Mapping[str, float]  # by the names in metrics.json; absent without labels


class _ModelErrors(NamedTuple):
    """A row of a table: one model on one split, by one protocol."""

    model: str
    errors: Errors
    frames: int | None  # evaluated; None if unknown
    about: str = ""  # source of published figures, width of smoothing, or a run's size and inputs


class _ResultsTable(NamedTuple):
    """Rows that may be compared."""

    key: str  # the protocol, or another name
    title: str
    caption: str
    rows: Sequence[_ModelErrors]
    meaning: str = ""  # of the protocol
    note: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """The errors that any row has -> their titles."""
        return _columns([row.errors for row in self.rows])

    @property
    def counted(self) -> bool:
        """Whether the number of frames is known for any row."""
        return any(row.frames is not None for row in self.rows)


def results_section(
    runs: Sequence[TrainingRun], ablation: Mapping[str, Any], *, cache: str
) -> PageSection:
    """The section of results. ablation: the content of ablation.json, empty if there is none."""
    evaluated = [run for run in runs if run.splits]
    splits = dict.fromkeys(split for run in evaluated for split in run.splits)
    tables = {split: tables_of(split, evaluated) for split in splits}
    ablated = list(_ablation(ablation))
    every = (
        row
        for split_tables in (*tables.values(), ablated)
        for table in split_tables
        for row in table.rows
    )
    data = {
        "metrics": table_metrics(row.errors for row in every),
        "units": UNITS,
        "pck_mm": PCK_THRESHOLD_MM,
        "pck_2d_share": PCK_2D_SHARE,
        "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
        "splits": tables,
        "dynamics": [table for run in evaluated for table in _dynamics(run)],
        "ablation": ablated,
        "ablation_stand_in": bool(ablation.get("stand_in")),
        "listings": [listing for run in evaluated for listing in _listings(run, cache)],
    }
    return PageSection("results", "Results", "results.html", data)


def tables_of(split: str, runs: Sequence[TrainingRun]) -> list[_ResultsTable]:
    """A table for each protocol. For demo data, published figures are in a separate table."""
    runs = [run for run in runs if split in run.splits]
    stand_in = any(run.stand_in for run in runs)
    figures = _published_figures(split, runs)
    tables = list[_ResultsTable]()
    for protocol in dict.fromkeys(name for run in runs for name in by_protocol(run.splits[split])):
        rows = list(_rows(split, protocol, runs))
        rows += [
            row for figure_protocol, row in figures if figure_protocol == protocol and not stand_in
        ]
        about = (
            meaning(protocol),
            _labels(split, protocol, runs),
            "" if tables else _left_out(split, runs),
        )
        tables.append(
            _ResultsTable(
                protocol, f"Protocol “{protocol}”", split, rows, " ".join(filter(None, about))
            )
        )
    if stand_in and figures:
        note = "These figures are for real data, the tables above for demo data."
        rows = [row for _, row in figures]
        tables.append(
            _ResultsTable("published", "Published figures", f"{split}, real data", rows, note=note)
        )
    return tables


def _left_out(split: str, runs: Sequence[TrainingRun]) -> str:
    """Protocols that could not be evaluated, and why."""
    reasons = {p: why for run in runs for p, why in run.splits[split].get(LEFT_OUT, {}).items()}
    return " ".join(f"Not evaluated by “{protocol}”: {why}." for protocol, why in reasons.items())


def _labels(split: str, protocol: str, runs: Sequence[TrainingRun]) -> str:
    """A sentence about the labels' body, unless it is the neutral one."""
    numbers = (by_protocol(run.splits[split]).get(protocol) for run in runs)
    genders = next(filter(None, numbers), {}).get(LABEL_BODY, NEUTRAL_BODY)
    return (
        ""
        if genders == NEUTRAL_BODY
        else f"Labels use gendered bodies ({genders}), predictions the neutral one."
    )


def _dynamics(run: TrainingRun) -> Iterator[dict[str, Any]]:
    """PA-MPJPE of past, present and future bodies predicted from one frame
    (`vibe_model.hmmr.dynamics`).
    """
    for split, errors in run.splits.items():
        tables = [
            numbers["dynamics"] for numbers in by_protocol(errors).values() if "dynamics" in numbers
        ]
        for table in tables[:1]:
            by_model = table["pa_mpjpe"]
            steps = [int(step) for step in next(iter(by_model.values()))]
            rows = {
                model: [by_step[str(step)] for step in steps] for model, by_step in by_model.items()
            }
            frames = count(table["frames"], "frame")
            tracks = count(table["tracks"], "track")
            header = [f"{step:+d} frames" if step else "now" for step in steps]
            yield {
                "caption": f"{run.name}, {split}: {frames} of {tracks}",
                "header": header,
                "rows": rows,
            }


def _rows(split: str, protocol: str, runs: Sequence[TrainingRun]) -> Iterator[_ModelErrors]:
    """Rows of each run, of its smoothed predictions, and of the mean body, which is the same for
    all runs.
    """
    errors: Mapping[str, Any] = {}
    for run in runs:
        run_errors = by_protocol(run.splits[split])
        if protocol not in run_errors:
            continue
        errors = run_errors[protocol]
        about = _about(run, split) if protocol == next(iter(run_errors)) else ""
        yield _ModelErrors(run.name, _select_metrics(errors), _frames(errors), about)
        if isinstance(smoothed := errors.get("smoothed"), Mapping):
            sigma = smoothed.get("sigma")
            about = f"Gaussian of {sigma:g} frames" if isinstance(sigma, int | float) else ""
            yield _ModelErrors(
                f"{run.name}, smoothed", _select_metrics(smoothed), _frames(errors), about
            )
    if errors:
        yield _ModelErrors(MEAN_BODY, _select_metrics(errors["baseline"]), _frames(errors))


def _about(run: TrainingRun, split: str) -> str:
    """Model size, training speed and inputs, as far as they are recorded."""
    reads = run.metrics.get("reads", [])
    keypoints = run.splits[split].get(KEYPOINTS)
    parts = (
        [f"{run.metrics['parameters'] / 1e6:,.1f} M parameters"]
        if "parameters" in run.metrics
        else []
    )
    speed = run.logged.curves.get("speed/windows_per_second")
    if run.config is not None and speed is not None and speed.values:
        parts.append(f"{median(speed.values) / run.config.batch_size:.2g} steps/s")
    parts += [f"reads {', '.join(reads)}"] if reads else []
    parts += [f"2D keypoints: {keypoints}"] if keypoints else []
    return "; ".join(parts)


def _published_figures(split: str, runs: Sequence[TrainingRun]) -> list[tuple[str, _ModelErrors]]:
    """(protocol, published figures) of a split, with a note on those trained like the first run."""
    config = runs[0].config if runs else None
    with_3dpw = None if config is None else "3dpw/train" in config.training_splits
    same = (
        f"; trained {'with' if with_3dpw else 'without'} 3DPW, as {runs[0].name} here"
        if runs
        else ""
    )
    return [
        (paper.protocol, _ModelErrors(paper.model, _select_metrics(paper.errors), None, source))
        for paper in published.figures_of(split)
        for source in [paper.source + (same if paper.with_3dpw == with_3dpw else "")]
    ]


def _select_metrics(errors: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(errors[name]) for name in table_metrics([errors]) if name in errors}


def _frames(errors: Mapping[str, Any]) -> int:
    return int(errors.get("frames") or errors.get("frames_2d") or 0)


def _ablation(content: Mapping[str, Any]) -> Iterator[_ResultsTable]:
    """Yield the ablation's tables."""
    tables: dict[tuple[str, str], list[_ModelErrors]] = {}
    for row in content.get("rows", []):
        means = {name: value["mean"] for name, value in row["errors"].items()}
        name = row["model"] + (f" (mean of {row['seeds']} seeds)" if row["seeds"] > 1 else "")
        tables.setdefault((row["split"], row["protocol"]), []).append(
            _ModelErrors(name, means, row["frames"] or None)
        )
    for (split, protocol), rows in tables.items():
        yield _ResultsTable(protocol, f"{split}, protocol “{protocol}”", split, rows)


def _listings(run: TrainingRun, cache: str) -> Iterator[dict[str, Any]]:
    """Yield a run's results by track, and its worst windows, of each split; the worst first.

    `look`: the command that shows the first row.
    """
    for split in dict.fromkeys(
        str(row.get("split")) for row in (*run.sequences, *run.worst_windows)
    ):
        tracks = run.tracks_of(split)
        windows = run.windows_of(split, MOST_WINDOWS)
        shown = "all" if len(tracks) <= MOST_SEQUENCES else f"the worst {MOST_SEQUENCES} of"
        by_track = (
            f"{run.name} on {split}: {shown} {count(len(tracks), 'track')} (see the run's "
            "sequences.csv)"
        )
        worst = (
            f"{run.name} on {split}: worst {count(len(windows), 'window')} (more in the "
            "run's worst_windows.csv)"
        )
        for caption, rows in ((by_track, tracks[:MOST_SEQUENCES]), (worst, windows)):
            if rows:
                track = str(rows[0].get("track"))
                look = command(
                    "show",
                    *split.split("/", 1),
                    "--cache",
                    cache,
                    "--track",
                    track,
                    "--out",
                    "track.html",
                )
                yield {
                    "caption": caption,
                    "split": split,
                    "columns": _columns(rows),
                    "rows": rows,
                    "look": look,
                }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metrics that any row has -> their titles."""
    return {
        name: metric.title
        for name, metric in table_metrics(rows).items()
        if any(name in row for row in rows)
    }


def as_csv(splits: Mapping[str, Sequence[_ResultsTable]]) -> str:
    """All rows of all tables as CSV with a header; unknown errors are empty."""
    measured = table_metrics(
        row.errors for tables in splits.values() for table in tables for row in table.rows
    )
    lines: list[tuple[Any, ...]] = [("split", "protocol", "model", *measured, "frames")]
    for split, tables in splits.items():
        for key, row in ((table.key, row) for table in tables for row in table.rows):
            errors = (f"{row.errors[name]:.2f}" if name in row.errors else "" for name in measured)
            lines.append((split, key, row.model, *errors, "" if row.frames is None else row.frames))
    return csv_text(lines)
