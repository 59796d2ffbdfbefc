"""An extraction killed at random moments, in whole or in part, and started again: the same bytes, little done twice."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline.features import extract as features
from pipeline.features.engine.shards import OpenShards
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from tests.pipeline.features.conftest import write_split

ROOT = Path(__file__).parents[3]
SPLIT = "penn_action/train"
SHARD = 8  # rows
LENGTHS = (30, 7, 8, 50, 21)  # frames of the videos; their tracks go across the ends of shards
JOURNAL = f"{SPLIT}/features/colour/.writing/journal"

# What a killed process runs: `rows done of rows` as it goes on, and at last what was computed.
RUNNER = """
import os, signal, sys, time
from pathlib import Path
import cache
import made_up
from pipeline.features import extract as features
from pipeline.features.engine import run
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec

def slowly(self, crops):
    time.sleep(0.02)
    return mean(self, crops)

mean, made_up._Mean.__call__ = made_up._Mean.__call__, slowly
resources = Resources(batch_size=4, workers=int(sys.argv[2]))
if sys.argv[3:] == ["dies"]:  # when three checkpoints are written
    run.CHECKPOINT_EVERY, write, written = 0.0, cache.StreamShards.checkpoint, []
    def checkpoint(*args):
        write(*args)
        written.append(args)
        len(written) < 3 or os.kill(os.getpid(), signal.SIGKILL)
    cache.StreamShards.checkpoint = checkpoint
plan = plan_extraction(Path(sys.argv[1]), "penn_action/train", StreamSpec("colour", made_up.Colour()))
report = lambda rows, total, message="": print(rows, total, flush=True)
(done,) = features.extract_together([plan], resources, progress=report)
print("computed", done.computed, done.carried, sum(done.problems.values()))
"""


@pytest.fixture(scope="module")
def runner(on_path: Path) -> Path:
    (on_path / "runner.py").write_text(RUNNER)
    return on_path / "runner.py"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("small"), SHARD)


def convert(folder: Path, rows_per_shard: int) -> Path:
    """A cache of small noisy pictures, with a second person in every video; one picture is cut short."""
    raw, root, rng = folder / "raw", folder / "cache", np.random.default_rng(5)
    for number, n_frames in enumerate(LENGTHS):
        (raw / f"{number}").mkdir(parents=True)
        for frame in range(n_frames):
            picture = rng.integers(0, 256, (40, 40, 3), np.uint8)
            cv2.imwrite(str(raw / f"{number}/{frame:06d}.jpg"), picture)
    cut = raw / "3/000005.jpg"
    cut.write_bytes(cut.read_bytes()[:-50])

    def track(video: int, person: int, length: int) -> cache.TrackRows:
        bbox = np.tile(np.array([20 + person, 20, 20, 30], np.float32), (length, 1))
        columns = {"frame_index": np.arange(length), "bbox": bbox}
        about: dict[str, Any] = {"name": f"{video}/{person}", "video": f"{video}", "columns": columns}
        return cache.TrackRows(**about, step=1, fps=30.0, crop_scale=1.2)

    tracks = {f"{i}": [track(i, 0, n), track(i, 1, n // 3)] for i, n in enumerate(LENGTHS)}
    write_split(root, SPLIT, raw, tracks, 40, rows_per_shard=rows_per_shard)
    return root


class Running:
    """One extraction in a process of its own."""

    def __init__(self, root: Path, runner: Path, workers: int = 2, *options: str) -> None:
        self.root = root
        self._told = root.parent / f"{root.name}.txt"
        with self._told.open("w") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(runner), str(root), str(workers), *options],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(runner.parent), str(ROOT)])},
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )

    @property
    def journalled(self) -> list[int]:
        """Shards that are kept, whatever comes."""
        texts = [file.read_text() for file in sorted((self.root / JOURNAL).glob("*/[0-9]*.json"))]
        return [json.loads(text.partition(" ")[2])["shard"] for text in texts]

    def until(self, what: Callable[[], bool], within: float = 30) -> None:
        end = time.monotonic() + within
        while not what():
            assert self.process.poll() is None, self._told.read_text()
            assert time.monotonic() < end
            time.sleep(0.002)

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, self._told.read_text()

    def finish(self) -> tuple[int, int, int, int]:
        """(rows that were pending, computed, carried over, given up)."""
        assert self.process.wait(60) == 0, self._told.read_text()
        told = self._told.read_text()
        pending = re.findall(r"^\d+ (\d+)$", told, re.MULTILINE)[-1]
        (ended,) = re.findall(r"^computed (\d+) (\d+) (\d+)$", told, re.MULTILINE)
        assert "rror" not in told
        return (int(pending), *map(int, ended))  # type: ignore[return-value]


@pytest.fixture
def start(converted: Path, runner: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(name: str, **options: Any) -> Running:
        root = tmp_path / name
        if not root.exists():
            shutil.copytree(converted, root)
        started.append(Running(root, runner, **options))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.mark.slow
def test_an_extraction_killed_again_and_again_ends_with_the_same_bytes(start: Any, into: Any) -> None:
    calm = start("calm", workers=1)
    n_rows = sum(LENGTHS) + sum(length // 3 for length in LENGTHS)
    assert calm.finish() == (n_rows, n_rows - 2, 0, 2)  # two persons are in the picture that is cut short
    split = cache.open(calm.root)[SPLIT]
    rows = np.concatenate([np.arange(track.start, track.stop) for track in split.tracks])
    live = np.bincount(rows // SHARD)
    expected = into.tree(calm.root)
    rng = random.Random(11)
    kept: list[int] = []
    for workers in (1, 3, 2):
        running, more = start("killed", workers=workers), 1 + rng.randrange(4)
        running.until(lambda: len(running.journalled) >= len(kept) + more)  # noqa: B023
        time.sleep(rng.random() / 20)
        running.kill()
        assert set(running.journalled) > set(kept)
        kept = running.journalled
    running = start("killed")
    pending, computed, carried, given_up = running.finish()
    lost = rows[np.asarray(split.column("features/colour_ok")[: rows.max() + 1])[rows] == 0] // SHARD
    assert (carried, given_up) == (0, (~np.isin(lost, kept)).sum())
    assert pending == computed + given_up == live.sum() - live[kept].sum()
    assert into.tree(running.root) == expected
    assert cache.verify(running.root).ok


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with fewer rows than a shard, as a folder of clips has."""
    return convert(tmp_path_factory.mktemp("one_shard"), 512)


@pytest.fixture
def colours(small: Path, made_up: Any, tmp_path: Path) -> Callable[[str], features.Extraction]:
    """Extract from a cache of that name, in this process."""

    def extract(name: str) -> features.Extraction:
        if not (tmp_path / name).exists():
            shutil.copytree(small, tmp_path / name)
        spec = StreamSpec("colour", made_up.Colour())
        return features.extract_together(
            [plan_extraction(tmp_path / name, SPLIT, spec)], Resources(batch_size=4, workers=1)
        )[0]

    return extract


def test_computed_rows_of_an_incomplete_shard_survive_sigkill(
    small: Path, runner: Path, into: Any, tmp_path: Path, colours: Any
) -> None:
    calm, root = colours("calm"), Path(shutil.copytree(small, tmp_path / "killed"))
    running = Running(root, runner, 1, "dies")
    assert running.process.wait(60) == -signal.SIGKILL
    report = cache.verify(root)
    assert report.ok
    assert [note for note in report.notes if "unfinished work" in note]
    assert "features/colour" in cache.gc(root).skipped[0]
    given_up = Path(shutil.copytree(root, tmp_path / "given_up"))
    assert [key.rpartition("/")[2] for key in cache.gc(given_up, unfinished=True).removed] == ["partial-0"]
    torn = Path(shutil.copytree(root, tmp_path / "torn"))
    (file,) = (torn / SPLIT).rglob("partial-0")
    file.write_bytes(file.read_bytes()[:-100])
    again = colours("torn")
    assert (again.kept, again.computed) == (0, calm.computed)
    assert into.tree(torn) == into.tree(tmp_path / "calm")

    again = colours("killed")
    assert again.kept >= 3 * 4 - 2  # batches of 4 rows, of which two cannot be decoded
    assert (again.computed, again.carried) == (calm.computed - again.kept, 0)
    assert again.problems == calm.problems
    assert into.tree(root) == into.tree(tmp_path / "calm")
    assert cache.verify(root).notes == ()


def test_ctrl_c_keeps_every_computed_row_and_the_next_command_says_so(small, tmp_path, monkeypatch, run, ran, capsys):
    root = shutil.copytree(small, tmp_path / "cache")
    words = ("extract", *SPLIT.split("/"), "--cache", root, "--kind", "homography", "--workers", 1)
    store, batches = OpenShards.store, []

    def store_or_stop(*args: Any) -> None:
        store(*args)
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenShards, "store", store_or_stop)
        assert run(*words) == 130
    assert "interrupted: computed rows are kept" in capsys.readouterr().err
    assert re.search(r"0 carried over, \d\d kept of an interrupted run", ran(*words).out)
    assert run("verify", "--cache", root) == 0


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_interrupted_command_reports_it_and_leaves_no_process(
    made_up: Any, converted: Path, tmp_path: Path, stopped: bool
) -> None:
    root = Path(shutil.copytree(converted, tmp_path / "cache"))
    command = [sys.executable, "-m", "pipeline", "extract", *SPLIT.split("/"), "--cache", str(root)]
    with subprocess.Popen(
        [*command, "--kind", "homography", "--workers", "2"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        end = time.monotonic() + 30
        while not (held := made_up.decoders_of(process.pid)) and time.monotonic() < end:
            time.sleep(0.002)
        assert held
        for one in held if stopped else ():  # as a decoder that hangs
            os.kill(one, signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate()[1]
        assert process.returncode == 130, told
        assert made_up.decoders_of(process.pid) == []
    assert "interrupted: computed rows are kept" in told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
