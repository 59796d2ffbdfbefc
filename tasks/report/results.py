"""The report's section of results.  evaluation -> report: [results] -> page

`results_section` makes a table for each split from the runs' metrics.json: the rows of
`tasks.evaluation`, which the command `evaluate` prints.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.evaluation import (
    Metrics,
    ResultRow,
    describe_labels,
    metric_titles,
    published_rows,
    rows_of_split,
)
from tasks.report.page import PageSection
from tasks.report.runs import TrainingRun
from vibe_model.evaluation.protocols import LEFT_OUT, by_protocol, find, table_metrics
from vibe_model.metrics import PCK_2D_SHARE, PCK_THRESHOLD_MM, units_of
from vibe_model.sections import learns_depth


@dataclass(frozen=True)
class _SplitTable:
    """All models on one split, by each protocol."""

    rows: Sequence[ResultRow]
    notes: Sequence[str]  # about labels, and protocols that cannot evaluate the split

    @property
    def titles(self) -> dict[str, str]:
        """Metrics that any row has -> their titles."""
        return metric_titles([row.errors for row in self.rows])


def results_section(runs: Sequence[TrainingRun]) -> PageSection:
    """The section of results. On demo data, there are no published figures."""
    entries: dict[str, dict[str, Metrics]] = {}  # split -> run -> its entry of metrics.json
    for run in runs:
        for split, entry in run.splits.items():
            entries.setdefault(split, {})[run.name] = entry
    is_demo = any(run.stand_in for run in runs)
    tables = {}
    for split, by_run in entries.items():
        rows = rows_of_split(split, by_run)
        if not is_demo:
            rows += published_rows(split)
        notes = itertools.chain.from_iterable(map(_notes, by_run.values()))
        tables[split] = _SplitTable(rows, [*dict.fromkeys(notes)])

    rows = [*itertools.chain.from_iterable(table.rows for table in tables.values())]
    errors = [row.errors for row in rows]
    data = {
        "splits": tables,
        "protocols": list(map(find, dict.fromkeys(row.protocol for row in rows))),
        "metrics": table_metrics(errors),
        "units": units_of(errors),
        "without_depth": [run.name for run in runs if run.splits and not learns_depth(run.config)],
        "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
        "pck_mm": PCK_THRESHOLD_MM,
        "pck_2d_share": PCK_2D_SHARE,
    }
    return PageSection("results", "Results", data)


def _notes(entry: Metrics) -> list[str]:
    """What an entry of metrics.json compares with, and why protocols are missing."""
    notes = []
    for protocol, numbers in by_protocol(entry).items():
        if describe_labels(numbers):
            notes.append(f"Protocol {protocol}: {describe_labels(numbers)}.")
    for protocol, reason in entry.get(LEFT_OUT, {}).items():
        notes.append(f"Not evaluated by protocol {protocol}: {reason}.")
    return notes
