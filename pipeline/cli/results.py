"""What a command found, as one record that one function prints: as text, or as the document of `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from pipeline.cli.console import WRONG, err, out, plain, show, show_json


@dataclass(slots=True)
class CommandResult:
    """What a command found.

    `rows` are records (dicts, named tuples, dataclasses) or one of them: the document. The text has the same to read.
    """

    rows: Any
    text: list[str | Table] = field(default_factory=list)  # in rich's markup, line by line
    problems: list[str] = field(default_factory=list)  # printed last; with `--json`, on standard error
    exit_code: int = 0

    def line(self, text: str, mark: str = "", indent: int = 0) -> None:
        """Add a line of untrusted text after its mark."""
        self.text.append(" " * indent + f"{mark} " * bool(mark) + plain(text))

    def lines(self, texts: Iterable[str], mark: str = "", indent: int = 0) -> None:
        """Add several lines alike."""
        for text in texts:
            self.line(text, mark, indent)


def print_result(result: CommandResult, *, as_json: bool = False) -> int:
    """Print a command's result, and return its exit code."""
    if as_json:
        show_json(result.rows)
    for part in () if as_json else result.text:
        if isinstance(part, Table):
            show(part)
        else:
            out.print(part)
    for problem in result.problems:
        (err if as_json else out).print(f"{WRONG} {plain(problem)}")
    return result.exit_code
