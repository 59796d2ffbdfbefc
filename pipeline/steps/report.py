"""What a step did: as lines to print, as JSON values, as an exit code.  [raw -> tracks -> features]

`pipeline.steps.sentences` makes the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.cli.console import DONE, DOUBT, out, plain, task_line
from pipeline.errors import PipelineError

LAYOUT: Final = "\n\t"  # control characters that are printed: messages may have several lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a step did, and what it could not do."""

    details: Sequence[str] = ()  # each ends a line of its own
    mark: str = DONE  # the symbol at the start of these lines
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # like warnings, but a command's summary does not repeat them
    problems: Sequence[str] = ()  # why the step failed, after committing the rest
    # clips that were given up or are damaged, and rows without features: a command exits with 1
    flaws: Sequence[str] = ()
    document: Mapping[str, Any] = field(default_factory=dict)  # counts and names, as JSON values

    def _show(self, verb: str, what: str, warnings: Sequence[str]) -> None:
        """Print lines such as `✓ convert    3dpw/train    ...`, then warnings and notes."""
        for detail in self.details:
            out.print(f"{self.mark} {task_line(verb, what, plain(detail))}")
        for text in (*warnings, *self.notes):
            out.print(f"  {DOUBT} {plain(text, keep=LAYOUT)}")

    def report(self, verb: str, what: str) -> None:
        """Print it. Raises PipelineError with the problems, if there are any."""
        self._show(verb, what, [*self.flaws, *self.warnings])
        if self.problems:
            raise PipelineError("\n".join(self.problems))

    def print(self, verb: str, what: str) -> int:
        """Print it as the result of a command, with what explains its exit code, which is
        returned.
        """
        self._show(verb, what, self.warnings)
        flaws = [f"{what}: {flaw}" for flaw in self.flaws]
        for problem in [*flaws, *self.problems]:
            out.show_problem(problem)
        return int(bool(self.problems or self.flaws))
