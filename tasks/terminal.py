"""What people see: one line a task, a bar while it works, errors without a traceback."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import luigi
from luigi.rpc import RPCError

from cache import CacheError
from pipeline.cli import console as look
from pipeline.cli import signals
from pipeline.cli import text as wording
from pipeline.cli.command_line import show_any_symbol
from pipeline.cli.console import err as err
from pipeline.cli.console import out
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import count as count
from pipeline.conversion.convert import Conversion
from pipeline.errors import PipelineError
from pipeline.features.extract import Extraction
from vibe_model.errors import VibeModelError

Place = TypeVar("Place", Path, Path | str)

console: Final = out
# Errors of a line or two, for the person at the keyboard: a wrong file or setting, a full disk, a missing right.
MENDABLE: Final = (PipelineError, CacheError, VibeModelError, OSError)

STAND_IN: Final = (
    f"{look.STAND_IN}   synthetic pictures, a procedural body or an untrained network: "
    "no number here is a scientific result"
)
FIRST_TIME: Final = ("not converted before", "not extracted before")  # what needs no reason
UNITS: Final = {"convert": "video", "train": "step"}  # that a bar counts; an extraction says itself how fast it is
SAID_AS: Final = "SAID_AS"  # environment variable: what the Makefile was asked for
PAGE_INTERVAL: Final = 1.0  # s; each word to Luigi's page is a request to its server


def say(verb: str, what: str, detail: str = "", *, mark: str = look.DONE) -> None:
    """✓ convert    penn_action/train         10 videos, 380 of 400 frames kept"""
    console.print(f"{mark} {look.line(verb, what, detail)}")


def warn(text: str) -> None:
    """! something that a person should know, below the line of its task."""
    console.print(f"  {look.DOUBT} {plain(text)}")


def complain(text: str) -> None:
    """✗ convert    penn_action/train         which file, what was expected, what was found, what to do"""
    err.print(f"{look.WRONG} {plain(text)}")


def plain(text: str) -> str:
    """Text from elsewhere, such as names of files, without anything that a terminal would obey."""
    return look.plain(text, keep="\n\t")


def fact(name: str, value: str) -> None:
    """Where something is, before and after the tasks' lines."""
    console.print(f"{name:<10} {value}")


@contextmanager
def working(task: luigi.Task, verb: str, what: str) -> Iterator[Progress]:
    """A bar on a terminal, and the same figures on Luigi's page."""
    alone = multiprocessing.parent_process() is None
    page = _Page(task)
    with bar(f"  {look.line(verb, plain(what), '')}", console, unit=UNITS.get(verb, ""), alone=alone) as shown:

        def tell(done: int, total: int, message: str = "") -> None:
            shown(done, total, message)
            page.tell(done, total, message)

        yield tell


class _Page:
    """A task's progress on Luigi's web page, kept fresh to a second."""

    def __init__(self, task: luigi.Task) -> None:
        self.task = task
        self.began = time.monotonic()
        self.next = 0.0

    def tell(self, done: int, total: int, message: str) -> None:
        percent, words = self.task.set_progress_percentage, self.task.set_status_message
        if percent is None or words is None:  # nobody runs it but ourselves
            return
        now = time.monotonic()
        if now < self.next and done < total:
            return
        self.next = now + PAGE_INTERVAL
        try:
            percent(round(100 * done / max(total, 1)))
            words(f"{done} of {total}{_left(now - self.began, done, total)}  {message}")
        except RPCError as error:  # days of work must not end because a web page cannot be reached
            self.next = float("inf")
            warn(f"Luigi's scheduler does not answer ({error}); the work goes on without telling it how far it is")


def _left(seconds: float, done: int, total: int) -> str:
    """How much longer it takes if it goes on as it did.

    >>> _left(60.0, 10, 40)
    ', 3 min left'
    """
    if not 0 < done < total:
        return ""
    return f", {look.duration(seconds * (total - done) / done)} left"


def conversion(done: Conversion) -> str:
    """1 video read, 9 as before: 10 videos (1 set aside), 12 tracks, 380 of 400 frames kept (20 no_visible_joint)"""
    videos, found = done.totals["videos"], done.totals["frames"]
    aside = sum(videos["set_aside"].values())
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in found["dropped"].items())
    dropped = (dropped + wording.not_counted(done.uncounted)).removeprefix("; ")
    return (
        (f"{done.did}: " if done.did else "")
        + count(videos["kept"], "video")
        + (f" ([yellow]{aside} set aside[/yellow])" if aside else "")
        + f", {count(done.totals['tracks']['kept'], 'track')}, {found['kept']:,} of {found['found']:,} frames kept"
        + (f" ({dropped})" if dropped else "")
        + because(done.plan.why)
    )


def extraction(done: Extraction) -> str:
    """380 rows in 12 s (31 a second), 20 carried over"""
    rate = f"{done.meter.rows / done.seconds:.0f} crops/s, bottleneck: {done.meter.bottleneck}"
    parts = [f"{count(done.computed, 'row')} in {done.seconds:.0f} s ({rate})"] if done.computed else []
    parts += [f"{count(done.carried, 'row')} carried over"] if done.carried else []
    parts += [f"[yellow]{n:,} {kind}[/yellow]" for kind, n in done.problems.items()]
    return (", ".join(parts) or "no rows") + because(done.plan.why)


def because(why: str) -> str:
    """The reason for doing what had been done before."""
    return "" if why in FIRST_TIME else f"  [dim]why: {plain(why)}[/dim]"


def shortened(path: Place) -> Place:
    """As seen from here, where that is shorter. A URL stays what it is."""
    return path if isinstance(path, str) else Path(wording.from_here(path))


def command(*words: str) -> str:
    """How a tool of this environment is called from here: .venv/bin/python -m pipeline status"""
    return " ".join([wording.python(), *words])


class _ToldAlready(logging.Filter):
    """Keeps from the terminal what `complain` says in the error's own words; Luigi would add a traceback.

    With [core] log_level = INFO or DEBUG, the traceback is shown too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger(record.name).isEnabledFor(logging.INFO):
            return True
        # Errors in `requires` Luigi logs as text, while it handles them.
        error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
        return not isinstance(error, MENDABLE)


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    said = signals.NAMES[signals.signal_of(error)]
    kept = "; ".join(["what is finished is kept", *getattr(error, "__notes__", ())])
    err.print(f"\n{said}: {plain(kept)}; the same command goes on from there:")
    err.print(f"  {plain(typed())}")
    if isinstance(error, signals.Terminated):
        sys.exit(signals.exit_code(error))  # of Ctrl-C, Python itself says so to the system


def typed() -> str:
    """What was typed to start this: `make train`, where that started Luigi and says so."""
    return os.environ.get(SAID_AS) or shlex.join([wording.from_here(sys.argv[0]), *sys.argv[1:]])


def speak_instead_of_luigi() -> None:
    """Called once, when the tasks are imported."""
    show_any_symbol()
    logging.getLogger("luigi-interface").addFilter(_ToldAlready())
    sys.excepthook = _interrupted
    if Path(sys.argv[0]).name == "luigi":  # not where somebody else imports the tasks: signals are theirs
        signals.listen()
