"""What all tasks share: complete means "a plan with nothing to do", folded over everything upstream."""

from __future__ import annotations

from typing import Any, ClassVar

import luigi
from luigi.task import flatten

from tasks import terminal

_known: dict[str, bool] = {}  # task id -> complete, within this process


class PipelineTask(luigi.Task):
    """A task that is complete when its fingerprints match, not when a file exists.

    Luigi never visits what lies above a complete task, so completeness asks upstream first. It is remembered within the
    process, and forgotten when anything has run.
    """

    verb: ClassVar[str] = "task"

    @property
    def what(self) -> str:
        """The few words that name it on the terminal."""
        return str(self.task_family)

    def up_to_date(self) -> bool:
        """Is there nothing left to do, given that everything upstream is complete? Reads little, imports no torch."""
        raise NotImplementedError

    def work(self) -> None:
        """Do it."""
        raise NotImplementedError

    def tell(self) -> None:
        """What a person wants to see of it, also when there was nothing to do."""

    def complete(self) -> bool:
        if self.task_id not in _known:
            try:
                upstream = all(task.complete() for task in flatten(self.requires()))
                _known[self.task_id] = upstream and self.up_to_date()
            except terminal.MENDABLE:
                return False  # `run` meets the same error, where Luigi and the terminal show it as this task's
        return _known[self.task_id]

    def run(self) -> None:
        try:
            self.work()
        finally:
            _known.clear()

    def on_failure(self, exception: BaseException) -> Any:
        if isinstance(exception, terminal.MENDABLE):
            return str(exception)
        return super().on_failure(exception)


class PipelineWrapper(PipelineTask, luigi.WrapperTask):
    """A task that is only what it requires."""

    def up_to_date(self) -> bool:
        return True

    def work(self) -> None:
        """Nothing of its own."""


@luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def _up_to_date(task: luigi.Task) -> None:
    if isinstance(task, PipelineTask):
        terminal.say(task.verb, task.what, "[dim]up to date, nothing to do[/dim]", mark="[dim]·[/dim]")
        task.tell()
