"""Processes of a lab: a command in a process that can be killed, a reader beside it, and a cluster.

`crashes.py` starts them. All write small shards and renew their signs of life often (`shrink`), so
that a short run has many shards, and a killed part is soon taken for dead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from distributed import LocalCluster

from benchmarks.lab import state_of
from cache.write import parts, split_writer
from pipeline.__main__ import main as pipeline_main

# forks a process that has imported these modules
FRESH: Final = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["__main__", "pipeline.__main__"])
# what a worker of a cluster runs when it starts
SHRUNK: Final = "from benchmarks.lab_processes import shrink\nshrink()\n"


def shrink() -> None:
    """Let this process write small shards, and take a part for killed after a second without a sign
    of life.
    """
    for module, name, value in (
        (split_writer, "ROWS_PER_SHARD", 16),
        (split_writer, "ROWS_PER_CHUNK", 4),
        (parts, "RENEW", 0.2),
        (parts, "FRESH", 1.0),
    ):
        setattr(module, name, value)


def run_command(words: Sequence[str], log: str) -> None:
    """Run a command in this process, whose output goes to a file."""
    shrink()
    with (
        Path(log).open("w") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        sys.exit(pipeline_main(list(words)))


def worker_processes(parent: Any) -> list[int]:
    """The process numbers of a cluster's workers, or of a process's children."""
    if isinstance(parent, LocalCluster):
        return [nanny.pid for nanny in parent.workers.values() if nanny.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    return []


@contextlib.contextmanager
def reader_beside(root: Path) -> Iterator[Callable[[], set[str]]]:
    """A process that reads a cache again and again. Yields a function that ends it and returns all
    states it saw.
    """
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=keep_reading, args=(str(root), there), daemon=True)
    process.start()
    here.recv()  # it is reading

    def end() -> set[str]:
        here.send("end")
        states: set[str] = here.recv()
        return states

    try:
        yield end
    finally:
        process.kill()
        process.join()


def keep_reading(root: str, pipe: Connection[Any, Any]) -> None:
    """The reader's loop."""
    pipe.send("reading")
    states = set[str]()
    while not pipe.poll():
        try:
            states.add(state_of(Path(root)))
        except Exception as error:  # a reader must never meet any
            states.add(f"{type(error).__name__}: {error}")
        time.sleep(0.005)  # leaves time for the writer
    pipe.send(states)
