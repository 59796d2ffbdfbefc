"""Rows of errors as CSV, and as tables for the terminal.  evaluation -> [tables]"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from pipeline.cli import console
from tasks.results import ResultRow
from vibe_model.evaluation.protocols import table_metrics
from vibe_model.metrics import Metric


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


def shown_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """The metrics that any row has, in the order of tables."""
    names = set().union(*rows)
    return {name: metric for name, metric in table_metrics(rows).items() if name in names}


def table_of(title: str, rows: Sequence[ResultRow], *, protocols: bool = False) -> Table:
    """A table of the main errors of one split, for the terminal.

    rows: Rows of the split. protocols: Add a column of protocols.
    """
    shown = shown_metrics([row.errors for row in rows])
    titles = {
        name: metric.title for name, metric in shown.items() if metric.gives_way_to not in shown
    }
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
