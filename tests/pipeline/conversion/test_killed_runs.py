"""kill -9 at any point, and started again: the same arrays and manifests, to the byte, as an undisturbed run."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.conversion import convert
from pipeline.features import extract
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.raw import changes

ROOT = Path(__file__).parents[3]
PENN = "penn_action/train"

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
        features.extract(features.plan_extraction(root, "penn_action/train", spec))
    return count

if __name__ == "__main__":
    what, raw, root, kill_at, workers = sys.argv[1:]
    main(what, Path(raw), Path(root), int(kill_at), int(workers))
"""

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Do one step here, and return its number of fsyncs; or in a process of its own, until it is killed."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    for target in ("cache.write.split_writer.ROWS_PER_SHARD", "cache.write.split_writer.ROWS_PER_CHUNK"):
        monkeypatch.setattr(target, 8)  # what the driver sets; afterwards all is as it was
    monkeypatch.setattr(ResNet50, "load", ResNet50.load)
    monkeypatch.setattr(os, "fsync", os.fsync)
    here: Callable[..., int] = runpy.run_path(str(script))["main"]

    def start(what: str, raw: Path, root: Path, *, kill_at: int = 0, workers: int = 1) -> int:
        if not kill_at:
            return here(what, raw, root, 0, workers)
        command = [sys.executable, "-W", "error", str(script), what, str(raw), str(root), str(kill_at), str(workers)]
        told = tmp_path / "stderr.txt"  # a pipe would be held open by the workers of the killed process
        with told.open("w") as stderr:
            ended = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=stderr)
        assert ended.returncode == -signal.SIGKILL, told.read_text()
        return -signal.SIGKILL

    return start


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """Embedded Penn Action: 24 rows in train, three shards of 8."""
    return embedded.copy("penn_action", tmp_path / "penn_action")


def spread(n_syncs: int, kills: int) -> list[int]:
    """Points from the first fsync to the last."""
    return [int(point) for point in np.unique(np.linspace(1, n_syncs, kills).round())]


def as_seen(root: Path, into: Any) -> Any:
    """What a reader sees of the split and its stream: all its numbers."""
    if not (root / PENN / "manifest.json").is_file():
        return None
    split = cache.open(root)[PENN]
    columns = [*split.columns, *(f"features/{stream}" for stream in split.streams)]
    return [(c, track, rows.tobytes()) for c in columns for track, rows in into.rows(root, PENN, c).items()]


def survive(
    kills: int, run: Run, what: str, raw: Path, before: Path | None, tmp_path: Path, into: Any, **options: int
) -> None:
    """Undisturbed once; then killed at each of several points, looked at, and run again to the end."""

    def fresh(name: str) -> Path:
        root = tmp_path / name
        if before is not None:
            shutil.copytree(before, root)
        return root

    calm = fresh("calm")
    old = as_seen(calm, into)
    n_syncs = run(what, raw, calm, **options)
    expected, new = into.tree(calm), as_seen(calm, into)
    assert old != new
    seen = []
    for point in spread(n_syncs, kills):
        root = fresh(f"killed-{point}")
        assert run(what, raw, root, kill_at=point, **options) == -9
        seen.append(as_seen(root, into))
        assert seen[-1] in (old, new), f"a mixture after {point} syncs"
        if (root / "zarr.json").is_file():
            assert cache.verify(root).ok
        run(what, raw, root, **options)
        assert into.tree(root) == expected, f"other bytes after a kill at sync {point} of {n_syncs}"
        assert cache.verify(root).ok
    assert old in seen  # some kills came before the commit, and some after it
    assert new in seen


def test_a_killed_first_conversion(penn: Path, run: Run, tmp_path: Path, into: Any) -> None:
    survive(5, run, "convert", penn, None, tmp_path, into)


@pytest.mark.slow
def test_a_killed_conversion_with_workers(penn: Path, run: Run, tmp_path: Path, into: Any) -> None:
    survive(2, run, "convert", penn, None, tmp_path, into, workers=2)
    assert run("convert", penn, tmp_path / "alone") > 0
    assert into.tree(tmp_path / "alone") == into.tree(tmp_path / "calm")


@pytest.fixture
def changed(penn: Path, run: Run, tmp_path: Path) -> Path:
    """A cache with features, of whose raw videos one has gone, one lost a picture and one came since."""
    root = tmp_path / "earlier"
    away: Sequence[Path] = (penn / "labels/0001.mat", penn / "frames/0001")
    for path in away:
        path.rename(tmp_path / path.name)
    run("convert", penn, root)
    run("extract", penn, root)
    for path in away:
        (tmp_path / path.name).rename(path)
    (penn / "frames/0003/000008.jpg").unlink()
    (penn / "labels/0005.mat").unlink()
    shutil.rmtree(penn / "frames/0005")
    return root


@pytest.mark.slow
def test_a_killed_update(penn: Path, changed: Path, run: Run, tmp_path: Path, into: Any) -> None:
    survive(4, run, "convert", penn, changed, tmp_path, into)
    rows = into.rows(tmp_path / "calm", PENN, "frame_index")
    assert {track: len(frames) for track, frames in rows.items()} == {"0001/0": 8, "0003/0": 7}


def test_a_killed_extraction(penn: Path, run: Run, tmp_path: Path, into: Any) -> None:
    run("convert", penn, tmp_path / "converted")
    survive(5, run, "extract", penn, tmp_path / "converted", tmp_path, into)


@pytest.mark.slow
def test_a_killed_extraction_of_an_updated_split(
    penn: Path, changed: Path, run: Run, tmp_path: Path, into: Any
) -> None:
    run("convert", penn, changed)
    survive(3, run, "extract", penn, changed, tmp_path, into)


def test_what_a_killed_conversion_had_finished_is_not_read_again(
    penn: Path, run: Run, tmp_path: Path, into: Any, reads: Any
) -> None:
    n_syncs = run("convert", penn, tmp_path / "calm")
    assert run("convert", penn, tmp_path / "cache", kill_at=n_syncs // 4) == -9
    lines = (tmp_path / "cache" / PENN / ".writing/journal.jsonl").read_text().splitlines()[1:]
    finished = [video["name"] for line in lines for video in json.loads(line.partition(" ")[2])["videos"]]
    assert 0 < len(finished) < 6
    dataset = datasets.get("penn_action")
    reads.clear()
    told: list[tuple[int, int]] = []
    plan = convert.plan_conversion(dataset, "train", raw=penn, root=tmp_path / "cache")
    convert.convert(plan, progress=lambda done, total, message="": told.append((done, total)))
    assert finished + reads.names == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert told[0] == (len(finished), 6)
    assert into.tree(tmp_path / "cache") == into.tree(tmp_path / "calm")


@pytest.mark.slow
def test_after_a_kill_at_any_point_the_next_plan_but_one_reads_no_content(
    penn: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cache"
    n_syncs = run("convert", penn, tmp_path / "calm")
    dataset = datasets.get("penn_action")
    for back in (1, 3):  # around the commit: stamps and manifest are two files
        shutil.rmtree(root, ignore_errors=True)
        assert run("convert", penn, root, kill_at=n_syncs - back) == -9
        run("convert", penn, root)
        with monkeypatch.context() as patch:
            patch.setattr(changes, "video_digest", lambda *_: pytest.fail("read content"))
            assert convert.plan_conversion(dataset, "train", raw=penn, root=root).up_to_date


def test_an_extraction_with_other_weights_does_not_go_on_from_a_killed_one(
    penn: Path, run: Run, tmp_path: Path, into: Any, request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "cache"
    run("convert", penn, root)
    calm = Path(shutil.copytree(root, tmp_path / "calm"))
    n_syncs = run("extract", penn, calm)
    assert run("extract", penn, root, kill_at=n_syncs // 3) == -9
    assert (root / PENN / "features/resnet50/.writing/journal.jsonl").is_file()
    network = request.getfixturevalue("network")
    done = into.extract(root, precision="fast")
    assert (done.computed, len(network.batches)) == (24, 2)
    assert cache.verify(root).ok
    assert extract.is_current(cache.open(root)[PENN], "resnet50")
