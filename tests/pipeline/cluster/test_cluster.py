"""A scheduler and two workers, as processes: the same bytes as one machine, whoever dies; told when it cannot be."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import cache
from pipeline import cluster
from pipeline.cluster import connection, needs, shards
from pipeline.cluster.extraction import Share, made_by_worker
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract as features
from pipeline.features.engine import Resources
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.crops import Crops

ROOT = Path(__file__).parents[3]
PENN = "penn_action/train"
ITEMS = list(range(40))
QUICK = {  # nobody waits long for somebody who is dead
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}


@pytest.fixture(scope="session")
def on_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `cluster_jobs` alone, for this process and for workers."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "cluster_jobs.py").write_bytes((ROOT / "tests/pipeline/cluster/cluster_jobs.py").read_bytes())
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def jobs(on_path: Path) -> ModuleType:
    import cluster_jobs  # type: ignore[import-not-found]

    module: ModuleType = cluster_jobs
    return module


class Cluster:
    """A scheduler, and as many workers as a test wants. All of them die at the end."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self._path = folder, path
        self._names = itertools.count()
        self.file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)
        )
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    @functools.cached_property
    def address(self) -> str:
        await_that(self.file.exists)
        address: str = json.loads(self.file.read_text())["address"]
        return address

    def have(self, n: int) -> None:
        """Go on when there are n workers, and nobody else."""
        for name in [name for name, process in self.workers.items() if process.poll() is not None]:
            del self.workers[name]
        while len(self.workers) > n:
            self.kill(next(iter(self.workers)))
        while len(self.workers) < n:
            self.add()
        self.await_workers(n)

    def await_workers(self, n: int) -> None:
        with connection.connected(self.address) as client:
            await_that(lambda: len(connection.workers_of(client)) == n)

    def add(self, *options: str) -> str:
        name = f"worker-{next(self._names)}"
        common = ["--no-nanny", "--no-dashboard", "--memory-limit", "0", "--death-timeout", "20", "--name", name]
        threads = () if "--nthreads" in options else ("--nthreads", "1")
        place = ["--local-directory", str(self.folder)]
        self.workers[name] = self._start("worker", self.address, *common, *threads, *place, *options)
        return name

    def kill(self, name: str) -> None:
        process = self.workers.pop(name)
        process.kill()
        process.wait()

    def kill_process(self, pid: int) -> None:
        self.kill(next(name for name, process in self.workers.items() if process.pid == pid))

    def end(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", what, *options]
        environment = {**os.environ, **QUICK, "PYTHONPATH": os.pathsep.join([str(ROOT), str(self._path)])}
        log = (self.folder / f"{what}.log").open("ab")
        with log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)


def await_that(true: Callable[[], bool], seconds: float = 30.0) -> None:
    latest = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < latest, "it never came true"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, on_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"), on_path)
    yield started
    started.end()


@pytest.fixture
def two(running: Cluster) -> Cluster:
    """Two workers that have nothing to do."""
    running.have(2)
    return running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 20.0)
    for module in (connection, shards):
        monkeypatch.setattr(module, "LOOK_EVERY", 0.1)


@pytest.fixture(autouse=True)
def one_package_is_compared(monkeypatch: pytest.MonkeyPatch, on_path: Path) -> None:
    """All of this tree would be, and somebody may be editing it."""
    monkeypatch.setattr(needs, "_packages", lambda plug_ins: ["cluster_jobs"])


@pytest.fixture
def here() -> cluster.Needs:
    return cluster.Needs.here([])


# -------------------------------------------------------------------------------------------------- map, in order


def test_results_come_in_the_order_of_the_items_from_both_workers(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    job = jobs.Doubled(tmp_path, seconds=0.01)
    assert list(cluster.map_on_workers(two.address, job, ITEMS, here)) == [2 * item for item in ITEMS]
    assert {process for process, _ in jobs.logged(tmp_path)} == {process.pid for process in two.workers.values()}
    assert sorted(int(item) for _, item in jobs.logged(tmp_path)) == ITEMS


def test_what_a_killed_worker_had_is_done_again_by_another(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    results = cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, seconds=0.02), ITEMS, here)
    taken = list(itertools.islice(results, 3))
    await_that(lambda: len({process for process, _ in jobs.logged(tmp_path)}) == 2)
    two.kill_process(jobs.logged(tmp_path)[-1][0])
    assert taken + list(results) == [2 * item for item in ITEMS]
    assert len(jobs.logged(tmp_path)) > len(ITEMS)


def test_an_error_of_the_job_comes_as_it_is(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    taken = []
    with pytest.raises(LookupError, match=r"^'?item 30'?$"):
        for result in cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, spoiled=30), ITEMS, here):
            taken.append(result)  # noqa: PERF402 - what came before the error
    assert taken == [2 * item for item in ITEMS[: len(taken)]]


def test_a_bounded_number_of_items_is_given_out_before_the_first_is_taken(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    results = cluster.map_on_workers(two.address, jobs.Doubled(tmp_path), list(range(200)), here)
    next(results)
    await_that(lambda: len(jobs.logged(tmp_path)) == 8)  # four parcels for each worker, of one item: their size is new
    time.sleep(0.2)
    assert len(jobs.logged(tmp_path)) == 8
    for taken, _ in enumerate(results, start=2):
        assert len(jobs.logged(tmp_path)) <= taken + 8 * 8
    assert taken == 200


def test_large_results_are_kept_in_small_numbers(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    job = jobs.Doubled(tmp_path)
    begun = []
    for taken, _ in enumerate(
        cluster.map_on_workers(two.address, job, list(range(100)), here, size=lambda result: 1 << 21), start=1
    ):
        begun.append(len(jobs.logged(tmp_path)) - taken)
    assert max(begun) <= 4 * 2 * 2  # two in a parcel


def test_kin_are_done_by_one_worker(two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path) -> None:
    job = jobs.Doubled(tmp_path)
    assert len(list(cluster.map_on_workers(two.address, job, ITEMS, here, kin=lambda a, b: a // 10 == b // 10))) == 40
    by_family = {int(item) // 10: set[int]() for _, item in jobs.logged(tmp_path)}
    for process, item in jobs.logged(tmp_path):
        by_family[int(item) // 10].add(process)
    assert {len(processes) for processes in by_family.values()} == {1}


def test_ctrl_c_takes_back_what_is_out(two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path) -> None:
    def press() -> None:
        await_that(lambda: len(jobs.logged(tmp_path)) > 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        list(cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, seconds=0.2), ITEMS, here))
    time.sleep(0.5)
    n_begun = len(jobs.logged(tmp_path))
    time.sleep(0.5)
    assert len(jobs.logged(tmp_path)) == n_begun < len(ITEMS) / 2


def test_who_takes_no_more_results_leaves_nothing_behind(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    results = cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, seconds=0.2), ITEMS, here)
    next(results)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.5)  # what was at work then ends
    n_begun = len(jobs.logged(tmp_path))
    time.sleep(0.5)
    assert len(jobs.logged(tmp_path)) == n_begun <= 6


def test_what_a_worker_lacked_may_be_mended_without_starting_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    wanted = cluster.Needs.here([raw])
    worker = SimpleNamespace(address="tcp://10.0.0.1:1", state=SimpleNamespace(nthreads=1))
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    raw.rmdir()
    with (
        pytest.raises(
            PipelineError, match=r"worker at tcp://10.0.0.1:1, .*: expected a folder, as here, found nothing"
        ),
        wanted.fulfilled(),
    ):
        pass
    raw.mkdir()
    with wanted.fulfilled():
        assert Path.cwd() == wanted.folder


@pytest.mark.slow
def test_items_that_cost_several_workers_their_lives_are_given_up(
    running: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    running.have(4)
    with pytest.raises(PipelineError, match="several workers died one after the other while they read the same videos"):
        list(cluster.map_on_workers(running.address, jobs.Doubled(tmp_path, deadly=0), ITEMS[:1], here))


# ------------------------------------------------------------------------------------------------------ conversion


def test_a_conversion_gives_the_same_bytes_as_on_one_machine(
    two: Cluster, embedded: Any, into: Any, tmp_path: Path
) -> None:
    raw = embedded.raw("insta_variety")
    for name, options in (("alone", {}), ("cluster", {"scheduler": two.address})):
        into.convert(tmp_path / name, raw, "insta_variety", **options)
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone") != {}


def test_a_conversion_of_a_relative_folder_names_it_as_on_one_machine(
    two: Cluster, embedded: Any, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.copy("penn_action", tmp_path / "raw")
    (tmp_path / "raw/labels/0003.mat").write_bytes(b"none")  # its account names the file
    monkeypatch.chdir(tmp_path)
    for name, options in (("alone", {}), ("cluster", {"scheduler": str(two.file)})):
        done = into.convert(Path(name), Path("raw"), **options)
        assert "raw/labels/0003.mat" in done.rejected[0].message
        assert str(tmp_path) not in done.rejected[0].message
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")


def test_a_conversion_that_loses_a_worker_half_way_gives_the_same_bytes(
    two: Cluster, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 16)
    into.convert(tmp_path / "alone", raw)

    def kill_one(done: int, total: int, message: str = "") -> None:
        if done == total // 4 and len(two.workers) == 2:
            two.kill(next(iter(two.workers)))

    into.convert(tmp_path / "cluster", raw, scheduler=two.address, progress=kill_one)
    assert len(two.workers) == 1
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")


def many_videos(embedded: Any, folder: Path, n: int) -> Path:
    """Penn Action with one of its videos n times in train."""
    raw: Path = embedded.copy("penn_action", folder)
    for i in range(n):
        name = f"{100 + i:04d}"
        (raw / f"labels/{name}.mat").write_bytes((raw / "labels/0001.mat").read_bytes())
        (raw / f"frames/{name}").mkdir()
        for picture in (raw / "frames/0001").iterdir():
            os.link(picture, raw / f"frames/{name}" / picture.name)
    return raw


# ------------------------------------------------------------------------------------------------------ extraction


SHARDS = dict.fromkeys(range(12), 16)  # shard -> rows


def extract(scheduler: str, job: Any, needs: cluster.Needs, told: list[Any] | None = None) -> Iterator[Any]:
    def progress(done: int, total: int, message: str = "") -> None:
        if told is not None:
            told.append((done, total, message))

    return cluster.extract_shards(scheduler, job, SHARDS, needs, progress=progress)


def staged(said: Iterator[Any]) -> list[int]:
    """The shards that were said to be in the cache, in order of their numbers."""
    return sorted(told.staged.shard for told in said if told.staged is not None)


def begun(jobs: ModuleType, folder: Path) -> list[int]:
    """Every shard that a worker began with."""
    return sorted(int(line.split()[0]) for _, line in jobs.logged(folder))


def test_two_workers_extract_each_shard_once(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    told: list[Any] = []
    said = list(extract(two.address, jobs.Extraction(tmp_path, seconds=0.1), here, told))
    assert staged(iter(said)) == begun(jobs, tmp_path) == list(SHARDS)
    assert {process for process, _ in jobs.logged(tmp_path)} == {process.pid for process in two.workers.values()}
    assert told[-1][:2] == (12 * 16, 12 * 16)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    did = [one.did for one in said if one.ended]
    assert sorted(shard for _, run in did for shard in run) == list(SHARDS)
    assert {agreed for agreed, _ in did} == {said[0].agreed}  # one worker was asked before all others


def test_what_a_killed_worker_was_at_is_extracted_again_and_nothing_else(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    said = extract(two.address, jobs.Extraction(tmp_path, seconds=0.2), here)
    first = next(told for told in said if told.staged is not None)
    shard = first.staged.shard
    two.kill_process(next(process for process, line in jobs.logged(tmp_path) if line.startswith(f"{shard} ")))
    assert staged(itertools.chain([first], said)) == list(SHARDS)
    twice = [shard for shard in SHARDS if begun(jobs, tmp_path).count(shard) > 1]
    assert len(twice) <= 1
    assert shard not in twice


def test_a_run_that_failed_is_tried_by_the_other_worker_and_then_raised(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    said = extract(two.address, jobs.Extraction(tmp_path, spoiled=4, seconds=0.02), here)
    with pytest.raises(LookupError, match="shard 4"):
        list(said)
    at = [process for process, line in jobs.logged(tmp_path) if line.startswith("4 ")]
    assert len(at) == len(set(at)) == 2


def test_a_shard_that_costs_several_workers_their_lives_is_given_up(
    running: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    running.have(4)
    with pytest.raises(PipelineError, match="3 Dask workers died, one after the other, at shard 2 or soon after"):
        list(extract(running.address, jobs.Extraction(tmp_path, deadly=2), here))


def test_who_wants_no_more_shards_ends_the_extraction_on_the_workers(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    said = extract(two.address, jobs.Extraction(tmp_path, seconds=0.3), here)
    next(told for told in said if told.staged is not None)
    said.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    n_begun = len(begun(jobs, tmp_path))
    time.sleep(0.5)
    assert len(begun(jobs, tmp_path)) == n_begun < len(SHARDS)


def test_a_worker_that_comes_later_takes_its_share(
    running: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    running.have(1)
    said = extract(running.address, jobs.Extraction(tmp_path, seconds=0.3), here)
    first = next(told for told in said if told.staged is not None)
    running.add()
    assert staged(itertools.chain([first], said)) == list(SHARDS)
    assert len({process for process, _ in jobs.logged(tmp_path)}) == 2


@pytest.mark.slow
def test_where_workers_own_gpus_only_they_extract(
    running: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    running.have(1)
    owner = running.add("--resources", "GPU=1")
    running.await_workers(2)
    try:
        assert staged(extract(running.address, jobs.Extraction(tmp_path), here)) == list(SHARDS)
        assert {process for process, _ in jobs.logged(tmp_path)} == {running.workers[owner].pid}
    finally:
        running.kill(owner)


@pytest.mark.parametrize(("kind", "killed"), [("means", False), ("means", True), ("crops", False)])
def test_an_extraction_gives_the_same_bytes_as_on_one_machine(
    kind: str, killed: bool, two: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 9)
    stream = Crops() if kind == "crops" else jobs.Means(seconds=0.02)
    spec = StreamSpec(kind, stream, resources=Resources(workers=1))
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, message: str = "") -> None:
        told.append((done, total))
        if killed and done and len(two.workers) == 2:
            two.kill(next(iter(two.workers)))

    for root in (tmp_path / "alone", tmp_path / "cluster"):
        into.convert(root, raw)
    alone = features.extract(features.plan_extraction(tmp_path / "alone", PENN, spec))
    plan = features.plan_extraction(tmp_path / "cluster", PENN, spec)
    done = features.extract(plan, scheduler=two.address, progress=progress)
    assert len(two.workers) == 1 + (not killed)
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")
    assert (done.computed, done.carried, done.problems) == (alone.computed, 0, {})
    assert told[-1] == (alone.computed, alone.computed)
    assert killed or done.meter.rows == alone.computed
    assert features.plan_extraction(tmp_path / "cluster", PENN, spec).up_to_date


def test_rows_that_a_stream_has_already_are_carried_over_by_workers(
    two: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 3)
    spec = StreamSpec("means", jobs.Means(), resources=Resources(workers=1))
    for root in (tmp_path / "alone", tmp_path / "cluster"):
        into.convert(root, raw)
        features.extract(features.plan_extraction(root, PENN, spec))
    (raw / "labels/0001.mat").write_bytes((raw / "labels/0003.mat").read_bytes())  # other boxes: its rows come anew
    for root, scheduler in ((tmp_path / "alone", None), (tmp_path / "cluster", two.address)):
        into.convert(root, raw)
        done = features.extract(features.plan_extraction(root, PENN, spec), scheduler=scheduler)
        assert done.computed > 0
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")


def test_a_worker_says_where_numbers_come_from(
    running: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path
) -> None:
    running.have(1)
    into.convert(tmp_path / "cache", embedded.raw("penn_action"))
    split, spec = cache.open(tmp_path / "cache")[PENN], StreamSpec("means", jobs.Means())
    assert made_by_worker(running.address, split, spec) == {"arithmetic": "means"}


def test_a_worker_that_would_compute_otherwise_than_the_first_is_told_of(jobs: ModuleType, tmp_path: Path) -> None:
    spec = StreamSpec("means", jobs.Means())
    share = Share(cluster.SplitSeen(tmp_path, PENN, "0"), spec, None)
    share._require_the_same({**share.agree(), "device": "another one"})
    said = "would compute otherwise than the others: arithmetic was fp8, is means. Extract with workers of one kind"
    with pytest.raises(PipelineError, match=said):
        share._require_the_same({**share.agree(), "arithmetic": "fp8"})


def test_runs_get_shorter_towards_the_end() -> None:
    nobody: Any = None
    coordinator = shards._Coordinator(nobody, nobody, nobody, nobody, nobody)
    coordinator._left.extend(range(500))
    lengths = []
    while run := coordinator._next("a", 4):
        lengths.append(len(run.shards))
    assert sum(lengths) == 500
    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (shards.MOST_SHARDS, 1)


# ------------------------------------------------------------------------------------------ what workers must have


def test_a_worker_that_does_not_see_the_raw_folder_is_told_of_before_anything_is_read(
    two: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    unseen = replace(here, paths=((tmp_path / "raw", "a folder"),))
    with pytest.raises(PipelineError, match=r"raw: expected a folder, as here, found nothing. It must be shared"):
        list(cluster.map_on_workers(two.address, jobs.Doubled(tmp_path), ITEMS, unseen))
    assert jobs.logged(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"versions": (("numpy", "1.26.0"),)}, "expected numpy 1.26.0, as here, found 2."),
        ({"code": (("pipeline", "0" * 64),)}, "expected the package 'pipeline' as it is here (sha256 000000000000)"),
        ({"code": (("lab_recordings", "0" * 64),)}, "found not there. Install the same there"),
        ({"folder": Path("/nowhere"), "paths": ((Path("data/raw"), "a folder"),)}, "Name it by its absolute path"),
        ({"paths": ((Path(__file__), "a file of 1 bytes"),)}, "expected a file of 1 bytes, as here, found a file of"),
        ({"split": cluster.SplitSeen("/nowhere", PENN, "0")}, "the cache must be shared, under the same path or URL"),
    ],
)
def test_a_worker_that_differs_is_told_how(here: cluster.Needs, other: dict[str, Any], said: str) -> None:
    assert said in replace(here, **other).problem(threads=1)


def test_a_worker_with_several_threads_is_refused(here: cluster.Needs) -> None:
    assert here.problem(threads=1) == ""
    assert "expected 1 thread in each worker, found 8" in here.problem(threads=8)


def test_a_worker_that_sees_another_state_of_the_cache_is_refused(
    here: cluster.Needs, embedded: Any, into: Any, tmp_path: Path
) -> None:
    into.convert(tmp_path / "cache", embedded.raw("penn_action"))
    split = cache.open(tmp_path / "cache")[PENN]
    seen = cluster.SplitSeen(split.root, PENN, split.manifest["digest"])
    assert replace(here, split=seen).problem(threads=1) == ""
    assert "in another state than here" in replace(here, split=replace(seen, digest="0")).problem(threads=1)


def test_a_worker_without_this_package_is_told_of(
    running: Cluster, jobs: ModuleType, here: cluster.Needs, tmp_path: Path
) -> None:
    running.have(1)
    (tmp_path / "without.py").write_text("import sys\nsys.modules['pipeline'] = None\n")
    stranger = running.add("--preload", str(tmp_path / "without.py"))
    running.await_workers(2)
    try:
        with pytest.raises(PipelineError, match="Install this package there, as here"):
            list(cluster.map_on_workers(running.address, jobs.Doubled(tmp_path), ITEMS, here))
    finally:
        running.kill(stranger)


# ----------------------------------------------------------------------------------------- whether there is a cluster


def test_an_address_at_which_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    with (
        pytest.raises(PipelineError, match=r"tcp://127.0.0.1:9: no Dask scheduler answers there.*docs/cluster.md"),
        connection.connected("127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize("address", ["cluster", "http://host:8786", "tcp://host:port"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="expected tcp://HOST:PORT"), connection.connected(address):
        pass


def test_a_scheduler_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    with (
        pytest.raises(PipelineError, match=r"scheduler.json: expected the file that `dask scheduler"),
        connection.connected(str(tmp_path / "scheduler.json")),
    ):
        pass


def test_a_cluster_without_workers(running: Cluster, here: cluster.Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    running.have(0)
    monkeypatch.setattr(connection, "PATIENCE", 2.0)
    with pytest.raises(PipelineError, match="no worker has come to this Dask scheduler for 2 s"):
        list(cluster.map_on_workers(running.address, str, ITEMS, here))


def test_a_scheduler_that_goes_away_half_way(
    jobs: ModuleType, on_path: Path, here: cluster.Needs, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        short = Cluster(tmp_path, on_path)
        stack.callback(short.end)
        short.have(1)
        results = cluster.map_on_workers(short.address, jobs.Doubled(tmp_path, seconds=0.1), ITEMS, here)
        next(results)
        short.scheduler.send_signal(signal.SIGKILL)
        with pytest.raises(PipelineError, match="the Dask scheduler went away during the work"):
            list(results)


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'vibe-pipeline\[cluster\]'"),
        connection.connected("tcp://127.0.0.1:8786"),
    ):
        pass


def test_nothing_imports_dask_before_a_scheduler_is_named() -> None:
    code = "import sys, pipeline.cluster, pipeline.conversion.convert; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------- the page


def commands_of_the_page(heading: str) -> list[list[str]]:
    """The words of every command below a heading of docs/cluster.md, without those that it does not run by itself."""
    section = re.split(r"^## ", (ROOT / "docs/cluster.md").read_text(), flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading))
    block = next(part for part in text.split("\n\n") if part.startswith("    "))
    joined = block.replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_make_a_cluster_that_converts(
    embedded: Any, into: Any, tmp_path: Path, on_path: Path
) -> None:
    scheduler, worker, convert, extract = commands_of_the_page("Two machines")
    started = []
    try:
        for words, more in ((scheduler, ["--port", "0", "--no-dashboard"]), (worker, ["--no-dashboard"])):
            assert words[0] == ".venv/bin/dask"
            options = [word.replace("/shared", str(tmp_path)) for word in words[1:]]
            options = ["2" if before == "--nworkers" else word for before, word in itertools.pairwise(["", *options])]
            environment = {**os.environ, **QUICK, "PYTHONPATH": os.pathsep.join([str(ROOT), str(on_path)])}
            with (tmp_path / "log").open("ab") as log:
                command = [sys.executable, "-m", "dask", *options, *more]
                started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
        file = str(tmp_path / "scheduler.json")
        for words in (convert, extract):
            assert words[words.index("--scheduler") + 1] == "/shared/scheduler.json"
        into.convert(tmp_path / "alone", embedded.raw("penn_action"))
        into.convert(tmp_path / "cluster", embedded.raw("penn_action"), scheduler=file)
    finally:
        for process in reversed(started):
            process.terminate()  # a nanny ends its workers when it is told to end
        for process in started:
            process.wait(20)
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")
