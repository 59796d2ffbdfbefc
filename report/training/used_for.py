"""Which splits trained the models that are shown, and which judged them.  training -> report: [used_for] -> curves"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.cli.text import count
from report.figures import Cell
from report.training.run_folder import Run

PARTS: Final = {  # of the settings -> in words
    "datasets_2d": "training, 2D",
    "datasets_3d": "training, 3D",
    "motion": "motion for the discriminator",
    "validation": "validation",
    "evaluation": "evaluation",
}
NOTHING: Final = "nothing"


def used_for(runs: Sequence[Run], splits: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """Header and rows: what each run used each split for; with how many windows, where it has recorded that.

    splits: of the cache. Those that a run used and the cache no longer has come after them.
    """
    known = [run for run in runs if run.config is not None]
    each = [_uses(run) for run in known]
    names = dict.fromkeys([*splits, *(split for uses in each for split in uses)])
    rows: list[tuple[Cell, ...]] = [(name, *(uses.get(name, NOTHING) for uses in each)) for name in names]
    return ("split", *(run.name for run in known)), rows if known else []


def _uses(run: Run) -> dict[str, str]:
    """Split -> what for."""
    if run.config is None:
        return {}
    recorded = run.about.get("windows")
    found: dict[str, list[str]] = {}
    for part, words in PARTS.items():
        splits = getattr(run.config, part) if part in ("validation", "evaluation") else run.config.part(part)
        windows = recorded.get(part) if isinstance(recorded, Mapping) else None
        for split in splits:
            n = windows.get(split) if isinstance(windows, Mapping) else None
            found.setdefault(split, []).append(f"{words} ({count(n, 'window')})" if isinstance(n, int) else words)
    return {split: ", ".join(uses) for split, uses in found.items()}
