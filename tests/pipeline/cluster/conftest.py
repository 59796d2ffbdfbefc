"""A scheduler and as many workers as a test needs, as processes of the session."""

import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import pytest

from pipeline.processes import cluster
from pipeline.processes.settings import Dask
from tests.waiting import await_that

ROOT = Path(__file__).parents[3]
ITEMS = list(range(40))
QUICK = {  # no process waits long for one that is dead
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}


class Cluster:
    """A scheduler, and as many workers as a test needs. All of them are killed at the end."""

    def __init__(self, folder, path):
        self.folder, self._path = folder, path
        self._names = itertools.count()
        self.file = folder / "scheduler.json"
        self.start_scheduler("0")
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def start_scheduler(self, port):
        self.scheduler = self._start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--no-dashboard",
            "--scheduler-file",
            str(self.file),
        )

    @functools.cached_property
    def address(self):
        # the scheduler writes its file in steps: it is there before it is complete
        await_that(lambda: self.file.exists() and self.file.read_text().rstrip().endswith("}"))
        return json.loads(self.file.read_text())["address"]

    def have(self, n):
        """Go on when there are n workers, and no others."""
        for name in [name for name, process in self.workers.items() if process.poll() is not None]:
            del self.workers[name]
        while len(self.workers) > n:
            self.kill(next(iter(self.workers)))
        while len(self.workers) < n:
            self.add()
        self.await_workers(n)

    def await_workers(self, n):
        with distributed.Client(self.address, set_as_default=False) as client:
            await_that(lambda: len(client.nthreads()) == n)

    def ask(self, question):
        """`question(dask_scheduler)`, in the scheduler's process."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return client.run_on_scheduler(question)

    def states(self):
        """States of the tasks that the workers know."""
        with distributed.Client(self.address, set_as_default=False) as client:
            by_worker = client.run(
                lambda dask_worker: [task.state for task in dask_worker.state.tasks.values()]
            )
        return [state for states in by_worker.values() for state in states]

    def add(self, *options, **start):
        """Start a worker. start: as `dask` takes it."""
        name = f"worker-{next(self._names)}"
        common = [
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
            "--death-timeout",
            "300",
            "--name",
            name,
        ]
        threads = () if "--nthreads" in options else ("--nthreads", "1")
        place = ["--local-directory", str(self.folder)]
        self.workers[name] = self._start(
            "worker", self.address, *common, *threads, *place, *options, **start
        )
        return name

    def kill(self, name):
        process = self.workers.pop(name)
        process.kill()
        process.wait()

    def end(self):
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()

    def _start(self, *options, **start):
        return dask(self.folder, self._path, *options, **start)


def dask(folder, path, *options, code=ROOT):
    """`dask` with these options, with the folder `path` beside the code on its path."""
    environment = {**os.environ, **QUICK, "PYTHONPATH": os.pathsep.join([str(code), str(path)])}
    with (folder / f"{options[0]}.log").open("ab") as log:
        words = [sys.executable, "-m", "dask", *options]
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.fixture(scope="session")
def running(tmp_path_factory, on_path):
    started = Cluster(tmp_path_factory.mktemp("cluster"), on_path)
    yield started
    started.end()


@pytest.fixture
def two(running):
    """Two workers that have nothing to do."""
    running.have(2)
    return running


@dataclass(frozen=True)
class Each:
    """Does a part: calls a job for each item."""

    job: Callable[[Any], Any]

    def __call__(self, part, progress, device):
        results = []
        for item in part:
            progress(len(results), len(part))
            results.append(self.job(item))
        return results


def mapped(
    at,
    job,
    items=ITEMS,
    shared=None,
    patience=600,
    most=100,
):
    """The results of a job for each item, in the order in which parts end."""
    dask = Dask(at, patience)
    parts = cluster.run_parts(Each(job), items, dask, most=most, shared=shared, plug_ins=())
    with contextlib.closing(parts):
        for _, results in parts:
            yield from results
