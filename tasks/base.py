"""Base class of all Luigi tasks, and functions for the lines that tasks and commands print."""

from __future__ import annotations

import functools
import multiprocessing
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import luigi
from luigi.rpc import RPCError
from luigi.task import flatten

from cache import CacheError
from pipeline.cli import console
from pipeline.cli.progress import Progress, bar
from pipeline.cli.system_errors import error_text
from pipeline.errors import PipelineError
from pipeline.steps.report import StepReport
from tasks.settings import settings

# Errors that the user can act on, shown without a traceback.
USER_ERRORS: Final = (PipelineError, CacheError, OSError)
NO_RESULT: Final = "no number here is a scientific result"
DEMO_DATA: Final = f"{console.STAND_IN}  {NO_RESULT}"
UNTRAINED_FEATURES: Final = f"{console.UNTRAINED}  of the features' network: {NO_RESULT}"
UP_TO_DATE: Final = "[dim]up to date[/dim]"

plain = functools.partial(console.plain, keep="\n\t")  # text without control sequences
PAGE_INTERVAL: Final = 1.0  # s; each update of Luigi's page is a request to its server

complete_tasks: set[str] = set()  # ids of complete tasks, within this process
# what to do once all tasks of a command are complete: id of a task -> function
at_success: dict[str, Callable[[], None]] = {}


def say(verb: str, what: str, detail: str = "", *, mark: str = console.DONE) -> None:
    """Print a line about a task: ✓ convert    penn_action/train         10 videos, 400 frames"""
    console.out.print(f"{mark} {console.task_line(verb, what, detail)}")


def warn(text: str) -> None:
    """Print a warning below the line of its task, after the mark "!"."""
    console.out.print(f"  {console.DOUBT} {plain(text)}")


def fact(name: str, value: str) -> None:
    """Print a name and its value: cache      demo/cache"""
    console.out.print(f"{name:<10} {value}")


class PipelineTask(luigi.Task):
    """A task that is complete when its fingerprints match, not when a file exists.

    Luigi does not visit tasks upstream of a complete one, so `complete` asks them first. "Complete"
    is cached until a task runs in this process; "incomplete" is not, since tasks may run in forked
    processes.
    """

    verb: ClassVar[str] = "task"  # first word of its lines, such as "convert"
    unit: ClassVar[str] = ""  # of the progress bar; "": no rate

    @property
    def what(self) -> str:
        """What it works on, the second word of its lines, such as "penn_action/train"."""
        return str(self.task_family)

    @abstractmethod
    def up_to_date(self) -> bool:
        """Whether nothing is left to do, assuming that all tasks upstream are complete. Imports no
        torch.
        """

    @abstractmethod
    def work(self) -> None:
        """Do the work, and print the result."""

    @property
    def flaw(self) -> str:
        """A warning about a complete task, such as rejected videos; "" for none."""
        return ""

    def show(self) -> None:
        """Print the task's result, whenever it was made: after `work`, or in place of it."""

    def complete(self) -> bool:
        console.out.check_pipe()
        if self.task_id in complete_tasks:
            return True
        try:
            if not all(task.complete() for task in flatten(self.requires())):
                return False
            if not self.up_to_date():
                return False
        except USER_ERRORS:
            return False  # `run` or `requires` raises it again, and Luigi reports it for this task
        complete_tasks.add(self.task_id)
        return True

    def run(self) -> None:
        console.out.check_pipe()
        try:
            self.work()
        finally:
            complete_tasks.clear()  # something has changed

    def say(self, detail: str, *, mark: str = console.DONE) -> None:
        say(self.verb, self.what, detail, mark=mark)

    def report(self, report: StepReport) -> None:
        """Print what a step has done just now."""
        report.report(self.verb, self.what)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show the task's progress: as a bar on a terminal, as lines in a log, on Luigi's page."""
        alone = multiprocessing.parent_process() is None
        page = _LuigiPage(self)
        label = f"  {console.task_line(self.verb, plain(self.what), '')}"
        with bar(label, console.out, unit=self.unit, alone=alone) as shown:

            def show_both(
                done: int, total: int, message: str = "", *, unit: str = self.unit
            ) -> None:
                shown(done, total, message, unit=unit)
                page(done, total, message)

            yield show_both

    @staticmethod
    def message_of(error: BaseException) -> str:
        """An error's message; system errors name the cache or the runs."""
        if not isinstance(error, OSError):  # settings() itself may raise others
            return error_text(error)
        return error_text(error, [settings().paths.cache, settings().paths.runs])

    def on_failure(self, exception: BaseException) -> Any:
        """Text of a failure on Luigi's page: the message of a user error, else a traceback."""
        if isinstance(exception, USER_ERRORS):
            return self.message_of(exception)
        return super().on_failure(exception)


class _LuigiPage:
    """Shows a task's progress on Luigi's web page, at most once per second."""

    def __init__(self, task: luigi.Task) -> None:
        self._percent: Any = task.set_progress_percentage
        self._status: Any = task.set_status_message
        # they are None outside of Luigi
        self._answers = self._percent is not None and self._status is not None
        self._due = time.monotonic()

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        is_early = now < self._due and done < total
        if not self._answers or is_early:
            return
        self._due = now + PAGE_INTERVAL
        try:
            self._percent(round(100 * done / max(total, 1)))
            self._status(f"{done} of {total}  {message}")
        except RPCError as error:  # a missing page must not end days of work
            self._answers = False
            warn(
                f"Luigi's scheduler does not answer ({error}): its page shows no progress. The "
                "work continues."
            )
