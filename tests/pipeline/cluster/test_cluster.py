"""A scheduler and two workers, as processes: the same bytes as one machine, also when some of them are killed."""

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
from types import ModuleType
from typing import Any

import pytest

import cache
from pipeline import cluster, detect
from pipeline.cluster import Needs
from pipeline.detect.plan import plan_detection
from pipeline.detect.run import Machine, detect_planned
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import streams
from pipeline.features.extract import extract, extract_together
from pipeline.features.parallel import Share
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.crops import Crops

ROOT = Path(__file__).parents[3]
PENN = "penn_action/train"
ITEMS = list(range(40))
QUICK = {  # no process waits long for one that is dead
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
    """A scheduler, and as many workers as a test needs. All of them are killed at the end."""

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
        """Go on when there are n workers, and no others."""
        for name in [name for name, process in self.workers.items() if process.poll() is not None]:
            del self.workers[name]
        while len(self.workers) > n:
            self.kill(next(iter(self.workers)))
        while len(self.workers) < n:
            self.add()
        self.await_workers(n)

    def await_workers(self, n: int) -> None:
        with cluster.client_at(self.address) as client:
            await_that(lambda: len(client.nthreads()) == n)

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
    monkeypatch.setattr(cluster, "PATIENCE", 20.0)


# -------------------------------------------------------------------------------------------------- map, in order


def test_results_come_in_the_order_of_the_items_from_both_workers(
    two: Cluster, jobs: ModuleType, tmp_path: Path
) -> None:
    job = jobs.Doubled(tmp_path, seconds=0.01)
    assert list(cluster.map_on_workers(two.address, job, ITEMS, [])) == [2 * item for item in ITEMS]
    assert {process for process, _ in jobs.logged(tmp_path)} == {process.pid for process in two.workers.values()}
    assert sorted(int(item) for _, item in jobs.logged(tmp_path)) == ITEMS


def test_an_error_of_the_job_comes_as_it_is(two: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    taken = []
    with pytest.raises(LookupError, match=r"^'?item 30'?$"):
        for result in cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, spoiled=30), ITEMS, []):
            taken.append(result)  # noqa: PERF402 - what came before the error
    assert taken == [2 * item for item in ITEMS[: len(taken)]]


def test_a_bounded_number_of_items_is_given_out_before_the_first_is_taken(
    two: Cluster, jobs: ModuleType, tmp_path: Path
) -> None:
    results = cluster.map_on_workers(two.address, jobs.Doubled(tmp_path), list(range(200)), [])
    next(results)
    await_that(lambda: len(jobs.logged(tmp_path)) == 8)  # four batches for each worker, of one item: their size is new
    time.sleep(0.2)
    assert len(jobs.logged(tmp_path)) == 8
    for taken, _ in enumerate(results, start=2):
        assert len(jobs.logged(tmp_path)) <= taken + 8 * 8
    assert taken == 200


def test_a_group_is_done_by_one_worker(two: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    job = jobs.Doubled(tmp_path)
    results = cluster.map_on_workers(two.address, job, ITEMS, [], same_group=lambda a, b: a // 10 == b // 10)
    assert len(list(results)) == 40
    by_group = {int(item) // 10: set[int]() for _, item in jobs.logged(tmp_path)}
    for process, item in jobs.logged(tmp_path):
        by_group[int(item) // 10].add(process)
    assert {len(processes) for processes in by_group.values()} == {1}


def test_ctrl_c_cancels_what_is_left(two: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    def press() -> None:
        await_that(lambda: len(jobs.logged(tmp_path)) > 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        list(cluster.map_on_workers(two.address, jobs.Doubled(tmp_path, seconds=0.2), ITEMS, []))
    time.sleep(0.5)
    n_begun = len(jobs.logged(tmp_path))
    time.sleep(0.5)
    assert len(jobs.logged(tmp_path)) == n_begun < len(ITEMS) / 2


@pytest.mark.slow
def test_items_at_which_several_workers_die_are_given_up(running: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    running.have(4)
    with pytest.raises(PipelineError, match="several workers died one after the other at the same task"):
        list(cluster.map_on_workers(running.address, jobs.Doubled(tmp_path, deadly=0), ITEMS[:1], []))


# ------------------------------------------------------------------------------------------------------- detection


def test_detection_gives_the_same_files_as_on_one_machine(two: Cluster, embedded: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "raw")
    next(raw.rglob("*.mp4")).with_name("broken.mp4").write_bytes(b"none")
    found = {}
    devices = ("cpu", "cpu")
    for name, options in (("alone", {}), ("devices", {}), ("cluster", {"scheduler": two.address})):
        plan = plan_detection(raw, tmp_path / name, detect.get("demo"))
        machine = Machine(workers=1, part=10, devices=devices if name == "devices" else ())
        report = detect_planned(plan, machine, **options)
        assert [Path(clip).name for clip in report.problems] == ["broken.mp4"]
        files = (path for path in sorted((tmp_path / name).rglob("*.mp4.json")) if path.is_file())
        found[name] = report.frames, {path.relative_to(tmp_path / name): path.read_bytes() for path in files}
    assert found["cluster"] == found["alone"] == found["devices"]
    assert found["alone"][0] > 0


# ------------------------------------------------------------------------------------------------------ conversion


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


def test_an_extraction_that_loses_a_worker_gives_the_same_bytes_as_on_one_machine(
    two: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 9)
    spec = StreamSpec("means", jobs.Means(seconds=0.02), resources=Resources(workers=1))
    reported: list[tuple[int, int]] = []

    def kill_one(done: int, total: int, message: str = "") -> None:
        reported.append((done, total))
        if done and len(two.workers) == 2:
            two.kill(next(iter(two.workers)))

    for root in (tmp_path / "alone", tmp_path / "cluster"):
        into.convert(root, raw)
    alone = extract(plan_extraction(tmp_path / "alone", PENN, spec))
    done = extract(plan_extraction(tmp_path / "cluster", PENN, spec), scheduler=two.address, progress=kill_one)
    assert len(two.workers) == 1
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")
    assert (done.computed, done.carried, done.problems) == (alone.computed, 0, {})
    assert reported[-1] == (alone.computed, alone.computed)
    assert plan_extraction(tmp_path / "cluster", PENN, spec).up_to_date


def test_streams_of_every_kind_together_give_the_same_bytes_as_one_after_the_other_here(
    two: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 3)
    resources = Resources(workers=1)
    jittered = jobs.Means(crop=cache.CropPolicy(jitter=cache.Jitter(copy=1)))
    made = {"means": jobs.Means(), "means.j1": jittered, "crops": Crops()}
    made |= {kind: streams.get(kind) for kind in ("homography", "pose_2d")}
    specs = [StreamSpec(name, stream, resources=resources) for name, stream in made.items()]
    for root in (tmp_path / "alone", tmp_path / "cluster"):
        into.convert(root, raw)
    for spec in specs:
        extract(plan_extraction(tmp_path / "alone", PENN, spec))
    plans = [plan_extraction(tmp_path / "cluster", PENN, spec) for spec in specs]
    done = extract_together(plans, scheduler=two.address)
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")
    assert {one.computed for one in done} == {48}
    assert {one.meter.frames for one in done[:4]} == {48}  # decoded once for all


def test_rows_that_a_stream_has_already_are_carried_over_by_workers(
    two: Cluster, jobs: Any, embedded: Any, into: Any, tmp_path: Path, small_shards: None
) -> None:
    raw = many_videos(embedded, tmp_path / "raw", 3)
    spec = StreamSpec("means", jobs.Means(), resources=Resources(workers=1))
    for root in (tmp_path / "alone", tmp_path / "cluster"):
        into.convert(root, raw)
        extract(plan_extraction(root, PENN, spec))
    (raw / "labels/0001.mat").write_bytes((raw / "labels/0003.mat").read_bytes())  # other boxes: its rows come anew
    for root, scheduler in ((tmp_path / "alone", None), (tmp_path / "cluster", two.address)):
        into.convert(root, raw)
        done = extract(plan_extraction(root, PENN, spec), scheduler=scheduler)
        assert done.computed > 0
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")


def test_a_worker_that_would_compute_otherwise_than_the_first_is_refused(jobs: Any, tmp_path: Path) -> None:
    share = Share(tmp_path, PENN, "0", (StreamSpec("means", jobs.Means()),), (None,))
    (agreed,) = share.provenance()
    with pytest.raises(PipelineError, match="arithmetic was fp8, is means"):
        share.extract([{**agreed, "arithmetic": "fp8"}], [[0]], lambda: None)


def test_results_come_as_they_are_completed_and_a_task_that_raises_is_tried_once_more(
    two: Cluster, jobs: ModuleType, tmp_path: Path
) -> None:
    with cluster.connected(two.address, []) as workers:
        results = list(workers.as_completed(jobs.Interruptible(tmp_path, seconds=0.02), range(12)))
        assert sorted(results) == [2 * item for item in range(12)]
        assert {process for process, _ in jobs.logged(tmp_path)} == {one.pid for one in two.workers.values()}
        with pytest.raises(LookupError, match="item 14"):
            list(workers.as_completed(jobs.Interruptible(tmp_path, spoiled=14), range(12, 24)))
    assert [line for _, line in jobs.logged(tmp_path)].count("14") == 2


def test_tasks_whose_results_are_not_taken_end_on_the_workers(two: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    with cluster.connected(two.address, []) as workers:
        results = workers.as_completed(jobs.Interruptible(tmp_path, seconds=0.3), range(12))
        next(results)
        results.close()
        time.sleep(0.5)
        n_begun = len(jobs.logged(tmp_path))
        time.sleep(0.5)
        assert len(jobs.logged(tmp_path)) == n_begun < 12


@pytest.mark.slow
def test_where_workers_own_gpus_only_they_extract(running: Cluster, jobs: ModuleType, tmp_path: Path) -> None:
    running.have(1)
    owner = running.add("--resources", "GPU=1")
    running.await_workers(2)
    try:
        with cluster.connected(running.address, []) as workers:
            assert len(list(workers.as_completed(jobs.Interruptible(tmp_path), range(12)))) == 12
        assert {process for process, _ in jobs.logged(tmp_path)} == {running.workers[owner].pid}
    finally:
        running.kill(owner)


# ------------------------------------------------------------------------------------------ what workers must have


@pytest.mark.parametrize(
    ("other", "threads", "message"),
    [
        ({}, 1, ""),
        ({}, 8, "expected 1 thread in each worker, found 8"),
        ({"versions": (("numpy", "1.26.0"),)}, 1, "expected numpy 1.26.0, as here, found 2."),
        ({"versions": (("lab-recordings", "1.0"),)}, 1, "expected lab-recordings 1.0, as here, found none"),
        ({"shared": (Path("nowhere/raw"),)}, 1, "nowhere/raw: not found. It must be shared"),
    ],
)
def test_what_a_worker_lacks_is_reported(other: dict[str, Any], threads: int, message: str) -> None:
    problem = replace(Needs.here([Path(__file__)]), **other).problem(threads)
    assert (message in problem) if message else problem == ""


def test_a_worker_that_does_not_see_the_raw_folder_is_refused_before_anything_is_read(
    two: Cluster, jobs: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=r"Dask worker at tcp://.*/raw: not found"):
        list(cluster.map_on_workers(two.address, jobs.Doubled(tmp_path), ITEMS, [tmp_path / "raw"]))
    assert jobs.logged(tmp_path) == []


# ----------------------------------------------------------------------------------------- whether there is a cluster


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:9", PipelineError, r"tcp://127.0.0.1:9: no Dask scheduler answers there.*docs/cluster.md"),
        ("cluster", ConfigError, "expected tcp://HOST:PORT"),
        ("http://host:8786", ConfigError, "expected tcp://HOST:PORT"),
        ("tcp://host:port", ConfigError, "expected tcp://HOST:PORT"),
        ("nowhere/scheduler.json", PipelineError, "scheduler.json: expected the file that `dask scheduler"),
    ],
)
def test_an_address_at_which_there_is_no_scheduler(
    address: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    with pytest.raises(error, match=message), cluster.client_at(address):
        pass


def test_a_cluster_without_workers(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    running.have(0)
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    with pytest.raises(PipelineError, match="has had no worker for 2 s"):
        list(cluster.map_on_workers(running.address, str, ITEMS, []))


@pytest.mark.slow
def test_a_scheduler_that_goes_away_half_way(jobs: ModuleType, on_path: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        short = Cluster(tmp_path, on_path)
        stack.callback(short.end)
        short.have(1)
        results = cluster.map_on_workers(short.address, jobs.Doubled(tmp_path, seconds=0.1), ITEMS, [])
        next(results)
        short.scheduler.send_signal(signal.SIGKILL)
        with pytest.raises(PipelineError, match="the Dask scheduler went away during the work"):
            list(results)


def test_without_the_extra_the_error_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'vibe-pipeline\[cluster\]'"), cluster.client_at("tcp://host:1"):
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
