"""kill -9 at any point, and started again: the same arrays and manifests, to the byte, as an undisturbed run."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.conversion import convert
from pipeline.features.streams.resnet50 import ResNet50

ROOT = Path(__file__).parents[3]

# What a killed process runs. It dies by SIGKILL at its n-th fsync: each shard, journal line and commit has some.
# Shards hold 8 rows, so that there are many; the network is three numbers of a crop, so that torch is not needed.
DRIVER = """
import os, signal, sys
from pathlib import Path
import numpy as np
import cache.write.split_writer
from pipeline import datasets
from pipeline.conversion import convert
from pipeline.features import extract as features
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50

class Network:
    batch_size, lanes = 3, 2
    provenance = {"stand_in": True, "sha256": "0" * 64}

    def adopt(self, memory):
        pass

    def release(self):
        pass

    def __call__(self, crops):
        return crops.reshape(len(crops), -1)[:, ::73][:, :2048].astype(np.float32)

def main(what, raw, root, kill_at, workers):
    count = 0

    def fsync(fd):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
    cache.write.split_writer.ROWS_PER_SHARD = cache.write.split_writer.ROWS_PER_CHUNK = 8
    ResNet50.load = lambda stream, machine, recorded: Network()
    if what == "convert":
        dataset = datasets.get("penn_action")
        convert.convert(convert.plan_conversion(dataset, "train", raw=raw, root=root), workers=workers)
    else:
        spec = StreamSpec(stream=ResNet50(precision="exact"))
        features.extract(plan_extraction(root, "penn_action/train", spec))
    return count

if __name__ == "__main__":
    what, raw, root, kill_at, workers = sys.argv[1:]
    main(what, Path(raw), Path(root), int(kill_at), int(workers))
"""

Run = Callable[..., int]


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Do one step here, and return its number of fsyncs; or in a process of its own, until it is killed."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    for target in ("cache.write.split_writer.ROWS_PER_SHARD", "cache.write.split_writer.ROWS_PER_CHUNK"):
        monkeypatch.setattr(target, 8)  # what the driver sets; afterwards all is restored
    monkeypatch.setattr(ResNet50, "load", ResNet50.load)
    monkeypatch.setattr(os, "fsync", os.fsync)
    here: Callable[..., int] = runpy.run_path(str(script))["main"]

    def start(what: str, raw: Path, root: Path, *, kill_at: int = 0, workers: int = 1) -> int:
        if not kill_at:
            return here(what, raw, root, 0, workers)
        command = [sys.executable, "-W", "error", str(script), what, str(raw), str(root), str(kill_at), str(workers)]
        errors = tmp_path / "stderr.txt"  # a pipe would be held open by the workers of the killed process
        with errors.open("w") as stderr:
            ended = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=stderr)
        assert ended.returncode == -signal.SIGKILL, errors.read_text()
        return -signal.SIGKILL

    return start


def numbers(penn: Any, root: Path, into: Any) -> Any:
    """All numbers of the split and its streams."""
    if not (root / penn.name / "manifest.json").is_file():
        return None
    split = cache.open(root)[penn.name]
    columns = [*split.columns, *(f"features/{stream}" for stream in split.streams)]
    return [(c, track, rows.tobytes()) for c in columns for track, rows in into.rows(root, penn.name, c).items()]


@pytest.mark.parametrize(
    ("what", "updated", "workers", "kills"),
    [
        ("convert", False, 1, 2),
        pytest.param("convert", False, 1, 5, marks=pytest.mark.slow),
        pytest.param("convert", False, 2, 2, marks=pytest.mark.slow),
        pytest.param("convert", True, 1, 4, marks=pytest.mark.slow),
        pytest.param("extract", True, 1, 3, marks=pytest.mark.slow),
    ],
)
def test_after_a_kill_at_any_point_the_next_run_ends_with_the_same_bytes(
    what: str, updated: bool, workers: int, kills: int, penn: Any, step: Run, tmp_path: Path, into: Any
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    if updated:  # a cache with features; then one video goes, one loses a picture and one comes
        step("convert", penn.raw, before)
        step("extract", penn.raw, before)
        penn.add("0007")
        penn.remove("0005")
        (penn.frames("0003") / "000008.jpg").unlink()
    if what == "extract":
        step("convert", penn.raw, before)

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(before, tmp_path / name))

    calm = fresh("calm")
    old = numbers(penn, calm, into)
    n_syncs = step(what, penn.raw, calm, workers=workers)
    expected, new = into.tree(calm), numbers(penn, calm, into)
    assert old != new
    seen = []
    for point in np.unique(np.linspace(1, n_syncs, kills).round()).astype(int).tolist():
        root = fresh(f"killed-{point}")
        assert step(what, penn.raw, root, kill_at=point, workers=workers) == -9
        seen.append(numbers(penn, root, into))
        assert seen[-1] in (old, new), f"a mixture after {point} syncs"
        if (root / "zarr.json").is_file():
            assert cache.verify(root).ok
        step(what, penn.raw, root, workers=workers)
        assert into.tree(root) == expected, f"other bytes after a kill at sync {point} of {n_syncs}"
        assert cache.verify(root).ok
    assert old in seen  # some kills came before the commit, and some after it
    assert new in seen


def test_videos_that_a_killed_conversion_had_finished_are_not_read_again(penn, step, tmp_path, into, reads):
    n_syncs = step("convert", penn.raw, tmp_path / "calm")
    assert step("convert", penn.raw, penn.root, kill_at=n_syncs // 4) == -9
    records = sorted((penn.root / penn.name / ".writing/journal").glob("*/*.json"))
    finished = [v["name"] for file in records for v in json.loads(file.read_text().partition(" ")[2])["videos"]]
    assert 0 < len(finished) < 6
    reads.clear()
    reported: list[tuple[int, int]] = []
    convert.convert(penn.plan(), progress=lambda done, total, message="": reported.append((done, total)))
    assert finished + reads.names == [f"{number:04d}" for number in range(1, 7)]
    assert reported[0] == (len(finished), 6)
    assert into.tree(penn.root) == into.tree(tmp_path / "calm")
