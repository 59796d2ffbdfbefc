"""Consoles, marks and tables of the commands (docs/terminal.md).

`out` writes text to standard output, `err` to standard error; `documents` writes what another
program reads. A mark is the symbol at the start of a line. Untrusted text, such as a file's name,
is escaped by `plain` before rich prints it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from pipeline.cli.text import printable

UNFOLDED: Final = 100_000  # columns without a terminal: lines are not folded

# marks
DONE: Final = "[green]✓[/green]"
DOUBT: Final = "[yellow]![/yellow]"  # a warning
WRONG: Final = "[red]✗[/red]"  # a problem
IDLE: Final = "[dim]·[/dim]"  # information; nothing was done
ERROR: Final = "[red]error:[/red]"
STAND_IN: Final = "[yellow]DEMO DATA[/yellow]"
UNTRAINED: Final = "[yellow]UNTRAINED[/yellow]"  # features of a network with random weights

# widths (characters) of the first two columns of `task_line`
VERB_WIDTH: Final = 10
WHAT_WIDTH: Final = 24


class BrokenPipe(KeyboardInterrupt):
    """The program that read the output has ended: stop like Ctrl-C, without a message."""


class TerminalConsole(Console):
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
        unlimited = self.options.update(max_width=UNFOLDED)
        return Measurement.get(self, unlimited, filled).maximum <= self.width


out: Final = TerminalConsole(
    highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNFOLDED
)
err: Final = TerminalConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)
# standard output for JSON and documents; unlike `out`, not affected by `text_to_stderr`
documents: Final = TerminalConsole(highlight=False, emoji=False, soft_wrap=True, width=UNFOLDED)


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


def print_table(filled: Table, *, least: int = 0) -> None:
    """Print a table at the terminal's width, or at `least` characters if that is more.

    In a pipe, print one line per row, without padding at its end.
    """
    if out.is_terminal:
        out.print(filled, soft_wrap=False, crop=False, width=max(out.width, least))
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
