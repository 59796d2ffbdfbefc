"""Output of commands: consoles, marks, tables, JSON, and numbers with units (docs/terminal.md).

`out` writes to standard output, `err` to standard error. A mark is the symbol at the start of a
line. Untrusted text, such as a file's name, is escaped by `plain` before rich prints it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

WIDE: Final = 100_000  # columns without a terminal: lines are not folded

# marks
DONE: Final = "[green]✓[/green]"
DOUBT: Final = "[yellow]![/yellow]"  # a warning
WRONG: Final = "[red]✗[/red]"  # a problem
IDLE: Final = "[dim]·[/dim]"  # information; nothing was done
ERROR: Final = "[red]error:[/red]"
STAND_IN: Final = "[yellow]DEMO DATA[/yellow]"
UNTRAINED: Final = "[yellow]UNTRAINED[/yellow]"  # features of a network with random weights

# widths (characters) of the first two columns of `line`
VERB: Final = 10
WHAT: Final = 24


class BrokenPipe(KeyboardInterrupt):
    """The program that read the output has ended: stop like Ctrl-C, without a message."""


class _Console(Console):
    """Console that ends on a broken pipe without a message, with the exit code of SIGPIPE."""

    failure: OSError | None = None  # of writing, for example on a full disk
    is_pipe_broken = False

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError as error:
            stream = "standard error" if self.stderr else "standard output"
            error.filename = error.filename or stream
            if not isinstance(error, BrokenPipeError):
                self.failure = error
                # otherwise Python fails again when it flushes standard output at its end
                if not self.stderr and self.file is sys.stdout:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise

    def on_broken_pipe(self) -> NoReturn:
        self.is_pipe_broken = True
        self.quiet = True  # rich prints nothing more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipe

    def check_pipe(self) -> None:
        """Raise BrokenPipe if the program that read the output has ended.

        Needed because Luigi drops errors that are raised while it reports a task.
        """
        if self.is_pipe_broken:
            raise BrokenPipe

    def show_problem(self, text: str) -> None:
        """Print a line about a problem, in untrusted text."""
        self.print(f"{WRONG} {plain(text)}")

    def warn(self, text: str) -> None:
        """Print a line with a warning, in untrusted text."""
        self.print(f"{DOUBT} {plain(text)}")

    def fits(self, filled: Table) -> bool:
        """Whether a table is no wider than the terminal; always true in a pipe."""
        unlimited = self.options.update(max_width=WIDE)
        return Measurement.get(self, unlimited, filled).maximum <= self.width


out: Final = _Console(
    highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE
)
err: Final = _Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
# standard output for JSON and documents; unlike `out`, not affected by `aside`
_machine: Final = _Console(highlight=False, emoji=False, soft_wrap=True, width=WIDE)


def line(verb: str, what: str, detail: str) -> str:
    """A line of progress about a task, in columns.

    >>> line("convert", "3dpw/train", "28 videos")
    'convert    3dpw/train                28 videos'
    """
    return f"{verb:<{VERB}} {what:<{WHAT}}  {detail}".rstrip()


def plain(text: str, keep: str = "") -> str:
    """Escape untrusted text for rich: one line, no control codes except those in `keep`."""
    return escape(printable(text, keep))


def printable(text: str, keep: str = "") -> str:
    """Escape control codes, for text that is not printed by rich."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def table(*names: str) -> Table:
    """An empty table: no frame, two blanks between columns, long cells folded."""
    empty = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        empty.add_column(name, overflow="fold")
    return empty


def show(filled: Table, *, least: int = 0) -> None:
    """Print a table at the terminal's width, or at `least` characters if that is more.

    In a pipe, print one line per row, without padding at its end.
    """
    if out.is_terminal:
        out.print(filled, soft_wrap=False, crop=False, width=max(out.width, least))
        return
    with out.capture() as captured:
        out.print(filled, soft_wrap=False, crop=False, width=WIDE)
    for text in captured.get().splitlines():
        out.out(text.rstrip(), highlight=False)


def show_json(value: Any) -> None:
    """Print the document of `--json`. Records are objects, paths are text, and NaN and infinity are
    null. Raises TypeError for values of other types that JSON does not have.
    """
    text = json.dumps(_as_json(value), indent=2, allow_nan=False)
    _machine.out(text, highlight=False)


@contextmanager
def aside(wanted: bool) -> Iterator[None]:
    """If `wanted`, let `out` print to standard error within the block.

    With `--json`, standard output must have the document only.
    """
    before = out.stderr
    out.stderr = wanted or out.stderr
    try:
        yield
    finally:
        out.stderr = before


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


@dataclass(slots=True)
class CommandResult:
    """A command's result, as a JSON document and as text."""

    rows: Any  # the document: records (dicts, named tuples, dataclasses), or a single one
    text: list[str | Table] = field(default_factory=list)  # lines in rich's markup, and tables
    # printed after the text; with a document, on standard error
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0

    def line(self, text: str, mark: str = "", indent: int = 0) -> None:
        """Add a line of untrusted text after its mark."""
        if mark:
            mark += " "
        self.text.append(f"{' ' * indent}{mark}{plain(text)}")

    def lines(self, texts: Iterable[str], mark: str = "", indent: int = 0) -> None:
        for text in texts:
            self.line(text, mark, indent)

    def print(self, *, as_json: bool = False) -> int:
        """Print the text, or the rows as JSON, and return the exit code: 1 if there are
        problems.
        """
        if as_json:
            show_json(self.rows)
            return self._print_problems(err)
        for part in self.text:
            if isinstance(part, Table):
                show(part)
            else:
                out.print(part)
        return self._print_problems(out)

    def print_document(self, document: str) -> int:
        """Print this document instead of the text, then the problems, and return the exit code."""
        _machine.out(document, highlight=False, end="")
        return self._print_problems(err)

    def _print_problems(self, console: _Console) -> int:
        for problem in self.problems:
            console.show_problem(problem)
        return self.exit_code or int(bool(self.problems))


def size(n_bytes: float) -> str:
    """A size with its unit.

    >>> [size(n) for n in (0, 1536, 1024**2 - 1, 19_600_000, 2 * 2**40)]
    ['0 B', '1.5 KiB', '1.0 MiB', '18.7 MiB', '2.0 TiB']
    """
    if round(n_bytes) < 1024:
        return f"{n_bytes:.0f} B"
    power = 1
    while power < 4 and round(n_bytes / 1024**power, 1) >= 1024:
        power += 1
    return f"{n_bytes / 1024**power:,.1f} {'KMGT'[power - 1]}iB"


def duration(seconds: float) -> str:
    """A time with its unit.

    >>> [duration(s) for s in (0.2, 61, 540, 9000, 10**6)]
    ['1 s', '61 s', '9 min', '2.5 h', '11.6 days']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def rate(a_second: float, unit: str) -> str:
    """A speed; below one per second, the time of one unit.

    >>> rate(1234.5, "row"), rate(3.14, "video"), rate(1 / 90, "video")
    ('1,234 rows/s', '3.1 videos/s', '90 s/video')
    """
    if a_second <= 0:
        return ""
    if a_second < 1:
        return f"{duration(1 / a_second)}/{unit}"
    if a_second < 10:
        return f"{a_second:.1f} {unit}s/s"
    return f"{a_second:,.0f} {unit}s/s"
