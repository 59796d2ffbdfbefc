"""What Luigi lets us know while it runs, and what people read of it."""

from __future__ import annotations

import functools

import luigi

from pipeline.cli import console
from pipeline.cli.text import error_text
from pipeline.raw.stand_in import is_stand_in
from tasks import terminal
from tasks.base import PipelineTask, told
from tasks.settings import Settings, settings

_told: set[str] = set()  # errors, within this process


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_DISCOVERED)
def _before_anything_runs(task: luigi.Task, dependency: luigi.Task) -> None:  # noqa: ARG001 - Luigi's signature
    if isinstance(task, PipelineTask):
        introduce()


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def _up_to_date(task: luigi.Task) -> None:
    if isinstance(task, PipelineTask):
        introduce()
        done = f"up to date ({task.as_it_is})" if task.as_it_is else "[dim]up to date, nothing to do[/dim]"
        terminal.say(task.verb, task.what, done, mark=console.DOUBT if task.as_it_is else console.IDLE)
        task.tell()


@luigi.Task.event_handler(luigi.Event.FAILURE)
def _failed(task: luigi.Task, error: BaseException) -> None:
    if isinstance(task, PipelineTask) and isinstance(error, terminal.MENDABLE):
        # Other errors Luigi tells itself, with their traceback. One missing folder fails all of a dataset's splits.
        message = "likewise" if str(error) in _told else told(error)
        _told.add(str(error))
        terminal.complain(console.line(task.verb, task.what, message))


@luigi.Task.event_handler(luigi.Event.BROKEN_TASK)
def _unreadable_settings(task: luigi.Task, error: BaseException) -> None:
    if isinstance(task, PipelineTask) and isinstance(error, terminal.MENDABLE):
        terminal.complain(error_text(error))  # whatever the task: it could not even say what it requires


@functools.cache
def introduce() -> None:
    """Once in a process, before anything else: which data this is, and where."""
    terminal.fact("data", whose_data(settings()))
    terminal.fact("cache", str(terminal.shortened(settings().paths.cache)))
    terminal.console.print()


def whose_data(s: Settings) -> str:
    """`stand-in (seed 0), in data/embedded/raw: penn_action, amass`"""
    raw, made = terminal.shortened(s.paths.raw), s.embedded_datasets
    others = [name for name in s.data.datasets if name not in made]
    besides = [f"{name} ([yellow]stand-in[/yellow])" if is_stand_in(s.raw(name)) else name for name in others]
    if not made:
        return f"in {raw}: {', '.join(besides)}"
    size = "" if s.embedded.size == "default" else f", {s.embedded.size}"
    beside = f"; beside them {', '.join(besides)}" if besides else ""
    return f"[yellow]stand-in[/yellow] (seed {s.embedded.seed}{size}), in {raw}: {', '.join(made)}{beside}"
