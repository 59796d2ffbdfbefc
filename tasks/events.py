"""Luigi's events on the terminal: a line a task, failures without traceback, how to continue after Ctrl-C."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

import luigi

from pipeline.cli import console, signals
from pipeline.cli.command_line import show_any_symbol
from pipeline.cli.text import error_text, from_here
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.settings.sections import Settings
from tasks.base import UP_TO_DATE, USER_ERRORS, PipelineTask, complain, fact, message_of, plain
from tasks.settings import settings

TYPED: Final = "TYPED_COMMAND"  # environment variable: what was typed where make started Luigi

reported: Final[set[str]] = set()  # messages of failures that were printed, within this process


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_DISCOVERED)
def _introduce_data(task: luigi.Task, dependency: luigi.Task) -> None:  # noqa: ARG001 - Luigi's signature
    if isinstance(task, PipelineTask):
        introduce()


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def _up_to_date(task: luigi.Task) -> None:
    if isinstance(task, PipelineTask):
        introduce()
        flaw = task.flaw
        task.say(f"up to date ({flaw})" if flaw else UP_TO_DATE, mark=console.DOUBT if flaw else console.IDLE)
        task.show()


@luigi.Task.event_handler(luigi.Event.FAILURE)
def _report_failure(task: luigi.Task, error: BaseException) -> None:
    if isinstance(task, PipelineTask) and isinstance(error, USER_ERRORS):  # Luigi itself logs others
        # One missing folder fails all of a dataset's splits.
        message = "the same error" if str(error) in reported else message_of(error)
        reported.add(str(error))
        complain(console.line(task.verb, task.what, message))


@luigi.Task.event_handler(luigi.Event.BROKEN_TASK)
def _unreadable_settings(task: luigi.Task, error: BaseException) -> None:
    if isinstance(task, PipelineTask) and isinstance(error, USER_ERRORS):
        complain(error_text(error))


@functools.cache
def introduce() -> None:
    """Once in a process, before anything else: which data this is, and where."""
    fact("data", whose_data(settings()))
    fact("cache", from_here(settings().paths.cache))
    console.out.print()


def whose_data(s: Settings) -> str:
    """`demo data (seed 0), in data/embedded/raw: penn_action, amass`"""
    raw, demo = from_here(s.paths.raw), s.embedded_datasets
    other_names = ", ".join(
        f"{name} ([yellow]demo data[/yellow])" if is_stand_in(s.raw(name)) else name
        for name in s.data.datasets
        if name not in demo
    )
    if not demo:
        return f"in {raw}: {other_names}"
    size = "" if s.embedded.size == "default" else f", {s.embedded.size}"
    further = f"; beside them {other_names}" if other_names else ""
    return f"[yellow]demo data[/yellow] (seed {s.embedded.seed}{size}), in {raw}: {', '.join(demo)}{further}"


def _not_printed_by_us(record: logging.LogRecord) -> bool:
    """Keep Luigi from logging, with a traceback, what `complain` prints; with [core] log_level = INFO it logs it."""
    if logging.getLogger(record.name).isEnabledFor(logging.INFO):
        return True
    # Errors in `requires` Luigi logs as text, while it handles them.
    error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
    return not isinstance(error, USER_ERRORS)


def _handle_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    if isinstance(error, signals.BrokenPipe):
        sys.exit(signals.exit_code(error))
    kept_text = "; ".join(["what is finished is kept", *getattr(error, "__notes__", ())])
    typed = os.environ.get(TYPED) or shlex.join([from_here(Path(sys.argv[0])), *sys.argv[1:]])
    name = signals.NAMES[signals.signal_of(error)]
    console.err.print(f"\n{name}: {plain(kept_text)}; the same command continues from there:\n  {plain(typed)}")
    if isinstance(error, signals.Terminated):
        sys.exit(signals.exit_code(error))  # after Ctrl-C, Python itself ends by the signal


def _end_where_output_was_lost() -> None:
    """Luigi drops what is raised while it reports a task: what could not be printed must not end with 0."""
    if console.out.failure is not None:
        console.err.print(f"{console.ERROR} {plain(error_text(console.out.failure))}")
        os._exit(2)


def take_over_from_luigi() -> None:
    """Called once, when the tasks are imported."""
    show_any_symbol()
    logging.getLogger("luigi-interface").addFilter(_not_printed_by_us)
    sys.excepthook = _handle_interrupt
    if Path(sys.argv[0]).name == "luigi":  # a program of its own that imports the tasks handles its signals
        signals.listen()
        atexit.register(_end_where_output_was_lost)
