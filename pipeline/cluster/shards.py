"""Shards of a stream, extracted by the workers of a Dask cluster.  tracks -> [features] -> windows

A task is a run of neighbouring shards, so that a video that lies across two of them is decoded once. Each worker has
one task at a time and puts its shards into the cache itself: what comes back is a record of a few hundred bytes for
each. Every record is sent at once, so a lost worker costs only the shards that it was at.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli.progress import Progress
from pipeline.cluster.at_work import Agree, Extract, Told, Work
from pipeline.cluster.connection import AGAIN, LOOK_EVERY, Watch, await_workers, call_off, connected, outcome
from pipeline.cluster.needs import Needs, require
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from distributed import Client, Future

MOST_SHARDS: Final = 32  # in a run: workers that come later want some too
DEATHS: Final = 3  # of workers at the same shard, until it is taken to be the shard's fault


def extract_shards(
    scheduler: str, extract: Extract, rows: Mapping[int, int], needs: Needs, *, progress: Progress
) -> Iterator[Told]:
    """`extract` by all workers of the cluster at `scheduler` together.

    Args:
        rows: pending shard -> rows of tracks in it.

    Yields what workers say, as soon as they do: first what they agreed upon; of each shard, once, that it is staged, in
    any order; and of runs what was done so far. Where workers offer the resource GPU, only those take part.

    Raises PipelineError where scheduler or workers are not there or not fit, and when workers die at the same shard
    again and again. An error of `extract` is raised as it is when the same shards meet with one for the second time.
    """
    if not rows:
        return
    with connected(scheduler) as client, _inbox(client) as (topic, inbox):
        crew = _Crew(client, needs)
        agreed = crew.one_of_them(Agree(extract, needs))
        yield Told(agreed=agreed)
        work = Work(extract, agreed, needs, topic)
        yield from _Coordinator(client, crew, work, inbox, _Tally(progress, rows)).run()


def agreed_by_one(scheduler: str, extract: Extract, needs: Needs) -> Any:
    """What `extract` has workers agree upon, without any shard. Raises PipelineError as `extract_shards` does."""
    with connected(scheduler) as client:
        return _Crew(client, needs).one_of_them(Agree(extract, needs))


@contextmanager
def _inbox(client: Client) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """A topic of this extraction's own, and what is said under it."""
    topic, inbox = f"vibe-pipeline-{uuid.uuid4().hex}", queue.Queue[bytes]()
    client.subscribe_topic(topic, lambda event: inbox.put(event[1]))
    try:
        yield topic, inbox
    finally:
        if client.status == "running":
            client.unsubscribe_topic(topic)


class _Crew:
    """The workers that take part. Those that come later are asked what they lack, too."""

    def __init__(self, client: Client, needs: Needs) -> None:
        self._client, self._needs = client, needs
        self._owners = require(client, needs, await_workers(client))  # address -> whether it owns a GPU
        self._watch = Watch(client)

    def look(self) -> tuple[set[str], list[str]]:
        """All workers that are there, and those that take part. Raises PipelineError for one that is not fit."""
        there = self._watch.look()
        self._owners |= require(self._client, self._needs, [a for a in there if a not in self._owners])
        known = {address: self._owners[address] for address in there if address in self._owners}
        return set(there), [address for address, owner in known.items() if owner or not any(known.values())]

    def one_of_them(self, task: Callable[[], Any]) -> Any:
        """What a task gives that any one of those who take part does. Raises what it raises."""
        crew = self.look()[1]
        where = {"workers": crew, "allow_other_workers": False}
        future = self._client.submit(task, key=f"agree-{uuid.uuid4().hex}", pure=False, **where)
        try:
            return outcome(future, self._watch)
        finally:
            call_off(self._client, [future])


@dataclass(slots=True, eq=False)
class _Run:
    """Neighbouring shards that one worker has, or will have."""

    shards: tuple[int, ...]
    failed_at: str = ""  # the worker at which it failed once, for a reason of its own
    number: int = -1
    future: Future[None] | None = None
    rows: int = 0  # done, as the worker says


@dataclass(slots=True)
class _Tally:
    """Rows done: of shards that are in the cache, and of those that workers are at."""

    progress: Progress
    rows: Mapping[int, int]  # shard -> rows of tracks in it
    done: set[int] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def tell(self, runs: Iterable[_Run], n_workers: int) -> None:
        rows = sum(self.rows[shard] for shard in self.done)
        for run in runs:
            rows += max(0, run.rows - sum(self.rows[shard] for shard in run.shards if shard in self.done))
        rate = rows / max(time.monotonic() - self.started, 1e-3)
        self.progress(rows, sum(self.rows.values()), f"{rate:.0f} a second, {n_workers} at work")


class _Coordinator:
    """Who has which run, and what becomes of those that are lost or fail."""

    def __init__(self, client: Client, crew: _Crew, work: Work, inbox: queue.Queue[bytes], tally: _Tally) -> None:
        self._client, self._crew, self._work, self._inbox, self._tally = client, crew, work, inbox, tally
        self._left: deque[int] = deque()  # shards that nobody has had
        self._again: list[_Run] = []  # what is left of runs that were lost or failed
        self._out: dict[str, _Run] = {}  # by the worker that has it
        self._deaths: Counter[int] = Counter()  # of workers, by the first shard that they left
        self._begun = 0

    def run(self) -> Iterator[Told]:
        """What is said of each shard, once, as soon as it is staged, and of runs."""
        self._left.extend(sorted(self._tally.rows))
        crew: list[str] = []
        looked = time.monotonic()
        try:
            while self._left or self._again or self._out:
                if not crew or time.monotonic() - looked > LOOK_EVERY:
                    there, crew = self._crew.look()
                    looked = time.monotonic()
                    self._put_back_lost(there)
                self._give_out(crew)
                yield from self._news()
                self._put_back_failed()
                self._tally.tell(self._out.values(), len(self._out))
        finally:
            call_off(self._client, [run.future for run in self._out.values() if run.future is not None])

    def _give_out(self, crew: Sequence[str]) -> None:
        for address in crew:
            if address not in self._out and (run := self._next(address, len(crew))):
                run.number, self._begun = self._begun, self._begun + 1
                where = {"workers": [address], "allow_other_workers": False}
                key = f"extract-{uuid.uuid4().hex}"
                run.future = self._client.submit(self._work, run.number, run.shards, key=key, pure=False, **where)
                self._out[address] = run

    def _next(self, address: str, n_workers: int) -> _Run | None:
        """The next run for a worker. One that failed goes to another one, if there is another."""
        for run in self._again:
            if run.failed_at != address or n_workers == 1:
                self._again.remove(run)
                return run
        # Half of what is left, shared by all: the last runs are short, and everybody ends at about the same time.
        n = min(MOST_SHARDS, -(-len(self._left) // (2 * n_workers)))
        return _Run(tuple(self._left.popleft() for _ in range(n))) if n else None

    def _news(self) -> Iterator[Told]:
        """Wait for somebody to say something, and take all that has been said by then."""
        with suppress(queue.Empty):
            told = Told.unpacked(self._inbox.get(timeout=LOOK_EVERY))
            while True:
                if self._note(told):
                    yield told
                told = Told.unpacked(self._inbox.get_nowait())

    def _note(self, told: Told) -> bool:
        """Whether it is news for the one who writes."""
        if told.staged is not None:
            new = told.staged.shard not in self._tally.done  # a worker that was thought lost may say it too
            self._tally.done.add(told.staged.shard)
            return new
        run = self._out.get(told.worker)
        if run is None or run.number != told.run:
            return False  # of a worker that was thought lost
        run.rows = run.rows if told.rows is None else told.rows
        if told.ended:
            del self._out[told.worker]
            if undone := self._undone(run):
                raise AssertionError(f"{told.worker}: nothing was said of shards {undone}")
        return True

    def _undone(self, run: _Run) -> tuple[int, ...]:
        return tuple(shard for shard in run.shards if shard not in self._tally.done)

    def _put_back_lost(self, there: set[str]) -> None:
        for address in self._out.keys() - there:
            self._lose(address)

    def _put_back_failed(self) -> None:
        """What has failed once is tried at another worker. Raises the error of what has failed twice."""
        from distributed import KilledWorker

        for address, run in list(self._out.items()):
            if run.future is None or run.future.status not in ("error", "cancelled"):
                continue
            if run.future.status == "cancelled":
                run.future.result()  # the scheduler has gone: raises that
            error = run.future.exception()
            if isinstance(error, KilledWorker):
                self._lose(address)
            elif run.failed_at or not self._undone(run):
                raise error
            else:
                del self._out[address]
                self._again.append(_Run(self._undone(run), failed_at=address))

    def _lose(self, address: str) -> None:
        """Put back what a dead worker had. Raises PipelineError when it is one of several that died at the same."""
        run = self._out.pop(address)
        call_off(self._client, [] if run.future is None else [run.future])
        if not (undone := self._undone(run)):
            return
        self._deaths[undone[0]] += 1
        if self._deaths[undone[0]] >= DEATHS:
            raise PipelineError(
                f"{DEATHS} Dask workers died, one after the other, at shard {undone[0]} or soon after, "
                f"the last one at {address}. Most likely memory ran out: its log says so. Start fewer workers on each "
                f"machine, or give them more memory. {AGAIN}"
            )
        self._again.append(_Run(undone, failed_at=run.failed_at))
