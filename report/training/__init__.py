"""The report's sections about training and evaluation.  training -> evaluation -> [report]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cache
from report.page import Section
from report.training.bodies import bodies_section
from report.training.curves import curves_section
from report.training.results import results_section
from report.training.run import Run


def training_sections(
    root: cache.Root,
    runs: Sequence[Run],
    *,
    notes: Sequence[str] = (),
    ablation: Mapping[str, Any] | None = None,
    ablation_runs: Sequence[Run] = (),
) -> list[Section]:
    """Curves, results and bodies. notes: what a reader should know of which runs these are.

    ablation: the content of ablation.json. What a run lacks is reported in its place; nothing is raised for it.
    """
    try:
        splits = list(cache.open(root).splits)
    except (cache.CacheError, OSError):
        splits = []  # the sections about the data report it
    return [
        curves_section(runs, ablation_runs, notes=notes, splits=splits),
        results_section(runs, ablation or {}, cache=str(root)),
        bodies_section(runs),
    ]
