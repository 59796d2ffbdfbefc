"""The report's sections about training and evaluation.  training -> evaluation -> [report]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report.data.splits import Opened
from report.page import Section
from report.training.bodies import bodies_section
from report.training.curves import curves_section
from report.training.results import results_section
from report.training.run import Run


def training_sections(
    opened: Opened,
    runs: Sequence[Run],
    *,
    notes: Sequence[str] = (),
    ablation: Mapping[str, Any] | None = None,
    ablation_runs: Sequence[Run] = (),
) -> list[Section]:
    """Curves, results and bodies. notes: what a reader should know of which runs these are.

    ablation: the content of ablation.json. What a run lacks is reported in its place; nothing is raised for it.
    """
    return [
        curves_section(runs, ablation_runs, notes=notes, splits=[split.name for split in opened.splits]),
        results_section(runs, ablation or {}, cache=str(opened.root)),
        bodies_section(runs),
    ]
