"""What the commands print: consoles, marks, tables, and the result of a command (docs/terminal.md).

`out` writes text to standard output, `err` to standard error; `documents` writes what another
program reads. A mark is the symbol at the start of a line. Untrusted text, such as a file's name,
is escaped by `plain` before rich prints it.

A command fills a `CommandResult`, and ends with `return print_result(result, as_json=args.json)`.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from pipeline.cli.text import as_called, printable

NEAR_LINES: Final = 20  # lines that are seen at once, above the last one
UNFOLDED: Final = 100_000  # columns without a terminal: lines are not folded

# marks
DONE: Final = "[green]✓[/green]"
DOUBT: Final = "[yellow]![/yellow]"  # a warning
WRONG: Final = "[red]✗[/red]"  # a problem
IDLE: Final = "[dim]·[/dim]"  # information; nothing was done
ERROR: Final = "[red]error:[/red]"
BUSY: Final = "[yellow]busy:[/yellow]"  # another process writes what this one needs
STAND_IN: Final = "[yellow]DEMO DATA[/yellow]"
UNTRAINED: Final = "[yellow]RANDOM WEIGHTS[/yellow]"  # of the network that computed features

# of this process: mark and text of each printed line that explains an exit code other than 0
explanations: Final = list[tuple[str, str]]()

# widths (characters) of the first two columns of `task_line`
VERB_WIDTH: Final = 10
WHAT_WIDTH: Final = 24


class BrokenPipe(KeyboardInterrupt):
    """The program that read the output has ended: stop like Ctrl-C, without a message."""


class _TerminalConsole(Console):
    """Console that ends on a broken pipe without a message, with the exit code of SIGPIPE."""

    failure: OSError | None = None  # of writing, for example on a full disk
    is_pipe_broken = False
    n_after_problem = 0  # of all consoles: lines that were printed after the first problem

    def print(self, *objects: Any, **options: Any) -> None:
        if explanations:
            _TerminalConsole.n_after_problem += 1
        super().print(*map(self._explain, objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(as_called(text), **options)

    def _explain(self, shown: Any) -> Any:
        """Note a problem. Without a terminal, each of its lines begins with "error:" or "busy:"."""
        if not isinstance(shown, str):
            return shown
        mark, _, text = shown.strip().partition(" ")
        if mark not in (WRONG, ERROR, BUSY):
            return shown
        explanations.append((mark, text))
        if self.is_terminal:
            return shown
        mark = BUSY if mark == BUSY else ERROR
        return "\n".join(f"{mark} {line.strip()}" for line in text.splitlines())

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

    def measure_table(self, filled: Table) -> Measurement:
        """The width of a table with every cell in one line, and the least width without cuts in
        words.
        """
        unlimited = self.options.update(max_width=UNFOLDED)
        return Measurement.get(self, unlimited, filled)

    def fits(self, filled: Table) -> bool:
        """Whether a table is no wider than the terminal; always true in a pipe."""
        return self.measure_table(filled).maximum <= self.width


def _open_closed() -> None:
    """Let standard output and error, if closed (`>&-`), lead nowhere, also in child processes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w")  # noqa: SIM115
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)


_open_closed()
out: Final = _TerminalConsole(
    highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNFOLDED
)
err: Final = _TerminalConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)
# standard output for JSON and documents; unlike `out`, not affected by `text_to_stderr`
documents: Final = _TerminalConsole(highlight=False, emoji=False, soft_wrap=True, width=UNFOLDED)


@functools.cache
def warn_once(text: str) -> None:
    """Print a warning to `err`, unless this process has printed it before."""
    err.warn(text)


def is_first_problem_visible() -> bool:
    """Whether at most NEAR_LINES lines were printed after the first problem."""
    return _TerminalConsole.n_after_problem <= NEAR_LINES


def is_only_busy() -> bool:
    """Whether each problem so far is that another process writes: later, it may be gone."""
    return {mark for mark, _ in explanations} == {BUSY}


def task_line(verb: str, what: str, detail: str) -> str:
    """A line of progress about a task, in columns.

    >>> task_line("convert", "3dpw/train", "28 videos")
    'convert    3dpw/train                28 videos'
    """
    return f"{verb:<{VERB_WIDTH}} {what:<{WHAT_WIDTH}}  {detail}".rstrip()


def plain(text: str, keep: str = "") -> str:
    """Escape untrusted text for rich: one line, no control codes except those in `keep`."""
    return escape(printable(text, keep))


def new_table(*names: str) -> Table:
    """An empty table: no frame, two blanks between columns, long cells folded."""
    empty = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        empty.add_column(name, overflow="fold")
    return empty


def print_table(filled: Table) -> None:
    """Print a table at the terminal's width, with long cells folded. If columns that are not to be
    folded (`no_wrap`) do not fit, such as numbers, its lines are longer than the terminal.

    In a pipe, print one line per row, without padding at its end.
    """
    if out.is_terminal:
        width = out.width
        size = out.measure_table(filled)
        if size.minimum > width and any(column.no_wrap for column in filled.columns):
            width = size.maximum
        # `print` itself knows no width above the terminal's
        out.print(Segments(out.render(filled, out.options.update(width=width))))
        return
    with out.capture() as captured:
        out.print(filled, soft_wrap=False, crop=False, width=UNFOLDED)
    for text in captured.get().splitlines():
        out.out(text.rstrip(), highlight=False)


@contextmanager
def text_to_stderr(wanted: bool) -> Iterator[None]:
    """If `wanted`, let `out` print to standard error within the block.

    With `--json`, standard output must have the document only.
    """
    before = out.stderr
    out.stderr = wanted or out.stderr
    try:
        yield
    finally:
        out.stderr = before


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


def print_document(parts: Iterable[str], problems: Sequence[str]) -> int:
    """Print the parts of a document, then the problems on standard error. Returns the exit code."""
    for part in parts:
        documents.out(part, highlight=False, end="")
    return int(_print_problems(problems, err))


def print_json(value: Any) -> None:
    """Print the document of `--json`. Records are objects, paths are text, and NaN and infinity are
    null. Raises TypeError for values of other types that JSON does not have.
    """
    text = json.dumps(_as_json(value), indent=2, allow_nan=False)
    documents.out(text, highlight=False)


def _print_problems(problems: Sequence[str], console: _TerminalConsole) -> bool:
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
