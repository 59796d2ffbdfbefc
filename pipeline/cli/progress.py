"""Progress of long work: a bar on a terminal; elsewhere the lines of a log.

A log has a header (`begin_run`), a line when a task starts, a line every minute, and a last line
(`end_run`).

A command opens a `bar`, and passes the `Progress` that it gives to the function that does the work.
That calls it with the number of units done and the total. Functions use `silent` if their caller
passes nothing.

rich, and `pipeline.cli.console` with it, is imported only by functions that print: most processes
that import this module print nothing.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pipeline.cli.text import count, duration, rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

EVERY: Final = 60.0  # s between two lines without a terminal; shorter work prints none
LONG_RUN: Final = 60.0  # s: after a longer run, its last line repeats the first problem
SILENT: Final = 75.0  # s without a line, after which one says that there is nothing new
RECENT: Final = 10  # lines over which the rate is a mean
NARROW: Final = 130  # columns of a terminal below which the bar is short


# when this run, if it writes a log, and its tasks began
_began: Final = list[float]()


class Progress(Protocol):
    """A function that reports progress: units done, the total, and a short message ("S1/Seq1").

    unit: Noun for what is counted, if this stage of the work counts something else than the others.
    """

    def __call__(self, done: int, total: int, message: str = "", *, unit: str = "") -> None: ...


def silent(done: int, total: int, message: str = "", *, unit: str = "") -> None:
    """Report nothing."""


def begin_run(command: str, version: Callable[[], str]) -> None:
    """Begin the log of this process with a header, unless it has a terminal or is one of several
    that train together.
    """
    from pipeline.cli import console

    if console.err.is_terminal or os.environ.get("RANK", "0") != "0":
        return
    _began[:] = [time.monotonic()]
    console.err.print(console.plain(f"{_moment()}: {version()}: {command}, in {Path.cwd()}"))


def has_started() -> bool:
    """Whether this run writes a log, and a task of it has started."""
    return len(_began) > 1


def end_run(code: int, n_failed: int = 0) -> None:
    """End the log with a line: the exit code, the number of problems, and the first one if it was
    long ago or is far above.

    n_failed: Problems that other processes have printed.
    """
    from pipeline.cli import console

    if not _began:
        return
    seconds = time.monotonic() - _began[0]
    spent = duration(seconds)
    _began.clear()
    text = f"{_moment()}: success after {spent}"
    if code:
        mark = console.BUSY if console.is_only_busy() else console.ERROR
        n_problems = count(max(n_failed, len(console.explanations)), "error line")
        text = f"{mark} {_moment()}: exit code {code} after {spent}, {n_problems} above"
        if seconds > LONG_RUN or not console.is_first_problem_visible():
            # that another process writes is seldom what is wrong
            problems = sorted(console.explanations, key=lambda said: said[0] == console.BUSY)
            text += ": " + "".join(problem for _, problem in problems[:1])
    console.err.print(text)


def _moment() -> str:
    """The time with its zone, and this process: "2026-11-29 02:00:00 +0100 node1 process 4711"."""
    return f"{time.strftime('%F %T %z')} {platform.node()} process {os.getpid()}"


@contextmanager
def bar(what: str, console: Console, *, unit: str = "", alone: bool = True) -> Iterator[Progress]:
    """Show a progress bar within the block; without a terminal, print a line every minute instead.

    Args:
        unit: Noun for what is counted ("video"); without it, no rate is shown.
        alone: False if other processes write to the same terminal: prints lines, not a bar.
    """
    if console.is_terminal and not console.is_dumb_terminal and alone:
        with _bars(console) as shown:
            task = shown.add_task(what, total=None, counts="", message="", unit=unit)

            def report(done: int, total: int, message: str = "", *, unit: str = unit) -> None:
                if unit != shown.tasks[0].fields["unit"]:  # another stage has a rate of its own
                    shown.reset(task, counts="", message="", unit=unit)
                counts = f"{done:,.0f}/{total:,.0f}"
                shown.update(task, completed=done, total=total, counts=counts, message=message)

            yield report
    else:
        name = " ".join(what.split())
        lines = _Lines(name, unit)
        if not _began:
            yield lines.report
            return
        from pipeline.cli import console as terminal

        _began.append(time.monotonic())
        terminal.err.print(f"{time.strftime('%F %T %z')} {name}: started")
        has_ended = threading.Event()
        watch = threading.Thread(target=lines.watch, args=(has_ended,), daemon=True)
        watch.start()
        try:
            yield lines.report
        finally:
            has_ended.set()


def _bars(console: Console) -> RichProgress:
    from rich import progress as bars  # only by processes that show a bar
    from rich.table import Column
    from rich.text import Text

    class SpeedColumn(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            if not task.fields["unit"] or not task.speed:
                return Text()
            return Text(rate(task.speed, task.fields["unit"]))

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


class _Lines:
    """Prints a line every `EVERY` s, with the rate of the last ten lines: "extract 3dpw/train:
    8,192/40,000 rows, 210 rows/s, 3 min left  S1/Seq1".

    The rate counts from the first unit that is done: not what an earlier run did, nor the start.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what = what
        self._unit = unit
        self._counted: tuple[int, str] | None = None  # total and unit of this stage of the work
        self._first = 0  # units done when it began
        self._said = f"{what}: started"  # in the last line
        self._printed = time.monotonic()  # when
        self._times = deque[tuple[float, int]](maxlen=RECENT)  # of the last lines, and units done

    def report(self, done: int, total: int, message: str = "", *, unit: str | None = None) -> None:
        """The `Progress` of this work."""
        unit = self._unit if unit is None else unit
        now = time.monotonic()
        if self._counted != (total, unit) or done < self._first:
            self._counted = (total, unit)
            self._first = done
            self._times.clear()
        if not self._times and done > self._first:
            self._times.append((now, done))
        if now < self._printed + EVERY or done >= total:
            return
        self._said = f"{self._what}: {done:,}/{total:,}"
        text = self._said
        if unit:
            text += f" {unit}s"
        if self._times and done > self._times[0][1]:
            began, at_start = self._times[0]
            per_second = (done - at_start) / (now - began)
            if unit:
                text += f", {rate(per_second, unit)}"
            text += f", {duration((total - done) / per_second)} left"
            self._times.append((now, done))
        self._print(f"{text}  {message}" if message else text)

    def watch(self, has_ended: threading.Event) -> None:
        """Until the work has ended, say it where it has not reported for `SILENT` s."""
        while not has_ended.wait(SILENT / 8):
            if time.monotonic() >= self._printed + SILENT:
                self._print(f"{self._said}, nothing new for {SILENT:.0f} s")

    def _print(self, line: str) -> None:
        from pipeline.cli import console as terminal

        self._printed = time.monotonic()
        terminal.err.print(terminal.plain(line))
