"""Progress of long work: a bar on a terminal, a line every minute elsewhere.

A command opens a `bar`, and passes the `Progress` that it gives to the function that does the work.
That calls it with the number of units done and the total. Functions use `silent` if their caller
passes nothing.

rich, and `pipeline.cli.console` with it, is imported only by functions that print: most processes
that import this module print nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from pipeline.cli.text import duration, rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

EVERY: Final = 60.0  # s between two lines without a terminal; shorter work prints none
NARROW: Final = 130  # columns of a terminal below which the bar is short


class Progress(Protocol):
    """A function that reports progress: units done, the total, and a short message ("S1/Seq1")."""

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


def silent(done: int, total: int, message: str = "") -> None:
    """Report nothing."""


@contextmanager
def bar(what: str, console: Console, *, unit: str = "", alone: bool = True) -> Iterator[Progress]:
    """Show a progress bar within the block; without a terminal, print a line every minute instead.

    Args:
        unit: Noun for what is counted ("video"); without it, no rate is shown.
        alone: False if other processes write to the same terminal: prints lines, not a bar.
    """
    if console.is_terminal and not console.is_dumb_terminal and alone:
        with _bars(console, unit) as shown:
            task = shown.add_task(what, total=None, counts="", message="")

            def report(done: int, total: int, message: str = "") -> None:
                counts = f"{done:,.0f}/{total:,.0f}"
                shown.update(task, completed=done, total=total, counts=counts, message=message)

            yield report
    else:
        yield _lines(" ".join(what.split()), unit)


def _bars(console: Console, unit: str) -> RichProgress:
    from rich import progress as bars  # only by processes that show a bar
    from rich.table import Column
    from rich.text import Text

    class SpeedColumn(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            if not unit or not task.speed:
                return Text()
            return Text(rate(task.speed, unit))

    fixed = Column(no_wrap=True)
    message_column = Column(no_wrap=True, ratio=1, overflow="ellipsis")
    return bars.Progress(
        bars.TextColumn("{task.description}", table_column=fixed),
        bars.BarColumn(bar_width=30 if console.width >= NARROW else 10),
        bars.TextColumn("{task.fields[counts]}", table_column=fixed),
        SpeedColumn(table_column=fixed),
        bars.TimeRemainingColumn(table_column=fixed),
        bars.TextColumn("{task.fields[message]}", markup=False, table_column=message_column),
        console=console,
        transient=True,
        expand=True,
        speed_estimate_period=600,  # videos may take minutes each
    )


def _lines(what: str, unit: str) -> Progress:
    """Make a `Progress` that prints a line every `EVERY` s, with the mean rate until then:
    "extract: 8,192/40,000 rows, 210 rows/s, 3 min left  S1/Seq1".
    """
    first: tuple[float, int] | None = None  # the first report: its time, units done
    printed = 0.0  # time of the last line, or of the first report

    def report(done: int, total: int, message: str = "") -> None:
        nonlocal first, printed
        now = time.monotonic()
        if first is None:
            first = (now, done)
            printed = now
        if now < printed + EVERY or done >= total:
            return
        printed = now

        from pipeline.cli import console as terminal

        began, at_start = first
        per_second = (done - at_start) / (now - began)
        text = f"{what}: {done:,}/{total:,}"
        if unit:
            text += f" {unit}s"
        if per_second > 0:
            if unit:
                text += f", {rate(per_second, unit)}"
            text += f", {duration((total - done) / per_second)} left"
        if message:
            text += f"  {terminal.plain(message)}"
        terminal.err.print(text)

    return report
