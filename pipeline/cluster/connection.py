"""A Dask cluster that somebody else has started: reached, or told in words why not.  raw -> tracks -> features

Nothing here or in the rest of this package imports Dask before a scheduler is named.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE: Final = 60.0  # s that a scheduler may take to answer, and that a cluster may be without any worker
LOOK_EVERY: Final = 1.0  # s between looks at which workers are there
TRY_EVERY: Final = 0.2  # s between attempts to reach a scheduler
PROBED: Final = ("tcp", "tls")  # protocols whose addresses are a host and a port
INSTALL: Final = "pip install 'vibe-pipeline[cluster]'"
START: Final = "Start one (docs/cluster.md), name another address, or leave it away to work on this machine alone."
AGAIN: Final = "Finished shards are kept: run the same command again."


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A connection to the scheduler at an address as tcp://host:8786, or of a scheduler file.

    Raises ConfigError where Dask's distributed part is not installed or the address is none, PipelineError where nobody
    answers at it for PATIENCE seconds, and, from the block, when the scheduler goes away.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(f"{scheduler}: work on a Dask cluster needs Dask's distributed part: {INSTALL}") from error
    latest = time.monotonic() + PATIENCE
    address = _address(scheduler, latest)
    _await_answer(address, latest)
    try:
        # Not as the default: what else this process computes with Dask stays here. Results come straight from workers.
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False, direct_to_workers=True)
    except OSError as error:
        raise PipelineError(f"{address}: something answers there, but no Dask scheduler: {error}. {START}") from error
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it has to say of lost workers and schedulers is said here, in words
    try:
        yield client
    except CancelledError as error:
        raise _gone(address) from error
    finally:
        with suppress(TimeoutError):  # of a scheduler that has gone
            client.close()
        log.setLevel(level)


def workers_of(client: Client) -> dict[str, int]:
    """Address -> threads of every worker that is there now. Raises PipelineError when the scheduler has gone."""
    try:
        return dict(client.nthreads())
    except OSError as error:
        raise _gone(_address_of(client)) from error


def await_workers(client: Client) -> list[str]:
    """The addresses of the workers, as soon as there is one. Raises PipelineError after PATIENCE seconds without."""
    watch = Watch(client)
    while not (there := watch.look()):
        time.sleep(TRY_EVERY)
    return there


class Watch:
    """Which workers are there, and for how long there has been none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.address = _address_of(client)
        self._seen = time.monotonic()

    def look(self) -> list[str]:
        """The addresses of all workers. Raises PipelineError when there has been none for PATIENCE seconds."""
        there = list(workers_of(self._client))
        now = time.monotonic()
        if there:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise PipelineError(
                f"{self.address}: no worker has come to this Dask scheduler for {PATIENCE:.0f} s. "
                f"Start some (docs/cluster.md), or wait until those that are queued have started. {AGAIN}"
            )
        return there


def outcome(future: Future[Any], watch: Watch) -> Any:
    """What a task gives, waited for as long as there are workers. Raises what it raised, KilledWorker among that."""
    while True:
        try:
            future.exception(timeout=LOOK_EVERY)
            break
        except TimeoutError:
            watch.look()
    return future.result()


def _address_of(client: Client) -> str:
    return str(client.scheduler.address)  # type: ignore[union-attr]  # it is connected


def _gone(address: str) -> PipelineError:
    return PipelineError(f"{address}: the Dask scheduler went away during the work. Start it again. {AGAIN}")


def call_off(client: Client, futures: Sequence[Future[Any]]) -> None:
    """Take tasks back. What is running on a worker is not interrupted, but nobody waits for it."""
    if client.status == "running" and futures:
        with suppress(OSError, TimeoutError, CancelledError):
            client.cancel(list(futures), force=True)


def _address(scheduler: str, latest: float) -> str:
    """An address as it is; that in a scheduler file, which the scheduler may still have to write."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return scheduler if "://" in scheduler else f"tcp://{scheduler}"
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


def _await_answer(address: str, latest: float) -> None:
    """Wait until somebody listens there. Dask's own client waits too, but does not fail without noise."""
    from distributed.comm.addressing import get_address_host_port, parse_address
    from distributed.comm.registry import get_backend

    try:
        protocol = parse_address(address)[0]
        get_backend(protocol)
        if protocol not in PROBED:
            return
        place = get_address_host_port(address, strict=True)
    except ValueError as error:
        expected = "expected tcp://HOST:PORT, as `dask scheduler` prints it, or its scheduler file, FILE.json"
        raise ConfigError(f"{address}: {expected}: {error}") from error
    while True:
        try:
            socket.create_connection(place, timeout=max(TRY_EVERY, latest - time.monotonic())).close()
        except OSError as error:
            if time.monotonic() > latest:
                raise PipelineError(
                    f"{address}: no Dask scheduler answers there, after {PATIENCE:.0f} s ({error.strerror or error}). "
                    f"{START}"
                ) from error
        else:
            return
        time.sleep(TRY_EVERY)
