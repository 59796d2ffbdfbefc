"""kill -9 at any point, and started again: the same arrays and manifests, to the byte, as an
undisturbed run.
"""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_equal

import cache
from cache.write.staged import unpack
from pipeline.steps.conversion import convert

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[4]

# What a killed process runs. It dies by SIGKILL at its n-th fsync: each shard, journal line and
# commit has some. Shards hold 8 rows, so that there are many.
DRIVER = """
import os, signal, sys
from pathlib import Path
import cache.write.split_writer
from pipeline import datasets, table
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.recipe import Recipe

def main(raw, root, kill_at, workers):
    count = 0

    def fsync(fd):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
    cache.write.split_writer.ROWS_PER_SHARD = cache.write.split_writer.ROWS_PER_CHUNK = 8
    if "WATCHED_PENN" in os.environ:  # the fixture `reads`: a run is continued by the same reader's code
        table.OWN[datasets.ENTRY_POINTS]["penn_action"] = "tests.fixtures:WatchedPenn"
    dataset = datasets.get("penn_action")
    convert.convert(plan_conversion(Recipe(dataset, "train", raw, root)), workers=workers)
    return count

if __name__ == "__main__":
    raw, root, kill_at, workers = sys.argv[1:]
    main(Path(raw), Path(root), int(kill_at), int(workers))
"""


@pytest.fixture
def step(penn, tmp_path, monkeypatch):
    """Convert here, and return the number of fsyncs; or in a process of its own, until it is
    killed.
    """
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    for target in (
        "cache.write.split_writer.ROWS_PER_SHARD",
        "cache.write.split_writer.ROWS_PER_CHUNK",
    ):
        monkeypatch.setattr(target, 8)  # what the driver sets; afterwards all is restored
    monkeypatch.setattr(os, "fsync", os.fsync)
    here = runpy.run_path(str(script))["main"]

    def start(root, *, kill_at=0, workers=1):
        if not kill_at:
            return here(penn.raw, root, 0, workers)
        command = [
            sys.executable,
            "-W",
            "error",
            str(script),
            *map(str, (penn.raw, root, kill_at, workers)),
        ]
        watched = {name: value for name, value in os.environ.items() if name == "WATCHED_PENN"}
        environment = {"PYTHONPATH": str(ROOT), **watched}
        # a pipe would be held open by the workers of the killed process
        errors = tmp_path / "stderr.txt"
        with errors.open("w") as stderr:
            ended = subprocess.run(command, cwd=ROOT, env=environment, stderr=stderr)
        assert ended.returncode == -signal.SIGKILL, errors.read_text()
        return -signal.SIGKILL

    return start


def numbers(penn, root, into):
    """All numbers of the split and its streams."""
    if not (root / penn.name / "manifest.json").is_file():
        return None
    split = cache.open(root)[penn.name]
    columns = [*split.columns, *(f"features/{stream}" for stream in split.streams)]
    return [
        (c, track, rows.tobytes())
        for c in columns
        for track, rows in into.rows(root, penn.name, c).items()
    ]


@pytest.mark.promise("equal bytes")
@pytest.mark.parametrize(
    ("updated", "workers", "kills"),
    [
        (False, 1, 2),
        pytest.param(False, 1, 5, marks=pytest.mark.slow),
        pytest.param(False, 2, 2, marks=pytest.mark.slow),
        pytest.param(True, 1, 4, marks=pytest.mark.slow),
    ],
)
def test_after_a_kill_at_any_point_the_next_run_ends_with_the_same_bytes(
    updated, workers, kills, penn, step, tmp_path, into
):
    if updated:  # a cache with features; then one video goes, one loses a picture and one comes
        penn.converted("exact")
        penn.add("0007")
        penn.remove("0005")
        (penn.frames("0003") / "000008.jpg").unlink()
    else:
        penn.root.mkdir()

    def fresh(name):
        return Path(shutil.copytree(penn.root, tmp_path / name))

    calm = fresh("calm")
    old = numbers(penn, calm, into)
    n_syncs = step(calm, workers=workers)
    expected, new = into.tree(calm), numbers(penn, calm, into)
    assert old != new
    seen = []
    for point in np.unique(np.linspace(1, n_syncs, kills).round()).astype(int).tolist():
        root = fresh(f"killed-{point}")
        assert step(root, kill_at=point, workers=workers) == -9
        seen.append(numbers(penn, root, into))
        assert seen[-1] in (old, new), f"a mixture after {point} syncs"
        if (root / "zarr.json").is_file():
            assert cache.verify(root).ok
        step(root, workers=workers)
        assert into.tree(root) == expected, f"other bytes after a kill at sync {point} of {n_syncs}"
        assert cache.verify(root).ok
    assert old in seen  # some kills came before the commit, and some after it
    assert new in seen


def journalled(penn):
    """Videos that a killed conversion has finished."""
    files = (penn.root / penn.name / ".writing/staged").glob("*/shard-*")
    shards = [unpack(file.read_bytes())[0]["shard"] for file in files]
    shards.sort(key=itemgetter("number"))
    return [video["name"] for shard in shards for video in shard["entries"]["videos"]]


def convert_again(penn, reads):
    """The first report of a conversion; `reads` has what it reads."""
    reads.clear()
    reported = []
    convert.convert(penn.plan(), progress=lambda done, total, _="": reported.append((done, total)))
    return reported[0]


@pytest.mark.promise("resumable")
def test_videos_that_a_killed_conversion_had_finished_are_not_read_again(
    penn, step, tmp_path, into, reads
):
    n_syncs = step(tmp_path / "calm")
    assert step(penn.root, kill_at=n_syncs * 2 // 3) == -9
    finished = journalled(penn)
    assert 0 < len(finished) < 6
    assert convert_again(penn, reads) == (len(finished), 6)
    assert finished + reads.names == [f"{number:04d}" for number in range(1, 7)]
    assert into.tree(penn.root) == into.tree(tmp_path / "calm")


def test_a_raw_folder_that_changes_after_a_kill_costs_only_the_changed_videos(
    penn, step, tmp_path, into, reads
):
    penn.add(*(f"001{number}" for number in range(10)))
    n_syncs = step(tmp_path / "calm")
    assert step(penn.root, kill_at=n_syncs * 3 // 4) == -9
    finished = journalled(penn)
    _, changed, removed, touched = [name for name in finished if name > "0009"][:4]
    penn.add("0000")
    penn.edit(changed)
    penn.remove(removed)
    os.utime(penn.label(touched), ns=(1, 1))
    assert step(penn.root, kill_at=8) == -9  # once more, after a new video or two
    assert not (penn.root / penn.name / "manifest.json").exists()
    again = {*journalled(penn)[len(finished) :]}
    assert again < {"0000", changed, touched}
    first_report = convert_again(penn, reads)
    every = {file.stem for file in (penn.raw / "labels").glob("*.mat")}
    unchanged = {*finished} - {changed, removed, touched}
    assert {*reads.names} == every - unchanged - again
    assert first_report == (len(unchanged | again), len(every))
    fresh = type(penn)(penn.raw, tmp_path / "fresh", None)
    into.convert(fresh.root, penn.raw)
    for column in fresh.split.columns:
        assert_equal(penn.rows(column), fresh.rows(column))
    accounts = [{one.name: one.account for one in of.split.videos} for of in (penn, fresh)]
    assert accounts[0] == accounts[1]
    assert cache.verify(penn.root).ok
    assert penn.plan().up_to_date
