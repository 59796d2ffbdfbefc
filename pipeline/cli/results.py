"""The result of a command, and the printing of it as text or as a document.  [command -> terminal]

A command fills a `CommandResult`, and ends with `return print_result(result, as_json=args.json)`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from rich.table import Table

from pipeline.cli.console import TerminalConsole, documents, err, out, plain, print_table


@dataclass(slots=True)
class CommandResult:
    """What a command found: a document for programs, and text for people."""

    document: Any  # of `--json`: records (dicts, named tuples, dataclasses), or a single one
    text: list[str | Table] = field(default_factory=list)  # lines in rich's markup, and tables
    problems: list[str] = field(default_factory=list)  # untrusted text, printed after the text
    exit_code: int = 0  # if there are no problems

    def add_line(self, text: str, mark: str = "", indent: int = 0) -> None:
        """Add a line of untrusted text after its mark."""
        if mark:
            mark += " "
        self.text.append(f"{' ' * indent}{mark}{plain(text)}")

    def add_lines(self, texts: Iterable[str], mark: str = "", indent: int = 0) -> None:
        for text in texts:
            self.add_line(text, mark, indent)


def print_result(result: CommandResult, *, as_json: bool = False) -> int:
    """Print the text, or the document as JSON, then the problems. Returns the exit code."""
    if as_json:
        print_json(result.document)
    else:
        for part in result.text:
            if isinstance(part, Table):
                print_table(part)
            else:
                out.print(part)
    has_problems = _print_problems(result.problems, err if as_json else out)
    return result.exit_code or int(has_problems)


def print_document(document: str, problems: Sequence[str]) -> int:
    """Print a document, then the problems on standard error. Returns the exit code."""
    documents.out(document, highlight=False, end="")
    return int(_print_problems(problems, err))


def print_json(value: Any) -> None:
    """Print the document of `--json`. Records are objects, paths are text, and NaN and infinity are
    null. Raises TypeError for values of other types that JSON does not have.
    """
    text = json.dumps(_as_json(value), indent=2, allow_nan=False)
    documents.out(text, highlight=False)


def _print_problems(problems: Sequence[str], console: TerminalConsole) -> bool:
    """Print problems, and return whether there are any."""
    for problem in problems:
        console.show_problem(problem)
    return bool(problems)


def _as_json(value: Any) -> Any:
    """Replace records, tuples, paths and numbers that JSON does not have, at any depth."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key.name: _as_json(getattr(value, key.name)) for key in fields(value)}
    if hasattr(value, "_asdict"):  # a named tuple
        return _as_json(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, PurePath):
        return str(value)
    return value
