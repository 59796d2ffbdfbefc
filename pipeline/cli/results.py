"""The result of a command, printed as text or as the document of `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from pipeline.cli.console import WRONG, err, out, plain, show, show_json, show_text


@dataclass(slots=True)
class CommandResult:
    """A command's result as a document and as text."""

    rows: Any  # the document: records (dicts, named tuples, dataclasses), or one of them
    text: list[str | Table] = field(default_factory=list)  # in rich's markup, line by line
    problems: list[str] = field(default_factory=list)  # printed last; with a document, on standard error
    exit_code: int = 0

    def line(self, text: str, mark: str = "", indent: int = 0) -> None:
        """Add a line of untrusted text after its mark."""
        self.text.append(" " * indent + f"{mark} " * bool(mark) + plain(text))

    def lines(self, texts: Iterable[str], mark: str = "", indent: int = 0) -> None:
        for text in texts:
            self.line(text, mark, indent)


def print_result(result: CommandResult, *, as_json: bool = False, instead: str | None = None) -> int:
    """Print a command's result and return its exit code: 1 if there are problems.

    as_json: print the rows as JSON. instead: print this document instead.
    """
    if as_json or instead is not None:
        show_json(result.rows) if instead is None else show_text(instead)
        to = err
    else:
        to = out
        for part in result.text:
            show(part) if isinstance(part, Table) else out.print(part)
    for problem in result.problems:
        to.print(f"{WRONG} {plain(problem)}")
    return result.exit_code or int(bool(result.problems))
