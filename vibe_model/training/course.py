"""How far a training has come, step by step and epoch by epoch.  windows -> [training]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Step(NamedTuple):
    """What one step brought, of all processes together."""

    terms: dict[str, float]  # weighted losses by name
    norms: dict[str, float]  # of each network's gradient, by the network's name
    good: bool  # False: a loss or a gradient was not finite, and nothing was updated


@dataclass(slots=True)
class Course:
    """Plain numbers: it is saved with the state."""

    step: int = 0  # steps done, skipped ones included
    skipped: int = 0  # of them: loss or gradient not finite, nothing updated
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each term over this epoch's good steps
    good_steps: int = 0  # of this epoch
    best: float | None = None  # the lowest score of an epoch
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    def note(self, step: Step) -> None:
        """Take note of a step that was done, or skipped."""
        self.step += 1
        if not step.good:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.good_steps += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in step.terms.items()}

    def means(self) -> dict[str, float]:
        """Of each term over this epoch's good steps; empty without any."""
        return {name: total / self.good_steps for name, total in self.sums.items()} if self.good_steps else {}

    def end_epoch(
        self, score: float | None, validation: Mapping[str, Any], learning_rates: Mapping[str, float]
    ) -> bool:
        """Take note of an epoch's end. True when its score, lower is better, is the best so far."""
        epoch = len(self.history)
        entry = {"epoch": epoch, "step": self.step, "score": score, "losses": self.means()}
        self.history.append({**entry, "validation": dict(validation), "learning_rates": dict(learning_rates)})
        self.sums, self.good_steps = {}, 0
        improved = score is not None and (self.best is None or score < self.best)
        if improved:
            self.best, self.best_epoch = score, epoch
        return improved
