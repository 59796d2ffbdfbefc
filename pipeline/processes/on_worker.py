"""What runs on a Dask worker, or in the process of a device, to do a part.  [raw -> tracks ->
features]

`cluster` sends `run_part`. It first checks that the worker has the software and files of the
process that sent it (`Submitter`).
"""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.processes.software import version

T = TypeVar("T")
R = TypeVar("R")
# a function that does a part: called as do(part, progress, device)
DoPart = Callable[[Sequence[T], Progress, str], R]

# The threads of a worker share its working folder, and readers are not thread-safe.
_one_part: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Submitter:
    """Facts about the process that sends parts, which a worker must share."""

    versions: Mapping[str, str]  # of code and libraries: `pipeline.processes.software`
    folder: Path  # its working folder, to which relative paths refer
    shared: Path | None  # a file or folder that the worker must see; None: none


def run_part(submitter: Submitter, do: DoPart[T, R], device: str, part: Sequence[T]) -> R:
    """Do a part in this process. Raises PipelineError if it has other software than the submitter
    or does not see the shared files, and what `do` raises.

    device: the device whose process this is; "": this is a Dask worker, which works in the
    submitter's working folder.
    """
    label = device
    progress = silent
    with contextlib.ExitStack() as stack:
        if not device:
            label = _describe_worker()
            progress = _make_needed_check()
            stack.enter_context(_one_part)
            if submitter.folder.is_dir():
                stack.enter_context(contextlib.chdir(submitter.folder))
        _require_same_software(submitter, label)
        try:
            return do(part, progress, device)
        except PipelineError as error:
            if type(error) is PipelineError:  # others have more than a message
                error.args = (f"{label}: {error}",)
            raise


def _require_same_software(submitter: Submitter, label: str) -> None:
    """Raise PipelineError if this worker has other code or libraries than the submitter, or does
    not see the shared files. label: The worker's name in the message.
    """
    for name, expected in submitter.versions.items():
        found = version(name)
        if found != expected:
            do = "Use the same code and environment, and start both again."
            raise PipelineError(
                f"{label}: expected {name} {expected}, as here, found {found}. {do}"
            )
    if submitter.shared is not None and not submitter.shared.exists():
        raise PipelineError(f"{label}: {submitter.shared} not found. Share it under the same path.")


def _describe_worker() -> str:
    """The address and machine of the Dask worker that runs this part, for messages."""
    from distributed import get_worker

    return f"Dask worker at {get_worker().address} on {platform.node()}"


def _make_needed_check() -> Callable[..., None]:
    """Make a progress function that raises InterruptedError if the result of this part is no longer
    needed.
    """
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def require_needed(*_: object) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("its result is no longer needed")

    return require_needed
