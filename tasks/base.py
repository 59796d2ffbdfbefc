"""What all tasks share: complete means "a plan with nothing to do", folded over everything upstream."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import luigi
from luigi.task import flatten

from pipeline.cli.text import error_text
from tasks import terminal
from tasks.settings import settings

_complete: set[str] = set()  # ids of tasks known to be complete, within this process


class PipelineTask(luigi.Task):
    """A task that is complete when its fingerprints match, not when a file exists.

    Luigi never visits what lies above a complete task, so completeness asks upstream first. That a task is complete is
    remembered within the process, and forgotten when anything has run. That it is not is never remembered: with several
    workers, Luigi runs tasks in forked processes, whose parent would go on believing it.
    """

    verb: ClassVar[str] = "task"

    @property
    def what(self) -> str:
        """The few words that name it on the terminal."""
        return str(self.task_family)

    @abstractmethod
    def up_to_date(self) -> bool:
        """Is there nothing left to do, given that everything upstream is complete? Reads little, imports no torch."""

    @abstractmethod
    def work(self) -> None:
        """Do it, and say what was done."""

    @property
    def as_it_is(self) -> str:
        """What is wrong with what is complete all the same, in a few words; "" where nothing is."""
        return ""

    def tell(self) -> None:
        """What a person wants to see of it, also when there was nothing to do."""

    def complete(self) -> bool:
        if self.task_id in _complete:
            return True
        try:
            if not (all(task.complete() for task in flatten(self.requires())) and self.up_to_date()):
                return False
        except terminal.MENDABLE:
            return False  # `run` or `requires` meets the same error, where it is told as this task's
        _complete.add(self.task_id)
        return True

    def run(self) -> None:
        try:
            self.work()
        finally:
            forget()

    def on_failure(self, exception: BaseException) -> Any:
        """What Luigi's page says of a failure: the error's own words where a person can mend it, else a traceback."""
        if isinstance(exception, terminal.MENDABLE):
            return told(exception)
        return super().on_failure(exception)


class PipelineWrapper(PipelineTask, luigi.WrapperTask):
    """A task that is only what it requires."""

    def up_to_date(self) -> bool:
        return True

    def work(self) -> None:
        """Nothing of its own."""


def told(error: BaseException) -> str:
    """An error as a person is told it: of the system, with the place in the project where it happened."""
    if not isinstance(error, OSError):  # of others, settings() may be the one
        return error_text(error)
    paths = settings().paths
    return error_text(error, [paths.cache, paths.runs])


def forget() -> None:
    """Ask every task anew whether it is complete: something has changed."""
    _complete.clear()
