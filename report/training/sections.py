"""The report's sections about training and evaluation, put together.  evaluation -> report: [training] -> page"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from report.page import Section
from report.provenance import provenance_section
from report.training.bodies import bodies_section
from report.training.curves import curves_section
from report.training.results import results_section
from report.training.run_folder import Run, read_json

ABLATION: Final = "ablation.json"
ABLATE: Final = "Remove it and run `luigi --module tasks Ablation` again."


def training_sections(
    root: cache.Root,
    runs: Sequence[Run],
    *,
    notes: Sequence[str] = (),
    ablation: Mapping[str, Any] | None = None,
    ablation_runs: Sequence[Run] = (),
    fingerprint: str = "",
) -> list[Section]:
    """Curves, results, bodies and provenance. notes: what a reader should know of which runs these are.

    ablation: the content of ablation.json. What a run lacks is told in its place; nothing is raised for it.
    """
    return [
        curves_section(runs, ablation_runs, notes=notes, splits=_splits(root)),
        results_section(runs, ablation or {}, cache=str(root)),
        bodies_section(runs),
        provenance_section(root, [*runs, *ablation_runs], fingerprint=fingerprint),
    ]


def _splits(root: cache.Root) -> list[str]:
    try:
        return list(cache.open(root).splits)
    except (cache.CacheError, OSError):
        return []  # the sections about the data say so


def read_ablation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of ablation.json in the runs' folder, empty where there is none, and what is wrong with it."""
    problems: list[str] = []
    content = read_json(folder / ABLATION, problems, ABLATE)
    if content and not isinstance(content.get("rows"), list):
        return {}, [f"{folder / ABLATION}: expected the ablation's rows, found none. {ABLATE}"]
    return content, problems
