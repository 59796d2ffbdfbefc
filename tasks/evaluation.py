"""training -> evaluation, as Luigi tasks: the errors of trained models, as tables.

`Train` has written the errors to metrics.json of its run, with an entry for each split:

    {"stand_in": false, "3dpw/test": {"protocol": "default", "frames": 35515, "mpjpe": 93.5,
     "baseline": {"mpjpe": 190.2, ...}, "published": {...}}, ...}

`by_protocol` divides a split's entry. `Evaluate` makes rows of the entries (`result_rows`), writes
these as results.csv, and prints tables and notes. The command `evaluate` uses the same functions.

Two models are there to compare with, and both are called baseline somewhere:

- the mean body: the same constant body in every frame. The key "baseline" of metrics.json has its
  errors
- the per-frame model: trained like the model itself, but without temporal context. `Model.baseline`
  is its variant, and `baseline` in luigi.cfg switches it on. It has a run and a metrics.json of its
  own, with the key "smoothed" for its predictions after smoothing in time

The tables call them "mean body" and "per frame".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import luigi
from rich.table import Table

from pipeline.cli import console
from pipeline.cli.text import count, from_here
from tasks.base import DEMO_DATA, PipelineTask, fact, plain, warn
from tasks.settings import settings
from tasks.training import MODEL_NAMES, Train, model_config, read_metrics, splits_of
from vibe_model import models, runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import LEFT_OUT, by_protocol, table_metrics
from vibe_model.metrics import units_of
from vibe_model.models import Model
from vibe_model.runs import csv_text, write_text
from vibe_model.sections import VIBE, WITHOUT_DEPTH, RunChoice
from vibe_model.settings import VideoConfig

RESULTS: Final = "results.csv"
WIDE: Final = 120  # least width of a table in columns of the terminal: numbers must not be cut

Metrics = Mapping[str, Any]  # content of metrics.json
MEAN_BODY: Final = "mean body"


class ResultRow(NamedTuple):
    """A row of a table: one model on one split, by one protocol."""

    split: str
    protocol: str
    model: str
    errors: Mapping[str, float]  # by metric of metrics.json; without metrics that lack labels
    frames: int | None  # number of evaluated frames; None: unknown
    # below the model's name on a page: source of published figures, or width of smoothing
    about: str = ""


class Evaluate(PipelineTask):
    """Print and store a trained model's errors on every evaluation split, beside those of the
    baselines.

    Per-frame baselines are trained, too, unless luigi.cfg sets `baseline = false`.
    """

    verb = "evaluate"
    model = luigi.Parameter(description=MODEL_NAMES)

    @property
    def record(self) -> Model:
        """Raises PipelineError for an unknown model, and for one that does not load."""
        return models.find(self.model)

    @property
    def what(self) -> str:
        return self.record.title

    def requires(self) -> list[luigi.Task]:
        variants: list[str | None] = [None]
        per_frame = per_frame_config(self.record)
        if per_frame not in (None, model_config(self.record)):
            variants.append(_per_frame_variant(self.record))
        return [Train(model=self.model, variant=variant) for variant in variants]

    def up_to_date(self) -> bool:
        file = self._folder() / RESULTS
        return file.is_file() and file.read_text() == as_csv(_all_rows(self.record))

    def work(self) -> None:
        write_text(self._folder() / RESULTS, as_csv(_all_rows(self.record)))
        self.show()

    def show(self) -> None:
        folder = self._folder()
        tables: dict[str, list[ResultRow]] = {}
        for row in _all_rows(self.record):
            tables.setdefault(f"{row.split}, {row.protocol}", []).append(row)
        for title, rows in tables.items():
            console.out.print()
            console.print_table(table_of(title, rows), least=WIDE)
        show_notes(read_metrics(folder), model_config(self.record))
        shown_folder = from_here(folder)
        fact("numbers", f"{shown_folder}/{RESULTS}, {shown_folder}/{runs.METRICS} (all)")

    def _folder(self) -> Path:
        return runs.run_folder(model_config(self.record))


class EvaluateVIBE(Evaluate):
    """Print and store VIBE's errors on every evaluation split, beside those of the baselines."""

    model = "vibe"


class EvaluateHMMR(Evaluate):
    """Print and store the errors of HMMR and its baselines on every evaluation split."""

    model = "hmmr"


class EvaluatePartDynamics(Evaluate):
    """Print and store the errors of part dynamics and its baselines on every evaluation split."""

    model = "part_dynamics"


def per_frame_config(model: Model = VIBE) -> VideoConfig | None:
    """The per-frame model's configuration; None with `baseline = false`."""
    if not RunChoice.read(settings(), model).baseline:
        return None
    return model_config(model, _per_frame_variant(model))


def _per_frame_variant(model: Model) -> str:
    """Variant of the per-frame model that belongs to the configured run.

    The configured variants are kept, so that the per-frame model trains on the same windows: with
    `variant = without-3dpw`, it is "without-3dpw+per-frame" (`Model.vary`).
    """
    configured = (RunChoice.read(settings(), model).variant or "").split("+")
    variants = [name for name in configured if name and name != model.baseline]
    return "+".join([*variants, model.baseline])


def _all_rows(model: Model) -> list[ResultRow]:
    """The rows of the model's run and of its per-frame model's, as luigi.cfg sets them."""
    metrics = read_metrics(runs.run_folder(model_config(model)))
    config = per_frame_config(model)
    per_frame = None
    if config is not None:
        per_frame = read_metrics(runs.run_folder(config))
    return result_rows(metrics, per_frame, title=model.title)


def rows_of_run(split: str, entry: Metrics, title: str) -> Iterator[ResultRow]:
    """Yield the rows of a split's entry in metrics.json by each protocol: the model, its smoothed
    predictions (no smoothing may be the best on validation), and the mean body.
    """
    for protocol, numbers in by_protocol(entry).items():
        if not numbers:
            continue
        # without frames with 3D labels, the errors are of those with 2D labels
        frames = int(numbers.get("frames") or numbers.get("frames_2d") or 0)
        row = ResultRow(split, protocol, title, _errors_of(numbers), frames)
        yield row
        smoothed = numbers.get("smoothed")
        if smoothed:
            width = f"Gaussian of {smoothed['sigma']:g} frames"
            errors = _errors_of(smoothed)
            yield row._replace(model=f"{title}, smoothed", errors=errors, about=width)
        yield row._replace(model=MEAN_BODY, errors=_errors_of(numbers["baseline"]))


def _errors_of(numbers: Metrics) -> dict[str, float]:
    """The numbers of an entry of metrics.json that tables show."""
    return {name: float(numbers[name]) for name in table_metrics([numbers]) if name in numbers}


def rows_of_split(split: str, entries: Mapping[str, Metrics]) -> list[ResultRow]:
    """Make the rows of one split: by each protocol those of all models, then the mean body's.

    A protocol made for the dataset, such as emdb, comes first. The keypoints that a model reads are
    part of its name.

    entries: Model's name -> the split's entry in its metrics.json.
    """
    rows = list[ResultRow]()
    for name, entry in entries.items():
        title = name
        if entry.get(runs.KEYPOINTS):
            title += f", keypoints {entry[runs.KEYPOINTS]}"
        rows += rows_of_run(split, entry, title)
    dataset = split.partition("/")[0]
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    protocols.sort(key=lambda name: name != dataset)  # False sorts before True
    unique = {(row.protocol, row.model): row for row in rows}  # the mean body's are equal
    return sorted(
        unique.values(), key=lambda row: (protocols.index(row.protocol), row.model == MEAN_BODY)
    )


def result_rows(
    metrics: Metrics, per_frame: Metrics | None = None, *, title: str = VIBE.title
) -> list[ResultRow]:
    """Make rows for a table from metrics.json.

    The models are the trained one; the per-frame model, plain and smoothed, if `per_frame` has its
    metrics.json; and the mean body.
    """
    rows: list[ResultRow] = []
    for split in splits_of(metrics):
        entries = {title: metrics[split]}
        if per_frame is not None:
            entries["per frame"] = per_frame[split]
        rows += rows_of_split(split, entries)
    return rows


def as_csv(rows: Sequence[ResultRow]) -> str:
    """`result_rows` as CSV with a header; numbers have two digits, missing errors are empty."""
    metrics = table_metrics(row.errors for row in rows)
    lines: list[Sequence[Any]] = [("split", "protocol", "model", *metrics, "frames")]
    for row in rows:
        errors = [round(row.errors[name], 2) if name in row.errors else "" for name in metrics]
        lines.append([row.split, row.protocol, row.model, *errors, row.frames])
    return csv_text(lines)


def metric_titles(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metrics that any row has -> their titles."""
    names = set().union(*rows)
    return {name: metric.title for name, metric in table_metrics(rows).items() if name in names}


def table_of(title: str, rows: Sequence[ResultRow], *, protocols: bool = False) -> Table:
    """A table of the main errors of one split, for the terminal.

    rows: Rows of the split, from `result_rows`. protocols: Add a column of protocols.
    """
    titles = metric_titles([row.errors for row in rows])
    minor: tuple[str, ...] = ()  # left out, so that the table fits into the terminal
    if "pve" in titles:
        minor = ("pck", "auc", "pck_2d")
    elif "mpjpe" in titles:
        minor = ("pck_2d",)
    for name in minor:
        titles.pop(name, None)

    text_columns = ["protocol"] if protocols else []
    table = console.new_table(title, *text_columns)
    for column in (*titles.values(), "frames"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.model]
        if protocols:
            cells.append(row.protocol)
        cells += [_one_digit(row.errors.get(name)) for name in titles]
        cells.append(f"{row.frames:,}" if row.frames else "-")
        table.add_row(*cells)
    return table


def _one_digit(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f}"


def show_notes(metrics: Metrics, config: VideoConfig, note: str = "") -> None:
    """Print the explanations below the tables: by split, then units, then warnings.

    Args:
        metrics: Content of metrics.json.
        config: Configuration of the training.
        note: Text to print after the units.
    """
    for split in splits_of(metrics):
        for protocol, reason in metrics[split].get(LEFT_OUT, {}).items():
            without = plain(f"{split}, without protocol {protocol}: {reason}")
            console.out.print(f"{console.DOUBT} {without}")
        for protocol, numbers in by_protocol(metrics[split]).items():
            for text in (numbers.get(runs.COMPARES_WITH), describe_labels(numbers)):
                if text:
                    console.out.print(f"[dim]{split}, protocol {protocol}: {text}[/dim]")
    _show_dynamics(metrics)
    units = units_of(metrics[split] for split in splits_of(metrics))
    console.out.print(f"[dim]{units}{note}[/dim]\n")
    _show_warnings(metrics, config)


def describe_labels(numbers: Metrics) -> str:
    """Say whose bodies the labels of an entry of metrics.json are; "" for the neutral body."""
    genders = numbers.get(runs.LABEL_BODY, runs.NEUTRAL_BODY)
    if genders == runs.NEUTRAL_BODY:
        return ""
    return f"labels by gendered bodies ({genders}), predictions by the neutral one"


def _show_warnings(metrics: Metrics, config: VideoConfig) -> None:
    """Print what makes the numbers doubtful: missing depth, estimated labels, demo data."""
    if not config.learns_depth:
        warn(WITHOUT_DEPTH)
    for split, source in metrics.get("estimates", {}).items():
        warn(f"trained on the bodies of {split}: {source}, no ground truth")
    if metrics["stand_in"]:
        console.out.print(DEMO_DATA)


def _dynamics_of(metrics: Metrics) -> dict[str, Metrics]:
    """Split -> errors of past and future bodies by the first protocol with them, of such splits:

    {"pa_mpjpe": {"constant": {"-5": 71.2, "0": 58.1, ...}, ...}, "tracks": 24}, by model and step
    in frames.
    """
    by_split = dict[str, Metrics]()
    for split in splits_of(metrics):
        for numbers in by_protocol(metrics[split]).values():
            if numbers.get("dynamics"):
                by_split.setdefault(split, numbers["dynamics"])
    return by_split


def _show_dynamics(metrics: Metrics) -> None:
    """Print a table of each split's errors by step of time, beside published figures on real
    data.
    """
    for split, dynamics in _dynamics_of(metrics).items():
        rows = dict(dynamics["pa_mpjpe"])
        if not metrics["stand_in"]:
            rows |= published.DYNAMICS.get(split, {})
        table = console.new_table(f"{split}, past and future")
        steps = next(iter(rows.values()))
        for step in steps:
            title = f"{int(step):+d} frames" if int(step) else "now"
            table.add_column(title, justify="right", no_wrap=True)
        for model, errors in rows.items():
            table.add_row(model, *(_one_digit(errors.get(step)) for step in steps))
        console.out.print()
        console.out.print(table)
        tracks = count(dynamics["tracks"], "track")
        console.out.print(f"[dim]PA-MPJPE from one frame, mean over {tracks}[/dim]")


def rows_beside_published(metrics: Metrics, title: str = VIBE.title) -> dict[str, list[ResultRow]]:
    """Split -> rows of a table: the model and the mean body by protocol, then published figures.

    On demo data, there are no published figures.
    """
    rows: dict[str, list[ResultRow]] = {}
    for row in result_rows(metrics, title=title):
        rows.setdefault(row.split, []).append(row)
    if not metrics["stand_in"]:
        for split, shown in rows.items():
            shown += published_rows(split)
    return rows


def published_rows(split: str) -> Iterator[ResultRow]:
    """Yield the rows of published models on a split."""
    for figures in published.FIGURES:
        if figures.split == split:
            key = (split, figures.protocol, figures.model)
            yield ResultRow(*key, figures.errors, None, figures.source)
