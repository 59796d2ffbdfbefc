"""The table of results as files for papers and spreadsheets, beside the page.  evaluation -> report: [files]"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Final

from report.training.results import Table
from vibe_model.metrics import METRICS, UNITS

LATEX: Final = re.compile(r"[&%$#_{}]")
DEMO: Final = "DEMO DATA: no number here is a scientific result"


def as_csv(splits: Mapping[str, Sequence[Table]]) -> str:
    """A line of names, then a line a row of every table; an error that is not known is left empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("split", "protocol", "model", *METRICS, "frames"))
    for split, tables in splits.items():
        for table in tables:
            for row in table.rows:
                errors = (f"{row.errors[name]:.2f}" if name in row.errors else "" for name in METRICS)
                rows.writerow((split, table.key, row.model, *errors, "" if row.frames is None else row.frames))
    return text.getvalue()


def as_latex(splits: Mapping[str, Sequence[Table]], *, stand_in: bool) -> str:
    """A tabular of each split by the default protocol. stand_in: on demo data, which its first line reports."""
    lines = [f"% {DEMO}"] * stand_in + [f"% {UNITS}"]
    for split, (table, *_) in splits.items():
        header = ["model", *(METRICS[name].title for name in table.columns)]
        shape = "l" + "r" * len(table.columns)
        lines += [f"% {split}", rf"\begin{{tabular}}{{{shape}}}", r"\hline", _line(header), r"\hline"]
        for row in table.rows:
            errors = [f"{row.errors[name]:.1f}" if name in row.errors else "--" for name in table.columns]
            lines.append(_line([row.model, *errors]))
        lines += [r"\hline", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(LATEX.sub(r"\\\g<0>", cell) for cell in cells) + r" \\"
