"""Supervised processes: what ends one costs its own item, results keep their order, and no process
is left.
"""

import functools
import itertools
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import time
from operator import getitem
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from pipeline.processes import Failed, alive
from pipeline.processes.ordered import ordered_map
from pipeline.processes.pool import Pool
from tests.raising import pipeline_refuses
from tests.waiting import LIMIT, await_that, with_growing_limit

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def is_alive(process):
    """Whether it still runs: in a container, it may stay a zombie."""
    try:
        return "State:\tZ" not in Path("/proc", str(process), "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def late_ones_first(item):
    time.sleep(0.02 if item % 7 == 0 else 0.001)
    return item, os.getpid()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items_and_none_is_made_by_this_process(workers):
    results = [*ordered_map(late_ones_first, range(60), workers)]
    assert [item for item, _ in results] == [*range(60)]
    processes = {process for _, process in results}
    assert 1 <= len(processes) <= workers
    assert os.getpid() not in processes
    assert not any(map(is_alive, processes))


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def hold_the_lock():
    re.match(r"(a+)+$", "a" * 60 + "b")


ENDS = {
    "crash": (segfault, "reader_crashed", "SIGSEGV"),
    "exit": (lambda: os._exit(3), "reader_crashed", "exit code 3"),
    "hang": (lambda: time.sleep(1000), "reader_timeout", "made no progress for"),
    "hang in C": (hold_the_lock, "reader_timeout", "made no progress for"),
    "swell": (lambda: bytearray(512 * MIB), "reader_memory", "memory"),
    "swell in NumPy": (lambda: np.ones(64 * MIB), "reader_memory", "memory"),
    "swell slowly": (lambda: [bytes(MIB) for _ in range(512)], "reader_memory", "memory"),
}


def end_as_named(item):
    if item in ENDS:
        ENDS[str(item)][0]()
    return item


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_item_that_ends_its_process_costs_itself_alone(workers):
    items = [0, 1, 2, *(one for name in ENDS for one in (name, 10, 11)), "crash", "crash", 12]

    def judge(limit):
        results = [*ordered_map(end_as_named, items, workers, timeout=limit, memory=256 * MIB)]
        for item, result in zip(items, results, strict=True):
            if item in ENDS:
                _, reason, word = ENDS[str(item)]
                assert isinstance(result, Failed)
                assert (result.reason, word in result.message) == (reason, True), result
            else:
                assert result == item

    with_growing_limit(judge, 1.0)


def end_once(item):
    file, name = item
    if not file.exists():
        file.touch()
        ENDS[name][0]()
    return "read"


def test_what_crashes_is_given_a_second_chance_and_what_hangs_is_not(tmp_path):
    def judge(limit):
        items = [(tmp_path / f"{name} {limit}", name) for name in ("crash", "hang")]
        again, failed = ordered_map(end_once, items, 1, timeout=limit)
        assert again == "read"
        assert isinstance(failed, Failed)
        assert failed.reason == "reader_timeout"

    with_growing_limit(judge, 0.3)


def read_mapped(file):
    mapped = np.memmap(file, np.uint8, "r")
    return float(mapped[:: 1 << 30].sum()) + mapped[: 100 * MIB].sum()


def test_a_mapped_file_takes_no_memory(tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(1 << 38)
    assert [*ordered_map(read_mapped, [file], 1, memory=64 * MIB)] == [0]


def log_and_return_a_mebibyte(item):
    log, index = item
    with log.open("a") as stream:
        stream.write("x")
    if index == 0:
        await_that(lambda: log.stat().st_size > 2)
        time.sleep(0.5)  # in which as many items begin as are allowed
    return bytes(MIB)


def test_results_that_wait_for_an_earlier_one_take_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.processes.ordered.MAX_WAITING", 2 * MIB)
    log = tmp_path / "log"
    results = ordered_map(log_and_return_a_mebibyte, [(log, index) for index in range(200)], 3)
    next(results)
    # 6 MiB here, and two batches of 16 in each of two processes
    assert 2 < log.stat().st_size < 100
    assert [len(one) for one in results if isinstance(one, bytes)] == [MIB] * 199


def fail_at_two(item):
    if item == 2:
        raise ValueError("item 2")
    return item


class Unpicklable(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def raise_what_cannot_be_sent(item):
    raise Unpicklable(item, item)


def return_what_cannot_be_sent(item):
    return threading.Lock()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_job_raises_is_raised_here_in_its_turn_and_says_where(workers):
    taken = []
    with pytest.raises(ValueError, match="item 2") as raised:
        for one in ordered_map(fail_at_two, range(40), workers):
            taken.append(one)  # noqa: PERF402
    assert taken == [0, 1]
    assert "in fail_at_two" in raised.value.__notes__[0]
    with pipeline_refuses("in raise_what_cannot_be_sent"):
        next(ordered_map(raise_what_cannot_be_sent, [1], workers))
    with pytest.raises(TypeError, match="pickle"):
        next(ordered_map(return_what_cannot_be_sent, [1], workers))


def who(item):
    return os.getpid()


def test_neighbours_of_one_group_are_done_by_one_process():
    items = [*"aaaabcccccccccdef"] * 4
    done = [*ordered_map(who, items, 3, same_group=lambda one, other: one == other)]
    by = zip(items, done, strict=True)
    assert all(one[1] == other[1] for one, other in itertools.pairwise(by) if one[0] == other[0])


def slowly_but_surely(seconds):
    for _ in range(6):
        time.sleep(seconds)
        alive()
    return seconds


def test_progress_that_is_shown_counts_as_a_sign_of_life():
    def judge(limit):
        assert [*ordered_map(slowly_but_surely, [limit / 4], 1, timeout=limit)] == [limit / 4]

    with_growing_limit(judge, 0.4)


def test_time_that_the_parent_takes_is_not_held_against_a_process():
    def judge(limit):
        results = []
        for result in ordered_map(who, range(4), 2, timeout=limit):
            time.sleep(1.3 * limit)
            results.append(result)
        assert len(results) == 4
        assert not any(isinstance(result, Failed) for result in results)

    with_growing_limit(judge, 0.3)


def threads_and_folder(item):
    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"], Path.cwd()


def test_libraries_have_one_thread_and_processes_are_where_this_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [*ordered_map(threads_and_folder, [1], 1)] == [(1, "1", tmp_path)]


def test_processes_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(who, "__module__", "nowhere_to_be_found")
    monkeypatch.setitem(sys.modules, "nowhere_to_be_found", sys.modules[__name__])
    with pipeline_refuses("cannot start"):
        next(ordered_map(who, [1], 1))


def test_a_server_that_hangs_is_an_error_whatever_it_is_sent(monkeypatch):
    """The work of a process may be larger than what a connection holds until it is read."""
    monkeypatch.setattr("pipeline.processes.pool.START", 0.5)
    monkeypatch.setattr("pipeline.processes.server.END_TIME", 0.1)
    hanging = functools.partial(time.sleep, 1000)
    large = functools.partial(getitem, [bytes(MIB)])
    with pipeline_refuses("cannot start"):
        next(ordered_map(large, [0, 0], 2, timeout=0.5, preload=hanging))


def test_who_takes_no_more_results_leaves_no_process():
    results = ordered_map(late_ones_first, range(400), 2)
    processes = {next(results)[1] for _ in range(60)}
    results.close()
    assert not any(map(is_alive, processes))


class Notes:
    """A work with a state, memory that is shared, and places: each task is what is done at its
    places, one by one.
    """

    def __init__(self):
        self.tasks = []
        self.memory: mmap.mmap

    def share(self, memory):
        self.memory = memory

    def __call__(self, task, skipped):
        self.tasks.append(task)
        for place, deed in enumerate(task):
            if place not in skipped:
                alive(place)
                self.memory[ord(deed)] += 1
                if deed == "x" or (deed == "o" and self.memory[ord(deed)] == 1):
                    segfault()
        return self.tasks


def test_tasks_of_a_job_go_to_one_process_in_order_and_a_place_at_which_two_end_is_skipped():
    works, jobs = [Notes(), Notes()], iter([["ab", "aoc", None, "axb", "c"], None, ["d"]])
    options = {"skips": True, "shared": [128]}
    results = {}
    with Pool[str, list[str]](works, jobs, **options) as pool:
        while pool.has_more or not pool.is_idle:
            results |= {result.task: result.get() for result in pool.poll()}
        counts = {deed: pool.shared[0][ord(deed)] for deed in "abcdox"}
    # A fresh process goes on with the task at which one has ended, and does no other one again.
    assert results == {
        "ab": ["ab"],
        "aoc": ["aoc"],
        "axb": ["axb"],
        "c": ["axb", "c"],
        "d": ["d"],
    }
    assert counts == {"a": 1 + 2 + 3, "b": 2, "c": 2, "d": 1, "o": 2, "x": 2}


PARENT = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from pipeline.processes.ordered import ordered_map
from tests.pipeline.test_processes import hang_at_three

for process in ordered_map(hang_at_three, range(4), 2):
    print(process, flush=True)
"""


def hang_at_three(item):
    if item == 3:
        hold_the_lock()
    return os.getpid()


@pytest.mark.parametrize(
    "ends_by",
    [
        signal.SIGKILL,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_no_process_is_left_when_the_parent_is_ended(ends_by, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as stream:  # a pipe would be held open by what is left
        parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=stream, stderr=stream)
        await_that(lambda: len(log.read_text().splitlines()) == 3)
        started = psutil.Process(parent.pid).children(recursive=True)
        assert len(started) >= 2
        parent.send_signal(ends_by)
        assert parent.wait(LIMIT) == -ends_by
    _, left = psutil.wait_procs(started, timeout=LIMIT)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
