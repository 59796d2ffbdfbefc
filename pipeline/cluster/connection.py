"""A connection to a Dask cluster, and what its workers must have in common.  raw -> tracks -> features"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE: Final = 60.0  # s that a scheduler may take to answer, and that a cluster may have no worker
TRY_EVERY: Final = 0.2  # s between attempts to reach a scheduler
INSTALL: Final = "pip install 'vibe-pipeline[cluster]'"
START: Final = "Start one (docs/cluster.md), name another address, or leave it out to use this machine alone."
AGAIN: Final = "Finished shards are kept: run the same command again."
# Libraries that the numbers in the cache depend on. Others only transport them.
LIBRARIES: Final = ("vibe-pipeline", "numpy", "scipy", "opencv-python", "h5py", "torch", "torchvision", "smplx")
REPORTED: Final = 3  # problems of workers that are reported; the others are counted


@contextmanager
def client_at(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at an address, as tcp://host:8786, or of a scheduler file.

    Raises ConfigError where Dask's distributed part is not installed or the address is not valid, PipelineError where
    no scheduler answers for PATIENCE seconds, and, from the block, when the scheduler goes away.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(f"{scheduler}: a Dask cluster needs Dask's distributed part: {INSTALL}") from error
    address, log = _address(scheduler), logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # lost workers and schedulers are reported here
    try:
        # Not as the default: what else this process computes with Dask stays here. Results come straight from workers.
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False, direct_to_workers=True)
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{address}: {expected}: {error}") from error
    except OSError as error:
        raise PipelineError(
            f"{address}: no Dask scheduler answers there, after {PATIENCE:.0f} s ({error}). {START}"
        ) from error
    try:
        yield client
    except CancelledError as error:
        raise gone(address) from error
    finally:
        with suppress(TimeoutError):  # of a scheduler that has gone
            client.close()
        log.setLevel(level)


def gone(address: str) -> PipelineError:
    """The error for a scheduler that has ended."""
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def _address(scheduler: str) -> str:
    """An address as it is; that in a scheduler file, which the scheduler may still have to write."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return scheduler if "://" in scheduler else f"tcp://{scheduler}"
    latest = time.monotonic() + PATIENCE
    while True:
        try:
            return str(json.loads(Path(scheduler).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > latest:
                raise PipelineError(
                    f"{scheduler}: expected the file that `dask scheduler --scheduler-file` writes, found none after "
                    f"{PATIENCE:.0f} s ({type(error).__name__}: {error}). {START}"
                ) from error
        time.sleep(TRY_EVERY)


@dataclass(frozen=True, slots=True)
class Needs:
    """What every worker must have as this process has it."""

    versions: tuple[tuple[str, str], ...]  # library -> version
    folder: Path  # that relative paths start from
    shared: tuple[Path, ...]  # files and folders

    @classmethod
    def here(cls, shared: Sequence[Path]) -> Self:
        """What this process has."""
        versions = (("python", platform.python_version()), *((name, _version(name)) for name in LIBRARIES))
        return cls(versions, Path.cwd(), tuple(shared))

    def problem(self, threads: int) -> str:
        """What the process that calls this, a worker with so many threads, lacks; "" for nothing."""
        if threads != 1:
            return (
                f"expected 1 thread in each worker, found {threads}: readers of videos do not support several. Start "
                "it with --nthreads 1 --nworkers N, one process for each core or GPU"
            )
        for library, version in self.versions:
            found = platform.python_version() if library == "python" else _version(library)
            if found != version:
                return f"expected {library} {version}, as here, found {found}. Give workers the same environment"
        for path in self.shared:
            if not (self.folder / path).exists():
                return f"{path}: not found. It must be shared, under the same absolute path"
        return ""

    @contextmanager
    def fulfilled(self) -> Iterator[None]:
        """In a task: work in this process's folder. Raises PipelineError where the worker lacks something."""
        _require_here(self)
        with contextlib.chdir(self.folder) if self.folder.is_dir() else contextlib.nullcontext():
            yield  # a worker does one task at a time


def require(client: Client, needs: Needs) -> bool:
    """Ask all workers before the first task. Returns whether any of them offers the resource GPU.

    Raises PipelineError for those that lack something. Workers that come later are asked in their first task.
    """
    problems, any_gpu = [], False
    for address, answer in client.run(_answer, needs, on_error="return").items():
        if isinstance(answer, tuple):
            problem, has_gpu = answer
            any_gpu |= has_gpu
        else:  # OSError: it has gone meanwhile
            problem = "" if isinstance(answer, OSError) else f"{answer!r}. Install this package there, as here"
        problems += [f"Dask worker at {address}: {problem}."] if problem else []
    if problems:
        more = f" And {len(problems) - REPORTED:,} more workers." if len(problems) > REPORTED else ""
        raise PipelineError(" ".join(problems[:REPORTED]) + more)
    return any_gpu


def _answer(needs: Needs, dask_worker: Any) -> tuple[str, bool]:
    return needs.problem(dask_worker.state.nthreads), bool(dask_worker.state.total_resources.get("GPU"))


@functools.cache  # of workers that lack nothing: what another one lacks may be repaired
def _require_here(needs: Needs) -> None:
    from distributed import get_worker

    worker = get_worker()
    if problem := needs.problem(worker.state.nthreads):
        raise PipelineError(f"Dask worker at {worker.address}: {problem}.")


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"
