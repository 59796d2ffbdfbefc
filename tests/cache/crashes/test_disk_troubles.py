"""Full or failing disks, read-only folders, other writers, lost locks: nothing committed is lost, and runs go on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from benchmarks.crash_runs import (
    COLUMNS,
    DIM,
    FIRST,
    RUNS,
    SPLIT,
    STREAM,
    Fault,
    changes,
    convert,
    make_video,
    seen,
    tree,
    watched,
)
from cache import CacheError, SplitWriter, StreamWriter

POINTS = 1  # of each run, at which something fails; `EVERY_MOMENT=1 pytest ...` takes every one, and some minutes
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["pytest", "cache"])


@dataclass(frozen=True)
class Stage:
    """One run as it went undisturbed: the cache before it, what it changed, and what came of it."""

    before: Path
    changes: int  # as Fault counts them
    old: str | None
    new: str | None
    expected: dict[str, bytes]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    root, found = tmp_path_factory.mktemp("calm") / "cache", {}
    for number, (name, run) in enumerate(RUNS.items()):
        before, old = root.with_name(f"before-{number}"), seen(root)
        copy(root, before)
        with watched(never := Fault(1 << 30, errno.EIO, root)):
            run(root)
        found[name] = Stage(before, never.count, old, seen(root), tree(root))
    return found


def copy(before: Path, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, root)
    return root


def points(stage: Stage, seed: int) -> Iterator[int]:
    """Which changes fail: some, spread over all of them."""
    if os.environ.get("EVERY_MOMENT"):
        return iter(range(1, stage.changes + 1))
    step = stage.changes / POINTS
    rng = random.Random(stage.changes + seed)
    return (1 + int((number + rng.random()) * step) for number in range(POINTS))


CODES = (errno.EIO, errno.ENOSPC)  # once; from then on


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(name, code, marks=[pytest.mark.slow] * (number % 2 != which))  # quickly: each run with one of them
        for number, name in enumerate(RUNS)
        for which, code in enumerate(CODES)
    ],
)
def test_a_failing_disk_costs_nothing_that_was_committed(
    name: str, code: int, stages: dict[str, Stage], tmp_path: Path
) -> None:
    stage, root = stages[name], tmp_path / "cache"
    for at in points(stage, code):
        where = f"{errno.errorcode[code]} at change {at} of {stage.changes}"
        copy(stage.before, root)
        message = ""
        with watched(fault := Fault(at, code, root)):
            try:
                RUNS[name](root)
            except (CacheError, OSError) as error:
                message = str(error)
        assert fault.failed, where
        assert not message or str(root) in message, f"{where}: {message!r} does not name the place"
        assert seen(root) in (stage.old, stage.new), where
        assert not (root / "zarr.json").exists() or cache.verify(root).problems == (), where
        RUNS[name](root)
        assert tree(root) == stage.expected, where


def end_by_signal(name: str, root: str, at: int, number: int) -> None:
    """In a process of its own: a signal as a person or a scheduler sends it, at the n-th change."""
    left = at

    def around(call: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal left
        left -= changes(call, args, kwargs)
        if left == 0:
            left = -1
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    with watched(around):
        RUNS[name](Path(root))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_that_asks_to_end_is_no_worse_than_a_kill(
    number: signal.Signals, stages: dict[str, Stage], tmp_path: Path
) -> None:
    stage = stages["conversion of changes"]
    for part in (0.3, 0.9):
        root = copy(stage.before, tmp_path / "cache")
        order = ("conversion of changes", str(root), int(part * stage.changes), int(number))
        process = FRESH.Process(target=end_by_signal, args=order)
        process.start()
        process.join(60)
        assert process.exitcode not in (0, None)
        assert seen(root) in (stage.old, stage.new)
        assert cache.verify(root).ok
        RUNS["conversion of changes"](root)
        assert tree(root) == stage.expected


def convert_in_turn(root: str, answers: Any) -> None:
    """In a process of its own: until it is this one's turn."""
    while True:
        try:
            convert(Path(root), FIRST, "first")
        except CacheError as error:
            answers.put(str(error))
            time.sleep(0.01)
        except BaseException as error:
            answers.put(f"{type(error).__name__}: {error}")
            answers.put(None)
            raise
        else:
            answers.put(None)
            return


def test_of_many_writers_at_once_one_writes_and_the_others_are_refused(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    queue: Any = FRESH.SimpleQueue()
    processes = [FRESH.Process(target=convert_in_turn, args=(str(root), queue)) for _ in range(5)]
    for process in processes:
        process.start()
    answers: list[str | None] = []
    while answers.count(None) < len(processes):
        answers.append(queue.get())
    for process in processes:
        process.join(60)
    assert [text for text in answers if text and not ("no other writer" in text and "process" in text)] == []
    assert [process.exitcode for process in processes] == [0] * 5
    assert tree(root) == stages["first conversion"].expected


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("second", ["same", "other"])
def test_a_writer_that_lost_its_lock_changes_nothing_of_what_the_next_one_wrote(
    how: str, second: str, tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    lock = root / SPLIT / ".writing/lock"
    other = FIRST if second == "same" else {name: (lengths, 7) for name, (lengths, _) in FIRST.items()}
    with pytest.raises(CacheError, match="lock"), split_writer(root) as writer:
        writer.begin()
        videos = [make_video(name, *video) for name, video in FIRST.items()]
        writer.append(*videos[0])
        writer.append(*videos[1])
        lock.unlink()
        if how == "replaced":
            lock.write_text("1\n")
        convert(root, other, "second")
        state, files = seen(root), tree(root)
        for video in videos[2:]:
            writer.append(*video)
        writer.commit({"note": "first"})
    assert seen(root) == state
    assert {name: data for name, data in tree(root).items() if ".writing" not in name} == files
    assert cache.verify(root).ok


def test_a_stream_writer_that_lost_its_lock_changes_nothing(stages: dict[str, Stage], tmp_path: Path) -> None:
    root = copy(stages["extraction"].before, tmp_path / "cache")
    with pytest.raises(CacheError, match="lock"), StreamWriter(root, SPLIT, STREAM, dim=DIM, plan="toy") as writer:
        (root / SPLIT / "features" / STREAM / ".writing/lock").unlink()
        RUNS["extraction"](root)
        for shard in writer.pending:
            n_rows = len(writer.rows(shard))
            keys = np.arange(2 * n_rows, dtype=np.uint64).reshape(-1, 2)
            writer.write(shard, np.ones((n_rows, DIM), np.float32), np.ones(n_rows), keys)
        writer.commit({"note": "toy"})
    assert seen(root) == stages["extraction"].new
    assert cache.verify(root).ok


def split_writer(root: Path) -> SplitWriter:
    return SplitWriter(root, SPLIT, columns=COLUMNS, plan="toy", rows_per_shard=8, rows_per_chunk=4)
