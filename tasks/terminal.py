"""What people see: one line a task, a bar while it works, errors without a traceback."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import luigi
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from cache import CacheError
from pipeline import progress
from pipeline.convert import Conversion
from pipeline.errors import PipelineError
from pipeline.features import Extraction

console: Final = Console(highlight=False, soft_wrap=True)
MENDABLE: Final = (PipelineError, CacheError)  # errors of a line or two, for the person at the keyboard

STAND_IN: Final = (
    "[yellow]STAND-IN[/yellow]  made from embedded synthetic data, a procedural body and an untrained network: "
    "no number here is a scientific result"
)


def say(verb: str, what: str, detail: str = "", *, mark: str = "[green]✓[/green]") -> None:
    """✓ convert   penn_action/train   10 videos, 380 of 400 frames kept"""
    console.print(f"{mark} {verb:<10} {what:<22} {detail}")


@contextmanager
def bar(task: luigi.Task, verb: str, what: str) -> Iterator[progress.Progress]:
    """A bar on a terminal, and the same figures on Luigi's page."""
    quiet = multiprocessing.parent_process() is not None or not console.is_terminal  # one bar at a time, none in a pipe
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[message]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet) as shown:
        line = shown.add_task(f"{verb:<10} {what:<22}", total=None, message="")

        def tell(done: int, total: int, message: str = "") -> None:
            shown.update(line, completed=done, total=total, message=message)
            task.set_progress_percentage(round(100 * done / max(total, 1)))
            task.set_status_message(f"{done} of {total}  {message}")

        yield tell


def warn(text: str) -> None:
    """! something that a person should know, below the line of its task."""
    console.print(f"  [yellow]![/yellow] {escape(text)}")


def conversion(done: Conversion) -> str:
    """10 videos, 1 set aside; 380 of 400 frames kept (20 no_visible_joint)"""
    videos, found = done.totals["videos"], done.totals["frames"]
    aside = sum(videos["set_aside"].values())
    dropped = ", ".join(f"{n} {reason}" for reason, n in found["dropped"].items())
    return (
        f"{videos['kept']} videos, {done.totals['tracks']['kept']} tracks, "
        + (f"[yellow]{aside} set aside[/yellow], " if aside else "")
        + f"{found['kept']} of {found['found']} frames kept"
        + (f" (dropped: {dropped})" if dropped else "")
        + f"  [dim]{done.plan.why}[/dim]"
    )


def extraction(done: Extraction) -> str:
    """380 rows in 12 s, 31 crops/s; 20 carried over"""
    rate = done.computed / max(done.seconds, 1e-3)
    text = f"{done.computed} rows in {done.seconds:.0f} s, {rate:.0f} crops/s"
    text += f", {done.carried} carried over" if done.carried else ""
    text += "".join(f", [yellow]{n} {kind}[/yellow]" for kind, n in done.problems.items())
    return f"{text}  [dim]{done.plan.why}[/dim]"


class _WithoutTraceback(logging.Filter):
    """An error that a person can mend is told in its own words; a traceback would only hide them."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, MENDABLE):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


def install() -> None:
    """Speak instead of Luigi's log: called once, when the tasks are imported."""
    logging.getLogger("luigi-interface").addFilter(_WithoutTraceback())

    @luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
    def up_to_date(task: luigi.Task) -> None:
        if not isinstance(task, luigi.WrapperTask) or not task.deps():
            say(getattr(task, "verb", "task"), getattr(task, "what", task.task_family), "[dim]up to date[/dim]", mark="[dim]·[/dim]")
