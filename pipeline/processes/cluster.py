"""Parts of a step on several devices of this machine, or on the workers of a Dask cluster.
[raw -> tracks -> features]

A part is some consecutive items of a step: videos to read, clips in which people are detected,
shards of features. A device's process, a Dask worker and a process of an array job all do parts in
the same way: they write finished items to the shared folders, where the command that commits finds
them. So a part that is lost with its worker begins again from what it had finished.

`run_parts` runs them. A process that does a part first checks that it has the software and files of
the one that sent it (`_run_part`). Dask is imported only when a scheduler is named. A *future* is
Dask's handle of a submitted part, from which its result is taken.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import platform
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pipeline.cli import pages
from pipeline.cli.console import err, plain
from pipeline.cli.progress import EVERY, Progress, silent
from pipeline.cli.text import count, duration
from pipeline.errors import ConfigError, PipelineError
from pipeline.processes import Failed
from pipeline.processes.pool import TRIALS, Pool
from pipeline.processes.settings import Dask
from pipeline.processes.software import version, versions

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

# a function that does a part: called as do(part, progress, device)
DoPart = Callable[[Sequence[T], Progress, str], R]

# The threads of a worker share its working folder, and readers are not thread-safe.
_one_part: Final = threading.Lock()

ANSWER: Final = 60.0  # s that a scheduler may take to answer, and a result to arrive
ASK_AGAIN: Final = 5.0  # s after which a scheduler is asked again for its workers
SLOW: Final = 5.0  # s of waiting for workers after which a line is printed
LOOK_EVERY: Final = 0.5  # s between polls of the workers
REPORT_EVERY: Final = 20  # polls between two calls of `meanwhile`
# Most parts per worker whose results are not taken. One runs and one waits, so that the worker has
# work and Dask's `adapt` starts more workers. Not more: when a worker is lost, Dask counts that
# against all parts that it had.
WAITING: Final = 2
# A part is at most one in so many of a worker's share of the items that are left: parts become
# smaller towards the end, so that no worker waits long for the last one.
PARTS_OF_WORKER: Final = 4
HOW_TO_START: Final = (
    f"Start one ({pages.DASK}), name another address, or leave it out to use only this machine."
)
RUN_AGAIN: Final = "Finished work is kept: run the same command again."


def run_parts(
    do: DoPart[T, R],
    items: Sequence[T],
    dask: Dask,
    devices: Sequence[str] = (),
    *,
    most: int,
    shared: Path | None,
    plug_ins: Sequence[object],
    on_gpus: bool = True,
    progress: Progress = silent,
    meanwhile: Callable[[], None] = lambda: None,
) -> Generator[tuple[Sequence[T], R]]:
    """Call `do(part, progress, device)` for parts of the items: on the workers of a cluster; if
    `dask` names none, in a process for each of the `devices`; and without these here, where all
    items are one part. Yields each part with its result as they come.

    Args:
        do: picklable. It should call `progress` often, which ends a part whose result is no longer
            needed. `device` is "" on a cluster, whose workers choose their own, and here.
        most: most items in a part.
        shared: a file or folder that all workers must see.
        plug_ins: datasets, streams and detectors that the workers use.
        on_gpus: if a worker of the cluster has ever offered the resource GPU, use only such ones.
        progress: what a part that is done here gets.
        meanwhile: called every few seconds while parts are done elsewhere, to report what they have
            staged. Lines tell which workers are found and lost.

    Raises what `do` raises, a PipelineError with the worker's name; ConfigError for an invalid
    address; and PipelineError:

    - of a cluster: no scheduler answers, or goes away; there is no worker for `patience` seconds; a
      worker has other code or libraries, or does not see `shared`; more workers were lost at one
      part than Dask allows.
    - of devices: two processes end at one part, or one has other code.
    """
    if dask.scheduler is None and not devices:
        if items:
            yield items, do(items, progress, "")
        return
    submitter = _Submitter(versions(*plug_ins), Path.cwd(), shared)
    if dask.scheduler is None:
        works = [functools.partial(_run_part, submitter, do, device) for device in devices]
        parts = _cut(items, most, lambda: len(devices))
        yield from _run_on_devices(works, devices, parts, meanwhile)
        return
    client = _connect(dask.scheduler)
    cluster = _Cluster(client, dask.patience, on_gpus=on_gpus)
    try:
        parts = _cut(items, most, cluster.number)
        work = functools.partial(_run_part, submitter, do, "")
        yield from cluster.run(work, parts, meanwhile)
    except CancelledError as error:
        gone = "the Dask scheduler went away or was restarted. Make sure that it runs."
        raise PipelineError(f"{dask.scheduler}: {gone} {RUN_AGAIN}") from error
    finally:
        with contextlib.suppress(TimeoutError):  # the scheduler may have gone
            client.close()


def _cut(items: Sequence[T], most: int, n_workers: Callable[[], int]) -> Iterator[Sequence[T]]:
    """Cut items into parts."""
    start = 0
    while start < len(items):
        size = (len(items) - start) // (PARTS_OF_WORKER * n_workers())
        stop = start + max(1, min(most, size))
        yield items[start:stop]
        start = stop


def _run_on_devices(
    works: Sequence[Callable[[Sequence[T]], R]],
    devices: Sequence[str],
    parts: Iterator[Sequence[T]],
    meanwhile: Callable[[], None],
) -> Iterator[tuple[Sequence[T], R]]:
    """Do parts in a process for each device. If it ends at a part, another one does the part again;
    PipelineError if that ends, too.
    """

    def tell_loss(worker: int, failed: Failed) -> None:
        err.warn(f"{devices[worker]}: the process of this device {failed.message}")

    jobs = ([part] for part in parts)
    with Pool[Sequence[T], R](
        works, jobs, ahead=1, timeout=math.inf, memory=None, on_loss=tell_loss
    ) as pool:
        turns = itertools.count()
        while pool.has_more or not pool.is_idle:
            if next(turns) % REPORT_EVERY == 0:
                meanwhile()
            for result in pool.poll():
                outcome = result.get()
                if isinstance(outcome, Failed):
                    raise PipelineError(
                        f"{devices[result.worker]}: {TRIALS} processes ended at the same work, the "
                        f"last one {outcome.message}. See their output above. Finished work is "
                        "kept: run it again, without a failing device."
                    )
                yield result.task, outcome


def _connect(scheduler: str) -> Client:
    """Connect to a scheduler, and raise errors as messages for the user."""
    import distributed  # which sets its loggers' levels

    for name in ("distributed", "distributed.client"):  # this module reports what is lost
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return distributed.Client(
            **_scheduler_location(scheduler),
            timeout=ANSWER,
            set_as_default=False,  # other Dask work of this process stays here
            direct_to_workers=True,  # results come straight from workers
        )
    except ValueError as error:
        expected = (
            "tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        )
        raise ConfigError(f"{scheduler}: expected {expected}: {error}") from error
    # AssertionError: distributed expects the first message alone; a busy scheduler may send another
    except (OSError, AssertionError) as error:
        silent = f"no Dask scheduler answers there after {ANSWER:.0f} s ({error})."
        raise PipelineError(f"{scheduler}: {silent} {HOW_TO_START}") from error


def _scheduler_location(scheduler: str) -> dict[str, str]:
    """The argument of Dask's client for an address, or for a scheduler file (FILE.json), for which
    this function waits.

    >>> _scheduler_location("node1:8786")
    {'address': 'tcp://node1:8786'}
    """
    from distributed.comm import registry
    from distributed.comm.addressing import parse_address, parse_host_port

    if "://" in scheduler or not scheduler.endswith(".json"):
        address = scheduler if "://" in scheduler else f"tcp://{scheduler}"
        protocol, host_and_port = parse_address(address)
        # Dask's client looks at both too late: it stays half open then, and if Python deletes it in
        # the thread of the next client, that one does not start.
        registry.get_backend(protocol)
        parse_host_port(host_and_port)
        return {"address": address}
    latest = time.monotonic() + ANSWER
    while not _has_address(Path(scheduler)):
        if time.monotonic() > latest:
            written = "the file that `dask scheduler --scheduler-file` writes"
            actual = "another one" if Path(scheduler).exists() else "none"
            raise PipelineError(
                f"{scheduler}: expected {written}, found {actual} after {ANSWER:.0f} s. "
                f"{HOW_TO_START}"
            )
        time.sleep(LOOK_EVERY / 2)
    return {"scheduler_file": scheduler}


def _has_address(file: Path) -> bool:
    """Whether a scheduler has written its address to this file, completely."""
    try:
        return "address" in json.loads(file.read_text())
    except (OSError, ValueError, TypeError):
        return False


class _Cluster:
    """The workers of one Dask cluster, each of which does one part at a time.

    A part that raises is done again once, and Dask repeats the parts of a lost worker. If more
    workers were lost at one part than the scheduler allows
    (`distributed.scheduler.allowed-failures`), Dask gives up, and so does this class.
    """

    def __init__(self, client: Client, patience: float, *, on_gpus: bool) -> None:
        self._client = client
        self._patience = patience
        self._on_gpus = on_gpus
        self._needs_gpu = False  # whether a worker has ever offered a GPU, and is to be used
        self._address = str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected
        self._part_ended = threading.Event()  # set by Dask's thread whenever a part ends
        self._workers: AbstractSet[str] = set()  # addresses; set whenever they are waited for

    def number(self) -> int:
        """Number of workers when they were last waited for."""
        return len(self._workers)

    def run(
        self,
        work: Callable[[Sequence[T]], R],
        parts: Iterator[Sequence[T]],
        meanwhile: Callable[[], None],
    ) -> Iterator[tuple[Sequence[T], R]]:
        """Yield each part with its result as they come, and call `meanwhile` from time to time.

        Each turn submits as many parts as the workers of the moment can have, and takes the results
        that have come.
        """
        from distributed import KilledWorker

        futures: dict[Future[R], Sequence[T]] = {}  # of submitted parts without a taken result
        for turn in itertools.count():
            self._await_workers()
            resources = {"GPU": 1} if self._needs_gpu else None
            n_free = max(0, WAITING * len(self._workers) - len(futures))
            for part in itertools.islice(parts, n_free):
                future: Future[R] = self._client.submit(
                    work, part, pure=False, retries=1, resources=resources
                )
                future.add_done_callback(lambda _: self._part_ended.set())
                futures[future] = part
            if not futures:
                return
            if turn % REPORT_EVERY == 0:
                meanwhile()
            self._part_ended.wait(LOOK_EVERY)
            self._part_ended.clear()
            for future in [future for future in futures if future.done()]:
                try:
                    result = future.result(ANSWER)
                except KilledWorker as error:
                    losses = error.allowed_failures + 1
                    raise PipelineError(
                        f"{self._address}: {losses} workers were lost while they ran the same "
                        f"part, the last one {error.last_worker.address}. If memory ran out (see "
                        f"its log), start fewer workers per machine. {RUN_AGAIN}"
                    ) from error
                except TimeoutError:
                    if future.status == "error":  # the part's own
                        raise
                    continue  # the worker went away with the result: Dask does the part again
                yield futures.pop(future), result

    def _await_workers(self) -> None:
        """Wait until there is a worker, and find the workers.

        Raises PipelineError after `patience` seconds without any, or without an answer of the
        scheduler; CancelledError if the scheduler has gone.
        """
        began = time.monotonic()
        next_line = SLOW
        demand: Future[int] | None = None
        while self._client.status == "running":
            try:
                self._workers = self._find_workers()
            except TimeoutError:  # it is busy, suspended or gone: then the client's status changes
                target = "an answer of this Dask scheduler"
            else:
                if self._workers:
                    return
                if demand is None:  # Dask's `adapt` starts workers for tasks
                    demand = self._client.submit(int, pure=False)
                target = "a Dask worker with a GPU" if self._needs_gpu else "a Dask worker"
            waited = time.monotonic() - began
            if waited > self._patience:
                raise PipelineError(
                    f"{self._address}: waited {self._patience:g} s for {target}. Start workers "
                    f"({pages.DASK}), or wait longer for queued ones: [dask] patience. "
                    f"{RUN_AGAIN}"
                )
            if waited > next_line:
                next_line = waited + EVERY
                passed = f"{duration(waited)} of at most {duration(self._patience)}"
                err.print(plain(f"{self._address}: waiting for {target}, {passed}"))
            time.sleep(LOOK_EVERY / 2)
        raise CancelledError

    def _find_workers(self) -> AbstractSet[str]:
        """Addresses of the workers that may be used. Prints which are new, and which are gone.
        Raises TimeoutError if the scheduler does not answer in time.
        """
        scheduler: Any = self._client.scheduler
        identity = self._client.sync(scheduler.identity, n_workers=-1, callback_timeout=ASK_AGAIN)
        workers = identity["workers"]
        with_gpu = {name for name, worker in workers.items() if worker["resources"].get("GPU")}
        self._needs_gpu |= self._on_gpus and bool(with_gpu)
        usable = with_gpu if self._needs_gpu else workers.keys()
        changes = {"lost": self._workers - workers.keys(), "found": usable - self._workers}
        for change, names in changes.items():
            if names:
                text = f"{count(len(names), 'worker')} {change}: {', '.join(sorted(names))}"
                err.print(plain(f"{self._address}: {text} ({len(usable):,} now)"))
        return usable


@dataclass(frozen=True, slots=True)
class _Submitter:
    """Facts about the process that sends parts, which a worker must share."""

    versions: Mapping[str, str]  # of code and libraries: `pipeline.processes.software`
    folder: Path  # its working folder, to which relative paths refer
    shared: Path | None  # a file or folder that the worker must see; None: none


def _run_part(submitter: _Submitter, do: DoPart[T, R], device: str, part: Sequence[T]) -> R:
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


def _require_same_software(submitter: _Submitter, label: str) -> None:
    """Raise PipelineError if this worker has other code or libraries than the submitter, or does
    not see the shared files. label: The worker's name in the message.
    """
    for name, expected in submitter.versions.items():
        actual = version(name)
        if actual != expected:
            do = "Use the same code and environment, and start both again."
            raise PipelineError(
                f"{label}: expected {name} {expected}, as here, found {actual}. {do}"
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
