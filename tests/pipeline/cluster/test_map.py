"""Parts are done on a cluster whose workers come and go."""

import os
import re
import signal
import threading
import time

import pytest

from pipeline.processes import cluster
from tests.pipeline.cluster.conftest import ITEMS, mapped
from tests.raising import pipeline_refuses
from tests.waiting import await_that

pytestmark = pytest.mark.processes

GPU = ("--resources", "GPU=1")
CHANGES = ("found", "lost")


def test_ctrl_c_cancels_what_is_left(two, made_up, tmp_path):
    """Each worker ends the item that it has begun, and begins no other one."""
    press_once(lambda: len(made_up.logged(tmp_path)) == 2)
    with pytest.raises(KeyboardInterrupt):
        list(mapped(two.address, made_up.Doubled(tmp_path, gate=0)))
    await_that(lambda: {*two.states()} <= {"cancelled"})
    (tmp_path / "open").touch()
    await_that(lambda: not two.states())
    assert len(made_up.logged(tmp_path)) == 2


def test_few_results_wait_to_be_taken(two, made_up, tmp_path):
    of_part = 8
    most = 2 * cluster.WAITING * of_part  # of two workers
    results = mapped(two.address, made_up.Doubled(tmp_path), range(20 * most), most=of_part)
    first = next(results)
    time.sleep(0.5)  # in which more would begin
    assert len(made_up.logged(tmp_path)) <= most + of_part
    assert sorted([first, *results]) == [2 * item for item in range(20 * most)]


def press_once(is_time):
    """Press Ctrl-C when something has happened."""

    def press():
        await_that(is_time)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()


# --------------------------------------------------------------------------------------------
# workers come and go


def test_a_result_that_does_not_arrive_is_asked_for_again(running, made_up, tmp_path, monkeypatch):
    """The worker has stopped, and Dask believes that it is there."""
    running.have(1)
    (worker,) = running.workers.values()
    results = mapped(running.address, made_up.Doubled(tmp_path), most=5)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    monkeypatch.setattr(cluster, "ANSWER", 0.2)  # s for a result; connecting had longer
    await_that(lambda: len(made_up.logged(tmp_path)) == 10)
    await_that(lambda: {*running.states()} == {"memory"})  # the second part has ended
    worker.send_signal(signal.SIGSTOP)
    going_on = threading.Timer(1, worker.send_signal, [signal.SIGCONT])
    going_on.start()
    assert sorted(results) == [2 * item for item in ITEMS[5:]]
    going_on.join()


def test_a_scheduler_that_stopped_is_waited_for_as_long_as_for_workers(
    running, made_up, tmp_path, monkeypatch
):
    running.have(1)
    results = mapped(running.address, made_up.Doubled(tmp_path), patience=1)
    assert next(results) == 0
    monkeypatch.setattr(cluster, "ASK_AGAIN", 0.1)
    running.scheduler.send_signal(signal.SIGSTOP)
    try:
        with pipeline_refuses("waited 1 s for an answer of this Dask scheduler"):
            list(results)
    finally:
        running.scheduler.send_signal(signal.SIGCONT)


def test_a_part_that_ends_its_workers_ends_the_work(running, tmp_path):
    running.have(3)
    running.ask(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 1))
    results = mapped(running.address, _die_at_zero, [tmp_path / str(item) for item in range(8)])
    try:
        with pipeline_refuses("2 workers were lost while they ran the same part, the last one tcp"):
            list(results)
    finally:
        running.ask(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    running.await_workers(1)
    assert len((tmp_path / "0").read_text()) == 2


def _die_at_zero(file):
    with file.open("a") as log:
        log.write("x")
    if file.name == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return file.name


def test_ctrl_c_ends_the_wait_for_a_worker(running, made_up, tmp_path):
    running.have(0)
    await_that(lambda: running.ask(lambda dask_scheduler: not dask_scheduler.tasks))
    press_once(lambda: running.ask(lambda dask_scheduler: bool(dask_scheduler.tasks)))
    with pytest.raises(KeyboardInterrupt):
        list(mapped(running.address, made_up.Doubled(tmp_path)))
    await_that(lambda: running.ask(lambda dask_scheduler: not dask_scheduler.tasks))


def test_workers_that_come_late_and_go_are_waited_for(
    running, made_up, tmp_path, monkeypatch, capsys
):
    """A cluster that adapts sees that a worker is needed, before there is one."""
    running.have(0)
    monkeypatch.setattr(cluster, "SLOW", 0.1)

    def come_and_go():
        try:
            await_that(
                lambda: running.ask(lambda dask_scheduler: dask_scheduler.adaptive_target()) > 0
            )
            # s for a result; connecting had longer
            monkeypatch.setattr(cluster, "ANSWER", 0.5)
            name = running.add()
            await_that(lambda: len(made_up.logged(tmp_path)) > 5)
            running.kill(name)
        finally:  # or the items would wait for ever
            (tmp_path / "open").touch()
            running.add()

    coming = threading.Thread(target=come_and_go)
    coming.start()
    results = list(mapped(running.address, made_up.Doubled(tmp_path, gate=12)))
    coming.join()
    assert sorted(results) == [2 * item for item in ITEMS]
    assert len(running.workers) == 1
    shown = capsys.readouterr().err
    assert re.search(r": waiting for a Dask worker, \d+ s of at most 10 min", shown)
    found, lost = (re.findall(rf": 1 worker {change}: (tcp://\S+) \(", shown) for change in CHANGES)
    assert lost
    assert lost == found[:-1]


def test_a_scheduler_that_goes_away_is_named(running, made_up, tmp_path, capfd):
    """And started again at its address, it does the work."""
    running.have(1)
    results = mapped(running.address, made_up.Doubled(tmp_path, gate=len(ITEMS) / 2))
    assert next(results) == 0
    running.scheduler.kill()
    running.scheduler.wait()
    try:
        with pipeline_refuses(r"scheduler went away or was restarted.*same command again"):
            list(results)
    finally:
        (tmp_path / "open").touch()
        running.start_scheduler(running.address.rpartition(":")[2])
        running.have(0)
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith(f"{running.address}: ") for line in lines), "nothing from Dask"
    running.have(1)
    results = mapped(running.address, made_up.Doubled(tmp_path))
    assert sorted(results) == [2 * item for item in ITEMS]


@pytest.mark.slow
@pytest.mark.parametrize(("n_workers", "options"), [(1, GPU), (2, ())])
def test_five_losses_each_at_another_part_cost_only_what_was_running(
    running, tmp_path, n_workers, options
):
    """Dask counts a loss also against the part that waited on the worker."""
    running.have(0)
    for _ in range(n_workers):
        running.add(*options)

    parts = [tmp_path / f"part-{i}" for i in range(12)]
    begun = {part: part.with_suffix(".begun") for part in parts}

    def take_away():
        left = list(parts)
        for _ in range(5):
            await_that(lambda: any(_content(begun[part]) for part in left))
            await_that(lambda: running.ask(_n_unfinished) > n_workers)  # one waits
            lost = next(part for part in left if _content(begun[part]))
            left.remove(lost)
            number = int(_content(begun[lost]))
            (name,) = [name for name, worker in running.workers.items() if worker.pid == number]
            running.kill(name)
            running.add(*options)
        (tmp_path / "open").touch()

    taking = threading.Thread(target=take_away)
    taking.start()
    results = mapped(running.address, _hang_at_first, parts, most=1)
    assert sorted(results) == sorted(part.name for part in parts)
    taking.join()


def _content(file):
    return file.read_text() if file.exists() else ""


def _n_unfinished(dask_scheduler):
    states = [task.state for task in dask_scheduler.tasks.values()]
    return len(states) - states.count("memory")


def _hang_at_first(file):
    """The first time, the part goes on until its worker is killed, or all losses are over."""
    begun = file.with_suffix(".begun")
    if not begun.exists():
        begun.write_text(str(os.getpid()))
        await_that(file.with_name("open").exists)
    return file.name
