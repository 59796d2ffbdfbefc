"""Functions that run on the workers of a Dask cluster, or in the process of a device.  raw ->
tracks -> features

`cluster` sends them: `run_task` runs each task of a Dask worker, `run_on_device` each call of a
device's process. Both first check that the worker has the software and files of the process that
submitted the task (`Submitter`). `run_each` and `run_interruptible` are tasks of a Dask worker.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pipeline.errors import PipelineError
from pipeline.processes.software import version, versions

T = TypeVar("T")
R = TypeVar("R")

# The threads of a worker share its working folder, and readers are not thread-safe.
_one_task: Final = threading.Lock()


@dataclass(frozen=True)
class Submitter:
    """Facts about the process that submits tasks, which a worker must share."""

    versions: tuple[tuple[str, str], ...]  # names and versions: `pipeline.processes.software`
    folder: Path  # its working folder, to which relative paths refer
    shared: Path | None  # a file or folder that the worker must see; None: none

    @classmethod
    def here(cls, shared: Path | None, plug_ins: Sequence[object]) -> Submitter:
        """The facts about this process. `plug_ins`: datasets, streams and detectors in use."""
        return cls(tuple(versions(*plug_ins).items()), Path.cwd(), shared)


def run_task(submitter: Submitter, task: Callable[[], R]) -> R:
    """Run a task on a Dask worker, in the submitter's working folder. Raises PipelineError if the
    worker has other software or does not see the shared files, and what the task raises.
    """
    in_folder: AbstractContextManager[None] = contextlib.nullcontext()
    if submitter.folder.is_dir():
        in_folder = contextlib.chdir(submitter.folder)
    with _one_task, in_folder:
        _require_same_software(submitter, describe_worker())
        try:
            return task()
        except PipelineError as error:
            if type(error) is PipelineError:  # others have more than a message
                error.args = (f"{describe_worker()}: {error}",)
            raise


def run_on_device(
    submitter: Submitter, job: Callable[..., R], *arguments: object, device: str
) -> R:
    """Run a job in a device's process. Raises PipelineError if the process has other software than
    the submitter, and what the job raises.
    """
    _require_same_software(submitter, device)
    return job(*arguments, device=device)


@functools.cache  # an exception is not cached
def _require_same_software(submitter: Submitter, label: str) -> None:
    """Raise PipelineError if this worker has other code or libraries than the submitter, or does
    not see the shared files. label: The worker's name in the message.
    """
    for name, expected in submitter.versions:
        found = version(name)
        if found != expected:
            do = "Use the same code and environment, and start both again."
            raise PipelineError(
                f"{label}: expected {name} {expected}, as here, found {found}. {do}"
            )
    if submitter.shared is not None and not submitter.shared.exists():
        raise PipelineError(f"{label}: {submitter.shared} not found. Share it under the same path.")


def describe_worker() -> str:
    """The address and machine of the Dask worker that runs this task, for messages."""
    from distributed import get_worker

    return f"Dask worker at {get_worker().address} on {platform.node()}"


def run_each(job: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Run a job for each item, and return the results. Raises InterruptedError, between two items,
    when the results are no longer needed.
    """
    require_needed = _make_needed_check()
    results = []
    for item in items:
        require_needed()
        results.append(job(item))
    return results


def run_interruptible(job: Callable[[T, Callable[[], None]], R], item: T) -> R:
    """Return job(item, alive). The job should call `alive()` from time to time, which raises
    InterruptedError when the result is no longer needed.
    """
    return job(item, _make_needed_check())


def _make_needed_check() -> Callable[[], None]:
    """Make a function that raises InterruptedError if the result of this Dask task is no longer
    needed.
    """
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def require_needed() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return require_needed
