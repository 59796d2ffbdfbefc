"""Metrics of trained models, and the rows of tables that are made of them.  evaluation -> [tables]

Training has written metrics.json into a run's folder (`RunMetrics`), with an entry for each split:

    {"stand_in": false, "3dpw/test": {"protocol": "default", "frames": 35515, "mpjpe": 93.5,
     "baseline": {"mpjpe": 190.2, ...}, "published": {...}}, ...}

`by_protocol` divides a split's entry. Two models are there to compare with, and both are called
baseline somewhere:

- the mean body: the same constant body in every frame. The key "baseline" of an entry has its
  errors
- the per-frame model: trained like the model itself, but without temporal context. `Model.baseline`
  is its variant, and `baseline` in luigi.cfg switches it on. It has a run and a metrics.json of its
  own, with the key "smoothed" for its predictions after smoothing in time

The tables call them "mean body" and "per frame".
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from rich.table import Table

from pipeline.cli import console
from vibe_model import runs
from vibe_model.evaluation import protocols, published
from vibe_model.evaluation.protocols import by_protocol, table_metrics

SplitMetrics = Mapping[str, Any]  # a split's entry in metrics.json, or its numbers by one protocol
MEAN_BODY: Final = "mean body"


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """metrics.json of a finished run, or what `evaluate` writes like it."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a finished run."""
        return cls(json.loads((folder / runs.METRICS).read_text()))

    @property
    def splits(self) -> dict[str, SplitMetrics]:
        """The entry of each evaluated split; the other keys are facts of the run."""
        return {name: entry for name, entry in self.content.items() if "/" in name}

    @property
    def stand_in(self) -> bool:
        """Whether the model was trained on demo data."""
        return bool(self.content.get("stand_in"))

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best epoch: its number from 0 ("epoch"), and its score by the score's name.

        None for metrics of the command `evaluate`, which does not know it.
        """
        return self.content.get("best")

    @property
    def estimates(self) -> Mapping[str, str]:
        """Training splits with estimated bodies -> what these are."""
        return dict(self.content.get("estimates", {}))


class ResultRow(NamedTuple):
    """A row of a table: one model on one split, by one protocol."""

    split: str
    protocol: str
    model: str
    errors: Mapping[str, float]  # by metric of metrics.json; without metrics that lack labels
    frames: int | None  # number of evaluated frames; None: unknown
    # below the model's name on a page: source of published figures, or width of smoothing
    about: str = ""

    @classmethod
    def read_entry(cls, split: str, entry: SplitMetrics, title: str) -> Iterator[Self]:
        """Yield the rows of a split's entry by each protocol: the model, its smoothed predictions
        (no smoothing may be the best on validation), and the mean body.
        """
        for protocol, numbers in by_protocol(entry).items():
            if not numbers:
                continue
            # without frames with 3D labels, the errors are of those with 2D labels
            frames = int(numbers.get("frames") or numbers.get("frames_2d") or 0)
            row = cls(split, protocol, title, _errors_of(numbers), frames)
            yield row
            smoothed = numbers.get("smoothed")
            if smoothed:
                width = f"Gaussian of {smoothed['sigma']:g} frames"
                errors = _errors_of(smoothed)
                yield row._replace(model=f"{title}, smoothed", errors=errors, about=width)
            yield row._replace(model=MEAN_BODY, errors=_errors_of(numbers["baseline"]))

    @classmethod
    def read_splits(
        cls, metrics: Mapping[str, RunMetrics], *, published: bool = False
    ) -> dict[str, list[Self]]:
        """Make the rows of each split: by each protocol those of all models, then the mean body's.

        metrics: by the model's name. The keypoints that a model reads are part of its name.
        published: whether rows of published models follow. They do not beside demo data.
        """
        by_split: dict[str, list[Self]] = {}
        for name, of_model in metrics.items():
            for split, entry in of_model.splits.items():
                title = name
                if entry.get(protocols.KEYPOINTS):
                    title += f", keypoints {entry[protocols.KEYPOINTS]}"
                by_split.setdefault(split, []).extend(cls.read_entry(split, entry, title))
        by_split = {split: cls._sort(split, rows) for split, rows in by_split.items()}
        if published:
            for split, rows in by_split.items():
                rows += cls._published_rows(split)
        return by_split

    @classmethod
    def _sort(cls, split: str, rows: Sequence[Self]) -> list[Self]:
        """Sort a split's rows by protocol; the mean body is last, once.

        A protocol made for the dataset, such as emdb, comes first.
        """
        dataset = split.partition("/")[0]
        names = list(dict.fromkeys(row.protocol for row in rows))
        names.sort(key=lambda name: name != dataset)  # False sorts before True
        unique = {(row.protocol, row.model): row for row in rows}  # the mean body's are equal
        return sorted(
            unique.values(), key=lambda row: (names.index(row.protocol), row.model == MEAN_BODY)
        )

    @classmethod
    def _published_rows(cls, split: str) -> Iterator[Self]:
        """Yield the rows of published models on a split."""
        for figures in published.FIGURES:
            if figures.split == split:
                key = (split, figures.protocol, figures.model)
                yield cls(*key, figures.errors, None, figures.source)


def as_csv(rows: Sequence[ResultRow]) -> str:
    """Rows as CSV with a header; numbers have two digits, missing errors are empty."""
    metrics = table_metrics(row.errors for row in rows)
    lines: list[Sequence[Any]] = [("split", "protocol", "model", *metrics, "frames")]
    for row in rows:
        errors = [round(row.errors[name], 2) if name in row.errors else "" for name in metrics]
        lines.append([row.split, row.protocol, row.model, *errors, row.frames])
    return csv_text(lines)


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def metric_titles(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metrics that any row has -> their titles."""
    names = set().union(*rows)
    return {name: metric.title for name, metric in table_metrics(rows).items() if name in names}


def table_of(title: str, rows: Sequence[ResultRow], *, protocols: bool = False) -> Table:
    """A table of the main errors of one split, for the terminal.

    rows: Rows of the split. protocols: Add a column of protocols.
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
        cells += [f"{row.errors[name]:.1f}" if name in row.errors else "-" for name in titles]
        cells.append(f"{row.frames:,}" if row.frames else "-")
        table.add_row(*cells)
    return table


def describe_labels(numbers: SplitMetrics) -> str:
    """Say whose bodies the labels of a split's numbers are; "" for the neutral body."""
    genders = numbers.get(protocols.LABEL_BODY, protocols.NEUTRAL_BODY)
    if genders == protocols.NEUTRAL_BODY:
        return ""
    return f"labels by gendered bodies ({genders}), predictions by the neutral one"


def _errors_of(numbers: SplitMetrics) -> dict[str, float]:
    """The numbers of an entry of metrics.json that tables show."""
    return {name: float(numbers[name]) for name in table_metrics([numbers]) if name in numbers}
