"""Several processes: the order of one, bounded memory, and nobody left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pipeline import processes as workers

ROOT = Path(__file__).parents[2]
ITEMS = list(range(40))


def who(item: int) -> tuple[int, int]:
    return item, os.getpid()


def slowly(item: int) -> int:
    time.sleep(0.002)  # so that everybody has something to do
    return item


def spoiled(item: int) -> int:
    if item == 30:
        raise ValueError("item 30")
    return item


class Late(Future):
    """Of a process that is done with its parcel only when somebody waits for it."""

    def __init__(self, job: Any, parcel: Any) -> None:
        super().__init__()
        self.work = lambda: job(parcel)
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self.set_result(self.work())
        return super().result(timeout)


class Pool:
    """Stands for other processes, quick ones or late ones."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.late = True
        self.killed = False

    def submit(self, job: Any, parcel: Any) -> Future[Any]:
        self.given += parcel
        future = Late(job, parcel)
        if not (self.late and parcel):  # without a parcel, the question is whether it is there
            future.result()
        return future

    def shutdown(self, *, wait: bool, kill_workers: bool) -> None:
        self.killed = kill_workers and not wait


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    others = Pool()
    monkeypatch.setattr(workers, "get_reusable_executor", lambda **_: others)
    monkeypatch.setattr(workers, "_end_with", lambda parent: None)
    monkeypatch.setattr(workers, "PATIENCE", 0)
    return others


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items_whoever_made_them(
    n_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0)
    monkeypatch.setattr(workers, "_is_there", lambda ready: ready.result() == [])
    assert list(workers.in_processes(slowly, ITEMS, n_workers)) == ITEMS


def test_other_processes_do_all_that_they_begin_with(read_by_others: None) -> None:
    processes = {process for _, process in workers.in_processes(who, ITEMS, 2)}
    assert len(processes) == 1
    assert os.getpid() not in processes


def test_while_others_are_slow_this_process_does_the_rest(pool: Pool) -> None:
    assert list(workers.in_processes(slowly, ITEMS, 2)) == ITEMS
    assert 0 < len(pool.given) < len(ITEMS) / 2


@pytest.mark.parametrize("late", [True, False])
def test_a_bounded_number_of_items_is_read_ahead_of_the_one_that_is_taken(
    late: bool, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PARCELS", 3)
    monkeypatch.setattr(workers, "TOGETHER", 2)
    pool.late = late
    begun = []
    taken = 0
    for _ in workers.in_processes(begun.append, ITEMS, 2):
        taken += 1
        assert len(begun) - taken < 3 * 2 * 2
    assert taken == len(ITEMS)
    assert sorted(begun) == ITEMS


def test_large_results_are_kept_in_small_numbers(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_are_worth_starting", lambda first, rest, done, n: done == 2)
    pool.late = False
    begun = []
    large = workers.PARCEL_BYTES // 2  # so two go into a parcel
    for taken, _ in enumerate(workers.in_processes(begun.append, range(400), 2, size=lambda result: large), start=1):
        assert len(begun) - taken < 2 * 2 * workers.PARCELS
    assert sorted(begun) == list(range(400))


def test_kin_are_done_by_one_process(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PARCELS", 1)
    monkeypatch.setattr(workers, "TOGETHER", 3)
    families = [*"aaaabcccccdef"]
    done = list(workers.in_processes(str.upper, families, 2, kin=lambda one, other: one == other))
    assert done == [*"AAAABCCCCCDEF"]
    parcels = [list(parcel) for parcel in workers._parcels(families, 3, lambda one, other: one == other)]
    assert parcels == [[*"aaaa"], [*"bccccc"], [*"def"]]


@pytest.mark.parametrize(
    ("first", "each", "n", "worth"),
    [
        (0.0, 0.001, 1000, False),  # a second's work
        (0.0, 0.001, 2000, True),
        (2.0, 0.1, 50, False),  # others would have to load the body model too
        (2.0, 0.1, 60, True),
    ],
)
def test_other_processes_are_started_when_twice_what_that_takes_is_left_to_do(
    first: float, each: float, n: int, worth: bool
) -> None:
    assert not workers._are_worth_starting(first, 0.0, 1, n)  # the first says nothing about the others
    assert workers._are_worth_starting(first, 2 * each, 3, n) == worth


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_of_the_job_comes_through(
    n_workers: int, read_by_others: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    with pytest.raises(ValueError, match="item 30"):
        for item in workers.in_processes(spoiled, ITEMS, n_workers):
            taken.append(item)  # noqa: PERF402 - what came before the error
    assert taken == ITEMS[: len(taken)]


def test_who_takes_no_more_results_leaves_no_process_at_work(pool: Pool) -> None:
    results: Iterator[Any] = workers.in_processes(who, ITEMS, 2)
    next(results)
    results.close()
    assert pool.killed


def is_alive(process: str) -> bool:
    """Whether it still does something: in a container, nobody may ever ask for what became of it."""
    try:
        return "State:\tZ" not in Path("/proc", process, "status").read_text()
    except FileNotFoundError:
        return False


def test_other_processes_end_soon_after_this_one_was_killed(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pipeline import processes as workers

workers.PATIENCE, workers._help = 0, lambda job, window: False
workers._is_there = lambda ready: ready.result() == []
for child in workers.in_processes(lambda item: os.getpid(), range(40), 2):
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with (tmp_path / "told").open("w") as told:  # a pipe would be held open by those that are left
        subprocess.run([sys.executable, "-c", code], stdout=told, check=False)
    child = (tmp_path / "told").read_text().strip()
    deadline = time.monotonic() + 30
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(child)
