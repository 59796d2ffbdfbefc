"""The report's sections about training and evaluation.  training -> evaluation -> [report]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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
    raw: Path | None = None,
    body: Path | None = None,
    notes: Sequence[str] = (),
    ablation: Mapping[str, Any] | None = None,
    ablation_runs: Sequence[Run] = (),
) -> list[Section]:
    """Results, bodies where a run has any, and curves. notes: what a reader should know of which runs these are.

    raw, body: folders, for the bodies. ablation: the content of ablation.json. What a run lacks is reported in its
    place; nothing is raised for it.
    """
    bodies = bodies_section(opened, runs, raw=raw, body=body)
    return [
        results_section(runs, ablation or {}, cache=str(opened.root)),
        *([bodies] if any(bodies.data.values()) else []),
        curves_section(runs, ablation_runs, notes=notes),
    ]
