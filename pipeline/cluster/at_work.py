"""What a worker does with a run of shards, and what it says meanwhile.  tracks -> [features] -> windows"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pipeline.cluster.needs import Needs

TELL_EVERY: Final = 1.0  # s between reports of rows done


class OfShard(Protocol):
    """What an extraction says of a shard that it has put into the cache: `cache.Staged`."""

    @property
    def shard(self) -> int: ...


class Extract(Protocol):
    """The extraction of one machine. Goes to the workers by pickle."""

    def agree(self) -> Any:
        """On one worker, before all others begin: what all of them must have in common, for the calls of all."""

    def __call__(
        self, agreed: Any, shards: Sequence[int], *, staged: Callable[[OfShard], None], tell: Callable[[int, Any], None]
    ) -> Any:
        """Put the given shards into the cache, in any order, and say so of each at once.

        Args:
            tell: to be called often, with rows done and anything that says what was done so far.

        Returns what was done in all. What `staged` and `tell` raise ends it.
        """


@dataclass(frozen=True, slots=True)
class Told:
    """One report of a task."""

    run: int = -1
    worker: str = ""  # its address
    agreed: Any = None  # before all runs: what workers have in common
    staged: Any = None  # what the extraction said of a shard
    rows: int | None = None  # done in this run so far
    did: Any = None  # what the extraction says of what it did in this run so far
    ended: bool = False  # the last report of a run

    def packed(self) -> bytes:
        return pickle.dumps(self)

    @staticmethod
    def unpacked(data: bytes) -> Told:
        """From a worker: by pickle, as everything that Dask carries."""
        told: Told = pickle.loads(data)  # noqa: S301
        return told


@dataclass(frozen=True, slots=True)
class Agree:
    """The task of one worker, before all others."""

    extract: Extract
    needs: Needs

    def __call__(self) -> Any:
        with self.needs.fulfilled():
            return self.extract.agree()


@dataclass(frozen=True, slots=True)
class Work:
    """The task of a worker with a run of shards. What it has to say goes out under a topic."""

    extract: Extract
    agreed: Any
    needs: Needs
    topic: str

    def __call__(self, run: int, shards: Sequence[int]) -> None:
        from distributed import get_worker

        report = _Report(get_worker(), self.topic, run)
        with self.needs.fulfilled():
            did = self.extract(self.agreed, shards, staged=report.staged, tell=report.tell)
        report.ended(did)


class _NotWanted(Exception):
    """The coordinator has taken the task back, or has gone: nobody is to hear of this."""


class _Report:
    """What a task says to the coordinator, from any thread. Raises _NotWanted when nobody listens any more."""

    def __init__(self, worker: Any, topic: str, run: int) -> None:
        self._worker, self._topic, self._run = worker, topic, run
        self._key = worker.get_current_task()
        self._told = 0.0

    def staged(self, one: OfShard) -> None:
        self._say(staged=one)

    def tell(self, rows: int, did: Any) -> None:
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self._say(rows=rows, did=did)

    def ended(self, did: Any) -> None:
        self._say(ended=True, did=did)

    def _say(self, **told: Any) -> None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise _NotWanted(self._key)
        self._worker.log_event(self._topic, Told(self._run, self._worker.address, **told).packed())
