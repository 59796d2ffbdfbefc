"""What people see: one line a task, a bar while it works, errors without a traceback."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import luigi
from rich.console import Console
from rich.markup import escape

from cache import CacheError
from pipeline.convert import Conversion
from pipeline.errors import PipelineError
from pipeline.features import Extraction
from pipeline.progress import Progress, bar
from vibe_model.errors import VibeModelError

console: Final = Console(highlight=False, soft_wrap=True)
MENDABLE: Final = (PipelineError, CacheError, VibeModelError)  # errors of a line or two, for the person at the keyboard

STAND_IN: Final = (
    "[yellow]STAND-IN[/yellow]  made from embedded synthetic data, a procedural body and an untrained network: "
    "no number here is a scientific result"
)


def say(verb: str, what: str, detail: str = "", *, mark: str = "[green]✓[/green]") -> None:
    """✓ convert   penn_action/train   10 videos, 380 of 400 frames kept"""
    console.print(f"{mark} {verb:<10} {what:<22} {detail}")


@contextmanager
def working(task: luigi.Task, verb: str, what: str) -> Iterator[Progress]:
    """A bar on a terminal, and the same figures on Luigi's page."""
    one_of_many = multiprocessing.parent_process() is not None
    with bar(f"{verb:<10} {what:<22}", console, quiet=one_of_many) as shown:

        def tell(done: int, total: int, message: str = "") -> None:
            shown(done, total, message)
            if task.set_progress_percentage is not None and task.set_status_message is not None:  # while Luigi runs it
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


def shortened(path: Path) -> Path:
    """As seen from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def speak_instead_of_luigi() -> None:
    """Called once, when the tasks are imported."""
    logging.getLogger("luigi-interface").addFilter(_WithoutTraceback())
